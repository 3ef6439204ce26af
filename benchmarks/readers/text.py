"""Reads label files of text (.csv, .txt) so that every fault is reported with file, row and column.

The readers know nothing of any dataset. Numbers are read as the file has them; nothing is guessed,
filled in or skipped. `workbooks` reads .xls and .xlsx, `matlab` reads .mat.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliqa_bench.errors import UserError, read_all

MAX_TEXT_BYTES = 1 << 26
"""Size of the largest text file that is read, 64 MB; the largest of the authors' has 2 MB."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What counts as a number: Python alone would also read 1_0, nan, and digits of other scripts."""


@dataclass(frozen=True)
class LabelRow:
    """One row of a table.

    Attributes:
        path: The file.
        number: Row number as an editor or a spreadsheet shows it, from 1.
        cells: Lower-case column name -> text, number or None (an empty cell).
        broken: What is wrong with the row as a whole; reading any cell of it raises this.
        advice: What to do about a fault.
    """

    path: Path
    number: int
    cells: Mapping[str, object]
    broken: str = ""
    advice: str = "download the file again"

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path} row {self.number}"

    def fault(self, column: str, expected: str) -> UserError:
        """Builds the error for a cell that is not what it should be."""
        if self.broken:
            return UserError(f"{self.where} {self.broken}; {self.advice}")
        value = self.cells.get(column.lower())
        shown = "is empty" if value is None or value == "" else f"holds {value!r}"
        return UserError(f"{self.where}, column {column!r} {shown}, expected {expected}; {self.advice}")

    def text(self, column: str) -> str:
        """Returns a cell as text; a whole number loses its decimal point (CSIQ's image `1600`).

        Raises:
            UserError: If the cell is empty, or holds control characters or no text at all.
        """
        value = self.cells.get(column.lower())
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip() if isinstance(value, str | int | float) else ""
        if not text.isprintable() or not text:
            raise self.fault(column, "text")
        return text

    def match(self, column: str, pattern: str, expected: str) -> re.Match[str]:
        """Matches the text of a cell, all of it and in any case, with a pattern.

        Args:
            column: The column.
            pattern: A regular expression, whose classes are of ASCII.
            expected: What the cell should hold, for the message.

        Raises:
            UserError: If the text does not match, or there is none.
        """
        match = re.fullmatch(pattern, self.text(column), re.IGNORECASE | re.ASCII)
        if match is None:
            raise self.fault(column, expected)
        return match

    def number_in(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Returns a cell as a finite float64 in [low, high].

        Raises:
            UserError: If the cell is empty, text, NaN, infinite or out of range.
        """
        value = self.cells.get(column.lower())
        bounded = math.isfinite(low) or math.isfinite(high)
        expected = f"a number from {low:g} to {high:g}" if bounded else "a number"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.fault(column, expected)
        if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
            raise self.fault(column, expected)
        try:
            # strip takes away separators of ASCII that float does not
            number = float(value.strip() if isinstance(value, str) else value)
        except OverflowError:  # a whole number that no float can hold
            raise self.fault(column, expected) from None
        if not (math.isfinite(number) and low <= number <= high):
            raise self.fault(column, expected)
        return number

    def integer_in(self, column: str, low: int, high: int) -> int:
        """Returns a cell as a whole number in [low, high].

        Raises:
            UserError: If it is anything else.
        """
        number = self.number_in(column, low, high)
        if not number.is_integer():
            raise self.fault(column, f"a whole number from {low} to {high}")
        return int(number)

    def has(self, column: str) -> bool:
        """Whether the cell exists and is not empty."""
        return self.cells.get(column.lower()) not in (None, "")


def read_csv(path: Path, columns: Sequence[str]) -> list[LabelRow]:
    """Reads a comma-separated file whose first line names the columns.

    Args:
        path: The file; UTF-8, with or without byte-order mark, any line ending.
        columns: Columns that must be there (any case, any order; others are kept, too).

    Returns:
        The rows. One with another number of cells than the header is `broken`, and the reader says so.

    Raises:
        UserError: If the file cannot be read, a column is missing or there twice, or quotes are unbalanced.
    """
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    rows = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        require_columns(path, header, columns)
        for cells in reader:
            if cells:  # no empty line
                rows.append(_row(path, reader.line_num, header, cells, f"the header names {len(header)}"))
    except csv.Error as error:
        raise UserError(
            f"{path} row {reader.line_num} is broken ({error}); download the file again"
        ) from error
    return rows


def _row(path: Path, number: int, names: Sequence[str], cells: Sequence[str], expected: str) -> LabelRow:
    if len(cells) == len(names):
        return LabelRow(path, number, dict(zip(names, cells, strict=True)))
    return LabelRow(path, number, {}, f"has {len(cells)} cells, {expected}")


def read_bounded(path: Path, named: str, if_larger: str) -> bytes:
    """Returns the bytes of a file of labels.

    Args:
        path: The file.
        named: What the message calls it if it cannot be read.
        if_larger: The end of the message about a file that is larger than `MAX_TEXT_BYTES`.

    Raises:
        UserError: If it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {named}: {error.strerror or error}") from error
    if len(data) > MAX_TEXT_BYTES:
        raise UserError(f"{path} has more than {MAX_TEXT_BYTES >> 20} MB{if_larger}")
    return data


def read_text(path: Path) -> str:
    """Returns the text of a file: UTF-8, without byte-order mark, lines ended by LF whatever ended them.

    Raises:
        UserError: If it cannot be read, is larger than `MAX_TEXT_BYTES`, or is not text.
    """
    data = read_bounded(path, str(path), ", which no label file has; download it again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a text file ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, columns: Sequence[str], separator: str | None = None) -> list[LabelRow]:
    """Reads a text file without a header, a fixed number of cells in every line.

    Args:
        path: The file; any line ending.
        columns: What the cells of a line are.
        separator: What separates them; None for blanks and tabs.

    Returns:
        The rows that are not empty. One with another number of cells is `broken`.

    Raises:
        UserError: If the file cannot be read.
    """
    rows = []
    expected = f"expected {len(columns)}: {', '.join(columns)}"
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            cells = [cell.strip() for cell in line.split(separator)]
            rows.append(_row(path, number, columns, cells, expected))
    return rows


def require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Checks that a header names every column, and names it once.

    Raises:
        UserError: If it does not.
    """
    missing = [column for column in columns if column.lower() not in header]
    if missing:
        there = ", ".join(name for name in header if name)[:200] or "nothing"
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; its header names: {there}")
    twice = [column for column in columns if header.count(column.lower()) > 1]
    if twice:
        raise UserError(
            f"{path} has the column {', '.join(map(repr, twice))} twice, and it is unclear which "
            "counts; download the file again"
        )


def read_records(path: Path, widths: Iterable[int]) -> list[tuple[int, list[str]]]:
    r"""Reads tab-separated records without a header, ended by LF, CRLF or a lone CR.

    Args:
        path: The file.
        widths: Numbers of cells that a record may have.

    Returns:
        (record number from 1, cells) for each record that is not empty.

    Raises:
        UserError: If the file cannot be read or records have another number of cells; it reports all.
    """
    allowed = set(widths)

    def split(numbered: tuple[int, str]) -> tuple[int, list[str]]:
        number, line = numbered
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) not in allowed:
            raise UserError(
                f"{path} row {number} has {len(cells)} tab-separated cells, expected "
                f"{' or '.join(map(str, sorted(allowed)))}; download the file again"
            )
        return number, cells

    numbered = enumerate(read_text(path).split("\n"), start=1)
    return read_all([(number, line) for number, line in numbered if line.strip()], split)
