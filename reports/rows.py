"""Runs in, tidy rows out: one number a row, in the columns of the published tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from cliqa_bench.config import Training, named
from cliqa_bench.reports.measure import (
    NOT_LEARNED,
    SUMMARY,
    Cell,
    Measurer,
    RunNumbers,
    Setting,
    is_joint,
    setting_of,
)
from cliqa_bench.reports.spread import Replicate, ranges, replicate_of, spread
from cliqa_bench.results.nodes import canonical, digest
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.types import TIDY_COLUMNS

NOT_COMPARABLE = "not comparable with published numbers"
GENERATED = f"generated miniatures: {NOT_COMPARABLE}"
"""What is said of numbers where all data is generated; see `RunGroup.caution`."""

ORDERS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")
TABLES = ("III", "IV", "V", "VI", "Fig. 4", "")
"""Where the numbers stand that runs are measured in; further tables are parts of the report."""
SETTINGS: tuple[Setting, ...] = ("Joint", "Task-Aware", "Task-Agnostic")


class TidyRow(NamedTuple):
    """One number; the fields are `TIDY_COLUMNS`, and the median of several splits, else None.

    `table` is "" for what the paper does not show.
    """

    table: str
    setting: str
    backbone: str
    method: str
    variant: str
    order: str
    length: int | str
    train_dataset: str
    test_dataset: str
    metric: str
    value: float
    std: float
    note: str
    median: float | None = None


MEDIAN = "median"


def columns_of(rows: Iterable[TidyRow]) -> tuple[str, ...]:
    """Returns the columns of a file of rows: `TIDY_COLUMNS`, and the median if any is over several splits."""
    return (*TIDY_COLUMNS, *([MEDIAN] if any(row.median is not None for row in rows) else []))


def order_rank(order: str) -> tuple[int, str]:
    """Sorts the paper's orders first, the others after them by their sequence."""
    return (ORDERS.index(order) if order in ORDERS else len(ORDERS), order)


@dataclass
class RunGroup:
    """Runs whose numbers may stand side by side: same protocol and data, and the same split or splits.

    Attributes:
        key: Preset, split, training protocol, weights and whether data is generated, as JSON.
        records: The runs, the newest first.
        fingerprints: Dataset -> fingerprint of its data and split, of several splits each; likewise each
            backbone's weights, and each piece of a user's own code.
    """

    key: str
    records: list[RunRecord] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _by_kind(self) -> dict[str, list[str]]:
        """Kind of data -> titles of its datasets, in the order of the runs; no kind without any."""
        found: dict[str, list[str]] = {"generated miniatures": [], "real data": []}
        for record in self.records:
            # a record of an earlier version says of all its datasets together what they are
            told = record.facts.get("generated")
            made = told if isinstance(told, list) else record.tests if record.generated else []
            for name in record.tests:
                kind = "generated miniatures" if name in made else "real data"
                found[kind].append(record.titles.get(name, name))
        return {kind: list(dict.fromkeys(titles)) for kind, titles in found.items() if titles}

    @cached_property
    def caution(self) -> str:
        """What is to be said of every number if any of the data is generated, else ""; no full stop."""
        if "generated miniatures" not in self._by_kind:
            return ""
        if len(self._by_kind) == 1:
            return GENERATED
        kinds = " beside ".join(f"{kind} ({', '.join(titles)})" for kind, titles in self._by_kind.items())
        return f"{kinds}: {NOT_COMPARABLE}"

    @property
    def main_order(self) -> str:
        """The order of Tables III and IV: I, or the first there is."""
        return min((r.order for r in self.records), key=order_rank)

    @property
    def main_record(self) -> RunRecord:
        """A run in the main order."""
        return next(record for record in self.records if record.order == self.main_order)

    @property
    def id(self) -> str:
        """Eight hex digits of the protocol and the data."""
        return digest([self.key, self.fingerprints], 8)

    @property
    def splits(self) -> list[int]:
        """Numbers of the splits, where several may stand side by side; none for a single one."""
        return sorted({record.split_number for record in self.records} - {0})

    @property
    def split(self) -> str:
        """The split or the splits in a few words: "split 1", "splits 1-10 of FOLDER"."""
        facts = self.records[0].facts
        if not self.splits:
            return f"split {facts.get('split', '?')}"
        folder = (facts.get("splits") or {}).get("from")
        word = "splits" if len(self.splits) > 1 else "split"
        return f"{word} {ranges(self.splits)}" + (f" of {folder}" if folder else "")

    @property
    def description(self) -> str:
        """Preset, split and data in a few words."""
        preset = self.records[0].facts.get("preset", "?")
        data = " and ".join(self._by_kind)
        return f"preset {preset}, {self.split}, {data}, group {self.id}"


