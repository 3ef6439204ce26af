"""The error of a rank correlation: the jackknife over contents, the spread over seeds, Student's t.

Test images that show one content are not independent: a model that likes a content errs on all of its images.
So contents are left out, not images (an image without a reference is a content of its own); the variance that
follows is Tukey's. Few contents make it uncertain and skewed: the degrees of freedom of a correlation are
half of the usual, on Fisher's z. `tests/coverage_of_intervals.py` measures what such intervals
cover; see docs/statistics.md. The parts of a variance are put together by Welch and Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.types import Floats

LEVEL = 0.95
POWER = 0.8
FEWEST = 4
"""With fewer contents nothing can be said."""
TRAIN, TEST = 0.7, 0.2
"""Shares of a dataset in a seeded split."""
MOST_SEEDS = 1000
"""The search for a number of seeds ends here."""
ROUNDING = 1e-9
"""A half-width below this is none: what is left without each content is the same but for rounding."""
PERFECT = 1 - 1e-12
"""A correlation above this is perfect: the next smaller one of 10,000 images is six times as far from 1."""
FARTHEST = 2.0
"""The most by which two correlations differ; no interval of a difference goes farther."""
_CELLS = 2_000_000
"""Numbers of a matrix of ranks that is in memory at once."""


class Part(NamedTuple):
    """A share of a variance.

    Attributes:
        variance: 0 or more.
        df: Degrees of freedom by which it was estimated, above 0.
    """

    variance: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """A number and the sources of its variance.

    Attributes:
        value: The number; nan where undefined.
        parts: Independent shares of its variance, nan where one is not known.
        centre: Of a correlation, the middle of its interval on Fisher's z: the value itself, but for perfect
            ones. None for a difference of two, whose interval is symmetric as far as differences go.
    """

    value: float
    parts: tuple[Part, ...]
    centre: float | None = None

    @property
    def variance(self) -> float:
        """Variance of the number."""
        return sum(part.variance for part in self.parts)

    @property
    def df(self) -> float:
        """Degrees of freedom of the variance (Welch and Satterthwaite); nan where it is 0."""
        return _df(self.parts)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval at `LEVEL`, (nan, nan) where it is not known."""
        half = t_quantile(1 - (1 - LEVEL) / 2, self.df) * math.sqrt(self.variance) if self.variance else 0.0
        if not (math.isfinite(half) and math.isfinite(self.value)):
            return math.nan, math.nan
        if self.centre is None:
            return max(self.value - half, -FARTHEST), min(self.value + half, FARTHEST)
        if half < ROUNDING:  # no correlation of few images is certain
            return math.nan, math.nan
        z, half = math.atanh(self.centre), half / (1 - self.centre**2)
        return min(self.value, math.tanh(z - half)), max(self.value, math.tanh(z + half))


def _df(parts: Iterable[Part]) -> float:
    shares = [part for part in parts if part.variance != 0]
    total = sum(part.variance for part in shares)
    if not shares or not math.isfinite(total):
        return math.nan
    return float(1 / sum((part.variance / total) ** 2 / part.df for part in shares))


