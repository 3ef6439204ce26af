"""Intervals and tests: counted, drawn and flipped by hand, and by scipy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs as recorded
from numpy.typing import NDArray
from scipy import stats

from cliqa_bench import metrics
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.recomputed_intervals import student_quantile
from cliqa_bench.reports.methods import RunReadout, matrices_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables import statistics
from cliqa_bench.reports.tables.jackknife import difference, without_each
from cliqa_bench.reports.tables.statistics import (
    FIXED,
    NO_CONTENTS,
    interval_rows,
    power_rows,
    sign_flip_p,
    significance_rows,
    smallest_p,
    too_few,
)
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord

Float = NDArray[np.float64]


def find(rows: list[TidyRow], metric: str, method: str = "TSN-IQA", test: str = "") -> TidyRow:
    (row,) = [r for r in rows if (r.metric, r.method, r.test_dataset) == (metric, method, test)]
    return row


def last_scores(reader: AnswerReader, record: RunRecord, readout: str, test: str) -> tuple[Float, Float]:
    answers = reader.answers(record, 3, test)
    assert answers is not None
    scores = read(answers, readout, record.sequence.index(test), record.tau)
    assert scores is not None
    return scores, answers.mos


def contents_of(test: str) -> NDArray[np.int64]:
    return np.arange(recorded.IMAGES) // (2 if test in ("live", "csiq") else 1)


def by_loops(reader: AnswerReader, records: list[RunRecord], readout: str, test: str) -> tuple[Float, Float]:
    """Returns the SRCC of each seed, (seeds,), and without each content, (seeds, G), by scipy."""
    whole, without = [], []
    shown = contents_of(test)
    for record in records:
        scores, mos = last_scores(reader, record, readout, test)
        whole.append(stats.spearmanr(scores, mos).statistic)
        without.append(
            [stats.spearmanr(scores[shown != c], mos[shown != c]).statistic for c in np.unique(shown)]
        )
    return np.array(whole), np.array(without)


def t_interval(centre: float, parts: list[tuple[float, float]], bent: bool) -> tuple[float, float]:
    """Returns Student's interval of a number whose variance has parts, each with its degrees of freedom."""
    total = sum(v for v, _ in parts)
    df = total**2 / sum(v**2 / d for v, d in parts)
    half = student_quantile(0.975, df) * math.sqrt(total)
    if not bent:
        return centre - half, centre + half
    z, half = math.atanh(centre), half / (1 - centre**2)
    return math.tanh(z - half), math.tanh(z + half)


def test_intervals_against_loops(tmp_path: Path) -> None:
    """Contents left out one by one, every correlation by scipy, the parts put together by hand."""
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in (0, 1, 4)]
    group, reader = RunGroup("", records), AnswerReader(tmp_path)
    rows, tests = interval_rows(group, reader), records[0].sequence
    known = {(r, t): by_loops(reader, records, r, t) for r in ("gate", "oracle", "last") for t in tests}
    for readout in ("gate", "oracle", "last"):
        method = recorded.TSN_ROWS[readout]
        images, means = [], []
        for test in tests:
            whole, without = known[readout, test]
            left = without.mean(axis=0)
            part = (float((len(left) - 1) * left.var()), (len(left) - 1) / 2)
            title = recorded.TITLES[test]
            ends = t_interval(float(whole.mean()), [part, (whole.var(ddof=1) / 3, 2)], bent=True)
            for end, value in zip(("", ": low", ": high"), (whole.mean(), *ends), strict=True):
                assert find(rows, f"SRCC{end}", method, title).value == pytest.approx(value, abs=1e-12)
            images.append((part[0] / 16, part[1]))
            means.append(whole)
        by_seed = np.mean(means, axis=0)
        ends = t_interval(float(by_seed.mean()), [*images, (by_seed.var(ddof=1) / 3, 2)], bent=True)
        for end, value in zip(("", ": low", ": high"), (by_seed.mean(), *ends), strict=True):
            assert find(rows, f"mSRCC{end}", method).value == pytest.approx(value, abs=1e-12)
    best = find(rows, "mSRCC less the best", "TSN-IQA (last head)")
    by_value = max(
        ("TSN-IQA", "TSN-IQA (hard)", "TSN-IQA (last head)"), key=lambda m: find(rows, "mSRCC", m).value
    )
    assert best.note.startswith(f"best: {by_value};") and best.value < 0
    assert by_value == "TSN-IQA", "the recorded runs have the gate in front"
    images, apart = [], []
    for test in tests:
        (one, without_one), (other, without_other) = known["last", test], known["gate", test]
        left = (without_one - without_other).mean(axis=0)
        images.append((float((len(left) - 1) * left.var()) / 16, len(left) - 1.0))
        apart.append(one - other)
    seeds = np.mean(apart, axis=0)
    ends = t_interval(float(seeds.mean()), [*images, (seeds.var(ddof=1) / 3, 2)], bent=False)
    low_high = [find(rows, f"mSRCC less the best: {w}", best.method).value for w in ("low", "high")]
    assert low_high == pytest.approx(list(ends), abs=1e-12)
    alone = [row for row in rows if row.method == "TSN-IQA-O" and "best" in row.metric]
    assert not alone, "nothing else is in its setting"
    assert all("jackknife over contents and n=3 seeds" in row.note for row in rows)


