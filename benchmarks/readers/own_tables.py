"""Reads a table of a user's own, whatever program wrote it, so that every fault has its row and column.

CSV with commas, semicolons, tabs or bars, UTF-8 or UTF-16, JSON lines, Excel workbooks and Parquet files are
told apart by content and not by name. The first row names the columns.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliqa_bench.benchmarks.readers.text import LabelRow, read_bounded
from cliqa_bench.benchmarks.readers.workbooks import HEADER_SEARCH_ROWS, WORKBOOK_STARTS, read_rows
from cliqa_bench.errors import UserError

_DELIMITERS = "\t;,|"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_MEND = "correct it"

HasColumns = Callable[[Sequence[str]], bool]
"""Tells whether a row of names is a header: whether the columns that are needed are among them."""


@dataclass(frozen=True)
class OwnTable:
    """The rows of a table.

    Attributes:
        path: The file.
        header: Names of the columns as they are written.
        rows: The rows that are not empty.
        delimiter: What separates the cells of a text file; "" for other kinds.
        sheets: Names of all sheets of a workbook; none for other kinds.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[LabelRow, ...]
    delimiter: str = ""
    sheets: tuple[str, ...] = ()

    def with_decimal_points(self, column: str) -> OwnTable:
        """Returns the table with the decimal commas of a column as points: 3,25 becomes 3.25.

        Raises:
            UserError: If the column has both, or its commas may as well separate thousands.
        """
        name = column.lower()
        texts = {
            row.number: cell.strip() for row in self.rows if isinstance(cell := row.cells.get(name), str)
        }
        commas = {number: text for number, text in texts.items() if _DECIMAL_COMMA.fullmatch(text)}
        if not commas:
            return self
        (first, text), *_ = commas.items()
        where = f"{self.path} row {first}, column {column!r} holds {text!r}"
        point = next((n for n, cell in texts.items() if _DECIMAL_POINT.fullmatch(cell)), None)
        if point is not None:
            raise UserError(f"{where}, and row {point} {texts[point]!r}; write all numbers with a point")
        if self.delimiter != ";" and all(_THOUSANDS.fullmatch(text) for text in commas.values()):
            raise UserError(
                f"{where}, which may be a decimal comma or thousands; write all numbers with a point"
            )
        return replace(self, rows=tuple(_with_point(r, name) if r.number in commas else r for r in self.rows))


def _with_point(row: LabelRow, name: str) -> LabelRow:
    return replace(row, cells={**row.cells, name: str(row.cells[name]).replace(",", ".")})


def read_own_table(path: Path, has_columns: HasColumns, sheet: str | None = None) -> OwnTable:
    """Reads a table.

    Args:
        path: The file.
        has_columns: Finds the header of a workbook, above which there may be other rows.
        sheet: Name of a workbook's sheet; None for the first.

    Returns:
        The table. A row with another number of cells than the header is `broken`.

    Raises:
        UserError: If the file cannot be read, is too large, is of another kind, or holds no row of data, or
            if it has no such sheet.
    """
    data = read_bounded(path, f"the table {path}", "; is it a table of ratings?")
    is_workbook = data.startswith(WORKBOOK_STARTS)
    if sheet is not None and not is_workbook:
        raise UserError(f"{path} is not a workbook and has no sheets; leave sheet={sheet} out")
    if is_workbook:
        cells, sheets = read_rows(path, sheet)
        table = replace(_of_cells(path, cells, has_columns), sheets=tuple(sheets))
    elif data.startswith(b"PAR1"):
        table = _of_records(path, enumerate(_parquet_records(path, data), start=1))
    else:
        text = _decoded(path, data).replace("\r\n", "\n").replace("\r", "\n")
        is_json = text.lstrip().startswith("{")
        table = _of_records(path, _json_records(text)) if is_json else _of_text(path, text)
    if not table.rows:
        raise UserError(f"{path} has no row below its header; it should have a row for each image")
    return table


# -- text ----------------------------------------------------------------------------------------------------


