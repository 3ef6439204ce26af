"""How far the jobs of a run are, and how long the rest takes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cliqa_bench.execution.jobs import Job, JobKind, longest_first
from cliqa_bench.progress import bar

if TYPE_CHECKING:
    from cliqa_bench.execution.worker_processes import Progress, Result

PRIOR = 2.0
"""Seconds of measurement for which a guess counts: a kind of work that has just begun proves little."""

MEMORY = 600.0
"""Seconds of a kind of work after which earlier measurements begin to count for less."""

NOUNS: dict[JobKind, str] = {
    "check": "check", "gate-net": "gate network", "gate": "gate", "distances": "gating", "train": "training",
    "scores": "scoring", "picture": "pictures",
}  # fmt: skip


class TimeLeft:
    """Estimates how long jobs take, from how long each kind of work took so far.

    The work of an image is its pixels times the passes through the network, see `jobs.JobPart`; how long that
    takes is measured for each kind of work, since a training, a validation and a gate differ in it. A kind
    that has not been measured is taken to be as much slower or faster than the guess as the others are.

    Args:
        jobs: What there is to do, each after those it needs.
        left: Key -> job of what is not over; emptied by others.
        n: How many jobs run side by side.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        left: Mapping[str, Job],
        n: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs, self._left, self._n, self._clock = list(jobs), left, n, clock
        self._seconds: dict[str, float] = defaultdict(float)  # kind of work -> measured
        self._work: dict[str, float] = defaultdict(float)
        self._images: dict[str, Counter[str]] = {}  # job -> name of a part -> images that have passed
        self._since: dict[str, float] = {}  # job -> when it last reported something
        self._last: dict[str, str] = {}  # job -> kind of work of its last report

    def share(self, n: int) -> None:
        """Notes how many jobs can run side by side now."""
        self._n = max(1, n)

    def begin(self, job: Job) -> None:
        """Notes that a job starts, or starts over."""
        self._images[job.key] = Counter()
        self._since[job.key] = self._clock()
        self._last.pop(job.key, None)

    def tick(self, job: Job, images: int, name: str) -> None:
        """Notes that images of a part of a job have passed.

        Args:
            job: The job.
            images: How many.
            name: Of which part; "earlier" for what an interrupted run had done, which took no time now.
        """
        now = self._clock()
        if name == "earlier":
            for part in job.parts:  # nearly so: validations come in between
                done = min(images, part.images)
                self._images[job.key][part.name] += done
                images -= done
        else:
            for part in job.parts:
                if part.name == name and images:
                    self._measure(part.kind, images * part.cost, now - self._since[job.key])
                    self._images[job.key][name] += images
                    self._last[job.key] = part.kind
        self._since[job.key] = now

    def end(self, job: Job) -> None:
        """Notes that a job is over: what it did since its last tick counts for that kind of work."""
        if (kind := self._last.pop(job.key, None)) is not None:
            self._measure(kind, 0.0, self._clock() - self._since[job.key])

    def _measure(self, kind: str, work: float, seconds: float) -> None:
        self._work[kind] += work
        self._seconds[kind] += seconds
        if self._seconds[kind] > MEMORY:
            self._work[kind] /= 2
            self._seconds[kind] /= 2

    def left(self) -> float | None:
        """Returns the seconds until all is done; None as long as nothing was measured."""
        if not any(self._work.values()):
            return None
        pace = sum(self._seconds.values()) / sum(self._work.values())
        rest = {job.key: self._rest(job, pace) if job.key in self._left else 0.0 for job in self._jobs}
        chain = max(longest_first(self._jobs, rest).values(), default=0.0)
        return max(sum(rest.values()) / self._n, chain)

    def _rest(self, job: Job, pace: float) -> float:
        """Returns the seconds that are left of a job."""
        passed = self._images.get(job.key, Counter[str]())
        return sum(
            max(0, part.images - passed[part.name]) * part.cost * self._seconds_per_work(part.kind, pace)
            for part in job.parts
        )

    def _seconds_per_work(self, kind: str, pace: float) -> float:
        return (self._seconds[kind] + PRIOR) / (self._work[kind] + PRIOR / pace)


class JobProgress:
    """Shows which jobs of a run are under way, and how far the whole is.

    Args:
        jobs: What there is to do, each after those it needs.
        left: Key -> job of what is not over; emptied by others.
        n: How many jobs run side by side.
    """

    def __init__(self, jobs: Sequence[Job], left: Mapping[str, Job], n: int) -> None:
        self._estimate = TimeLeft(jobs, left, n)
        self._of = Counter(job.kind for job in jobs)
        self._numbers: dict[str, int] = {}
        self._begun_of: Counter[JobKind] = Counter()
        self._begun: dict[Job, float] = {}  # those under way, and since when
        self._counted: Counter[str] = Counter()  # job -> images that the stage has counted
        self.stage = bar(sum(job.images for job in jobs), "run", "image", self._estimate.left)

    def __enter__(self) -> JobProgress:
        """Begins."""
        self.stage.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Ends."""
        self.stage.__exit__(kind, error, trace)

    def share(self, n: int) -> None:
        """Notes how many jobs can run side by side now."""
        self._estimate.share(n)

    def begin(self, job: Job) -> None:
        """Shows that a job starts."""
        if job.key not in self._numbers:
            self._begun_of[job.kind] += 1
            self._numbers[job.key] = self._begun_of[job.kind]
        self._estimate.begin(job)
        self._begun[job] = time.monotonic()
        self._describe()
        self.stage.event("job_started", **self._name(job))

    def tell(self, job: Job, told: Progress) -> None:
        """Shows the progress that a job reports."""
        self._estimate.tick(job, told.images, told.part)
        if told.text:
            self.stage.note(told.text)
        if told.images:
            self._count(job, told.images)

    def end(self, job: Job, result: Result) -> None:
        """Shows the outcome of a job; images that it did not need are counted, too, once it is done."""
        self._estimate.end(job)
        seconds = round(time.monotonic() - self._begun.pop(job), 1)
        more = {"reason": result.reason} if result.reason else {}
        names = {"done": "job_finished", "taken": "job_taken", "died": "job_died"}
        event = names.get(result.kind, "job_failed")
        self._describe()
        self._count(job, (job.images if result.kind == "done" else 0) - self._counted[job.key])
        self.stage.event(event, **self._name(job), seconds=seconds, **more)

    def skip(self, job: Job) -> None:
        """Shows that a job is not tried, because one that it needs has failed."""
        self.stage.event("job_skipped", **self._name(job))

    def _count(self, job: Job, images: int) -> None:
        self._counted[job.key] += images
        self.stage.update(images)

    def _name(self, job: Job) -> dict[str, str | int | None]:
        number = self._numbers.get(job.key)
        return {"kind": job.kind, "number": number, "of": self._of[job.kind], "title": job.title}

    def _describe(self) -> None:
        """Returns "training 3 of 18", with a title if only one job is under way."""
        under_way = list(self._begun)
        places = [f"{NOUNS[j.kind]} {self._numbers[j.key]} of {self._of[j.kind]}" for j in under_way]
        if len(places) == 1:
            places[0] += f" ({under_way[0].title})"
        self.stage.describe(" | ".join(places)[:70])
