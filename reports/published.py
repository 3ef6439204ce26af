"""The tables of the TSN-IQA paper as published, alone or beside ours; SS-IQA's and LIQE's beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from cliqa_bench.reports import published_liqe, published_ssiqa
from cliqa_bench.reports.parts import shape
from cliqa_bench.reports.published_rows import read_rows
from cliqa_bench.reports.rows import ORDERS, TidyRow, caution_in
from cliqa_bench.reports.tables.shapes import Section, Table, TableValue
from cliqa_bench.reports.tables.similarity import correlations_of_rows

SOURCE = "Zhang et al., IEEE Transactions on Image Processing 33:1898-1910, 2024"
NUMBERS = ("III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "similarity")
"""Tables that are published; the correlation between VIII and IX is in the text and follows from them."""

_OTHERS = {number: paper for paper in (published_ssiqa, published_liqe) for number in paper.NUMBERS}
"""Table of another paper -> the module that knows it."""

BESIDE = (*NUMBERS, *_OTHERS)
"""Tables that a published value may stand beside."""

_Key = tuple[str, ...]


class Compared(NamedTuple):
    """Rows of one table, of equal length and order.

    Attributes:
        ours: Our rows; in Table XI, rows without a value for the methods that only the paper has.
        paper: The same rows with the published values, nan where nothing is published.
        less: The same rows with ours less the paper's, nan where either is missing; none for generated data.
    """

    ours: list[TidyRow]
    paper: list[TidyRow]
    less: list[TidyRow]


@cache
def read_published(number: str) -> list[TidyRow]:
    """Returns the published rows of a table; unrounded means as printed.

    In Table XII, the T that stands for the number of tasks is that number.
    """
    if number == "similarity":
        return correlations_of_rows(read_published("VIII"), read_published("IX"))
    return read_rows(number)


def published_tables() -> list[Table]:
    """Returns the published tables alone."""
    made = [shape(number, read_published(number)) for number in NUMBERS]
    return [replace(t, caption=f"{t.caption} Published values: {SOURCE}.") for t in made]


def _key(row: TidyRow, backbone: str) -> _Key:
    # settings do not count: the paper's are sentences
    return (backbone, row.method, row.variant, row.train_dataset, row.test_dataset, row.metric)


def _find(known: dict[_Key, list[TidyRow]], row: TidyRow, backbone: str) -> TidyRow | None:
    """The published number of the same thing; a length that the paper leaves blank fits every length.

    An order that it leaves blank fits every order of its six datasets, and every sequence where a number is
    about one pair of tasks alone (Table IX).
    """
    whole = row.order in ("", *ORDERS) or row.table == "IX"
    for found in known.get(_key(row, backbone), []):
        if (found.order == row.order or (not found.order and whole)) and found.length in ("", row.length):
            return found
    return None


def _partly_joint(rows: list[TidyRow], published: list[TidyRow]) -> set[tuple[str, ...]]:
    """Returns who learned jointly, and not all the datasets of the paper."""
    tests: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        if not row.order:
            tests.setdefault(_who(row), set()).add(row.test_dataset)
    all_of_them = {row.test_dataset for row in published if row.train_dataset == "All"}
    return {who for who, found in tests.items() if found != all_of_them}


def _who(row: TidyRow) -> tuple[str, ...]:
    return (row.backbone, row.method, row.variant)


def compare(rows: list[TidyRow]) -> Compared:
    """Puts published numbers beside the rows of one table.

    Of generated data no number is comparable with a published one: no difference is taken, and a backbone
    that the paper does not have stands beside the first one of its table.

    Args:
        rows: Our rows of one of the tables `BESIDE`.
    """
    generated, table = any(caution_in(row.note) for row in rows), rows[0].table
    other = _OTHERS.get(table)
    if other:
        ours = other.with_others(rows)
        known = [other.published_of(row) for row in ours]
    else:
        ours, known = _known(rows, generated)
    paper, less = [], []
    for row, found in zip(ours, known, strict=True):
        value, std = (found.value, found.std) if found else (math.nan, math.nan)
        note = other.NOTE if other else row.note
        paper.append(row._replace(value=value, std=std, median=None, note=note))
        less.append(paper[-1]._replace(value=row.value - value, std=math.nan))
    return Compared(ours, paper, [] if generated else less)


def _known(rows: list[TidyRow], generated: bool) -> tuple[list[TidyRow], list[TidyRow | None]]:
    """Returns our rows of one of the tables `NUMBERS`, and for each the published one, if there is one."""
    published = read_published(rows[0].table)
    known: dict[_Key, list[TidyRow]] = {}
    for row in published:
        known.setdefault(_key(row, row.backbone), []).append(row)
    backbones = [row.backbone for row in published]
    partly = _partly_joint(rows, published)
    ours = [*rows, *(_only_published(rows, published) if rows[0].table == "XI" else [])]
    found = []
    for row in ours:
        backbone = backbones[0] if generated and row.backbone not in backbones else row.backbone
        joint = not row.order and row.train_dataset == "All"
        found.append(None if joint and _who(row) in partly else _find(known, row, backbone))
    return ours, found


def _only_published(rows: list[TidyRow], published: list[TidyRow]) -> Iterable[TidyRow]:
    """Rows without a value of ours, for the methods that the paper compares itself with on our test sets."""
    methods, tests = {row.method for row in rows}, {row.test_dataset for row in rows}
    note = caution_in(rows[0].note)
    for row in published:
        if row.method not in methods and row.test_dataset in tests:
            yield row._replace(value=math.nan, std=math.nan, note=note)


def beside(table: Table, compared: Compared) -> Table:
    """Puts ours, the paper's and their difference side by side.

    Args:
        table: Our table.
        compared: Its rows, as `compare` gives them.
    """
    ours, paper = shape(table.number, compared.ours), shape(table.number, compared.paper)
    less = shape(table.number, compared.less) if compared.less else None
    heads = ["Ours", "Paper", *(["Difference"] if less else [])]
    parts = [t for t in (ours, paper, less) if t]
    sections = [
        Section(section.label, [
            (name, _interleaved([t.sections[i].rows[j][1] for t in parts], bold=2))
            for j, (name, _) in enumerate(section.rows)
        ])
        for i, section in enumerate(ours.sections)
    ]  # fmt: skip
    owners = [owner for owner, n in ours.spans for _ in range(n)] or [""] * len(ours.columns)
    spans = [(f"{o} {c}".strip(), len(heads)) for o, c in zip(owners, ours.columns, strict=True)]
    source = _OTHERS[table.number].SOURCE if table.number in _OTHERS else SOURCE
    if less:
        told = f"Paper: {source}. Difference: ours less the paper's."
    else:
        told = (
            f"Paper: {source}; its values are for real data, and those of generated data are not comparable."
        )
    return replace(
        ours, caption=f"{table.caption} {told}", columns=heads * len(ours.columns), sections=sections,
        spans=spans, spans_title="",
    )  # fmt: skip


def _interleaved(columns: list[list[TableValue]], bold: int) -> list[TableValue]:
    """Takes the values of several tables in turn; only the first tables' best ones are marked."""
    return [
        value if i < bold else value._replace(bold=False)
        for together in zip(*columns, strict=True)
        for i, value in enumerate(together)
    ]
