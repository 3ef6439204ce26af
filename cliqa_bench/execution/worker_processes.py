"""Jobs done in this process or in others, each by one run at a time, and their outcome."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import Job
from cliqa_bench.extensions.user_traceback import format_error, is_users
from cliqa_bench.results.nodes import CLAIMS, claim_name
from cliqa_bench.system.disk import as_os_error
from cliqa_bench.system.hardware import gpu_names
from cliqa_bench.system.locks import claimed
from cliqa_bench.system.processes import Child, end_all
from cliqa_bench.system.signals import block_signals, raise_if_stopped

if TYPE_CHECKING:
    from cliqa_bench.execution.plan import Plan
    from cliqa_bench.execution.worker import Worker

MakePlan = Callable[[RunConfig], "Plan"]
"""Lays out the plan of a configuration, in a process of its own; a function of a module."""


class Result(NamedTuple):
    """The outcome of a job.

    Attributes:
        kind: "done"; "failed"; "died", with its process, and may be tried once more; "taken", by another
            run on the same folder; "misuse", which ends the run.
        reason: What went wrong, in one line.
        trace: The traceback, where it may be a bug; of what a user's own code raised, their lines.
    """

    kind: Literal["done", "failed", "died", "taken", "misuse"]
    reason: str = ""
    trace: str = ""


class Progress(NamedTuple):
    """What a job reports: images that passed, a text for the bar; or a line of its own.

    The images belong to a `part` of the job, see `jobs.JobPart`.
    """

    images: int
    text: str
    line: str = ""
    part: str = ""


# -- one job -------------------------------------------------------------------------------------------------


def claim_of(out: Path, job: Job) -> Path:
    """Returns the lock file of a job; two runs have the same name for the same work."""
    return out / CLAIMS / f"{claim_name(job.kind, job.net, job.about)}.lock"


def attempt(worker: Callable[[], Worker], job: Job, out: Path) -> Result:
    """Does a job, unless another run is at it.

    Args:
        worker: Gives who does it.
        job: The job. What another run has finished of it is left as it is.
        out: Folder of the results.
    """
    try:
        if job.kind == "check":  # writes nothing
            worker().do(job)
            return Result("done")
        with claimed(claim_of(out, job)) as ours:
            if not ours:
                return Result("taken")
            worker().do(job)
    except Exception as error:
        raise_if_stopped()
        if isinstance(error, UserError):
            return Result("misuse", str(error))
        expected = isinstance(error, FloatingPointError | MemoryError) or as_os_error(error)
        trace = "" if expected and not is_users(error) else format_error(error)
        return Result("failed", _reason(error), trace)
    return Result("done")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# -- several processes ---------------------------------------------------------------------------------------


@dataclass
class _Hand:
    """A process, its number, what it is doing, and whether it is still unused."""

    child: Child
    number: int
    job: Job | None = None
    fresh: bool = True


class Deaths(set[str]):
    """Keys of the jobs whose processes died; a job may die once."""

    def result(self, job: Job, reason: str) -> Result:
        """Notes a death; the result is "died" for the first death of a job, and "failed" for the second."""
        kind: Literal["died", "failed"] = "failed" if job.key in self else "died"
        self.add(job.key)
        return Result(kind, reason)


class WorkerPool:
    """Processes that do jobs.

    Args:
        make: Lays out the plan, in each of them.
        config: What the plan is of.
        facts: Versions and the like; go into every node's `done.json`.
    """

    def __init__(self, make: MakePlan, config: RunConfig, facts: dict[str, Any]) -> None:
        self._told = (make, config, facts)
        self._hands: list[_Hand] = []
        self._died = Deaths()

    def start(self, numbers: Iterable[int]) -> None:
        """Starts processes with these numbers, each its own."""
        for number in numbers:
            with _environment(self._told[1], number), block_signals():
                self._hands.append(_Hand(Child(_serve, number, *self._told), number))

    @property
    def running(self) -> list[Job]:
        """The jobs that are under way."""
        return [hand.job for hand in self._hands if hand.job is not None]

    @property
    def idle(self) -> int:
        """How many processes are idle."""
        return len(self._hands) - len(self.running)

    def submit(self, job: Job) -> None:
        """Hands a job to an idle process; to a fresh one if its last process died."""
        while True:
            idle = [hand for hand in self._hands if hand.job is None]
            hand = next((hand for hand in idle if hand.fresh), idle[0])
            if job.key in self._died and not hand.fresh:
                self._replace(hand)
                continue
            try:
                hand.child.pipe.send(job)
            except OSError:  # it was killed while it was idle: no job of ours is to blame
                self._replace(hand)
            else:
                hand.job, hand.fresh = job, False
                return

    def events(self, timeout: float | None) -> Iterator[tuple[Job, Progress | Result]]:
        """Waits for the next event and returns it; a process that died is reported and replaced.

        A job whose process died has "died" the first time, and "failed" the second time.

        Args:
            timeout: Seconds to wait at most; None for any time.
        """
        at_work = {hand.child.pipe: hand for hand in self._hands if hand.job is not None}
        for pipe in wait(list(at_work), timeout):
            hand = at_work[pipe]  # type: ignore[index]  # only pipes were given
            job = hand.job
            assert job is not None
            try:
                told = hand.child.pipe.recv()
            except (EOFError, OSError):
                hand.child.process.join()
                told = self._died.result(job, _how_it_died(hand.child.process.exitcode))
                self._replace(hand)
            if isinstance(told, Result):
                hand.job = None
            yield job, told

    def _replace(self, hand: _Hand) -> None:
        hand.child.end()
        self._hands.remove(hand)
        self.start([hand.number])

    def end(self) -> None:
        """Ends all processes at once."""
        end_all(hand.child for hand in self._hands)


def _how_it_died(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    if -code == signal.SIGKILL:
        name += ", as a system that is out of memory does; try a smaller --jobs"
    return f"its process died ({name})"


@contextlib.contextmanager
def _environment(config: RunConfig, number: int) -> Iterator[None]:
    """Sets what libraries read when a process starts.

    Idle threads of theirs would spin on busy cores; and of several GPUs, the process sees its own alone.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    wanted = dict.fromkeys(names, str(config.threads or 1))
    gpus = gpu_names() if config.device in ("auto", "cuda") else []
    if len(gpus) > 1:
        wanted["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# -- in such a process ---------------------------------------------------------------------------------------


def _serve(pipe: Connection, number: int, make: MakePlan, config: RunConfig, facts: dict[str, Any]) -> None:
    """Does the jobs that come through a pipe, until it is closed."""
    # while the first process checks weights and device, the others load PyTorch
    from cliqa_bench.execution import worker as work

    made: list[Worker] = []

    def tick(images: int, text: str, part: str) -> None:
        pipe.send(Progress(images, text, part=part))

    def say(line: str) -> None:
        pipe.send(Progress(0, "", line))

    def worker() -> Worker:
        if not made:
            plan = make(config)
            made.append(work.Worker(plan, facts, tick, say, number))
            tick(0, "", "")  # the time until here does not belong to the job
        return made[0]

    while True:
        job = pipe.recv()
        pipe.send(attempt(worker, job, config.out))