def _protocol(record: RunRecord) -> str:
    facts = record.facts
    config: dict[str, Any] = facts.get("config") or {}
    training = config.get("training")
    if isinstance(training, dict):  # one from before a setting was there is comparable with one from after
        training = named(Training, training)
    split = facts.get("split")
    if record.split_number:  # one of several: which one makes no other group
        split = {"splits from": (facts.get("splits") or {}).get("from")}
    told = [facts.get("preset"), split, training]
    return canonical([*told, record.generated])


def _fingerprints(record: RunRecord) -> dict[str, str]:
    """Returns what datasets, weights and a user's own code are, by content: paths say nothing of it."""
    prints = dict(record.facts.get("fingerprints") or {})
    if number := record.split_number:
        prints = {f"{name}, split {number}": found for name, found in prints.items()}
        prints |= (record.facts.get("splits") or {}).get("data") or {}
    prints |= {name: canonical(origin) for name, origin in (record.facts.get("origins") or {}).items()}
    return prints | {f"weights of {record.backbone}": str(record.facts.get("weights"))}


def group_records(records: Iterable[RunRecord]) -> list[RunGroup]:
    """Sorts runs into groups that may be compared; the group with the newest run comes first.

    Two runs belong together if their protocols agree and so do the datasets, the weights and the versions of
    a user's own code that both use.
    """
    groups: list[RunGroup] = []
    by_name = sorted(records, key=lambda r: r.id)
    for record in sorted(by_name, key=lambda r: str(r.facts.get("asked", "")), reverse=True):
        key, prints = _protocol(record), _fingerprints(record)
        for group in groups:
            shared = prints.keys() & group.fingerprints.keys()
            if group.key == key and all(prints[d] == group.fingerprints[d] for d in shared):
                break
        else:
            group = RunGroup(key)
            groups.append(group)
        group.records.append(record)
        group.fingerprints.update(prints)
    return groups


@dataclass
class Tidy:
    """A group's numbers.

    Attributes:
        group: The runs.
        rows: One number each, in the order of `results.csv`.
        notes: One line each: missing answers with the command that fills them, superseded runs, predictions
            without a correlation.
    """

    group: RunGroup
    rows: list[TidyRow]
    notes: list[str]


class _SeedLine(NamedTuple):
    """What the values of several seeds and splits have in common."""

    setting: Setting
    backbone: str
    method: str
    variant: str
    order: str


def tidy(group: RunGroup, reader: AnswerReader) -> Tidy:
    """Measures the runs of a group and puts seeds and splits together.

    Raises:
        UserError: If an answer file is broken.
    """
    measurer = Measurer(reader)
    lines: dict[_SeedLine, dict[Replicate, dict[Cell, float]]] = {}
    notes: list[str] = []
    done: list[tuple[RunRecord, RunNumbers]] = []
    for record in group.records:
        measured: RunNumbers | None = None
        for readout, method in record.rows.items():
            order = "" if is_joint(record) else record.order
            line = _SeedLine(setting_of(record, readout), record.backbone, method, record.variant, order)
            runs = lines.setdefault(line, {})
            if replicate_of(record) in runs:  # the newer one stands already
                continue
            measured = measured or measurer.measure(record)
            runs[replicate_of(record)] = measured.values[readout]
        if measured is not None:
            done.append((record, measured))
        elif not is_joint(record):
            notes.append(f"an older run of the same name is left out: {record.id}")
    rows = [
        row
        for line, runs in lines.items()
        for row in _rows(group, line, runs, _is_design_choice(line) and line._replace(variant="") in lines)
    ]
    first = {line: i for i, line in enumerate(sorted(lines, key=_line_rank))}
    rows.sort(key=lambda r: (TABLES.index(r.table), first[_line_of(r)]))
    problems = list(dict.fromkeys(p for _, m in done for p in m.problems))
    return Tidy(
        group, rows, [*_gaps(done), *notes, *problems, *_steep([s for _, m in done for s in m.steep])]
    )


