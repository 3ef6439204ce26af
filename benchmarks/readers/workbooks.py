"""Reads tables from workbooks, .xlsx and .xls, so that every fault is reported with file, row and column.

openpyxl and xlrd are imported only when a file of their kind is read. What a small file may stand for is
bounded before it is parsed: an .xlsx is a zip archive, and a sheet names its rows and columns by numbers.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cliqa_bench.benchmarks.readers.text import LabelRow, require_columns
from cliqa_bench.errors import UserError

HEADER_SEARCH_ROWS = 50
"""How many rows of a sheet may stand above its header (CSIQ's header is in row 4)."""

MAX_BYTES = 1 << 28
"""Bytes that a workbook may have, as a file and unpacked; the largest of the authors' has 2 MB unpacked."""

MAX_CELLS = 1 << 22
"""Cells that a sheet may have, empty ones included; the largest of the authors' has 80,000."""


WORKBOOK_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How .xlsx and .xls files begin."""


class _NoValue:
    """A cell that holds something other than a value: it is not text, not a number, and not empty."""

    def __init__(self, told: str) -> None:
        self._told = told

    def __repr__(self) -> str:
        return self._told


def read_sheet(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[LabelRow]:
    """Reads a table from a workbook, .xlsx or .xls, told apart by content and not by the file's name.

    The header is the first row that names all the columns; it may be any row and begin in any column.
    Rows in which all of these columns are empty are passed over. Formulas and error values (`#REF!`) are no
    values: a cell of these columns that holds one is refused when it is read.

    Args:
        path: The workbook.
        columns: Columns that must be there (any case).
        sheet: Name of the sheet; None for the first.

    Raises:
        UserError: If the workbook cannot be read or is too large, or the sheet or a column is missing.
    """
    wanted = [column.lower() for column in columns]
    header: list[str] | None = None
    best: list[str] = []
    rows = []
    for number, cells in enumerate(_bounded(path, _sheet_rows(path, sheet)), start=1):
        if header is None:
            names = [str(cell).strip().lower() if isinstance(cell, str | float) else "" for cell in cells]
            if set(wanted) <= set(names):
                header = names
                require_columns(path, header, columns)
            best = max(best, names, key=lambda row: len(set(row) & set(wanted)))
            if number > HEADER_SEARCH_ROWS:
                break
            continue
        row = LabelRow(path, number, {name: cell for name, cell in zip(header, cells, strict=False) if name})
        if any(row.has(column) for column in wanted):
            rows.append(row)
    if header is None:
        require_columns(path, best, columns)
    return rows


def read_rows(path: Path, sheet: str | None = None) -> tuple[list[Sequence[Any]], list[str]]:
    """Reads all rows of a sheet, whatever they hold.

    Args:
        path: The workbook.
        sheet: Name of the sheet; None for the first.

    Returns:
        The rows, and the names of all sheets of the workbook.

    Raises:
        UserError: If the workbook cannot be read or is too large, or has no such sheet.
    """
    names: list[str] = []
    return list(_bounded(path, _sheet_rows(path, sheet, names))), names


def _bounded(path: Path, rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """Yields the rows of a sheet until there are more cells than any label file has."""
    cells = 0
    for row in rows:
        cells += 1 + len(row)
        if cells > MAX_CELLS:
            raise UserError(f"{path} has more than {MAX_CELLS} cells in a sheet; it is not the authors' file")
        yield row


def _sheet_rows(path: Path, sheet: str | None, names: list[str] | None = None) -> Iterator[Sequence[Any]]:
    """Gives the rows of a sheet; adds the names of all sheets to `names`."""
    names = [] if names is None else names
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size} bytes, a label file at most {MAX_BYTES}; download the file again")
    if start not in WORKBOOK_STARTS:
        raise UserError(f"{path} is neither an .xlsx nor an .xls workbook; download the file again")
    try:
        yield from (_xlsx_rows if start == b"PK\x03\x04" else _xls_rows)(path, sheet, names)
    except UserError:
        raise
    except Exception as error:  # zipfile, ElementTree, struct, openpyxl and xlrd each raise their own
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is a broken workbook ({said:.200}); download the file again") from error


def _xlsx_rows(path: Path, sheet: str | None, names: list[str]) -> Iterator[Sequence[Any]]:
    import openpyxl

    with path.open("rb") as file:  # given a path, openpyxl would judge by the file's name
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise UserError(
                f"{path} would have {size} bytes unpacked, a workbook of labels at most {MAX_BYTES}; get the "
                "file again"
            )
        warnings.filterwarnings("ignore", module=r"openpyxl\.")  # of styles and rules that it leaves out
        book = openpyxl.load_workbook(file, read_only=True)
        names += [table.title for table in book.worksheets]  # not charts
        table = book[_require_sheet(path, sheet, names)]
        table.reset_dimensions()  # some writers state dimensions that cut the table
        for cells in table.iter_rows():
            yield [_xlsx_value(cell) for cell in cells]


def _xlsx_value(cell: Any) -> object:
    if cell.data_type == "f":
        return _NoValue("a formula")
    return _NoValue(str(cell.value)) if cell.data_type == "e" else cell.value


def _xls_rows(path: Path, sheet: str | None, names: list[str]) -> Iterator[Sequence[Any]]:
    import xlrd

    book = xlrd.open_workbook(str(path), logfile=_Silence())
    names += book.sheet_names()
    table = book.sheet_by_name(_require_sheet(path, sheet, names))
    for number in range(table.nrows):
        yield [_xls_value(cell) for cell in table.row(number)]


def _xls_value(cell: Any) -> object:
    import xlrd

    if cell.ctype in (xlrd.XL_CELL_TEXT, xlrd.XL_CELL_NUMBER):
        return cell.value
    if cell.ctype in (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK):
        return None
    return _NoValue(
        {xlrd.XL_CELL_ERROR: "an error value", xlrd.XL_CELL_DATE: "a date"}.get(cell.ctype, "a bool")
    )


class _Silence:
    """A log file for xlrd, which would otherwise print to standard output."""

    def write(self, text: str) -> None:
        """Throws the text away."""

    def flush(self) -> None:
        """Does nothing."""


def _require_sheet(path: Path, sheet: str | None, names: Sequence[str]) -> str:
    if not names or (sheet is not None and sheet not in names):
        raise UserError(f"{path} has no sheet {sheet or ''!r}; it has: {', '.join(names) or 'none'}")
    return sheet or names[0]
