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
from pathlib import Path
from typing import Any, Literal

from cliqa_bench import errors

Kind = Literal["strategies", "datasets", "backbones"]


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
    """Returns the names of a kind in alphabetical order, without importing any of them; no families."""
    return [path.stem for path in _files(kind)]


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

    Raises:
        UserError: If it does not; names the nearest match and what exists.
    """
    known = names(kind)
    if family := _family(kind, name):
        _find(kind, family, name)
    elif name not in known:
        raise errors.unknown(_ROOMS[kind].noun, name, [*known, *families(kind)])
    return name


def load(kind: Kind, name: str) -> type[Any]:
    """Imports one file and returns the one public class in it that extends the kind's base class.

    Args:
        kind: "strategies", "datasets" or "backbones".
        name: The file's name without `.py`, or a name of a family.

    Returns:
        The subclass of `Strategy`, `Dataset` or `Backbone` that the file defines, or the library's.

    Raises:
        UserError: If there is no such file, or it does not define exactly one such class.
    """
    room = _ROOMS[kind]
    if family := _family(kind, name):
        return _find(kind, family, name)
    package = f"cliqa_bench.{room.folder}"
    module = importlib.import_module(f"{package}.{check(kind, name)}")
    base = getattr(importlib.import_module(f"{package}.base"), room.base)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        if not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        defined = ", ".join(value.__name__ for value in found) or "none"
        raise errors.UserError(f"{module.__file__} must define one {room.base}, it defines: {defined}")
    return found[0]


def describe(kind: Kind, name: str) -> str:
    """Returns the first line of the docstring of a file, without importing it; "" where it has none.

    A name of a family is described by the family's file, whether or not the name exists.
    """
    path = _PACKAGE / _ROOMS[kind].folder / f"{_family(kind, name) or check(kind, name)}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
