"""Writing so that no kill, full disk or power failure leaves something incomplete under a final name."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cliqa_bench.errors import UserError

DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
)  # fmt: skip
"""What a disk says that is full, past its quota, read-only, forbidden, broken or gone."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# -- errors --------------------------------------------------------------------------------------------------


def as_os_error(error: Exception) -> OSError | None:
    """Returns the system's error, if an exception is about one; else None.

    safetensors has exceptions of its own: `SafetensorError: ... (os error 28)`, in 0.4 `Os { code: 28`.
    """
    if isinstance(error, OSError):
        return error
    found = re.search(r"(?:\(os error |\bOs \{ code: )(\d+)", str(error))
    if type(error).__name__ == "SafetensorError" and found:
        return OSError(int(found[1]), os.strerror(int(found[1])))
    return None


@contextlib.contextmanager
def writing(path: Path, partial: Path | None = None, only: tuple[int, ...] = ()) -> Iterator[None]:
    """Reports in one line that a path cannot be written, and why.

    Args:
        path: The file or folder that is to be there at the end.
        partial: What is written of it so far, file or folder.
        only: Which `errno` count; all by default.

    Raises:
        UserError: In place of an `OSError`; of a full disk it says how much is free and was needed.
    """
    try:
        yield
    except Exception as error:
        system = as_os_error(error)
        if system is None or (only and system.errno not in only):
            raise
        raise cannot_write(path, system, partial) from error


def cannot_write(path: Path, error: OSError, partial: Path | None = None) -> UserError:
    """Returns the line that says that a path cannot be written; see `writing`."""
    text = f"cannot write {path}: {error.strerror or error}"
    if error.errno in _FULL:
        needed = f"it needs more than {_megabytes(size_of(partial))} MB, " if partial else ""
        text += f" ({needed}{_megabytes(_free(path))} MB are free); make room and run again"
    return UserError(text)


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f}"


def size_of(path: Path) -> int:
    """Returns the bytes in a file or folder; 0 of one that is not there."""
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def _free(path: Path) -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(next(p for p in path.absolute().parents if p.is_dir())).free
    return 0


# -- temporary names -----------------------------------------------------------------------------------------


@functools.cache
def _place() -> str:
    """Names what process numbers are valid in: this machine, or a container that has its name."""
    try:
        return f"{platform.node()}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return platform.node()


def temporary_prefix(name: str) -> str:
    """Returns how a temporary name starts: hidden, and naming the process that may still be writing it."""
    return f".{name}~{_place()}~{os.getpid()}~"


def is_orphan(path: Path, alone: bool = False) -> bool:
    """Tells whether a temporary file or folder belongs to a process that is gone.

    Args:
        path: The file or folder.
        alone: Whether no other machine writes there; otherwise those of other machines are left to them.
    """
    parts = path.name.rsplit("~", 3)
    if len(parts) != 4 or not parts[2].isdigit():
        return False
    if parts[1] != _place():
        return alone
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # alive, and another user's
        return False
    return False


def sweep(folder: Path) -> None:
    """Removes what killed processes left in a folder under temporary names; what living ones write stays."""
    for leftover in folder.glob(".*~*~*~*"):
        if not is_orphan(leftover):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


# -- power ---------------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, if the system can tell.

    Renaming is one step for other processes, but after a loss of power the new name may stand for a file
    whose content never left the memory.

    Raises:
        OSError: If the disk turns out to be full or broken.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Does as `sync` does, for a folder and everything in it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
