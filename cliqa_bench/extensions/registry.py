"""The folder is the registry: one file is one strategy, dataset or backbone, and its name is the file's name.

A library can bring a whole family of names, such as `timm:NAME`: the file `_timm.py` finds the class of each.
Names and descriptions are read from the files without importing them, so that `--help`, `list` and a misspelt
name cost milliseconds.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from cliqa_bench import errors
from cliqa_bench.extensions import user_code
from cliqa_bench.part_names import PartName, read_part
from cliqa_bench.paths import is_file

PluginKind = Literal["strategies", "datasets", "backbones"]


@dataclass(frozen=True)
class _Room:
    """Where the files of a kind are, and the class that each of them extends.

    Attributes:
        noun: One of them, in an error message.
        folder: The sub-package.
        base: The base class, defined in the sub-package's `base.py`.
        shared: Whether helper modules are in the same folder; then only a file with a line
            `class ...(<base>)` counts.
        families: How names are written that a library or a file of the user's defines ("timm:NAME");
            `_<prefix>.py` has a function `find` that returns the class of what follows the colon, or raises a
            UserError. A class with a `source`, that is, the whole word, goes by its own name from then on.
    """

    noun: str
    folder: str
    base: str
    shared: bool
    families: tuple[str, ...] = ()


_ROOMS: dict[PluginKind, _Room] = {
    "strategies": _Room("strategy", "strategies", "Strategy", shared=False, families=("avalanche:NAME",)),
    "datasets": _Room("dataset", "benchmarks", "Dataset", shared=True, families=("csv:FILE",)),
    "backbones": _Room("backbone", "backbones", "Backbone", shared=True, families=("timm:NAME",)),
}
_PACKAGE = Path(__file__).parents[1]


@functools.cache
def _files(kind: PluginKind) -> tuple[Path, ...]:
    """Returns our own files of a kind; they are read once in a process."""
    room = _ROOMS[kind]
    extends_base = re.compile(rf"^class \w+\((?:[^)]*,)?\s*{room.base}\s*[,)]", re.MULTILINE)
    candidates = sorted((_PACKAGE / room.folder).glob("*.py"))
    return tuple(
        path
        for path in candidates
        if path.stem != "base"
        and not path.stem.startswith("_")
        and (not room.shared or extends_base.search(path.read_text(encoding="utf-8")))
    )


def names(kind: PluginKind) -> list[str]:
    """Returns the names of a kind in alphabetical order, without importing any of our own; no families.

    Those of installed packages and of files that were included are among them.
    """
    own = [path.stem for path in _files(kind)]
    sourced = [name for room, name in _sourced if room == kind]
    return sorted({*own, *user_code.installed(kind), *_included(kind), *sourced})


def _included(kind: PluginKind) -> list[str]:
    """Returns the included files that define one of a kind."""
    return [name for name, file in user_code.included().items() if _classes(kind, file.module)]


def kinds_of(name: str) -> list[PluginKind]:
    """Returns what an included file defines: ["strategies"]."""
    return [kind for kind in _ROOMS if name in _included(kind)]


def families(kind: PluginKind) -> list[str]:
    """Returns how the names of a kind's families are written: ["timm:NAME"]."""
    return list(_ROOMS[kind].families)


def _prefixes(kind: PluginKind) -> tuple[str, ...]:
    return tuple(family.partition(":")[0] for family in _ROOMS[kind].families)


def part_of(kind: PluginKind, name: str) -> PartName | None:
    """Reads the name of a part of a dataset; None for any other name.

    Raises:
        UserError: If no part can have that name.
    """
    return read_part(name, _prefixes(kind)) if kind == "datasets" else None


def _family(kind: PluginKind, name: str) -> str | None:
    """Returns the file's name of the family that a name belongs to, if it belongs to one."""
    prefix, colon, _ = name.partition(":")
    prefixes = _prefixes(kind)
    return f"_{prefix}" if colon and prefix in prefixes else None


def in_family(kind: PluginKind, name: str) -> bool:
    """Tells whether a name is one of a kind's families, whether or not it exists."""
    return _family(kind, name) is not None


def _find(kind: PluginKind, family: str, name: str) -> type[Any]:
    module = importlib.import_module(f"cliqa_bench.{_ROOMS[kind].folder}.{family}")
    found: type[Any] = module.find(name.partition(":")[2])
    return found


