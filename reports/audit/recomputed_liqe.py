"""The numbers of LIQE's tables once more by a plain path; see `recomputed`."""

from __future__ import annotations

import math
import statistics

from cliqa_bench.reports.audit.recomputed_added import Run
from cliqa_bench.reports.audit.recomputed_intervals import Predict
from cliqa_bench.reports.audit.recomputed_pooled import Agree
from cliqa_bench.reports.audit.recomputed_ssiqa import Files
from cliqa_bench.reports.measure import setting_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import RunRecord
from cliqa_bench.results.schema import EXTRA

COVERED = ("liqe_1", "liqe_2", "liqe_4", "liqe_5", "liqe_aspects")
_WORDS = {
    "(3) Frozen Textual Encoder": "freeze_text=True",
    "(5) Equal Task Weightings": "weighting=equal",
    "(6) Fine-Tuned Visual Encoder Only": "",
    "Quality": "tasks=q",
    "Quality + Scene": "tasks=qs",
    "Quality + Distortion": "tasks=qd",
    "All Tasks": "",
}


def liqe_values(
    group: RunGroup, row: TidyRow, predict: Predict, files: Files, agree: Agree
) -> dict[Run, float]:
    """Returns the number of each run that a row is about.

    Args:
        group: The runs.
        row: Says which number.
        predict: Reads the predictions of a run for a test set.
        files: Reads answers.
        agree: Computes a correlation.
    """
    wanted = {_WORDS.get(part, part) for part in row.variant.replace("; ", ", ").split(", ")} - {""}
    found: dict[Run, float] = {}
    for record in filter(group.is_finished, group.records):  # the newest first
        which = (record.split_number, record.seed)
        about = (setting_of(record, "last"), record.backbone, record.rows.get("last"))
        if which in found or about != row[1:4] or set(record.variant.split(", ")) - {""} != wanted:
            continue
        titles = [record.titles[name] for name in record.sequence]
        if sorted(titles) != sorted(row.train_dataset.split("+")) or row.order not in ("", record.order):
            continue
        tests = [
            name
            for name in dict.fromkeys([*record.sequence, *record.tests])
            if record.titles[name] == row.test_dataset
        ]
        each = [
            _number(record, test, row.metric.removeprefix("m"), predict, files, agree)
            for test in tests or record.sequence
        ]
        found[which] = statistics.fmean(each)
    return found


def _number(record: RunRecord, test: str, metric: str, predict: Predict, files: Files, agree: Agree) -> float:
    last = len(record.steps) - 1
    if metric == "SRCC":
        return agree(metric, predict(record, "last", last, test))
    node, _ = record.steps[last].heads[-1]
    arrays = files(record.answers.get(node, {}).get(test)) or {}
    said, true = arrays.get(EXTRA + "aspects"), arrays.get(EXTRA + "true_aspects")
    if said is None or true is None:
        return math.nan
    what, _, commonest = metric.partition(": ")
    columns = list(range(9)) if what == "ACC_scene" else list(range(said.shape[1] - 11, said.shape[1]))
    asked = true.sum(axis=0)
    hits = labels = 0
    for i in range(len(true)):
        has = {c for c in columns if true[i, c] == 1}
        value = asked if commonest else said[i]
        best = sorted(columns, key=lambda c, value=value: (-value[c], c))[: len(has)]  # type: ignore[misc]
        hits += len(has & set(best))
        labels += len(has)
    return hits / labels


def is_covered(row: TidyRow) -> bool:
    """Tells whether a row is one of these tables', and not after a logistic fit."""
    return row.table in COVERED and "logistic" not in row.metric
