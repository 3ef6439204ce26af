"""Strategies, datasets and backbones of a user's own: from files anywhere, and from installed packages.

A file is imported as `cliqa_bench_user.<its name>`, once a process; it can import what lies beside it.
Packages offer theirs in the entry-point groups `cliqa_bench.strategies`, `cliqa_bench.datasets` and
`cliqa_bench.backbones`: the entry's name is the name on the command line, its value `module:Class`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from cliqa_bench.errors import UserError

PACKAGE = "cliqa_bench_user"

_files: dict[str, Path] = {}
"""Files that were included: name -> absolute path."""


def is_file_name(name: str) -> bool:
    """Tells whether a name on the command line is that of a Python file."""
    return name.endswith(".py")


def include(path: str | Path) -> str:
    """Imports a file of the user's.

    Args:
        path: The file.

    Returns:
        Its name: the file's without `.py`.

    Raises:
        UserError: If there is no such file, its name will not do or is another file's, or it cannot be
            imported: names the line.
    """
    file = Path(path).expanduser().resolve()
    name = file.stem
    if not file.is_file():
        raise UserError(f"no file {file}; give the path of a Python file")
    if not name.isidentifier():
        raise UserError(f"{file}: its name is used as a name; call it like my_method.py")
    if _files.get(name, file) != file:
        raise UserError(f"{file} and {_files[name]} have one name; rename one of them")
    if name not in _files:
        _import(name, file)
        _files[name] = file
    return name


def _import(name: str, file: Path) -> None:
    parent = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    parent.__path__ = []
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    full = f"{PACKAGE}.{name}"
    spec = importlib.util.spec_from_file_location(full, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module  # dataclasses and pickles look for it there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[full]
        line = _line_of(error, file)
        raise UserError(f"{file}{line} cannot be imported: {type(error).__name__}: {error}") from error


def _line_of(error: Exception, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f" line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    return f" line {lines[-1]}" if lines else ""


def included() -> dict[str, Path]:
    """Returns the files that were included: name -> absolute path."""
    return dict(_files)


def module_of(name: str) -> ModuleType:
    """Returns the module of an included file."""
    return sys.modules[f"{PACKAGE}.{name}"]


@functools.cache
def installed(kind: str) -> dict[str, EntryPoint]:
    """Returns what installed packages offer of a kind ("strategies", ...), by name; imports nothing.

    Raises:
        UserError: If two packages offer one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"cliqa_bench.{kind}"):
        if entry.name in found:
            both = f"{source(found[entry.name])} and {source(entry)}"
            raise UserError(f"{both} both offer {entry.name!r} in cliqa_bench.{kind}; uninstall one of them")
        found[entry.name] = entry
    return found


def source(entry: EntryPoint) -> str:
    """Returns the package and version that an entry point is from."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def load_installed(entry: EntryPoint) -> Any:
    """Imports what an entry point names: a module or a class.

    Raises:
        UserError: If it cannot be imported.
    """
    try:
        return entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{entry.name!r} of {source(entry)} cannot be imported: {reason}") from error


def file_origin(file: Path) -> dict[str, str]:
    """Returns what tells one version of a file from another."""
    return {"file": hashlib.sha256(file.read_bytes()).hexdigest()[:16]}


def entry_origin(entry: EntryPoint) -> dict[str, str]:
    """Returns what tells one version of an installed package's offer from another."""
    origin = {"package": source(entry)}
    spec = importlib.util.find_spec(entry.module)
    if spec is not None and spec.origin and Path(spec.origin).is_file():
        origin |= file_origin(Path(spec.origin))
    return origin
