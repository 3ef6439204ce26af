"""Locks between processes, also of different runs: of a file, and free soon after their owner dies.

They are `flock`s, which the system frees at once. A disk that has none, or whose `flock`s other machines do
not see (`mounts`), gets leases (`_Lease`): the file is created exclusively, and its owner changes its content
every `BEAT` seconds. A waiting process takes the lease over once the content has not changed for `LEASE`
seconds of its own monotonic clock: no clock of another machine, and no time of a file, is looked at. An owner
that is gone from this machine is recognised at once. `CLIQA_LEASES=1` asks for leases everywhere: on the
machine whose own disk the others see over SSH.

Where some machines use `flock`s and others leases, the former respect a lease that is renewed; the latter
cannot see a `flock`.

A lease can be lost: its owner slept too long, or two who waited took it over in the same instant. Then work
is done twice, and nothing is lost but time: all files appear whole, a finished one is not replaced, and
a lock is removed by its owner only.

Why not `filelock`, which comes with PyTorch: its `SoftFileLock` is exclusive creation without a lease, so
that the lock of an owner that died on another machine stays for ever; its `SoftFileLease` has what is needed,
but is in its newest releases only.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import multiprocessing
import os
import platform
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from cliqa_bench.errors import UserError
from cliqa_bench.progress import say
from cliqa_bench.system.disk import sweep, temporary_prefix, writing
from cliqa_bench.system.mounts import has_local_locks
from cliqa_bench.system.signals import block_signals

BEAT = 5.0
"""Seconds after which the owner of a lease renews it."""

LEASE = 60.0
"""Seconds without renewal after which a lease is taken over."""

POLL = 1.0
"""Seconds after which who waits for a lease looks again."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class _Lock(Protocol):
    """What is held between taking and releasing."""

    def release(self) -> None:
        """Frees the lock and removes its file, so that none is left behind."""


def _name() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _since() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _open(path: Path, flags: int) -> int:
    """Opens a lock's file; the last to leave may be removing the folder just now.

    Raises:
        UserError: If the file cannot be made.
    """
    with writing(path):
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags, 0o666)


# -- flocks --------------------------------------------------------------------------------------------------


class _Flock:
    """A file with a `flock`."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.file = path, file
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            file.truncate(0)
            file.write(f"{_name()}\n{_since()}\n")
            file.flush()

    def release(self) -> None:
        """See `_Lock`."""
        with self.file, contextlib.suppress(OSError):
            self.path.unlink()


def _take_flock(path: Path, wait: bool) -> _Flock | None:
    import fcntl

    while True:
        file = os.fdopen(_open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+", encoding="utf-8")
        try:
            with writing(path, only=_NO_LOCKS):
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_there(file, path):
                return _Flock(path, file)
            file.close()  # its last owner removed it while we waited
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@functools.cache
def _has_flock(folder: Path) -> bool:
    """Tells whether a folder's disk has `flock` that all see; tries it on a file without a name."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    if _asked_for_leases():
        return False
    with writing(folder):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError), _nameless(folder) as file:
                if has_local_locks(folder):
                    return False
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    return False
                return True


def _asked_for_leases() -> bool:
    """Returns whether the environment's CLIQA_LEASES asks for leases on every disk.

    Raises:
        UserError: If it is neither 0 nor 1.
    """
    text = os.environ.get("CLIQA_LEASES", "0")
    if text not in ("0", "1"):
        raise UserError(f"the environment's CLIQA_LEASES must be 0 or 1, not {text!r}")
    return text == "1"


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(prefix=temporary_prefix("flock"), dir=folder)


# -- leases --------------------------------------------------------------------------------------------------

_watched: dict[Path, tuple[str, float]] = {}
"""Lease -> its content, and since when we have seen it unchanged."""


@functools.cache
def _place() -> str:
    """Names what process numbers are valid in: this boot of this machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "?"


def _birth(pid: int) -> str:
    """Returns when a process started, in the system's own unit; "" if it is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