def _steep(found: list[str]) -> list[str]:
    """Says in one line which logistic fits are as steep as they may be."""
    if not found:
        return []
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return [
        "where a logistic fit is as steep as it may be, it follows two clusters of images more than the "
        f"model; read the raw PLCC there: {found[0]}{more}"
    ]


def _line_rank(line: _SeedLine) -> tuple[Any, ...]:
    return (order_rank(line.order) if line.order else (-1, ""), SETTINGS.index(line.setting), *line[1:4])


def _line_of(row: TidyRow) -> _SeedLine:
    return _SeedLine(*row[1:6])  # type: ignore[arg-type]


def _tables(group: RunGroup, line: _SeedLine, cell: Cell, steps: int) -> list[str]:
    """Returns the paper's tables in which a number stands; [""] for none."""
    main, agnostic = line.order == group.main_order, line.setting == "Task-Agnostic"
    tables = []
    if cell.metric in SUMMARY and cell.length == steps:
        tables += ["III"] * main + ["V"] * agnostic
    further = cell.note == NOT_LEARNED
    if cell.metric == "SRCC" and not further and ((main and agnostic) or line.setting == "Joint"):
        tables.append("IV")
    if agnostic and (cell.metric == "mPSI" or cell.length == "Mean"):
        tables.append("VI")
    if cell.metric == "PSI_t" and main:
        tables.append("Fig. 4")
    return tables or [""]


def _is_design_choice(line: _SeedLine) -> bool:
    """Whether a variant is one of Table VII's, which the paper shows nowhere else."""
    return re.fullmatch(r"(norms|gate_bn|stages)=[^=]*", line.variant) is not None


def _rows(
    group: RunGroup, line: _SeedLine, runs: dict[Replicate, dict[Cell, float]], elsewhere: bool
) -> Iterable[TidyRow]:
    """Means over the seeds or splits, see `spread`.

    With `elsewhere`, the paper does not show these numbers in Tables III to VI.
    """
    first = runs[min(runs)]
    steps = max((c.length for c in first if isinstance(c.length, int)), default=0)
    for cell in first:
        found = spread({run: values.get(cell, math.nan) for run, values in runs.items()})
        notes = [cell.note, found.note, group.caution]
        note = "; ".join(part for part in notes if part)
        about = (*line, cell.length, cell.train, cell.test, cell.metric)
        for table in [""] if elsewhere else _tables(group, line, cell, steps):
            yield TidyRow(table, *about, found.mean, found.std, note, found.median)


def caution_in(note: str) -> str:
    """Returns the `RunGroup.caution` that a row's note holds; "" for none."""
    return next((part for part in note.split("; ") if part.endswith(NOT_COMPARABLE)), "")


def _gaps(done: list[tuple[RunRecord, RunNumbers]]) -> list[str]:
    """One line for each command that would fill what is missing."""
    by_command: dict[str, list[tuple[RunRecord, RunNumbers]]] = {}
    for record, measured in done:
        if measured.missing:
            again = f"run --strategy {record.strategy} --orders {record.order} --seeds {record.seed}"
            command = str(record.facts.get("command") or f"python -m cliqa_bench {again}")
            by_command.setdefault(command, []).append((record, measured))
    lines = []
    for command, runs in by_command.items():
        missing, expected = sum(m.missing for _, m in runs), sum(m.expected for _, m in runs)
        orders = sorted({r.order for r, _ in runs}, key=order_rank)
        names = ", ".join(sorted({r.strategy for r, _ in runs}))
        where = f"{'orders' if len(orders) > 1 else 'order'} {', '.join(orders)}"
        lines.append(
            f"unfinished: {names}, {where}: {missing} of {expected} answers are missing and stand as dashes; "
            f"to fill them: {command}"
        )
    return lines
