"""Intervals and power once more, by a plain path: what `verify` checks the report against.

A content at a time is taken out and scipy's correlation is computed of the rest; variances are those of
Tukey's pseudo-values. Nothing of `reports.tables.jackknife` or `reports.tables.statistics` is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.measure import is_joint, setting_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import RunRecord
from cliqa_bench.types import Floats

NAN = math.nan
Line = tuple[str, str, str, str]
"""Setting, backbone, method and variant of a row."""
Predict = Callable[[RunRecord, str, int, str], tuple[Floats, Floats] | None]
"""Run, readout, step and test set -> opinions and scores."""
Contents = Callable[[RunRecord, str], NDArray[Any] | None]
"""Run and test set -> which content each image shows."""


class _Said(NamedTuple):
    """A method on a test set: an SRCC a seed, and as many lists of those without each content."""

    whole: list[float]
    without: list[list[float]]
    images: int


class PlainIntervals:
    """Computes single numbers of the tables of intervals and of power.

    Args:
        group: The runs.
        predict: Reads the predictions of a run for a test set.
        contents: Reads which images show one content.
        correlate: Returns the SRCC of two vectors.
    """

    def __init__(
        self,
        group: RunGroup,
        predict: Predict,
        contents: Contents,
        correlate: Callable[[Floats, Floats], float],
    ) -> None:
        self._predict, self._contents, self._correlate = predict, contents, correlate
        main = group.main_record
        self._tests = {main.titles.get(test, test): test for test in main.sequence}
        self._runs: dict[Line, dict[tuple[int, int], tuple[RunRecord, str]]] = {}
        self._split = len({record.split_number for record in group.finished} - {0}) > 1
        for record in group.records:  # the newest first
            joint = is_joint(record) and set(record.sequence) == set(main.sequence)
            if group.is_finished(record) and (joint or record.order == group.main_order):
                for readout, method in record.rows.items():
                    line = (setting_of(record, readout), record.backbone, method, record.variant)
                    run = (record.split_number, record.seed)
                    self._runs.setdefault(line, {}).setdefault(run, (record, readout))
        self._known: dict[tuple[Line, str], _Said | None] = {}

    def value(self, row: TidyRow) -> float:
        """Returns the number that a row of "intervals" or "power" is about, nan where undefined."""
        line: Line = (row.setting, row.backbone, row.method, row.variant)
        tests = [self._tests[row.test_dataset]] if row.test_dataset else [*self._tests.values()]
        what, _, end = row.metric.partition(": ")
        if " less " not in what:
            return self._of_one(line, tests, end)
        rival = what.partition(" less ")[2]
        if rival == "the best":
            rival = row.note.removeprefix("best: ").partition("; ")[0]
        found = [
            o for o in self._runs if o[:2] == line[:2] and rival == (f"{o[2]} ({o[3]})" if o[3] else o[2])
        ]
        return self._of_two(line, found[0], tests, end)

    def _told(self, line: Line, test: str) -> _Said | None:
        if (line, test) not in self._known:
            self._known[line, test] = self._read(line, test)
        return self._known[line, test]

    def _read(self, line: Line, test: str) -> _Said | None:
        numbers = sorted(self._runs[line])
        runs = [self._runs[line][number] for number in numbers]
        answers = [self._predict(record, readout, len(record.steps) - 1, test) for record, readout in runs]
        present = [pair for pair in answers if pair is not None and len(pair[0])]
        if len(present) < len(answers):
            return None
        whole = [self._correlate(s, m) for m, s in present]
        fewest = min(len(mos) for mos, _ in present)
        if self._split:
            of = {
                split: [w for w, (own, _) in zip(whole, numbers, strict=True) if own == split]
                for split, _ in numbers
            }
            return _Said([float(np.mean(same)) for same in of.values()], [], fewest)
        every = (r for seeds in self._runs.values() for r, _ in seeds.values())
        shown = next((c for r in every if (c := self._contents(r, test)) is not None), None)
        if shown is not None and len(set(shown.tolist())) < min(4, len(shown)):
            shown = np.arange(len(shown))  # what other contents would do is not known
        without: list[list[float]] = [[] for _ in present]
        for content in [] if shown is None else sorted(set(shown.tolist())):
            kept = shown != content
            for told, (mos, scores) in zip(without, present, strict=True):
                told.append(self._correlate(scores[kept], mos[kept]))
        return _Said(whole, without, fewest)

    def _of_one(self, line: Line, tests: Sequence[str], end: str) -> float:
        told = [t for test in tests if (t := self._told(line, test)) is not None]
        if len(told) < len(tests):
            return NAN
        k = len(told)
        value = sum(np.mean(t.whole) for t in told) / k
        if not end:
            return float(value)
        centre, parts = 0.0, []
        for t in told:
            mean = float(np.mean(t.whole))
            limit = 1 - 6 / (t.images * (t.images**2 - 1)) if t.images > 1 else NAN
            inside = math.copysign(min(abs(mean), limit), mean)
            centre += inside / k
            if self._split:
                continue
            n = len(t.without[0])
            variance = _pseudo([float(np.mean(column)) for column in zip(*t.without, strict=True)], mean)
            if abs(mean) > 1 - 1e-12:  # perfect, whichever way scipy rounds
                variance = (1 + inside**2 / 2) / (n - 3) * (1 - inside**2) ** 2 if n > 3 else NAN
            parts.append((variance / k**2, (n - 1) / 2))
        by_seed = [sum(values) / k for values in zip(*(t.whole for t in told), strict=True)]
        half = _half(_splits(by_seed) if self._split else [*parts, *_seeds(by_seed)])
        if not half >= 1e-9:  # what is left without each content differs by rounding at most
            return NAN
        z, slope = np.arctanh(centre), 1 - centre**2
        if end == "low":
            return float(min(value, np.tanh(z - half / slope)))
        return float(max(value, np.tanh(z + half / slope)))

    def _of_two(self, line: Line, other: Line, tests: Sequence[str], end: str) -> float:
        pairs = [(self._told(line, test), self._told(other, test)) for test in tests]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if len(both) < len(pairs):
            return NAN
        k = len(both)
        mine, theirs = (
            [sum(values) / k for values in zip(*(pair[i].whole for pair in both), strict=True)]
            for i in (0, 1)
        )
        value = float(np.mean(mine) - np.mean(theirs))
        if not end:
            return value
        paired = self._runs[line].keys() == self._runs[other].keys()
        if self._split:
            parts = _splits([x - y for x, y in zip(mine, theirs, strict=True)]) if paired else [(NAN, 1.0)]
            half = _half(parts)
            ends = {"low": _end(value - half), "high": _end(value + half)}
            return {**ends, "smallest": _half(parts, 0.8), "seeds": NAN}[end]
        images = []
        for a, b in both:
            columns = zip(zip(*a.without, strict=True), zip(*b.without, strict=True), strict=True)
            left = [float(np.mean(x) - np.mean(y)) for x, y in columns]
            whole = float(np.mean(a.whole) - np.mean(b.whole))
            images.append((_pseudo(left, whole) / k**2, len(left) - 1.0))
        apart = [[x - y for x, y in zip(mine, theirs, strict=True)]] if paired else [mine, theirs]
        seeds = [part for values in apart for part in _seeds(values)]
        if end == "smallest":
            return _half([*images, *seeds], 0.8)
        if end == "seeds":
            spread = sum(float(np.var(v, ddof=1)) for v in apart) if min(map(len, apart)) > 1 else NAN
            return _fewest(images, spread, abs(value))
        half = _half([*images, *seeds])
        return _end(value - half if end == "low" else value + half)


def _end(place: float) -> float:
    """Returns an end of the interval of a difference: two correlations are at most 2 apart."""
    return float(np.clip(place, -2, 2))


def _pseudo(left: Sequence[float], whole: float) -> float:
    """Returns the variance of the mean of Tukey's pseudo-values."""
    n = len(left)
    pseudo = [n * whole - (n - 1) * one for one in left]
    return float(np.var(pseudo, ddof=1)) / n if n > 3 else NAN