def test_power_against_the_textbook(tmp_path: Path) -> None:
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in (0, 1, 4)]
    group, reader = RunGroup("", records), AnswerReader(tmp_path)
    rows, tests = power_rows(group, reader), records[0].sequence
    pairs = {(row.method, row.metric.partition(": ")[0].removeprefix("mSRCC less ")) for row in rows}
    assert pairs == {
        ("TSN-IQA", "TSN-IQA (hard)"),
        ("TSN-IQA", "TSN-IQA (last head)"),
        ("TSN-IQA (hard)", "TSN-IQA (last head)"),
    }
    parts, apart = [], []
    for test in tests:
        (one, without_one), (other, without_other) = (
            by_loops(reader, records, r, test) for r in ("gate", "last")
        )
        left = (without_one - without_other).mean(axis=0)
        parts.append((float((len(left) - 1) * left.var()) / 16, len(left) - 1.0))
        apart.append(one - other)
    seeds = np.mean(apart, axis=0)
    spread = float(seeds.var(ddof=1))

    def least(n: int) -> float:
        shares = [*parts, (spread / n, n - 1.0)]
        total = sum(v for v, _ in shares)
        df = total**2 / sum(v**2 / d for v, d in shares)
        return float((student_quantile(0.975, df) + student_quantile(0.8, df)) * math.sqrt(total))

    low, high = t_interval(float(seeds.mean()), [*parts, (spread / 3, 2.0)], bent=False)
    needed = next((n for n in range(2, 1001) if least(n) <= abs(seeds.mean())), math.nan)
    expected = {"": seeds.mean(), ": low": low, ": high": high, ": smallest": least(3), ": seeds": needed}
    for end, value in expected.items():
        row = find(rows, f"mSRCC less TSN-IQA (last head){end}")
        assert row.value == pytest.approx(value, abs=1e-12) and row.note.startswith("n=3 seeds")
    assert math.isfinite(needed), "the recorded runs show a difference"


def test_intervals_and_power_leave_contents_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, reader = RunGroup("", [recorded.record_tsn(tmp_path)]), AnswerReader(tmp_path)
    calls = []

    def counted(*arguments: NDArray[Any]) -> Float:
        calls.append(arguments)
        return without_each(*arguments)

    monkeypatch.setattr(statistics, "without_each", counted)
    interval_rows(group, reader)
    first = len(calls)
    power_rows(group, reader)
    assert first == len(calls) == 4 * 4  # readouts and test sets
    power_rows(group, AnswerReader(tmp_path))  # answers may have changed by then
    assert len(calls) == 2 * first


def test_one_seed_shows_nothing_of_training(tmp_path: Path) -> None:
    rows = power_rows(RunGroup("", [recorded.record_tsn(tmp_path)]), AnswerReader(tmp_path))
    assert rows and all(row.note.startswith("one seed; ") for row in rows)
    assert math.isnan(find(rows, "mSRCC less TSN-IQA (last head): seeds").value)
    assert math.isfinite(find(rows, "mSRCC less TSN-IQA (last head): smallest").value)


