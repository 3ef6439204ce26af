"""Which systems the package runs on. Imports next to nothing."""

from __future__ import annotations

import os
import sys

TRIED = ("x86_64", "amd64")
"""Processors on which it was tried, under Linux."""


def windows() -> bool:
    """Tells whether this is Windows, where `os.kill(pid, 0)` ends a process rather than looks for it."""
    return sys.platform == "win32"


def untried() -> str | None:
    """Returns the name of this system and processor if the tests were never run on it; else None."""
    processor = os.uname().machine
    if sys.platform == "linux" and processor.lower() in TRIED:
        return None
    return f"{sys.platform} on {processor}"
