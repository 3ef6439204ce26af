"""`verify`: whether the report of an output folder follows from its answer files, and these are whole."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.reports.audit import bundle
from cliqa_bench.reports.audit.integrity import Problem, check_files
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.recomputed_orders import TOLERANCES
from cliqa_bench.reports.parts import collect, lasting
from cliqa_bench.reports.rows import (
    MEDIAN,
    RunGroup,
    Tidy,
    TidyRow,
    columns_of,
    group_records,
    unfinished_lines,
)
from cliqa_bench.reports.tables.all_orders import TRAINED
from cliqa_bench.results.nodes import csv_cell
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.terminal import plural
from cliqa_bench.types import TIDY_COLUMNS

TOLERANCE = 1e-12
"""How far a number of the report may be from what is computed here, relative to it where it is above 1."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_NOTE = TIDY_COLUMNS.index("note")
_FORMER = "paired bootstrap"
"""Only reports of 0.1.0 have it in their notes."""
_RENEW = "write it again with report --out, or ask where the change comes from"


@dataclass
class Verified:
    """What `verify` found.

    Attributes:
        problems: What does not match, each a line.
        notes: What could not be checked, each a line.
        nodes: Number of finished nodes whose hashes were checked.
        runs: Number of run records that could be read.
        cells: Number of cells of all `results.csv` that were computed again.
        plain: How many of them by the independent path too, the others by the report's own code.
        numbers: The tidy rows that follow from the answers, of each group of comparable runs.
        tests: Test set with its fingerprint, as JSON -> names of its images, and their opinion scores.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nodes: int = 0
    runs: int = 0
    cells: int = 0
    plain: int = 0
    numbers: list[Tidy] = field(default_factory=list)
    tests: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def render(self) -> str:
        """Returns a line for each problem and note, and one that sums up."""
        lines = [str(problem) for problem in self.problems] + [f"note: {note}" for note in self.notes]
        looked_at = f"{plural(self.runs, 'run')}, {plural(self.nodes, 'node')}"
        again = f"{plural(self.cells, 'number')} computed again ({self.plain:,} by an independent path)"
        verdict = "OK" if self.ok else plural(len(self.problems), "problem")
        return "\n".join([*lines, f"{verdict}: {looked_at}, {again}"])


def verify(path: str | Path) -> Verified:
    """Checks an output folder or a bundle: hashes, names, completeness, and every number of `results.csv`.

    Args:
        path: Folder of the results, or a zip file that `pack` made.

    Raises:
        UserError: If there is nothing to verify: no such file, no runs in it, or no bundle.
    """
    path = Path(path)
    if path.is_dir():
        return _verify_folder(path)
    if not path.is_file():
        raise UserError(f"there is no {path}; give the --out folder of a run, or a bundle of verify --pack")
    with bundle.unpacked(path) as folder:
        return _verify_folder(folder)


def _verify_folder(out: Path) -> Verified:
    files = check_files(out)
    found = Verified(files.problems, files.notes, files.nodes, len(files.records), tests=files.tests)
    reader = AnswerReader(out)
    for i, group in enumerate(group_records(files.records, reader)):
        found.notes += unfinished_lines(group)
        name = f"report/{'' if i == 0 else f'other-{group.id}/'}results.csv"
        try:
            numbers = collect(group, reader)
        except UserError as error:
            found.problems.append(Problem(name, f"cannot be computed again ({error})", "correct that first"))
            continue
        found.numbers.append(numbers)
        _check_results(found, out / name, name, lasting(numbers.rows), Recomputation(out, group))
    return found


def _check_results(
    found: Verified, path: Path, name: str, expected: list[TidyRow], plain: Recomputation
) -> None:
    """Compares the rows of one `results.csv` with those that follow from the answers."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        found.problems.append(Problem(name, "is missing", "make it: python -m cliqa_bench report --out"))
        return
    except (OSError, ValueError, csv.Error) as error:
        found.problems.append(Problem(name, f"cannot be read ({error})", _RENEW))
        return
    columns = columns_of(expected)
    if not lines or lines[0] != list(columns):
        found.problems.append(Problem(f"{name}:1", f"has other columns than {','.join(columns)}", _RENEW))
        return
    former = any(_FORMER in line[-1] for line in lines[1:] if line)
    if former:
        expected = [row for row in expected if not _is_new(row, plain.group)]
    due = {_about(row): row for row in expected}
    unchecked = 0
    for number, cells in enumerate(lines[1:], 2):
        where = f"{name}:{number}"
        if former and len(cells) == len(columns) and _renewed(cells[0], cells[9], cells[_NOTE]):
            unchecked += 1
            continue
        row = due.pop((*cells[:10], cells[_NOTE]), None) if len(cells) == len(columns) else None
        if row is None:
            found.problems.append(Problem(where, f"no run gives such a row: {','.join(cells):.200}", _RENEW))
            continue
        found.cells += 1
        computed: list[tuple[float, ...]] = [(row.value, row.std, _or_nan(row.median))]
        by_plain = plain.value(row)
        if by_plain is not None:
            found.plain += 1
            computed.append(by_plain)
        found.problems += _differences(where, row, cells, computed)
    for row in due.values():
        found.problems.append(Problem(name, f"the row of {_words(row)} is missing", _RENEW))
    if former:
        found.notes.append(
            f"{name}: written by 0.1.0, which had fewer tables and other intervals, tests and logistic fits: "
            f"{unchecked} of its numbers are not checked; report --out rewrites it"
        )


