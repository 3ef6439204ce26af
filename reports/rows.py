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
    ADAPTED,
    ADAPTED_NOTE,
    NOT_LEARNED,
    SETTINGS,
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
"""The warning on numbers where all data is generated; see `RunGroup.caution`."""

UNTRAINED = "no pre-training"
"""The note on numbers of a backbone whose weights were random: they are in no ranking."""

ORDERS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")
TABLES = ("III", "IV", "V", "VI", "Fig. 4", "")
"""Where the numbers stand that runs are measured in; further tables are parts of the report."""


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


class Gap(NamedTuple):
    """What an unfinished run lacks.

    Attributes:
        missing: How many (experience, test set) pairs have no finished answers.
        expected: How many there should be.
    """

    missing: int
    expected: int


@dataclass
class RunGroup:
    """Runs whose numbers are comparable: same protocol and data, and the same split or splits.

    Attributes:
        key: Preset, split, training protocol, weights and whether data is generated, as JSON.
        records: The runs: finished ones first, of each kind the newest first.
        fingerprints: Dataset -> fingerprint of its data and split, of several splits each; likewise each
            backbone's weights, and each piece of a user's own code.
        unfinished: Id of each run whose answers are not all there -> what it lacks.
    """

    key: str
    records: list[RunRecord] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    unfinished: dict[str, Gap] = field(default_factory=dict)

    @cached_property
    def _by_kind(self) -> dict[str, list[str]]:
        """Kind of data -> titles of its datasets, in the order of the runs; no kind without any."""
        found: dict[str, list[str]] = {"generated miniatures": [], "real data": []}
        for record in self.records:
            # a record of an earlier version has one statement for all its datasets together
            told = record.facts.get("generated")
            made = told if isinstance(told, list) else record.tests if record.generated else []
            for name in record.tests:
                kind = "generated miniatures" if name in made else "real data"
                found[kind].append(record.titles.get(name, name))
        return {kind: list(dict.fromkeys(titles)) for kind, titles in found.items() if titles}

    @cached_property
    def caution(self) -> str:
        """The warning on every number if any of the data is generated, else ""; no full stop."""
        if "generated miniatures" not in self._by_kind:
            return ""
        if len(self._by_kind) == 1:
            return GENERATED
        kinds = " beside ".join(f"{kind} ({', '.join(titles)})" for kind, titles in self._by_kind.items())
        return f"{kinds}: {NOT_COMPARABLE}"

    @cached_property
    def untrained(self) -> list[str]:
        """Backbones whose weights were random when the runs began; all runs of a backbone have the same."""
        found = {r.backbone for r in self.records if str(r.facts.get("weights")).startswith("random")}
        return sorted(found)

    def is_finished(self, record: RunRecord) -> bool:
        """Tells whether all answers of a run are there."""
        return record.id not in self.unfinished

    @property
    def finished(self) -> list[RunRecord]:
        """The finished runs; if there are none, all."""
        return [record for record in self.records if self.is_finished(record)] or self.records

    @cached_property
    def main_order(self) -> str:
        """The order of Tables III and IV: the first that a method has finished, else the first there is.

        The paper's orders come first, so it is order I once one method has finished it.
        """
        finished = [r for r in self.records if self.is_finished(r) and not is_joint(r)]
        return min((r.order for r in finished or self.records), key=order_rank)

    def order_of(self, record: RunRecord) -> str:
        """The order under which the numbers of a run stand; "" for joint learning of the main datasets."""
        main = set(self.main_record.sequence)
        return "" if is_joint(record) and set(record.sequence) == main else record.order

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {record.order: len(record.sequence) for record in self.records}

    def is_whole(self, row: TidyRow) -> bool:
        """Tells whether a number is of a whole sequence, not of its first experiences."""
        return row.length in ("", self._lengths.get(row.order))

    @cached_property
    def main_record(self) -> RunRecord:
        """A run in the main order, a finished one if there is one."""
        return next(record for record in self.records if record.order == self.main_order)

    @property
    def id(self) -> str:
        """Eight hex digits of the protocol and the data."""
        return digest([self.key, self.fingerprints], 8)

    @property
    def splits(self) -> list[int]:
        """Numbers of the finished splits, where several are comparable; none for a single one."""
        return sorted({record.split_number for record in self.finished} - {0})

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
    if isinstance(training, dict):  # one from before a setting existed is comparable with one from after
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


