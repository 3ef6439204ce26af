"""Reads which image of a dataset is in which subset, from label files that say so row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.errors import read_all
from cliqa_bench.types import Subset

SETS: dict[str, Subset] = {"training": "train", "validation": "val", "test": "test"}
"""What the authors of KonIQ-10k and UHD-IQA call the subsets."""


def read_set(row: LabelRow, column: str) -> Subset:
    """Returns the subset that a cell names, in the words of `SETS`.

    Raises:
        UserError: If it holds any other word.
    """
    word = row.text(column).lower()
    if word not in SETS:
        raise row.fault(column, f"one of {', '.join(SETS)}")
    return SETS[word]


def place_images(
    rows: Iterable[LabelRow],
    column: str,
    key_of: Mapping[str, str],
    subset_of: Callable[[LabelRow], Subset],
    placed: Mapping[str, Subset] | None = None,
) -> dict[str, Subset]:
    """Reads the subset of every image that rows name.

    Args:
        rows: The rows.
        column: Which column holds the image's name.
        key_of: Name in lower case, as in that column -> `Rating.key`.
        subset_of: Reads the subset from a row.
        placed: Key -> subset, of the images that other files name.

    Returns:
        Key -> subset, with those of `placed`.

    Raises:
        UserError: If a row is broken or names an unknown image, or one that has a subset; all are listed.
    """
    found = dict(placed or {})

    def place(row: LabelRow) -> None:
        key = key_of.get(row.text(column).lower())
        if key is None or key in found:
            raise row.fault(column, "a rated image that has no subset yet")
        found[key] = subset_of(row)

    read_all(rows, place)
    return found
