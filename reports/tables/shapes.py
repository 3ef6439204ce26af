"""Tidy rows in, the shapes of the paper's tables out; how they look is the renderer's business."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cliqa_bench.part_names import in_path
from cliqa_bench.reports.measure import ADAPTED, SUMMARY
from cliqa_bench.reports.rows import UNTRAINED, RunGroup, TidyRow, order_rank
from cliqa_bench.reports.spread import SPLITS, ranges
from cliqa_bench.reports.tables.further_orders import order_of
from cliqa_bench.terminal import as_sentence

DIGITS = 3


class TableValue(NamedTuple):
    """A number in a table.

    Attributes:
        mean: The number, nan for a dash.
        std: Spread over seeds or splits (ddof=1), nan where it is not shown.
        bold: Whether it alone is the best of its column in its section, as printed.
        gray: Whether it is the result of a future task.
        digits: How many digits after the point are printed; 0 for a whole number.
        low: Lower end of its interval, nan where none is shown.
        high: Upper end of its interval.
        median: Median over splits, nan without several.
        ranked: Whether it competes for the best; a backbone without pre-training does not.
    """

    mean: float = math.nan
    std: float = math.nan
    bold: bool = False
    gray: bool = False
    digits: int = DIGITS
    low: float = math.nan
    high: float = math.nan
    median: float = math.nan
    ranked: bool = True


@dataclass(frozen=True)
class Section:
    """Rows that are compared with each other, each a name and one value per column."""

    label: str
    rows: list[tuple[str, list[TableValue]]]


@dataclass(frozen=True)
class Table:
    """A table of the paper's shape.

    Attributes:
        number: As in the paper ("III"), or a word for what the paper does not have ("overhead").
        caption: What it shows, in sentences.
        corner: What the section labels and the row names are ("Setting", "Method").
        columns: Names of the columns.
        sections: The rows.
        spans: Names over several columns and how many; empty for none.
        spans_title: What the spans are ("Backbone").
    """

    number: str
    caption: str
    corner: tuple[str, str]
    columns: list[str]
    sections: list[Section]
    spans: list[tuple[str, int]] = field(default_factory=list)
    spans_title: str = ""

    @property
    def name(self) -> str:
        """Name of its files, without the suffix."""
        return f"table_{in_path(self.number)}"

    @property
    def labelled(self) -> bool:
        """Whether any section has a label; where none has, there is no column of labels."""
        return any(section.label for section in self.sections)

    @property
    def title(self) -> str:
        """What it is called: "Table III", "First task"."""
        return table_title(self.number)


def table_title(number: str) -> str:
    """Returns what a table is called, by its number in the paper or its word."""
    number, order = order_of(number)
    if order:
        return f"Table {number}, order {order}"
    words = number.replace("_", " ").capitalize().replace("Ssiqa", "SS-IQA").replace("Liqe", "LIQE")
    return f"Table {number}" if number.isupper() else words


def shape(number: str, rows: list[TidyRow]) -> Table:
    """Puts the rows of one of the tables III to VI, ours or the published ones, into its shape."""
    return SHAPES[number](rows)


def main_sequence(group: RunGroup, order: str = "") -> list[str]:
    """Returns the titles of the datasets in an order; where none is named, that of Tables III and IV."""
    record = next((r for r in group.records if r.order == order), group.main_record)
    return [record.titles.get(name, name) for name in record.sequence]


def about(group: RunGroup, number: str, in_order: bool, order: str = "") -> str:
    """Returns the end of a caption: order, backbone, seeds, protocol, and the generated label.

    Args:
        group: The runs.
        number: The table's number.
        in_order: Whether the table is about one order.
        order: Which, if it is not the main one.
    """
    records = group.finished
    sentences = []
    if in_order:
        sentences.append(f"Order {order or group.main_order}: {', '.join(main_sequence(group, order))}.")
    backbones = sorted({r.backbone for r in records})
    if number != "III" and len(backbones) == 1:
        sentences.append(f"Backbone: {backbones[0]}.")
    seeds = sorted({r.seed for r in records})
    if len(group.splits) > 1:
        sentences.append(_about_splits(group, seeds, number))
    elif len(seeds) > 1:
        known = {
            "III": ": mean ± standard deviation (ddof = 1)",
            **dict.fromkeys(("IV", "V", "VI"), ": mean"),
            "VII": ": mean over the seeds that all choices of TSN-IQA share, if any",
        }
        sentences.append(f"Seeds {', '.join(map(str, seeds))}{known.get(number, '')}.")
    sentences += [as_sentence(text) for text in (group.description, group.caution) if text]
    return " ".join(sentences)


_OF_MEANS = ("orders", "first_task", "order_ranks", "order_sampling", "intervals", "power", "significance")
"""Tables with statistics of their own, of means over the splits."""


def _about_splits(group: RunGroup, seeds: Sequence[int], number: str) -> str:
    """Returns over which splits numbers are, and which methods lack some of them."""
    of_one: dict[str, set[int]] = {}
    for record in group.finished:
        name = f"{record.strategy}{f' ({record.variant})' if record.variant else ''} [{record.backbone}]"
        of_one.setdefault(name, set()).add(record.split_number)
    fewer = [f"{name} on {ranges(own)}" for name, own in of_one.items() if len(own) < len(group.splits)]
    averaged = f", of each the mean over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    but = f" (fewer: {'; '.join(sorted(fewer))})" if fewer else ""
    what = "Mean ± standard deviation (ddof = 1), median in parentheses, over"
    if number in _OF_MEANS:
        what = "Means over"
    elif number == "order_variance":  # the effect of splits is one of its shares
        what = "Over"
    return f"{what} n = {len(group.splits)} splits{averaged}{but}."


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _namer(rows: list[TidyRow], with_backbone: bool = True) -> Callable[[TidyRow], str]:
    """Returns the names of rows: the method, with its variant, and its backbone if there are several."""
    several = with_backbone and len({row.backbone for row in rows}) > 1

    def name(row: TidyRow) -> str:
        variant = f" ({row.variant})" if row.variant else ""
        return f"{row.method}{variant}" + (f" [{row.backbone}]" if several else "")

    return name


def only_best(
    values: Sequence[TableValue], pick: Callable[[Iterable[float]], float] = max
) -> list[TableValue]:
    """Marks the best of several values as bold.

    Where two are equal as printed, none is the best; a single value is not marked as the best; and results of
    future tasks do not compete, nor do those of backbones without pre-training.

    Args:
        values: The values.
        pick: Returns the best of several numbers.
    """
    competes = [v.ranked and not v.gray for v in values]
    printed = [round(v.mean, v.digits) if c else math.nan for v, c in zip(values, competes, strict=True)]
    finite = [p for p in printed if math.isfinite(p)]
    top = pick(finite) if len(finite) > 1 else math.nan
    alone = finite.count(top) == 1
    return [v._replace(bold=alone and p == top) for v, p in zip(values, printed, strict=True)]


def section(
    label: str, names: Iterable[str], columns: list[list[TableValue]], best: Sequence[bool] | None = None
) -> Section:
    """Puts columns of values together and marks the best of each column, see `only_best`.

    Args:
        label: What the rows have in common.
        names: One per row.
        columns: One list per column, in it one value per row.
        best: Per column, whether the largest value is the best and is marked; None for all.
    """
    marked = [only_best(column) if best is None or best[i] else column for i, column in enumerate(columns)]
    return Section(label, [(name, [c[i] for c in marked]) for i, name in enumerate(names)])


def _grid(
    rows: list[TidyRow], name: Callable[[TidyRow], str], column: Callable[[TidyRow], str]
) -> dict[tuple[str, str], TidyRow]:
    return {(name(row), column(row)): row for row in rows}


def _value(row: TidyRow | None, spread: bool, digits: int) -> TableValue:
    if row is None:
        return TableValue(digits=digits)
    value = value_of(row, spread, row.note.startswith("future task"), digits)
    return value._replace(ranked=UNTRAINED not in row.note)


def value_of(row: TidyRow, spread: bool = True, gray: bool = False, digits: int = DIGITS) -> TableValue:
    """Returns the value of a row; over several splits, with its deviation and median in any table."""
    if row.median is None:
        return TableValue(row.value, row.std if spread else math.nan, gray=gray, digits=digits)
    return TableValue(row.value, row.std, gray=gray, digits=digits, median=row.median)


def build(
    label: str,
    rows: list[TidyRow],
    name: Callable[[TidyRow], str],
    column: Callable[[TidyRow], str],
    columns: list[str],
    spread: bool = False,
    digits: Mapping[str, int] | None = None,
    best: Collection[str] | None = None,
) -> Section:
    """Sorts tidy rows into a section; what is not there is a dash.

    Args:
        label: What the rows have in common.
        rows: The tidy rows, in the order in which their names are to appear.
        name: Of a tidy row, the name of its row in the table.
        column: Of a tidy row, the column.
        columns: All columns.
        spread: Whether the spread over seeds is shown.
        digits: Digits after the point by column, where they are not three.
        best: Columns in which the largest value is marked; None for all.
    """
    cells, names, places = _grid(rows, name, column), _unique(name(row) for row in rows), digits or {}
    values = [[_value(cells.get((n, c)), spread, places.get(c, DIGITS)) for n in names] for c in columns]
    return section(label, names, values, None if best is None else [c in best for c in columns])


def apart(label: str, rows: list[TidyRow]) -> list[tuple[str, list[TidyRow]]]:
    """Separates the rows of transductive methods from the others: no section ranks the two together.

    Args:
        label: What the rows have in common.
        rows: The rows.

    Returns:
        The label of each section and its rows, those of transductive methods last.
    """
    adapted = [row for row in rows if row.setting in ADAPTED]
    others = [row for row in rows if row.setting not in ADAPTED]
    return [(name, some) for name, some in ((label, others), (f"{label}, adapted", adapted)) if some]


ADAPTED_SENTENCE = (
    "Sections called adapted: methods that adapt to the unlabelled test images; not comparable with the "
    "other sections, and not ranked among them."
)


def _summary(rows: list[TidyRow]) -> Table:
    """Table III: a section per setting, a block of four columns per backbone."""
    backbones = _unique(row.backbone for row in rows)
    columns = [f"{b}\t{metric}" for b in backbones for metric in SUMMARY]
    name = _namer(rows, with_backbone=False)
    sections = [
        build(
            s, [r for r in rows if r.setting == s], name, lambda r: f"{r.backbone}\t{r.metric}", columns, True
        )
        for s in _unique(row.setting for row in rows)
    ]
    caption = (
        "Performance comparison in terms of mSRCC, mPI, mSI and mPSI. Task-aware and task-agnostic "
        "correspond to quality prediction with and without the task oracle. Best results of each section in "
        "bold."
    )
    plain = [column.split("\t")[1] for column in columns]
    return Table(
        "III", caption, ("Setting", "Method"), plain, sections,
        [(b, len(SUMMARY)) for b in backbones], "Backbone",
    )  # fmt: skip


def with_intervals(table: Table, bounds: Sequence[TidyRow]) -> Table:
    """Puts intervals beside the mSRCC of Table III.

    Args:
        table: Table III.
        bounds: Rows with the metrics "mSRCC: low" and "mSRCC: high"; others are passed over.
    """
    name = _namer([], with_backbone=False)
    known = {
        (r.setting, name(r), r.backbone, r.metric.partition(": ")[2]): r.value
        for r in bounds
        if r.metric.startswith("mSRCC: ")
    }
    owners = [owner for owner, n in table.spans for _ in range(n)]
    places = [
        (i, o) for i, (o, head) in enumerate(zip(owners, table.columns, strict=True)) if head == "mSRCC"
    ]
    found = False
    for section in table.sections:
        for method, values in section.rows:
            for i, backbone in places:
                low, high = (
                    known.get((section.label, method, backbone, e), math.nan) for e in ("low", "high")
                )
                values[i] = values[i]._replace(low=low, high=high)
                found |= math.isfinite(low)
    notes = [row.note for row in bounds]
    over = "contents and seeds" if any("contents and" in note for note in notes) else "contents"
    over = SPLITS if any(SPLITS in note for note in notes) else over
    told = f" In brackets: 95% intervals over {over}, see the table of intervals."
    return replace(table, caption=table.caption + told) if found else table


def _matrix(rows: list[TidyRow]) -> Table:
    """Table IV: a section per dataset learned, a column per test set."""
    columns, name = _unique(row.test_dataset for row in rows), _namer(rows)
    trained = sorted(_unique(row.train_dataset for row in rows), key=lambda t: t != "All")
    sections = [
        build(label, some, name, lambda r: r.test_dataset, columns)
        for t in trained
        for label, some in apart(t, [r for r in rows if r.train_dataset == t])
    ]
    caption = (
        "Performance comparison in terms of SRCC on all test sets after learning each dataset. Best results "
        "of each section in bold, results of future tasks in gray."
    )
    return Table("IV", caption, ("Dataset", "Method"), columns, sections)


def _orders(rows: list[TidyRow]) -> Table:
    """Table V: a section per metric, a column per task order."""
    orders, name = sorted(_unique(row.order for row in rows), key=order_rank), _namer(rows)
    sections = [
        build(label, some, name, lambda r: r.order, orders)
        for m in SUMMARY
        for label, some in apart(m, [r for r in rows if r.metric == m])
    ]
    caption = (
        "Task-order robustness measured by mSRCC, mPI, mSI and mPSI. Best results of each section in bold."
    )
    return Table("V", caption, ("Metric", "Method"), orders, sections)


def _lengths(rows: list[TidyRow]) -> Table:
    """Table VI: a section per task order, a column per length and their mean."""
    name = _namer(rows)
    lengths = sorted({row.length for row in rows if isinstance(row.length, int)})
    columns = [str(length) for length in lengths] + ["Mean"]
    sections = [
        build(label, some, name, lambda r: str(r.length), columns)
        for o in sorted(_unique(row.order for row in rows), key=order_rank)
        for label, some in apart(o, [r for r in rows if r.order == o])
    ]
    caption = (
        "Task-length robustness measured by mPSI after the first 1, 2, ... experiences of each task order. "
        "Best results of each section in bold."
    )
    return Table("VI", caption, ("Order", "Method"), columns, sections)


SHAPES: dict[str, Callable[[list[TidyRow]], Table]] = {
    "III": _summary, "IV": _matrix, "V": _orders, "VI": _lengths,
}  # fmt: skip

TITLES = {
    "III": "mSRCC, mPI, mSI and mPSI of all methods",
    "IV": "SRCC on every test set after each experience",
    "V": "robustness to the order of the tasks",
    "VI": "robustness to the number of tasks",
}
