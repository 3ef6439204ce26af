"""Reads `csv:TABLE?OPTIONS`, which names a table of your own, and finds out which of its columns is what.

Columns are found by their usual names, or named. Nothing is guessed: if two columns would do, or if the name
of a column leaves it open whether high scores are good, an error asks for the option that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from cliqa_bench.errors import UserError, unknown
from cliqa_bench.paths import user_path

FAMILY = "csv"
"""How the name of such a dataset begins."""

USUAL = {
    "image": ("image", "file", "filename", "name", "path", "img", "image_name"),
    "score": ("mos", "score", "dmos", "quality", "rating"),
    "std": ("std", "sd"),
    "group": ("group", "ref", "reference", "ref_name"),
    "split": ("split", "set", "subset"),
}
"""What a column is -> its usual names; case, blanks and underscores do not matter."""

NEEDED = ("image", "score")
NONE = "none"
"""Given as the name of an optional column: do not read any."""

_OTHERS = ("images", "name", "sheet")
LOWER, HIGHER, AVERAGE = "lower_is_better", "higher_is_better", "average"
_FLAGS = (LOWER, HIGHER, AVERAGE)


@dataclass(frozen=True)
class TableOptions:
    """A table and its options.

    Attributes:
        path: The table, absolute.
        values: What a column is -> its name; "images" -> the pictures' folder; "name" -> the dataset's title;
            "sheet" -> which sheet of a workbook is read.
        flags: Options without a value.
    """

    path: Path
    values: Mapping[str, str]
    flags: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        """The same as one word of a command line, valid in any folder."""
        return f"{FAMILY}:{quote(str(self.path), safe='/')}{self._query(self.values, self.flags)}"

    def shown(self, *flags: str, **values: str) -> str:
        """Returns this table with further options, as a message shows it."""
        wanted = {**self.values, **values}
        return f'"{FAMILY}:{quote(self.path.name)}{self._query(wanted, self.flags | {*flags})}"'

    @staticmethod
    def _query(values: Mapping[str, str], flags: frozenset[str]) -> str:
        parts = [f"{key}={quote(value, safe='/')}" for key, value in sorted(values.items())]
        query = "&".join([*parts, *sorted(flags)])
        return f"?{query}" if query else ""


def parse_options(text: str) -> TableOptions:
    """Reads `my.csv?image=fname&score=z&lower_is_better`.

    Args:
        text: Path and options; %2C stands for a comma, %3B for a semicolon, which separate datasets and
            orders on the command line, %26 for "&", and so on.

    Raises:
        UserError: If there is no such table or folder, or an option is unknown or contradicts another.
    """
    name, _, query = text.partition("?")
    path = _existing(name)
    values: dict[str, str] = {}
    flags: list[str] = []
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        key, value = unquote(key).strip(), unquote(value).strip()
        if key in _FLAGS and not equals:
            flags.append(key)
        elif key in values:
            raise UserError(f"{FAMILY}:{text}: {key} is given twice; say it once")
        elif (key in USUAL or key in _OTHERS) and value:
            values[key] = value
        elif key in (*USUAL, *_OTHERS):
            raise UserError(f"{FAMILY}:{text}: {key} has no value; write {key}=VALUE")
        else:
            raise unknown(f"option of {FAMILY}:{path.name}", part, [*USUAL, *_OTHERS, *_FLAGS])
    if {LOWER, HIGHER} <= {*flags}:
        raise UserError(f"{FAMILY}:{text} says both {LOWER} and {HIGHER}; leave one out")
    if AVERAGE in flags and values.get("std", NONE) != NONE:
        raise UserError(
            f"{FAMILY}:{text}: with {AVERAGE}, the std is computed from the ratings; "
            f"leave std={values['std']} out"
        )
    if "images" in values:
        values["images"] = str(_folder(values["images"], path))
    return TableOptions(path, values, frozenset(flags))


def _existing(name: str) -> Path:
    for text in dict.fromkeys((name, unquote(name))):
        path = user_path(text)
        if path.is_file():
            return path.absolute()
    what = "a folder, not a table" if user_path(name).is_dir() else "not a file"
    raise UserError(
        f"{FAMILY}:{name} is {what}; give the path of a table with a column of image names and one of scores "
        "(a comma in a path is written %2C, a semicolon %3B)"
    )


def _folder(name: str, table: Path) -> Path:
    """Finds the folder of the pictures, from here or from the table's folder."""
    here, there = user_path(name).absolute(), table.parent / user_path(name)
    found = [place for place in dict.fromkeys((here, there)) if place.is_dir()]
    if not found:
        raise UserError(
            f"images={name}: no such folder in the current directory or beside {table}; check the path"
        )
    if len(found) > 1 and found[0].resolve() != found[1].resolve():
        raise UserError(f"images={name} may be {found[0]} or {found[1]}; give the whole path")
    return found[0]


