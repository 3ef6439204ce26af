import os
import signal
from pathlib import Path
from unittest import mock

import pytest

from cliqa_bench.crew import attempt
from cliqa_bench.errors import UserError
from cliqa_bench.jobs import Job
from cliqa_bench.stopping import Terminated, raise_if_stopped, stoppable


@pytest.mark.parametrize("instead", [TypeError("cannot compare"), UserError("x.png is broken")])
def test_a_stop_that_a_library_swallowed_is_no_failure_of_the_job(tmp_path: Path, instead: Exception) -> None:
    def do(job: Job) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            raise instead from None

    with pytest.raises(Terminated), stoppable("again"):
        attempt(lambda: mock.Mock(do=do), mock.Mock(spec=Job, kind="train", net="n", about=""), tmp_path)
    raise_if_stopped()  # it is over


def test_without_a_stop_nothing_is_raised() -> None:
    with stoppable("again"):
        raise_if_stopped()
