"""Does the jobs of a plan, in this process or side by side in several; the results are the same bits."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cliqa_bench.claims import Taken
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import OutOfMemory, UserError
from cliqa_bench.jobs import Job, longest_first
from cliqa_bench.progress import bar

if TYPE_CHECKING:
    from cliqa_bench.planner import Plan
    from cliqa_bench.worker import Worker

MakePlan = Callable[[RunConfig], "Plan"]
"""Lays out the plan of a configuration, in a process of its own; a function of a module."""


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        failed: Job -> what went wrong, in one line; nothing of it was written.
        skipped: Jobs that needed one of those.
    """

    failed: dict[Job, str] = field(default_factory=dict)
    skipped: list[Job] = field(default_factory=list)

    def fail(self, job: Job, reason: str) -> None:
        """Notes a failure."""
        self.failed[job] = reason
        tqdm.write(f"failed: {job.title}: {reason}", file=sys.stderr)


class _Queue:
    """The jobs that are left, handed out when those they need are done."""

    def __init__(self, jobs: list[Job], outcome: Outcome) -> None:
        self.left = {job.key: job for job in jobs}
        self._behind = longest_first(jobs)
        self.taken: set[str] = set()  # what another run was found at
        self._lost: set[str] = set()
        self._outcome = outcome

    def ready(self, running: set[str]) -> list[Job]:
        """Returns the jobs that can start, the most urgent first; drops those that never can."""
        for job in list(self.left.values()):
            if any(needed.key in self._lost for needed in job.after):
                self._lost.add(job.key)
                self._outcome.skipped.append(self.left.pop(job.key))
        ready = [
            job
            for job in self.left.values()
            if job.key not in running and not any(needed.key in self.left for needed in job.after)
        ]
        # what another run is at comes last: by the time that nothing else is left, it may be done
        return sorted(ready, key=lambda job: (job.key in self.taken, -self._behind[job.key]))

    def done(self, job: Job) -> None:
        del self.left[job.key]

    def lost(self, job: Job) -> None:
        del self.left[job.key]
        self._lost.add(job.key)


def work_off(
    plan: Plan, make: MakePlan, facts: dict[str, Any], jobs: list[Job], n: int, ready: Callable[[], None]
) -> Outcome:
    """Does jobs; one that fails is named and takes only those with it that need it.

    Args:
        plan: The plan.
        make: Lays out the same plan from its configuration.
        facts: Versions and the like; go into every node's `done.json`.
        jobs: What to do, each after those it needs; the first checks weights and device.
        n: Number of processes; 1 stays in this one.
        ready: Called once that first job is done.

    Raises:
        UserError: If weights, device or data are wrong, or the disk cannot be written; the rest is left.
    """
    outcome = Outcome()
    queue = _Queue(jobs, outcome)
    with bar(sum(job.images for job in jobs), "run", "image") as shown:
        if n == 1:
            _alone(plan, facts, queue, outcome, shown, ready)
        else:
            _together(plan, make, facts, queue, outcome, shown, n, ready)
    return outcome


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _alone(
    plan: Plan,
    facts: dict[str, Any],
    queue: _Queue,
    outcome: Outcome,
    shown: tqdm[Any],
    ready: Callable[[], None],
) -> None:
    from cliqa_bench.worker import Worker

    worker = Worker(plan, facts, lambda images, text: _show(shown, images, text), tqdm.write)
    while jobs := queue.ready(set()):
        job = jobs[0]
        # refreshed with the next step: before the bar is due it must not appear
        shown.set_description(job.title, refresh=False)
        try:
            worker.do(job, wait=job.key in queue.taken)
        except UserError:
            raise
        except Taken:
            queue.taken.add(job.key)
        except Exception as error:
            if not isinstance(error, FloatingPointError | OutOfMemory):
                traceback.print_exc()
            outcome.fail(job, _reason(error))
            queue.lost(job)
        else:
            queue.done(job)
            if job.kind == "check":
                ready()


