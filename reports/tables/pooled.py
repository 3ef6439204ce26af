"""Streams of parts of one dataset: SRCC over all their test images together (not in the TSN-IQA paper)."""

from __future__ import annotations

import numpy as np

from cliqa_bench import metrics
from cliqa_bench.part_names import base_of, is_unlabelled
from cliqa_bench.reports.methods import RunReadout, joined_note, make_row, namer, predict, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow, order_rank
from cliqa_bench.reports.spread import spread
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.results.records import AnswerReader, RunRecord

METRIC = "pooled SRCC"


def is_stream(record: RunRecord) -> bool:
    """Tells whether a run learns several labelled parts of one dataset, whose scores have one scale."""
    bases = {base_of(name) for name in record.sequence}
    return len(bases) == 1 < len(record.sequence) and not any(map(is_unlabelled, record.sequence))


def pooled_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the pooled SRCC of every method on every stream, means over seeds or splits.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    orders = unique(r.order for r in group.records if is_stream(r) and group.is_finished(r))
    return [row for order in sorted(orders, key=order_rank) for row in _rows(group, reader, order)]


def _rows(group: RunGroup, reader: AnswerReader, order: str) -> list[TidyRow]:
    rows = []
    for method, runs in sources(group, lambda record: record.order == order).items():
        found = spread({run: pooled_srcc(reader, source) for run, source in runs.items()})
        note = joined_note("after the last experience", found.note, group.caution)
        row = make_row("pooled", method, order, METRIC, found.mean, note)
        length = max(len(source.record.sequence) for source in runs.values())
        rows.append(row._replace(std=found.std, median=found.median, length=length))
    return rows


def pooled_srcc(reader: AnswerReader, source: RunReadout) -> float:
    """Returns the SRCC over the test images of all parts, each once, after the last experience.

    An image of several parts counts with its score in the first of them.

    Returns:
        It; nan where answers are missing or it is not defined.
    """
    mos: dict[str, float] = {}
    scores: dict[str, float] = {}
    for test in source.record.sequence:
        found = predict(reader, source, len(source.record.steps) - 1, test)
        if found is None:
            return metrics.NAN
        for key, opinion, score in zip(found.keys.tolist(), found.mos, found.scores, strict=True):
            mos.setdefault(key, opinion)
            scores.setdefault(key, score)
    return metrics.srcc(np.array([*scores.values()]), np.array([*mos.values()]))


def shape_pooled(rows: list[TidyRow]) -> Table:
    """A section per setting, a column per stream."""
    orders = sorted(unique(row.order for row in rows), key=order_rank)
    sections = [
        build(
            setting, [r for r in rows if r.setting == setting], namer(rows), lambda r: r.order, orders, True
        )
        for setting in unique(row.setting for row in rows)
    ]
    caption = (
        "SRCC over the test images of all parts of a dataset together, each image once, after the last "
        "experience. Best results of each section in bold."
    )
    return Table("pooled", caption, ("Setting", "Method"), orders, sections)
