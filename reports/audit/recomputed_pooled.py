"""The pooled SRCC of streams of parts once more, by a plain path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.audit.recomputed_intervals import Predict
from cliqa_bench.reports.measure import setting_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import RunRecord
from cliqa_bench.types import Floats

Predicted = tuple[Floats, Floats] | None
KeysOf = Callable[[RunRecord, str], NDArray[np.str_]]
Agree = Callable[[str, Predicted], float]


def pooled(
    group: RunGroup, row: TidyRow, predict: Predict, keys_of: KeysOf, agree: Agree
) -> dict[tuple[int, int], float]:
    """Returns split and seed -> the number that a row is about."""
    values: dict[tuple[int, int], float] = {}
    for record in filter(group.is_finished, group.records):  # the newest first
        for readout, method in record.rows.items():
            line = (setting_of(record, readout), record.backbone, method, record.variant, record.order)
            which = (record.split_number, record.seed)
            if line == row[1:6] and which not in values:
                values[which] = _of_run(record, readout, predict, keys_of, agree)
    return values


def _of_run(record: RunRecord, readout: str, predict: Predict, keys_of: KeysOf, agree: Agree) -> float:
    told = [predict(record, readout, len(record.steps) - 1, test) for test in record.sequence]
    if any(one is None for one in told):
        return agree("SRCC", None)
    keys = np.concatenate([keys_of(record, test) for test in record.sequence])
    mos, scores = (np.concatenate([one[i] for one in told if one is not None]) for i in (0, 1))
    _, first = np.unique(keys, return_index=True)
    return agree("SRCC", (mos[first], scores[first]))
