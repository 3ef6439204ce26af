"""How sure the numbers are: bootstrap intervals over images and seeds or splits, exact tests over these."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.methods import Method, joined_note, make_row, matrices_of, predict, sources
from cliqa_bench.reports.rows import GENERATED, RunGroup, TidyRow
from cliqa_bench.reports.spread import SEEDS, Replicate, counted, kind_of_units, units
from cliqa_bench.results.nodes import digest
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.types import Floats

RESAMPLES = 1000
LEVEL = 0.95
ALPHA = 0.05
MOST_EXACT = 20
DRAWN = 2**16
"""How many assignments of signs are drawn where there are too many to count all."""
TESTED = ("mSRCC", "mPSI")


# --------------------------------------------------------------------------------- bootstrap over images


def resample_counts(n: int, resamples: int, *names: Any) -> NDArray[np.int64]:
    """Draws resamples with replacement: how often each of n things is in each of them.

    Args:
        n: Number of things, at least 1.
        resamples: Number of resamples B.
        *names: What is resampled; the same names give the same draws.

    Returns:
        (B, n) int64, each row sums to n.
    """
    rng = np.random.default_rng(int(digest(["bootstrap", *names], 16), 16))
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def _ranks(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Ranks n values within each resample without sorting it: the sorted values are counted up.

    Returns:
        (B, n) float64, twice the average rank less its mean, so a whole number: all sums are exact.
    """
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    middles = 2 * np.cumsum(sizes, axis=1) - sizes - counts[0].sum()
    return np.asarray(middles[:, group], np.float64)


