"""The remaining jobs of a run, handed out when those they depend on are done."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import Job, longest_first
from cliqa_bench.execution.worker_processes import Result, claim_of
from cliqa_bench.progress import say, warn
from cliqa_bench.results.failures import forget_failure, note_failure
from cliqa_bench.system.locks import owner

MANY = 24
"""From so many trainings on, a model is scored as soon as it is trained."""

PAUSE = 1.0
"""Seconds after which we look again whether another run has finished a job."""


@dataclass
class Outcome:
    """The outcome of the jobs.

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


def _urgency(jobs: Sequence[Job]) -> dict[str, float]:
    """Returns how urgent jobs are: the longer the chain behind one, the more.

    Scores come last by that, and fill up what long trainings leave idle. A run of many trainings will be
    stopped, and its report shows what is scored: there a model's scores are as urgent as its training was.
    """
    urgency = longest_first(jobs)
    if sum(job.kind == "train" for job in jobs) >= MANY:
        for job in (job for job in jobs if job.kind == "scores"):
            urgency[job.key] = max(urgency.get(needed.key, 0.0) for needed in job.after)
    return urgency


class JobQueue:
    """The jobs that are left, the one with the longest chain behind it first; see `_urgency`.

    Args:
        out: Folder of the results.
        jobs: What to do, each after those it needs.
        outcome: Gets what fails.
        ready: Called once the first job is done.

    Attributes:
        left: Key -> job of what is not over.
    """

    def __init__(self, out: Path, jobs: Sequence[Job], outcome: Outcome, ready: Callable[[], None]) -> None:
        self.left = {job.key: job for job in jobs}
        self._out, self._outcome, self._ready, self._told = out, outcome, ready, False
        urgency = _urgency(jobs)
        # among equally urgent jobs, trainings come last; then the order of the plan decides
        self._rank = {
            job.key: (-urgency[job.key], job.kind == "train", number) for number, job in enumerate(jobs)
        }
        self._waits: dict[str, int] = {}  # job -> how many that it needs are left
        self._behind: dict[str, list[Job]] = defaultdict(list)  # job -> those that need it
        for job in jobs:
            needs = {needed.key for needed in job.after if needed.key in self.left}
            self._waits[job.key] = len(needs)
            for key in needs:
                self._behind[key].append(job)
        self._can_start: list[tuple[tuple[float, bool, int], Job]] = []
        self._later: deque[tuple[float, Job]] = deque()  # what another run is doing, and when to look again
        for job in jobs:
            self._offer(job)

    def _offer(self, job: Job) -> None:
        if not self._waits[job.key]:
            heapq.heappush(self._can_start, (self._rank[job.key], job))

    def next(self) -> Job | None:
        """Hands out the most urgent job that can start; None if none can at the moment."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._offer(self._later.popleft()[1])
        return heapq.heappop(self._can_start)[1] if self._can_start else None

    def take(self, job: Job, result: Result) -> None:
        """Notes the outcome of a job.

        Raises:
            UserError: If the run cannot go on.
        """
        match result.kind:
            case "misuse":
                raise UserError(result.reason)
            case "taken":
                self._later.append((time.monotonic() + PAUSE, job))
            case "died":
                warn(f"{job.title}: {result.reason}; trying it once more")
                self._offer(job)
            case "failed":
                self._outcome.fail(job, result)
                note_failure(self._out, claim_of(self._out, job).stem, job.title, result.reason)
                self._lose(job)
            case "done":
                del self.left[job.key]
                forget_failure(self._out, claim_of(self._out, job).stem)
                for other in self._behind[job.key]:
                    self._waits[other.key] -= 1
                    if other.key in self.left:
                        self._offer(other)
                if job.kind == "check":
                    self._ready()

    def _lose(self, job: Job) -> None:
        """Drops a job that failed, and all that depend on it."""
        del self.left[job.key]
        lost, todo = dict[str, Job](), [job]
        while todo:
            for other in self._behind[todo.pop().key]:
                if other.key in self.left and other.key not in lost:
                    lost[other.key] = other
                    todo.append(other)
        for other in sorted(lost.values(), key=lambda one: self._rank[one.key][-1]):
            self._outcome.skipped.append(self.left.pop(other.key))

    def pause(self) -> float | None:
        """Returns the seconds until a job is looked at again that another run is at; None if none is."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def rest(self) -> None:
        """Waits until then, because there is nothing else to do; reports it once."""
        if not self._told:
            self._told = True
            job = self._later[0][1]
            who = owner(claim_of(self._out, job))
            say(f"waiting for another run that uses {self._out} ({who}: {job.title})")
        time.sleep(self.pause() or 0)
