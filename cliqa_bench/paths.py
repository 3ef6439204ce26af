"""Paths that users give, and where things that can be made again are kept."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cliqa_bench.errors import UserError


def user_path(name: str | os.PathLike[str]) -> Path:
    """Returns the path of a file or folder that need not be there, "~" resolved.

    Raises:
        UserError: If no file can have that name: it is too long, holds a null, or begins with "~" and the
            name of no user.
    """
    try:
        path = Path(name).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
    except (RuntimeError, ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"no file or folder can be called {name!s:.100}: {why}; give another path") from error
    return path


def is_file(name: str | os.PathLike[str]) -> bool:
    """Tells whether there is such a file; unlike a Path, no for a name that no file can have."""
    return os.path.isfile(name)  # noqa: PTH113


def cache_root() -> Path:
    """Returns `$CLIQA_CACHE`, or `~/.cache/cliqa_bench` where that is not set; nothing is created.

    Decoded images, generated data and downloaded weights are kept there.

    Raises:
        UserError: If no folder can have that name.
    """
    named = os.environ.get("CLIQA_CACHE")
    return user_path(named) if named else Path.home() / ".cache" / "cliqa_bench"
