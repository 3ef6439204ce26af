"""The rows that `score` writes, as CSV or JSON lines, each as soon as it is known.

A table in a file has a hidden journal beside it (`.NAME.journal`), JSON lines: first what the scores were
made with, then for each window of pictures their rows, with each file's size and time. A row is in the
journal before it is in the table, and a line of the journal counts once it is whole. So a table that was cut
short, by whatever, is completed without scoring a picture twice, to the same bytes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from cliqa_bench.errors import UserError
from cliqa_bench.progress import say
from cliqa_bench.results.nodes import csv_cell, write_text
from cliqa_bench.system.disk import writing
from cliqa_bench.system.locks import claimed

Made = Mapping[str, Any]
"""What decides the scores of a table: name -> a value that JSON has."""

FORMS = (".csv", ".jsonl")
"""Suffixes of tables: what each is written as."""


@dataclass(frozen=True)
class FileRow:
    """What `score` writes about a file.

    Attributes:
        image: The file's path.
        size: In bytes, -1 if unknown.
        time: Of its last change, in nanoseconds.
        line: The row as it is written, with its end.
        error: Why it has no score; "" if it has one.
        notes: Remarks on a picture that was scored anyway.
        score: Its score, unrounded; None if it has none.
    """

    image: str
    size: int
    time: int
    line: str
    error: str = ""
    notes: list[str] = field(default_factory=list)
    score: float | None = None

    def is_current(self) -> bool:
        """Tells whether the file has not changed since."""
        return (self.size, self.time) == stamp(self.image)


def stamp(path: str | Path) -> tuple[int, int]:
    """Returns a file's size and time of change; -1 and 0 where they cannot be told."""
    try:
        found = Path(path).stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def written_name(path: str | Path) -> str:
    r"""Returns a file's name as it is written: what is not UTF-8, and control characters, as escapes.

    Example:
        >>> written_name(os.fsdecode(b"caf\xe9.png"))
        'caf\\xe9.png'
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if c < " " or c == "\x7f" else c for c in text)


def check_form(to: Path) -> str:
    """Returns the suffix in `FORMS` that a table's name has.

    Raises:
        UserError: If it has another.
    """
    form = to.suffix.lower()
    if form not in FORMS:
        raise UserError(f"--to {to} must end in .csv or .jsonl (JSON lines), which is how it is written")
    return form


class Lines:
    """How rows are written.

    Args:
        form: One of `FORMS`.
        tasks: Datasets of the heads; none where there is one head.
        labels: Path of a file -> its label, to be written beside its score; None for no such column.
        aspects: What else the model says about a picture ("scene"), each a word and its probability.
        reading: Columns of how the score is read, see `ReadingScale.columns`; they come last.
    """

    def __init__(
        self,
        form: str,
        tasks: Sequence[str],
        labels: Mapping[str, float] | None = None,
        aspects: Sequence[str] = (),
        reading: Sequence[str] = (),
    ) -> None:
        self._form, self._labels = form, labels
        names = [f"{what}:{task}" for task in tasks for what in ("weight", "head")]
        names += [column for aspect in aspects for column in (aspect, f"{aspect}_probability")]
        self._reading = len(reading)
        self.columns = ["image", *([] if labels is None else ["label"]), "score", *names, "error", *reading]

    @property
    def header(self) -> str:
        """The first line; "" if there is none."""
        return _csv_line(self.columns) if self._form == ".csv" else ""

    def line(
        self,
        path: Path,
        numbers: Sequence[float | str] = (),
        error: str = "",
        reading: Sequence[float | str] = (),
    ) -> str:
        """Returns the row of a file.

        Args:
            path: The file.
            numbers: Its score, then weight and score of each head, then word and probability of each aspect,
                unrounded; nan for a head that was left out. None where there is an error.
            error: Why there is no score.
            reading: How the score is read, see `ScoreReading`: the first values are those of its columns.
        """
        given: list[float | str | None] = [] if self._labels is None else [self._labels[str(path)]]
        given += [_without_nan(x) for x in numbers]
        given += [None] * (len(self.columns) - 2 - self._reading - len(given))
        read = [_without_nan(x) if x != "" else None for x in reading[: self._reading]]
        read = read or [None] * self._reading
        name = written_name(path)
        if self._form == ".csv":
            return _csv_line([csv_cell(name), *map(_cell, given), csv_cell(error), *map(_cell, read)])
        row = dict(zip(self.columns, [name, *given, error or None, *read], strict=True))
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"

    def cells(self, line: str) -> dict[str, str]:
        """Returns the cells of a row as texts: column -> cell, "" for an empty one."""
        if self._form == ".csv":
            return dict(zip(self.columns, next(csv.reader([line])), strict=True))
        return {name: "" if x is None else str(x) for name, x in json.loads(line).items()}


def _without_nan(x: float | str) -> float | str | None:
    return None if isinstance(x, float) and math.isnan(x) else x


def _cell(x: float | str | None) -> str:
    return "" if x is None else x if isinstance(x, str) else repr(x)


def _csv_line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class Printed:
    """A table on the terminal; none of it is stored."""

    kept: ClassVar[dict[str, FileRow]] = {}

    def __init__(self, header: str) -> None:
        self._print(header)

    def add(self, window: Sequence[FileRow], new: bool) -> None:
        """Writes the rows of a window."""
        self._print("".join(row.line for row in window))

    def _print(self, text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


class TableFile:
    """A table in a file, and its journal; see `table_file`.

    Attributes:
        kept: Rows that are known already: path -> row. What had an error is tried again.
    """

    def __init__(self, to: Path, header: str, made: Made, files: Sequence[Path]) -> None:
        journal = _beside(to, "journal")
        with writing(to):
            old = _Old(to, journal, header, made)
            old.refuse_others(files)
            self.kept = old.kept(files)
            known = list(itertools.takewhile(bool, (self.kept.get(str(path)) for path in files)))
            self._ahead = len(known)
            # the table first: until then the old journal knows all that is in it
            write_text(to, header + "".join(row.line for row in known if row))
            write_text(journal, json.dumps(made) + "\n" + _entry(list(self.kept.values())))
            self._to, self._rows, self._entries = to, to.open("ab"), journal.open("ab")

    def add(self, window: Sequence[FileRow], new: bool) -> None:
        """Writes the rows of a window.

        Args:
            window: Rows, in the order of the files.
            new: Whether one of them was not kept.
        """
        rows = window[self._ahead :]
        self._ahead = max(0, self._ahead - len(window))
        with writing(self._to):
            if new:  # the journal first: no row is in the table that it does not know
                _append(self._entries, _entry(window))
            _append(self._rows, "".join(row.line for row in rows))

    def close(self) -> None:
        """Ends it."""
        self._rows.close()
        self._entries.close()


@contextlib.contextmanager
def table_file(to: Path, header: str, made: Made, files: Sequence[Path]) -> Iterator[TableFile]:
    """Begins a table, or resumes one that the same command has begun.

    Args:
        to: The table.
        header: Its first line; "" for none.
        made: What decides the scores: name -> value.
        files: What is to be in it.

    Raises:
        UserError: If something else is there under that name, or another process writes it.
    """
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    with claimed(_beside(to, "lock")) as free:
        if not free:
            raise UserError(f"another process is writing {to}; wait for it, or give another file with --to")
        table = TableFile(to, header, made, files)
        try:
            yield table
        finally:
            table.close()


@contextlib.contextmanager
def opened(to: Path | None, header: str, made: Made, files: Sequence[Path]) -> Iterator[Printed | TableFile]:
    """Gives a table: a `table_file`, or for None one on the terminal."""
    if to is None:
        yield Printed(header)
        return
    with table_file(to, header, made, files) as table:
        yield table


class _Old:
    """What an earlier command left of a table."""

    def __init__(self, to: Path, journal: Path, header: str, made: Made) -> None:
        self._to, self._journal = to, journal
        self._rows: dict[str, FileRow] = {}
        if not to.exists():
            journal.unlink(missing_ok=True)
            return
        data = to.read_bytes()
        if not journal.exists():
            if data not in (b"", header.encode()):
                raise self._refused("exists already and has no journal, so it cannot be resumed")
            return
        begun, rows = self._entries()
        self._refuse_made(begun, made)
        self._refuse_changed(data, {header.encode(), *(row.line.encode() for row in rows)})
        self._rows = {row.image: row for row in rows}

    def _entries(self) -> tuple[Made, list[FileRow]]:
        """Returns what the journal's table was made with, and all rows; half a line at its end is ignored."""
        try:
            begun, *windows = map(json.loads, self._journal.read_bytes().split(b"\n")[:-1])
            return begun, [FileRow(**row) for window in windows for row in window]
        except (ValueError, TypeError):
            raise self._refused(f"has a damaged journal ({self._journal.name})") from None

    def _refuse_made(self, begun: Made, made: Made) -> None:
        for name in dict.fromkeys((*begun, *made)):
            if begun.get(name) != made.get(name):
                raise self._refused(f"was begun with {name} {begun.get(name)}, not {made.get(name)}")

    def _refuse_changed(self, data: bytes, known: set[bytes]) -> None:
        """Refuses a table with rows that the journal does not know; a part of a row at its end is none."""
        *lines, half = data.split(b"\n")
        if any(line + b"\n" not in known for line in lines) or not any(k.startswith(half) for k in known):
            raise self._refused("was changed since it was written")

    def refuse_others(self, files: Sequence[Path]) -> None:
        """Refuses a table with scores of files that are there and are not asked for."""
        others = self._rows.keys() - {str(path) for path in files}
        scored = sorted(image for image in others if not self._rows[image].error)
        if there := [image for image in scored if os.path.lexists(image)]:
            raise self._refused(f"has rows of files that are not asked for now, such as {there[0]}")
        if scored:
            say(f"{self._to}: {len(scored):,} rows of files that no longer exist were removed")

    def kept(self, files: Sequence[Path]) -> dict[str, FileRow]:
        """Returns the rows of files that have a score and have not changed."""
        found = {str(path): self._rows.get(str(path)) for path in files}
        return {name: row for name, row in found.items() if row and not row.error and row.is_current()}

    def _refused(self, why: str) -> UserError:
        return UserError(f"{self._to} {why}; give another file with --to, or delete it first")


def _beside(to: Path, what: str) -> Path:
    return to.with_name(f".{to.name}.{what}")


def _entry(rows: Sequence[FileRow]) -> str:
    return json.dumps([asdict(row) for row in rows]) + "\n"


def _append(file: BinaryIO, text: str) -> None:
    """Appends to a file, and waits until it is on the disk."""
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
