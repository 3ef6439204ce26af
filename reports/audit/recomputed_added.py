"""What one more dataset does to the SRCC, once more by a plain path; see `recomputed`."""

from __future__ import annotations

from collections.abc import Callable

from cliqa_bench.reports.measure import is_joint, setting_of
from cliqa_bench.reports.rows import ORDERS, RunGroup, TidyRow
from cliqa_bench.results.records import RunRecord

Run = tuple[int, int]
"""Number of the split, 0 for a single one, and seed."""
Correlate = Callable[[RunRecord, str, int, str], float]
"""Of a run, a readout, an experience and a test set: the SRCC."""


def added(group: RunGroup, row: TidyRow, srcc: Correlate) -> dict[Run, float]:
    """Returns the number of each run that a row of the added dataset is about.

    Args:
        group: The runs.
        row: Says which number.
        srcc: Correlates the predictions of a run for a test set with the opinions.
    """
    finished = [record for record in group.records if group.is_finished(record)]
    streams = [record for record in finished if not is_joint(record)]
    longer = next(record for record in streams if record.order == row.order)
    new = next(name for name in longer.sequence if longer.titles[name] == row.train_dataset)
    former = [name for name in longer.sequence if name != new]
    shorter = [record for record in streams if sorted(record.sequence) == sorted(former)]
    shorter.sort(key=lambda r: (ORDERS.index(r.order) if r.order in ORDERS else len(ORDERS), r.order))
    goes_on = longer.sequence[-1] == new and any(record.sequence == former for record in shorter)
    after = _runs(finished, row, longer.order, set(longer.sequence))
    own = goes_on and row.setting != "Joint"
    before = after if own else _runs(finished, row, shorter[0].order, set(former))
    tests = [name for name in longer.sequence if longer.titles[name] == row.test_dataset] or former
    moment = row.metric.split(": ")[1]
    values = {}
    for run in before.keys() & after.keys():
        told = []
        for (record, readout), last in ((before[run], 2 if own else 1), (after[run], 1)):
            step = len(record.steps) - last
            found = [srcc(record, readout, step, t) if t in record.tests else float("nan") for t in tests]
            told.append(sum(found) / len(found))
        values[run] = {"before": told[0], "after": told[1], "difference": told[1] - told[0]}[moment]
    return values


def _runs(
    records: list[RunRecord], row: TidyRow, order: str, datasets: set[str]
) -> dict[Run, tuple[RunRecord, str]]:
    """Returns the runs of a row's method in an order; joint learning has the datasets in any order."""
    found: dict[Run, tuple[RunRecord, str]] = {}
    for record in records:
        for readout, method in record.rows.items():
            line = (setting_of(record, readout), record.backbone, method, record.variant)
            same = set(record.sequence) == datasets if is_joint(record) else record.order == order
            if line == row[1:5] and same:
                found.setdefault((record.split_number, record.seed), (record, readout))
    return found
