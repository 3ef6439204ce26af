"""The order study: every number against ten lines of numpy or scipy, and what it says of unfinished work."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
from scipy import stats

from cliqa_bench import metrics
from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.recomputed_intervals import student_quantile
from cliqa_bench.reports.audit.recomputed_orders import COVERED
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.figures.orders import apart, draw_orders, strokes
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import RunReadout, matrices_of
from cliqa_bench.reports.parts import PARTS, collect, make_tables, shape
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Gap, RunGroup, Tidy, TidyRow, group_records, unfinished_lines
from cliqa_bench.reports.tables.all_orders import (
    FEWEST,
    TRAINED,
    first_task_rows,
    order_rows,
    order_studies,
)
from cliqa_bench.reports.tables.order_study import (
    DRAWS,
    SHARES,
    by_chance,
    design_errors,
    design_of,
    drawn_samples,
    paper_orders,
    percentile_rank,
    sample_errors,
    variance_shares,
    williams_designs,
)
from cliqa_bench.results.records import AnswerReader, RunRecord, Step, read_records, write_record
from cliqa_bench.types import TIDY_COLUMNS

NAMES = recorded.ORDERS["I"]
EVERY = list(itertools.permutations(NAMES))
PLACES = np.array(list(itertools.permutations(range(4))))
SHARES_SEEN = 6.3e-14
"""Largest difference between the two paths seen in a share, of 720 orders; that of other numbers is 4e-16."""


def record_trained(out: Path, order: tuple[str, ...], seed: int = 0) -> RunRecord:
    """Records a single head that is trained on: a node for every prefix, which orders share."""
    steps, answers = [], {}
    for t, name in enumerate(order):
        node = f"si-{'-'.join(order[: t + 1])}-{seed}"
        skill = {test: 0.8 - 0.1 * (t - k) for k, test in enumerate(order[: t + 1])}
        spec: dict[str, object] = {"prefix": list(order[: t + 1]), "seed": seed}
        answers[node] = {
            test: recorded._answer(out, node, spec, test, skill.get(test, 0.3), recorded.IMAGES)
            for test in order
        }
        steps.append(Step(name, [(node, 0)]))
    return recorded._record(
        out, "si", {"last": "SI"}, ",".join(order), list(order), seed, True, {}, answers, {}, steps
    )


def brute(record: RunRecord, reader: AnswerReader) -> metrics.Summary:
    return metrics.summary(*matrices_of(reader, RunReadout(record, "last")))


def rows_of(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    return [row for part in PARTS if part.number in COVERED for row in part.rows(group, reader)]


# -- shares of the variance ----------------------------------------------------------------------------------


def fitted(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the sum of squares that columns explain, by numpy's own least squares."""
    centred = y - y.mean()
    x = np.hstack([np.ones((len(y), 1)), x])
    rest = centred - x @ np.linalg.lstsq(x, centred, rcond=None)[0]
    return float(centred @ centred - rest @ rest)


def oracle(y: np.ndarray, places: np.ndarray) -> dict[str, float]:
    """Returns the shares of (seeds, N) values of any orders."""
    n = places.shape[1]
    mean, seeds = y.mean(axis=0), len(y)
    first = np.eye(n)[places[:, 0]]
    last = np.eye(n)[places[:, -1]]
    pairs = [[(a, b) in set(itertools.pairwise(row)) for a in range(n) for b in range(n)] for row in places]
    both, follow = fitted(np.hstack([first, last]), mean), fitted(np.array(pairs, float), mean)
    total = ((y - y.mean()) ** 2).sum()
    orders = seeds * ((mean - mean.mean()) ** 2).sum()
    seed = len(places) * ((y.mean(axis=1) - y.mean()) ** 2).sum()
    parts = [
        seeds * fitted(first, mean), seeds * fitted(last, mean), seeds * both, seeds * (follow - both),
        orders - seeds * follow, seed, total - orders - seed,
    ]  # fmt: skip
    return dict(zip(SHARES, np.array(parts) / total, strict=True))


