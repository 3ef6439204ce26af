"""The folder is the registry: one file is one strategy, dataset or backbone, and its name is the file's name.

A library can bring a whole family of names, such as `timm:NAME`: the file `_timm.py` finds the class of each.
Names and descriptions are read from the files without importing them, so that `--help`, `list` and a misspelt
name cost milliseconds.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from cliqa_bench import addons, errors

Kind = Literal["strategies", "datasets", "backbones"]
KINDS: tuple[Kind, ...] = ("strategies", "datasets", "backbones")


@dataclass(frozen=True)
class _Room:
    """Where the files of a kind lie, and the class that each of them extends.

    Attributes:
        noun: One of them, in an error message.
        folder: The sub-package.
        base: The base class, defined in the sub-package's `base.py`.
        shared: Whether helper modules lie in the same folder; then only a file with a line
            `class ...(<base>)` counts.
        families: Prefixes of names that a library defines; `_<prefix>.py` has a function `find` that returns
            the class of a name, or raises a UserError.
    """

    noun: str
    folder: str
    base: str
    shared: bool
    families: tuple[str, ...] = ()


_ROOMS: dict[Kind, _Room] = {
    "strategies": _Room("strategy", "strategies", "Strategy", shared=False, families=("avalanche",)),
    "datasets": _Room("dataset", "benchmarks", "Dataset", shared=True),
    "backbones": _Room("backbone", "backbones", "Backbone", shared=True, families=("timm",)),
}
_PACKAGE = Path(__file__).parent


def _files(kind: Kind) -> Iterator[Path]:
    room = _ROOMS[kind]
    extends_base = re.compile(rf"^class \w+\((?:[^)]*,)?\s*{room.base}\s*[,)]", re.MULTILINE)
    for path in sorted((_PACKAGE / room.folder).glob("*.py")):
        if path.stem == "base" or path.stem.startswith("_"):
            continue
        if not room.shared or extends_base.search(path.read_text(encoding="utf-8")):
            yield path


def names(kind: Kind) -> list[str]:
    """Returns the names of a kind in alphabetical order, without importing any of our own; no families.

    Those of installed packages and of files that were included stand among them.
    """
    own = [path.stem for path in _files(kind)]
    return sorted({*own, *addons.installed(kind), *_included(kind)})


def _included(kind: Kind) -> list[str]:
    """Returns the included files that define one of a kind."""
    return [name for name in addons.included() if _classes(kind, addons.module_of(name))]


def families(kind: Kind) -> list[str]:
    """Returns how the names of a kind's families are written: ["timm:NAME"]."""
    return [f"{family}:NAME" for family in _ROOMS[kind].families]


def _family(kind: Kind, name: str) -> str | None:
    """Returns the file's name of the family that a name belongs to, if it belongs to one."""
    family, colon, _ = name.partition(":")
    return f"_{family}" if colon and family in _ROOMS[kind].families else None


def _find(kind: Kind, family: str, name: str) -> type[Any]:
    module = importlib.import_module(f"cliqa_bench.{_ROOMS[kind].folder}.{family}")
    found: type[Any] = module.find(name.partition(":")[2])
    return found


def check(kind: Kind, name: str) -> str:
    """Returns the name if it exists; for a name of a family its library is asked, and imported.

    The path of a file is included, and gives its name.

    Raises:
        UserError: If it does not; names the nearest match and what exists. If two have one name.
    """
    if addons.is_file_name(name):
        name = addons.include(name)
        _the_class(kind, addons.module_of(name))
    if family := _family(kind, name):
        _find(kind, family, name)
    elif name not in (known := names(kind)):
        what = [*known, *families(kind)]
        raise errors.unknown(_ROOMS[kind].noun, name, what)
    else:
        _check_clash(kind, name)
    return name


def _check_clash(kind: Kind, name: str) -> None:
    """Refuses a name that means two things."""
    owners = [f"the built-in {path}" for path in _files(kind) if path.stem == name]
    if name in _included(kind):
        owners.append(f"the file {addons.included()[name]}")
    if entry := addons.installed(kind).get(name):
        owners.append(f"the package {addons.source(entry)}")
    if len(owners) > 1:
        noun = _ROOMS[kind].noun
        raise errors.UserError(f"two of the name {name!r}: {noun} of {' and of '.join(owners)}; rename one")


def load(kind: Kind, name: str) -> type[Any]:
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
    if family := _family(kind, name):
        return _find(kind, family, name)
    name = check(kind, name)
    if name in addons.included():
        return _the_class(kind, addons.module_of(name))
    if entry := addons.installed(kind).get(name):
        return _of_entry(kind, entry)
    return _the_class(kind, importlib.import_module(f"cliqa_bench.{_ROOMS[kind].folder}.{name}"))


def _of_entry(kind: Kind, entry: EntryPoint) -> type[Any]:
    found = addons.load_installed(entry)
    cls: Any = found if isinstance(found, type) else _the_class(kind, found)
    if not issubclass(cls, _base(kind)):
        noun = _ROOMS[kind].base
        raise errors.UserError(f"{entry.name!r} of {addons.source(entry)} is no {noun}: {entry.value}")
    cls.name = entry.name
    made: type[Any] = cls
    return made


def _base(kind: Kind) -> type[Any]:
    room = _ROOMS[kind]
    base: type[Any] = getattr(importlib.import_module(f"cliqa_bench.{room.folder}.base"), room.base)
    return base


def _classes(kind: Kind, module: ModuleType) -> list[type[Any]]:
    base = _base(kind)
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        if not value.__name__.startswith("_")
    ]


def _the_class(kind: Kind, module: ModuleType) -> type[Any]:
    found = _classes(kind, module)
    if len(found) != 1:
        defined = ", ".join(value.__name__ for value in found) or "none"
        raise errors.UserError(
            f"{module.__file__} must define one {_ROOMS[kind].base}, it defines: {defined}"
        )
    return found[0]


def origin(kind: Kind, name: str) -> dict[str, str] | None:
    """Returns what a node's name must say of code that is not ours: its version. None for our own."""
    if name in addons.included():
        return addons.file_origin(addons.included()[name])
    if ":" not in name and (entry := addons.installed(kind).get(name)):
        return addons.entry_origin(entry)
    return None


def describe(kind: Kind, name: str) -> str:
    """Returns the first line of the docstring of a file, without importing it; "" where it has none.

    A name of a family is described by the family's file, whether or not the name exists; what is not ours
    says where it is from.
    """
    name = name if _family(kind, name) else check(kind, name)
    if entry := addons.installed(kind).get(name):
        return f"of the installed package {addons.source(entry)}"
    file = addons.included().get(name)
    path = file or _PACKAGE / _ROOMS[kind].folder / f"{_family(kind, name) or name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0] + (f" ({file})" if file else "")
