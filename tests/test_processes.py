import os
import signal
import subprocess
import sys
import time

import pytest

from cliqa_bench.errors import UserError
from cliqa_bench.system.processes import call, processes

STOPPED = """
import os, signal, time
from cliqa_bench.system.processes import processes
from cliqa_bench.system.signals import stoppable

if __name__ == "__main__":
    try:
        with stoppable("again"), processes(2) as spread:
            for done, _ in enumerate(spread.map(time.sleep, [0.01] * 6 + [30] * 60)):
                if done == 4:
                    signal.setitimer(signal.ITIMER_REAL, 0.3)
                    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.parametrize("number", [1, 2])
def test_outcomes_come_in_the_order_of_the_items(number: int) -> None:
    with processes(number) as spread:
        assert list(spread.map(abs, range(-30, 0))) == list(range(30, 0, -1))
        assert list(spread.map(abs, [])) == []


def test_stopped_they_end_at_once_and_without_a_word(tmp_path) -> None:
    program = tmp_path / "stopped.py"  # a file: what is spawned reads it again
    program.write_text(STOPPED)
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 0)
    assert time.monotonic() - began < 25  # no item of 30 seconds was waited for


def test_one_that_is_killed_is_told_of() -> None:
    with pytest.raises(UserError, match="a process was killed"), processes(2) as spread:
        list(spread.map(_killed, [0] * 4))


def _killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_function_raises_comes_out_and_says_where() -> None:
    with pytest.raises(ZeroDivisionError) as caught, processes(2) as spread:
        list(spread.map(_inverse, [2, 1, 0]))
    assert "in _inverse" in "".join(caught.value.__notes__)


def _inverse(n: int) -> float:
    return 1 / n


def test_the_same_processes_do_one_thing_after_the_other() -> None:
    with processes(2) as spread:
        first = set(spread.map(_who, range(20)))
        assert set(spread.map(_who, range(20))) == first and len(first) == 2


def _who(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


ORPHANED = """
import os, signal, sys
from cliqa_bench.system.processes import processes

def work(_):
    os.write(1, b"%d\\n" % os.getpid())  # at once: print may write the end of the line apart
    signal.pause()

if __name__ == "__main__":
    with processes(2) as spread:
        list(spread.map(work, [0, 0]))
"""


def test_they_end_with_who_started_them(tmp_path) -> None:
    from test_pool import alive  # not above: it imports PyTorch, and children import this file

    program = tmp_path / "orphaned.py"
    program.write_text(ORPHANED)
    run = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert run.stdout is not None
    pids = [int(run.stdout.readline()) for _ in range(2)]
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_a_call_has_a_process_of_its_own_and_raises_what_is_raised_there() -> None:
    with call(int, "x") as wait, pytest.raises(ValueError, match="invalid literal"):
        wait()
    with call(abs, -3) as three, call(abs, -4) as four:
        assert (four(), three()) == (4, 3)
    with call(os._exit, 9) as killed, pytest.raises(UserError, match="a process was killed"):
        killed()
    with call(_process, 0) as process:
        assert process() != os.getpid()


def test_a_call_ends_with_its_block() -> None:
    began = time.monotonic()
    with call(time.sleep, 60):
        pass
    assert time.monotonic() - began < 50


def _process(number: int) -> int:
    return os.getpid()
