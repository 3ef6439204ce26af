"""Forgetting, backward and forward transfer: the measures of the literature beside PI and SI."""

from __future__ import annotations

from collections.abc import Callable

from cliqa_bench import metrics
from cliqa_bench.reports.methods import matrices_of, sources
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables.tsn import length_of, over_runs
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.types import Floats

MEASURES: dict[str, Callable[[Floats], float]] = {
    "Forgetting": metrics.forgetting,
    "BWT": metrics.backward_transfer,
    "FWT": metrics.forward_transfer,
}


def transfer_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns forgetting, BWT and FWT of every method in the main order, means over seeds or splits.

    FWT of the oracle is nan: it has no head for a dataset that is not learned yet.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, runs in sources(group).items():
        if method.setting == "Joint":
            continue
        matrices = {run: matrices_of(reader, source)[0] for run, source in runs.items()}
        for metric, measure in MEASURES.items():
            values = {run: measure(agreement) for run, agreement in matrices.items()}
            rows.append(over_runs("transfer", method, group, metric, values)._replace(length=length_of(runs)))
    return rows