# -- columns -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableColumns:
    """Which column is what.

    Attributes:
        image: Names of the images.
        score: Ratings.
        std: Their standard deviations; None for none, as below.
        group: What images share that must stay in one subset.
        split: Which image is for training, validation, test.
        lower: Whether lower scores are better.
        splits: Number -> column, of a table with several splits (`split1`, `split2`, ...); then `split` is
            None.
    """

    image: str
    score: str
    std: str | None
    group: str | None
    split: str | None
    lower: bool
    splits: Mapping[int, str] = field(default_factory=dict)


def choose_columns(header: Sequence[str], options: TableOptions) -> TableColumns:
    """Finds the columns of a table.

    Raises:
        UserError: If a column is missing, several could be it, or it is unclear which scores are better.
    """
    found = {role: _column(role, header, options) for role in USUAL}
    image, score = found["image"], found["score"]
    assert image is not None and score is not None
    if "dmos" in fold(score) and not options.flags & {LOWER, HIGHER}:
        raise UserError(
            f"{options.path}: it is unclear whether lower or higher is better in the column {score!r}; "
            f"say which: {options.shown(LOWER)} or {options.shown(HIGHER)}"
        )
    std = None if AVERAGE in options.flags else found["std"]
    splits = {} if "split" in options.values else _numbered_splits(header, found["split"], options)
    return TableColumns(image, score, std, found["group"], found["split"], LOWER in options.flags, splits)


def _numbered_splits(header: Sequence[str], plain: str | None, options: TableOptions) -> dict[int, str]:
    """Finds columns of several splits: `split1`, `Split 2`, `set_3`, ..."""
    pattern = f"(?:{'|'.join(USUAL['split'])})([0-9]{{1,4}})"
    found: dict[int, str] = {}
    for name in header:
        if not (said := re.fullmatch(pattern, fold(name))):
            continue
        other = plain or found.get(int(said[1]))
        if other or said[1] == "0":
            why = f"besides {other!r}" if other else "and splits are numbered from 1"
            raise UserError(
                f"{options.path} has a column {name!r} {why}; rename it, or name the one that is meant: "
                f"{options.shown(split=name)}, or {options.shown(split=NONE)} for none"
            )
        found[int(said[1])] = name
    return dict(sorted(found.items()))


def has_columns(header: Sequence[str], options: TableOptions) -> bool:
    """Tells whether a row of cells names an image's column and a score's."""
    return all(_candidates(role, header, options) for role in NEEDED)


def fold(name: str) -> str:
    """Reduces a column's name to what counts in a comparison."""
    return re.sub(r"[\s_]+", "", name).lower()


def _candidates(role: str, header: Sequence[str], options: TableOptions) -> list[str]:
    """Returns the columns that a role may mean; one that the header names twice is listed twice."""
    wanted = options.values.get(role)
    if wanted is None:
        taken = {fold(name) for other, name in options.values.items() if other in USUAL}
        usual = {fold(name) for name in USUAL[role]} - taken
        return [name for name in header if fold(name) in usual]
    return [name for name in header if name == wanted] or [n for n in header if fold(n) == fold(wanted)]


def _column(role: str, header: Sequence[str], options: TableOptions) -> str | None:
    if options.values.get(role) == NONE and role not in NEEDED:
        return None
    found = _candidates(role, header, options)
    table = options.path
    if len({name.lower() for name in found}) < len(found):
        raise UserError(f"{table} has two columns called {found[0]!r}; rename one of them")
    if len(found) > 1:
        left = f", or {options.shown(**{role: NONE})} for none" if role not in NEEDED else ""
        raise UserError(
            f"{table} has several columns that could be the {role}: {', '.join(found)}; name one: "
            f"{options.shown(**{role: found[0]})}{left}"
        )
    if found:
        return found[0]
    if role in options.values:
        raise unknown(f"column of {table}", options.values[role], [name for name in header if name])
    if role in NEEDED:
        there = ", ".join(name for name in header if name)[:200] or "nothing"
        raise UserError(
            f"{table} has no column {' or '.join(USUAL[role])} for the {role}; its header names: {there}; "
            f"name one: {options.shown(**{role: 'COLUMN'})}"
        )
    return None
