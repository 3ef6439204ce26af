"""What several tables need: the runs of a strategy (by default TSN-IQA), and one row from several numbers."""

from __future__ import annotations

from collections.abc import Mapping

from cliqa_bench import metrics
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, make_row, matrices_of, sources
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import Replicate, spread
from cliqa_bench.results.records import AnswerReader

Runs = dict[Replicate, RunReadout]
"""Split and seed -> the run, and how it is read."""


def runs_of(group: RunGroup, strategy: str, readout: str = "gate") -> dict[Method, Runs]:
    """Returns the runs of a strategy in the main order under a readout, all its variants."""
    return {
        method: runs
        for method, runs in sources(group).items()
        if all((s.record.strategy, s.readout) == (strategy, readout) for s in runs.values())
    }


def default_runs(group: RunGroup, strategy: str = "tsn", readout: str = "gate") -> dict[Method, Runs]:
    """Returns those of `runs_of` with the default hyper-parameters; of backbones that lack them, all."""
    found = runs_of(group, strategy, readout)
    plain = {method.backbone for method in found if not method.variant}
    return {m: runs for m, runs in found.items() if not m.variant or m.backbone not in plain}


def over_runs(
    table: str,
    method: Method,
    group: RunGroup,
    metric: str,
    values: Mapping[Replicate, float],
    note: str = "",
) -> TidyRow:
    """Returns the row of a number that each run has: mean, deviation and median, see `spread`."""
    found = spread(values)
    told = joined_note(note, found.note, group.caution)
    row = make_row(table, method, group.main_order, metric, found.mean, told)
    return row._replace(std=found.std, median=found.median)


def summaries(reader: AnswerReader, runs: Runs) -> dict[str, dict[Replicate, float]]:
    """Returns mSRCC, mPI, mSI and mPSI of every run."""
    found = {run: metrics.summary(*matrices_of(reader, source)) for run, source in runs.items()}
    return {metric: {run: getattr(s, metric) for run, s in found.items()} for metric in SUMMARY}


def length_of(runs: Runs) -> int:
    """Returns the number of experiences."""
    return len(next(iter(runs.values())).record.steps)
