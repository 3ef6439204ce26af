"""The shapes of the tables that the paper does not have: all orders, intervals, tests, transfer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import drawn_methods, label_of, namer, row_method, unique
from cliqa_bench.reports.rows import TidyRow
from cliqa_bench.reports.spread import SEEDS, SPLITS
from cliqa_bench.reports.tables.all_orders import FINISHED, STATISTICS, TRAINED
from cliqa_bench.reports.tables.jackknife import LEVEL, MOST_SEEDS, POWER
from cliqa_bench.reports.tables.shapes import (
    DIGITS,
    Section,
    Table,
    TableValue,
    build,
    only_best,
    value_of,
)
from cliqa_bench.reports.tables.statistics import (
    ALPHA,
    DRAWN,
    FIXED,
    MOST_EXACT,
    NO_CONTENTS,
    TESTED,
    too_few,
)
from cliqa_bench.reports.tables.transfer import MEASURES
from cliqa_bench.terminal import as_sentence

PickBest = Callable[[Iterable[float]], float]


def _section(
    label: str,
    rows: Sequence[TidyRow],
    column: Callable[[TidyRow], str],
    columns: Sequence[str],
    best: dict[str, PickBest],
    digits: int = DIGITS,
    whole: Sequence[str] = (),
) -> Section:
    """Sorts rows into a section; `best` says of which columns the extreme is bold, see `only_best`.

    The columns of `whole` hold whole numbers.
    """
    name = namer(rows)
    cells = {(name(row), column(row)): row for row in rows}
    names = unique(map(name, rows))
    body: list[tuple[str, list[TableValue]]] = [(n, []) for n in names]
    for head in columns:
        found = [cells.get((n, head)) for n in names]
        places = 0 if head in whole else digits
        values = [TableValue() if row is None else value_of(row, digits=places) for row in found]
        if head in best:
            values = only_best(values, best[head])
        for (_, line), value in zip(body, values, strict=True):
            line.append(value)
    return Section(label, body)


def shape_orders(rows: list[TidyRow]) -> Table:
    """A section per metric, a column per statistic over all task orders."""
    heads = dict(zip(STATISTICS, ("Mean", "Std", "Min", "Q1", "Median", "Q3", "Max"), strict=True))
    heads[FINISHED] = "Orders"

    def column(row: TidyRow) -> str:
        return heads.get(row.metric.partition(": ")[2], "")

    best: dict[str, PickBest] = dict.fromkeys(heads.values(), max)
    best["Std"] = min
    del best["Orders"]
    sections = []
    for metric in SUMMARY:
        own = [r for r in rows if r.metric.startswith(f"{metric}: ") and column(r)]
        own += [_all_finished(row, metric) for row in own if row.metric == f"{metric}: mean" and _exact(row)]
        for setting, scope in unique((row.setting, row.order) for row in own):
            some = [row for row in own if (row.setting, row.order) == (setting, scope)]
            label = f"{metric}, {setting}, {scope}"
            sections.append(_section(label, some, column, [*heads.values()], best, whole=("Orders",)))
    caption = (
        "Robustness over orders of the same datasets: mean, standard deviation (ddof = 0), extremes and "
        "quartiles of the summary numbers over all orders, computed exactly from one training per dataset; "
        "for methods whose training depends on the order, over the orders that were run. Orders: how many "
        "are finished; a dash until all of a section are. Best results of each section in bold (of "
        f"Std, the smallest).{_extremes(rows)}"
    )
    return Table("orders", caption, ("Metric", "Method"), [*heads.values()], sections)


def _exact(row: TidyRow) -> bool:
    return TRAINED not in row.note.split("; ")


def _all_finished(row: TidyRow, metric: str) -> TidyRow:
    """Returns how many orders there are, where all follow from one training per dataset."""
    total = 0.0 if math.isnan(row.value) else float(row.order.split()[1])
    return row._replace(metric=f"{metric}: {FINISHED}", value=total)


def _extremes(rows: list[TidyRow]) -> str:
    """Names the worst and the best order of the main task-agnostic methods, where orders differ at all."""
    name, sentences = namer(rows), []
    agnostic = [row for row in rows if row.setting == "Task-Agnostic"]
    chosen = drawn_methods(unique(map(row_method, agnostic)))
    told = {(name(r), r.metric): r for r in agnostic if row_method(r) in chosen}
    for method in unique(name for name, _ in told):
        worst, best = (told.get((method, f"mPSI: {word} order")) for word in ("worst", "best"))
        if worst is not None and best is not None and worst.value < best.value:
            sentences.append(
                f" {method}, mPSI: worst {worst.order} ({worst.value:.{DIGITS}f}), "
                f"best {best.order} ({best.value:.{DIGITS}f})."
            )
    return "".join(sentences)


def shape_first_task(rows: list[TidyRow]) -> Table:
    """A section per setting, a column per dataset that is learned first."""
    columns = unique(row.train_dataset for row in rows)
    sections = []
    for setting, scope in unique((row.setting, row.order) for row in rows):
        some = [row for row in rows if (row.setting, row.order) == (setting, scope)]
        others = scope.partition(" of ")[2]  # where they are not the main datasets
        label = f"{setting}, {others}" if others else setting
        best: dict[str, PickBest] = dict.fromkeys(columns, max)
        sections.append(_section(label, some, lambda row: row.train_dataset, columns, best))
    caption = (
        "First-task effect: mean of mPSI over all orders that begin with each dataset, "
        "± its standard deviation over them (ddof = 0: no order is left out). Best results of each "
        "section in bold."
    )
    return Table("first_task", caption, ("Setting", "Method"), columns, sections)


def shape_intervals(rows: list[TidyRow]) -> Table:
    """A section per setting; mSRCC, its difference to the best and the SRCC of each test set.

    The SRCC of the test sets themselves, and their differences to the best, are in the rows only.
    """

    def column(row: TidyRow) -> str:
        whole, _, end = row.metric.partition(": ")
        return f"{row.test_dataset or whole}\t{end.capitalize() or 'Value'}"

    titles = unique(row.test_dataset for row in rows if row.test_dataset)
    whole = {"mSRCC": ("Value", "Low", "High"), "mSRCC less the best": ("Value", "Low", "High")}
    spans = {**whole, **dict.fromkeys(titles, ("Low", "High"))}
    columns = [f"{span}\t{head}" for span, heads in spans.items() for head in heads]
    shown = [row for row in rows if not (row.test_dataset and "best" in row.metric)]
    sections = [
        _section(s, [r for r in shown if r.setting == s], column, columns, {"mSRCC\tValue": max})
        for s in unique(row.setting for row in rows)
    ]
    over = (
        "the jackknife over the contents of the test sets (images of one reference together), the spread "
        "over seeds"
    )
    but = " They leave out how other splits would differ and, with one seed, chance in training."
    if any(SPLITS in row.note for row in rows):
        over, but = "over splits", _SPLITS_SHARE
    caption = (
        f"{LEVEL:.0%} intervals of the SRCC after the last experience: {over}, Student's t on Fisher's z. "
        "The best is the method with the highest mSRCC of the same setting and backbone; an interval of the "
        f"difference without 0 tells the two apart.{but} Best mSRCC of each section in bold.{_left_out(rows)}"
    )
    names = [column.split("\t")[1] for column in columns]
    counts = [(span, len(heads)) for span, heads in spans.items()]
    return Table("intervals", caption, ("Setting", "Method"), names, sections, counts)


def _left_out(rows: Sequence[TidyRow]) -> str:
    """Returns the sentences on intervals that cannot be given, or not over contents; "" if all can."""
    parts = rows[0].note.split("; ")
    few = "".join(f" {as_sentence(part)}" for part in parts if part.startswith(FIXED))
    return few + (f" Dashes: {NO_CONTENTS}." if NO_CONTENTS in parts else "")


def shape_power(rows: list[TidyRow]) -> Table:
    """A section per setting and backbone, a line per pair of methods."""
    heads = {
        "": "Value", "low": "Low", "high": "High", "smallest": "Could be shown", "seeds": "Seeds needed",
    }  # fmt: skip

    def name(row: TidyRow) -> str:
        return f"{label_of(row)} less {row.metric.partition(' less ')[2].partition(': ')[0]}"

    def column(row: TidyRow) -> str:
        return heads[row.metric.partition(": ")[2]]

    kind = SPLITS if any(SPLITS in row.note for row in rows) else SEEDS
    paired, given = "the same contents, and the same seeds where both have them", "seeds and test images"
    end = (
        " Seeds needed: how many would show the difference that was found, on the same test images; a dash "
        f"if {MOST_SEEDS} are too few, or one seed gives no spread."
    )
    columns = [*heads.values()]
    if kind == SPLITS:  # seeds are no substitute for splits
        paired, given, end = "the same splits; a dash where methods have others", SPLITS, _SPLITS_SHARE
        columns.remove(heads["seeds"])
    several = len({row.backbone for row in rows}) > 1
    sections = []
    for setting, backbone in unique((row.setting, row.backbone) for row in rows):
        some = [row for row in rows if row[1:3] == (setting, backbone)]
        label = setting + (f" [{backbone}]" if several else "")
        digits = {heads["seeds"]: 0}
        sections.append(build(label, some, name, column, columns, digits=digits, best=()))
    few = unique(filter(None, (too_few(_seeds_of(row.note), kind) for row in rows)))
    caption = (
        "Difference in mSRCC between each pair of methods, after the last experience, with its "
        f"{LEVEL:.0%} interval (paired: {paired}). Could be shown: the smallest difference that these "
        f"{given} would have shown with probability {POWER}.{end}"
    )
    if few:
        caption += f" No p-values, {'; '.join(few)}."
    return Table("power", caption + _left_out(rows), ("Setting", "Pair"), columns, sections)


def _seeds_of(note: str) -> int:
    return 1 if note.startswith(("one seed", "one split")) else int(re.match(r"n=(\d+)", note)[1])  # type: ignore[index]


_SPLITS_SHARE = (
    " Splits share images: variances are corrected for it (Nadeau and Bengio, 2003: 1/n + 2/7, not 1/n)."
)


def shape_significance(rows: list[TidyRow]) -> Table:
    """A section per metric, setting and backbone; p-values of each method against each other."""

    def column(row: TidyRow) -> str:
        return row.metric.partition(": p against ")[2]

    columns = unique(map(label_of, rows))
    several = len({row.backbone for row in rows}) > 1
    sections = []
    for metric in TESTED:
        for setting, backbone in unique((row.setting, row.backbone) for row in rows):
            some = [r for r in rows if r[1:3] == (setting, backbone) and r.metric.startswith(f"{metric}:")]
            label = f"{metric}, {setting}" + (f" [{backbone}]" if several else "")
            sections.append(_section(label, some, column, columns, {}, digits=4))
    kind = SPLITS if any(SPLITS in row.note for row in rows) else SEEDS
    caption = (
        f"Exact paired permutation test between methods over {kind}: two-sided p-values of the mean "
        f"difference, all 2^n sign flips counted, not corrected for the number of comparisons. With n {kind} "
        f"the smallest p is 2/2^n, so n >= 6 is needed for {ALPHA}; pairs with fewer have none."
    )
    if kind == SPLITS:
        caption += " Splits share images, which these p-values do not correct for: see the table of power."
    if any(f"{DRAWN} drawn" in row.note for row in rows):
        caption += f" Of more than {MOST_EXACT} {kind}, {DRAWN} sign flips are drawn in place of all."
    return Table("significance", caption, ("Metric", "Method"), columns, sections)


def shape_transfer(rows: list[TidyRow]) -> Table:
    """A section per setting, a column per measure."""
    best: dict[str, PickBest] = {"Forgetting": min, "BWT": max, "FWT": max}
    sections = [
        _section(s, [r for r in rows if r.setting == s], lambda row: row.metric, [*MEASURES], best)
        for s in unique(row.setting for row in rows)
    ]
    caption = (
        "Forgetting (Chaudhry et al., 2018; the maximum begins with the experience that learns the dataset), "
        "backward and forward transfer (Lopez-Paz and Ranzato, 2017) in terms of SRCC. The baseline of FWT "
        "is 0, the expected SRCC of predictions that know nothing of the image; the oracle has no FWT, as it "
        "has no head for a dataset not yet learned. Best results of each section in bold (of forgetting, the "
        "smallest)."
    )
    return Table("transfer", caption, ("Setting", "Method"), [*MEASURES], sections)
