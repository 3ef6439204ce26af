"""The tables of the LIQE paper, beside ours."""

from __future__ import annotations

import math
from functools import cache

from cliqa_bench.reports.published_rows import read_rows
from cliqa_bench.reports.rows import TidyRow, caution_in
from cliqa_bench.reports.tables.liqe import METHOD, PLCC, PUBLISHED
from cliqa_bench.reports.tables.liqe_tasks import IMAGE_TOWER

SOURCE = "Zhang et al., IEEE/CVF Conference on Computer Vision and Pattern Recognition 2023"
NOTE = PUBLISHED
NUMBERS = ("liqe_1", "liqe_2", "liqe_4", "liqe_5")
"""Tables that are published."""
BACKBONE = "CLIP ViT-B/32"
"""What the suite calls the paper's backbone."""


@cache
def read_published(number: str) -> list[TidyRow]:
    """Returns the published rows of a table, as printed; its PLCC has the name that it has in ours."""
    rows = read_rows(number)
    return [row._replace(metric=PLCC) if row.metric == "PLCC" else row for row in rows]


def published_of(row: TidyRow) -> TidyRow | None:
    """Returns the published row of the same thing; None if there is none.

    It is the same thing if the same datasets were learned, from the same network. Of generated data no number
    is comparable, and the network does not count.
    """
    about = (row.variant, row.test_dataset, row.metric)
    for found in read_published(row.table):
        if (found.variant, found.test_dataset, found.metric) == about and _same(row, found):
            return found
    return None


def _same(row: TidyRow, found: TidyRow) -> bool:
    if row.setting == found.setting:  # a row of `with_others`
        return row[2:8] == found[2:8]
    ours = found.method == METHOD and (row.method == METHOD or row.variant == IMAGE_TOWER)
    network = row.backbone == BACKBONE or caution_in(row.note)
    return bool(ours and network) and _learned(row) == _learned(found)


def _learned(row: TidyRow) -> set[str]:
    return set(row.train_dataset.split("+"))


def with_others(rows: list[TidyRow]) -> list[TidyRow]:
    """Returns our rows of a table, and rows without a value for what only the paper has on our test sets."""
    known, note = [published_of(row) for row in rows], caution_in(rows[0].note)
    shown = {(row.test_dataset, row.metric) for row in rows}
    others = [
        found._replace(value=math.nan, std=math.nan, note=note)
        for found in read_published(rows[0].table)
        if found not in known and (found.test_dataset, found.metric) in shown
    ]
    return [*rows, *others]
