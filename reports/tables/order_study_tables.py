"""The tables of the order study: percentile ranks, shares of the variance, what few orders tell of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cliqa_bench.order_designs import ORDERS
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import joined_note, make_row, namer, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow, order_rank
from cliqa_bench.reports.tables.all_orders import OrderStudy, note_of, order_studies
from cliqa_bench.reports.tables.order_study import (
    ERRORS,
    PAPER,
    by_chance,
    is_finished,
    paper_places,
    percentile_rank,
    tried_designs,
    variance_shares,
)
from cliqa_bench.reports.tables.shapes import Section, Table, build
from cliqa_bench.results.records import AnswerReader

_RESTRICTED = "the paper's orders restricted to these datasets"


def _studies(group: RunGroup, reader: AnswerReader) -> list[OrderStudy]:
    """Returns the finished studies of all orders; of two datasets there are too few to study."""
    found = order_studies(group, reader)
    return [study for study in found if len(study.names) > 2 and study.whole and is_finished(study)]


def rank_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns where the paper's orders lie among all, as percentile ranks, of every finished study."""
    rows = []
    for study in _studies(group, reader):
        for metric in SUMMARY:
            values = study.values[metric]
            for label, place in paper_places(study).items():
                rank = percentile_rank(values, float(values[place]))
                row = make_row("order_ranks", study.method, label, f"{metric}: percentile rank", rank)
                fewer = "" if len(study.names) == len(ORDERS["I"]) else _RESTRICTED
                rows.append(_complete(row, study, f"among {study.scope}", fewer))
    return rows


def _complete(row: TidyRow, study: OrderStudy, *notes: str) -> TidyRow:
    return row._replace(length=len(study.names), note=joined_note(*notes, note_of(study)))


def share_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the shares of the variance of every finished study; `std` is half of the 95 % interval."""
    rows = []
    for study in _studies(group, reader):
        for metric in SUMMARY:
            for factor, (share, half) in variance_shares(study.each[metric]).items():
                what = f"{metric}: {factor.replace('seed', study.unit.removesuffix('s'))}"
                row = make_row("order_variance", study.method, study.scope, what, share)
                note = "std: half of the 95 % jackknife interval over orders"
                rows.append(_complete(row._replace(std=half), study, note))
    return rows


def sampling_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns how well the paper's eight, a Williams square and random samples tell what all orders give."""
    rows = []
    for study in _studies(group, reader):
        for tried in tried_designs(study):
            for metric in SUMMARY:
                for name, value in zip(ERRORS, tried.errors[metric], strict=True):
                    about = f"{metric}: {tried.design}: {name}"
                    row = make_row("order_sampling", study.method, study.scope, about, value)
                    rows.append(_complete(row, study, f"{tried.size} orders", tried.how))
    return rows


# ---------------------------------------------------------------------------------------------- shapes


def _sections(
    rows: Sequence[TidyRow],
    column: Callable[[TidyRow], str],
    columns: list[str],
    digits: int,
    kinds: Sequence[str] = ("",),
    spread: bool = False,
) -> list[Section]:
    """A section per metric, kind (what follows it in `metric`), setting and set of datasets."""
    sections = []
    for metric in SUMMARY:
        for kind in kinds:
            begin = f"{metric}: {kind}"
            own = [row for row in rows if row.metric.startswith(begin)]
            for setting, scope in unique((row.setting, _scope(row)) for row in own):
                some = [row for row in own if (row.setting, _scope(row)) == (setting, scope)]
                label = ", ".join(filter(None, (metric, kind.removesuffix(": "), setting, scope)))
                places = dict.fromkeys(columns, digits)
                sections.append(build(label, some, namer(rows), column, columns, spread, places, best=()))
    return sections


def _scope(row: TidyRow) -> str:
    """Returns which datasets a row is of, if not of the main ones; "" if it is of those."""
    among = next((part for part in row.note.split("; ") if part.startswith("among ")), row.order)
    return among.partition(" of ")[2] if among.startswith(("all ", "among all ")) else ""


def shape_ranks(rows: list[TidyRow]) -> Table:
    """A section per metric, a column per order of the paper."""
    columns = sorted(unique(row.order for row in rows), key=order_rank)
    fewer = f" Here they are {_RESTRICTED}; some are alike." if _RESTRICTED in rows[0].note else ""
    caption = (
        "Where the paper's orders lie among all orders of the same datasets: percentile ranks, "
        f"0 being the worst order and 100 the best, ties counted half.{fewer}"
    )
    sections = _sections(rows, lambda row: row.order, columns, digits=1)
    return Table("order_ranks", caption, ("Metric", "Method"), columns, sections)


_HEADS = (
    "First", "Last", "First and last", "Neighbour", "Rest", "Seed", "Order x seed", "Split", "Order x split",
)  # fmt: skip


def _head(row: TidyRow) -> str:
    factor = row.metric.partition(": ")[2].partition(" of the ")[0]
    return factor[0].upper() + factor[1:]


def shape_shares(rows: list[TidyRow]) -> Table:
    """A section per metric, a column per factor."""
    heads = {_head(row) for row in rows}
    columns = [head for head in _HEADS if head in heads]
    units = [unit for unit in ("seed", "split") if unit.capitalize() in heads]
    unit, several = " or ".join(units), " or ".join(f"{unit}s" for unit in units)
    tasks = rows[0].length
    chance = by_chance(tasks) if isinstance(tasks, int) else {}
    told = ", ".join(f"{factor.partition(' of the ')[0]} {share:.2f}" for factor, share in chance.items())
    caption = (
        f"Shares of the variance over all orders and {several}: due to the dataset learned first, to the "
        "last one, to both, to which dataset follows which (beyond the first and the last), to the rest of "
        f"the order, to the {unit}, and to what {unit} and order do together; the last five add up to 1. ± "
        "half of the 95 % interval of a jackknife over orders, which covers neither the choice of images "
        "nor, for a single seed, chance in training. Numbers unrelated to the order would give: "
        f"{told}."
    )
    sections = _sections(rows, _head, columns, 3, spread=True)
    return Table("order_variance", caption, ("Metric", "Method"), columns, sections)


def shape_sampling(rows: list[TidyRow]) -> Table:
    """A section per metric and design, a column per error."""
    designs = unique(row.metric.split(": ")[1] for row in rows)
    heads = [name[0].upper() + name[1:] for name in ERRORS]
    sizes = {row.metric.split(": ")[1]: row.note.partition(" orders")[0] for row in rows}
    told = ", ".join(f"{design} {sizes[design]}" for design in designs if not design.startswith("random"))
    caption = (
        "How well a few orders estimate the mean and the spread over all orders: bias and root mean square "
        f"error of {PAPER}, of a Williams square under every assignment of the datasets, and of random "
        f"samples, whose names give their number of orders. Orders of the others: {told}. "
        "The spread is the standard deviation."
    )
    ends = dict(zip(ERRORS, heads, strict=True))
    sections = _sections(
        rows, lambda row: ends[row.metric.split(": ")[2]], heads, 4, [f"{design}: " for design in designs]
    )
    return Table("order_sampling", caption, ("Metric", "Method"), heads, sections)