_sourced: dict[tuple[PluginKind, str], type[Any]] = {}
"""Classes with a `source` that were found, by the names that they go by."""


def _remember(kind: PluginKind, found: type[Any]) -> str:
    """Returns the name that a class with a `source` goes by, in this process and from now on."""
    held = _sourced.setdefault((kind, found.name), found)
    if held.source != found.source:
        raise errors.UserError(
            f"{held.source} and {found.source} are both called {found.name}; add name=OTHER to the options "
            "of one"
        )
    _sourced[kind, found.name] = found
    return str(found.name)


def sources(kind: PluginKind) -> list[str]:
    """Returns the whole words, such as "csv:/data/my.csv", behind names that stand for such."""
    return [found.source for (room, _), found in _sourced.items() if room == kind]


def check(kind: PluginKind, name: str) -> str:
    """Returns the name if it exists; for a name of a family its library is asked, and imported.

    The path of a file is included, and gives its name; so does a word of a family that has a `source`.

    Raises:
        UserError: If it does not; names the nearest match and what exists. If two have one name.
    """
    if part := part_of(kind, name):
        return str(_load_part(part).name)
    family = _family(kind, name)
    if family is None and user_code.is_file_name(name):
        name = user_code.include(name)
        _the_class(kind, user_code.included()[name].module)
    if family:
        found = _find(kind, family, name)
        return _remember(kind, found) if hasattr(found, "source") else name
    if name not in (known := names(kind)):
        listed = [*known, *families(kind)]
        if kind == "datasets":
            raise unknown_dataset(name, _ROOMS[kind].noun, listed)
        raise errors.unknown(_ROOMS[kind].noun, name, listed)
    _check_clash(kind, name)
    return name


def _check_clash(kind: PluginKind, name: str) -> None:
    """Refuses a name that means two things."""
    owners = [f"the built-in {path}" for path in _files(kind) if path.stem == name]
    if name in _included(kind):
        owners.append(f"the file {user_code.included()[name].path}")
    if entry := user_code.installed(kind).get(name):
        owners.append(f"the package {user_code.source(entry)}")
    if len(owners) > 1:
        noun = _ROOMS[kind].noun
        raise errors.UserError(
            f"the {noun} {name!r} is defined twice, in {' and in '.join(owners)}; rename one"
        )


def unknown_dataset(word: str, noun: str, known: Sequence[str]) -> errors.UserError:
    """Builds the error for a dataset that does not exist; for a file, how a table is written."""
    if is_file(word):
        return errors.UserError(
            f'{word} is a file; to use a table of ratings as a dataset, write "csv:{word}"'
        )
    return errors.unknown(noun, word, known)