def _seeds(values: Sequence[float]) -> list[tuple[float, float]]:
    n = len(values)
    return [(float(np.var(values, ddof=1)) / n, n - 1.0)] if n > 1 else []


def _splits(values: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the variance of a mean over splits (Nadeau and Bengio): 1 / n + 2 / 7 in place of 1 / n."""
    n = len(values)
    return [(float(np.var(values, ddof=1)) * (1 / n + 2 / 7), n - 1.0)] if n > 1 else [(NAN, 1.0)]


def _half(parts: Sequence[tuple[float, float]], power: float = 0.5) -> float:
    """Returns half the length of a 95% interval, or, with a power, the smallest difference it would show."""
    total = sum(variance for variance, _ in parts)
    if not total > 0:
        return float(total)
    df = total**2 / sum(variance**2 / df for variance, df in parts if variance)
    return (student_quantile(0.975, df) + student_quantile(power, df)) * math.sqrt(total)


def student_quantile(p: float, df: float) -> float:
    """Looks for the quantile of Student's t where its distribution function says p, at least one half."""
    from scipy.optimize import brentq
    from scipy.special import stdtr

    if p == 0.5 or math.isnan(df):
        return df * 0.0
    end = 1.0
    while stdtr(df, end) < p:
        end *= 2
    return float(brentq(lambda q: stdtr(df, q) - p, 0.0, end, xtol=1e-15, rtol=1e-15))


def _fewest(images: Sequence[tuple[float, float]], spread: float, wanted: float) -> float:
    """Counts up the seeds until the difference would be shown with probability .8."""
    if not (math.isfinite(spread) and math.isfinite(sum(v for v, _ in images)) and wanted > 0):
        return NAN
    for n in range(2, 1001):
        if _half([*images, (spread / n, n - 1.0)], 0.8) <= wanted:
            return float(n)
    return NAN
