"""What one more dataset does: the SRCC on every test set before it was learned, after it, and the difference.

An order with one more dataset than another is compared with it. If it continues the other (the same datasets
in the same order, then the new one), its own runs give both numbers: after the last experience but one, and
after the last. Else the runs of the two orders are compared, each after its last experience.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from cliqa_bench import metrics
from cliqa_bench.reports.measure import is_joint
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, namer, predict, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow, order_rank
from cliqa_bench.reports.spread import Replicate, spread
from cliqa_bench.reports.tables.shapes import Table, apart, build
from cliqa_bench.results.records import AnswerReader, RunRecord

TABLE = "added_dataset"
MOST = 8
"""How many orders are compared with one that has a dataset less."""
MOMENTS = ("before", "after", "difference")


class OrderPair(NamedTuple):
    """Two orders, of which one has one more dataset.

    Attributes:
        less: A run in the order without the dataset.
        more: A run in the order with it.
        new: Name of the dataset.
    """

    less: RunRecord
    more: RunRecord
    new: str

    @property
    def goes_on(self) -> bool:
        """Whether the longer order is the shorter one, and then the new dataset."""
        return self.more.sequence == [*self.less.sequence, self.new]


def order_pairs(group: RunGroup) -> list[OrderPair]:
    """Returns each order that has one more dataset than another, with that other.

    Of several others, the one that it continues; if there is none, the first of the paper's orders.
    """
    by_order: dict[str, RunRecord] = {}
    for record in group.records:
        if group.is_finished(record) and not is_joint(record):
            by_order.setdefault(record.order, record)
    ranked = [by_order[order] for order in sorted(by_order, key=order_rank)]
    pairs = []
    for more in ranked:
        others = [less for less in ranked if len(less.sequence) == len(more.sequence) - 1]
        found = [
            OrderPair(less, more, (set(more.sequence) - set(less.sequence)).pop())
            for less in others
            if set(less.sequence) < set(more.sequence)
        ]
        pairs += sorted(found, key=lambda pair: not pair.goes_on)[:1]
    return pairs[:MOST]


def added_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns SRCC before and after a dataset was added, and the difference, means over seeds or splits.

    Metrics are "SRCC: before", "SRCC: after" and "SRCC: difference" by test set, and the same of "mSRCC", the
    mean over the datasets that were there before. The new dataset's SRCC before is nan where no head and no
    answers are there for it.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for pair in order_pairs(group):
        for method, runs in _both(group, pair).items():
            tests = [*pair.less.sequence, pair.new]
            found = {run: _srcc(reader, sides, tests, pair) for run, sides in runs.items()}
            for place, test in enumerate([*tests, ""]):
                each = {run: [moment[place] for moment in both] for run, both in found.items()}
                rows += _three(group, pair, method, test, each)
    return rows


def _both(group: RunGroup, pair: OrderPair) -> dict[Method, dict[Replicate, tuple[RunReadout, RunReadout]]]:
    """Returns of each method the runs of both orders, of the seeds and splits that both have."""

    def of(record: RunRecord) -> dict[Method, dict[Replicate, RunReadout]]:
        # joint learning is of datasets, in no order
        return sources(
            group,
            lambda r: set(r.sequence) == set(record.sequence) if is_joint(r) else r.order == record.order,
        )

    after = of(pair.more)
    before = of(pair.less)
    if pair.goes_on:
        before |= {method: runs for method, runs in after.items() if method.setting != "Joint"}
    found = {
        method: {run: (before[method][run], source) for run, source in runs.items() if run in before[method]}
        for method, runs in after.items()
        if method in before
    }
    return {method: runs for method, runs in found.items() if runs}


def _srcc(
    reader: AnswerReader, sides: tuple[RunReadout, RunReadout], tests: Sequence[str], pair: OrderPair
) -> tuple[list[float], list[float]]:
    """Returns the SRCC on each test set, and the mean over the former datasets, before and after."""
    told = []
    for source, last in zip(sides, (2 if sides[0] is sides[1] else 1, 1), strict=True):
        step = len(source.record.steps) - last
        found = [_on(reader, source, step, test) for test in tests]
        told.append([*found, fmean(found[: len(pair.less.sequence)])])
    return told[0], told[1]


def _on(reader: AnswerReader, source: RunReadout, step: int, test: str) -> float:
    told = predict(reader, source, step, test) if test in source.record.tests else None
    return math.nan if told is None else metrics.srcc(told.scores, told.mos)


def _three(
    group: RunGroup, pair: OrderPair, method: Method, test: str, each: dict[Replicate, list[float]]
) -> list[TidyRow]:
    titles = pair.more.titles
    numbers = {
        "before": {run: values[0] for run, values in each.items()},
        "after": {run: values[1] for run, values in each.items()},
        "difference": {run: values[1] - values[0] for run, values in each.items()},
    }
    rows = []
    for moment, values in numbers.items():
        found = spread(values)
        future = "future task" if test == pair.new and moment == "before" else ""
        note = joined_note(future, f"before: order {pair.less.order}", found.note, group.caution)
        about = (len(pair.more.sequence), titles[pair.new], titles.get(test, ""))
        metric = f"{'SRCC' if test else 'mSRCC'}: {moment}"
        rows.append(
            TidyRow(
                TABLE, *method, pair.more.order, *about, metric, found.mean, found.std, note, found.median
            )
        )
    return rows


def shape_added(rows: list[TidyRow]) -> Table:
    """A section per test set (and order, where there are several), a row per method."""
    orders = unique(row.order for row in rows)
    sections = []
    for order in orders:
        own = [row for row in rows if row.order == order]
        for test in ["", *unique(row.test_dataset for row in own if row.test_dataset)]:
            of = f", order {order}" if len(orders) > 1 else ""
            label = f"{test or 'Mean of the former'}{of}"
            some = [row for row in own if row.test_dataset == test]
            sections += [
                build(part, which, namer(rows), _column, _HEADS, True, best=_HEADS)
                for part, which in apart(label, some)
            ]
    told = "; ".join(f"{_new(rows, order)} added to {_less(rows, order)}" for order in orders)
    caption = (
        f"SRCC before and after one more dataset was learned, and the difference: {told}. Before: "
        "one experience earlier in the same run where one order extends the other, else the other order's "
        "runs with the same seeds and splits. Mean: over the datasets that were there before. Best results "
        "of each section in bold; before a dataset is learned, its own results are of a future task (gray)."
    )
    return Table(TABLE, caption, ("Test set", "Method"), _HEADS, sections)


_HEADS = [moment.capitalize() for moment in MOMENTS]


def _column(row: TidyRow) -> str:
    return row.metric.partition(": ")[2].capitalize()


def _new(rows: Sequence[TidyRow], order: str) -> str:
    return next(row.train_dataset for row in rows if row.order == order)


def _less(rows: Sequence[TidyRow], order: str) -> str:
    note = next(row.note for row in rows if row.order == order)
    return next(part.removeprefix("before: ") for part in note.split("; ") if part.startswith("before: "))
