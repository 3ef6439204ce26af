r"""Finds the pictures that the names in a table mean, as people write them: `./a.png`, `SUB\A.PNG`, `a`.

An exact name comes first. What is matched otherwise is counted, and what could be two files is refused.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cliqa_bench.benchmarks.pixels.decode import FORMAT_OF
from cliqa_bench.errors import UserError, join_names
from cliqa_bench.paths import is_file

MOST_FILES = 500_000
"""Most files that a folder may hold; no rated dataset has so many pictures."""

_STEPS = ("", "with another Unicode form", "with another case", "with another suffix")
"""What is overlooked in a name: at first nothing; each step also overlooks what those before it do."""

NameParts = tuple[str, ...]


class _Place(NamedTuple):
    """Where the pictures of a table are.

    Attributes:
        dropped: How many folders in front of every name are left out.
        folder: Their folder, relative to where they were looked for.
    """

    dropped: int
    folder: NameParts


@dataclass
class MatchedNames:
    """How the names of a table were matched.

    Attributes:
        root: The folder of the pictures.
        files: Name in the table -> file, relative to `root`; what is missing or unclear is not there.
        faults: Name -> which files it could be.
        how: How names were matched that are not exactly those of files -> these names.
        notes: Further notes, one line each.
    """

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    how: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        """Returns how many names were matched how, with an example of each; nothing if all are exact."""
        n, several = len(self.files), sum(map(len, self.how.values()))
        kinds = [
            f"{len(names)} {how} ({names[0]} is {self.files[names[0]]})" for how, names in self.how.items()
        ]
        said = [f"{several} of {n} names matched after changes: {'; '.join(kinds)}"] if kinds else []
        return [*said, *self.notes]


def match_names(base: Path, names: Sequence[str]) -> MatchedNames:
    """Finds the files that names in a table mean.

    Args:
        base: The folder of the table, or of the pictures; they may also be in one of the folders below.
        names: As written in the table.

    Raises:
        UserError: If two folders have the pictures, or there are too many files.
    """
    names = list(dict.fromkeys(names))
    if all(is_file(base / name) and _parts(name) == _raw(name) for name in names):
        return MatchedNames(base, {name: name for name in names})
    index = _Index(base)
    votes = index.votes(names)
    place = _best_place(base, votes, len(names))
    matched = MatchedNames(base.joinpath(*place.folder))
    if place.folder:
        matched.notes.append(f"the images are in {matched.root}")
    for name in names:
        index.match(name, place, matched)
    _refuse_borrowed(matched)
    return matched


def _best_place(base: Path, votes: Counter[_Place], n: int) -> _Place:
    """Returns where the names are found: where they are changed least, in the base or in one folder below it.

    A place with half as many as the best counts, too: if some pictures are missing, a folder that has others
    of the same names, thumbnails for instance, must not be taken silently.
    """
    if not votes:
        return _Place(0, ())
    good = [place for place, count in votes.items() if 2 * count >= max(votes.values())]
    least = min(place.dropped for place in good)
    good = sorted(place for place in good if place.dropped == least)
    if good[0].folder and len(good) > 1:
        places = join_names(f"{base.joinpath(*place.folder)} ({votes[place]} of {n})" for place in good)
        raise UserError(f"images are found in {places}; say which folder is meant: images=FOLDER")
    return good[0]


def _refuse_borrowed(matched: MatchedNames) -> None:
    """Turns a loose match into a fault if another name is exactly that of the file."""
    loose = {name for how, names in matched.how.items() if how.startswith("with another") for name in names}
    exact = {file: name for name, file in matched.files.items() if name not in loose}
    for name in sorted(loose):
        if (file := matched.files[name]) in exact:
            matched.faults[name] = f"is missing: {file} has almost this name, but belongs to {exact[file]}"
            del matched.files[name]
    for how, names in list(matched.how.items()):
        matched.how[how] = [name for name in names if name in matched.files]
        if not matched.how[how]:
            del matched.how[how]


def list_files(base: Path) -> Iterator[str]:
    """Yields the files below a folder, sorted, relative to it; not hidden ones, and no linked folders.

    Raises:
        UserError: If there are more than `MOST_FILES`.
    """
    n = 0
    for folder, below, files in os.walk(base):
        below[:] = sorted(name for name in below if not name.startswith("."))
        prefix = Path(folder).relative_to(base).as_posix()
        for name in sorted(files):
            if not name.startswith("."):
                n += 1
                yield name if prefix == "." else f"{prefix}/{name}"
        if n > MOST_FILES:
            raise UserError(
                f"{base} has more than {MOST_FILES} files; name the pictures' folder: images=FOLDER"
            )


class _Index:
    """The files below a folder, found by the last part of their names without case and suffix."""

    def __init__(self, base: Path) -> None:
        self._files: dict[str, list[NameParts]] = {}
        for file in list_files(base):
            parts = tuple(file.split("/"))
            self._files.setdefault(_loose(parts[-1]), []).append(parts)
        self._common: NameParts = ()

    def votes(self, names: Sequence[str]) -> Counter[_Place]:
        """Counts how many of the names each place would give a file."""
        split = [_parts(name) for name in names]
        self._common = _common([parts[:-1] for parts in split])
        found: Counter[_Place] = Counter()
        for parts in split:
            places = set()
            for file in self._files.get(_loose(parts[-1]), ()):
                for dropped in range(len(self._common) + 1):
                    wanted = parts[dropped:]
                    folder = file[: len(file) - len(wanted)]
                    if len(wanted) <= len(file) and _step(file[len(folder) :], wanted) is not None:
                        places.add(_Place(dropped, folder))
            found.update(places)
        return found

    def match(self, name: str, place: _Place, matched: MatchedNames) -> None:
        """Looks for the file of one name, and notes how it was matched."""
        wanted = _parts(name)[place.dropped :]
        found: dict[int, list[NameParts]] = {}
        for file in self._files.get(_loose(wanted[-1]), ()):
            rest = file[len(place.folder) :]
            step = _step(rest, wanted) if file[: len(place.folder)] == place.folder else None
            if step is not None:
                found.setdefault(step, []).append(rest)
        if not found:
            return
        step = min(found)
        files = ["/".join(parts) for parts in found[step]]
        if len(files) > 1:
            matched.faults[name] = f"could be {' or '.join(files)}; write the one that is meant"
            return
        matched.files[name] = files[0]
        how = _STEPS[step]
        if place.dropped:
            how = f"without {'/'.join(self._common[: place.dropped])}/ in front" + (
                f" and {how}" if how else ""
            )
        elif not how and files[0] != name:
            how = "without ./ or with / for \\"
        if how:
            matched.how.setdefault(how, []).append(name)


def _common(folders: Sequence[NameParts]) -> NameParts:
    """Returns the folders that all names begin with."""
    levels = zip(*folders, strict=False)  # as deep as the shortest
    return tuple(level[0] for level in itertools.takewhile(lambda level: len({*level}) == 1, levels))


def _raw(name: str) -> NameParts:
    return tuple(name.split("/"))


def _parts(name: str) -> NameParts:
    r"""Splits a name at / and \; what only says "here", "above" or "on this disk" is left out."""
    plain = posixpath.normpath(re.sub(r"^[A-Za-z]:(?=[\\/])", "", name).replace("\\", "/"))
    return tuple(part for part in plain.split("/") if part not in ("", ".", "..")) or (name,)


def nfc(name: str) -> str:
    """Returns a name in which accents are written in one way, whatever the disk does."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return nfc(nfc(name).casefold())


def _split_suffix(name: str) -> tuple[str, str]:
    """Splits off a picture's suffix; any other dot belongs to the name."""
    stem, dot, tail = name.rpartition(".")
    suffix = f".{tail.lower()}"
    return (stem, suffix) if dot and stem and suffix in FORMAT_OF else (name, "")


def _loose(name: str) -> str:
    return _split_suffix(_folded(name))[0]


def _step(file: NameParts, wanted: NameParts) -> int | None:
    """Returns how much of a name must be ignored to match a file (see `_STEPS`); None if it does not."""
    if file == wanted:
        return 0
    if len(file) != len(wanted):
        return None
    if [*map(nfc, file)] == [*map(nfc, wanted)]:
        return 1
    there, here = [*map(_folded, file)], [*map(_folded, wanted)]
    if there == here:
        return 2
    (stem, suffix), (name, given) = _split_suffix(there[-1]), _split_suffix(here[-1])
    same_kind = not given or FORMAT_OF.get(given) == FORMAT_OF.get(suffix)
    return 3 if there[:-1] == here[:-1] and stem == name and suffix and same_kind else None
