"""Tables, counts and sentences, for the terminal and for reports."""

from __future__ import annotations

from collections.abc import Container, Sequence


def plural(n: int, noun: str) -> str:
    """Returns a number with its noun.

    Example:
        >>> plural(1, "batch"), plural(1956, "training")
        ('1 batch', '1,956 trainings')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "es" if noun.endswith("ch") else "s")


def as_sentence(text: str) -> str:
    """Returns a text with a capital and a full stop; "" for "".

    Example:
        >>> as_sentence("not comparable with published numbers")
        'Not comparable with published numbers.'
    """
    return f"{text[0].upper()}{text[1:]}." if text else ""


def noted(first: str, note: str, n: int) -> str:
    """Returns the line on a note that is true of several files.

    Args:
        first: Name of the first.
        note: What is true of it, a predicate: "is narrow".
        n: How many files it is true of.
    """
    return f"{first} {note}" + (f"; the same holds for {n - 1:,} more" if n > 1 else "")


def text_table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str] = (),
    right: Container[int] = (),
    ruled: bool = False,
) -> str:
    """Sets columns side by side, two spaces apart.

    Args:
        rows: Cells as text; as many in each row.
        heads: Names of the columns; none for a table without.
        right: Columns that are aligned to the right, from 0.
        ruled: Whether a rule stands below the heads.

    Example:
        >>> print(text_table([["bid", "3"], ["live", "12"]], ["set", "n"], right={1}))
        set    n
        bid    3
        live  12
    """
    every = [heads, *rows] if heads else [*rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    if ruled:
        every.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in every
    )
