"""Robustness over all orders: what the look-up gives is what each order, measured by itself, gives."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded

from cliqa_bench import metrics
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import RunReadout, matrices_of
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import RunGroup
from cliqa_bench.reports.tables.all_orders import (
    MOST_TASKS,
    describe,
    first_task_rows,
    is_order_free,
    order_rows,
    order_studies,
)
from cliqa_bench.results.nodes import write_json
from cliqa_bench.results.records import AnswerReader, RunRecord, Step, write_record

NAMES = recorded.ORDERS["I"]


def record_sl(out: Path, order: str = "I", spec: bool = True) -> RunRecord:
    """Records separate learning, with what its train nodes say they depend on."""
    record = recorded.record_single(out, "sl", order)
    for step in record.steps if spec else ():
        write_json(out / "train" / step.heads[0][0] / "spec.json", {"sequence": [[step.dataset, "print"]]})
    return record


def brute(record: RunRecord, readout: str, reader: AnswerReader) -> metrics.Summary:
    return metrics.summary(*matrices_of(reader, RunReadout(record, readout)))


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_order_is_what_it_is_measured_alone(tmp_path: Path, seeds: int) -> None:
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in range(seeds)]
    reader = AnswerReader(tmp_path)
    studies = {s.method.method: s for s in order_studies(RunGroup("", records), reader)}
    assert len(studies) == 4
    for i, order in enumerate(itertools.permutations(NAMES)):
        alone = [recorded.record_tsn(tmp_path, ",".join(order), list(order), seed=s) for s in range(seeds)]
        for readout, method in recorded.TSN_ROWS.items():
            told = [brute(record, readout, reader) for record in alone]
            for metric in SUMMARY:
                expected = math.fsum(getattr(t, metric) for t in told) / seeds
                assert studies[method].values[metric][i] == expected, (order, readout, metric)
        assert studies["TSN-IQA"].name(i) == ", ".join(recorded.TITLES[name] for name in order)


def test_a_run_in_another_order_is_read_by_the_names_of_its_datasets(tmp_path: Path) -> None:
    """The main order is another run's; the temperature is not the default."""
    record = replace(recorded.record_tsn(tmp_path, "V"), tau=8.0)
    group, reader = (
        RunGroup("", [record, recorded.record_single(tmp_path, "sl", "I")]),
        AnswerReader(tmp_path),
    )
    studies = {s.method.method: s for s in order_studies(group, reader)}
    assert studies["TSN-IQA"].titles == [recorded.TITLES[name] for name in NAMES]
    for i, order in enumerate(itertools.permutations(NAMES)):
        alone = replace(recorded.record_tsn(tmp_path, "x", list(order)), tau=8.0)
        for readout, method in recorded.TSN_ROWS.items():
            told = brute(alone, readout, reader)
            assert {m: studies[method].values[m][i] for m in SUMMARY} == told._asdict(), (order, readout)


def test_separate_learning_too(tmp_path: Path) -> None:
    record = record_sl(tmp_path)
    reader = AnswerReader(tmp_path)
    (study,) = order_studies(RunGroup("", [record]), reader)
    steps = {step.dataset: step for step in record.steps}
    for i, order in enumerate(itertools.permutations(NAMES)):
        alone = replace(record, sequence=list(order), steps=[steps[name] for name in order])
        told = brute(alone, "last", reader)
        assert {m: study.values[m][i] for m in SUMMARY} == told._asdict()


def test_only_what_depends_on_no_other_dataset_is_order_free(tmp_path: Path) -> None:
    reader = AnswerReader(tmp_path)
    tsn = recorded.record_tsn(tmp_path)
    assert is_order_free(tsn, reader)
    # LwF: after each experience all heads lie in a new node
    lwf = [Step(s.dataset, [(f"lwf-{t}", c) for c in range(t + 1)]) for t, s in enumerate(tsn.steps)]
    assert not is_order_free(replace(tsn, steps=lwf), reader)
    assert not is_order_free(recorded.record_single(tmp_path, "jl"), reader)
    alone, unknown = record_sl(tmp_path), tmp_path / "unknown"
    assert is_order_free(alone, reader)
    assert not is_order_free(record_sl(unknown, spec=False), AnswerReader(unknown))
    # a single head that is trained on: its node names what came before
    for t, step in enumerate(alone.steps):
        path = tmp_path / "train" / step.heads[0][0] / "spec.json"
        write_json(path, {"sequence": [[name, "print"] for name in NAMES[: t + 1]]})
    assert not is_order_free(alone, reader)


