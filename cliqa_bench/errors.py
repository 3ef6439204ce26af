"""The one kind of error that is the user's to mend: it is printed as one line and ends with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Misuse or bad data: says what is wrong, where (file, row, key) and what to do, in one line."""


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
