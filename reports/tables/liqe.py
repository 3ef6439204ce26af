"""LIQE's Tables 1 and 2: correlation on the test sets of what was learned, and on further ones.

They are about the runs of the main order, and those that learned its datasets jointly. The tables of the
tasks are in `liqe_tasks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from cliqa_bench import metrics
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, label_of, predict, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import Replicate, spread
from cliqa_bench.reports.tables.cross import further_tests
from cliqa_bench.reports.tables.shapes import Section, Table, build
from cliqa_bench.reports.tables.ssiqa import options_of
from cliqa_bench.reports.tables.tsn import Runs
from cliqa_bench.results.records import AnswerReader

METHOD, CONTINUAL, JOINT = "LIQE", "LIQE-CL", "JL"
OURS = (METHOD, CONTINUAL)
PLCC = "PLCC (logistic)"
"""The paper's PLCC is taken after a logistic fit to the test set."""
ABLATED = ("tasks", "weighting", "freeze_text")
"""Options that the paper's Tables 4 and 5 are about."""
PUBLISHED = "published"
"""Note of rows with the paper's numbers, beside ours."""


def liqe_runs(group: RunGroup) -> dict[Method, Runs]:
    """Returns the runs of every method that was trained as LIQE was, {} if none is LIQE's.

    These are LIQE and LIQE-CL with all variants, and what else learned the datasets jointly.
    """
    found = {
        method: runs
        for method, runs in sources(group).items()
        if (method.method in OURS or method.setting == "Joint")
        and all(source.readout == "last" for source in runs.values())
    }
    return found if any(m.method in OURS for m in found) else {}


def about(table: str, group: RunGroup, method: Method, runs: Runs) -> TidyRow:
    """Returns a row without a number: who, and what was learned."""
    record = next(iter(runs.values())).record
    joint = method.setting == "Joint"
    order, length = ("", "") if joint else (group.main_order, len(record.steps))
    learned = "+".join(record.titles.get(name, name) for name in record.sequence)
    return TidyRow(table, *method, order, length, learned, "", "", math.nan, math.nan, "")


def filled(
    row: TidyRow, group: RunGroup, metric: str, test: str, values: Mapping[Replicate, float]
) -> TidyRow:
    """Returns a row with the number that each run has, see `spread`."""
    found = spread(values)
    note = joined_note(found.note, group.caution)
    row = row._replace(metric=metric, test_dataset=test, note=note)
    return row._replace(value=found.mean, std=found.std, median=found.median)


def srcc_of(reader: AnswerReader, source: RunReadout, test: str) -> float:
    """Returns the SRCC of a run on a test set after the last experience, nan where answers are missing."""
    return _correlation(reader, source, test, metrics.srcc)


def mean_srcc_of(reader: AnswerReader, source: RunReadout) -> float:
    """Returns the mean SRCC of a run over the datasets that it learned."""
    return fmean(srcc_of(reader, source, test) for test in source.record.sequence)


def _correlation(reader: AnswerReader, source: RunReadout, test: str, of: Callable[..., float]) -> float:
    told = predict(reader, source, len(source.record.steps) - 1, test)
    return metrics.NAN if told is None else of(told.scores, told.mos)


def _whole(group: RunGroup) -> Iterator[tuple[Method, Runs]]:
    """Yields the methods that nothing was left out of."""
    for method, runs in liqe_runs(group).items():
        if not (method.method in OURS and options_of(method.variant).keys() & set(ABLATED)):
            yield method, runs


def test_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 1: SRCC and PLCC on the test images of every dataset.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    return _rows("liqe_1", group, reader, {"SRCC": metrics.srcc, PLCC: metrics.plcc_logistic})


def cross_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 2: SRCC on test sets from which nothing was learned.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    return _rows("liqe_2", group, reader, {"SRCC": metrics.srcc})


def _rows(
    table: str, group: RunGroup, reader: AnswerReader, numbers: Mapping[str, Callable[..., float]]
) -> list[TidyRow]:
    rows = []
    for method, runs in _whole(group):
        row = about(table, group, method, runs)
        record = next(iter(runs.values())).record
        for test in group.main_record.sequence if table == "liqe_1" else further_tests(runs):
            for metric, of in numbers.items():
                values = {run: _correlation(reader, source, test, of) for run, source in runs.items()}
                rows.append(filled(row, group, metric, record.titles.get(test, test), values))
    return rows


# ----------------------------------------------------------------------------------------------------- shapes


def names_of(rows: Sequence[TidyRow], name: Callable[[TidyRow], str] = label_of) -> Callable[[TidyRow], str]:
    """Returns the names of rows: with the backbone if there are several; the paper's may have none."""
    if len({row.backbone for row in rows} - {""}) < 2:
        return name
    return lambda row: name(row) + (f" [{row.backbone}]" if row.backbone else "")


def by_setting(
    rows: Sequence[TidyRow],
    column: Callable[[TidyRow], str],
    columns: Iterable[str],
    name: Callable[[TidyRow], str] = label_of,
) -> list[Section]:
    """Puts rows into a section per setting; none is marked as the best: the paper's stand beside ours."""
    called = names_of(rows, name)
    return [
        build(setting, [r for r in rows if r.setting == setting], called, column, [*columns], True, best=())
        for setting in unique(row.setting for row in rows)
    ]


def shape_tests(rows: list[TidyRow]) -> Table:
    """A section per setting, a row per method, two columns per test set."""
    tests, heads = unique(row.test_dataset for row in rows), ("SRCC", PLCC)
    columns = [f"{test}\t{head}" for test in tests for head in heads]
    sections = by_setting(rows, lambda row: f"{row.test_dataset}\t{row.metric}", columns)
    caption = (
        "LIQE (Table 1 of its paper): SRCC, and PLCC after a logistic fit, on the test images of each "
        "dataset, beside the other methods that learned all datasets jointly."
    )
    return Table(
        "liqe_1", caption, ("Setting", "Method"), ["SRCC", "PLCC"] * len(tests), sections,
        [(test, len(heads)) for test in tests], "Test set",
    )  # fmt: skip


def shape_cross(rows: list[TidyRow]) -> Table:
    """A section per setting, a row per method, a column per test set."""
    tests = unique(row.test_dataset for row in rows)
    caption = "LIQE (Table 2 of its paper): SRCC on test sets from which nothing was learned."
    sections = by_setting(rows, lambda row: row.test_dataset, tests)
    return Table("liqe_2", caption, ("Setting", "Method"), tests, sections)
