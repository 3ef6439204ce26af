"""What follows from the evidence: bounds, agreement before and after, and ranks that moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.certificate.bound import ScoreBound, score_bound
from cliqa_bench.reports.certificate.evidence import SetEvidence
from cliqa_bench.reports.tables.jackknife import FEWEST, MeasuredSrcc, difference, without_each
from cliqa_bench.types import Floats

MOST_MOVED = 6
"""Pictures of a test set that are shown because their ranks moved most."""


class Moved(NamedTuple):
    """A picture whose rank moved.

    Attributes:
        place: Which picture of its test set.
        key: Its name.
        mos: Its opinion score.
        rank_before: Its rank by the old model, 1 for the best; half ranks where scores are equal.
        rank_after: The same by the new model.
        before: Its old score.
        after: Its new score.
    """

    place: int
    key: str
    mos: float
    rank_before: float
    rank_after: float
    before: float
    after: float


class SrccInterval(NamedTuple):
    """An SRCC with its interval at 95 %.

    Attributes:
        value: nan where undefined.
        low: nan where the interval is not known.
        high: The same.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SetFindings:
    """What follows for one test set.

    Attributes:
        evidence: What was scored.
        bound: How far the scores could move.
        before: SRCC of the old model.
        after: SRCC of the new one.
        change: `after` less `before`, paired over contents.
        moved: Pictures whose ranks moved most, the farthest first.
        few: Whether contents are too few, so that intervals are over images.
        heads_apart: Largest difference of an old head's score between the two models.
    """

    evidence: SetEvidence
    bound: ScoreBound
    before: SrccInterval
    after: SrccInterval
    change: SrccInterval
    moved: list[Moved]
    few: bool
    heads_apart: float

    @property
    def real(self) -> Floats:
        """(n,) how far the scores moved, between the two processes."""
        return np.abs(self.evidence.after - self.evidence.before)

    @property
    def broken(self) -> int:
        """How many pictures moved farther than their bound and its slack."""
        return int((~(self.real <= self.bound.bound + self.bound.slack)).sum())

    @property
    def tightness(self) -> float:
        """Median of the change in parts of its bound, over pictures whose bound is above the slack."""
        above = self.bound.bound > self.bound.slack
        if not above.any():
            return math.nan
        return float(np.median(self.real[above] / self.bound.bound[above]))


def of_added(sets: Sequence[SetFindings]) -> SetFindings:
    """Returns what follows for the test set of the dataset that was added."""
    return next(one for one in sets if one.evidence.added)


def findings_of(evidence: SetEvidence, tau: float) -> SetFindings:
    """Computes the findings for one test set.

    Args:
        evidence: What was scored.
        tau: Temperature of the gate.
    """
    shown, images = evidence.contents, np.arange(len(evidence.contents))
    few = len(np.unique(shown)) < min(FEWEST, len(shown))
    by = images if few else shown
    before, after = (_measured(scores, evidence.mos, by) for scores in (evidence.before, evidence.after))
    less = difference([after], [before], paired=True)
    apart = np.abs(evidence.heads[:, :-1].astype(np.float64) - evidence.old_heads)
    return SetFindings(
        evidence=evidence,
        bound=score_bound(evidence.distances, evidence.heads, tau),
        before=_srcc(before),
        after=_srcc(after),
        change=SrccInterval(less.value, *less.interval),
        moved=_moved(evidence),
        few=few,
        heads_apart=float(np.nan_to_num(apart).max(initial=0.0)),
    )


def _measured(scores: Floats, mos: Floats, contents: NDArray[np.int64]) -> MeasuredSrcc:
    return MeasuredSrcc([metrics.srcc(scores, mos)], without_each(scores, mos, contents)[None], len(mos))


def _srcc(measured: MeasuredSrcc) -> SrccInterval:
    if not math.isfinite(measured.value):
        return SrccInterval(measured.value, math.nan, math.nan)
    estimate = measured.estimate()
    return SrccInterval(estimate.value, *estimate.interval)


def _moved(evidence: SetEvidence) -> list[Moved]:
    from scipy.stats import rankdata

    before, after = (rankdata(-scores) for scores in (evidence.before, evidence.after))
    far = np.argsort(-np.abs(after - before), kind="stable")[:MOST_MOVED]
    return [
        Moved(
            place=int(i),
            key=str(evidence.keys[i]),
            mos=float(evidence.mos[i]),
            rank_before=float(before[i]),
            rank_after=float(after[i]),
            before=float(evidence.before[i]),
            after=float(evidence.after[i]),
        )
        for i in far
        if before[i] != after[i]
    ]
