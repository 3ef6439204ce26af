"""What a report can be written as."""

from __future__ import annotations

from collections.abc import Sequence

from cliqa_bench.errors import unknown

TABLE_FORMATS = ("csv", "md", "tex")
FORMATS = (*TABLE_FORMATS, "html")


def check_formats(formats: Sequence[str], known: Sequence[str] = FORMATS) -> None:
    """Checks names of formats.

    Args:
        formats: The names.
        known: Those that there are.

    Raises:
        UserError: If there is none of that name.
    """
    for kind in formats:
        if kind not in known:
            raise unknown("format", kind, known)