def test_the_rows_describe_the_orders(tmp_path: Path) -> None:
    group, reader = RunGroup("", [recorded.record_tsn(tmp_path)]), AnswerReader(tmp_path)
    gate = [row for row in order_rows(group, reader) if row.method == "TSN-IQA"]
    told = {row.metric: row for row in gate}
    studies = {study.method.method: study for study in order_studies(group, reader)}
    values = studies["TSN-IQA"].values["mPSI"]
    assert told["mPSI: mean"].value == pytest.approx(values.mean(), abs=1e-12)
    assert told["mPSI: median"].value == np.median(values)
    worst, best = told["mPSI: worst order"], told["mPSI: best order"]
    assert worst.value == told["mPSI: minimum"].value == values.min()
    assert best.value == told["mPSI: maximum"].value == values.max()
    for row in (worst, best):
        titles = {title: name for name, title in recorded.TITLES.items()}
        sequence = [titles[title] for title in row.order.split(", ")]
        assert brute(recorded.record_tsn(tmp_path, "x", sequence), "gate", reader).mPSI == row.value
    # mSRCC after the last experience depends on the set only
    assert told["mSRCC: std"].value == 0 and told["mSRCC: minimum"].value == told["mSRCC: mean"].value
    assert {row.order for row in gate} == {"all 24", worst.order, best.order}
    assert all("not comparable with published" in row.note for row in gate)


def test_first_task_effect(tmp_path: Path) -> None:
    group, reader = RunGroup("", [recorded.record_tsn(tmp_path)]), AnswerReader(tmp_path)
    rows = [row for row in first_task_rows(group, reader) if row.method == "TSN-IQA"]
    assert [row.train_dataset for row in rows] == ["LIVE", "CSIQ", "BID", "CLIVE"]
    for row, name in zip(rows, NAMES, strict=True):
        others = [other for other in NAMES if other != name]
        each = [
            brute(recorded.record_tsn(tmp_path, "x", [name, *order]), "gate", reader).mPSI
            for order in itertools.permutations(others)
        ]
        assert row.value == pytest.approx(np.mean(each), abs=1e-12)
        assert row.std == pytest.approx(np.std(each), abs=1e-12)


def test_the_oracle_knows_no_order(tmp_path: Path) -> None:
    group = RunGroup("", [recorded.record_tsn(tmp_path)])
    rows = [row for row in order_rows(group, AnswerReader(tmp_path)) if row.method == "TSN-IQA-O"]
    told = {row.metric: row for row in rows}
    assert told["mSI: minimum"].value == told["mSI: maximum"].value == 1
    assert told["mPSI: std"].value == 0
    assert told["mPSI: worst order"].note.startswith("the first of 24 orders with this value")


def test_a_missing_answer_is_a_dash_and_no_mean_of_the_rest(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "answers" / record.answers["train-bid-0"]["live"] / "done.json").unlink()
    rows = order_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    assert rows and all(math.isnan(row.value) for row in rows)
    assert not [row for row in rows if "order" in row.metric]


def test_equal_weights_leave_the_hard_gate_undefined(tmp_path: Path) -> None:
    record = replace(recorded.record_tsn(tmp_path), tau=0.0)  # all weights alike: the first head is taken
    studies = {s.method.method: s for s in order_studies(RunGroup("", [record]), AnswerReader(tmp_path))}
    assert np.isnan(studies["TSN-IQA (hard)"].values["mPSI"]).all()
    assert np.isfinite(studies["TSN-IQA"].values["mPSI"]).all()


def test_too_many_datasets_are_left_out(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    names = [f"d{i}" for i in range(MOST_TASKS + 1)]
    assert order_studies(RunGroup("", [replace(record, sequence=names)]), AnswerReader(tmp_path)) == []


def test_describe_against_numpy() -> None:
    values = np.random.default_rng(0).normal(size=720)
    told = describe(values)
    assert told["std"] == np.std(values) and told["lower quartile"] == np.percentile(values, 25)
    assert describe(np.full(3, 0.1)) == pytest.approx({**dict.fromkeys(told, 0.1), "std": 0})
    assert all(math.isnan(v) for v in describe(np.array([0.1, math.nan])).values())


def test_six_datasets_of_real_size_take_under_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*NAMES, "koniq10k", "kadid10k"]
    monkeypatch.setattr(recorded, "TITLES", {name: name for name in names})
    record = recorded.record_tsn(tmp_path, sequence=names, images=2000)
    reader = AnswerReader(tmp_path)
    start = time.process_time()
    studies = order_studies(RunGroup("", [record]), reader)
    assert time.process_time() - start < 2
    assert {len(s.permutations) for s in studies} == {720} and len(studies) == 4


def summary_of(out: Path, orders: list[str]) -> list[str]:
    """Returns the lines of the terminal's summary of runs of some orders."""
    for order in orders:
        sequence = order.split(",") if "," in order else None
        write_record(out, recorded.record_single(out, "sl", order, sequence=sequence))
    return write_report(out, ("csv",), figures=False).summary.splitlines()


def test_the_terminal_shows_a_few_of_many_orders(tmp_path: Path) -> None:
    orders = [",".join(order) for length in (4, 3) for order in itertools.permutations(NAMES, length)]
    lines = summary_of(tmp_path / "few", orders[:24])
    assert sum(" SL " in line for line in lines) == 24
    assert not any("further orders" in line for line in lines)
    lines = summary_of(tmp_path / "many", orders[:25])
    assert sum(" SL " in line for line in lines) == 8
    assert "and 17 further orders; table_orders sums them up, results.csv has each" in lines
    lines = summary_of(tmp_path / "named", [*orders[:25], "V", "I"])
    assert [line.split()[0] for line in lines if " SL " in line] == ["I", "V"]
    assert "and 25 further orders; table_orders sums them up, results.csv has each" in lines
