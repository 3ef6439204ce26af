"""What a report says of recorded runs: all of its rows, and those that a test is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliqa_bench.reports.parts import collect
from cliqa_bench.reports.rows import Tidy, TidyRow, group_records
from cliqa_bench.results.records import AnswerReader, read_records


def numbers_of(out: Path) -> Tidy:
    """Returns the numbers of runs that are all reported together."""
    reader = AnswerReader(out)
    (group,) = group_records(read_records(out), reader)
    return collect(group, reader)


def rows_of(rows: Sequence[TidyRow], table: str, **wanted: Any) -> list[TidyRow]:
    """Returns the rows of a table in whose columns the wanted values stand."""
    return [
        row
        for row in rows
        if row.table == table and all(getattr(row, name) == value for name, value in wanted.items())
    ]