@pytest.mark.parametrize("seeds", [1, 3])
def test_shares_and_their_jackknife_against_numpy(seeds: int) -> None:
    y = np.random.default_rng(0).normal(size=(seeds, 24)) + np.array([0, 1, 0, 2])[PLACES[:, 0]]
    told, expected = variance_shares(y), oracle(y, PLACES)
    without = [oracle(np.delete(y, i, axis=1), np.delete(PLACES, i, axis=0)) for i in range(24)]
    for factor in SHARES:
        share, half = told[factor]
        if seeds == 1 and "seed" in factor:
            assert math.isnan(share) and math.isnan(half)
            continue
        each = np.array([one[factor] for one in without])
        error = math.sqrt(23 / 24 * ((each - each.mean()) ** 2).sum())
        # 1.2e-15 and 3.1e-15 were seen
        assert share == pytest.approx(expected[factor], abs=4e-15)
        assert half == pytest.approx(student_quantile(0.975, 23) * error, abs=1e-14)
    assert sum(told[f][0] for f in SHARES[2:] if math.isfinite(told[f][0])) == pytest.approx(1, abs=4e-15)


def test_the_first_tasks_share_is_that_of_scipys_analysis_of_variance() -> None:
    y = np.random.default_rng(1).normal(size=(1, 24))
    for factor, column in (("first", 0), ("last", -1)):
        groups = [y[0, PLACES[:, column] == task] for task in range(4)]
        share = variance_shares(y)[factor][0]
        f = share / 3 / ((1 - share) / 20)
        assert f == pytest.approx(stats.f_oneway(*groups).statistic, rel=1e-13)


def test_what_depends_on_one_thing_alone_is_its_share() -> None:
    effect = np.random.default_rng(2).normal(size=(4, 4))
    first, last = effect[0][PLACES[:, 0]], effect[1][PLACES[:, -1]]
    follow = effect[PLACES[:, :-1], PLACES[:, 1:]].sum(axis=1)
    for y, ones, zeros in (
        (first, {"first", "first and last"}, {"neighbour", "rest of the order"}),
        (first + last, {"first and last"}, {"neighbour", "rest of the order"}),
        (follow, set(), {"rest of the order"}),
    ):
        told = variance_shares(y[None])
        assert all(told[factor][0] == pytest.approx(1, abs=1e-14) for factor in ones)
        assert all(told[factor][0] == pytest.approx(0, abs=1e-14) for factor in zeros)
    assert 0.05 < told["neighbour"][0] < 0.95


def test_chance_explains_what_degrees_of_freedom_say() -> None:
    rng, n = np.random.default_rng(3), 400
    each = [variance_shares(rng.normal(size=(1, 24))) for _ in range(n)]
    expected = by_chance(4)
    assert expected == {
        "first": 3 / 23, "last": 3 / 23, "first and last": 6 / 23, "neighbour": 5 / 23,
        "rest of the order": 12 / 23,
    }  # fmt: skip
    for factor, share in expected.items():
        shares = np.array([one[factor][0] for one in each])
        # fixed draws; at most 1.8 standard errors were seen
        assert abs(shares.mean() - share) < 4 * shares.std() / math.sqrt(n)


def test_shares_that_have_no_meaning_are_nan() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(2, 24))
    y[1, 5] = math.nan
    alike = np.full((1, 24), 0.9) + 1e-8 * rng.normal(size=24)
    for values in (y, alike):
        assert all(math.isnan(share) for pair in variance_shares(values).values() for share in pair)
    three = variance_shares(rng.normal(size=(1, 6)))  # as many neighbours as orders
    assert math.isnan(three["neighbour"][0]) and math.isnan(three["rest of the order"][0])
    assert 0 <= three["first"][0] <= 1 and three["first"][1] > 0
    two = variance_shares(rng.normal(size=(3, 2)))  # the first explains all
    assert math.isnan(two["first"][0]) and 0 < two["seed"][0] < 1 and math.isnan(two["seed"][1])


def test_a_design_has_a_column_for_everything_that_may_be() -> None:
    row = np.array([[2, 0, 1]])
    assert design_of(row, "first").tolist() == [[1, 0, 0, 1]]
    assert design_of(row, "first and last").tolist() == [[1, 0, 0, 1, 0, 1, 0]]
    assert np.flatnonzero(design_of(row, "neighbour")[0, 1:]).tolist() == [0 * 3 + 1, 2 * 3 + 0]