def group_records(records: Iterable[RunRecord], reader: AnswerReader | None = None) -> list[RunGroup]:
    """Sorts runs into groups that may be compared; the group with the newest run comes first.

    Two runs belong together if their protocols agree and so do the datasets, the weights and the versions of
    a user's own code that both use.

    Args:
        records: The runs.
        reader: Knows which answers are there; without it, all runs count as finished.
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
    if reader is None:
        return groups
    for group in groups:
        gaps = {record.id: Gap(*reader.missing(record)) for record in group.records}
        group.unfinished = {name: gap for name, gap in gaps.items() if gap.missing}
        group.records.sort(key=lambda r: r.id in group.unfinished)
    return groups


@dataclass
class Tidy:
    """A group's numbers.

    Attributes:
        group: The runs.
        rows: One number each, in the order of `results.csv`.
        notes: One line each: backbones without pre-training, superseded runs, predictions without a
            correlation.
        missing: What is unfinished, one line each, with the command that finishes it.
    """

    group: RunGroup
    rows: list[TidyRow]
    notes: list[str]
    missing: list[str] = field(default_factory=list)


class _SeedLine(NamedTuple):
    """What the values of several seeds and splits have in common."""

    setting: Setting
    backbone: str
    method: str
    variant: str
    order: str


def tidy(group: RunGroup, reader: AnswerReader) -> Tidy:
    """Measures the runs of a group and puts seeds and splits together.

    Where a method has finished runs of an order, these alone count; where it has none, what its unfinished
    runs say so far.

    Raises:
        UserError: If an answer file is broken.
    """
    measurer = Measurer(reader)
    lines: dict[_SeedLine, dict[Replicate, dict[Cell, float]]] = {}
    finished: set[_SeedLine] = set()
    notes: list[str] = []
    done: list[RunNumbers] = []
    for record in group.records:  # finished ones first
        measured: RunNumbers | None = None
        for readout, method in record.rows.items():
            order = group.order_of(record)
            line = _SeedLine(setting_of(record, readout), record.backbone, method, record.variant, order)
            runs = lines.setdefault(line, {})
            if group.is_finished(record):
                finished.add(line)
            elif line in finished:
                continue
            if replicate_of(record) in runs:  # the newer one is there already
                continue
            measured = measured or measurer.measure(record)
            runs[replicate_of(record)] = measured.values[readout]
        if measured is not None:
            done.append(measured)
        elif group.is_finished(record) and not is_joint(record):
            notes.append(f"an older run of the same name is left out: {record.id}")
    rows: list[TidyRow] = []
    for line, runs in lines.items():
        elsewhere = is_design_choice(line) and line._replace(variant="") in lines
        rows += _rows(group, line, runs, elsewhere, line in finished)
    first = {line: i for i, line in enumerate(sorted(lines, key=_line_rank))}
    rows.sort(key=lambda r: (TABLES.index(r.table), first[_line_of(r)]))
    problems = list(dict.fromkeys(p for m in done for p in m.problems))
    steep = _steep([s for m in done for s in m.steep])
    untrained = [
        f"{name} was not pre-trained (--weights random): its rows are in no ranking"
        for name in group.untrained
    ]
    return Tidy(group, rows, [*untrained, *notes, *problems, *steep], unfinished_lines(group))


def _steep(found: list[str]) -> list[str]:
    """Returns one line on which logistic fits are as steep as they may be."""
    if not found:
        return []
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return [
        "where a logistic fit is as steep as allowed, it reflects two clusters of images rather than the "
        f"model; read the raw PLCC there: {found[0]}{more}"
    ]


def _line_rank(line: _SeedLine) -> tuple[Any, ...]:
    return (order_rank(line.order) if line.order else (-1, ""), SETTINGS.index(line.setting), *line[1:4])


def _line_of(row: TidyRow) -> _SeedLine:
    return _SeedLine(*row[1:6])  # type: ignore[arg-type]


def _tables(group: RunGroup, line: _SeedLine, cell: Cell, steps: int) -> list[str]:
    """Returns the paper's tables that contain a number; [""] for none."""
    main, agnostic = line.order == group.main_order, line.setting.startswith("Task-Agnostic")
    tables = []
    if cell.metric in SUMMARY and cell.length == steps:
        tables += ["III"] * main + ["V"] * agnostic
    further = cell.note == NOT_LEARNED
    joint = line.setting == "Joint" and not line.order
    if cell.metric == "SRCC" and not further and ((main and agnostic) or joint):
        tables.append("IV")
    if agnostic and (cell.metric == "mPSI" or cell.length == "Mean"):
        tables.append("VI")
    if cell.metric == "PSI_t" and main and line.setting not in ADAPTED:
        tables.append("Fig. 4")
    return tables or [""]