def test_methods_with_other_seeds_are_not_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paired: list[bool] = []

    def noted(mine: Any, theirs: Any, same_runs: bool) -> Any:
        paired.append(same_runs)
        return difference(mine, theirs, same_runs)

    monkeypatch.setattr(statistics, "difference", noted)
    records = [recorded.record_tsn(tmp_path, seed=seed) for seed in (0, 1)]
    records += [recorded.record_single(tmp_path, seed=seed) for seed in (1, 2)]
    rows = power_rows(RunGroup("", records), AnswerReader(tmp_path))
    (row,) = [r for r in rows if r.method == "SL" and r.metric == "mSRCC less TSN-IQA"]
    assert row.note.startswith("n=2 seeds, not the same; ")
    assert set(paired) == {True, False}  # readouts of one run are


def test_of_few_contents_the_images_are_left_out(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    for path in (tmp_path / "answers").glob("*-on-live*/answers.npz"):
        arrays = dict(np.load(path))
        np.savez_compressed(path, **arrays | {"contents": np.arange(recorded.IMAGES) // 4})
        recorded.sign(path.parent)
    rows = interval_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    assert all(f"{FIXED}LIVE 3" in row.note for row in rows)
    scores, mos = last_scores(AnswerReader(tmp_path), record, "gate", "live")
    each = np.arange(recorded.IMAGES)
    left = np.array([stats.spearmanr(scores[each != i], mos[each != i]).statistic for i in each])
    ends = t_interval(stats.spearmanr(scores, mos).statistic, [(11 * left.var(), 5.5)], bent=True)
    found = [find(rows, f"SRCC: {end}", test="LIVE").value for end in ("low", "high")]
    assert found == pytest.approx(list(ends), abs=1e-12)
    plain = Recomputation(tmp_path, RunGroup("", [record]))
    for row in rows:
        again = plain.value(row)
        assert again is not None and again[0] == pytest.approx(row.value, abs=1e-12, nan_ok=True)


def test_answers_of_0_1_0_have_dashes_not_guesses(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    for path in (tmp_path / "answers").glob("*/answers.npz"):
        arrays = dict(np.load(path))
        del arrays["contents"]
        np.savez_compressed(path, **arrays)
        recorded.sign(path.parent)
    rows = interval_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    for row in rows:
        assert NO_CONTENTS in row.note
        assert math.isnan(row.value) == (": " in row.metric)
    # a file of today says it for those of yesterday
    newer = recorded.record_tsn(tmp_path, seed=1)
    rows = interval_rows(RunGroup("", [record, newer]), AnswerReader(tmp_path))
    assert all(math.isfinite(row.value) and NO_CONTENTS not in row.note for row in rows)


def test_msrcc_is_that_of_the_tables(tmp_path: Path) -> None:
    from cliqa_bench.reports import load

    recorded.record_golden(tmp_path)
    frame = load(tmp_path)
    from cliqa_bench.reports.rows import group_records
    from cliqa_bench.results.records import read_records

    rows = interval_rows(group_records(read_records(tmp_path))[0], AnswerReader(tmp_path))
    for method in ("TSN-IQA", "TSN-IQA-O", "SL"):
        told = frame[(frame.table == "III") & (frame.method == method) & (frame.metric == "mSRCC")]
        assert find(rows, "mSRCC", method).value == pytest.approx(float(told.value.iloc[0]), abs=1e-15)
    assert find(rows, "SRCC", "JL", "LIVE").setting == "Joint"


def test_missing_answers_are_dashes(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "answers" / record.answers["train-bid-0"]["live"] / "done.json").unlink()
    rows = interval_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    for metric in ("mSRCC", "mSRCC: low", "mSRCC: high"):
        assert math.isnan(find(rows, metric).value)
    assert math.isnan(find(rows, "SRCC: low", test="LIVE").value)
    assert math.isfinite(find(rows, "SRCC: low", test="CSIQ").value)
    power = power_rows(RunGroup("", [record]), AnswerReader(tmp_path))
    assert math.isnan(find(power, "mSRCC less TSN-IQA (last head)").value)


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
    assert not significance_rows(RunGroup("", records[:3]), reader)
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