# -- ranks ---------------------------------------------------------------------------------------------------


def test_percentile_ranks_against_scipy() -> None:
    values = np.round(np.random.default_rng(5).normal(size=720), 1)  # ties
    for one in (values[0], values.min(), values.max()):
        expected = stats.percentileofscore(values, one, kind="mean")
        assert percentile_rank(values, one) == pytest.approx(expected, rel=1e-15)
    assert percentile_rank(values + 1e-13 * np.arange(720), values[0]) == percentile_rank(values, values[0])
    assert percentile_rank(np.array([0.5]), 0.5) == 50


def test_the_papers_orders_restricted_to_some_datasets() -> None:
    told = paper_orders(NAMES)
    assert list(told) == list(ORDERS)
    for label, order in told.items():
        assert [NAMES[k] for k in order] == [name for name in ORDERS[label] if name in NAMES]
    assert len(set(told.values())) == 6, "I and III are alike, and V and VII"
    assert paper_orders(["live", "tid2013"]) == {}


# -- what few orders tell ------------------------------------------------------------------------------------


def test_errors_of_a_design_against_numpy() -> None:
    y = np.random.default_rng(6).normal(size=24)
    chosen = np.array([[0, 5, 7], [1, 2, 3], [10, 20, 23]])
    scale = math.sqrt(23 / 24)
    off = np.array([[y[c].mean() - y.mean(), y[c].std(ddof=1) * scale - y.std()] for c in chosen])
    told = design_errors(y, chosen)
    assert told[0::2] == pytest.approx(off.mean(axis=0), abs=1e-15)
    assert told[1::2] == pytest.approx(np.sqrt((off**2).mean(axis=0)), abs=1e-15)
    assert design_errors(y, np.arange(24)[None]) == pytest.approx((0, 0, 0, 0), abs=1e-15)


