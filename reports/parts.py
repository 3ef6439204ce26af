"""What a report consists of: its tables, from the runs to their shapes, and the command that fills each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.reports.measure import ADAPTED
from cliqa_bench.reports.rows import RunGroup, Tidy, TidyRow, columns_of, group_records, tidy
from cliqa_bench.reports.tables import shapes
from cliqa_bench.reports.tables.added_dataset import TABLE, added_rows, shape_added
from cliqa_bench.reports.tables.all_orders import first_task_rows, order_rows
from cliqa_bench.reports.tables.beyond import (
    shape_first_task,
    shape_intervals,
    shape_orders,
    shape_power,
    shape_significance,
    shape_transfer,
)
from cliqa_bench.reports.tables.bounded import bounded_rows, shape_bounded
from cliqa_bench.reports.tables.cost import (
    gate_rows,
    overhead_rows,
    shape_gate,
    shape_overhead,
    shape_time,
    time_rows,
)
from cliqa_bench.reports.tables.cross import shape_srcc, shape_weights, srcc_rows, weight_rows
from cliqa_bench.reports.tables.design import design_rows, seed_rows, shape_design, shape_seeds
from cliqa_bench.reports.tables.further_orders import MOST, further_orders, further_tables, order_of
from cliqa_bench.reports.tables.liqe import cross_rows, shape_cross, shape_tests, test_rows
from cliqa_bench.reports.tables.liqe_tasks import (
    aspect_rows,
    gain_rows,
    left_out_rows,
    shape_aspects,
    shape_gain,
    shape_left_out,
    shape_tasks,
    task_rows,
)
from cliqa_bench.reports.tables.order_study_tables import (
    rank_rows,
    sampling_rows,
    shape_ranks,
    shape_sampling,
    shape_shares,
    share_rows,
)
from cliqa_bench.reports.tables.pooled import pooled_rows, shape_pooled
from cliqa_bench.reports.tables.shapes import Table
from cliqa_bench.reports.tables.similarity import (
    correlation_rows,
    head_rows,
    kl_rows,
    shape_correlations,
    shape_heads,
    shape_kl,
)
from cliqa_bench.reports.tables.ssiqa import (
    ablation_rows,
    block_rows,
    exemplar_rows,
    phase_rows,
    shape_ablation,
    shape_blocks,
    shape_exemplars,
    shape_phases,
    shape_transfers,
    transfer_table_rows,
)
from cliqa_bench.reports.tables.statistics import interval_rows, power_rows, significance_rows
from cliqa_bench.reports.tables.transfer import transfer_rows
from cliqa_bench.results.records import AnswerReader, read_records

if TYPE_CHECKING:
    import pandas as pd

_RUN = "python -m cliqa_bench run --strategy "


@dataclass(frozen=True)
class ReportPart:
    """A table of the report beside Tables III to VI.

    Attributes:
        number: As in the paper ("VII"), or a word for what the paper does not have ("overhead").
        title: What it shows, in a few words.
        rows: Makes its tidy rows from comparable runs; none where there is nothing to show.
        shape: Puts these rows (or the published ones) into a table.
        fill: A command that makes runs which fill it.
        in_order: Whether it is about the main order of the tasks.
        measured: Whether its numbers differ from one computation to the next (times): they are in a file of
            their own and never in `results.csv`.
        offered: Whether a report that has nothing to show in it names it, and the command that fills it.
    """

    number: str
    title: str
    rows: Callable[[RunGroup, AnswerReader], list[TidyRow]]
    shape: Callable[[list[TidyRow]], Table]
    fill: str
    in_order: bool = True
    measured: bool = False
    offered: bool = True


_aside = functools.partial(ReportPart, in_order=False, offered=False)
"""A table of another paper, or of other streams: about all orders, and there once its runs are."""

_FURTHER = f"{_RUN}tsn --test-on tid2013,spaq,agiqa3k"

PARTS: tuple[ReportPart, ...] = (
    ReportPart("VII", "design choices", design_rows, shape_design, f"{_RUN}tsn --set tsn.gate_bn=imagenet"),
    ReportPart("VIII", "divergence between the tasks' normalisation", kl_rows, shape_kl, f"{_RUN}tsn"),
    ReportPart("IX", "each task's head alone on every test set", head_rows, shape_heads, f"{_RUN}tsn"),
    ReportPart("X", "mean gate weights on further test sets", weight_rows, shape_weights, _FURTHER),
    ReportPart("XI", "SRCC on further test sets", srcc_rows, shape_srcc, _FURTHER),
    ReportPart("XII", "soft and hard gate", gate_rows, shape_gate, f"{_RUN}lwf,tsn"),
    ReportPart(
        "XIII", "mean and deviation over seeds", seed_rows, shape_seeds, f"{_RUN}lwf,tsn --seeds 0,1,2",
    ),
    ReportPart(
        "similarity", "correlation between Tables VIII and IX", correlation_rows, shape_correlations,
        f"{_RUN}tsn",
    ),
    ReportPart(
        "overhead", "parameters per task", overhead_rows, shape_overhead, f"{_RUN}tsn", in_order=False
    ),
    ReportPart(
        "bounded", "heads left out within a tolerance", bounded_rows, shape_bounded, f"{_RUN}tsn"
    ),
    ReportPart("time", "measured time and memory", time_rows, shape_time, f"{_RUN}lwf,tsn", measured=True),
    ReportPart(
        "orders", "robustness over all task orders", order_rows, shape_orders,
        f"{_RUN}tsn", in_order=False,
    ),
    ReportPart(
        "first_task", "effect of the first task", first_task_rows, shape_first_task,
        f"{_RUN}tsn", in_order=False,
    ),
    ReportPart(
        "order_ranks", "where the paper's orders lie among all", rank_rows, shape_ranks,
        f"{_RUN}tsn", in_order=False,
    ),
    ReportPart(
        "order_variance", "what the variance over all orders is made of", share_rows, shape_shares,
        f"{_RUN}lwf --orders every", in_order=False,
    ),
    ReportPart(
        "order_sampling", "what a few orders tell of all", sampling_rows, shape_sampling,
        f"{_RUN}lwf --orders every", in_order=False,
    ),
    ReportPart("intervals", "intervals over images and seeds", interval_rows, shape_intervals, f"{_RUN}all"),
    ReportPart(
        "power", "differences, and what could have been shown", power_rows, shape_power,
        f"{_RUN}lwf,tsn --seeds 0,1,2",
    ),
    ReportPart(
        "significance", "permutation tests over seeds", significance_rows, shape_significance,
        f"{_RUN}sl,lwf,tsn --seeds 0,1,2,3,4,5",
    ),
    ReportPart("transfer", "forgetting and transfer", transfer_rows, shape_transfer, f"{_RUN}all"),
    _aside(
        "ssiqa_1", "SS-IQA, from labelled to unlabelled datasets", transfer_table_rows, shape_transfers,
        f"{_RUN}ssiqa,naive --orders transfers",
    ),
    _aside(
        "ssiqa_3", "SS-IQA, ablation", ablation_rows, shape_ablation,
        f"{_RUN}ssiqa --orders transfer:live,csiq --set ssiqa.krr=false",
    ),
    _aside(
        "ssiqa_5", "SS-IQA, number of blocks", block_rows, shape_blocks,
        f"{_RUN}ssiqa --orders 'transfer:live,csiq;transfer@2:live,csiq'",
    ),
    _aside(
        "ssiqa_6", "SS-IQA, number of exemplars", exemplar_rows, shape_exemplars,
        f"{_RUN}ssiqa --orders transfer:live,csiq --set ssiqa.k1=20",
    ),
    _aside(
        "ssiqa_phases", "SS-IQA, SRCC after each experience", phase_rows, shape_phases,
        f"{_RUN}ssiqa --orders transfer:live,csiq",
    ),
    _aside(
        "liqe_1", "LIQE, correlation on every test set", test_rows, shape_tests, f"{_RUN}liqe,jl",
    ),
    _aside(
        "liqe_2", "LIQE, SRCC on further test sets", cross_rows, shape_cross,
        f"{_RUN}liqe --test-on tid2013,spaq,pipal",
    ),
    _aside(
        "liqe_4", "LIQE, ablation", left_out_rows, shape_left_out,
        f"{_RUN}liqe,jl --set liqe.weighting=equal",
    ),
    _aside(
        "liqe_5", "LIQE, with fewer tasks", task_rows, shape_tasks,
        f"{_RUN}liqe --set liqe.tasks=q",
    ),
    _aside(
        "liqe_aspects", "LIQE, accuracy of scenes and distortions", aspect_rows, shape_aspects,
        f"{_RUN}liqe",
    ),
    _aside(
        "liqe_gain", "LIQE, what scenes and distortions add", gain_rows, shape_gain,
        f"{_RUN}liqe --set liqe.tasks=q",
    ),
    ReportPart(
        TABLE, "before and after a dataset was added", added_rows, shape_added,
        f"{_RUN}tsn --orders live,csiq,bid,clive,koniq10k,kadid10k,tid2013", in_order=False,
    ),
    _aside(
        "pooled", "SRCC over all test images of a stream of parts", pooled_rows, shape_pooled,
        f"{_RUN}tsn --orders distortions:csiq",
    ),
)  # fmt: skip
"""In the order of a report."""

NUMBERS = (*shapes.SHAPES, *(part.number for part in PARTS))
"""Every table that there may be."""


def shape(number: str, rows: list[TidyRow]) -> Table:
    """Puts rows of one table, ours or the published ones, into its shape."""
    found = next((part.shape for part in PARTS if part.number == number), None)
    return found(rows) if found else replace(shapes.shape(order_of(number)[0], rows), number=number)


def what_it_shows(number: str) -> str:
    """Returns in a few words what a table shows."""
    table, _ = order_of(number)
    return {**shapes.TITLES, **{part.number: part.title for part in PARTS}}[table]


def collect(group: RunGroup, reader: AnswerReader) -> Tidy:
    """Returns all numbers of comparable runs: those of Tables III to VI and of every part.

    Raises:
        UserError: If an answer file is broken.
    """
    numbers = tidy(group, reader)
    rows = numbers.rows + [row for part in PARTS for row in part.rows(group, reader)]
    notes = numbers.notes
    if (more := len(further_orders(rows)) - (MOST - 1)) > 0:
        notes = [*notes, f"orders without Tables III and IV of their own, all in results.csv: {more}"]
    return replace(numbers, rows=rows, notes=notes)


def lasting(rows: list[TidyRow]) -> list[TidyRow]:
    """Returns the rows whose numbers are the same in every computation: those of `results.csv`."""
    measured = {part.number for part in PARTS if part.measured}
    return [row for row in rows if row.table not in measured]


def rows_by_table(rows: list[TidyRow]) -> dict[str, list[TidyRow]]:
    """Sorts rows by their table, in the order of the report; tables without rows are left out.

    Tables III and IV of other orders come last; their rows are in other tables, too.
    """
    found = {number: [row for row in rows if row.table == number] for number in NUMBERS}
    return {number: own for number, own in found.items() if own} | further_tables(rows)


def make_tables(numbers: Tidy) -> list[Table]:
    """Returns the tables for which there are rows, their captions telling where the numbers come from."""
    in_order = {"III": True, "IV": True, **{part.number: part.in_order for part in PARTS}}
    made = []
    by_table = rows_by_table(numbers.rows)
    for number, rows in by_table.items():
        table = shape(number, rows)
        if number == "III":
            table = shapes.with_intervals(table, by_table.get("intervals", []))
        number, order = order_of(number)
        if any(row.setting in ADAPTED for row in rows):
            table = replace(table, caption=f"{table.caption} {shapes.ADAPTED_SENTENCE}")
        end = shapes.about(numbers.group, number, in_order.get(number, False), order)
        made.append(replace(table, caption=f"{table.caption} {end}"))
    return made


def empty_parts(numbers: Tidy) -> list[ReportPart]:
    """Returns the parts for which there are no rows, as far as they are offered."""
    filled = {row.table for row in numbers.rows}
    return [part for part in PARTS if part.offered and part.number not in filled]


def load(out: str | Path) -> pd.DataFrame:
    """Returns the numbers of an output folder as tidy rows, unrounded.

    Where the folder holds runs that cannot be compared (another preset, split, protocol or data), the rows
    are those of the group with the newest run, as in `<out>/report/`.

    Args:
        out: Folder of the results.

    Returns:
        One number a row, columns `TIDY_COLUMNS`, and `median` where runs are on several splits; value, std
        and median are float64, nan where undefined. Measured times are not among them, as in `results.csv`.

    Raises:
        UserError: If there are no runs or a file is broken.

    Example:
        >>> frame = load("runs")
        >>> oracle = frame[(frame["method"] == "TSN-IQA-O") & (frame["metric"] == "mSI")]
        >>> oracle["value"].unique().tolist()  # its answers never change
        [1.0]
    """
    import pandas as pd

    folder = Path(out)
    reader = AnswerReader(folder)
    rows = lasting(collect(group_records(read_records(folder), reader)[0], reader).rows)
    columns = columns_of(rows)
    return pd.DataFrame([row[: len(columns)] for row in rows], columns=list(columns))
