"""Robustness over all task orders: exact from one training per dataset, or from the orders that were trained.

Where training depends on no earlier dataset (TSN-IQA, SL), a model after some experiences is the set of the
heads learned so far, however they were ordered. So one ranking of each set's predictions on each test set is
enough: every order, 720 of six datasets, is then a look-up. Of other methods, the orders that
were run count (`--orders every` asks for all).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.measure import SETTINGS, SUMMARY, is_joint
from cliqa_bench.reports.methods import (
    Method,
    RunReadout,
    joined_note,
    make_row,
    matrices_of,
    method_of,
    once,
    sources,
)
from cliqa_bench.reports.rows import RunGroup, TidyRow, order_rank
from cliqa_bench.reports.spread import Replicate, counted, kind_of_units, replicate_of, units
from cliqa_bench.results.nodes import read_json
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.types import Answers, Floats

MOST_TASKS = 7
"""Eight datasets have 40,320 orders: too many to go through."""

FEWEST = 4
"""Fewer trained orders than these are left out, unless there are no more: they are not a distribution."""


@dataclass(frozen=True)
class OrderStudy:
    """What a method reaches in every order of the same datasets.

    Attributes:
        method: The method.
        names: The T datasets, in the group's main order.
        titles: Their titles.
        permutations: (N, T) int, orders as indices into `titles`, in lexicographic order: all T! of them (the
            main order first) where they are exact, else those that runs are there of.
        each: mSRCC, mPI, mSI, mPSI -> (units, N) float64, a row per seed; of several splits a row per
            split, the mean over its seeds. nan where an answer is missing.
        values: The same -> (N,) float64, means over the seeds or splits.
        runs: Which seeds and splits there are.
        caution: See `RunGroup.caution`.
        exact: Whether one training per dataset gives every order.
        main: Whether the datasets are those of the group's main order.
    """

    method: Method
    names: list[str]
    titles: list[str]
    permutations: NDArray[np.int64]
    each: dict[str, Floats]
    values: dict[str, Floats]
    runs: tuple[Replicate, ...]
    caution: str
    exact: bool = True
    main: bool = True

    @property
    def unit(self) -> str:
        """What a row of `each` is of: "seeds" or "splits"."""
        return kind_of_units(self.runs)

    @property
    def total(self) -> int:
        """How many orders of the datasets there are."""
        return math.factorial(len(self.names))

    @property
    def whole(self) -> bool:
        """Whether every order is there, finished or not."""
        return len(self.permutations) == self.total

    @property
    def scope(self) -> str:
        """Which orders these are: "all 720", "24 of 720"; of other datasets than the main ones, which."""
        orders = f"all {self.total}" if self.whole else f"{len(self.permutations)} of {self.total}"
        return orders if self.main else f"{orders} of {', '.join(self.titles)}"

    def name(self, order: int) -> str:
        """Returns the datasets of an order, in the order of learning."""
        return ", ".join(self.titles[task] for task in self.permutations[order])

    @property
    def first_task(self) -> Floats:
        """(T, (T-1)!) mPSI of the orders that begin with each dataset, where all are there."""
        begins = self.permutations[:, 0]
        return np.stack([self.values["mPSI"][begins == task] for task in range(len(self.titles))])


def is_order_free(record: RunRecord, reader: AnswerReader) -> bool:
    """Tells whether the training on each dataset depended on no other dataset.

    Several heads say so themselves: each is in a train node of its own, and later experiences leave them
    there. A single head may be a fresh one or the former one trained on: its train node's `spec.json` names
    the datasets it depends on; where that file is gone, the answer is no.
    """
    if is_joint(record) or len(record.steps) < 2 or "tau" in record.reading:  # which other tasks decide
        return False
    last = record.steps[-1].heads
    if len(last) == len(record.steps):
        grown = all(step.heads == last[: t + 1] for t, step in enumerate(record.steps))
        return grown and len({node for node, _ in last}) == len(last)
    spec = reader.out / "train" / last[-1][0] / "spec.json"
    return len(last) == 1 and spec.is_file() and len(read_json(spec).get("sequence", [])) == 1


@once
def order_studies(group: RunGroup, reader: AnswerReader) -> list[OrderStudy]:
    """Measures the orders of the main order's datasets, and of others of which several orders were run.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    return [
        study
        for main, datasets in _studied(group).items()
        for study in [
            *_exact_studies(group, reader, list(datasets), main == 0),
            *_trained_studies(group, reader, list(datasets), main == 0),
        ]
    ]


