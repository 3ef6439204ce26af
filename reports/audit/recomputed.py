"""The numbers of a run once more, by a plain path: what `verify` checks the report against.

Answer files are put together and read here by a second implementation of Eq. 8 to 15: a number at a time,
scipy for each correlation, sums in Python. Nothing of `readouts`, `metrics` or the report's own measuring is
used, so a mistake there, or in a file of the report, is not made twice.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.audit import recomputed_liqe, recomputed_orders, recomputed_ssiqa
from cliqa_bench.reports.audit.recomputed_added import added
from cliqa_bench.reports.audit.recomputed_intervals import PlainIntervals
from cliqa_bench.reports.audit.recomputed_orders import OrderRecomputation
from cliqa_bench.reports.audit.recomputed_pooled import pooled
from cliqa_bench.reports.audit.recomputed_reading import rescaled, temperature
from cliqa_bench.reports.measure import is_joint, setting_of
from cliqa_bench.reports.rows import TABLES, RunGroup, TidyRow
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.results.records import RunRecord
from cliqa_bench.results.schema import EXTRA
from cliqa_bench.types import Floats

Key = tuple[str, int | str, str, str]
"""Metric, length, dataset learned last, test set: as in `results.csv`."""
FloatRows = list[list[float]]
_RunsOfRow = dict[tuple[int, int], tuple[RunRecord, str]]
"""Split and seed -> a run and its readout."""

COVERED = (*TABLES, "transfer")
"""The tables whose numbers are computed here, but for what follows a logistic fit."""
NAN = math.nan


def correlation(method: str, x: Floats, y: Floats) -> float:
    """Returns scipy's correlation of two vectors, nan where it is not defined.

    Args:
        method: "SRCC", "PLCC" or "KRCC".
        x: (n,) numbers.
        y: (n,) numbers.
    """
    from scipy import stats

    finite = np.isfinite(x).all() and np.isfinite(y).all()
    if len(x) < 2 or not finite or x.min() == x.max() or y.min() == y.max():
        return NAN
    of: dict[str, Callable[..., Any]] = {
        "SRCC": stats.spearmanr,
        "PLCC": stats.pearsonr,
        "KRCC": stats.kendalltau,
    }
    return float(of[method](x, y).statistic)


def _ascending_sum(rows: Floats) -> Floats:
    """Sums (tasks, n) over the tasks, from the smallest addend to the largest."""
    total = np.zeros(rows.shape[1])
    for row in np.sort(rows, axis=0):
        total = total + row
    return total


def gated(scores: Floats, distances: Sequence[Floats], tau: float, hard: bool) -> Floats:
    """Reads several heads through the gate (Eq. 8 and 9; hard: the head with the largest mean weight).

    Args:
        scores: (tasks, n) a row per head.
        distances: Per stage, (tasks, n) distances to each task's nearest centroid.
        tau: Temperature.
        hard: Whether one head alone is taken.

    Returns:
        (n,) scores.
    """
    by_stage = []
    for distance in distances:
        weights = np.exp(-tau * (distance - distance.min(axis=0)))
        by_stage.append(weights / _ascending_sum(weights))
    mean = sum(by_stage[1:], start=by_stage[0]) / len(by_stage)
    if not hard:
        return _ascending_sum(mean * scores)
    chosen = scores[mean.argmax(axis=0), np.arange(scores.shape[1])]
    return np.where(np.isfinite(mean).all(axis=0), chosen, np.nan)


class Recomputation:
    """Computes single numbers of comparable runs from their answer files.

    Args:
        out: Folder of the results.
        group: The runs.
    """

    def __init__(self, out: Path, group: RunGroup) -> None:
        self._out = out
        self.group = group
        self._files: dict[str, dict[str, NDArray[Any]] | None] = {}
        self._known: dict[tuple[str, bytes, bytes], float] = {}
        self._cells: dict[tuple[str, str], dict[Key, float]] = {}
        self._orders = OrderRecomputation(self)
        self._intervals = PlainIntervals(
            group, self.predict, self._contents, lambda x, y: correlation("SRCC", x, y)
        )

    def value(self, row: TidyRow) -> tuple[float, float, float] | None:
        """Returns mean, standard deviation (ddof=1) and median of the number that a row is about.

        Over the splits, each the mean of its seeds, if there are several; else over the seeds, and no median.

        Numbers of intervals and power have no deviation, those of orders no median.

        Returns:
            Each nan where undefined; None for rows that this path does not cover.

        Raises:
            UserError: If an answer file is broken.
        """
        if row.table in recomputed_orders.COVERED:
            found = self._orders.value(row)
            return None if found is None else (*found, NAN)
        if row.table in ("intervals", "power", "liqe_gain"):
            return self._intervals.value(row), NAN, NAN
        if row.table == "added_dataset":
            return _over_runs(added(self.group, row, self._srcc))
        if row.table == "pooled":
            return _over_runs(pooled(self.group, row, self.predict, self._keys, self.agree))
        if row.table in recomputed_ssiqa.COVERED:
            transfers = recomputed_ssiqa.transfer_values(self.group, row, self._load, self._correlation)
            return _over_runs(transfers)
        if recomputed_liqe.is_covered(row):
            found_runs = recomputed_liqe.liqe_values(self.group, row, self.predict, self._load, self.agree)
            return _over_runs(found_runs)
        runs = self._runs.get(row[1:6], {})
        key = (row.metric, row.length, row.train_dataset, row.test_dataset)
        if row.table not in COVERED or "logistic" in row.metric or not runs:
            return None
        known = {which: self.of_run(*run).get(key, NAN) for which, run in sorted(runs.items())}
        values = {w: v for w, v in known.items() if runs[w][0].id not in self.group.unfinished}
        if not values:  # what unfinished runs have so far
            values = {which: value for which, value in known.items() if math.isfinite(value)}
        return _over_runs(values)

    @cached_property
    def _runs(self) -> dict[tuple[str, ...], _RunsOfRow]:
        """The runs behind every row: setting, backbone, method, variant and order of a row -> its runs."""
        runs: dict[tuple[str, ...], _RunsOfRow] = {}
        main = set(self.group.main_record.sequence)
        for record in self.group.records:  # finished ones first, then the newest
            order = "" if is_joint(record) and set(record.sequence) == main else record.order
            for readout, method in record.rows.items():
                line = (setting_of(record, readout), record.backbone, method, record.variant, order)
                of_line = runs.setdefault(line, {})
                of_line.setdefault((record.split_number, record.seed), (record, readout))
        return runs

    def _srcc(self, record: RunRecord, readout: str, step: int, test: str) -> float:
        return self.agree("SRCC", self.predict(record, readout, step, test))

    def of_run(self, record: RunRecord, readout: str) -> dict[Key, float]:
        """Returns every number of a run under a readout."""
        if (record.id, readout) not in self._cells:
            self._cells[record.id, readout] = self._measure(record, readout)
        return self._cells[record.id, readout]

    def _measure(self, record: RunRecord, readout: str) -> dict[Key, float]:
        """Returns every number of a run under a readout."""
        tests = list(dict.fromkeys([*record.sequence, *record.tests]))
        names = [record.titles[test] for test in tests]
        steps, tasks = len(record.steps), len(record.sequence)
        told = [[self.predict(record, readout, t, test) for test in tests] for t in range(steps)]
        srcc = [[self.agree("SRCC", cell) for cell in line] for line in told]
        joint = is_joint(record)
        cells: dict[Key, float] = {}
        for t in range(steps):
            train, length = ("All", "") if joint else (names[t], t + 1)
            cells.update({("SRCC", length, train, name): srcc[t][k] for k, name in enumerate(names)})
        train, last = ("All", "") if joint else (names[steps - 1], steps)
        for metric in ("PLCC", "KRCC"):
            final = {name: self.agree(metric, told[-1][k]) for k, name in enumerate(names)}
            cells.update({(metric, last, train, name): value for name, value in final.items()})
        if joint:
            return cells | {("mSRCC", "", "All", ""): statistics.fmean(srcc[0][:tasks])}
        same = [[self.between(told[t][k], told[k][k]) for k in range(t)] for t in range(steps)]
        cells.update({("S", t + 1, names[t], names[k]): same[t][k] for t in range(steps) for k in range(t)})
        return cells | _indices(srcc, same) | _transfer(srcc)

    def predict(self, record: RunRecord, readout: str, step: int, test: str) -> tuple[Floats, Floats] | None:
        """Returns MOS and scores, each (n,), or None where answers are missing or nothing is defined."""
        parts = [self._load(record.answers.get(n, {}).get(test)) for n, _ in record.steps[step].heads]
        present = [part for part in parts if part is not None]
        if len(present) < len(parts):
            return None
        columns = [column for _, column in record.steps[step].heads]
        scores = np.array([p["scores"][:, c] for p, c in zip(present, columns, strict=True)], np.float64)
        mos, told = present[0]["mos"], rescaled(record, step, scores, self._load)
        if told is None:
            return None
        scores = told
        task = record.sequence.index(test) if test in record.sequence else None
        if readout == "oracle":
            return (mos, scores[task]) if task is not None and task < len(scores) else None
        if readout == "merged":
            merged = present[-1].get(EXTRA + "merged")
            return None if merged is None else (mos, merged[:, 0].astype(np.float64))
        if readout == "last" or len(scores) == 1:
            return mos, scores[-1]
        gates = [record.gates.get(s.dataset, "") for s in record.steps[: step + 1]]
        files = [self._load(record.answers.get(gate, {}).get(test)) for gate in gates]
        far = [file["distances"] for file in files if file is not None]
        tau = temperature(record, step, self._load)
        if len(far) < len(files) or tau is None:
            return None
        by_stage = [np.array([d[:, stage - 1] for d in far], np.float64) for stage in record.stages]
        return mos, gated(scores, by_stage, tau, hard=readout == "gate-hard")

    def _contents(self, record: RunRecord, test: str) -> NDArray[Any] | None:
        """Returns (n,) which images of a test set show one content; None where the files do not say."""
        files = [self._load(record.answers.get(n, {}).get(test)) for n, _ in record.steps[-1].heads]
        return next((file["contents"] for file in files if file is not None and "contents" in file), None)

    def _keys(self, record: RunRecord, test: str) -> NDArray[Any]:
        """Returns (n,) the keys of a test set, as the last experience's answers have them."""
        node, _ = record.steps[-1].heads[0]
        answers = self._load(record.answers[node][test])
        assert answers is not None
        return answers["keys"]

    def _load(self, node: str | None) -> dict[str, NDArray[Any]] | None:
        if node is None:
            return None
        if node not in self._files:
            folder = self._out / "answers" / node
            done = (folder / "done.json").is_file()
            self._files[node] = read_answers(folder / "answers.npz") if done else None
        return self._files[node]

    def agree(self, method: str, cell: tuple[Floats, Floats] | None) -> float:
        """Returns the correlation of a prediction with the opinions, nan if undefined."""
        return NAN if cell is None else self._correlation(method, cell[1], cell[0])

    def between(self, one: tuple[Floats, Floats] | None, other: tuple[Floats, Floats] | None) -> float:
        """Returns the SRCC of two predictions, nan where one is missing."""
        return NAN if one is None or other is None else self._correlation("SRCC", one[1], other[1])

    def _correlation(self, method: str, x: Floats, y: Floats) -> float:
        """Runs in other orders predict the same: each pair of vectors is computed once."""
        one, other = (hashlib.blake2b(v.tobytes(), digest_size=16).digest() for v in (x, y))
        key = (method, one, other)
        if key not in self._known:
            self._known[key] = correlation(method, x, y)
        return self._known[key]


