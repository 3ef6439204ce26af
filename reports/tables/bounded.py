"""The gate with heads left out: what a tolerance of the score saves, and what it costs (not in the paper)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cliqa_bench import metrics
from cliqa_bench.reports.methods import RunReadout, namer, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.reports.tables.tsn import default_runs, over_runs
from cliqa_bench.results.readouts import gate_weights, needed_heads
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.types import Answers

TOLERANCES = (0.0, 0.01, 0.02, 0.05, 0.1)
MEASURES = ["Heads", "Saved (%)", "Largest error", "Bound held (%)", "mSRCC"]


def bounded_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns for each tolerance what TSN-IQA's gate saves and loses after the last experience.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows: list[TidyRow] = []
    for method, runs in default_runs(group, "tsn").items():
        measured = {run: found for run, source in runs.items() if (found := _measure(source, reader))}
        if len(measured) < len(runs):
            continue  # unfinished: no number of a part of the test sets
        for tolerance in TOLERANCES:
            for measure in MEASURES:
                values = {run: found[tolerance][measure] for run, found in measured.items()}
                row = over_runs("bounded", method, group, f"{measure}: {tolerance:g}", values)
                rows.append(row._replace(length=len(next(iter(runs.values())).record.steps)))
    return rows


def _measure(source: RunReadout, reader: AnswerReader) -> dict[float, dict[str, float]] | None:
    """Returns tolerance -> measure -> value over all test sets; None where answers are missing."""
    record = source.record
    tests = list(_answers(source, reader))
    if len(tests) < len(record.sequence) or len(record.steps) < 2 or "scores" in record.reading:
        return None
    found = {}
    for tolerance in TOLERANCES:
        used, errors, bounds, agreement = [], [], [], []
        for answers in tests:
            scores = np.asarray(answers.scores, np.float64)
            weights = gate_weights(answers.distances, answers.tau)  # type: ignore[arg-type]
            needed = needed_heads(weights, tolerance)
            kept = np.where(needed, weights * scores, 0).sum(axis=1)
            used.append(needed.sum(axis=1))
            errors.append(np.abs(kept - (weights * scores).sum(axis=1)))
            bounds.append(np.where(needed, 0, weights).sum(axis=1))
            agreement.append(metrics.srcc(kept, answers.mos))
        heads = float(np.concatenate(used).mean())
        error, bound = np.concatenate(errors), np.concatenate(bounds)
        rounding = 1e-12  # of sums of a few numbers below 1
        found[tolerance] = {
            "Heads": heads,
            "Saved (%)": 100 * (1 - heads / len(record.steps)),
            "Largest error": float(error.max()),
            "Bound held (%)": 100
            * float(((error <= bound + rounding) & (bound <= tolerance + rounding)).mean()),
            "mSRCC": float(np.mean(agreement)),
        }
    return found


def _answers(source: RunReadout, reader: AnswerReader) -> Iterator[Answers]:
    for test in source.record.sequence:
        answers = reader.answers(source.record, len(source.record.steps) - 1, test)
        if answers is not None and answers.distances is not None:
            yield answers


def shape_bounded(rows: list[TidyRow]) -> Table:
    """A section per method, a row per tolerance."""
    name = namer(rows)
    sections = [
        build(
            label, [row for row in rows if name(row) == label], lambda row: row.metric.partition(": ")[2],
            lambda row: row.metric.partition(": ")[0], MEASURES,
            digits={"Heads": 2, "Saved (%)": 1, "Largest error": 4, "Bound held (%)": 1}, best=(),
        )
        for label in unique(map(name, rows))
    ]  # fmt: skip
    caption = (
        "Error-bounded gate: heads whose weights add up to no more than a tolerance are left out; scores lie "
        "in [-1, 1], so no score is off by more. Heads: run per image, on average over the images of all "
        "test sets, after the last experience. Largest error: of any image. Bound held: images whose error "
        "is at most the weight left out, and that weight at most the tolerance."
    )
    return Table("bounded", caption, ("Method", "Tolerance"), MEASURES, sections)
