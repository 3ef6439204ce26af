"""What a release must meet: what must always hold, and the user's limits."""

from __future__ import annotations

import math
from typing import NamedTuple

from cliqa_bench.reports.certificate.evidence import ReleaseEvidence
from cliqa_bench.reports.certificate.findings import SetFindings, of_added


class ReleaseLimits(NamedTuple):
    """What a user requires of a release; None requires nothing.

    Attributes:
        max_drop: How much the SRCC on an old test set may fall.
        min_srcc: The least SRCC on the test set of the new dataset.
        max_change: How far the score of a picture of an old test set may move.
    """

    max_drop: float | None = None
    min_srcc: float | None = None
    max_change: float | None = None


class ReleaseCheck(NamedTuple):
    """Something that was asked of a release.

    Attributes:
        asked: In words.
        found: In words.
        holds: Whether it is so.
    """

    asked: str
    found: str
    holds: bool


def checks_of(release: ReleaseEvidence, sets: list[SetFindings], limits: ReleaseLimits) -> list[ReleaseCheck]:
    """Returns what a release must meet: what must always hold, then the user's limits.

    Args:
        release: The evidence.
        sets: What follows from it, one for each of its sets.
        limits: What the user asks.
    """
    broken, n = sum(one.broken for one in sets), sum(len(one.real) for one in sets)
    parts, same = release.same_parts
    return [
        ReleaseCheck(
            "the score of every picture moves at most as far as its bound",
            f"{n - broken:,} of {n:,} pictures",
            broken == 0,
        ),
        ReleaseCheck(
            "every head, centroid and network of the old file has the same bits",
            f"{same:,} of {parts:,} tensors",
            same == parts,
        ),
        ReleaseCheck(
            "the released file is the one that was scored, but for the answers it carries",
            "the same tensors" if release.released[1] else "other tensors",
            release.released[1],
        ),
        *_asked(release, sets, limits),
    ]


def _asked(release: ReleaseEvidence, sets: list[SetFindings], limits: ReleaseLimits) -> list[ReleaseCheck]:
    found, old = [], [one for one in sets if not one.evidence.added]
    lacking = ", ".join(one.title for one in release.unscored)
    if limits.max_drop is not None:
        drops = {one.evidence.title: -one.change.value for one in old}
        found.append(_largest("SRCC on an old test set falls", drops, limits.max_drop, lacking))
    if limits.max_change is not None:
        moves = {one.evidence.title: float(one.real.max(initial=0.0)) for one in old}
        found.append(_largest("the score of an old test picture moves", moves, limits.max_change, lacking))
    if limits.min_srcc is not None:
        value = of_added(sets).after.value
        found.append(
            ReleaseCheck(
                f"SRCC on the new test set is at least {limits.min_srcc:g}",
                f"{value:.4f}",
                value >= limits.min_srcc,
            )
        )
    return found


def _largest(what: str, values: dict[str, float], limit: float, lacking: str) -> ReleaseCheck:
    """Compares the largest value of all old test sets with a limit; a missing one fails."""
    asked = f"{what} by at most {limit:g}"
    if lacking or not values:
        return ReleaseCheck(
            asked, f"not known without the pictures of {lacking or 'the old test sets'}", False
        )
    undefined = [title for title, value in values.items() if not math.isfinite(value)]
    if undefined:
        return ReleaseCheck(asked, f"undefined on {undefined[0]}", False)
    worst = max(values, key=lambda title: values[title])
    return ReleaseCheck(asked, f"{values[worst]:.4f} at most, on {worst}", values[worst] <= limit)