class Resampled:
    """Resamples of one test set's images, the same for all methods; the opinions are ranked once.

    Args:
        mos: (n,) float64 opinions, n > 0.
        counts: (B, n) how often each image is in each resample.
    """

    def __init__(self, mos: Floats, counts: NDArray[np.int64]) -> None:
        step = max(1, 200_000 // len(mos))  # what fits into the cache is several times faster
        self._chunks = [counts[start : start + step] for start in range(0, len(counts), step)]
        self._opinions = [_ranks(mos, some) for some in self._chunks]
        self._undefined = np.full(len(counts), np.nan)
        self._mos = mos

    def srcc(self, scores: Floats) -> Estimate:
        """SRCC of predictions with the opinions, ties by average ranks, whole and in each resample.

        Args:
            scores: (n,) predictions.

        Returns:
            Its replicates are nan where a resample is constant, and everywhere if a number is not finite.
        """
        value = metrics.srcc(scores, self._mos)
        if not (np.isfinite(scores).all() and np.isfinite(self._mos).all()):
            return Estimate(value, self._undefined)
        parts = []
        for some, y in zip(self._chunks, self._opinions, strict=True):
            x = _ranks(scores, some)
            weighted = x * some
            with np.errstate(invalid="ignore"):
                spread = np.sqrt((weighted * x).sum(axis=1) * (some * y * y).sum(axis=1))
                parts.append((weighted * y).sum(axis=1) / spread)
        return Estimate(value, np.concatenate(parts))


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap replicates.

    Attributes:
        value: The number itself, nan where undefined.
        replicates: (B,) float64.
    """

    value: float
    replicates: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """The percentile interval at `LEVEL`; nan where a replicate is undefined."""
        if not (math.isfinite(self.value) and np.isfinite(self.replicates).all()):
            return math.nan, math.nan
        low, high = np.quantile(self.replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def minus(self, other: Estimate) -> Estimate:
        """Returns the paired difference: both were computed on the same resamples."""
        return Estimate(self.value - other.value, self.replicates - other.replicates)


def mean_of(estimates: list[Estimate]) -> Estimate:
    """Returns the mean of estimates on the same resamples."""
    return Estimate(fmean(e.value for e in estimates), np.mean([e.replicates for e in estimates], axis=0))


def estimates(group: RunGroup, reader: AnswerReader, resamples: int) -> dict[Method, dict[str, Estimate]]:
    """SRCC after the last experience on each test set, means over the seeds; images and seeds are resampled.

    All methods see the same resamples of a test set, and those with the same seeds the same resamples of the
    seeds. With one seed, an interval says nothing about the chance in training. Of several splits, the images
    of each test set and the splits are resampled, and the seeds of a split are averaged.

    Args:
        group: The runs; see `methods.sources` for which of them are used.
        reader: Reads the answers.
        resamples: Number of resamples B.

    Returns:
        Method -> test set -> estimate, nan where answers are missing.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    methods = sources(group)
    found: dict[Method, dict[str, Estimate]] = {method: {} for method in methods}
    for test in group.main_record.sequence:
        resampled: dict[int, Resampled] = {}  # by split: each has test images of its own
        for method, runs in methods.items():
            each = {}
            for run, source in runs.items():
                told = predict(reader, source, len(source.record.steps) - 1, test)
                if told is None or len(told.mos) == 0:
                    each[run] = Estimate(math.nan, np.full(resamples, np.nan))
                    continue
                if run.split not in resampled:
                    names = ("images", test, *([run.split] if run.split else []))
                    counts = resample_counts(len(told.mos), resamples, *names)
                    resampled[run.split] = Resampled(told.mos, counts)
                each[run] = resampled[run.split].srcc(told.scores)
            found[method][test] = _resampled_mean(each, resamples)
    return found


def _resampled_mean(each: dict[Replicate, Estimate], resamples: int) -> Estimate:
    """Returns the mean over seeds or splits, which are resampled, too."""
    by_unit = {unit: mean_of(same) for unit, same in units(each).items()}
    drawn = resample_counts(len(by_unit), resamples, kind_of_units(each), sorted(by_unit)) / len(by_unit)
    replicates = np.sum(drawn.T * [e.replicates for e in by_unit.values()], axis=0)
    return Estimate(fmean(e.value for e in by_unit.values()), replicates)


def interval_rows(group: RunGroup, reader: AnswerReader, resamples: int = RESAMPLES) -> list[TidyRow]:
    """Returns bootstrap intervals of mSRCC, of SRCC on each test set, and of the difference to the best.

    The best is the method with the highest mSRCC of its setting and backbone, on every test set. Metrics:
    "mSRCC", "mSRCC: low", "mSRCC: high", likewise "mSRCC less the best", and both of "SRCC" by test set.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    main = group.main_record
    known = estimates(group, reader, resamples)
    several = {method: counted(runs) for method, runs in sources(group).items()}
    rows = []
    for method, by_test in known.items():
        over = f"over images and {several[method]}" if several[method] else "over images; one seed"
        note = joined_note(f"paired bootstrap {over}, B={resamples}", GENERATED if group.generated else "")
        rivals = {m: mean_of(list(found.values())) for m, found in known.items() if m[:2] == method[:2]}
        finite = [m for m in rivals if math.isfinite(rivals[m].value)]
        best = max(finite, key=lambda m: rivals[m].value, default=method)
        less_note = joined_note(f"best: {best.label}", note)
        cells = {"": (rivals[method], rivals[best])}
        cells |= {test: (found, known[best][test]) for test, found in by_test.items()}
        for test, (found, of_best) in cells.items():
            metric, title = ("SRCC", main.titles.get(test, test)) if test else ("mSRCC", "")
            three = _three(method, group.main_order, metric, found, note)
            if best != method:
                less = found.minus(of_best)
                three += _three(method, group.main_order, f"{metric} less the best", less, less_note)
            rows += [row._replace(test_dataset=title) for row in three]
    return rows


def _three(method: Method, order: str, metric: str, found: Estimate, note: str) -> list[TidyRow]:
    low, high = found.interval
    named = {metric: found.value, f"{metric}: low": low, f"{metric}: high": high}
    return [make_row("intervals", method, order, name, value, note) for name, value in named.items()]


# -------------------------------------------------------------------------------- tests over seeds or splits


def smallest_p(n: int) -> float:
    """Returns the smallest two-sided p-value that n pairs can reach: 2 of the 2^n sign flips."""
    return min(1.0, math.ldexp(2.0, -n))


def too_few(n: int, kind: str = SEEDS) -> str:
    """Says that n seeds (or splits) cannot show a difference at `ALPHA`; "" where they can."""
    if n > 0 and smallest_p(n) <= ALPHA:
        return ""
    return f"too few {kind}: n={n} cannot reach {ALPHA}"


def sign_flip_p(differences: list[float]) -> float:
    """Exact paired permutation test: how often a random sign of each difference gives as large a mean.

    All 2^n assignments of signs are counted, so the time doubles with every seed; of more than `MOST_EXACT`
    differences, `DRAWN` assignments are drawn, always the same ones, and the one that was found is counted
    with them.

    Args:
        differences: One per seed or split, method less method; at least two.

    Returns:
        The two-sided p-value in (0, 1]; nan where a difference is.
    """
    from scipy.stats import permutation_test

    if not all(map(math.isfinite, differences)):
        return math.nan
    n = len(differences)
    if n > MOST_EXACT:
        return _drawn_sign_flip_p(np.array(differences))
    # in parts: 2^n vectors of n numbers need not be in memory at once
    test = permutation_test(
        (np.array(differences),), np.mean, permutation_type="samples", n_resamples=2**n, batch=2**14
    )
    return float(test.pvalue)


def _drawn_sign_flip_p(differences: Floats) -> float:
    n = len(differences)
    rng = np.random.default_rng(int(digest(["sign flips", n], 16), 16))
    observed = abs(differences.sum())
    least = observed - 1e-14 * np.abs(differences).sum()  # equal sums may differ in their last bits
    flips = [rng.choice((-1.0, 1.0), size=(2**12, n)) for _ in range(DRAWN // 2**12)]
    as_large = sum(int((np.abs(signs @ differences) >= least).sum()) for signs in flips)
    return (as_large + 1) / (DRAWN + 1)


def significance_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the p-value of every pair of methods of one setting and backbone, paired by seed or split.

    Metrics are "mPSI: p against LwF-KG" and so on; of too few seeds `value` is nan and `note` says so. Where
    methods have several seeds, those with one, which nothing can be said of, do not widen the table. Splits
    are paired where methods share several; the seeds of a split are averaged first.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    values: dict[Method, dict[Replicate, metrics.Summary]] = {}
    for method, runs in sources(group).items():
        if method.setting != "Joint":
            values[method] = {r: metrics.summary(*matrices_of(reader, source)) for r, source in runs.items()}
    values = {method: runs for method, runs in values.items() if len(runs) > 1} or values
    rows = []
    for one, other in itertools.combinations(values, 2):
        if one[:2] != other[:2]:
            continue
        common = sorted(values[one].keys() & values[other].keys())
        few = too_few(len(units(dict.fromkeys(common))), kind_of_units(common))
        drawn = f"{DRAWN} drawn sign flips" if len(units(dict.fromkeys(common))) > MOST_EXACT else ""
        note = joined_note(few or counted(common), drawn, GENERATED if group.generated else "")
        for metric in TESTED:
            less = {r: getattr(values[one][r], metric) - getattr(values[other][r], metric) for r in common}
            p = math.nan if few else sign_flip_p([fmean(same) for same in units(less).values()])
            for method, rival in ((one, other), (other, one)):  # two-sided: the same both ways
                name = f"{metric}: p against {rival.label}"
                rows.append(make_row("significance", method, group.main_order, name, p, note))
    return sorted(rows, key=lambda row: TESTED.index(row.metric.partition(":")[0]))