def importable(kind: PluginKind, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Imports what is not ours among some names, and leaves out what raises.

    Args:
        kind: "strategies", "datasets" or "backbones".
        given: Names and files; those that do not exist are left to `check`.

    Returns:
        The names that do, and a line for each of the others.
    """
    good, broken = [], []
    for name in given:
        try:
            if user_code.is_file_name(name):
                user_code.include(name)
            elif from_package(kind, name):
                load(kind, name)
            good.append(name)
        except user_code.ImportFailed as error:
            broken.append(str(error))
    return good, broken


def load(kind: PluginKind, name: str) -> type[Any]:
    """Imports one file and returns the one public class in it that extends the kind's base class.

    Args:
        kind: "strategies", "datasets" or "backbones".
        name: The file's name without `.py`, a name of a family, of an included file, or of an installed
            package.

    Returns:
        The subclass of `Strategy`, `Dataset` or `Backbone` that the file defines, or the library's.

    Raises:
        UserError: If there is no such file, or it does not define exactly one such class.
    """
    found = _load(kind, name)
    if kind == "datasets":
        found.check_declared()
    return found


def _load_part(part: PartName) -> type[Any]:
    parts = importlib.import_module("cliqa_bench.benchmarks.parts")
    found: type[Any] = parts.part_class(load("datasets", check("datasets", part.base)), part)
    return found


def _load(kind: PluginKind, name: str) -> type[Any]:
    if part := part_of(kind, name):
        return _load_part(part)
    if family := _family(kind, name):
        return _find(kind, family, name)
    if sourced := _sourced.get((kind, name)):
        return sourced
    name = check(kind, name)
    if name in _included(kind):
        return _named(_the_class(kind, user_code.included()[name].module), name)
    if entry := user_code.installed(kind).get(name):
        return _of_entry(kind, entry)
    return _the_class(kind, importlib.import_module(f"cliqa_bench.{_ROOMS[kind].folder}.{name}"))


def _of_entry(kind: PluginKind, entry: EntryPoint) -> type[Any]:
    found = user_code.load_installed(entry)
    if isinstance(found, ModuleType):
        found = _the_class(kind, found)
    base = _base(kind)
    if not (isinstance(found, type) and issubclass(found, base)):
        where = f"{entry.name!r} of {user_code.source(entry)}"
        raise errors.UserError(f"{where} is not a {base.__name__}, but {entry.value}")
    return _named(found, entry.name)


def _named(cls: type[Any], name: str) -> type[Any]:
    """Returns a class under the name that it has here; its own name is unchanged elsewhere."""
    if cls.name == name:
        return cls
    if (cls, name) not in _renamed:
        again: Any = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
        again.name = name  # only now: making it has named it after its module
        _renamed[cls, name] = again
    return _renamed[cls, name]


_renamed: dict[tuple[type[Any], str], type[Any]] = {}


def _base(kind: PluginKind) -> type[Any]:
    room = _ROOMS[kind]
    base: type[Any] = getattr(importlib.import_module(f"cliqa_bench.{room.folder}.base"), room.base)
    return base


def _classes(kind: PluginKind, module: ModuleType) -> list[type[Any]]:
    base = _base(kind)
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        if not value.__name__.startswith("_")
    ]


def _the_class(kind: PluginKind, module: ModuleType) -> type[Any]:
    found = _classes(kind, module)
    if len(found) != 1:
        defined = ", ".join(value.__name__ for value in found) or "none"
        raise errors.UserError(
            f"{module.__file__} must define one {_ROOMS[kind].base}, it defines: {defined}"
        )
    return found[0]


def origin(kind: PluginKind, name: str) -> dict[str, str] | None:
    """Returns what a node's name must say of code that is not ours: its version. None for our own."""
    if part := part_of(kind, name):
        name = part.base
    if name in _included(kind):
        return {"file": user_code.included()[name].digest}
    if ":" not in name and (entry := user_code.installed(kind).get(name)):
        return user_code.entry_origin(entry)
    return None


def is_ours(kind: PluginKind, name: str) -> bool:
    """Tells whether a name stands for a file of this package, and for nothing else; nothing is imported."""
    return origin(kind, name) is None and any(path.stem == name for path in _files(kind))


@functools.cache
def code_digest() -> str:
    """Returns a hash of our own sources but the reports': of all that numbers can depend on, and more."""
    # each folder by itself: in a checkout some are links, which rglob follows at its start only
    folders = [path for path in _PACKAGE.iterdir() if path.is_dir() and path.name != "reports"]
    deep = [path for folder in folders for path in folder.rglob("*.py")]
    files = sorted([*_PACKAGE.glob("*.py"), *deep])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def describe(kind: PluginKind, name: str) -> str:
    """Returns the first line of the docstring of a file, without importing it; "" where it has none.

    A name of a family is described by the family's file, whether or not the name exists; what is not ours
    says where it is from.
    """
    if sourced := _sourced.get((kind, name)):
        return f"the table {sourced.homepage}"
    if not (family := _family(kind, name)):
        name = check(kind, name)
    if not family and (entry := user_code.installed(kind).get(name)):
        return f"of the installed package {user_code.source(entry)}"
    file = file_of(kind, name)
    path = file or _PACKAGE / _ROOMS[kind].folder / f"{family or name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0] + (f" ({file})" if file else "")


def file_of(kind: PluginKind, name: str) -> Path | None:
    """Returns the included file that defines a name; None for what is installed or built in."""
    return user_code.included()[name].path if name in _included(kind) else None


def from_package(kind: PluginKind, name: str) -> bool:
    """Tells whether an installed package offers a name; then looking at it means importing that package."""
    return name in user_code.installed(kind)
