"""Locks between processes, also of different runs: of a file, and free at once when their owner dies.

They are `flock`s. Where a system or network disk has none, everybody gets every lock: as all files appear
whole and a finished one is not replaced, work may then be done twice, and nothing is lost but time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cliqa_bench.disk import writing
from cliqa_bench.errors import UserError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class _Lock(NamedTuple):
    """An open file, and whether it is really locked."""

    file: IO[str]
    real: bool


def _take(path: Path, wait: bool) -> _Lock | None:
    """Opens and locks a file; None where somebody else has the lock and we do not wait.

    Raises:
        UserError: If the file cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None  # type: ignore[assignment]
    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("a+", encoding="utf-8")
            except FileNotFoundError:  # who left last removed the folder just now
                continue
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            real = fcntl is not None
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            real = False
        except BaseException:
            file.close()
            raise
        if _is_there(file, path):
            return _Lock(file, real)
        file.close()  # its last owner removed it while we waited


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _owned(path: Path, file: IO[str]) -> Iterator[None]:
    """Puts our name into a locked file; removes it in the end, so that no lock is left lying about."""
    with file:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Takes a lock if it is free; gives whether it was.

    Args:
        path: The lock's file, made here and removed in the end.

    Raises:
        UserError: If the file cannot be made.
    """
    lock = _take(path, wait=False)
    if lock is None:
        yield False
        return
    with _owned(path, lock.file):
        yield True


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[bool]:
    """Takes a lock, and waits for it if need be; gives whether this system has locks at all.

    Args:
        path: The lock's file, made here and removed in the end.
        what: What its owner does, for the line that says that we wait: "that writes runs/report".

    Raises:
        UserError: If the file cannot be made.
    """
    lock = _take(path, wait=False)
    if lock is None:
        print(f"waiting for {owner(path)} {what}", file=sys.stderr, flush=True)
        lock = _take(path, wait=True)
    assert lock is not None
    with _owned(path, lock.file):
        yield lock.real


def owner(path: Path) -> str:
    """Returns who has a lock, in words."""
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"


def sweep_lock(path: Path) -> None:
    """Removes a lock's file if its owner is dead; where that is not allowed, it stays."""
    if path.exists():
        with contextlib.suppress(UserError), claimed(path):
            pass


def sweep_locks(folder: Path) -> None:
    """Removes the files of locks whose owners are dead, and the folder if none is left."""
    for path in folder.glob("*.lock"):
        sweep_lock(path)
    with contextlib.suppress(OSError):
        folder.rmdir()
