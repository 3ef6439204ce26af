"""The order study once more, by a plain path: each order by itself, sums in Python, deletion by deleting.

Nothing of the report's look-up of orders, of its least squares or of its jackknife is used; which random
samples are tried is part of the definition, and the same.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cliqa_bench.order_designs import ORDERS, williams
from cliqa_bench.reports.audit.recomputed_added import Run
from cliqa_bench.reports.audit.recomputed_intervals import student_quantile
from cliqa_bench.reports.measure import SUMMARY, is_joint, setting_of
from cliqa_bench.reports.rows import TidyRow
from cliqa_bench.reports.tables.all_orders import TRAINED
from cliqa_bench.reports.tables.jackknife import LEVEL
from cliqa_bench.reports.tables.order_study import ALIKE, TIES, drawn_samples
from cliqa_bench.results.records import RunRecord, Step
from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from cliqa_bench.reports.audit.recomputed import Recomputation

COVERED = ("orders", "first_task", "order_ranks", "order_variance", "order_sampling")
TOLERANCES = {"order_variance": 1e-9}
"""Where more than rounding of a sum may differ: a share divides it by how far orders differ (above 1e-6)."""

NAN = math.nan
_SCOPE = re.compile(r"(?:among )?(?:all [0-9]+|[0-9]+ of [0-9]+)(?: of (.+))?")

Order = tuple[str, ...]
Values = dict[Order, list[dict[str, float]]]
"""Order -> a mapping for each seed, or for each of several splits: metric -> value."""


class _About(NamedTuple):
    """What a row is about."""

    method: tuple[str, ...]
    datasets: Order
    exact: bool


class OrderRecomputation:
    """Computes the numbers of the order study.

    Args:
        plain: Measures single runs.
    """

    def __init__(self, plain: Recomputation) -> None:
        self._plain = plain
        self._known: dict[_About, Values] = {}
        self._shares: dict[tuple[_About, str], dict[str, tuple[float, float]]] = {}

    def value(self, row: TidyRow) -> tuple[float, float] | None:
        """Returns value and std of a row; None if it is not clear of which datasets it is."""
        datasets = self._datasets(row)
        if datasets is None:
            return None
        about = _About(tuple(row[1:5]), datasets, TRAINED not in row.note.split("; "))
        if about not in self._known:
            self._known[about] = self._exact(about) if about.exact else self._trained(about)
        values = self._known[about]
        metric, _, what = row.metric.partition(": ")
        if row.table == "order_variance":
            return self._share(about, metric, what.replace("split", "seed"))
        means = {order: _mean([one[metric] for one in each]) for order, each in values.items()}
        if row.table == "first_task":
            begins = self._names()[row.train_dataset]
            some = [value for order, value in means.items() if order[0] == begins]
            return _statistic(some, "mean"), _statistic(some, "std")
        if row.table == "order_ranks":
            return _rank(means, [name for name in ORDERS[row.order] if name in datasets]), NAN
        if row.table == "order_sampling":
            return _error(means, datasets, *what.split(": ")), NAN
        return _statistic(list(means.values()), what), NAN

    def _share(self, about: _About, metric: str, factor: str) -> tuple[float, float]:
        if (about, metric) not in self._shares:
            self._shares[about, metric] = _shares(self._known[about], len(about.datasets), metric)
        return self._shares[about, metric].get(factor, (NAN, NAN))

    def _names(self) -> dict[str, str]:
        """Title -> name of every dataset."""
        records = self._plain.group.records
        return {title: name for record in records for name, title in record.titles.items()}

    def _datasets(self, row: TidyRow) -> Order | None:
        among = (part for part in row.note.split("; ") if part.startswith("among "))
        text = next(among, row.order)
        scope = _SCOPE.fullmatch(text)
        if scope and scope[1] is None:
            return tuple(self._plain.group.main_record.sequence)
        names = self._names()
        titles = (scope[1] if scope else text).split(", ")
        found = tuple(names[title] for title in titles if title in names)
        if scope is None and set(found) == set(self._plain.group.main_record.sequence):
            return tuple(self._plain.group.main_record.sequence)
        return found if len(found) == len(titles) else None

    def _runs(self, about: _About) -> list[tuple[RunRecord, str]]:
        """Returns the runs of a method on these datasets, and how they are read, the finished ones first."""
        return [
            (record, readout)
            for record in self._plain.group.records
            for readout, name in record.rows.items()
            if set(record.sequence) == set(about.datasets) and not is_joint(record)
            if (setting_of(record, readout), record.backbone, name, record.variant) == about.method
        ]

    def _trained(self, about: _About) -> Values:
        runs: dict[Order, dict[Run, tuple[RunRecord, str]]] = {}
        for record, readout in self._runs(about):
            runs.setdefault(tuple(record.sequence), {}).setdefault(_run_of(record), (record, readout))
        every = {one for own in runs.values() for one in own}
        asked = {one for one in every if all(one in own for own in runs.values())}
        unfinished = self._plain.group.unfinished
        whole = {one for one in asked if all(own[one][0].id not in unfinished for own in runs.values())}
        shared = whole or asked or every
        nothing = dict.fromkeys(SUMMARY, NAN)
        return {
            order: _each({one: self._summary(*own[one]) if one in own else nothing for one in shared})
            for order, own in sorted(runs.items(), key=lambda run: list(map(about.datasets.index, run[0])))
        }

    def _summary(self, record: RunRecord, readout: str) -> dict[str, float]:
        cells = self._plain.of_run(record, readout)
        return {metric: cells[metric, len(record.steps), "", ""] for metric in SUMMARY}

    def _exact(self, about: _About) -> Values:
        runs: dict[Run, _AnyOrder] = {}
        for record, readout in self._runs(about):
            if record.id in self._plain.group.unfinished:
                continue
            runs.setdefault(_run_of(record), _AnyOrder(self._plain, record, readout))
        orders = itertools.permutations(about.datasets)
        return {order: _each({one: run.summary(order) for one, run in runs.items()}) for order in orders}


class _AnyOrder:
    """One run, as if it had learned its datasets in any order."""

    def __init__(self, plain: Recomputation, record: RunRecord, readout: str) -> None:
        self._plain, self._record, self._readout = plain, record, readout
        self._told: dict[tuple[frozenset[str], str], tuple[Floats, Floats] | None] = {}

    def summary(self, order: Order) -> dict[str, float]:
        """Returns mSRCC, mPI, mSI and mPSI of an order."""
        plain, steps = self._plain, len(order)
        told = [[self._predict(order[: t + 1], test) for test in order[: t + 1]] for t in range(steps)]
        own = [plain.agree("SRCC", told[t][t]) for t in range(steps)]
        last = [plain.agree("SRCC", cell) for cell in told[-1]]
        same = [[plain.between(told[t][k], told[k][k]) for k in range(t)] for t in range(steps)]
        stable = [_mean(row) if row else 1.0 for row in same]
        both = [(p + s) / 2 for p, s in zip(own, stable, strict=True)]
        found = {"mSRCC": last, "mPI": own, "mSI": stable, "mPSI": both}
        return {metric: _mean(values) for metric, values in found.items()}

    def _predict(self, learned: Order, test: str) -> tuple[Floats, Floats] | None:
        alone = self._readout == "last"
        key = (frozenset(learned[-1:] if alone else learned), test)
        if key not in self._told:
            self._told[key] = self._read(learned, test)
        return self._told[key]

    def _read(self, learned: Order, test: str) -> tuple[Floats, Floats] | None:
        found = self._plain.predict(self._in_order(learned), self._readout, len(learned) - 1, test)
        if self._readout != "gate-hard" or found is None:
            return found
        again = self._plain.predict(self._in_order(learned[::-1]), self._readout, len(learned) - 1, test)
        assert again is not None
        return found[0], np.where(found[1] == again[1], found[1], NAN)  # equal weights: the order decides

    def _in_order(self, learned: Order) -> RunRecord:
        record = self._record
        head = {step.dataset: step.heads[-1] for step in record.steps}
        several = len(record.steps[-1].heads) > 1
        steps = [
            Step(name, [head[n] for n in (learned[: t + 1] if several else (name,))])
            for t, name in enumerate(learned)
        ]
        return replace(record, sequence=list(learned), steps=steps)


def _run_of(record: RunRecord) -> Run:
    return record.split_number, record.seed


def _each(by_run: dict[Run, dict[str, float]]) -> list[dict[str, float]]:
    """Returns the numbers of each seed; of several splits, those of each, means over its seeds."""
    splits = sorted({split for split, _ in by_run})
    if len(splits) < 2:
        return [by_run[run] for run in sorted(by_run)]
    same = [[found for (own, _), found in by_run.items() if own == split] for split in splits]
    return [{metric: _mean([found[metric] for found in each]) for metric in SUMMARY} for each in same]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _statistic(values: list[float], what: str) -> float:
    """Returns a statistic of all orders by its name in the table."""
    if what == "orders":
        return float(sum(map(math.isfinite, values)))
    if not all(map(math.isfinite, values)):
        return NAN
    quartiles = ("lower quartile", "median", "upper quartile")
    if what in quartiles:
        cuts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cuts[quartiles.index(what)]
    of: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.fmean, "std": statistics.pstdev, "minimum": min, "maximum": max,
        "worst order": min, "best order": max,
    }  # fmt: skip
    return float(of[what](values))


def _rank(means: dict[Order, float], order: list[str]) -> float:
    from scipy import stats

    rounded = {each: round(value, TIES) for each, value in means.items()}
    return float(stats.percentileofscore(list(rounded.values()), rounded[tuple(order)], kind="mean"))


# -- how well few orders do ----------------------------------------------------------------------------------


def _error(means: dict[Order, float], datasets: Order, design: str, name: str) -> float:
    """Returns the bias or the RMSE of a design's mean or spread."""
    whole = list(means.values())
    n = len(whole)
    of_spread = name.endswith("spread")
    goal = statistics.pstdev(whole) if of_spread else statistics.fmean(whole)
    size = int(design.removeprefix("random ")) if design.startswith("random ") else 0
    if size and not of_spread:
        variance = statistics.variance(whole) / size * (1 - size / n)
        return math.sqrt(variance) if name.startswith("RMSE") else 0.0
    samples = _samples(means, datasets, size, design)
    if of_spread:
        off = np.sqrt(samples.var(1, ddof=1) * (n - 1) / n) - goal
    else:
        off = samples.mean(1) - goal
    return float(off.mean() if name.startswith("bias") else np.sqrt(np.square(off).mean()))


