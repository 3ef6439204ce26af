"""Forgetting, backward and forward transfer: the measures of the literature beside PI and SI."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.methods import joined_note, make_row, matrices_of, sources
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import AnswerReader

MEASURES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "Forgetting": metrics.forgetting,
    "BWT": metrics.backward_transfer,
    "FWT": metrics.forward_transfer,
}


def transfer_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns forgetting, BWT and FWT of every method in the main order, means over seeds (std with ddof=1).

    FWT of the oracle is nan: it has no head for a dataset that is not learned yet.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, seeds in sources(group).items():
        if method.setting == "Joint":
            continue
        matrices = [matrices_of(reader, source)[0] for source in seeds.values()]
        several = f"n={len(seeds)} seeds" if len(seeds) > 1 else ""
        note = joined_note(several, group.caution)
        for metric, measure in MEASURES.items():
            values = [measure(agreement) for agreement in matrices]
            std = statistics.stdev(values) if len(values) > 1 and np.isfinite(values).all() else np.nan
            row = make_row("transfer", method, group.main_order, metric, statistics.fmean(values), note)
            rows.append(row._replace(length=len(matrices[0]), std=std))
    return rows
