"""Tables VIII and IX: how far apart the tasks' normalisations are, and how well one task does on another."""

from __future__ import annotations

import numpy as np

from cliqa_bench import metrics
from cliqa_bench.reports.methods import namer, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.reports.tables.tsn import default_runs, over_runs
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.types import Floats

CORRELATIONS = ("all cells, ordinal ranks", "all cells, average ranks", "off the diagonal, average ranks")


def kl_matrix(reader: AnswerReader, record: RunRecord) -> Floats | None:
    """Returns KL(row || column) between the last normalisation layers of a run's tasks.

    Returns:
        (T, T) float64 in nats, nan where a task's training is not finished; None where no task owns
        normalisation statistics.

    Raises:
        UserError: If a file is broken.
    """
    norms = [reader.norm(node) for node, _ in record.steps[-1].heads]
    if all(norm is None for norm in norms):
        return None
    return np.array([
        [metrics.NAN if p is None or q is None else metrics.gaussian_kl(*p, *q) for q in norms] for p in norms
    ])  # fmt: skip


def head_matrix(reader: AnswerReader, record: RunRecord) -> Floats:
    """Returns the SRCC of each task's own normalisation and head (row) on each test set (column).

    Returns:
        (T, T) float64, nan where answers are missing.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    tasks = len(record.steps[-1].heads)
    matrix = np.full((tasks, len(record.sequence)), np.nan)
    for k, test in enumerate(record.sequence):
        answers = reader.answers(record, len(record.steps) - 1, test)
        if answers is not None:
            both = np.vstack([answers.scores.T.astype(np.float64), answers.mos])
            matrix[:, k] = metrics.spearman(both)[:-1, -1]
    return matrix


def correlations(kl: Floats, srcc: Floats) -> dict[str, float]:
    """Returns the rank correlations between the cells of Tables VIII and IX.

    The paper's -0.776 is the one over all cells, the diagonal included, whose zeros are ranked by position.

    Args:
        kl: (T, T) divergences.
        srcc: (T, T) rank correlations, rows and columns as in `kl`.

    Returns:
        A number in [-1, 1] for each of `CORRELATIONS`, nan where a cell is.
    """
    off = ~np.eye(len(kl), dtype=bool)
    values = (
        metrics.srcc_ordinal(kl.ravel(), srcc.ravel()),
        metrics.srcc(kl.ravel(), srcc.ravel()),
        metrics.srcc(kl[off], srcc[off]),
    )
    return dict(zip(CORRELATIONS, values, strict=True))


def _matrix_rows(group: RunGroup, reader: AnswerReader, table: str) -> list[TidyRow]:
    """Rows of one of the two matrices, see `over_runs`; none for runs without statistics of their own."""
    rows = []
    for method, runs in default_runs(group).items():
        records = [source.record for source in runs.values()]
        found = [kl_matrix(reader, record) for record in records]
        matrices = [m for m in found if m is not None]
        if len(matrices) < len(records):
            continue
        if table == "IX":
            matrices = [head_matrix(reader, record) for record in records]
        titles = [records[0].titles.get(name, name) for name in records[0].sequence]
        for i, train in enumerate(titles):
            for j, test in enumerate(titles):
                metric = "KL" if table == "VIII" else "SRCC"
                cells = {run: float(m[i, j]) for run, m in zip(runs, matrices, strict=True)}
                row = over_runs(table, method, group, metric, cells)
                rows.append(row._replace(setting="", train_dataset=train, test_dataset=test))
    return rows


def kl_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the divergences of Table VIII.

    Raises:
        UserError: If a file is broken.
    """
    return _matrix_rows(group, reader, "VIII")


def head_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the rank correlations of Table IX.

    Raises:
        UserError: If a file is broken or files do not belong together.
    """
    return _matrix_rows(group, reader, "IX")


def correlation_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the rank correlations between Tables VIII and IX, means over seeds or splits.

    Raises:
        UserError: If a file is broken or files do not belong together.
    """
    rows = []
    for method, runs in default_runs(group).items():
        pairs = [(kl_matrix(reader, s.record), head_matrix(reader, s.record)) for s in runs.values()]
        per_run = [correlations(kl, srcc) for kl, srcc in pairs if kl is not None]
        if len(per_run) == len(pairs):
            for metric in CORRELATIONS:
                values = {run: found[metric] for run, found in zip(runs, per_run, strict=True)}
                row = over_runs("similarity", method, group, metric, values)
                rows.append(row._replace(setting=""))
    return rows


def correlations_of_rows(kl: list[TidyRow], srcc: list[TidyRow]) -> list[TidyRow]:
    """Returns the rank correlations between the rows of one Table VIII and those of one Table IX."""
    cells = {(row.train_dataset, row.test_dataset): row.value for row in srcc}
    titles = unique(row.train_dataset for row in kl)
    known = {(row.train_dataset, row.test_dataset): row.value for row in kl}
    both = [np.array([[table[a, b] for b in titles] for a in titles]) for table in (known, cells)]
    blank = kl[0]._replace(table="similarity", train_dataset="", test_dataset="", std=metrics.NAN, note="")
    return [blank._replace(metric=m, value=v) for m, v in correlations(both[0], both[1]).items()]


def _shape(number: str, rows: list[TidyRow], caption: str, best: tuple[str, ...] | None) -> Table:
    columns, name = unique(row.test_dataset for row in rows), namer(rows)
    several = len({name(row) for row in rows}) > 1
    sections = [
        build(
            label if several else "",
            [row for row in rows if name(row) == label],
            lambda row: row.train_dataset,
            lambda row: row.test_dataset,
            columns,
            best=best,
        )
        for label in unique(map(name, rows))
    ]
    return Table(number, caption, ("Method", "Dataset"), columns, sections)


def shape_kl(rows: list[TidyRow]) -> Table:
    """A row and a column per dataset."""
    caption = (
        "Kullback-Leibler divergence KL(row || column), in nats and summed over the channels, between the "
        "running statistics of the last normalisation layer of each task, taken for Gaussians with diagonal "
        "covariance (direction, base of the logarithm and sum are not stated in the paper)."
    )
    return _shape("VIII", rows, caption, ())


def shape_heads(rows: list[TidyRow]) -> Table:
    """A row per dataset learned, a column per test set."""
    caption = (
        "SRCC of each task's own normalisation and head (row) on every test set (column), without a gate. "
        "Best result of each column in bold."
    )
    return _shape("IX", rows, caption, None)


def shape_correlations(rows: list[TidyRow]) -> Table:
    """A row per method, a column per way of ranking."""
    columns, name = [column for column in CORRELATIONS if any(r.metric == column for r in rows)], namer(rows)
    caption = (
        "SRCC between the cells of Tables VIII and IX. Ordinal ranks (ties, such as the zeros of the "
        "diagonal, are ranked by position) are what the paper uses; without the diagonal, intra-dataset "
        "results do not count."
    )
    heads = [column.capitalize() for column in columns]
    section = build("", rows, name, lambda row: row.metric.capitalize(), heads, True, best=())
    return Table("similarity", caption, ("", "Method"), heads, [section])