def _studied(group: RunGroup) -> dict[int, tuple[str, ...]]:
    """Returns the sets of datasets that are studied, each in one order, numbered; the main ones are 0."""
    main = tuple(group.main_record.sequence)
    runs = sorted((order_rank(record.order), tuple(record.sequence)) for record in group.records)
    orders: dict[frozenset[str], list[tuple[str, ...]]] = {frozenset(main): [main]}
    for _, sequence in runs:
        found = orders.setdefault(frozenset(sequence), [])
        if sequence not in found[:2]:  # only whether there is one or several counts
            found.append(sequence)
    sets = [each[0] for each in orders.values() if each[0] == main or len(each) > 1]
    return {i: each for i, each in enumerate(sets) if len(each) <= MOST_TASKS}


def _exact_studies(
    group: RunGroup, reader: AnswerReader, datasets: list[str], main: bool
) -> Iterable[OrderStudy]:
    """Yields the methods that do not depend on the order, in every order."""

    def wanted(record: RunRecord) -> bool:
        return set(record.sequence) == set(datasets) and is_order_free(record, reader)

    permutations = np.array(list(itertools.permutations(range(len(datasets)))))
    for method, runs in sources(group, wanted).items():
        each = {run: every_order(source, datasets, permutations, reader) for run, source in runs.items()}
        yield _study(group, method, datasets, permutations, each, exact=True, main=main)


def _trained_studies(
    group: RunGroup, reader: AnswerReader, datasets: list[str], main: bool
) -> Iterable[OrderStudy]:
    """Yields the methods that depend on the order, in the orders that runs are there of.

    Only seeds and splits count that all of these orders have: means over others could not be compared. If
    some of them have finished all orders, these alone count.
    """
    for method, orders in _trained_runs(group, reader, datasets).items():
        if len(orders) < min(FEWEST, math.factorial(len(datasets))):
            continue
        permutations = np.array(sorted([datasets.index(name) for name in order] for order in orders))
        runs = [orders[tuple(datasets[k] for k in row)] for row in permutations]
        finished = [{one for one, source in run.items() if group.is_finished(source.record)} for run in runs]
        asked = [set(run) for run in runs]
        shared = set.intersection(*finished) or set.intersection(*asked) or set.union(*asked)
        each = {}
        for one in sorted(shared):
            found = [_measured(run.get(one), reader) for run in runs]
            each[one] = {m: np.array([getattr(summary, m) for summary in found]) for m in SUMMARY}
        yield _study(group, method, datasets, permutations, each, exact=False, main=main)


_Runs = dict[tuple[str, ...], dict[Replicate, RunReadout]]


def _trained_runs(group: RunGroup, reader: AnswerReader, datasets: list[str]) -> dict[Method, _Runs]:
    """Returns a run of each method, order, split and seed: the newest, of finished ones if there are any."""
    found: dict[Method, _Runs] = {}
    for record in group.records:  # finished ones first, then the newest
        if set(record.sequence) != set(datasets) or is_joint(record) or is_order_free(record, reader):
            continue
        for readout in record.rows:
            source = RunReadout(record, readout)
            orders = found.setdefault(method_of(source), {})
            orders.setdefault(tuple(record.sequence), {}).setdefault(replicate_of(record), source)
    ranked = sorted(found, key=lambda method: (SETTINGS.index(method.setting), *method[1:]))
    return {method: found[method] for method in ranked}