_RENEWED = (
    "intervals", "power", "significance", "order_ranks", "order_variance", "order_sampling", "added_dataset",
)  # fmt: skip
"""Tables that 0.1.0 did not have, or computed otherwise."""


def _renewed(table: str, metric: str, note: str) -> bool:
    """Whether a number is of a kind that 0.1.0 did not have, or computed otherwise."""
    return table in _RENEWED or "logistic" in metric or TRAINED in note.split("; ")


def _is_new(row: TidyRow, group: RunGroup) -> bool:
    """Whether 0.1.0 did not have a number, or computed it otherwise: it studied the main datasets alone."""
    main = {group.main_record.titles[name] for name in group.main_record.sequence}
    named = set(row.order.rpartition(" of ")[2].split(", "))
    others = row.table in ("orders", "first_task") and len(named) > 1 and named != main
    return others or _renewed(row.table, row.metric, row.note)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _about(row: TidyRow) -> tuple[str, ...]:
    """What a row is about, as text: all but its numbers."""
    return tuple(str(csv_cell(cell)) for cell in (*row[:10], row.note))


def _words(row: TidyRow) -> str:
    return " ".join(str(part) for part in row[:10] if part != "")


def _differences(
    where: str, row: TidyRow, cells: list[str], computed: Iterable[tuple[float, ...]]
) -> list[Problem]:
    """Compares the numbers of a row with those that were computed; each column is reported once."""
    problems: dict[str, Problem] = {}
    held = dict(zip((*TIDY_COLUMNS, MEDIAN), cells, strict=False))  # most files have no medians
    for numbers in computed:
        for column, right in zip(("value", "std", MEDIAN), numbers, strict=True):
            text = held.get(column, "")
            if not _same(text, right, TOLERANCES.get(row.table, TOLERANCE)):
                what = f"{column} of {_words(row)} is {text or 'empty'}, but computed from the answers it is "
                shown = repr(right) if math.isfinite(right) else "undefined"
                problems.setdefault(column, Problem(where, what + shown, _RENEW))
    return list(problems.values())


def _same(text: str, right: float, tolerance: float) -> bool:
    """Whether a cell holds the number, or is empty for nan."""
    if text == "" or not math.isfinite(right):
        return text == "" and math.isnan(right)
    # `float` also takes blanks around a number and underscores in it, which other readers do not
    return _NUMBER.fullmatch(text) is not None and abs(float(text) - right) <= tolerance * max(
        1.0, abs(right)
    )
