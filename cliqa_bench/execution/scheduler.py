"""Does the jobs of a plan, in this process or side by side in several; the results are the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cliqa_bench.errors import UserError
from cliqa_bench.execution.job_progress import JobProgress
from cliqa_bench.execution.jobs import Job, longest_first
from cliqa_bench.execution.worker_processes import MakePlan, Progress, Result, WorkerPool, attempt, claim_of
from cliqa_bench.progress import say, warn
from cliqa_bench.results.nodes import CLAIMS, clean_partial
from cliqa_bench.system.locks import owner, say_if_leased

if TYPE_CHECKING:
    from cliqa_bench.execution.plan import Plan

PAUSE = 1.0
"""Seconds after which we look again whether another run has finished a job."""


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        failed: Job -> what went wrong, in one line; nothing of it was written.
        skipped: Jobs that needed one of those.
    """

    failed: dict[Job, str] = field(default_factory=dict)
    skipped: list[Job] = field(default_factory=list)

    def fail(self, job: Job, result: Result) -> None:
        """Notes a failure."""
        self.failed[job] = result.reason
        if result.trace:
            warn(result.trace.rstrip("\n"))
        warn(f"failed: {job.title}: {result.reason}")


class _Queue:
    """The jobs that are left, handed out when those they need are done.

    Args:
        plan: The plan.
        jobs: What to do, each after those it needs.
        outcome: Gets what fails.
        ready: Called once the first job is done.
    """

    def __init__(self, plan: Plan, jobs: list[Job], outcome: Outcome, ready: Callable[[], None]) -> None:
        self.left = {job.key: job for job in jobs}
        self._out = plan.config.out
        self._behind = longest_first(jobs)
        self._lost: set[str] = set()
        self._later: dict[str, float] = {}
        self._told = False
        self._outcome, self._ready = outcome, ready

    def ready(self, running: set[str]) -> list[Job]:
        """Returns the jobs that can start, the most urgent first; drops those that never can."""
        for job in list(self.left.values()):
            if any(needed.key in self._lost for needed in job.after):
                self._lost.add(job.key)
                self._outcome.skipped.append(self.left.pop(job.key))
        now = time.monotonic()
        ready = [
            job
            for job in self.left.values()
            if job.key not in running
            and self._later.get(job.key, now) <= now
            and not any(needed.key in self.left for needed in job.after)
        ]
        return sorted(ready, key=lambda job: -self._behind[job.key])

    def take(self, job: Job, result: Result) -> None:
        """Notes what became of a job.

        Raises:
            UserError: If the run cannot go on.
        """
        self._later.pop(job.key, None)
        match result.kind:
            case "misuse":
                raise UserError(result.reason)
            case "taken":
                self._later[job.key] = time.monotonic() + PAUSE
            case "died":
                warn(f"{job.title}: {result.reason}; it is tried once more")
            case "failed":
                del self.left[job.key]
                self._lost.add(job.key)
                self._outcome.fail(job, result)
            case "done":
                del self.left[job.key]
                if job.kind == "check":
                    self._ready()

    def pause(self) -> float | None:
        """Returns the seconds until a job is looked at again that another run is at; None if none is."""
        return max(0.0, min(self._later.values()) - time.monotonic()) if self._later else None

    def rest(self) -> None:
        """Waits until then, because there is nothing else to do; says so once."""
        if not self._told:
            self._told = True
            job = self.left[min(self._later, key=self._later.__getitem__)]
            who = owner(claim_of(self._out, job))
            say(f"waiting for what another run on {self._out} does ({who}: {job.title})")
        time.sleep(self.pause() or 0)


def run_jobs(
    plan: Plan, make: MakePlan, facts: dict[str, Any], jobs: list[Job], n: int, ready: Callable[[], None]
) -> Outcome:
    """Does jobs; one that fails is named and takes only those with it that need it.

    What another run on the same folder is doing at the moment is left to it: this one does something else
    first, then waits for it, and does it itself where the other has died.

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
    queue = _Queue(plan, jobs, outcome, ready)
    say_if_leased(plan.config.out / CLAIMS)
    try:
        with JobProgress(jobs, queue.left, n) as shown:
            if n == 1:
                _alone(plan, facts, queue, shown)
            else:
                _together(plan, make, facts, queue, shown, n)
            for job in outcome.skipped:
                shown.skip(job)
    finally:
        clean_partial(plan.config.out)  # after what its processes were at when they were ended
    return outcome


def _alone(plan: Plan, facts: dict[str, Any], queue: _Queue, shown: JobProgress) -> None:
    from cliqa_bench.execution.worker import Worker

    at: list[Job] = []

    def tick(images: int, text: str, part: str) -> None:
        shown.tell(at[-1], Progress(images, text, part=part))

    worker = Worker(plan, facts, tick, tqdm.write)
    while True:
        if jobs := queue.ready(set()):
            at[:] = jobs[:1]
            shown.begin(jobs[0])
            result = attempt(lambda: worker, jobs[0], plan.config.out)
            shown.end(jobs[0], result)
            queue.take(jobs[0], result)
        elif queue.left:
            queue.rest()
        else:
            return


def _together(
    plan: Plan, make: MakePlan, facts: dict[str, Any], queue: _Queue, shown: JobProgress, n: int
) -> None:
    pool = WorkerPool(make, plan.config, facts)
    try:
        pool.start(range(n))
        while True:
            for job in queue.ready({job.key for job in pool.running})[: pool.idle]:
                pool.submit(job)
                shown.begin(job)
            if pool.running:
                for job, told in pool.events(queue.pause()):
                    if isinstance(told, Result):
                        shown.end(job, told)
                        queue.take(job, told)
                    elif told.line:
                        tqdm.write(told.line)
                    else:
                        shown.tell(job, told)
            elif queue.left:
                queue.rest()
            else:
                return
    finally:
        pool.end()