def t_quantile(p: float, df: float) -> float:
    """Returns a quantile of Student's t, nan for unknown degrees of freedom.

    scipy's own differs in the eighth digit between its versions (1.11 and 1.17); its distribution function
    does not. Two steps of Newton's method make a report the same with all of them.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats.t takes ninety times as long

    found = float(stdtrit(df, p))
    if not math.isfinite(found):
        return found
    height = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    for _ in range(2):
        density = height * (1 + found**2 / df) ** (-(df + 1) / 2)
        found -= (float(stdtr(df, found)) - p) / density
    return found


# ------------------------------------------------------------------------------------- leaving contents out


def without_each(scores: Floats, mos: Floats, contents: NDArray[np.int64]) -> Floats:
    """Returns the SRCC that is left without each content in turn.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions.
        contents: (n,) the content that each image shows, any whole numbers.

    Returns:
        (G,) float64, a content each in ascending order; nan where what is left has no correlation.
    """
    codes, sizes = np.unique(contents, return_counts=True)
    left = np.full(len(codes), np.nan)
    if len(codes) < 2 or not (np.isfinite(scores).all() and np.isfinite(mos).all()):
        return left
    single = sizes[np.searchsorted(codes, contents)] == 1
    if single.any():
        alone = np.flatnonzero(single)
        left[np.searchsorted(codes, contents[alone])] = _without_image(scores, mos, alone)
    for place in np.flatnonzero(sizes > 1):
        kept = contents != codes[place]
        left[place] = metrics.srcc(scores[kept], mos[kept])
    return left


def _without_image(scores: Floats, mos: Floats, places: NDArray[np.int64]) -> Floats:
    """Returns the SRCC without each of some images: the ranks of the others move up by one, or by a half."""
    found, step = [], max(1, _CELLS // len(mos))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        x, y = _ranks_without(scores, some), _ranks_without(mos, some)
        with np.errstate(invalid="ignore"):
            found.append((x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1)))
    return np.concatenate(found)


def _ranks_without(values: Floats, places: NDArray[np.int64]) -> Floats:
    """Ranks n values without one of them, for each of some.

    Returns:
        (len(places), n) float64, twice the average rank less its mean, so a whole number: all sums are exact;
        0 for the image left out.
    """
    from scipy.stats import rankdata

    doubled = 2 * rankdata(values) - len(values)  # the mean of n - 1 ranks is n / 2
    out = values[places, None]
    ranks = doubled - 2 * (out < values) - (out == values)
    ranks[np.arange(len(places)), places] = 0
    return np.asarray(ranks)


def over_contents(left: Floats, halved: bool) -> Part:
    """Returns Tukey's variance of a number over contents.

    Args:
        left: (G,) the number without each content.
        halved: Whether the degrees of freedom are half of G - 1: for correlations, which few contents skew.

    Returns:
        nan with fewer than `FEWEST` contents, or where a number is.
    """
    g = len(left)
    if g < FEWEST:
        return Part(math.nan, 1.0)
    return Part(float((g - 1) * left.var()), (g - 1) / 2 if halved else g - 1.0)


def over_seeds(values: Sequence[float]) -> tuple[Part, ...]:
    """Returns the variance of the mean of several seeds' values; of one seed nothing is known."""
    n = len(values)
    return (Part(variance(values) / n, n - 1.0),) if n > 1 else ()


def over_splits(values: Sequence[float]) -> Part:
    """Returns the variance of the mean of several splits' values, which are not independent.

    Random splits share images, so the variance between them divided by their number is too small by far.
    Nadeau and Bengio, "Inference for the generalization error" (Machine Learning 52, 2003): 1 / n becomes
    1 / n + test / training, here 2 / 7.
    """
    n = len(values)
    return Part(variance(values) * (1 / n + TEST / TRAIN), n - 1.0) if n > 1 else Part(math.nan, 1.0)


# ------------------------------------------------------------------------------------------ rank correlations


@dataclass(frozen=True)
class MeasuredSrcc:
    """SRCC of a method on a test set with each of its seeds.

    Attributes:
        values: One SRCC a seed.
        left: (seeds, G) SRCC without each content.
        images: How many test images there are, at least.
        splits: Whether the values are of splits and not of seeds; then nothing is left out.
    """

    values: list[float]
    left: Floats
    images: int
    splits: bool = False

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return fmean(self.values)

    @property
    def images_part(self) -> Part:
        """Variance over the contents of the mean over the seeds."""
        part = over_contents(self.left.mean(axis=0), halved=True)
        return _of_perfect(self.images, self.left.shape[1]) if abs(self.value) > PERFECT else part

    @property
    def centre(self) -> float:
        """The value, or half a step inside where it is 1 or -1."""
        most = _largest(self.images)
        return min(max(self.value, -most), most)

    def estimate(self) -> Estimate:
        """Returns the SRCC on this test set."""
        if self.splits:
            return Estimate(self.value, (over_splits(self.values),), self.centre)
        return Estimate(self.value, (self.images_part, *over_seeds(self.values)), self.centre)


def _largest(images: int) -> float:
    """Returns half a step below 1: the next smaller SRCC is that of two neighbours in the wrong order."""
    if images < 2:
        return math.nan  # a single image has no rank correlation
    return 1 - 6 / (images * (images**2 - 1))


