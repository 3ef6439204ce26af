"""How sure the numbers are: intervals over images and seeds or splits, what could have been shown, tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.methods import (
    Method,
    Prediction,
    RunReadout,
    joined_note,
    make_row,
    once,
    predict,
    sources,
    unique,
)
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import SEEDS, Replicate, counted, over_splits, units
from cliqa_bench.reports.tables.jackknife import (
    FEWEST,
    Estimate,
    MeasuredSrcc,
    difference,
    mean_estimate,
    seeds_needed,
    smallest_difference,
    variance_between_seeds,
    without_each,
)
from cliqa_bench.reports.tables.tsn import summaries
from cliqa_bench.results.nodes import digest
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.types import Floats

ALPHA = 0.05
MOST_EXACT = 20
DRAWN = 2**16
"""How many assignments of signs are drawn where there are too many to count all."""
TESTED = ("mSRCC", "mPSI")
# notes of `results.csv`, as those below: with other words `verify` would call finished reports wrong
NO_CONTENTS = "answers of 0.1.0 do not say which images show one content: remove answers/ and run again"
"""Why intervals are missing: a guess would make them too short."""
FIXED = "too few contents to tell how others would do, so images are left out instead: "
"""Test sets and their contents follow: an interval there is about further images of the same contents."""


# ---------------------------------------------------------------------------------------------- intervals


class Known(NamedTuple):
    """What intervals are made of.

    Attributes:
        by_test: Method -> test set -> its agreement; without what is missing.
        runs: Method -> which of its runs are behind it.
        note: A note on all of them.
    """

    by_test: dict[Method, dict[str, MeasuredSrcc]]
    runs: dict[Method, list[Replicate]]
    note: str

    def whole(self, method: Method, tests: Sequence[str]) -> list[MeasuredSrcc]:
        """Returns the agreement on every test set; [] where one is missing."""
        found = self.by_test[method]
        return [found[test] for test in tests] if all(test in found for test in tests) else []

    def less(self, one: Method, other: Method, tests: Sequence[str]) -> Estimate:
        """Returns how far two methods' means over test sets are apart; equal runs are paired."""
        mine, theirs = self.whole(one, tests), self.whole(other, tests)
        if not mine or not theirs:
            return Estimate(math.nan, ())
        return difference(mine, theirs, self.runs[one] == self.runs[other])


@once
def known_agreements(group: RunGroup, reader: AnswerReader) -> Known:
    """Reads the predictions of every method of the main order after the last experience.

    Args:
        group: The runs; see `methods.sources` for which of them are used.
        reader: Reads the answers.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    methods = sources(group)
    found: dict[Method, dict[str, MeasuredSrcc]] = {method: {} for method in methods}
    lacking, fixed = False, []
    for test in group.main_record.sequence:
        complete = _complete(reader, methods, test)
        if len(group.splits) > 1:
            for method, each in complete.items():
                found[method][test] = _over_splits(each)
            continue
        shown = next(
            (p.contents for e in complete.values() for p in e.values() if p.contents is not None), None
        )
        lacking |= bool(complete) and shown is None
        if shown is not None and (n := len(np.unique(shown))) < min(FEWEST, len(shown)):
            fixed.append(f"{group.main_record.titles.get(test, test)} {n}")
            shown = np.arange(len(shown))
        for method, each in complete.items():
            found[method][test] = _over_contents([*each.values()], shown)
    few = f"{FIXED}{', '.join(fixed)}" if fixed else ""
    note = joined_note(few, NO_CONTENTS if lacking else "", group.caution)
    return Known(found, {method: list(runs) for method, runs in methods.items()}, note)


def _complete(
    reader: AnswerReader, methods: Mapping[Method, Mapping[Replicate, RunReadout]], test: str
) -> dict[Method, dict[Replicate, Prediction]]:
    """Returns the methods' predictions for a test set, only of those all of whose runs have it."""
    found = {}
    for method, runs in methods.items():
        told = {run: _final(reader, source, test) for run, source in runs.items()}
        known = {run: p for run, p in told.items() if p is not None and len(p.mos)}
        if len(known) == len(told):
            found[method] = known
    return found


def _over_contents(each: Sequence[Prediction], shown: NDArray[np.int64] | None) -> MeasuredSrcc:
    """Returns the SRCC of several seeds, and without each content; `shown` is None where none is known."""
    values = [metrics.srcc(p.scores, p.mos) for p in each]
    if shown is None:
        return MeasuredSrcc(values, np.full((len(each), 1), math.nan), len(each[0].mos))
    return MeasuredSrcc(values, np.stack([without_each(p.scores, p.mos, shown) for p in each]), len(shown))


def _over_splits(each: Mapping[Replicate, Prediction]) -> MeasuredSrcc:
    """Returns the SRCC of several splits, each the mean over its seeds."""
    by_split: dict[int, list[float]] = {}
    for run, told in each.items():
        by_split.setdefault(run.split, []).append(metrics.srcc(told.scores, told.mos))
    fewest = min(len(told.mos) for told in each.values())
    values = [fmean(same) for same in by_split.values()]
    return MeasuredSrcc(values, np.zeros((len(values), 0)), fewest, splits=True)


def _final(reader: AnswerReader, source: RunReadout, test: str) -> Prediction | None:
    return predict(reader, source, len(source.record.steps) - 1, test)


