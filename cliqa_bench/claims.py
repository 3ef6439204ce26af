"""Who works on what: several runs on one output folder share the work instead of doing it twice.

A claim is a lock on a file that the system takes away with the process that holds it, so a dead owner's
claim is free at once, however it died. Where a disk knows no such locks nothing is claimed: two runs may then
do the same work, the first to finish wins, and only time is lost.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cliqa_bench.errors import UserError

CLAIMS = "claims"
"""Sub-folder of an output folder; empty, or gone, when nobody works on it."""


class Taken(Exception):
    """Another process, alive, is at it."""


@contextlib.contextmanager
def claim(out: Path, what: str, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Holds a piece of work while the block runs.

    Args:
        out: The output folder.
        what: Name of the work, a file name.
        wait: Called once before waiting for whoever holds it; None not to wait.

    Raises:
        Taken: If it is held and nobody is to wait.
        UserError: If the folder cannot be written.
    """
    path = out / CLAIMS / f"{what}.lock"
    handle = _lock(path, wait)
    try:
        yield
    finally:
        if handle is not None:
            # first the name, then the lock: who waits for it sees that the name has gone, and takes a new one
            path.unlink(missing_ok=True)
            os.close(handle)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _lock(path: Path, wait: Callable[[], object] | None) -> int | None:
    """Returns the open, locked file; None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    said = False
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                os.close(handle)
                raise Taken(path.stem) from None
            if not said:
                wait()
                said = True
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # some network disks
            os.close(handle)
            return None
        if _is_current(handle, path):
            return handle
        os.close(handle)


def _open(path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | FileExistsError) and not path.parent.is_file()
            if gone:  # somebody else took the empty folder away, or has made it again
                continue
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _is_current(handle: int, path: Path) -> bool:
    """Tells whether the locked file still has its name; its last owner may have taken that away."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
