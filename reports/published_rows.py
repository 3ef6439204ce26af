"""Rows of published tables, as the files of `published/` have them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from cliqa_bench.reports.rows import TidyRow
from cliqa_bench.types import TIDY_COLUMNS

_FOLDER = Path(__file__).parent / "published"


def read_rows(number: str) -> list[TidyRow]:
    """Returns the rows of a table; a value "T", the number of tasks, is that number."""
    with (_FOLDER / f"table_{number}.csv").open(newline="", encoding="utf-8") as file:
        return [_row(read) for read in csv.DictReader(file)]


def _row(read: dict[str, str]) -> TidyRow:
    value = read["length"] if read["value"] == "T" else read["value"]
    fields = {name: read[name] for name in TIDY_COLUMNS}
    return TidyRow(**{
        **fields,
        "length": int(read["length"]) if read["length"].isdigit() else read["length"],
        "value": float(value),
        "std": float(read["std"] or math.nan),
    })  # type: ignore[arg-type]  # fmt: skip