def interval_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns intervals of mSRCC, of SRCC on each test set, and of the difference to the best.

    The best is the method with the highest mSRCC of its setting and backbone, on every test set. Metrics:
    "mSRCC", "mSRCC: low", "mSRCC: high", likewise "mSRCC less the best", and both of "SRCC" by test set.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    main, known = group.main_record, known_agreements(group, reader)
    tests = main.sequence
    means = {m: mean_estimate(all_) if (all_ := known.whole(m, tests)) else _MISSING for m in known.by_test}
    rows = []
    for method, by_test in known.by_test.items():
        note = joined_note(_how(known.runs[method], len(group.splits) > 1), known.note)
        finite = [m for m in means if m[:2] == method[:2] and math.isfinite(means[m].value)]
        best = max(finite, key=lambda m: means[m].value, default=method)
        for test in ("", *tests):
            metric, title = ("SRCC", main.titles.get(test, test)) if test else ("mSRCC", "")
            found = means[method] if not test else by_test[test].estimate() if test in by_test else _MISSING
            three = _three(method, group.main_order, metric, found, note)
            if best != method:
                less = known.less(method, best, [test] if test else tests)
                less_note = joined_note(f"best: {best.label}", note)
                three += _three(method, group.main_order, f"{metric} less the best", less, less_note)
            rows += [row._replace(test_dataset=title) for row in three]
    return rows


def _how(runs: Sequence[Replicate], splits: bool) -> str:
    """Returns what an interval of a method is over."""
    several = counted(runs)
    if splits:
        return f"over {several}, corrected for what they share" if over_splits(runs) else "one split"
    return f"jackknife over contents and {several}" if several else "jackknife over contents; one seed"


_MISSING = Estimate(math.nan, ())


def _three(method: Method, order: str, metric: str, found: Estimate, note: str) -> list[TidyRow]:
    low, high = found.interval
    named = {metric: found.value, f"{metric}: low": low, f"{metric}: high": high}
    return [make_row("intervals", method, order, name, value, note) for name, value in named.items()]


# -------------------------------------------------------------------------------- what could have been shown


def power_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns for every pair of methods how far they are apart, and what these seeds and images could show.

    Pairs are of one setting and backbone. Metrics are "mSRCC less LwF-KG", the same with ": low", ": high",
    ": smallest" (the smallest difference that would have been shown with probability `jackknife.POWER`) and
    ": seeds" (how many seeds would show the difference that was found, on the same test images).

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    known, tests = known_agreements(group, reader), group.main_record.sequence
    rows = []
    for one, other in itertools.combinations(known.by_test, 2):
        if one[:2] != other[:2]:
            continue
        found = known.less(one, other, tests)
        paired = known.runs[one] == known.runs[other]
        low, high = found.interval
        smallest = smallest_difference(found.parts) if found.parts else math.nan
        needed = math.nan
        if len(group.splits) < 2:
            spread = variance_between_seeds(known.whole(one, tests), known.whole(other, tests), paired)
            needed = seeds_needed(found.parts[: len(tests)], spread, abs(found.value))
        numbers = {"": found.value, ": low": low, ": high": high, ": smallest": smallest, ": seeds": needed}
        fewer = min((known.runs[m] for m in (one, other)), key=lambda runs: len(units(dict.fromkeys(runs))))
        once = "one split" if len(group.splits) > 1 else "one seed"
        note = joined_note((counted(fewer) or once) + ("" if paired else ", not the same"), known.note)
        rows += [
            make_row("power", one, group.main_order, f"mSRCC less {other.label}{end}", value, note)
            for end, value in numbers.items()
        ]
    return rows


# ------------------------------------------------------------------------------------------ tests over seeds


def smallest_p(n: int) -> float:
    """Returns the smallest two-sided p-value that n pairs can reach: 2 of the 2^n sign flips."""
    return min(1.0, math.ldexp(2.0, -n))


def too_few(n: int, kind: str = SEEDS) -> str:
    """Returns that n seeds (or splits) cannot show a difference at `ALPHA`; "" if they can."""
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

    Metrics are "mPSI: p against LwF-KG" and so on. A pair with too few common seeds or splits has none.
    Splits are paired where methods share several; the seeds of a split are averaged first.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    methods = {m: runs for m, runs in sources(group).items() if m.setting != "Joint"}
    pairs = []
    for one, other in itertools.combinations(methods, 2):
        common = sorted(methods[one].keys() & methods[other].keys())
        if one[:2] == other[:2] and not too_few(len(units(dict.fromkeys(common)))):
            pairs.append((one, other, common))
    tested = unique(method for one, other, _ in pairs for method in (one, other))
    values = {method: summaries(reader, methods[method]) for method in tested}
    rows = []
    for one, other, common in pairs:
        drawn = f"{DRAWN} drawn sign flips" if len(units(dict.fromkeys(common))) > MOST_EXACT else ""
        note = joined_note(counted(common), drawn, group.caution)
        for metric in TESTED:
            less = {r: values[one][metric][r] - values[other][metric][r] for r in common}
            p = sign_flip_p([fmean(same) for same in units(less).values()])
            for method, rival in ((one, other), (other, one)):  # two-sided: the same both ways
                name = f"{metric}: p against {rival.label}"
                rows.append(make_row("significance", method, group.main_order, name, p, note))
    return sorted(rows, key=lambda row: TESTED.index(row.metric.partition(":")[0]))
