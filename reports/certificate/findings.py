"""What follows from the evidence: bounds, agreement before and after, ranks that moved, and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.certificate.bound import ScoreBound, score_bound
from cliqa_bench.reports.certificate.evidence import ReleaseEvidence, SetEvidence
from cliqa_bench.reports.tables.jackknife import FEWEST, MeasuredSrcc, difference, without_each
from cliqa_bench.types import Floats

MOST_MOVED = 6
"""Pictures of a test set that are shown because their ranks moved most."""


class ReleaseLimits(NamedTuple):
    """What a user asks of a release; None asks nothing.

    Attributes:
        max_drop: How much the SRCC on an old test set may fall.
        min_srcc: The least SRCC on the test set of the new dataset.
        max_change: How far the score of a picture of an old test set may move.
    """

    max_drop: float | None = None
    min_srcc: float | None = None
    max_change: float | None = None


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


class Check(NamedTuple):
    """Something that was asked of a release.

    Attributes:
        asked: In words.
        found: In words.
        holds: Whether it is so.
    """

    asked: str
    found: str
    holds: bool


def findings_of(evidence: SetEvidence, tau: float) -> SetFindings:
    """Computes what follows for one test set.

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


def checks_of(release: ReleaseEvidence, sets: list[SetFindings], limits: ReleaseLimits) -> list[Check]:
    """Returns what a release is held to: what always must hold, then the limits of the user's.

    Args:
        release: The evidence.
        sets: What follows from it, one for each of its sets.
        limits: What the user asks.
    """
    broken, n = sum(one.broken for one in sets), sum(len(one.real) for one in sets)
    parts, same = release.same_parts
    return [
        Check(
            "the score of every picture moves at most as far as its bound",
            f"{n - broken:,} of {n:,} pictures",
            broken == 0,
        ),
        Check(
            "every head, centroid and network of the old file has the same bits",
            f"{same:,} of {parts:,} tensors",
            same == parts,
        ),
        Check(
            "the released file is the one that was scored, but for the answers it carries",
            "the same tensors" if release.released[1] else "other tensors",
            release.released[1],
        ),
        *_asked(release, sets, limits),
    ]


def _asked(release: ReleaseEvidence, sets: list[SetFindings], limits: ReleaseLimits) -> list[Check]:
    found, old = [], [one for one in sets if not one.evidence.added]
    lacking = ", ".join(one.title for one in release.unscored)
    if limits.max_drop is not None:
        drops = {one.evidence.title: -one.change.value for one in old}
        found.append(_largest("SRCC on an old test set falls", drops, limits.max_drop, lacking))
    if limits.max_change is not None:
        moves = {one.evidence.title: float(one.real.max(initial=0.0)) for one in old}
        found.append(_largest("the score of an old test picture moves", moves, limits.max_change, lacking))
    if limits.min_srcc is not None:
        value = next(one.after.value for one in sets if one.evidence.added)
        found.append(
            Check(
                f"SRCC on the new test set is at least {limits.min_srcc:g}",
                f"{value:.4f}",
                value >= limits.min_srcc,
            )
        )
    return found


def _largest(what: str, values: dict[str, float], limit: float, lacking: str) -> Check:
    """Compares the largest value of all old test sets with a limit; one that is missing keeps none."""
    asked = f"{what} by at most {limit:g}"
    if lacking or not values:
        return Check(asked, f"not known without the pictures of {lacking or 'the old test sets'}", False)
    undefined = [title for title, value in values.items() if not math.isfinite(value)]
    if undefined:
        return Check(asked, f"undefined on {undefined[0]}", False)
    worst = max(values, key=lambda title: values[title])
    return Check(asked, f"{values[worst]:.4f} at most, on {worst}", values[worst] <= limit)
