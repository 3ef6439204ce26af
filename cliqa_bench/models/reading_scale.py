"""What a raw score means: its place in a stated population, a word, and how unusual the picture is.

PyTorch is not needed.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.results.nodes import digest
from cliqa_bench.types import Floats, Json

ACR_WORDS = ("bad", "poor", "fair", "good", "excellent")
"""The five words of ITU-T P.910's absolute category rating, each for a fifth of the population."""

FLAGGED_SHARE = 0.01
"""Share of pictures like those it is calibrated on that `ReadingScale.novelty` puts above 1."""

UNLIKE = "is unlike all pictures that the model learned from (novelty above 1), so its score may mean little"


class ScoreReading(NamedTuple):
    """How a score is read.

    Attributes:
        percentile: Its place in the population, 0 to 100; nan without a score.
        word: One of `ACR_WORDS`; "" without a score.
        novelty: How unlike all learned pictures the picture is; nan where that is not known.
    """

    percentile: float = math.nan
    word: str = ""
    novelty: float = math.nan

    @property
    def unlike(self) -> bool:
        """Whether the picture is unlike all that the model learned."""
        return self.novelty > 1


@dataclass(frozen=True, eq=False)
class ReadingScale:
    """How scores of a model are read.

    Attributes:
        scores: (n,) float64, ascending: the predictions for the pictures of a population.
        names: What each of these pictures is.
        population: What they are together: "720 generated pictures".
        limits: (tasks, stages) float64, above 0: distances from a task's nearest centroid at which novelty is
            1; None for a model without a gate.
        calibrated: On which pictures these were found.
    """

    scores: Floats
    names: Sequence[str]
    population: str
    limits: Floats | None = None
    calibrated: str = ""

    @property
    def columns(self) -> list[str]:
        """What it says of a picture: names of columns, the first of `ScoreReading`'s."""
        return [*ScoreReading._fields[: 2 if self.limits is None else 3]]

    def read(self, score: float, distances: NDArray[Any] | None) -> ScoreReading:
        """Returns how a score is read.

        Args:
            score: The model's prediction for a picture.
            distances: As in `novelty`; None without a gate.
        """
        novelty = math.nan if distances is None else self.novelty(distances)
        return ScoreReading(self.percentile(score), self.word(score), novelty)

    def percentile(self, score: float) -> float:
        """Returns the share of the population that a score is above, in percent; of equal scores, half.

        Args:
            score: The model's prediction for a picture.

        Returns:
            0 to 100; never lower for a higher score.
        """
        below, up_to = bisect_left(self.scores, score), bisect_right(self.scores, score)
        return 50 * (below + up_to) / len(self.scores)

    def word(self, score: float) -> str:
        """Returns one of `ACR_WORDS`: the fifth of the population in which a score lies."""
        return ACR_WORDS[min(int(self.percentile(score) // 20), 4)]

    def novelty(self, distances: NDArray[Any]) -> float:
        """Returns how unlike all learned pictures a picture is: above 1, it is flagged.

        A picture is as unlike a task as its stage says that finds it most unlike, and as unlike all as the
        task says that finds it least so.

        Args:
            distances: (tasks, stages), from the picture to each task's nearest centroid.
        """
        if self.limits is None:
            return math.nan
        return float((np.asarray(distances, np.float64) / self.limits).max(axis=1).min())

    def neighbours(self, score: float) -> tuple[tuple[str, float] | None, tuple[str, float] | None]:
        """Returns name and score of the next picture of the population below a score, and of that above."""
        below, above = bisect_left(self.scores, score) - 1, bisect_right(self.scores, score)
        low = (self.names[below], float(self.scores[below])) if below >= 0 else None
        high = (self.names[above], float(self.scores[above])) if above < len(self.scores) else None
        return low, high

    @property
    def digest(self) -> str:
        """A hash of it: percentiles and novelty on another scale are others."""
        limits = None if self.limits is None else self.limits.tolist()
        return digest([self.scores.tolist(), limits])

    def facts(self) -> dict[str, Json]:
        """Returns its words, for the header of a model file."""
        return {"population": self.population, "names": list(self.names), "calibrated": self.calibrated}


def scale_of(scores: NDArray[Any], names: Sequence[str], population: str, **limits: Any) -> ReadingScale:
    """Makes a scale from scores in any order.

    Args:
        scores: (n,) finite, at least one.
        names: What each picture is.
        population: As in `ReadingScale`.
        **limits: `limits` and `calibrated` of `ReadingScale`.
    """
    order = np.argsort(scores, kind="stable")
    return ReadingScale(
        np.asarray(scores, np.float64)[order], [names[i] for i in order], population, **limits
    )


def novelty_limits(distances: Sequence[NDArray[Any]], share: float = FLAGGED_SHARE) -> Floats:
    """Calibrates novelty on held-out pictures of the learned datasets.

    Distances are measured in medians of a task's own pictures, stage by stage. The limit then is the order
    statistic that a further picture like these exceeds with a probability of at most `share`, as in conformal
    prediction; with fewer than 1 / share pictures it is the largest.

    Args:
        distances: Of each task, in order, (n, tasks, stages) of its pictures to every task's centroids.
        share: Share of such pictures to be flagged.

    Returns:
        (tasks, stages), see `ReadingScale.limits`.
    """
    usual = np.stack([np.median(of_set[:, task], axis=0) for task, of_set in enumerate(distances)])
    usual = np.where(usual > 0, usual, np.finfo(np.float64).tiny).astype(np.float64)
    found = np.sort(np.concatenate([(of_set / usual).max(axis=2).min(axis=1) for of_set in distances]))
    rank = min(math.ceil((len(found) + 1) * (1 - share)), len(found))
    return np.asarray(usual * max(found[rank - 1], np.finfo(np.float64).tiny), np.float64)