class _Lease:
    """A file that was created exclusively and is renewed by a thread; see the module.

    It is renewed through the open file. If it was taken over, that file has no name any more: an owner
    that wakes up late renews nothing of another's.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path, self.file = path, file
        self.mark = f"{_place()} {os.getpid()} {_birth(os.getpid())} {secrets.token_hex(8)}"
        self.beats, self.over, self.since = 0, threading.Event(), _since()
        self.renew()
        self.thread = threading.Thread(target=self._keep, daemon=True)
        with block_signals():  # a stop here would leave the lock of all threads taken
            self.thread.start()

    def renew(self) -> None:
        """Changes the content, which has the same length each time."""
        self.beats += 1
        with contextlib.suppress(OSError):
            text = f"{_name()}\n{self.mark} {self.beats:012d}\n{self.since}\n"
            os.pwrite(self.file, text.encode(), 0)
            os.fsync(self.file)

    def _keep(self) -> None:
        while not self.over.wait(BEAT):
            self.renew()

    def release(self) -> None:
        """See `_Lock`."""
        self.over.set()
        self.thread.join()
        os.close(self.file)
        if self.mark in _content(self.path):
            with contextlib.suppress(OSError):
                self.path.unlink()


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_lease(content: str) -> bool:
    """Tells the content of a lease from what an owner of a `flock` writes."""
    return re.search(r"\n\S+ \d+ \d* [0-9a-f]+ \d{12}\n", content) is not None


def _is_leased(path: Path) -> bool:
    """Tells whether a machine that uses leases has a lock."""
    content = _content(path)
    return _is_lease(content) and not _is_over(path, content)


def _take_lease(path: Path) -> _Lease | None:
    while True:
        try:
            lease = _Lease(path, _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        except UserError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
        else:
            _watched.pop(path, None)
            return lease
        content = _content(path)
        if not _is_over(path, content) or not _clear(path, content):
            return None


def _is_over(path: Path, content: str) -> bool:
    """Tells whether the owner of a lease is gone, or has not renewed it for too long."""
    before, since = _watched.get(path, (None, 0.0))
    if content != before:
        since = time.monotonic()
        _watched[path] = content, since
    return time.monotonic() - since >= LEASE or _is_dead(content)


def _is_dead(content: str) -> bool:
    """Tells whether the owner of a lease was a process of this machine that is gone."""
    try:
        place, pid, birth, *_ = content.splitlines()[1].split()
        return place == _place() != "?" and birth != _birth(int(pid))
    except (IndexError, ValueError):  # being written just now, or another program's
        return False


def _clear(path: Path, stale: str) -> bool:
    """Removes the file of a lease that is over; returns whether it may be created again.

    Of several who do it, one gets the file that it saw; the others find another one, and give it back.
    """
    away = path.with_name(f"{temporary_prefix(path.name)}{secrets.token_hex(4)}")
    try:
        if _content(path) != stale:
            return False
        path.rename(away)
        if _content(away) != stale:
            away.rename(path)
            return False
        away.unlink()
    except FileNotFoundError:  # another process was faster
        pass
    except OSError:
        return False
    return True


_said: list[Path] = []
"""The folder of which `say_if_leased` has spoken."""


def say_if_leased(folder: Path) -> None:
    """Says once a run that no `flock`s are used in a folder, why, and what is done about it.

    Args:
        folder: Where the locks of the run are; made if it is missing.

    Raises:
        UserError: If the folder cannot be made.
    """
    if _has_flock(folder) or _said or multiprocessing.parent_process() is not None:
        return
    _said.append(folder)
    line = f"{folder}: {_no_flock(folder)}; runs share the work through lease files;"
    say(f"{line} the lease of a run that died on another machine is taken over after {LEASE:g} s")


def _no_flock(folder: Path) -> str:
    if _asked_for_leases():
        return "CLIQA_LEASES=1"
    if has_local_locks(folder):
        return "locks (flock) on this disk are not seen by other machines"
    return "this disk does not support locks (flock)"


# -- either --------------------------------------------------------------------------------------------------


def _take(path: Path) -> _Lock | None:
    """Takes a lock; None if another process has it.

    Raises:
        UserError: If the file cannot be made.
    """
    if _has_flock(path.parent):
        return None if _is_leased(path) else _take_flock(path, wait=False)
    say_if_leased(path.parent)
    return _take_lease(path)


def _await(path: Path) -> _Lock:
    """Takes a lock, and waits for it."""
    while True:
        if not _has_flock(path.parent):
            lock: _Lock | None = _take_lease(path)
        else:
            lock = None if _is_leased(path) else _take_flock(path, wait=True)
        if lock is not None:
            return lock
        time.sleep(min(POLL, LEASE / 2))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Takes a lock if it is free; gives whether it was.

    Args:
        path: The lock's file, made here and removed at the end.

    Raises:
        UserError: If the file cannot be made.
    """
    lock = _take(path)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[bool]:
    """Takes a lock, and waits for it if need be; gives whether it cannot be lost (a `flock`, no lease).

    Args:
        path: The lock's file, made here and removed at the end.
        what: What its owner does, for the line that says that we wait: "that writes runs/report".

    Raises:
        UserError: If the file cannot be made, or the owner waits for this process to start.
    """
    lock = _take(path)
    if lock is None:
        _check_main_is_guarded()
        say(f"waiting for {owner(path)} {what}")
        lock = _await(path)
    try:
        yield isinstance(lock, _Flock)
    finally:
        lock.release()


