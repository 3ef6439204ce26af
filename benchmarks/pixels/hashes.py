"""Hashes of image files, each file read once: a table in the cache folder remembers size, time and hash.

Once a rule of decoding has changed, a second table remembers under which rules each picture falls.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cliqa_bench.benchmarks.pixels.decode import RULES, raised_rules, rules_of
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
    known = _read_table(_table(root))
    if fresh := _fresh(paths, known, _hash, f"read {what}"):
        known |= fresh
        _write_table(root, known)
    return [known[str(path)][2] for path in paths]


def changed_rules(root: Path, paths: Sequence[Path], what: str) -> dict[str, int]:
    """Returns the rules of decoding that some of the files fall under and that have changed since 0.1.0.

    No file is looked at while no rule has changed.

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
    known = _read_rules(table)
    if fresh := _fresh(paths, known, rules_of, f"headers of {what}"):
        known |= fresh
        with contextlib.suppress(UserError):  # as in _write_table
            write_json(table, known)
    used = {rule for path in paths for rule in known[str(path)][2]}
    return {rule: version for rule, version in raised.items() if rule in used}


def _fresh(
    paths: Sequence[Path],
    known: Mapping[str, tuple[int, int, Found]],
    look: Callable[[Path], Found],
    doing: str,
) -> dict[str, tuple[int, int, Found]]:
    """Looks at the files that have changed since they were last looked at, and returns what is found."""
    now = {path: _stat(path) for path in paths}
    stale = [path for path in paths if str(path) not in known or known[str(path)][:2] != now[path]]
    if not stale:
        return {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = track(pool.map(look, stale), len(stale), doing, "image")
        return {str(path): (*now[path], what) for path, what in zip(stale, found, strict=True)}


def _read_rules(path: Path) -> dict[str, tuple[int, int, list[str]]]:
    try:
        return {
            name: (int(size), int(time), [str(rule) for rule in rules])
            for name, (size, time, rules) in read_json(path).items()
        }
    except (UserError, AttributeError, TypeError, ValueError):  # missing or broken: made anew
        return {}


def remember(root: Path, facts: Mapping[Path, Facts]) -> None:
    """Notes the hashes of files that somebody has read anyway.

    Args:
        root: The dataset's folder.
        facts: File -> size, time of the last change and hash.
    """
    known = _read_table(_table(root))
    _write_table(root, known | {str(path): facts[path] for path in facts})


def is_known(root: Path, paths: Sequence[Path]) -> bool:
    """Tells whether all hashes are in the table, whatever has become of the files; reads no image."""
    known = _read_table(_table(root))
    return all(str(path) in known for path in paths)


def _table(root: Path) -> Path:
    return cache_root() / "hashes" / f"{digest(str(root.resolve()))}.json"


def _write_table(root: Path, known: Mapping[str, Facts]) -> None:
    with contextlib.suppress(UserError):  # a folder that cannot be written only costs time
        write_json(_table(root), known)


def _read_table(path: Path) -> dict[str, Facts]:
    try:
        return {name: (int(s), int(t), str(h)) for name, (s, t, h) in read_json(path).items()}
    except (UserError, AttributeError, TypeError, ValueError):  # missing or broken: made anew
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
