"""What the tables about TSN-IQA alone need: its runs, and one row from the numbers of several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from cliqa_bench import metrics
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, make_row, matrices_of, sources
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.results.records import AnswerReader

Seeds = dict[int, RunReadout]
"""Seed -> the run, and how it is read."""


def runs_of(group: RunGroup, strategy: str, readout: str = "gate") -> dict[Method, Seeds]:
    """Returns the runs of a strategy in the main order under a readout, all its variants."""
    return {
        method: seeds
        for method, seeds in sources(group).items()
        if all((s.record.strategy, s.readout) == (strategy, readout) for s in seeds.values())
    }


def default_runs(group: RunGroup, strategy: str = "tsn", readout: str = "gate") -> dict[Method, Seeds]:
    """Returns those of `runs_of` with the default hyper-parameters; of backbones that lack them, all."""
    found = runs_of(group, strategy, readout)
    plain = {method.backbone for method in found if not method.variant}
    return {m: seeds for m, seeds in found.items() if not m.variant or m.backbone not in plain}


def over_seeds(
    table: str, method: Method, group: RunGroup, metric: str, values: Sequence[float], note: str = ""
) -> TidyRow:
    """Returns the row of a number that each seed has: mean and standard deviation (ddof=1).

    A seed without a value makes the mean nan, and is not left out of it.
    """
    complete = bool(values) and all(math.isfinite(v) for v in values)
    several = f"n={len(values)} seeds" if len(values) > 1 else ""
    mean = statistics.fmean(values) if complete else math.nan
    told = joined_note(note, several, group.caution)
    row = make_row(table, method, group.main_order, metric, mean, told)
    return row._replace(std=statistics.stdev(values) if complete and len(values) > 1 else math.nan)


def summaries(reader: AnswerReader, seeds: Seeds) -> dict[str, list[float]]:
    """Returns mSRCC, mPI, mSI and mPSI of every seed."""
    found = [metrics.summary(*matrices_of(reader, source)) for source in seeds.values()]
    return {metric: [getattr(summary, metric) for summary in found] for metric in SUMMARY}


def length_of(seeds: Seeds) -> int:
    """Returns the number of experiences."""
    return len(next(iter(seeds.values())).record.steps)
