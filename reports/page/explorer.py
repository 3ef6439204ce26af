"""What the interactive part of the HTML report draws: one series per method, order and backbone, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cliqa_bench.reports.measure import SETTINGS, SUMMARY, is_joint
from cliqa_bench.reports.methods import label_of
from cliqa_bench.reports.rows import TABLES, Tidy, TidyRow, order_rank
from cliqa_bench.results.records import RunRecord

CURVES = ("PSI_t", "mPSI", "PI_t", "SI_t")
MATRICES = ("SRCC", "S")
FINAL = ("SRCC", "PLCC", "PLCC (logistic)", "KRCC", "RMSE (logistic)")
STANDINGS = ("", "future task", "not in the sequence")
"""How a test set stands to what has been learned; a matrix cell holds the index."""

# what would end a script element or a line of a script, in the escapes that JSON has for it
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}

_ExplorerLine = tuple[str, str, str, str, str]


def base_rows(numbers: Tidy) -> list[TidyRow]:
    """Returns the rows of Tables III to VI, Fig. 4 and of no table; others mean something else by SRCC."""
    return [row for row in numbers.rows if row.table in TABLES]


def summary_lines(
    numbers: Tidy,
) -> dict[tuple[str, str], dict[tuple[str, str, str], dict[str, TidyRow]]]:
    """Sorts the four summary numbers of whole sequences.

    Returns:
        (order, setting) -> (backbone, method, variant) -> metric of `SUMMARY` -> its row.
    """
    found: dict[tuple[str, str], dict[tuple[str, str, str], dict[str, TidyRow]]] = {}
    for row in base_rows(numbers):
        if row.metric in SUMMARY and numbers.group.is_whole(row):
            lines = found.setdefault((row.order, row.setting), {})
            lines.setdefault((row.backbone, row.method, row.variant), {})[row.metric] = row
    return found


def to_json(value: Any) -> str:
    """Returns JSON that is safe inside a script element, whatever its strings contain; nan becomes null."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def readouts(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], str]:
    """Returns (backbone, method, variant) -> the readout that gave the method's numbers."""
    return {
        (record.backbone, method, record.variant): readout
        for record in records
        for readout, method in record.rows.items()
    }


def explorer(numbers: Tidy) -> dict[str, Any]:
    """Sorts tidy rows into what can be drawn.

    Args:
        numbers: Rows of the metrics `CURVES`, `MATRICES` and `FINAL` are used, others are not.

    Returns:
        `orders` (name, titles of its datasets), `main` (the order that is shown first), `labels` of the
        methods, `curves`, `matrices` and `final` (names of the metrics there are), and `series`. A series has
        `curves`: metric -> [t, value, std] each;
        `matrices`: metric -> `rows` [length, dataset learned], `columns` (test sets) and `cells`
        [value, std, index into STANDINGS], null if no number is expected; `final`: metric ->
        [test set, value, std] each. Numbers are unrounded, null where undefined; `std` is null for one seed.
        Over several splits, the median follows in each.
    """
    records = numbers.group.records
    read_by = readouts(records)
    lines: dict[_ExplorerLine, dict[tuple[Any, ...], TidyRow]] = {}
    for row in base_rows(numbers):  # a number that is in several tables is one number here
        cells = lines.setdefault((row.setting, row.backbone, row.method, row.variant, row.order), {})
        cells.setdefault((row.metric, row.length, row.train_dataset, row.test_dataset), row)
    series = []
    for line in sorted(lines, key=lambda k: (order_rank(k[4]), k[1], SETTINGS.index(k[0]), *k[2:4])):
        setting, backbone, method, variant, order = line
        rows = list(lines[line].values())
        series.append(
            {
                "label": label_of(rows[0]),
                "setting": setting,
                "readout": read_by.get((backbone, method, variant), ""),
                "backbone": backbone,
                "order": order,
                "curves": _there(_curve, rows, CURVES),
                "matrices": _there(_matrix, rows, MATRICES),
                "final": _there(_final, rows, FINAL),
            }
        )
    return {
        "orders": _orders(records),
        "main": numbers.group.main_order,
        # a method's place decides its colour: those with curves get theirs first
        "labels": list(dict.fromkeys(o["label"] for o in sorted(series, key=lambda o: not o["curves"]))),
        "curves": [m for m in CURVES if any(m in one["curves"] for one in series)],
        "matrices": [m for m in MATRICES if any(m in one["matrices"] for one in series)],
        "final": [m for m in FINAL if any(m in one["final"] for one in series)],
        "series": series,
    }


def _orders(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    sequences = {
        record.order: [record.titles.get(name, name) for name in record.sequence]
        for record in sorted(records, key=is_joint, reverse=True)  # if both exist, the stream's own is kept
    }
    return [{"name": name, "sequence": sequences[name]} for name in sorted(sequences, key=order_rank)]


def _there(
    make: Callable[[list[TidyRow], str], Any], rows: list[TidyRow], metrics: Sequence[str]
) -> dict[str, Any]:
    """Returns metric -> what is drawn of it, as far as there is something."""
    made = {metric: make(rows, metric) for metric in metrics}
    return {metric: value for metric, value in made.items() if value}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(row: TidyRow) -> list[float | None]:
    return [] if row.median is None else [_number(row.median)]


def _curve(rows: list[TidyRow], metric: str) -> list[list[float | None]]:
    """Points by the number of experiences; undefined ones are kept, where all are there is no curve."""
    own = [row for row in rows if row.metric == metric and isinstance(row.length, int)]
    points = [
        [_length(row), _number(row.value), _number(row.std), *_median(row)]
        for row in sorted(own, key=_length)
    ]
    return points if any(point[1] is not None for point in points) else []


def _length(row: TidyRow) -> int:
    return row.length if isinstance(row.length, int) else 0


def _standing(row: TidyRow) -> int:
    return next((i for i, text in enumerate(STANDINGS) if text and row.note.startswith(text)), 0)


def _matrix(rows: list[TidyRow], metric: str) -> dict[str, Any]:
    own = [row for row in rows if row.metric == metric and row.test_dataset]
    if not own:
        return {}
    heads = list(dict.fromkeys((row.length, row.train_dataset) for row in sorted(own, key=_length)))
    columns = list(dict.fromkeys(row.test_dataset for row in sorted(own, key=_length, reverse=True)))
    found = {
        (row.length, row.train_dataset, row.test_dataset): [
            _number(row.value),
            _number(row.std),
            _standing(row),
            *_median(row),
        ]
        for row in own
    }
    cells = [[found.get((*head, column)) for column in columns] for head in heads]
    return {"rows": heads, "columns": columns, "cells": cells}


def _final(rows: list[TidyRow], metric: str) -> list[list[Any]]:
    own = [row for row in rows if row.metric == metric and row.test_dataset]
    last = max(map(_length, own), default=0)
    return [
        [row.test_dataset, _number(row.value), _number(row.std), *_median(row)]
        for row in own
        if _length(row) == last
    ]
