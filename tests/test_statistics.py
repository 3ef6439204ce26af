"""Intervals and tests: counted, drawn and flipped by hand, and by scipy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from cliqa_bench import metrics
from cliqa_bench.readouts import read
from cliqa_bench.reports.methods import RunReadout, matrices_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables.statistics import (
    Estimate,
    Resampled,
    interval_rows,
    resample_counts,
    sign_flip_p,
    significance_rows,
    smallest_p,
    too_few,
)
from cliqa_bench.results.records import AnswerReader, RunRecord

Float = NDArray[np.float64]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_ranks_of_resamples_are_those_of_scipy(n: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)  # few levels: many ties, and constants
    scores, mos = rng.integers(0, levels, n) / 1.0, rng.integers(0, 2 * levels, n) / 1.0
    counts = resample_counts(n, 20, "test", seed)
    assert (counts.sum(axis=1) == n).all()
    found = Resampled(mos, counts).srcc(scores).replicates
    for value, count in zip(found, counts, strict=True):
        chosen = np.repeat(np.arange(n), count)
        x, y = scores[chosen], mos[chosen]
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [300, 2001])
def test_many_images_are_counted_in_parts(n: int) -> None:
    rng = np.random.default_rng(0)
    mos = rng.uniform(size=n)
    scores, counts = mos + rng.normal(size=n), resample_counts(n, 700, "x")
    found = Resampled(mos, counts).srcc(scores).replicates
    assert found.shape == (700,)
    for i in (0, 99, 699):
        chosen = np.repeat(np.arange(n), counts[i])
        assert found[i] == pytest.approx(stats.spearmanr(scores[chosen], mos[chosen]).statistic, abs=1e-12)


def test_the_interval_is_scipys_percentile_interval_up_to_chance() -> None:
    rng = np.random.default_rng(1)
    mos = rng.uniform(size=150)
    scores = mos + 0.4 * rng.normal(size=150)
    low, high = Resampled(mos, resample_counts(150, 4000, "x")).srcc(scores).interval
    theirs = stats.bootstrap(
        (scores, mos),
        lambda x, y: float(stats.spearmanr(x, y).statistic),
        n_resamples=2000, paired=True, vectorized=False, method="percentile", random_state=0,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert low < stats.spearmanr(scores, mos).statistic < high


def test_undefined_is_no_interval() -> None:
    resampled = Resampled(np.arange(9.0), resample_counts(9, 50, "x"))
    for scores in (np.zeros(9), np.array([*range(8), math.nan])):
        found = resampled.srcc(scores)
        assert math.isnan(found.value) and all(map(math.isnan, found.interval))
    two = Resampled(np.arange(2.0), resample_counts(2, 50, "x")).srcc(np.arange(2.0))
    assert two.value == 1 and all(map(math.isnan, two.interval))  # half of its resamples are constant


def test_the_same_names_are_the_same_draws() -> None:
    assert (resample_counts(9, 5, "images", "live") == resample_counts(9, 5, "images", "live")).all()
    assert (resample_counts(9, 5, "images", "live") != resample_counts(9, 5, "images", "csiq")).any()


def find(rows: list[TidyRow], metric: str, method: str = "TSN-IQA", test: str = "") -> TidyRow:
    (row,) = [r for r in rows if (r.metric, r.method, r.test_dataset) == (metric, method, test)]
    return row


def last_scores(reader: AnswerReader, record: RunRecord, readout: str, test: str) -> tuple[Float, Float]:
    answers = reader.answers(record, 3, test)
    assert answers is not None
    scores = read(answers, readout, record.sequence.index(test), record.tau)
    assert scores is not None
    return scores, answers.mos


def test_intervals_against_loops(tmp_path: Path) -> None:
    """Images and seeds resampled one by one, with the same draws, and every correlation by scipy."""
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in (0, 1)]
    group, reader, b = RunGroup("", records), AnswerReader(tmp_path), 40
    rows = interval_rows(group, reader, b)
    drawn = resample_counts(2, b, "seeds", [0, 1])
    replicates: dict[str, np.ndarray] = {}
    for readout in ("gate", "oracle", "last"):
        by_test = np.zeros((4, b))
        for k, test in enumerate(records[0].sequence):
            counts = resample_counts(recorded.IMAGES, b, "images", test)
            for i, s in itertools.product(range(b), range(2)):
                chosen = np.repeat(np.arange(recorded.IMAGES), counts[i])
                scores, mos = last_scores(reader, records[s], readout, test)
                by_test[k, i] += drawn[i, s] / 2 * stats.spearmanr(scores[chosen], mos[chosen]).statistic
        replicates[readout] = by_test.mean(axis=0)
        if readout == "gate":
            low, high = np.percentile(by_test[1], [2.5, 97.5])
            assert find(rows, "SRCC: low", test="CSIQ").value == pytest.approx(low, abs=1e-12)
            assert find(rows, "SRCC: high", test="CSIQ").value == pytest.approx(high, abs=1e-12)
    low, high = np.percentile(replicates["gate"], [2.5, 97.5])
    assert find(rows, "mSRCC: low").value == pytest.approx(low, abs=1e-12)
    assert find(rows, "mSRCC: high").value == pytest.approx(high, abs=1e-12)
    best = find(rows, "mSRCC less the best", "TSN-IQA (last head)")
    by_value = max(
        ("TSN-IQA", "TSN-IQA (hard)", "TSN-IQA (last head)"), key=lambda m: find(rows, "mSRCC", m).value
    )
    assert best.note.startswith(f"best: {by_value};") and best.value < 0
    if by_value == "TSN-IQA":
        difference = np.percentile(replicates["last"] - replicates["gate"], [2.5, 97.5])
        low_high = [find(rows, f"mSRCC less the best: {w}", best.method).value for w in ("low", "high")]
        assert low_high == pytest.approx(list(difference), abs=1e-12)
    assert not [
        row for row in rows if row.method == "TSN-IQA-O" and "best" in row.metric
    ]  # alone in its setting
    assert all("over images and n=2 seeds, B=40" in row.note for row in rows)


def test_msrcc_is_that_of_the_tables(tmp_path: Path) -> None:
    from cliqa_bench.reports import load

    recorded.record_golden(tmp_path)
    frame = load(tmp_path)
    from cliqa_bench.reports.rows import group_records
    from cliqa_bench.results.records import read_records

    rows = interval_rows(group_records(read_records(tmp_path))[0], AnswerReader(tmp_path), 20)
    for method in ("TSN-IQA", "TSN-IQA-O", "SL"):
        told = frame[(frame.table == "III") & (frame.method == method) & (frame.metric == "mSRCC")]
        assert find(rows, "mSRCC", method).value == pytest.approx(float(told.value.iloc[0]), abs=1e-15)
    assert find(rows, "SRCC", "JL", "LIVE").setting == "Joint"


def test_missing_answers_are_dashes(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "answers" / record.answers["train-bid-0"]["live"] / "done.json").unlink()
    rows = interval_rows(RunGroup("", [record]), AnswerReader(tmp_path), 20)
    for metric in ("mSRCC", "mSRCC: low", "mSRCC: high"):
        assert math.isnan(find(rows, metric).value)
    assert math.isnan(find(rows, "SRCC: low", test="LIVE").value)
    assert math.isfinite(find(rows, "SRCC: low", test="CSIQ").value)


# ------------------------------------------------------------------------------------------ tests over seeds


def p_of_all_flips(differences: list[float]) -> float:
    """All sign flips written out: how many have a mean at least as far from 0."""
    found = np.array(differences)
    flips = [abs(np.mean(found * signs)) for signs in itertools.product((1, -1), repeat=len(found))]
    return float(np.mean(np.array(flips) >= abs(found.mean()) * (1 - 1e-12)))


def test_p_values_pair_equal_seeds(tmp_path: Path) -> None:
    """Each number against all flips, on differences of both signs that another pairing would change."""
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in range(6)]
    reader = AnswerReader(tmp_path)
    rows = significance_rows(RunGroup("", records), reader)
    told = {
        (readout, metric): [
            getattr(metrics.summary(*matrices_of(reader, RunReadout(record, readout))), metric)
            for record in records
        ]
        for readout in ("gate", "last", "gate-hard")
        for metric in ("mSRCC", "mPSI")
    }
    both_signs = differs = 0
    for one, other in itertools.permutations(("gate", "last", "gate-hard"), 2):
        for metric in ("mSRCC", "mPSI"):
            name = f"{metric}: p against {recorded.TSN_ROWS[other]}"
            (row,) = [r for r in rows if (r.method, r.metric) == (recorded.TSN_ROWS[one], name)]
            a, b = told[one, metric], told[other, metric]
            expected = p_of_all_flips([x - y for x, y in zip(a, b, strict=True)])
            assert row.value == pytest.approx(expected)
            both_signs += len({x > y for x, y in zip(a, b, strict=True)}) == 2
            differs += expected != p_of_all_flips([x - y for x, y in zip(a, b[::-1], strict=True)])
    assert both_signs and differs, "the recorded runs can tell pairings apart"


@pytest.mark.parametrize("n", [2, 5, 6, 8])
def test_sign_flips_are_all_counted(n: int) -> None:
    for seed in range(5):
        differences = np.random.default_rng(seed).normal(0.5, 1, n)
        flips = [abs(np.mean(differences * s)) for s in itertools.product((1, -1), repeat=n)]
        expected = np.mean(np.array(flips) >= abs(differences.mean()) * (1 - 1e-12))
        assert sign_flip_p(list(differences)) == pytest.approx(expected)
    assert sign_flip_p([0.1 * (i + 1) for i in range(n)]) == smallest_p(n)  # all of one sign


def test_equal_methods_and_missing_seeds() -> None:
    assert sign_flip_p([0.0] * 6) == 1
    assert math.isnan(sign_flip_p([0.1, math.nan]))


def test_too_few_seeds_are_said_to_be() -> None:
    assert [smallest_p(n) for n in (1, 2, 3, 6)] == [1, 0.5, 0.25, 0.03125]
    assert too_few(3) == "too few seeds: n=3 cannot reach 0.05"
    assert too_few(5) and too_few(0) and not too_few(6)


def test_few_seeds_have_no_p_value_and_six_have(tmp_path: Path) -> None:
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in range(6)]
    reader = AnswerReader(tmp_path)
    for row in significance_rows(RunGroup("", records[:3]), reader):
        assert math.isnan(row.value) and row.note.startswith("too few seeds: n=3 cannot reach 0.05")
    rows = significance_rows(RunGroup("", records), reader)
    (p,) = [r for r in rows if r.method == "TSN-IQA" and r.metric == "mSRCC: p against TSN-IQA (last head)"]
    differences = []
    for record in records:
        one, other = (
            np.mean([stats.spearmanr(*last_scores(reader, record, r, t)).statistic for t in record.sequence])
            for r in ("gate", "last")
        )
        differences.append(float(one - other))
    assert p.value == pytest.approx(p_of_all_flips(differences)) and p.note.startswith("n=6 seeds")
    assert {r.method for r in rows} == {"TSN-IQA", "TSN-IQA (hard)", "TSN-IQA (last head)"}  # no rival for -O


def test_an_estimate_less_itself_is_nothing() -> None:
    one = Estimate(0.5, np.array([0.4, 0.6]))
    assert one.minus(one).interval == (0, 0)