def _decoded(path: Path, data: bytes) -> str:
    """Decodes UTF-8, and UTF-16 with a byte-order mark or with the zeros of Latin letters."""
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a text file in UTF-8 or UTF-16 ({error.reason} at byte {error.start}); save it "
            "as CSV UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(f"{path} is not a table: it holds zero bytes; save it as CSV, XLSX or JSON lines")
    return text


def _of_text(path: Path, text: str) -> OwnTable:
    first, _, rest = text.partition("\n")
    said = re.fullmatch("sep=(.)", first.strip(), re.IGNORECASE)  # Excel's own line above the header
    above, text = (1, rest) if said else (0, text)
    delimiter = said[1] if said else _delimiter(text.lstrip("\n").partition("\n")[0])
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: tuple[str, ...] = ()
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = tuple(cell.strip() for cell in cells)
                continue
            rows.append(_row(path, above + reader.line_num, header, cells))
    except csv.Error as error:
        number = above + reader.line_num
        raise UserError(f"{path} row {number} is broken ({error}); {_MEND}") from error
    return OwnTable(path, header, tuple(rows), delimiter)


def _delimiter(header: str) -> str:
    """Returns what separates the names of a header: the most frequent sign outside quotes."""
    bare = re.sub('"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare.count) if any(sign in bare for sign in _DELIMITERS) else ","


def _row(path: Path, number: int, header: Sequence[str], cells: Sequence[Any]) -> LabelRow:
    cells = list(cells)
    while len(cells) > len(header) and cells[-1] in ("", None):
        cells.pop()
    if len(cells) != len(header):
        told = f"has {len(cells)} cells, the header names {len(header)}"
        return LabelRow(path, number, {}, told, advice=_MEND)
    return LabelRow(path, number, _by_name(zip(header, cells, strict=True)), advice=_MEND)


def _by_name(cells: Iterable[tuple[str, Any]]) -> dict[str, object]:
    return {name.lower(): cell for name, cell in cells if name}


# -- JSON lines, Parquet and workbooks -----------------------------------------------------------------------


def _json_records(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields the number and the content of each line, or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                record = f"is not JSON ({error})"
            yield number, record if isinstance(record, dict | str) else "is not a JSON object"


def _parquet_records(path: Path, data: bytes) -> list[dict[str, Any]]:
    import pandas

    try:
        frame = pandas.read_parquet(io.BytesIO(data))
    except ImportError as error:
        raise UserError(
            f"{path} is a Parquet file, and reading it needs pyarrow: pip install pyarrow, or save it as CSV"
        ) from error
    except Exception as error:  # pyarrow and fastparquet each raise their own
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is a broken Parquet file ({said:.200}); save it again") from error
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(key): cell for key, cell in record.items()} for record in plain.to_dict("records")]


def _of_records(path: Path, records: Iterable[tuple[int, dict[str, Any] | str]]) -> OwnTable:
    rows: list[LabelRow] = []
    header: dict[str, None] = {}
    for number, record in records:
        if isinstance(record, str):
            rows.append(LabelRow(path, number, {}, record, advice=_MEND))
            continue
        header |= dict.fromkeys(name.strip() for name in record)
        cells = _by_name((name.strip(), cell) for name, cell in record.items())
        rows.append(LabelRow(path, number, cells, advice=_MEND))
    return OwnTable(path, tuple(header), tuple(rows))


def _of_cells(path: Path, cells: Sequence[Sequence[Any]], has_columns: HasColumns) -> OwnTable:
    """Makes a table of a sheet, whose header is the first row that has the columns, else the first row."""
    filled = [n for n, row in enumerate(cells) if any(cell not in (None, "") for cell in row)]
    named = (n for n in filled[:HEADER_SEARCH_ROWS] if has_columns(_names(cells[n])))
    start = next(named, filled[0] if filled else None)
    if start is None:
        return OwnTable(path, (), ())
    header = _names(cells[start])
    rows = []
    for number in filled:
        if number > start:
            padded = [*cells[number], *[None] * (len(header) - len(cells[number]))]
            rows.append(_row(path, number + 1, header, padded))
    return OwnTable(path, tuple(name for name in header if name), tuple(rows))


def _names(cells: Sequence[Any]) -> list[str]:
    return ["" if cell is None else str(cell).strip() for cell in cells]
