"""Reads label files (.mat, .csv, .xls, .xlsx) so that every fault is told by file, row and column.

The readers know nothing of any dataset. Numbers are taken as they stand in the file; nothing is guessed,
filled in or skipped. pandas, scipy and openpyxl are imported only when a file of their kind is read.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError

HEADER_SEARCH_ROWS = 50
"""How many rows of a sheet may stand above its header (CSIQ's header is in row 4)."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        path: The file.
        number: Row number as an editor or a spreadsheet shows it, from 1.
        cells: Lower-case column name -> text, number or None (an empty cell).
    """

    path: Path
    number: int
    cells: Mapping[str, object]

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path} row {self.number}"

    def fault(self, column: str, expected: str) -> UserError:
        """Builds the error for a cell that is not what it should be."""
        value = self.cells.get(column.lower())
        shown = "is empty" if value is None or value == "" else f"holds {value!r}"
        return UserError(f"{self.where}, column {column!r} {shown}, expected {expected}; get the file anew")

    def text(self, column: str) -> str:
        """Returns a cell as text; a whole number loses its decimal point (CSIQ's image `1600`).

        Raises:
            UserError: If the cell is empty.
        """
        value = self.cells.get(column.lower())
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = "" if value is None else str(value).strip()
        if not text:
            raise self.fault(column, "text")
        return text

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
        try:
            number = float(value)
        except ValueError:
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


def read_csv(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads a comma-separated file whose first line names the columns.

    Args:
        path: The file; UTF-8, with or without byte-order mark, any line ending.
        columns: Columns that must be there (any case, any order; others are kept, too).

    Raises:
        UserError: If the file cannot be read, a column is missing, or a row has another number of cells.
    """
    reader = csv.reader(io.StringIO(_text(path)))
    rows = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _require(path, header, columns)
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{path} row {reader.line_num} has {len(cells)} cells, the header names {len(header)}; "
                    "get the file anew"
                )
            rows.append(Row(path, reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path} row {reader.line_num} is broken ({error}); get the file anew") from error
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # universal newlines: a lone CR ends a line, too
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_lines(path: Path, columns: Sequence[str], separator: str | None = None) -> list[Row]:
    """Reads a text file without a header, a fixed number of cells in every line.

    Args:
        path: The file; any line ending.
        columns: What the cells of a line are.
        separator: What stands between them; None for blanks and tabs.

    Raises:
        UserError: If the file cannot be read, or a line has another number of cells.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(separator)]
        if len(cells) != len(columns):
            expected = f"{len(columns)}: {', '.join(columns)}"
            raise UserError(
                f"{path} row {number} has {len(cells)} cells, expected {expected}; get the file anew"
            )
        rows.append(Row(path, number, dict(zip(columns, cells, strict=True))))
    return rows


def read_sheet(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Reads a table from a workbook, .xlsx or .xls, told apart by content and not by the file's name.

    The header is the first row that names all the columns; it may stand in any row and begin in any column.
    Rows in which all of these columns are empty are passed over.

    Args:
        path: The workbook.
        columns: Columns that must be there (any case).
        sheet: Name of the sheet; None for the first.

    Raises:
        UserError: If the workbook cannot be read, or the sheet or a column is missing.
    """
    wanted = [column.lower() for column in columns]
    header: list[str] | None = None
    best: list[str] = []
    rows = []
    for number, cells in enumerate(_sheet_rows(path, sheet), start=1):
        if header is None:
            names = ["" if cell is None else str(cell).strip().lower() for cell in cells]
            if set(wanted) <= set(names):
                header = names
            best = max(best, names, key=lambda row: len(set(row) & set(wanted)))
            if number > HEADER_SEARCH_ROWS:
                break
            continue
        row = Row(path, number, {name: cell for name, cell in zip(header, cells, strict=False) if name})
        if any(row.has(column) for column in wanted):
            rows.append(row)
    if header is None:
        _require(path, best, columns)
    return rows


def _require(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column.lower() not in header]
    if missing:
        there = ", ".join(name for name in header if name)[:200] or "nothing"
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}; its header names: {there}")


def _sheet_rows(path: Path, sheet: str | None) -> Iterator[Sequence[Any]]:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if start == b"PK\x03\x04":
        return _xlsx_rows(path, sheet)
    if start == b"\xd0\xcf\x11\xe0":
        return _xls_rows(path, sheet)
    raise UserError(f"{path} is neither an .xlsx nor an .xls workbook; get the file anew")


def _xlsx_rows(path: Path, sheet: str | None) -> Iterator[Sequence[Any]]:
    import openpyxl

    try:
        with path.open("rb") as file:  # given a path, openpyxl would judge by the file's name
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            names = book.sheetnames
            _require_sheet(path, sheet, names)
            table = book[sheet or names[0]]
            table.reset_dimensions()  # some writers state dimensions that cut the table
            rows = [list(row) for row in table.iter_rows(values_only=True)]
    except UserError:
        raise
    except Exception as error:  # zipfile, ElementTree and openpyxl each raise their own
        raise UserError(f"{path} is a broken workbook ({error}); get the file anew") from error
    return iter(rows)


def _xls_rows(path: Path, sheet: str | None) -> Iterator[Sequence[Any]]:
    import xlrd

    try:
        book = xlrd.open_workbook(str(path), logfile=_Silence())
        names = book.sheet_names()
        _require_sheet(path, sheet, names)
        table = book.sheet_by_name(sheet or names[0])
        rows = [table.row_values(number) for number in range(table.nrows)]
    except UserError:
        raise
    except Exception as error:  # xlrd lets struct.error, IndexError and its own escape
        raise UserError(f"{path} is a broken workbook ({error}); get the file anew") from error
    return iter(rows)


class _Silence:
    """A log file for xlrd, which else prints on standard output."""

    def write(self, text: str) -> None:
        """Throws the text away."""

    def flush(self) -> None:
        """Does nothing."""


def _require_sheet(path: Path, sheet: str | None, names: Sequence[str]) -> None:
    if sheet is not None and sheet not in names:
        raise UserError(f"{path} has no sheet {sheet!r}; it has: {', '.join(names)}")


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Reads variables of a MATLAB file (up to version 7).

    Args:
        path: The file.
        names: The variables.

    Returns:
        One array per name, in their order, shaped as in the file.

    Raises:
        UserError: If the file cannot be read, is of version 7.3, or lacks a variable.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(str(path))
    except NotImplementedError as error:
        raise UserError(f"{path} is a MATLAB 7.3 file; the authors' file is older: get it anew") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # scipy raises ValueError, TypeError, MatReadError, zlib.error ...
        raise UserError(f"{path} is a broken MATLAB file ({error}); get the file anew") from error
    there = [name for name in content if not name.startswith("__")]
    for name in names:
        if name not in there:
            raise UserError(f"{path} has no variable {name!r}; it has: {', '.join(there) or 'nothing'}")
    return [np.asarray(content[name]) for name in names]


def vector(path: Path, name: str, values: NDArray[Any], length: int) -> NDArray[np.float64]:
    """Turns a (1, n) or (n, 1) variable of a MATLAB file into (n,) finite float64.

    Raises:
        UserError: If it has another shape or length, is not numeric, or holds NaN or infinity.
    """
    if values.ndim != 2 or 1 not in values.shape or values.size != length:
        raise UserError(
            f"{path}: {name} has shape {_shape(values)}, expected 1x{length}; it is not the authors' file"
        )
    if not np.issubdtype(values.dtype, np.number) and values.dtype != np.bool_:
        raise UserError(f"{path}: {name} holds {values.dtype} values, expected numbers")
    flat = values.ravel().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        raise UserError(f"{path}: {name} entry {bad[0] + 1} is {flat[bad[0]]:g}, expected a number")
    return flat


def strings(path: Path, name: str, values: NDArray[Any], length: int) -> list[str]:
    """Turns a cell array of strings, nested to any depth, into a list.

    Raises:
        UserError: If it has another length or a cell holds anything but one string.
    """
    if values.size != length:
        raise UserError(
            f"{path}: {name} has shape {_shape(values)}, expected {length} cells; it is not the authors' file"
        )
    texts = []
    for number, cell in enumerate(values.ravel(), start=1):
        while isinstance(cell, np.ndarray) and cell.size == 1:
            cell = cell.ravel()[0]
        if not isinstance(cell, str) or not cell.strip():
            raise UserError(f"{path}: {name} cell {number} holds no text, expected a file name")
        texts.append(cell.strip())
    return texts


def _shape(values: NDArray[Any]) -> str:
    return "x".join(map(str, values.shape))


def read_records(path: Path, widths: Iterable[int]) -> list[tuple[int, list[str]]]:
    r"""Reads tab-separated records without a header, ended by LF, CRLF or a lone CR.

    Args:
        path: The file.
        widths: Numbers of cells that a record may have.

    Returns:
        (record number from 1, cells) for each record that is not empty.

    Raises:
        UserError: If the file cannot be read or a record has another number of cells.
    """
    allowed = set(widths)
    records = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) not in allowed:
            raise UserError(
                f"{path} row {number} has {len(cells)} tab-separated cells, expected "
                f"{' or '.join(map(str, sorted(allowed)))}"
            )
        records.append((number, cells))
    return records
