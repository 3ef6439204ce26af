"""Errors that are told in one line: what the user is to mend (exit code 2), and what does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Misuse or bad data: says what is wrong, where (file, row, key) and what to do, in one line."""


class OutOfMemory(MemoryError):
    """A piece of work does not fit: says in one line what, and which setting to lower. Other pieces go on."""


NAMED = 20
"""Most names that `listed` gives."""


def listed(names: Iterable[str]) -> str:
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
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((n for n in names if near and n.lower() == near[0]), None)
    did_you_mean = f" (did you mean {hint!r}?)" if hint else ""
    return UserError(f"unknown {kind} {name!r}{did_you_mean}; there is: {', '.join(names)}")