def _measured(source: RunReadout | None, reader: AnswerReader) -> metrics.Summary:
    if source is None:
        return metrics.Summary(*[math.nan] * len(SUMMARY))
    return metrics.summary(*matrices_of(reader, source))


def _study(
    group: RunGroup,
    method: Method,
    datasets: list[str],
    permutations: NDArray[np.int64],
    each: dict[Replicate, dict[str, Floats]],
    **more: bool,
) -> OrderStudy:
    titles = {name: title for record in group.records for name, title in record.titles.items()}
    by_unit = {m: [_means([e[m] for e in same]) for same in units(each).values()] for m in SUMMARY}
    means = {m: _means(vectors) for m, vectors in by_unit.items()}
    stacked = {m: np.stack(vectors) for m, vectors in by_unit.items()}
    named = [titles.get(name, name) for name in datasets]
    return OrderStudy(
        method, datasets, named, permutations, stacked, means, tuple(each), group.caution, **more
    )


def _means(vectors: list[Floats]) -> Floats:
    """Returns the means over vectors."""
    return np.array([fmean(values) for values in zip(*vectors, strict=True)])


def every_order(
    source: RunReadout, datasets: list[str], permutations: NDArray[np.int64], reader: AnswerReader
) -> dict[str, Floats]:
    """Returns mSRCC, mPI, mSI and mPSI of a run for every order of its datasets.

    Args:
        source: A run for which `is_order_free` holds, and how it is read.
        datasets: Its datasets, in any order.
        permutations: (N, T) indices into `datasets`.
        reader: Reads the answers.

    Returns:
        Four times (N,) float64, to the bit what `metrics.summary` gives for a run in that order; nan where an
        answer is missing.
    """
    tables = [_by_model(source, datasets, k, reader) for k in range(len(datasets))]
    agreement, stability = (np.stack(part) for part in zip(*tables, strict=True))
    bits = 1 << permutations
    # which model stands after each experience: the newest head alone, or the set of all so far
    model = bits if source.readout == "last" else np.cumsum(bits, axis=1)
    now, then = model[:, :, None], model[:, None, :]
    test = permutations[:, None, :]
    found = [
        metrics.summary(a, s) for a, s in zip(agreement[test, now], stability[test, now, then], strict=True)
    ]
    return {metric: np.array([getattr(s, metric) for s in found]) for metric in SUMMARY}


def _by_model(
    source: RunReadout, datasets: list[str], test: int, reader: AnswerReader
) -> tuple[Floats, Floats]:
    """Ranks what every model says about one test set.

    A model is a bit mask over the datasets: which heads it has, or of the readout "last", the one it uses.

    Returns:
        (2^T,) SRCC with the opinions and (2^T, 2^T) SRCC between models; nan where no order asks for it.
    """
    models = 1 << len(datasets)
    agreement, stability = np.full(models, np.nan), np.full((models, models), np.nan)
    answers = _all_heads(source.record, datasets, datasets[test], reader)
    if answers is None:
        return agreement, stability
    alone = source.readout == "last"
    masks = [1 << k for k in range(len(datasets))] if alone else range(1, models)
    told = {mask: _read(source, answers, mask, test) for mask in masks if alone or mask >> test & 1}
    rows = [np.full(len(answers.mos), np.nan) if scores is None else scores for scores in told.values()]
    between = metrics.spearman(np.vstack([*rows, answers.mos]))
    masks = list(told)
    agreement[masks] = between[:-1, -1]
    stability[np.ix_(masks, masks)] = between[:-1, :-1]
    return agreement, stability


def _all_heads(record: RunRecord, datasets: list[str], test: str, reader: AnswerReader) -> Answers | None:
    """Returns the answers with one head and one gate per dataset, in the order of `datasets`."""
    steps = [reader.answers(record, t, test) for t in range(len(record.steps))]
    if any(step is None for step in steps):
        return None
    present = [step for step in steps if step is not None]
    place = [record.sequence.index(name) for name in datasets]
    scores = np.stack([present[t].scores[:, -1] for t in place], axis=1)
    far = present[-1].distances
    return Answers(present[0].keys, present[0].mos, scores, None if far is None else far[:, place])


