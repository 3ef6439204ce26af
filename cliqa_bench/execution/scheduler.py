"""Does the jobs of a plan, in this process or in several at once; the results have the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cliqa_bench.config import LOCAL
from cliqa_bench.execution.job_progress import JobProgress
from cliqa_bench.execution.job_queue import JobQueue, Outcome
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.pools import new_pool
from cliqa_bench.execution.worker_processes import MakePlan, Progress, Result, attempt
from cliqa_bench.results.nodes import CLAIMS, clean_partial
from cliqa_bench.system.locks import say_if_leased

if TYPE_CHECKING:
    from cliqa_bench.execution.plan import Plan


def run_jobs(
    plan: Plan, make: MakePlan, facts: dict[str, Any], jobs: list[Job], n: int, ready: Callable[[], None]
) -> Outcome:
    """Does jobs; one that fails is named, and only those that depend on it are skipped.

    What another run on the same folder is doing at the moment is left to it: this one does something else
    first, then waits for it, and does it itself where the other has died.

    Args:
        plan: The plan.
        make: Lays out the same plan from its configuration.
        facts: Versions and the like; go into every node's `done.json`.
        jobs: What to do, each after those it needs; the first checks weights and device.
        n: Number of processes; 1 stays in this one, if the executor is "local".
        ready: Called once that first job is done.

    Raises:
        UserError: If weights, device or data are wrong, or the disk cannot be written; the rest is left.
    """
    outcome = Outcome()
    queue = JobQueue(plan.config.out, jobs, outcome, ready)
    say_if_leased(plan.config.out / CLAIMS)
    try:
        with JobProgress(jobs, queue.left, n) as shown:
            if n == 1 and plan.config.executor == LOCAL:
                _alone(plan, facts, queue, shown)
            else:
                _together(plan, make, facts, queue, shown, n)
            for job in outcome.skipped:
                shown.skip(job)
    finally:
        clean_partial(plan.config.out)  # after what its processes were doing when they were ended
    return outcome


def _alone(plan: Plan, facts: dict[str, Any], queue: JobQueue, shown: JobProgress) -> None:
    from cliqa_bench.execution.worker import Worker

    at: list[Job] = []

    def tick(images: int, text: str, part: str) -> None:
        shown.tell(at[-1], Progress(images, text, part=part))

    worker = Worker(plan, facts, tick, tqdm.write)
    while queue.left:
        job = queue.next()
        if job is None:
            queue.rest()
            continue
        at[:] = [job]
        shown.begin(job)
        result = attempt(lambda: worker, job, plan.config.out)
        shown.end(job, result)
        queue.take(job, result)


def _together(
    plan: Plan, make: MakePlan, facts: dict[str, Any], queue: JobQueue, shown: JobProgress, n: int
) -> None:
    pool = new_pool(make, plan.config, facts)
    try:
        pool.start(range(n))
        while queue.left:
            while pool.idle and (job := queue.next()) is not None:
                pool.submit(job)
                shown.begin(job)
            if not pool.running and queue.pause() is not None:
                queue.rest()
                continue
            shown.share(len(pool.running) + pool.idle)
            for job, told in pool.events(queue.pause()):
                if isinstance(told, Result):
                    shown.end(job, told)
                    queue.take(job, told)
                elif told.line:
                    tqdm.write(told.line)
                else:
                    shown.tell(job, told)
    finally:
        pool.end()
