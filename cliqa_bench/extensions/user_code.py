"""Strategies, datasets and backbones of a user's own: from files anywhere, and from installed packages.

A file is imported as `cliqa_bench_user.<its name>`; it can import modules beside it. Once it, or what it
imports from there, has changed, including it again imports the new version.
Packages offer theirs in the entry-point groups `cliqa_bench.strategies`, `cliqa_bench.datasets` and
`cliqa_bench.backbones`: the entry's name is the name on the command line, its value `module:Class`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cliqa_bench.errors import UserError
from cliqa_bench.extensions.moved import moved_to
from cliqa_bench.paths import user_path

PACKAGE = "cliqa_bench_user"


class Included(NamedTuple):
    """A file of the user's that was imported.

    Attributes:
        path: The file, absolute.
        module: What it became.
        digest: Hash of its source, and of the sources beside it that it imports, as they were imported.
        sources: All these files.
    """

    path: Path
    module: ModuleType
    digest: str
    sources: frozenset[str] = frozenset()


class ImportFailed(UserError):
    """A file or package of the user's that raises when it is imported; names it, the line and the error."""


_files: dict[str, Included] = {}
"""Files that were included, by name."""

_packages: set[str] = set()
"""Installed packages from which something was loaded."""


def is_file_name(name: str) -> bool:
    """Tells whether a name on the command line is that of a Python file."""
    return name.endswith(".py")


def include(path: str | Path) -> str:
    """Imports a file of the user's, again if it has changed since.

    Args:
        path: The file.

    Returns:
        Its name: the file's without `.py`.

    Raises:
        UserError: If there is no such file, or its name will not do or is another file's. If what it imports
            from beside it is found elsewhere first.
        ImportFailed: If it cannot be imported; names the line.
    """
    file = user_path(path).resolve()
    name = file.stem
    if not file.is_file():
        raise UserError(f"no file {file}; give the path of a Python file")
    if not is_file_name(file.name):
        raise UserError(
            f"{file} is not a Python file (.py); a table of ratings needs no Python: "
            f'give "csv:{path}" to --orders, --test-on or data check'
        )
    if not name.isidentifier():
        raise UserError(f"{file}: its name must be one that Python can import, such as my_method.py")
    held = _files.get(name)
    if held and held.path != file:
        raise UserError(f"{file} and {held.path} have the same name; rename one of them")
    texts = _sources(file)
    digest = _digest(texts.values())
    if held is None or held.digest != digest:
        if held:
            _forget(texts)
        _files[name] = Included(file, _import(name, file, texts), digest, frozenset(map(str, texts)))
    return name


def is_users_module(name: str, file: str) -> bool:
    """Tells whether a module is the user's: an included file, one beside it, or one of a package.

    Args:
        name: The module's `__name__`.
        file: Its source.
    """
    top = name.partition(".")[0]
    return top == PACKAGE or top in _packages or any(file in held.sources for held in _files.values())


def included() -> dict[str, Included]:
    """Returns the files that were included, by name."""
    return dict(_files)


def _digest(texts: Iterable[bytes]) -> str:
    hashes = [hashlib.sha256(text).hexdigest() for text in texts]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


# -- files ---------------------------------------------------------------------------------------------------


def _sources(file: Path) -> dict[Path, bytes]:
    """Reads a file and, of the modules beside it, those that it and they import."""
    texts = {file: _read(file)}
    left = [file]
    while left:
        for name in _imported(texts[left.pop()]):
            for path in _beside(file, name):
                if path not in texts:
                    texts[path] = _read(path)
                    left.append(path)
    return {path: texts[path] for path in sorted(texts)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _imported(text: bytes) -> list[str]:
    """Returns the top-level modules that a source imports anywhere; none where it is not Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []  # importing it reports that, and where
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return sorted(names - {"cliqa_bench"})  # ours, if the file is beside a checkout


def _beside(file: Path, name: str) -> list[Path]:
    """Returns the sources of a module or package in the folder of a file."""
    module, folder = file.parent / f"{name}.py", file.parent / name
    if module.is_file() and not (folder / "__init__.py").is_file():
        return [module]
    return sorted(path for path in folder.rglob("*.py") if path.is_file())


def _forget(texts: Iterable[Path]) -> None:
    """Lets the modules of some sources be imported again."""
    files = {str(path) for path in texts}
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in files:
            del sys.modules[name]


def _import(name: str, file: Path, texts: dict[Path, bytes]) -> ModuleType:
    parent = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    parent.__path__ = []
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
        importlib.invalidate_caches()
    _check_helpers(file, texts.values())
    full = f"{PACKAGE}.{name}"
    spec = importlib.util.spec_from_file_location(full, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module  # dataclasses and pickles look for it there
    try:
        # not by its loader: what is hashed must be what is run, and cached bytecode may be older
        exec(compile(texts[file], str(file), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[full]
        line = _line_of(error, file)
        raise ImportFailed(f"{file}{line} cannot be imported: {_said(error)}") from error
    return module


def _check_helpers(file: Path, texts: Iterable[bytes]) -> None:
    """Refuses modules of one name in two places: what is hashed must be what is imported."""
    for name in sorted({name for text in texts for name in _imported(text)}):
        ours = {file.parent / f"{name}.py", file.parent / name / "__init__.py"} & {*_beside(file, name)}
        spec = importlib.util.find_spec(name) if ours else None
        if spec and spec.origin and Path(spec.origin).resolve() not in {path.resolve() for path in ours}:
            raise UserError(f"{file}: import {name} finds {spec.origin}, not {ours.pop()}; rename the latter")


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()) + moved_to(error)


def _line_of(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f" line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    return f" line {lines[-1]}" if lines else ""


# -- installed packages --------------------------------------------------------------------------------------


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
        ImportFailed: If it cannot be imported.
    """
    _packages.update({entry.module.partition(".")[0]} - {"cliqa_bench"})
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise ImportFailed(f"{entry.name!r} of {source(entry)} cannot be imported: {_said(error)}") from error


def entry_origin(entry: EntryPoint) -> dict[str, str]:
    """Returns what identifies the version of an installed package's offer."""
    origin = {"package": source(entry)}
    spec = importlib.util.find_spec(entry.module)
    if spec is not None and spec.origin and Path(spec.origin).is_file():
        origin["file"] = _digest([_read(Path(spec.origin))])
    return origin