@pytest.mark.parametrize("tasks", [3, 4, 5])
def test_a_williams_square_is_tried_with_every_assignment(tasks: int) -> None:
    places = np.array(list(itertools.permutations(range(tasks))))
    designs = williams_designs(tasks)
    assert designs.shape == (len(places), tasks if tasks % 2 == 0 else 2 * tasks)
    assert set(np.bincount(designs.ravel())) == {designs.shape[1]}, "each order is in as many of them"
    for design in designs:
        assert {tuple(sorted(column)) for column in places[design].T} == {
            tuple(sorted(np.repeat(range(tasks), designs.shape[1] // tasks)))
        }
    y = np.random.default_rng(7).normal(size=len(places))
    assert design_errors(y, designs)[0] == pytest.approx(0, abs=1e-15)
    first = np.random.default_rng(8).normal(size=tasks)[places[:, 0]]
    assert design_errors(first, designs)[1] == pytest.approx(0, abs=1e-15), "balanced for places"


def test_random_samples_against_all_that_there_are() -> None:
    y = np.random.default_rng(9).normal(size=6)
    pairs = np.array(list(itertools.combinations(range(6), 2)))
    expected, told = design_errors(y, pairs), sample_errors(y, 2)
    assert told[:2] == pytest.approx(expected[:2], abs=1e-15)
    # the draws are fixed: 0.003 and 0.002 were seen
    assert told[2:] == pytest.approx(expected[2:], abs=0.009)
    assert sample_errors(y, 6) == pytest.approx((0, 0, 0, 0), abs=1e-15)


def test_samples_have_no_order_twice() -> None:
    draws = drawn_samples(24, 8)
    assert draws.shape == (DRAWS, 8) and all(len(set(row)) == 8 for row in draws.tolist())
    assert stats.chisquare(np.bincount(draws.ravel(), minlength=24)).pvalue > 0.01  # 0.9 was seen


# -- orders that were trained --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 24 orders of a method that depends on the order, with two seeds, and TSN-IQA in one of them."""
    out = tmp_path_factory.mktemp("trained")
    for seed in (0, 1):
        for order in EVERY:
            record_trained(out, order, seed)
    recorded.record_tsn(out)
    return out


def test_every_order_that_was_trained_is_what_it_is_measured_alone(trained: Path) -> None:
    (group,), reader = group_records(read_records(trained)), AnswerReader(trained)
    (study,) = (study for study in order_studies(group, reader) if study.method.method == "SI")
    assert study.whole and not study.exact and study.scope == "all 24" and len(study.runs) == 2
    records = {(tuple(r.sequence), r.seed): r for r in group.records if r.strategy == "si"}
    for i, order in enumerate(EVERY):
        for seed in (0, 1):
            told = brute(records[order, seed], reader)
            assert {m: study.each[m][seed, i] for m in SUMMARY} == told._asdict()
        assert study.values["mPSI"][i] == np.mean(study.each["mPSI"][:, i])


def test_the_second_path_agrees_in_every_row(trained: Path) -> None:
    (group,), reader = group_records(read_records(trained)), AnswerReader(trained)
    plain, rows = Recomputation(trained, group), rows_of(group, reader)
    assert {row.table for row in rows} == set(COVERED) and {row.method for row in rows} > {"SI", "TSN-IQA"}
    for row in rows:
        found = plain.value(row)
        assert found is not None, row
        near = 3 * SHARES_SEEN if row.table == "order_variance" else 5e-14  # of a rank, which is up to 100
        assert found == pytest.approx((row.value, row.std, math.nan), abs=near, nan_ok=True), row


def test_the_tables_say_of_what_they_are(trained: Path) -> None:
    (group,), reader = group_records(read_records(trained)), AnswerReader(trained)
    rows = rows_of(group, reader)
    tables = {number: shape(number, [r for r in rows if r.table == number]) for number in COVERED}
    first = dict(tables["orders"].sections[0].rows)
    assert tables["orders"].columns[-1] == "Orders" and first["TSN-IQA-O"][-1].mean == 24
    assert tables["order_ranks"].columns == list(ORDERS)
    assert "some are alike" in tables["order_ranks"].caption
    assert "first 0.13, last 0.13, first and last 0.26, neighbour 0.22" in tables["order_variance"].caption
    assert "the paper's eight 6, Williams square 4" in tables["order_sampling"].caption
    labels = [section.label for section in tables["order_sampling"].sections]
    assert "mPSI, random 24, Task-Agnostic" in labels
    for table in tables.values():
        names = [(section.label, name) for section in table.sections for name, _ in section.rows]
        assert len(set(names)) == len(names)


def test_an_unfinished_study_counts_and_shows_dashes(tmp_path: Path) -> None:
    records = [record_trained(tmp_path, order) for order in EVERY]
    lost = records[0].answers[records[0].steps[-1].heads[0][0]]["live"]
    (tmp_path / "answers" / lost / "done.json").unlink()
    group, reader = RunGroup("", records), AnswerReader(tmp_path)
    told = {row.metric: row for row in order_rows(group, reader)}
    assert told["mPSI: orders"].value == 23 and told["mPSI: orders"].order == "all 24"
    assert math.isnan(told["mPSI: mean"].value) and "mPSI: best order" not in told
    assert {row.table for row in rows_of(group, reader)} == {"orders", "first_task"}
    plain = Recomputation(tmp_path, group)
    for row in rows_of(group, reader):
        assert plain.value(row) == pytest.approx((row.value, row.std, math.nan), abs=1e-15, nan_ok=True)
    assert draw_orders(Tidy(group, [], []), reader, tmp_path) == []


def test_a_part_of_the_orders_is_told_for_what_it_is(tmp_path: Path) -> None:
    records = [record_trained(tmp_path, order) for order in EVERY[: FEWEST + 1]]
    group, reader = RunGroup("", records), AnswerReader(tmp_path)
    told = {row.metric: row for row in order_rows(group, reader)}
    assert told["mPSI: orders"].order == "5 of 24" and told["mPSI: orders"].value == 5
    values = [brute(record, reader).mPSI for record in records]
    assert told["mPSI: mean"].value == pytest.approx(np.mean(values), abs=1e-15)
    assert {row.table for row in rows_of(group, reader)} == {"orders"}, "the others need all orders"
    assert order_studies(RunGroup("", records[: FEWEST - 1]), AnswerReader(tmp_path)) == []


def test_seeds_that_not_all_orders_have_are_left_out(tmp_path: Path) -> None:
    records = [record_trained(tmp_path, order, seed) for order in EVERY[:5] for seed in (0, 1)]
    (study,) = order_studies(RunGroup("", records[1:]), AnswerReader(tmp_path))
    assert study.runs == ((0, 1),)
    expected = {brute(record, AnswerReader(tmp_path)).mPSI for record in records[1::2]}
    assert set(study.values["mPSI"]) == expected
    (study,) = order_studies(RunGroup("", [records[0], *records[3::2]]), AnswerReader(tmp_path))
    assert len(study.runs) == 2 and np.isnan(study.values["mPSI"]).all(), "no seed is shared"


def test_other_datasets_than_the_main_ones_are_studied_apart(tmp_path: Path) -> None:
    main = recorded.record_tsn(tmp_path)
    three = [record_trained(tmp_path, order) for order in itertools.permutations(NAMES[:3])]
    alone = record_trained(tmp_path, tuple(NAMES[1:]))
    group, reader = RunGroup("", [*three, alone, main]), AnswerReader(tmp_path)
    scopes = {study.method.method: study.scope for study in order_studies(group, reader)}
    assert scopes["TSN-IQA"] == "all 24" and scopes["SI"] == "all 6 of BID, CSIQ, LIVE"
    first = [row for row in first_task_rows(group, reader) if row.method == "SI"]
    assert [row.train_dataset for row in first] == ["BID", "CSIQ", "LIVE"]
    plain = Recomputation(tmp_path, group)
    for row in rows_of(group, reader):
        assert plain.value(row) == pytest.approx(
            (row.value, row.std, math.nan), abs=3 * SHARES_SEEN, nan_ok=True
        ), row
    ranks = [row for row in rows_of(group, reader) if row.table == "order_ranks"]
    labels = [section.label for section in shape("order_ranks", ranks).sections]
    assert "mPSI, Task-Agnostic, BID, CSIQ, LIVE" in labels and "mPSI, Task-Agnostic" in labels


def test_verify_notices_numbers_of_the_study_that_were_changed(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    write_report(tmp_path, ("csv",), figures=False)
    path = tmp_path / "report" / "results.csv"
    text = path.read_text(encoding="utf-8")
    for table in ("orders", "order_ranks", "order_variance", "order_sampling"):
        lines = [line for line in text.splitlines() if line.startswith(f"{table},") and "0." in line]
        value = next(csv.reader(lines))[TIDY_COLUMNS.index("value")]
        changed = lines[0].replace(f",{value},", f",{float(value) + 1e-8!r},")
        assert changed != lines[0]
        text = text.replace(lines[0], changed)
    path.write_text(text, encoding="utf-8")
    problems = [str(problem) for problem in verify(tmp_path).problems if "value of" in str(problem)]
    assert len(problems) == 4 and all("computed from the answers" in problem for problem in problems)


@pytest.mark.slow
def test_a_report_of_0_1_0_lacks_the_study_and_one_of_today_may_not(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    for order in EVERY[:FEWEST]:
        record_trained(tmp_path, order)
    write_report(tmp_path, ("csv",), figures=False)
    path = tmp_path / "report" / "results.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    less = [row for row in rows if not row[0].startswith("order_") and TRAINED not in row[-1]]
    assert len(
        {row[3] for row in rows if row[0] == "orders"} - {row[3] for row in less if row[0] == "orders"}
    )
    former = [[*row[:-1], "paired bootstrap over images"] if row[0] == "intervals" else row for row in less]
    for held, missing in ((rows, False), (former, False), (less, True)):
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(held)
        verified = verify(tmp_path)
        lacks = [problem for problem in verified.problems if "results.csv" in str(problem)]
        assert bool(lacks) == missing and all("is missing" in str(problem) for problem in lacks)
        assert any("written by 0.1.0" in note for note in verified.notes) == (held is former)


def test_a_report_of_0_1_0_lacks_the_orders_of_other_datasets(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    for order in (NAMES[:3], NAMES[2::-1]):
        recorded.record_tsn(tmp_path, ",".join(order), order)
    write_report(tmp_path, ("csv",), figures=False)
    path = tmp_path / "report" / "results.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    three = {recorded.TITLES[name] for name in NAMES[:3]}
    column = TIDY_COLUMNS.index("order")
    of_three = [row for row in rows if set(row[column].rpartition(" of ")[2].split(", ")) == three]
    assert {row[0] for row in of_three} >= {"orders", "first_task"}
    less = [row for row in rows if row not in of_three and not row[0].startswith("order_")]
    former = [[*row[:-1], "paired bootstrap over images"] if row[0] == "intervals" else row for row in less]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(former)
    verified = verify(tmp_path)
    assert not [problem for problem in verified.problems if "results.csv" in str(problem)]
    assert any("written by 0.1.0" in note for note in verified.notes)


# -- several splits ------------------------------------------------------------------------------------------

RUNS = [(1, 0), (1, 1), (2, 0), (4, 0)]
"""Splits and seeds."""
THREE = list(itertools.permutations(NAMES[:3]))


def record_split(out: Path, order: tuple[str, ...], split: int, seed: int) -> RunRecord:
    """Records a run on one of several splits, with answers of its own."""
    made = record_trained(out, order, 100 * split + seed)
    (out / "runs" / f"{made.id}.json").unlink()
    told = {"from": "", "number": split, "data": {name: f"contents-of-{name}" for name in order}}
    whole = replace(made, seed=seed, facts={**made.facts, "splits": told, "split": str(split)})
    whole.__dict__.pop("id", None)
    write_record(out, whole)
    return whole


@pytest.fixture(scope="module")
def on_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All orders of three datasets on three splits, on the first with two seeds, and once with a third."""
    out = tmp_path_factory.mktemp("on_splits")
    for order in THREE:
        for split, seed in RUNS:
            record_split(out, order, split, seed)
    record_split(out, THREE[5], 1, 2)
    return out


def test_a_split_counts_once_however_many_seeds_it_has(on_splits: Path) -> None:
    (group,), reader = group_records(read_records(on_splits)), AnswerReader(on_splits)
    (study,) = order_studies(group, reader)
    assert (study.unit, study.runs) == ("splits", tuple(RUNS)) and study.each["mPSI"].shape == (3, 6)
    records = {(tuple(r.sequence), r.split_number, r.seed): r for r in group.records}
    for i, row in enumerate(study.permutations):
        order = tuple(study.names[k] for k in row)
        told = {run: brute(records[order, *run], reader) for run in RUNS}
        for m in SUMMARY:
            values = [getattr(told[run], m) for run in RUNS]
            each = [(values[0] + values[1]) / 2, *values[2:]]
            assert study.each[m][:, i] == pytest.approx(each, abs=2e-16)
            assert study.values[m][i] == pytest.approx(sum(each) / 3, abs=3e-16)
    rows = rows_of(group, reader)
    note = "each order trained; means over n=3 splits of 1 to 2 seeds"
    assert all(note in told.note and told.median is None for told in rows)


def test_the_second_path_agrees_over_splits(on_splits: Path) -> None:
    (group,), reader = group_records(read_records(on_splits)), AnswerReader(on_splits)
    plain, rows = Recomputation(on_splits, group), rows_of(group, reader)
    assert {row.table for row in rows} == set(COVERED)
    for row in rows:
        near = 3 * SHARES_SEEN if row.table == "order_variance" else 5e-14
        assert plain.value(row) == pytest.approx((row.value, row.std, math.nan), abs=near, nan_ok=True), row


def test_the_variance_over_splits_is_called_theirs(on_splits: Path) -> None:
    (group,), reader = group_records(read_records(on_splits)), AnswerReader(on_splits)
    tables = {table.number: table for table in make_tables(collect(group, reader))}
    table = tables["order_variance"]
    assert table.columns[-2:] == ["Split", "Order x split"] and "Seed" not in table.columns
    assert "over all orders and splits:" in table.caption and "to what split and order do" in table.caption
    assert "Over n = 3 splits, of each the mean over seeds 0, 1, 2." in table.caption
    assert all(0 <= values[-2].mean <= 1 for section in table.sections for _, values in section.rows)
    for number in ("orders", "first_task", "order_ranks", "order_sampling"):
        assert "Means over n = 3 splits" in tables[number].caption, number
    mixed = [row for row in rows_of(group, reader) if row.table == "order_variance"]
    mixed += [r._replace(method="EWC", metric=r.metric.replace("split", "seed")) for r in mixed]
    both = shape("order_variance", mixed)
    assert both.columns[-4:] == ["Seed", "Order x seed", "Split", "Order x split"]
    assert "over all orders and seeds or splits:" in both.caption


def test_unfinished_seeds_do_not_hide_a_finished_one(tmp_path: Path) -> None:
    records = [record_trained(tmp_path, order, seed) for order in THREE for seed in (0, 1)]
    for record, seeds, note in ((records[-1], ((0, 0),), ""), (records[0], ((0, 0), (0, 1)), "n=2 seeds")):
        lost = record.answers[record.steps[-1].heads[0][0]]["live"]
        (tmp_path / "answers" / lost / "done.json").unlink()
        reader = AnswerReader(tmp_path)
        (group,) = group_records(read_records(tmp_path), reader)
        (study,) = order_studies(group, reader)
        assert study.runs == seeds
        rows, plain = rows_of(group, reader), Recomputation(tmp_path, group)
        told = {row.metric: row for row in rows if row.table == "orders"}
        assert note in told["mPSI: mean"].note
        whole = len(seeds) == 1  # of both seeds an order lacks answers: which are there was not chosen
        assert told["mPSI: orders"].value == (6 if whole else 4)
        assert math.isfinite(told["mPSI: mean"].value) == whole
        for row in rows:
            found = plain.value(row)
            assert found == pytest.approx((row.value, row.std, math.nan), abs=2e-13, nan_ok=True), row


def test_many_unfinished_orders_are_counted_and_not_listed(tmp_path: Path) -> None:
    made = [record_trained(tmp_path, order) for order in EVERY[:9]]
    records = [replace(record, facts={**record.facts, "command": "again"}) for record in made]
    for some, where in (
        (records, "9 orders"),
        (records[:2], f"orders {records[0].order}, {records[1].order}"),
    ):
        group = RunGroup("", some, unfinished={record.id: Gap(1, 16) for record in some})
        missing = f"{len(some)} of {16 * len(some)} answers are missing"
        assert unfinished_lines(group)[0].startswith(f"unfinished: si, {where}: {missing}")


# -- the figure ----------------------------------------------------------------------------------------------


def test_numerals_are_pushed_apart_in_their_order() -> None:
    limits = (0.0, 10.0)
    for values in ([5.0] * 8, [0.1, 0.1, 0.2], [9.9, 9.9, 10.0], [1.0, 4.0, 8.0], [3.0]):
        halves = [0.4] * len(values)
        places = apart(values, halves, limits)
        assert all(b - a >= 0.8 - 1e-12 for a, b in itertools.pairwise(places))
        assert places[0] >= 0.4 - 1e-12 and places[-1] <= 9.6 + 1e-12
    assert apart([1.0, 4.0, 8.0], [0.4] * 3, limits) == [1.0, 4.0, 8.0], "where there is room they stay"
    assert np.mean(apart([5.0] * 4, [0.4] * 4, limits)) == pytest.approx(5)


def test_strokes_that_touch_are_one() -> None:
    ends = strokes(np.array([3.0, 1.0, 1.05, 1.1, 2.0]), 0.1).reshape(-1, 3)
    assert ends[:, :2] == pytest.approx(np.array([[0.95, 1.15], [1.95, 2.05], [2.95, 3.05]]))
    assert np.isnan(ends[:, 2]).all()
    assert len(strokes(np.full(720, 0.5), 1e-3)) == 3


def test_the_figure_marks_the_papers_orders(trained: Path, tmp_path: Path) -> None:
    (group,), reader = group_records(read_records(trained)), AnswerReader(trained)
    svg = draw_orders(Tidy(group, [], []), reader, tmp_path)[0].read_text(encoding="utf-8")
    for text in ("SI", "n = 24", "I, III", "V, VII", "VIII", "orders of LIVE, CSIQ, BID, CLIVE: 24 in all"):
        assert f">{text}<" in svg or text in svg, text
