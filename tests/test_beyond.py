"""The shapes of the tables beyond the paper: every number at its place, and what must be said of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
from scipy import stats

from cliqa_bench.reports.parts import collect, make_tables
from cliqa_bench.reports.render import latex, markdown
from cliqa_bench.reports.rows import RunGroup, group_records
from cliqa_bench.reports.tables import beyond
from cliqa_bench.reports.tables.all_orders import first_task_rows, order_rows
from cliqa_bench.reports.tables.bounded import TOLERANCES, bounded_rows, shape_bounded
from cliqa_bench.reports.tables.shapes import Table, TableValue
from cliqa_bench.reports.tables.statistics import interval_rows, power_rows, significance_rows
from cliqa_bench.reports.tables.transfer import transfer_rows
from cliqa_bench.results.readouts import gate_weights
from cliqa_bench.results.records import AnswerReader, read_records


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunGroup, AnswerReader]:
    out = tmp_path_factory.mktemp("beyond")
    recorded.record_golden(out)
    return group_records(read_records(out))[0], AnswerReader(out)


Runs = tuple[RunGroup, AnswerReader]


def cell(table: Table, section: str, name: str, column: str) -> TableValue:
    (found,) = [s for s in table.sections if s.label == section]
    return dict(found.rows)[name][table.columns.index(column)]


def test_orders(runs: Runs) -> None:
    rows = order_rows(*runs)
    table = beyond.shape_orders(rows)
    for head, statistic in (("Mean", "mean"), ("Q1", "lower quartile"), ("Max", "maximum")):
        (row,) = [r for r in rows if (r.method, r.metric) == ("TSN-IQA", f"mPI: {statistic}")]
        assert cell(table, "mPI, Task-Agnostic, all 24", "TSN-IQA", head).mean == row.value
    same = cell(table, "mSRCC, Task-Agnostic, all 24", "TSN-IQA", "Std")
    assert same.mean == 0 and not same.bold  # nor is another's, of which all orders are alike
    (spread,) = [s for s in table.sections if s.label == "mPSI, Task-Agnostic, all 24"]
    stds = {name: values[table.columns.index("Std")] for name, values in spread.rows}
    least = min(value.mean for value in stds.values())
    assert [value.mean for value in stds.values() if value.bold] == [least]
    (worst,) = [r for r in rows if (r.method, r.metric) == ("TSN-IQA", "mPSI: worst order")]
    assert f"TSN-IQA, mPSI: worst {worst.order} ({worst.value:.3f}), best " in table.caption
    assert "TSN-IQA-O, mPSI" not in table.caption  # all its orders are alike
    orders = cell(table, "mPSI, Task-Agnostic, all 24", "TSN-IQA", "Orders")
    assert (orders.mean, orders.digits) == (24, 0)


def test_first_task(runs: Runs) -> None:
    rows = first_task_rows(*runs)
    table = beyond.shape_first_task(rows)
    assert table.columns == ["LIVE", "CSIQ", "BID", "CLIVE"]
    for row in rows:
        value = cell(table, row.setting, row.method, row.train_dataset)
        assert (value.mean, value.std) == (row.value, row.std)


def test_intervals(runs: Runs) -> None:
    rows = interval_rows(*runs)
    table = beyond.shape_intervals(rows)
    assert [s.label for s in table.sections] == ["Joint", "Task-Aware", "Task-Agnostic"]
    tests = ["LIVE", "CSIQ", "BID", "CLIVE"]
    assert table.spans == [("mSRCC", 3), ("mSRCC less the best", 3), *((test, 2) for test in tests)]
    assert table.columns == ["Value", "Low", "High"] * 2 + ["Low", "High"] * 4
    places = {f"{m}{end}": i for i, (m, end) in enumerate(
        itertools.product(("mSRCC", "mSRCC less the best"), ("", ": low", ": high"))
    )}  # fmt: skip
    places |= {
        f"{test}{end}": 6 + i for i, (test, end) in enumerate(itertools.product(tests, (": low", ": high")))
    }
    values = {(s.label, name): cells for s in table.sections for name, cells in s.rows}
    seen = 0
    for row in rows:
        place = places.get(row.metric.replace("SRCC", row.test_dataset) if row.test_dataset else row.metric)
        if place is not None:
            assert values[row.setting, row.method][place].mean == row.value
            seen += 1
    dashes = sum(math.isnan(v.mean) for cells in values.values() for v in cells)
    assert seen + dashes == len(values) * len(table.columns) and dashes == 3 * 3  # one best per setting
    assert "over the contents of the test sets" in table.caption and "Dashes" not in table.caption
    bold = [name for (label, name), cells in values.items() if cells[0].bold and label == "Task-Agnostic"]
    assert len(bold) == 1 and math.isnan(values["Task-Agnostic", bold[0]][3].mean)


def test_power(runs: Runs) -> None:
    rows = power_rows(*runs)
    table = beyond.shape_power(rows)
    heads = {"": "Value", ": low": "Low", ": high": "High", ": smallest": "Could be shown"}
    for end, head in heads.items():
        (row,) = [r for r in rows if (r.method, r.metric) == ("SL", f"mSRCC less TSN-IQA{end}")]
        assert cell(table, "Task-Agnostic", "SL less TSN-IQA", head).mean == row.value
    assert cell(table, "Task-Agnostic", "SL less TSN-IQA", "Seeds needed").digits == 0
    assert "No p-values, too few seeds: n=2 cannot reach 0.05." in table.caption
    assert not [v for s in table.sections for _, values in s.rows for v in values if v.bold]


def test_without_p_values_there_is_no_table_of_dashes(runs: Runs) -> None:
    assert not significance_rows(*runs)


def test_table_iii_has_the_intervals(runs: Runs) -> None:
    (table,) = [t for t in make_tables(collect(*runs)) if t.number == "III"]
    bounds = {(r.method, r.metric): r.value for r in interval_rows(*runs)}
    for section in table.sections:
        for method, values in section.rows:
            first, *others = values
            assert (first.low, first.high) == (bounds[method, "mSRCC: low"], bounds[method, "mSRCC: high"])
            assert all(math.isnan(v.low) for v in others)
    assert "In brackets: 95% intervals" in table.caption
    low, high = (bounds["SL", f"mSRCC: {end}"] for end in ("low", "high"))
    assert f"[{low:.3f}, {high:.3f}]" in markdown(table) and f"[{low:.3f}, {high:.3f}]" in latex(table)


def test_intervals_of_one_seed_are_over_contents(tmp_path: Path) -> None:
    group, reader = RunGroup("", [recorded.record_tsn(tmp_path)]), AnswerReader(tmp_path)
    (table,) = [t for t in make_tables(collect(group, reader)) if t.number == "III"]
    assert "In brackets: 95% intervals over contents, see the table of intervals." in table.caption


def test_six_seeds_have_a_table_of_p_values(tmp_path: Path) -> None:
    group = RunGroup("", [recorded.record_tsn(tmp_path, seed=seed) for seed in range(6)])
    rows = significance_rows(group, AnswerReader(tmp_path))
    table = beyond.shape_significance(rows)
    for row in rows:
        metric, _, rival = row.metric.partition(": p against ")
        assert cell(table, f"{metric}, Task-Agnostic", row.method, rival).mean == row.value > 0
    assert math.isnan(cell(table, "mPSI, Task-Agnostic", "TSN-IQA", "TSN-IQA").mean)
    assert "too few" not in table.caption


def test_transfer(runs: Runs) -> None:
    rows = transfer_rows(*runs)
    table = beyond.shape_transfer(rows)
    for row in rows:
        value = cell(table, row.setting, row.method, row.metric)
        same = value.mean == row.value or (math.isnan(value.mean) and math.isnan(row.value))
        assert same and (row.metric == "FWT") >= math.isnan(value.mean)
    agnostic = {name: values[0] for name, values in table.sections[1].rows}
    least = min(agnostic, key=lambda name: agnostic[name].mean)
    assert [name for name, value in agnostic.items() if value.bold] == [least]


def test_bounded(runs: Runs) -> None:
    """Against a loop over images, heads and subsets."""
    group, reader = runs
    rows = bounded_rows(group, reader)
    record = next(r for r in group.records if r.strategy == "tsn" and r.order == group.main_order)
    table = shape_bounded(rows)
    (section,) = table.sections
    assert [name for name, _ in section.rows] == [f"{tolerance:g}" for tolerance in TOLERANCES]
    told = {row.metric: row for row in rows}
    assert {row.length for row in rows} == {len(record.steps)}
    for tolerance in TOLERANCES:
        used, held, agreement, largest = [], [], [], []
        errors: list[float] = []
        for run in (r for r in group.records if (r.strategy, r.order) == ("tsn", group.main_order)):
            before = len(errors)
            for test in run.sequence:
                answers = reader.answers(run, len(run.steps) - 1, test)
                assert answers is not None and answers.distances is not None
                weights = gate_weights(answers.distances, run.tau)
                predicted = []
                for w, s in zip(weights, answers.scores.astype(float), strict=True):
                    order = np.argsort(w, kind="stable").tolist()
                    gone: list[int] = []
                    while sum(w[k] for k in [*gone, order[len(gone)]]) <= tolerance:
                        gone.append(order[len(gone)])
                    predicted.append(sum(w[k] * s[k] for k in order if k not in gone))
                    used.append(len(w) - len(gone))
                    errors.append(abs(predicted[-1] - float(w @ s)))
                    # the recorded scores are not cosines: some lie outside [-1, 1]
                    held.append(errors[-1] <= sum(w[k] for k in gone) + 1e-12)
                agreement.append(stats.spearmanr(predicted, answers.mos)[0])
            largest.append(max(errors[before:]))
        assert told[f"Heads: {tolerance:g}"].value == pytest.approx(np.mean(used))
        assert told[f"mSRCC: {tolerance:g}"].value == pytest.approx(np.mean(agreement))
        # of any image of a seed, the mean over the seeds
        assert told[f"Largest error: {tolerance:g}"].value == pytest.approx(np.mean(largest), abs=1e-12)
        assert told[f"Bound held (%): {tolerance:g}"].value == pytest.approx(100 * np.mean(held))
        assert told[f"Saved (%): {tolerance:g}"].value == pytest.approx(100 - 100 * np.mean(used) / len(w))


def test_the_bounded_gate_is_read_with_the_run_s_temperature(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    group, reader = RunGroup("", [replace(record, tau=2.0)]), AnswerReader(tmp_path)
    told = {row.metric: row.value for row in bounded_rows(group, reader)}
    used = []
    for test in record.sequence:
        answers = reader.answers(record, len(record.steps) - 1, test)
        assert answers is not None and answers.distances is not None
        near = np.exp(-2.0 * answers.distances.astype(float))
        smallest = (near / near.sum(axis=1, keepdims=True)).mean(axis=2).min(axis=1)
        used += [4 - (weight <= 0.1) for weight in smallest]
    assert min(used) == 4, "so mild a gate needs every head"
    assert told["Heads: 0.1"] == 4


def test_they_are_rendered(runs: Runs) -> None:
    for rows, shape in (
        (order_rows(*runs), beyond.shape_orders),
        (interval_rows(*runs), beyond.shape_intervals),
        (power_rows(*runs), beyond.shape_power),
        (transfer_rows(*runs), beyond.shape_transfer),
    ):
        table = shape(rows)
        assert f"**{table.title}.**" in markdown(table) and "\\toprule" in latex(table)
