"""Whether a report is still what it would be if it were made again; then a run leaves it as it is.

A report is made from the output folder alone, by our code and by libraries; a user's own code has no part in
it. Finished files never change, so their names, sizes and times of writing tell enough. Run records are
written again by every run: their content counts, without the time at which they were asked for.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cliqa_bench import _version
from cliqa_bench.errors import UserError
from cliqa_bench.results.nodes import KINDS, digest, file_digest, read_json, write_json
from cliqa_bench.results.records import record_files
from cliqa_bench.system.versions import versions
from cliqa_bench.types import Json

FILE = ".report.json"
"""What a report was made from, what its folder then held, and what it says on the terminal."""

_PACKAGE = Path(_version.__file__).resolve().parent
_PACKAGES = ("matplotlib", "pandas", "jinja2")
"""What a report is made with, beside what numbers can depend on."""


def made_from(out: Path, formats: Sequence[str], figures: bool) -> str:
    """Returns a hash of everything that a report depends on.

    Args:
        out: Folder of the results.
        formats: What it is written as.
        figures: Whether it has figures.

    Raises:
        UserError: If a run record is broken.
    """
    facts: Json = [
        [str(out), sorted(formats), figures],
        _code(),
        {**versions(), **{name: importlib.metadata.version(name) for name in _PACKAGES}},
        _records(out),
        [entry for kind in KINDS for entry in _listing(out / kind)],
    ]
    return digest(facts, length=32)


def _code() -> str:
    """Returns a hash of our sources, templates and published values."""
    # each folder by itself: in a checkout some are links, which rglob follows at its start only
    folders = [path for path in _PACKAGE.iterdir() if path.is_dir() and path.name != "data"]
    files = [*_PACKAGE.glob("*.py"), *(path for folder in folders for path in folder.rglob("*"))]
    ours = sorted(path for path in files if path.suffix != ".pyc" and path.is_file())
    return digest([[str(path.relative_to(_PACKAGE)), file_digest(path)] for path in ours], length=32)


def _records(out: Path) -> list[Json]:
    """Returns the run records, with the order in which they were asked for instead of when."""
    found = [(path.name, read_json(path)) for path in record_files(out)]
    asked = [_take_when(body) for _, body in found]
    places = {when: place for place, when in enumerate(sorted(set(asked)))}
    return [[name, places[when], body] for (name, body), when in zip(found, asked, strict=True)]


def _take_when(body: Json) -> str:
    """Takes out of a record when it was asked for; "" where it does not say."""
    facts = body.get("facts") if isinstance(body, dict) else None
    return str(facts.pop("asked", "")) if isinstance(facts, dict) else ""


def _listing(folder: Path) -> Iterator[list[Json]]:
    """Yields name, size and time of writing of every file in a folder and its folders, in their order.

    What is unfinished has a hidden name; what is removed meanwhile is left out.
    """
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                yield from _listing(path)
                continue
            with contextlib.suppress(OSError):
                told = path.stat()
                yield [str(path), told.st_size, told.st_mtime_ns]


def keep(out: Path, made: str, summary: str) -> None:
    """Notes that a report is there.

    Args:
        out: Folder of the results.
        made: What `made_from` returned before it was made.
        summary: What it says on the terminal.
    """
    body: Any = {"made_from": made, "files": list(_listing(out / "report")), "summary": summary}
    write_json(out / "report" / FILE, body, lasting=False)


def kept_summary(out: Path, formats: Sequence[str], figures: bool) -> str | None:
    """Returns what the report of an output folder says on the terminal if it is there and still right.

    Args:
        out: Folder of the results.
        formats: What it is to be written as.
        figures: Whether it is to have figures.
    """
    try:
        kept = read_json(out / "report" / FILE)
        made = made_from(out, formats, figures)
    except UserError:  # making a report says what is wrong
        return None
    whole = isinstance(kept, dict) and isinstance(kept.get("summary"), str)
    if not whole or kept.get("made_from") != made:
        return None
    return str(kept["summary"]) if kept.get("files") == list(_listing(out / "report")) else None
