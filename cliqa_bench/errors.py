"""Errors of one line: what the user has to fix (exit code 2), and what does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LONGEST = 2000
"""Characters that an error's line may have; what is longer loses its middle."""


class UserError(Exception):
    """Misuse or bad data: says what is wrong, where (file, row, key) and what to do, in one line.

    Names in it may come from damaged files: line ends and other control characters become a blank, so that
    the message is one line whatever it quotes, and can be printed in any encoding.

    Example:
        >>> raise UserError("labels.csv, line 3 has no score; write a number")
        Traceback (most recent call last):
            ...
        cliqa_bench.errors.UserError: labels.csv, line 3 has no score; write a number
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    whole: Sequence[Any] = ()
    """What could be read anyway, where it is of the rows of a file."""

    @property
    def each(self) -> Sequence[UserError]:
        """The single faults that it reports: itself, if it is a single one."""
        return (self,)


class SeveralErrors(UserError):
    """Several faults of one input: its line gives the first, and how many more there are."""

    def __init__(self, faults: Iterable[UserError]) -> None:
        self._each = [single for fault in faults for single in fault.each]
        more = len(self._each) - 1
        super().__init__(f"{self._each[0]} (and {more} more; 'data check' lists them)")

    def __reduce__(self) -> tuple[type[SeveralErrors], tuple[list[UserError]]]:
        """Makes it picklable, so that it can come back from another process."""
        return type(self), (self._each,)

    @property
    def each(self) -> Sequence[UserError]:
        """The single faults, in the order in which they were met."""
        return self._each


class Mistakes(SeveralErrors):
    """Several mistakes in one command line or configuration file: each is printed in a line of its own."""

    def __init__(self, faults: Iterable[UserError]) -> None:
        super().__init__(faults)
        self.args = (one_line("; and ".join(map(str, self._each))),)


class Gather:
    """Calls readers of settings one after the other, so that one run shows every mistake.

    What a reader raises is kept, and a reader that is given what another one failed to make is not called.

    Example:
        >>> gather = Gather()
        >>> number = gather(int, "3")
        >>> gather.refuse()
        >>> number
        3
    """

    _FAILED = object()

    def __init__(self) -> None:
        self._faults: list[UserError] = []

    def __call__(self, read: Callable[..., R], *given: object) -> R:
        """Returns what a reader makes of its arguments, or a stand-in if it cannot."""
        if not any(value is self._FAILED for value in given):
            try:
                return read(*given)
            except UserError as error:
                self._faults.append(error)
        return self._FAILED  # type: ignore[return-value]  # `refuse` raises before it can be used

    def refuse(self) -> None:
        """Raises what was gathered.

        Raises:
            UserError: If any reader raised one.
        """
        refuse(self._faults, several=Mistakes)


def refuse(
    faults: Sequence[UserError], whole: Sequence[Any] = (), several: type[SeveralErrors] = SeveralErrors
) -> None:
    """Raises what was gathered: nothing, the single fault, or all of them as one.

    Args:
        faults: What is wrong.
        whole: What could be read anyway.
        several: How more than one fault is raised.

    Raises:
        UserError: If there is any fault.
    """
    if faults:
        error = faults[0] if len(faults) == 1 and len(faults[0].each) == 1 else several(faults)
        error.whole = whole
        raise error


def read_all(items: Iterable[T], read: Callable[[T], R]) -> list[R]:
    """Applies a reader to every item, so that one pass finds every fault and not only the first.

    Args:
        items: Rows of a file, say.
        read: Returns what an item holds, or raises a UserError.

    Raises:
        UserError: If any item raised one; `each` has them all, `whole` what the other items hold.
    """
    done, faults = [], []
    for item in items:
        try:
            done.append(read(item))
        except UserError as error:
            faults.append(error)
    refuse(faults, done)
    return done


def one_line(text: str) -> str:
    """Returns a text as one printable line of at most `LONGEST` characters."""
    decodable = text.encode("utf-8", "backslashreplace").decode()
    line = re.sub("\n+", " ", "".join(c if c.isprintable() else "\n" for c in decodable)).strip()
    half = LONGEST // 2 - 3
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def run_again(what: str | Path = "it") -> str:
    """Returns the advice on something on the disk that a run makes again.

    Args:
        what: What to delete first, where it is not the file that the message is about.
    """
    return f"delete {what} and run again"


class OutOfMemory(MemoryError):
    """A piece of work does not fit: says in one line what, and which setting to lower. Other pieces go on."""


NAMED = 20
"""Most names that `join_names` gives."""


def join_names(names: Iterable[str]) -> str:
    """Lists names for a message of one line: all, or the first of many and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Builds the error for a name that does not exist: its nearest match, and what does exist.

    Args:
        kind: What the name should be ("strategy", "dataset", "config key", ...).
        name: What was asked for.
        known: Every name that would do.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name[:100].lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((n for n in names if near and n.lower() == near[0]), None)
    did_you_mean = f" (did you mean {hint!r}?)" if hint else ""
    return UserError(f"unknown {kind} {name!r}{did_you_mean}; choose from: {', '.join(names)}")
