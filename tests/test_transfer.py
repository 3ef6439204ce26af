"""Forgetting and transfer: the sources' sums written out, at their edges too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
from hypothesis import given
from hypothesis import strategies as st

from cliqa_bench import metrics
from cliqa_bench.reports.methods import RunReadout, matrices_of
from cliqa_bench.reports.rows import RunGroup
from cliqa_bench.reports.tables.transfer import transfer_rows
from cliqa_bench.results.records import AnswerReader


@given(st.integers(2, 7), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_against_the_sums_of_the_papers(steps: int, more: int, seed: int) -> None:
    r = np.random.default_rng(seed).uniform(-1, 1, (steps, steps + more))  # negative correlations too
    backward = forward = forgotten = 0.0
    for k in range(steps):
        if k < steps - 1:
            backward += (r[steps - 1][k] - r[k][k]) / (steps - 1)
            forgotten += (max(r[t][k] for t in range(k, steps - 1)) - r[steps - 1][k]) / (steps - 1)
        if k > 0:
            forward += (r[k - 1][k] - 0.1) / (steps - 1)
    assert metrics.backward_transfer(r) == pytest.approx(backward, abs=1e-12)
    assert metrics.forward_transfer(r, 0.1) == pytest.approx(forward, abs=1e-12)
    assert metrics.forgetting(r) == pytest.approx(forgotten, abs=1e-12)
    assert metrics.forgetting(r) >= -metrics.backward_transfer(r) - 1e-12


def test_edges() -> None:
    for measure in (metrics.backward_transfer, metrics.forward_transfer, metrics.forgetting):
        assert math.isnan(measure(np.array([[0.9]])))
        assert math.isnan(measure(np.array([[0.9, math.nan], [math.nan, 0.8]])))
    ranks_the_wrong_way = np.array([[-0.2, 0.0], [-0.8, 0.5]])
    assert metrics.forgetting(ranks_the_wrong_way) == pytest.approx(0.6)
    assert metrics.backward_transfer(ranks_the_wrong_way) == pytest.approx(-0.6)


def test_rows_of_methods(tmp_path: Path) -> None:
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in (0, 1)]
    reader = AnswerReader(tmp_path)
    rows = {(r.method, r.metric): r for r in transfer_rows(RunGroup("", records), reader)}
    each = [metrics.forgetting(matrices_of(reader, RunReadout(r, "gate"))[0]) for r in records]
    row = rows["TSN-IQA", "Forgetting"]
    assert row.value == pytest.approx(np.mean(each)) and row.std == pytest.approx(np.std(each, ddof=1))
    assert row.note.startswith("n=2 seeds; generated")
    # the oracle's heads never change, and there is none to ask before a dataset is learned
    assert rows["TSN-IQA-O", "Forgetting"].value == rows["TSN-IQA-O", "BWT"].value == 0
    assert math.isnan(rows["TSN-IQA-O", "FWT"].value)


def test_one_seed_has_no_spread_and_a_missing_answer_is_a_dash(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    assert all(math.isnan(r.std) for r in transfer_rows(RunGroup("", [record]), AnswerReader(tmp_path)))
    (tmp_path / "answers" / record.answers["train-live-0"]["live"] / "done.json").unlink()
    rows = transfer_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    # only what a newer head says on another test set is still there
    assert all(math.isnan(r.value) for r in rows if r.metric in ("Forgetting", "BWT"))


def test_joint_learning_has_nothing_to_transfer(tmp_path: Path) -> None:
    records = [recorded.record_tsn(tmp_path), recorded.record_single(tmp_path, "jl")]
    assert "JL" not in {r.method for r in transfer_rows(RunGroup("", records), AnswerReader(tmp_path))}
