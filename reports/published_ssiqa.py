"""The tables of the SS-IQA paper, beside ours."""

from __future__ import annotations

import math
from functools import cache

from cliqa_bench.reports.published_rows import read_rows
from cliqa_bench.reports.rows import TidyRow
from cliqa_bench.reports.tables.ssiqa import METHOD, PUBLISHED

SOURCE = "Pan et al., AAAI Conference on Artificial Intelligence 2024"
NOTE = PUBLISHED
NUMBERS = ("ssiqa_1", "ssiqa_3", "ssiqa_5", "ssiqa_6")
"""Tables that are published; the third holds the paper's Tables 3 and 4."""


@cache
def read_published(number: str) -> list[TidyRow]:
    """Returns the published rows of a table, as printed."""
    return read_rows(number)


def published_of(row: TidyRow) -> TidyRow | None:
    """Returns the published row of the same thing; None if there is none.

    The backbone does not count, and the paper's numbers stand beside both kinds of memory: it has one. Of
    other methods the paper knows no transfer: their numbers are of a test set alone.
    """
    for found in read_published(row.table):
        about = (found.method, found.setting, found.metric) == (row.method, row.setting, row.metric)
        if not about:
            continue
        if row.method != METHOD and found.test_dataset == row.test_dataset:
            return found
        if row.method == METHOD and (found.order, found.variant) == (row.order, _plain(row.variant)):
            return found
    return None


def _plain(variant: str) -> str:
    """Returns a variant without the kind of its memory, and in the paper's way of writing."""
    words = variant.replace("; ", ", ").split(", ")
    return ", ".join(word for word in words if not word.startswith("memory="))


def with_others(rows: list[TidyRow]) -> list[TidyRow]:
    """Returns our rows of a table; of Table 1, also rows without a value for what only the paper has."""
    if rows[0].table != "ssiqa_1":
        return rows
    like = {(row.setting, row.order, row.metric): row for row in rows}
    methods = dict.fromkeys(found.method for found in read_published("ssiqa_1"))
    others = [
        row._replace(method=method, variant="", backbone="", value=math.nan, std=math.nan, median=None)
        for method in methods
        if method not in {row.method for row in rows}
        for row in like.values()
    ]
    return [*rows, *(row for row in others if published_of(row) is not None)]