def _samples(means: dict[Order, float], datasets: Order, size: int, design: str) -> Floats:
    """Returns (samples, orders of each) the values of the orders that a design may choose."""
    if size:
        return np.array(list(means.values()))[drawn_samples(len(means), size)]
    if design == "Williams square":
        square = williams(len(datasets))
        chosen = [
            [tuple(letters[i] for i in row) for row in square] for letters in itertools.permutations(datasets)
        ]
    else:
        chosen = [sorted({tuple(name for name in order if name in datasets) for order in ORDERS.values()})]
    return np.array([[means[order] for order in orders] for orders in chosen])


# -- shares of the variance ----------------------------------------------------------------------------------

_MODELS = ("first", "last", "first and last", "neighbour")


def _shares(values: Values, tasks: int, metric: str) -> dict[str, tuple[float, float]]:
    """Returns the shares, each with half of its interval: the same sums again without each order."""
    table = np.array([[seed[metric] for seed in each] for each in values.values()])  # (N, seeds)
    n = len(table)
    if not np.isfinite(table).all() or table.max() - table.min() <= ALIKE:
        return {}
    whole = _without(table, tasks, None)
    each = [_without(table, tasks, i) for i in range(n)] if n > 2 else []
    halves = {}
    for factor in whole:
        error = math.sqrt((n - 1) * statistics.pvariance([one[factor] for one in each])) if each else NAN
        halves[factor] = error * student_quantile(0.5 + LEVEL / 2, n - 1)
    saturated = [model for model in _MODELS if np.linalg.matrix_rank(_indicators(tasks, model)) == n]
    empty = [*saturated, *(["rest of the order"] if "neighbour" in saturated else [])]
    empty += ["seed", "order x seed"] if table.shape[1] == 1 else []
    return {factor: (whole[factor], halves[factor]) for factor in whole if factor not in empty}


