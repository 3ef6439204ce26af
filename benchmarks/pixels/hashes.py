"""Hashes of image files, each file read once: a table in the cache folder remembers size, time and hash.

A second table remembers which rules of decoding each picture falls under, once a rule has changed; a third
which pictures have a colour profile, once `--srgb` asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cliqa_bench.benchmarks.pixels.decode import RULES, is_converted, raised_rules, rules_of
from cliqa_bench.errors import UserError
from cliqa_bench.paths import cache_root
from cliqa_bench.progress import track
from cliqa_bench.results.nodes import digest, read_json, write_json

Found = TypeVar("Found")
Facts = tuple[int, int, str]
"""Size, time of the last change in nanoseconds, and BLAKE2b (16 bytes, hex) of a file."""


def content_hashes(root: Path, paths: Sequence[Path], what: str) -> list[str]:
    """Returns a hash of the content of each file.

    Args:
        root: The dataset's folder; names the table.
        paths: The files.
        what: What they are, for the progress bar.

    Raises:
        UserError: If a file cannot be read.
    """
    known = _up_to_date(_table(root), paths, str, _hash, f"read {what}")
    return [known[str(path)][2] for path in paths]


def changed_rules(root: Path, paths: Sequence[Path], what: str) -> dict[str, int]:
    """Returns the rules of decoding that some of the files fall under and that have changed since 0.1.0.

    No file is read while no rule has changed.

    Args:
        root: The dataset's folder; names the table.
        paths: The files.
        what: What they are, for the progress bar.

    Raises:
        UserError: If a file cannot be read.
    """
    raised = raised_rules()
    if not raised:
        return {}
    table = cache_root() / "rules" / f"{digest([str(root.resolve()), sorted(RULES)])}.json"
    known = _up_to_date(table, paths, _names, rules_of, f"headers of {what}")
    used = {rule for path in paths for rule in known[str(path)][2]}
    return {rule: version for rule, version in raised.items() if rule in used}


def any_converted(root: Path, paths: Sequence[Path], what: str) -> bool:
    """Tells whether any of the files has a colour profile that a reading as sRGB applies.

    Args:
        root: The dataset's folder; names the table.
        paths: The files.
        what: What they are, for the progress bar.

    Raises:
        UserError: If a file cannot be read.
    """
    known = _up_to_date(_table(root, "profiles"), paths, bool, is_converted, f"profiles of {what}")
    return any(known[str(path)][2] for path in paths)


def _up_to_date(
    table: Path,
    paths: Sequence[Path],
    parse: Callable[[Any], Found],
    look: Callable[[Path], Found],
    doing: str,
) -> dict[str, tuple[int, int, Found]]:
    """Reads the files that have changed since the last time, and returns the updated table."""
    known = _read_table(table, parse)
    now = {path: _stat(path) for path in paths}
    stale = [path for path in paths if str(path) not in known or known[str(path)][:2] != now[path]]
    if stale:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = track(pool.map(look, stale), len(stale), doing, "image")
            known |= {str(path): (*now[path], what) for path, what in zip(stale, found, strict=True)}
        _write_table(table, known)
    return known


def _names(value: Iterable[object]) -> list[str]:
    return [str(name) for name in value]


def remember(root: Path, facts: Mapping[Path, Facts]) -> None:
    """Notes the hashes of files that were read for another purpose.

    Args:
        root: The dataset's folder.
        facts: File -> size, time of the last change and hash.
    """
    known = _read_table(_table(root), str)
    _write_table(_table(root), known | {str(path): facts[path] for path in facts})


def is_known(root: Path, paths: Sequence[Path]) -> bool:
    """Tells whether all hashes are in the table, whether or not the files have changed; reads no image."""
    known = _read_table(_table(root), str)
    return all(str(path) in known for path in paths)


def _table(root: Path, of: str = "hashes") -> Path:
    return cache_root() / of / f"{digest(str(root.resolve()))}.json"


def _write_table(table: Path, known: Mapping[str, tuple[int, int, Any]]) -> None:
    with contextlib.suppress(UserError):  # a folder that cannot be written only costs time
        write_json(table, known)


def _read_table(table: Path, parse: Callable[[Any], Found]) -> dict[str, tuple[int, int, Found]]:
    try:
        return {name: (int(s), int(t), parse(f)) for name, (s, t, f) in read_json(table).items()}
    except (UserError, AttributeError, TypeError, ValueError):  # missing or broken: made again
        return {}


def _stat(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from error
    return facts.st_size, facts.st_mtime_ns


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from error