def _of_perfect(images: int, contents: int) -> Part:
    """Returns the variance of a perfect rank correlation, of which the jackknife knows nothing.

    Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations"
    (Psychometrika 65, 2000): (1 + r^2 / 2) / (n - 3) on Fisher's z, for n contents, at half a step below 1.
    """
    if contents < FEWEST:
        return Part(math.nan, 1.0)
    r = _largest(images)
    return Part((1 + r**2 / 2) / (contents - 3) * (1 - r**2) ** 2, (contents - 1) / 2)


def mean_estimate(by_test: Sequence[MeasuredSrcc]) -> Estimate:
    """Returns the mean over test sets: their images are independent, their seeds are the same.

    Args:
        by_test: One a test set, at least one, each with the same seeds in the same order.
    """
    k = len(by_test)
    value, centre = fmean(one.value for one in by_test), fmean(one.centre for one in by_test)
    each = _means(by_test)
    if by_test[0].splits:
        return Estimate(value, (over_splits(each),), centre)
    images = [Part(part.variance / k**2, part.df) for part in (one.images_part for one in by_test)]
    seeds = over_seeds(each)
    return Estimate(value, (*images, *seeds), centre)


def difference(one: Sequence[MeasuredSrcc], other: Sequence[MeasuredSrcc], paired: bool) -> Estimate:
    """Returns how much larger the mean over test sets of one method is than that of another.

    Args:
        one: A method's, one a test set.
        other: The other's on the same test sets.
        paired: Whether both have the same seeds or splits, which are then compared one by one.
    """
    k, mine, theirs = len(one), _means(one), _means(other)
    value, apart = fmean(mine) - fmean(theirs), [a - b for a, b in zip(mine, theirs, strict=False)]
    if one[0].splits:
        return Estimate(value, (over_splits(apart) if paired else Part(math.nan, 1.0),))
    lefts = [a.left.mean(axis=0) - b.left.mean(axis=0) for a, b in zip(one, other, strict=True)]
    images = [over_contents(left / k, halved=False) for left in lefts]
    seeds = over_seeds(apart) if paired else (*over_seeds(mine), *over_seeds(theirs))
    return Estimate(value, (*images, *seeds))


def variance_between_seeds(one: Sequence[MeasuredSrcc], other: Sequence[MeasuredSrcc], paired: bool) -> float:
    """Returns the variance of a `difference` between one seed and the next; nan if one seed is all there is.

    Args, where [] stands for what is missing: as of `difference`.
    """
    if not one or not other or min(len(one[0].values), len(other[0].values)) < 2:
        return math.nan
    mine, theirs = _means(one), _means(other)
    if not paired:
        return variance(mine) + variance(theirs)
    return variance([a - b for a, b in zip(mine, theirs, strict=True)])


def _means(by_test: Sequence[MeasuredSrcc]) -> list[float]:
    """Returns the mean over test sets of each seed or split."""
    return [fmean(values) for values in zip(*(one.values for one in by_test), strict=True)]


# -------------------------------------------------------------------------------------------------- power


def smallest_difference(parts: Sequence[Part]) -> float:
    """Returns the smallest difference that would have been shown with probability `POWER`.

    A difference is shown if its interval at `LEVEL` excludes 0.

    Args:
        parts: Shares of the difference's variance.

    Returns:
        0 or more; nan where the variance is not known.
    """
    total = sum(part.variance for part in parts)
    if total == 0:
        return 0.0
    df = _df(parts)
    return (t_quantile(1 - (1 - LEVEL) / 2, df) + t_quantile(POWER, df)) * math.sqrt(total)


def seeds_needed(images: Sequence[Part], spread: float, wanted: float) -> float:
    """Returns how many seeds would show a difference with probability `POWER`, on the same test images.

    Args:
        images: Shares of its variance that no seed takes away.
        spread: Variance of the difference between two seeds.
        wanted: The difference, above 0.

    Returns:
        2 or more; nan where the images alone hide it, more than `MOST_SEEDS` are needed, or something is not
        known.
    """
    if not (wanted > 0 and math.isfinite(sum(part.variance for part in images) + spread)):
        return math.nan

    def shown(n: int) -> bool:
        return smallest_difference([*images, Part(spread / n, n - 1.0)]) <= wanted

    if not shown(MOST_SEEDS):
        return math.nan
    low, high = 1, MOST_SEEDS  # more seeds never show less
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return float(high)