def _read(source: RunReadout, answers: Answers, mask: int, test: int) -> Floats | None:
    """Reads the model that has the heads of a mask."""
    heads = [k for k in range(answers.scores.shape[1]) if mask >> k & 1]

    def told(order: list[int]) -> Floats | None:
        far = None if answers.distances is None else answers.distances[:, order]
        some = Answers(answers.keys, answers.mos, answers.scores[:, order], far)
        own = order.index(test) if test in order else None
        return read(some, source.readout, own, source.record.tau)

    scores = told(heads)
    if source.readout == "gate-hard" and scores is not None:
        # of two heads with the same weight the first is taken: then the heads' order does count
        again = told(heads[::-1])
        return np.where(scores == again, scores, np.nan)
    return scores


# --------------------------------------------------------------------------------------------------- rows

FINISHED = "orders"
TRAINED = "each order trained"
"""Note on what does not follow from one training per dataset."""

STATISTICS = ("mean", "std", "minimum", "lower quartile", "median", "upper quartile", "maximum")


def describe(values: Floats) -> dict[str, float]:
    """Describes a whole population: std with ddof=0, linear quartiles; all nan if one value is."""
    if not np.isfinite(values).all():
        return dict.fromkeys(STATISTICS, math.nan)
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    alike = bool(values.min() == values.max())  # rounding must not make a spread out of equal values
    mean, std = (values[0], 0.0) if alike else (math.fsum(values) / len(values), values.std())
    told = [mean, std, *quartiles]
    return {name: float(value) for name, value in zip(STATISTICS, told, strict=True)}


def order_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the distribution of the four summary numbers over all orders, and the extreme orders.

    The metric of a row is "mPSI: median" and the like; `order` is "all 720", or "24 of 720" where there are
    runs of so many; then "mPSI: orders" says how many are finished, and until all are, the others are nan.
    For "mPSI: worst order" and "mPSI: best order", `order` names the datasets and the value is that of the
    order.
    """
    rows: list[TidyRow] = []
    for study in order_studies(group, reader):
        note, table = note_of(study), "orders"
        every = study.scope
        for metric in SUMMARY:
            if not study.exact:
                finished = float(np.isfinite(study.values[metric]).sum())
                rows.append(make_row(table, study.method, every, f"{metric}: {FINISHED}", finished, note))
            for statistic, value in describe(study.values[metric]).items():
                rows.append(make_row(table, study.method, every, f"{metric}: {statistic}", value, note))
        values = study.values["mPSI"]
        if np.isfinite(values).all():
            for word, best in (("worst", values.min()), ("best", values.max())):
                alike = np.flatnonzero(values == best)
                tie = f"the first of {len(alike)} orders with this value" if len(alike) > 1 else ""
                name, label = study.name(int(alike[0])), f"mPSI: {word} order"
                rows.append(make_row(table, study.method, name, label, float(best), joined_note(tie, note)))
        rows = [row if row.length else row._replace(length=len(study.titles)) for row in rows]
    return rows


def first_task_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the mean of mPSI over all orders that begin with each dataset, with their spread (ddof=0)."""
    rows = []
    for study in order_studies(group, reader):
        for title, values in zip(study.titles, study.first_task, strict=True) if study.whole else ():
            told = describe(values)
            row = make_row("first_task", study.method, study.scope, "mPSI: mean", told["mean"])
            rows.append(
                row._replace(
                    length=len(study.titles), train_dataset=title, std=told["std"], note=note_of(study)
                )
            )
    return rows


def note_of(study: OrderStudy) -> str:
    """Returns the notes on a study's numbers."""
    several = counted(study.runs)
    made = "exact, from one training per dataset" if study.exact else TRAINED
    return joined_note(made, f"means over {several}" if several else "", study.caution)
