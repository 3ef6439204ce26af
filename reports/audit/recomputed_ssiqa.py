"""The numbers of SS-IQA's tables once more by a plain path; see `recomputed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.audit.recomputed_added import Run
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import RunRecord
from cliqa_bench.results.schema import EXTRA
from cliqa_bench.types import Floats

Files = Callable[[str | None], "dict[str, NDArray[Any]] | None"]
"""From the id of an answers node to its arrays."""
OfVectors = Callable[[str, Floats, Floats], float]
"""Of "PLCC" or "SRCC", predictions and opinions: the correlation."""

COVERED = ("ssiqa_1", "ssiqa_3", "ssiqa_5", "ssiqa_6", "ssiqa_phases")
_WORDS = {"": {}, "+ IL": {"krr": "False"}, "+ KRR": {"k1": "0", "k2": "0"}, "baseline": {}}
_WORDS["blocks alone"] = _WORDS["+ IL"] | _WORDS["+ KRR"]
READOUTS = ("last", "merged")
_KINDS = {"tid2013": ("01", "08", "10", "11"), "kadid10k": ("01", "09", "10", "11")}


def transfer_values(group: RunGroup, row: TidyRow, files: Files, correlate: OfVectors) -> dict[Run, float]:
    """Returns the number of each run that a row is about.

    Args:
        group: The runs.
        row: Says which number.
        files: Reads answers.
        correlate: Computes a correlation.
    """
    metric, _, phase = row.metric.partition(": ")
    wanted = _options(row)
    found: dict[Run, float] = {}
    for record in group.records:
        readout = next((r for r, name in record.rows.items() if name == row.method and r in READOUTS), None)
        if readout is None or not group.is_finished(record) or record.backbone != row.backbone:
            continue
        which = (record.split_number, record.seed)
        if which in found or not _is_of(record, row) or _variant(record.variant) != wanted:
            continue
        step = int(phase) if phase else 0 if row.variant.split("; ")[0] == "baseline" else int(row.length)
        found[which] = _number(record, readout, step, row, metric, files, correlate)
    return found


def _options(row: TidyRow) -> dict[str, str]:
    """Returns the options of the runs that a row is about."""
    if row.table in ("ssiqa_1", "ssiqa_phases"):
        return _variant(row.variant)
    word, _, rest = row.variant.partition("; ")
    if row.table == "ssiqa_3":
        return _WORDS[word] | _variant(rest) if word in _WORDS else _variant(row.variant)
    if row.table == "ssiqa_5":
        return _variant(rest)
    exemplars = {k.lower(): v for k, v in _variant(word).items() if v != "100"}
    return exemplars | _variant(rest)


def _variant(text: str) -> dict[str, str]:
    """Splits "a=1, b=(2, 3)" at the commas that come before a name and "="."""
    found: dict[str, str] = {}
    last = ""
    for word in filter(None, text.split(", ")):
        name, equals, value = word.partition("=")
        if equals and name.replace("_", "").isalnum():
            found[name], last = value, name
        else:
            found[last] += f", {word}"
    return found


def _is_of(record: RunRecord, row: TidyRow) -> bool:
    """Tells whether a run goes from and to what a row says."""
    first, *blocks = record.sequence
    if len(blocks) != row.length or not all(name.endswith("?unlabelled") for name in blocks):
        return False
    if len({name.split("@")[0].split("?")[0] for name in blocks}) > 1:
        return False
    title = record.titles[blocks[0]].replace(" unlabelled", "").replace(f" 1/{len(blocks)}", "")
    return f"{record.titles[first]}->{title}" == row.order


def _number(
    record: RunRecord,
    readout: str,
    step: int,
    row: TidyRow,
    metric: str,
    files: Files,
    correlate: OfVectors,
) -> float:
    test = record.sequence[0 if row.setting == "D^A (labelled)" else -1]
    node, column = record.steps[step].heads[-1]
    answers = files(record.answers.get(node, {}).get(test))
    if answers is None:
        return float("nan")
    scores = answers["scores"][:, column]
    if readout == "merged":
        scores = answers[f"{EXTRA}merged"][:, 0]
    if row.setting == "pseudo-labels on D^B" and "krr" not in _variant(record.variant):
        if f"{EXTRA}pseudo" not in answers:
            return float("nan")
        scores = answers[f"{EXTRA}pseudo"][:, 0]
    kept = list(range(len(scores)))
    if row.setting == "D^B, common distortions":
        base = test.split("@")[0].split("?")[0].split(":")[0]
        kept = [i for i in kept if _is_common(base, str(answers["keys"][i]))]
    return correlate(metric, scores[kept].astype(np.float64), answers["mos"][kept])


def _is_common(base: str, key: str) -> bool:
    """Tells whether an image has one of the four distortions that all datasets have."""
    name = key.split("/")[-1].lower()
    if base == "csiq":
        return name.split(".")[1] in ("awgn", "jpeg", "jpeg2000", "blur")
    return name.split("_")[1] in _KINDS[base]