def _without(table: Floats, tasks: int, left_out: int | None) -> dict[str, float]:
    """Returns the shares of the sum of squares about the mean, without an order."""
    some = table if left_out is None else np.delete(table, left_out, axis=0)
    some = some - some.mean()
    n, seeds = some.shape
    total, means = float((some**2).sum()), some.mean(axis=1)
    orders, by_seed = seeds * float((means**2).sum()), n * float((some.mean(axis=0) ** 2).sum())
    fitted = {}
    for model in _MODELS:
        x = _indicators(tasks, model)
        b = (x if left_out is None else np.delete(x, left_out, axis=0)).T @ means
        fitted[model] = seeds * float(b @ _inverse(tasks, model, left_out) @ b)
    parts = {
        **fitted,
        "neighbour": fitted["neighbour"] - fitted["first and last"],
        "rest of the order": orders - fitted["neighbour"],
        "seed": by_seed,
        "order x seed": total - orders - by_seed,
    }
    return {factor: part / total for factor, part in parts.items()}


@functools.lru_cache(maxsize=16)
def _indicators(tasks: int, model: str) -> Floats:
    """Returns a column of zeros and ones for everything that an order can begin or end with or contain."""
    told: Callable[[tuple[int, ...]], set[Any]] = {
        "first": lambda order: {("first", order[0])},
        "last": lambda order: {("last", order[-1])},
        "first and last": lambda order: {("first", order[0]), ("last", order[-1])},
        "neighbour": lambda order: set(itertools.pairwise(order)),
    }[model]
    sets = [told(order) for order in itertools.permutations(range(tasks))]
    columns = sorted(set.union(*sets), key=repr)
    return np.array([[1.0, *(float(column in own) for column in columns)] for own in sets])


@functools.lru_cache(maxsize=30_000)
def _inverse(tasks: int, model: str, left_out: int | None) -> Floats:
    """Returns the pseudo-inverse of X'X without an order; all methods and metrics need the same ones."""
    x = _indicators(tasks, model)
    if left_out is not None:
        x = np.delete(x, left_out, axis=0)
    return np.asarray(np.linalg.pinv(x.T @ x, rcond=1e-10, hermitian=True))
