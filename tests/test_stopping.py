import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import chaos_process as lab
import pytest

from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.worker_processes import attempt
from cliqa_bench.system.signals import Terminated, raise_if_stopped, stoppable

Send = Callable[[int, int], None]


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


LEARN = ["run", "--strategy", "tsn", "--orders", "bid,clive", "--weights", "random", "--device", "cpu"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
@pytest.mark.parametrize(
    ("words", "begun", "number", "second", "code"),
    [
        pytest.param(
            ["data", "make", "{out}"], ".*~*", signal.SIGTERM, os.killpg, 143, marks=pytest.mark.slow
        ),
        (["data", "make", "{out}"], ".*~*", signal.SIGINT, os.killpg, 130),
        ([*LEARN, "--jobs", "2", "--out", "{out}"], "claims", signal.SIGTERM, os.killpg, 143),
    ],
)
def test_a_stop_that_comes_twice_ends_in_one_line_and_leaves_nothing(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    words: list[str],
    begun: str,
    number: int,
    second: Send,
    code: int,
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    out.mkdir()
    words = [word.format(out=out) for word in words]
    if "run" in words:
        words += ["--data", str(request.getfixturevalue("miniatures"))]
    run = lab.start(words, cache, tmp_path / "log", cold=True, hook=None)
    while not (len(lab.children(run.pid)) > 1 and list(out.glob(begun))) and not run.ended():
        time.sleep(0.01)
    os.kill(run.pid, number)  # as `timeout`, Slurm and container runtimes do it
    time.sleep(0.02)  # long enough that the system does not make one signal of both
    second(run.pid, number)
    assert run.wait() == code, run.said()
    said = run.said()
    assert said.count("interrupted; run the same command to resume") == 1, said
    assert "Traceback" not in said and "leaked" not in said, said
    assert not run.orphans()
    assert not [path for path in lab.leftovers(out, cache) if "/checkpoints/" not in path]
