"""Makes Avalanche safe to import: in several processes at once, and without a home folder to write to."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cliqa_bench.errors import UserError


@contextmanager
def importing_avalanche() -> Iterator[None]:
    """Surrounds every import of Avalanche.

    On its first import, Avalanche 0.6.0 creates `~/.avalanche/config.json` in two steps: a process that
    imports it meanwhile reads an empty file and fails with a `JSONDecodeError`. So the file is created here
    first, in one step. Warnings of optional solvers, which nothing here needs, are silenced.

    Raises:
        UserError: If the home folder cannot be written: Avalanche cannot be imported then.
    """
    _create_settings(Path("~/.avalanche").expanduser())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _create_settings(folder: Path) -> None:
    """Creates Avalanche's settings file, if it is missing or empty (as a process killed there leaves it)."""
    path = folder / "config.json"
    with suppress(OSError):
        if path.stat().st_size:
            return
    import json

    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".json", ".config-", folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"dataset_location": str(folder / "data")}, file, indent=4)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path} ({reason}), and Avalanche does not start without this file; set HOME to a "
            "folder that you may write to"
        ) from error
