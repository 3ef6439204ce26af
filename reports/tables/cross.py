"""Tables X and XI: TSN-IQA on datasets that are not part of the sequence."""

from __future__ import annotations

from cliqa_bench import metrics
from cliqa_bench.reports.methods import namer, predict, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import Replicate
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.reports.tables.tsn import Runs, default_runs, length_of, over_runs
from cliqa_bench.results.readouts import gate_weights
from cliqa_bench.results.records import AnswerReader, RunRecord

WEIGHT = "mean weighting"


def further_tests(runs: Runs) -> list[str]:
    """Returns the names of the test sets that are not part of the sequence."""
    records = [source.record for source in runs.values()]
    return unique(t for record in records for t in record.tests if t not in record.sequence)


def _mean_weights(reader: AnswerReader, record: RunRecord, test: str) -> list[float]:
    """The mean weight of each head over the images of a test set, after the last experience."""
    answers = reader.answers(record, len(record.steps) - 1, test)
    if answers is None or answers.distances is None:
        return [metrics.NAN] * len(record.sequence)
    return [float(w) for w in gate_weights(answers.distances, answers.tau).mean(axis=0)]


def _srcc(reader: AnswerReader, runs: Runs, test: str) -> dict[Replicate, float]:
    """SRCC of every run after the last experience, nan where answers are missing."""
    told = {run: predict(reader, s, len(s.record.steps) - 1, test) for run, s in runs.items()}
    return {run: metrics.NAN if p is None else metrics.srcc(p.scores, p.mos) for run, p in told.items()}


def weight_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns mean gate weights and SRCC by further test set (Table X), means over seeds or splits.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, runs in default_runs(group).items():
        record = next(iter(runs.values())).record
        for test in further_tests(runs):
            weights = [_mean_weights(reader, s.record, test) for s in runs.values()]
            own = [
                over_runs("X", method, group, WEIGHT, dict(zip(runs, column, strict=True)))._replace(
                    train_dataset=record.titles[head]
                )
                for head, column in zip(record.sequence, zip(*weights, strict=True), strict=True)
            ]
            own.append(over_runs("X", method, group, "SRCC", _srcc(reader, runs, test)))
            title = record.titles.get(test, test)
            rows += [r._replace(length=length_of(runs), test_dataset=title) for r in own]
    return rows


def srcc_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the SRCC by backbone and further test set (Table XI), means over seeds or splits.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, runs in default_runs(group).items():
        titles = next(iter(runs.values())).record.titles
        for test in further_tests(runs):
            row = over_runs("XI", method, group, "SRCC", _srcc(reader, runs, test))
            rows.append(row._replace(length=length_of(runs), test_dataset=titles.get(test, test)))
    return rows


def shape_weights(rows: list[TidyRow]) -> Table:
    """A row per test set, a column per head and one for SRCC."""
    heads, name = unique(row.train_dataset for row in rows if row.metric == WEIGHT), namer(rows)
    several = len({name(row) for row in rows}) > 1
    columns = [*heads, "SRCC"]
    sections = [
        build(
            label if several else "",
            [row for row in rows if name(row) == label],
            lambda row: row.test_dataset,
            lambda row: row.train_dataset or row.metric,
            columns,
            best=(),
        )
        for label in unique(map(name, rows))
    ]
    caption = (
        "Mean weight that the gate gives to the head of each dataset learned, and SRCC, on test sets that "
        "are not part of the sequence, after the last experience."
    )
    return Table(
        "X", caption, ("Method", "Test set"), columns, sections, [("Mean weight", len(heads)), ("", 1)]
    )


def shape_srcc(rows: list[TidyRow]) -> Table:
    """A row per method and backbone, a column per test set."""
    columns = unique(row.test_dataset for row in rows)

    def name(row: TidyRow) -> str:
        return f"{row.method}{f' ({row.variant})' if row.variant else ''} [{row.backbone}]"

    caption = (
        "SRCC on test sets that are not part of the sequence, after the last experience. "
        "Best results in bold."
    )
    section = build("", rows, name, lambda row: row.test_dataset, columns)
    return Table("XI", caption, ("", "Method"), columns, [section])
