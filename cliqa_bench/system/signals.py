"""Ctrl-C and SIGTERM: the first stops cleanly, a later one at once. Imports next to nothing.

`timeout`, Slurm and containers signal the process and then its whole group, and a terminal the whole group:
the same stop reaches a process twice, and its children too. So a second signal that comes soon is part of the
first stop, and children leave the stop to their parent (`leave_stops_to_parent`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 10.0
"""Seconds after which a process ends that is still there: compiled libraries may lose an exception."""

SAME_STOP = 2.0
"""Seconds in which further signals belong to the same stop; one that comes later is impatience."""

AGAIN = 0.01
"""Seconds after which a stop is raised again that came in the middle of a callback of the interpreter."""


class Terminated(BaseException):
    """SIGTERM came; it unwinds the stack like Ctrl-C, so that temporary files are removed."""


STOPS = (KeyboardInterrupt, Terminated)

_underway: list[_Handling] = []
"""What handles signals at the moment: one entry, or in a forked process also its parent's."""


def exit_code(stop: BaseException) -> int:
    """Returns the exit code of a stop: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)


def farewell(command: str) -> str:
    """Returns the line that says how to resume.

    Args:
        command: The command line.
    """
    return f"\ncliqa-bench: interrupted; run the same command to resume: {command}"


class _Held:
    """How many `block_signals` are under way, and what to do about a stop that has come meanwhile."""

    depth = 0
    stop: Callable[[], None] | None = None


@contextmanager
def stoppable(command: str, last: bool = False) -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into an exception; one that comes later ends the process at once.

    Only the main thread may do so: in another, nothing is changed. Inside another `stoppable` of this
    process, nothing is changed either.

    Args:
        command: The command line, for the line that says how to resume.
        last: Whether the process does nothing more after it: signals are then ignored: all is printed.
    """
    owner = os.getpid()
    nested = bool(_underway) and _underway[-1].owner == owner
    if nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    handling = _Handling(command, owner)
    _underway.append(handling)
    hook, sys.unraisablehook = sys.unraisablehook, handling.lost
    handling.hook = hook
    before = {n: signal.getsignal(n) or signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        # a shell script that starts us in the background wants Ctrl-C to be ignored
        if handler is not signal.SIG_IGN:
            signal.signal(number, handling.stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last else handler)
        _underway.remove(handling)
        sys.unraisablehook = hook
        if handling.by is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _Handling:
    """What happens when a signal comes; see `stoppable`.

    Attributes:
        by: The exception that it raised; None as long as none came.
        since: When it came, on the monotonic clock.
        told: Whether the line that says how to resume is printed.
    """

    def __init__(self, command: str, owner: int) -> None:
        self.command, self.owner = command, owner
        self.by: BaseException | None = None
        self.since, self.told = 0.0, False
        self.hook: Callable[[sys.UnraisableHookArgs], object] = sys.unraisablehook

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if os.getpid() != self.owner:  # a forked child: Ctrl-C is for its parent to deal with
            if signum == signal.SIGINT:
                return
            os._exit(128 + signum)
        if self.by is not None:
            if time.monotonic() - self.since > SAME_STOP:
                self.end()
            return
        self.since = time.monotonic()
        self.by = KeyboardInterrupt() if signum == signal.SIGINT else Terminated()
        if _Held.depth:
            _Held.stop = self.unwind
        else:
            self.unwind()

    def unwind(self, *_: object) -> None:
        """Raises the stop, and makes sure that the process ends even if the exception is lost."""
        assert self.by is not None
        if hasattr(signal, "setitimer"):  # no thread: what is interrupted may have the lock that starts one
            signal.signal(signal.SIGALRM, self.end)
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        raise self.by

    def lost(self, told: sys.UnraisableHookArgs) -> None:
        """Raises a stop again that came in a finaliser or the like, from which no exception comes out."""
        if told.exc_value is None or told.exc_value is not self.by or not hasattr(signal, "setitimer"):
            self.hook(told)
        else:
            signal.signal(signal.SIGALRM, self.unwind)
            signal.setitimer(signal.ITIMER_REAL, AGAIN)

    def end(self, *_: object) -> None:
        """Ends the process, whatever it is doing: nothing incomplete has a final name."""
        assert self.by is not None
        if not self.told:
            os.write(2, (farewell(self.command) + "\n").encode())
        os._exit(exit_code(self.by))


def raise_if_stopped() -> None:
    """Raises the stop that has come, if one has: for code that catches any exception and continues.

    A library may put an exception of its own in the place of ours: numpy a TypeError where a comparison is
    interrupted, Pillow an OSError.
    """
    for handling in _underway:
        if handling.by is not None:
            raise handling.by


@contextmanager
def block_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM wait while a process or thread is started.

    A child inherits that: until it calls `leave_stops_to_parent`, the Ctrl-C of a terminal, which reaches
    all of its processes, prints no traceback from the middle of its imports.
    """
    if threading.current_thread() is not threading.main_thread():  # stops are raised in the main thread only
        yield
        return
    masks = hasattr(signal, "pthread_sigmask")
    # a signal that the mask keeps from this thread may reach another one; its handler still runs here
    _Held.depth += 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if masks else set()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _Held.depth -= 1
        if not _Held.depth and _Held.stop is not None:
            stop, _Held.stop = _Held.stop, None
            stop()


_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def leave_stops_to_parent() -> None:
    """Leaves signals to the parent, in a process that was started with signals held back.

    Ctrl-C is ignored. SIGTERM ends the process at once if the parent sends it. One from elsewhere was most
    likely sent to the whole group: the parent deals with it, and ends this process. If it has not done so
    after a while, the signal was meant for this process alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS and Windows: the sender of a signal is unknown
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def wait() -> None:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            time.sleep(GRACE)
        os._exit(exit_code(Terminated()))

    threading.Thread(target=wait, daemon=True).start()


def say_stopped(command: str) -> None:
    """Prints the line that says how to resume."""
    for handling in _underway:
        handling.told = True
    print(farewell(command), file=sys.stderr, flush=True)