def is_design_choice(line: _SeedLine | TidyRow) -> bool:
    """Whether a variant is one of Table VII's, which the paper shows nowhere else."""
    return re.fullmatch(r"(norms|gate_bn|stages)=[^=]*", line.variant) is not None


def _rows(
    group: RunGroup,
    line: _SeedLine,
    runs: dict[Replicate, dict[Cell, float]],
    elsewhere: bool,
    finished: bool,
) -> Iterable[TidyRow]:
    """Means over the seeds or splits, see `spread`.

    With `elsewhere`, the paper does not show these numbers in Tables III to VI. Unless `finished`, a number
    is the mean over the runs that have it, and what no run has is left out.
    """
    first = runs[min(runs)]
    steps = max((c.length for c in first if isinstance(c.length, int)), default=0)
    for cell in first:
        values = {run: numbers.get(cell, math.nan) for run, numbers in runs.items()}
        if not finished:
            values = {run: value for run, value in values.items() if math.isfinite(value)}
            if not values:
                continue
        found = spread(values)
        adapted = ADAPTED_NOTE if line.setting in ADAPTED else ""
        untrained = UNTRAINED if line.backbone in group.untrained else ""
        notes = [cell.note, adapted, found.note, untrained, group.caution]
        note = "; ".join(part for part in notes if part)
        about = (*line, cell.length, cell.train, cell.test, cell.metric)
        for table in [""] if elsewhere else _tables(group, line, cell, steps):
            yield TidyRow(table, *about, found.mean, found.std, note, found.median)


def caution_in(note: str) -> str:
    """Returns the `RunGroup.caution` that a row's note holds; "" for none."""
    return next((part for part in note.split("; ") if part.endswith(NOT_COMPARABLE)), "")


def unfinished_lines(group: RunGroup) -> list[str]:
    """Returns what is unfinished: a line for each command that would finish it, and one on the main order."""
    by_command: dict[str, list[RunRecord]] = {}
    for record in group.records:
        if not group.is_finished(record):
            again = f"run --strategy {record.strategy} --orders {record.order} --seeds {record.seed}"
            command = str(record.facts.get("command") or f"python -m cliqa_bench {again}")
            by_command.setdefault(command, []).append(record)
    lines = []
    for command, runs in by_command.items():
        gaps = [group.unfinished[record.id] for record in runs]
        orders = sorted({record.order for record in runs}, key=order_rank)
        names = ", ".join(sorted({record.strategy for record in runs}))
        where = f"{'orders' if len(orders) > 1 else 'order'} {', '.join(orders)}"
        if len(orders) > len(ORDERS):  # of `--orders every` there may be 720; the command says which
            where = f"{len(orders)} orders"
        lines.append(
            f"unfinished: {names}, {where}: {sum(gap.missing for gap in gaps)} of "
            f"{sum(gap.expected for gap in gaps)} answers are missing, and what needs them is left out; "
            f"to finish: {command}"
        )
    first, main = min((record.order for record in group.records), key=order_rank), group.main_order
    if first != main:
        lines.append(f"order {first} is unfinished: Tables III and IV show order {main}, the first finished")
    return lines