def _check_main_is_guarded() -> None:
    """Ends a child process that runs the script of its parent once more: each would wait for the other.

    Raises:
        UserError: If this process is still being started, by multiprocessing's "spawn".
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "this script starts processes, and each of them runs the script again; put what it does under "
            "if __name__ == '__main__':"
        )


def owner(path: Path) -> str:
    """Returns who has a lock, in words."""
    return next(iter(_content(path).splitlines()), "").strip() or "another process"


def held_since(path: Path) -> str:
    """Returns when a lock was taken, by its owner's clock, as ISO 8601 in UTC; "" if it does not say."""
    last = next(iter(_content(path).splitlines()[-1:]), "").strip()
    return last if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", last) else ""


def is_held(path: Path) -> bool:
    """Tells whether a living process has a lock; the file stays as it is.

    A lease of another machine counts as held until it has been watched for `LEASE` seconds; so does a lock
    that may not be looked at.

    Raises:
        UserError: If the environment's CLIQA_LEASES is neither 0 nor 1.
    """
    if not path.is_file():
        return False
    _asked_for_leases()  # a wrong value must not look like a disk that may not be written to
    with contextlib.suppress(UserError):
        if _has_flock(path.parent):
            return _is_flocked(path) or _is_leased(path)
        return not os.access(path, os.R_OK) or not _is_over(path, _content(path))
    return True


def is_unknown(path: Path) -> bool:
    """Tells whether a lock is a `flock` where this machine uses leases, so that its owner may live."""
    content = _content(path)
    return content != "" and not _is_lease(content) and not _has_flock(path.parent)


def watch_leases(paths: Iterable[Path]) -> None:
    """Waits until it is known of locks whether their owners live; at most `LEASE` seconds.

    Of a `flock` it is known at once; a lease of another machine is renewed soon, or counts as over.

    Args:
        paths: Files of locks.

    Raises:
        UserError: If the environment's CLIQA_LEASES is neither 0 nor 1.
    """
    seen = {path: content for path in paths if _is_lease(content := _content(path))}

    def undecided() -> list[Path]:
        return [path for path, content in seen.items() if _content(path) == content and is_held(path)]

    if first := next(iter(undecided()), None):
        say(f"watching for up to {LEASE:g} s whether {owner(first)} is still at work")
    while undecided():
        time.sleep(min(POLL, LEASE / 2))


def _is_flocked(path: Path) -> bool:
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def sweep_lock(path: Path) -> None:
    """Removes a lock's file if its owner is dead; where that is not allowed, it stays."""
    if path.exists():
        with contextlib.suppress(UserError), claimed(path):
            pass


def sweep_locks(folder: Path) -> None:
    """Removes the files of locks whose owners are dead, and the folder if none is left."""
    for path in folder.glob("*.lock"):
        sweep_lock(path)
    sweep(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()
