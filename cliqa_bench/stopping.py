"""Ctrl-C and SIGTERM: the first stops cleanly, the second at once. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 10.0
"""Seconds after which a process ends that is still there: compiled libraries may lose an exception."""

AGAIN = 0.01
"""Seconds after which a stop is raised again that came in the middle of a callback of the interpreter."""


class Terminated(BaseException):
    """SIGTERM came; it unwinds the stack like Ctrl-C, so that temporary files are removed."""


STOPS = (KeyboardInterrupt, Terminated)

_underway: list[Stopping] = []
"""What `stoppable` gave that has not ended yet, the innermost last."""


def exit_code(stop: BaseException) -> int:
    """Returns the exit code of a stop: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)


def farewell(command: str) -> str:
    """Returns the line that says how to go on.

    Args:
        command: The command line.
    """
    return f"\ncliqa-bench: stopped; the same command goes on from here: {command}"


class Stopping:
    """Whether a signal has come.

    Attributes:
        by: The exception that it raised; None as long as none came.
    """

    def __init__(self) -> None:
        self.by: BaseException | None = None


@contextmanager
def stoppable(command: str) -> Iterator[Stopping]:
    """Turns the first SIGINT or SIGTERM into an exception; a second one ends the process at once.

    Only the main thread may do so: in another, nothing is changed.

    Args:
        command: The command line, for the line that says how to go on.
    """
    owner, state = os.getpid(), Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker of a data loader: Ctrl-C is for its parent to deal with
            if signum == signal.SIGINT:
                return
            os._exit(128 + signum)
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        state.by = KeyboardInterrupt() if signum == signal.SIGINT else Terminated()
        unwind()

    def unwind(*_: object) -> None:
        assert state.by is not None
        if hasattr(signal, "setitimer"):  # no thread: what is interrupted may have the lock that starts one
            code = exit_code(state.by)
            signal.signal(signal.SIGALRM, lambda *_: _end(command, code))
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        raise state.by

    def lost(told: sys.UnraisableHookArgs) -> None:
        """Raises a stop again that came in a finaliser or the like, from which no exception comes out."""
        if told.exc_value is None or told.exc_value is not state.by or not hasattr(signal, "setitimer"):
            hook(told)
        else:
            signal.signal(signal.SIGALRM, unwind)
            signal.setitimer(signal.ITIMER_REAL, AGAIN)

    _underway.append(state)
    hook, sys.unraisablehook = sys.unraisablehook, lost
    before = {n: signal.getsignal(n) or signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        # whoever started us in the background of a shell script wants no Ctrl-C to come through
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield state
    finally:
        _underway.remove(state)
        sys.unraisablehook = hook
        if state.by is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if_stopped() -> None:
    """Raises the stop that has come, if one has: for whoever catches any exception and goes on.

    A library may put an exception of its own in the place of ours: numpy a TypeError where a comparison is
    interrupted, Pillow an OSError.
    """
    for state in _underway:
        if state.by is not None:
            raise state.by


def _end(command: str, code: int) -> None:
    """Ends the process, whatever it is doing: nothing half stands under a final name."""
    os.write(2, (farewell(command) + "\n").encode())
    os._exit(code)


@contextmanager
def held_back() -> Iterator[None]:
    """Lets SIGINT and SIGTERM wait while a process is started.

    A child inherits that: until it calls `ignore_interrupts`, the Ctrl-C of a terminal, which reaches all of
    its processes, prints no traceback from the middle of its imports.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Leaves Ctrl-C to the parent, in a process that was started with signals held back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def say_stopped(command: str) -> None:
    """Prints the line that says how to go on."""
    print(farewell(command), file=sys.stderr, flush=True)