def _over_runs(values: dict[tuple[int, int], float]) -> tuple[float, float, float]:
    """Returns mean, standard deviation and median of what runs have, by split and seed."""
    if not values or not all(map(math.isfinite, values.values())):
        return NAN, NAN, NAN
    splits = sorted({split for split, _ in values})
    if len(splits) == 1:
        told = [value for _, value in sorted(values.items())]
        return statistics.fmean(told), float(np.std(told, ddof=1)) if len(told) > 1 else NAN, NAN
    told = [float(np.mean([v for (own, _), v in values.items() if own == split])) for split in splits]
    return statistics.fmean(told), float(np.std(told, ddof=1)), float(np.quantile(told, 0.5))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN


def _indices(srcc: FloatRows, same: FloatRows) -> dict[Key, float]:
    """Equations 11 to 15 from SRCC_tk (T, K) and S_tk (row t holds k < t)."""
    steps = len(srcc)
    plastic = [srcc[t][t] for t in range(steps)]
    stable = [_mean(same[t]) if t else 1.0 for t in range(steps)]
    both = [(p + s) / 2 for p, s in zip(plastic, stable, strict=True)]
    so_far = [_mean(both[: t + 1]) for t in range(steps)]
    curves = {"PI_t": plastic, "SI_t": stable, "PSI_t": both, "mPSI": so_far}
    cells: dict[Key, float] = {
        (metric, t + 1, "", ""): curve[t] for metric, curve in curves.items() for t in range(steps)
    }
    cells[f"mean of mPSI over lengths 1-{steps}", "Mean", "", ""] = _mean(so_far)
    whole = {"mSRCC": _mean(srcc[-1][:steps]), "mPI": _mean(plastic), "mSI": _mean(stable)}
    return cells | {(metric, steps, "", ""): value for metric, value in whole.items()}


def _transfer(srcc: FloatRows) -> dict[Key, float]:
    """Forgetting, BWT and FWT, as `metrics` defines them."""
    steps = len(srcc)
    end = srcc[-1]
    lost = [float(np.max([srcc[t][k] for t in range(k, steps - 1)])) - end[k] for k in range(steps - 1)]
    found = {
        "Forgetting": _mean(lost),
        "BWT": _mean([end[k] - srcc[k][k] for k in range(steps - 1)]),
        "FWT": _mean([srcc[k - 1][k] for k in range(1, steps)]),
    }
    return {(metric, steps, "", ""): value for metric, value in found.items()}
