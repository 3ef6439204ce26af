"""What does the jobs of a run, processes of this machine or a Dask cluster: known here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from cliqa_bench.config import LOCAL, RunConfig
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.worker_processes import MakePlan, Progress, Result, WorkerPool


class JobPool(Protocol):
    """What does jobs side by side."""

    def start(self, numbers: Iterable[int]) -> None:
        """Starts the workers, one for each number.

        Raises:
            UserError: If no worker can do the work.
        """

    @property
    def running(self) -> list[Job]:
        """The jobs that are under way."""

    @property
    def idle(self) -> int:
        """How many are idle."""

    def submit(self, job: Job) -> None:
        """Hands a job to an idle one."""

    def events(self, timeout: float | None) -> Iterator[tuple[Job, Progress | Result]]:
        """Waits for the next event, at most for some seconds (None for any time), and returns it.

        A job whose process died has "died" the first time, and "failed" the second time.

        Raises:
            UserError: If there will be no further event.
        """

    def end(self) -> None:
        """Ends all at once."""


def check_executor(config: RunConfig) -> None:
    """Refuses an executor that is not there, before anything is read or written.

    Raises:
        UserError: If its package is missing, or nothing answers at its address.
    """
    if config.executor != LOCAL:
        from cliqa_bench.execution.dask_pool import check_scheduler

        check_scheduler(config.executor)


def new_pool(make: MakePlan, config: RunConfig, facts: dict[str, Any]) -> JobPool:
    """Returns the pool of a run's executor, not started yet; the arguments are those of `WorkerPool`."""
    if config.executor == LOCAL:
        return WorkerPool(make, config, facts)
    from cliqa_bench.execution.dask_pool import DaskPool

    return DaskPool(make, config, facts)
