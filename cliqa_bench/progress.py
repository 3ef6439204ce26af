"""Progress bars: what, how far, how long still; silent for work that takes less than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(total: int | None, what: str, unit: str = "it") -> tqdm[Any]:
    """Returns a bar on standard error that appears after one second and leaves one line behind.

    Args:
        total: Number of steps, None if unknown.
        what: What is going on, in a few words.
        unit: What is counted ("image", "epoch", ...).
    """
    return tqdm(
        total=total, desc=what, unit=unit, delay=1, file=sys.stderr, dynamic_ncols=True, mininterval=0.3
    )


def track(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Iterates over items with a bar."""
    with bar(total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()
