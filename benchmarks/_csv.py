"""A table of your own: CSV, XLSX, JSON lines or Parquet, with a column of image names and one of scores."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from cliqa_bench.benchmarks.base import Dataset, Entry, find_repeated
from cliqa_bench.benchmarks.pixels.decode import FORMAT_OF, OWN, Reading
from cliqa_bench.benchmarks.readers.image_names import MatchedNames, list_files, match_names, nfc
from cliqa_bench.benchmarks.readers.own_tables import OwnTable, read_own_table
from cliqa_bench.benchmarks.readers.table_columns import (
    AVERAGE,
    FAMILY,
    HIGHER,
    LOWER,
    NONE,
    TableColumns,
    TableOptions,
    choose_columns,
    has_columns,
    parse_options,
)
from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.errors import UserError, read_all, refuse
from cliqa_bench.types import SUBSETS, Rating, Subset

SYNONYMS: dict[Subset, tuple[str, ...]] = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "te"),
}
"""Subset -> what people call it in a table; case does not matter."""

FEW_LABELS = 10
"""At most this many different labels are few, if there are five times as many images."""

_LONGEST_NAME = 48
_SUBSET_OF = {word: subset for subset, words in SYNONYMS.items() for word in words}


class TableDataset(Dataset):
    """What the classes of tables share; `find` makes one per table.

    Attributes:
        options: The table's path and the user's options.
        table: Its rows.
        columns: Which of its columns is what.
    """

    options: ClassVar[TableOptions]
    table: ClassVar[OwnTable]
    columns: ClassVar[TableColumns]
    label_files = ()
    image_folders = ("",)
    citation = ""
    reading: Reading = OWN

    def __init__(self, root: Path) -> None:
        """Opens a table; reads the names of pictures, but no picture.

        Args:
            root: Where the pictures are looked for.
        """
        rows = [row for row in self.table.rows if not row.broken and row.has(self.columns.image)]
        names = [name for row in rows if (name := _text(row, self.columns.image))]
        try:
            self._matched: MatchedNames = match_names(Path(root), names)
        except UserError as error:
            raise UserError(f"{self.options.path}: {error}") from error
        super().__init__(self._matched.root)
        self._paths = {nfc(file): file for file in self._matched.files.values()}

    @classmethod
    def _unnested(cls, root: Path) -> Path:
        return root

    @property
    def expected_images(self) -> int:
        """See the base class: as many as the table rates."""
        return len(self._ratings)

    def _miscounted(self, entries: Sequence[Entry]) -> list[UserError]:
        return []  # nothing says how many there should be

    # -- labels ----------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """See the base class."""
        entries = read_all(self.table.rows, self._entry)
        return self._averaged(entries) if AVERAGE in self.options.flags else entries

    def _entry(self, row: LabelRow) -> Entry:
        columns = self.columns
        lacks = self.may_lack_scores and not row.has(columns.score)
        score = math.nan if lacks else row.number_in(columns.score)
        std = math.nan
        if columns.std and row.has(columns.std):
            std = row.number_in(columns.std, 0)
        group = row.text(columns.group) if columns.group and row.has(columns.group) else None
        # taken from 0: minus 0 would be another number in a fingerprint
        return Entry(
            row.where, Rating(self._key_of(row), 0.0 - score if columns.lower else score, std, group, "")
        )

    def _key_of(self, row: LabelRow) -> str:
        name = row.text(self.columns.image)
        if fault := self._matched.faults.get(name):
            raise UserError(f"{row.where}: image {name} {fault}")
        return nfc(self._matched.files.get(name, name))

    def _rated_twice(self, entries: Sequence[Entry]) -> list[UserError]:
        advice = f"remove one, or average them: {self.options.shown(AVERAGE)}"
        return find_repeated(entries, str, advice)  # names that differ in case may be two pictures

    def _averaged(self, entries: Sequence[Entry]) -> list[Entry]:
        """Makes one entry of all rows of an image: their mean, and their standard deviation (n - 1)."""
        of_image: dict[str, list[Entry]] = {}
        for entry in entries:
            of_image.setdefault(entry.rating.key, []).append(entry)
        averaged, faults = [], []
        for same in of_image.values():
            first = same[0]
            scores = [entry.rating.score for entry in same]
            std = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
            averaged.append(Entry(first.where, first.rating._replace(score=float(np.mean(scores)), std=std)))
            other = next((entry for entry in same if entry.rating.group != first.rating.group), None)
            if other is not None:
                faults.append(
                    UserError(
                        f"{other.where} puts {first.rating.key} into group {other.rating.group}, "
                        f"{first.where} into {first.rating.group}; give it one group"
                    )
                )
        refuse(faults, averaged)
        return averaged

    def own_split(self, number: int = 1) -> dict[str, Subset] | None:
        """See the base class: the column of subsets, or that of the number, where there are any."""
        column, several = self.columns.split, self.columns.splits
        if several and number not in several:
            raise UserError(
                f"{self.options.path} has no split {number}; it has the columns {', '.join(several.values())}"
            )
        column = several.get(number, column)
        if column is None:
            return None
        subset: dict[str, tuple[Subset, str]] = {}

        def place(row: LabelRow) -> None:
            key, part = self._key_of(row), self._subset_of(row, column)
            there, where = subset.setdefault(key, (part, row.where))
            if there != part:
                raise UserError(f"{row.where} puts {key} into {part}, {where} into {there}; correct it")

        read_all(self.table.rows, place)
        return {key: part for key, (part, _) in subset.items()}

    def _subset_of(self, row: LabelRow, column: str) -> Subset:
        word = row.text(column).lower()
        if word not in _SUBSET_OF:
            fault = row.fault(column, f"one of {', '.join(SUBSETS)}")
            raise UserError(f"{fault}, or do without the column: {self.options.shown(split=NONE)}")
        return _SUBSET_OF[word]

    # -- pictures --------------------------------------------------------------------------------------------

    @cached_property
    def _pictures(self) -> list[str]:
        return [file for file in list_files(self.root) if Path(file).suffix.lower() in FORMAT_OF]

    @cached_property
    def files(self) -> dict[str, str]:
        """See the base class; all pictures below the folder, whatever their suffix."""
        return {file.lower(): file for file in self._pictures}

    def _locate(self, key: str) -> str | None:
        return self._paths.get(key)

    def files_without_labels(self) -> list[str]:
        """See the base class: those that the table names, since others may be beside it."""
        return list(self._paths.values())

    def unlabelled_files(self) -> list[str]:
        """See the base class."""
        rated = {*self._paths.values()}
        return [file for file in self._pictures if file not in rated]

    def advice(self, missing: Sequence[str]) -> str:
        """See the base class."""
        return f"put them there, or name the pictures' folder: {self.options.shown(images='FOLDER')}"

    def notes(self) -> list[str]:
        """See the base class."""
        return [*self._sheet_told(), self._columns_told(), *self._matched.told(), *self._ratings_told()]

    def _sheet_told(self) -> list[str]:
        first, *others = self.table.sheets or ("",)
        if not others or "sheet" in self.options.values:
            return []
        other = self.options.shown(sheet=others[0])
        return [f"reading the sheet {first!r}, the first of {1 + len(others)} (to read another: {other})"]

    @property
    def exact_names(self) -> bool:
        """Whether every picture found has exactly the name in the table."""
        return not self._matched.how

    def _columns_told(self) -> str:
        columns = self.columns
        better = "lower" if columns.lower else "higher"
        doubt = "" if self.options.flags & {LOWER, HIGHER} else f" (otherwise: {LOWER})"
        splits = columns.split or ", ".join(columns.splits.values())
        others = (("std", columns.std), ("groups", columns.group), ("split", splits))
        more = [f"{what}: {name if name else NONE}" for what, name in others]
        return f"score: {columns.score}, {better} is better{doubt}; image: {columns.image}; {', '.join(more)}"

    def _ratings_told(self) -> list[str]:
        said = []
        n, labels = len(self._ratings), Counter(rating.score for rating in self._ratings)
        if AVERAGE in self.options.flags:
            said.append(f"{len(self.table.rows)} ratings are averaged into scores of {n} images")
        if len(labels) == 1:
            said.append(f"all {n} labels are equal: there is nothing to learn from them, and no SRCC")
        elif len(labels) <= FEW_LABELS and n >= 5 * len(labels):
            said.append(
                f"only {len(labels)} different labels among {n} images: many pairs are tied, and SRCC "
                "gives ties their mean rank; a subset whose labels are all equal has no SRCC"
            )
        return said


def _text(row: LabelRow, column: str) -> str:
    """Returns a cell as text; "" if it is not, which reading the row will report."""
    try:
        return row.text(column)
    except UserError:
        return ""


def find(text: str) -> type[Dataset]:
    """Makes the class of a table.

    Args:
        text: Path and options, see `table_columns.parse_options`.

    Raises:
        UserError: If the table cannot be read, or it is not clear which of its columns are meant.
    """
    options = parse_options(text)
    sheet = options.values.get("sheet")
    table = read_own_table(options.path, lambda header: has_columns(header, options), sheet)
    columns = choose_columns(table.header, options)
    for column in (columns.score, columns.std):
        if column is not None:
            table = table.with_decimal_points(column)
    title = options.values.get("name", options.path.stem)
    facts: dict[str, Any] = {
        "title": title,
        "folders": (title,),
        "homepage": str(options.path),
        "home": Path(options.values.get("images", options.path.parent)),
        "source": options.source,
        "n_images": len(table.rows),
        "direction": "lower" if columns.lower else "higher",
        "rule": f"{'minus ' if columns.lower else ''}the column {columns.score}",
        "options": options,
        "table": table,
        "columns": columns,
        "__module__": __name__,
        "__doc__": f"The table {options.path}.",
    }
    made = cast("type[Dataset]", type("OneTable", (TableDataset,), facts))
    made.name = f"{FAMILY}-{_plain(title)}"  # after `type`, which names a class after its module
    return made


def _plain(title: str) -> str:
    """Returns a title that can be used in a file name and on a command line."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", title)[:_LONGEST_NAME].strip("-.")
    return plain or hashlib.sha256(title.encode("utf-8", "surrogateescape")).hexdigest()[:8]