def _show(shown: tqdm[Any], images: int, text: str) -> None:
    shown.update(images)
    if text:
        shown.set_postfix_str(text, refresh=False)


# -- several processes ---------------------------------------------------------------------------------------


def _together(
    plan: Plan,
    make: MakePlan,
    facts: dict[str, Any],
    queue: _Queue,
    outcome: Outcome,
    shown: tqdm[Any],
    n: int,
    ready: Callable[[], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    news = context.Queue()
    listener = threading.Thread(target=_listen, args=(news, shown), daemon=True)
    listener.start()
    try:
        with _few_threads(plan.config):
            left = True
            while left:
                numbers = context.Queue()
                for number in range(n):
                    numbers.put(number)
                told = (make, plan.config, facts, numbers, news)
                executor = ProcessPoolExecutor(n, context, initializer=_start, initargs=told)
                left = _pool(executor, queue, outcome, shown, n, ready)
    finally:
        news.put(None)
        listener.join()


def _pool(
    executor: ProcessPoolExecutor,
    queue: _Queue,
    outcome: Outcome,
    shown: tqdm[Any],
    n: int,
    ready: Callable[[], None],
) -> bool:
    """Works off the queue in one pool; returns whether work is left because a process of it died."""
    running: dict[Future[str], Job] = {}
    try:
        while True:
            names = {job.key for job in running.values()}
            # no more than there are processes: what is under way when one of them dies is then known
            for job in queue.ready(names)[: n - len(running)]:
                running[executor.submit(_do, job, job.key in queue.taken)] = job
            if not running:
                executor.shutdown()
                return False
            shown.set_description(" | ".join(job.title for job in running.values())[:70], refresh=False)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    failure = future.result()
                except Taken:
                    queue.taken.add(job.key)
                    continue
                except BrokenProcessPool:
                    running[future] = job
                    raise
                if failure:
                    outcome.fail(job, failure)
                    queue.lost(job)
                else:
                    queue.done(job)
                    if job.kind == "check":
                        ready()
    except BrokenProcessPool:
        executor.shutdown()
        for job in running.values():  # which of them took the process along cannot be told
            outcome.fail(job, "its process died (killed, or out of memory: try a smaller --jobs)")
            queue.lost(job)
        return True
    except BaseException:  # nothing half done stands under a final name: they need no farewell
        for child in multiprocessing.active_children():
            child.kill()
        executor.shutdown(cancel_futures=True)
        raise


@contextlib.contextmanager
def _few_threads(config: RunConfig) -> Iterator[None]:
    """Sets what libraries read when a process starts: idle threads of theirs would spin on busy cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(config.threads or 1)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _listen(news: Any, shown: tqdm[Any]) -> None:
    """Shows what the processes tell, until told to stop."""
    while (told := news.get()) is not None:
        images, text = told
        if images is None:
            tqdm.write(text)
        else:
            _show(shown, images, text)


_worker: Callable[[], Worker]


def _start(make: MakePlan, config: RunConfig, facts: dict[str, Any], numbers: Any, news: Any) -> None:
    """Readies a process of the pool; what costs time or can go wrong waits for the first job."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes
    threading.Thread(target=_die_with_parent, daemon=True).start()
    made: list[Worker] = []

    def tick(images: int, text: str) -> None:
        news.put((images, text))

    def say(text: str) -> None:
        news.put((None, text))

    number = numbers.get()

    def worker() -> Worker:
        if not made:
            plan = make(config)
            from cliqa_bench.worker import Worker

            made.append(Worker(plan, facts, tick, say, number))
        return made[0]

    _worker = worker


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(job: Job, wait: bool) -> str:
    """Does a job in a process of the pool; returns what went wrong, "" for nothing."""
    try:
        _worker().do(job, wait)
    except (UserError, Taken):
        raise
    except Exception as error:
        if not isinstance(error, FloatingPointError | OutOfMemory):
            traceback.print_exc()
        return _reason(error)
    return ""
