"""Reports: recorded runs in, the bytes of tables and figures out; nothing mixed, nothing made up."""

import csv
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs as recorded
from scipy import stats

import cliqa_bench.reports
from cliqa_bench.errors import UserError
from cliqa_bench.reports.figures.curves import draw_psi
from cliqa_bench.reports.formats import TABLE_FORMATS
from cliqa_bench.reports.render import csv_text, escape_md, escape_tex, latex, markdown, number
from cliqa_bench.reports.report import ReportResult, write_report
from cliqa_bench.reports.rows import GENERATED, UNTRAINED, RunGroup, TidyRow
from cliqa_bench.reports.tables.shapes import TableValue, only_best, shape
from cliqa_bench.results.nodes import read_answers, write_answers
from cliqa_bench.results.records import RunRecord, read_records, write_record
from cliqa_bench.types import TIDY_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
FITTED = ("PLCC", "PLCC (logistic)", "KRCC", "RMSE (logistic)")
"""Metrics whose last digits depend on the machine's arithmetic; all others are exact."""


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportResult]:
    out = tmp_path_factory.mktemp("reports") / "runs"
    recorded.record_golden(out)
    return out, write_report(out, TABLE_FORMATS, figures=False)


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


Frame = Any  # pandas.DataFrame; pandas is imported by the tests that need it
BASE = ("III", "IV", "V", "VI", "Fig. 4", "")


def rows_of(out: Path | Frame, **wanted: object) -> list[TidyRow]:
    """Returns rows of the tables that are tested here; others have the same metrics."""
    frame = cliqa_bench.reports.load(out) if isinstance(out, Path) else out
    frame = frame[frame["table"].isin(BASE)]
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return [TidyRow(*row) for row in frame.itertuples(index=False)]


def one(out: Path | Frame, method: str, metric: str, order: str = "I", length: object = 4) -> float:
    rows = rows_of(out, method=method, metric=metric, order=order, length=length)
    assert len({repr(row.value) for row in rows}) == 1, rows
    return rows[0].value


@pytest.fixture(scope="module")
def golden_rows(golden: tuple[Path, ReportResult]) -> Frame:
    return cliqa_bench.reports.load(golden[0])


# ---------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("name", sorted(p.name for p in recorded.GOLDEN.iterdir() if p.name != "results.csv"))
def test_files_are_as_recorded(golden: tuple[Path, ReportResult], name: str) -> None:
    out, result = golden
    if name == "summary.txt":
        made = result.summary + "\n"
    else:
        made = (out / "report" / name).read_text(encoding="utf-8")
    recorded.assert_recorded(made.replace(str(out), "runs"), recorded.GOLDEN / name)


def test_all_numbers_are_as_recorded(golden: tuple[Path, ReportResult]) -> None:
    made = cells((golden[0] / "report" / "results.csv").read_text(encoding="utf-8"))
    expected = cells((recorded.GOLDEN / "results.csv").read_text(encoding="utf-8"))
    for one_row, other in zip(made, expected, strict=True):
        within = {"rel": 1e-5, "abs": 1e-7} if one_row["metric"] in FITTED else {"rel": recorded.LAST_DIGITS}
        for column in ("value", "std"):
            one, two = (float(row.pop(column) or "nan") for row in (one_row, other))
            assert one == pytest.approx(two, nan_ok=True, **within), one_row
        assert one_row == other


def test_every_file_of_a_report_is_recorded(golden: tuple[Path, ReportResult]) -> None:
    kept = {p.name for p in recorded.GOLDEN.iterdir()} | recorded.NOT_RECORDED
    assert {p.name for p in golden[1].files} | {"summary.txt"} == kept


# --------------------------------------------------------------------------------------- against the answers


def heads(out: Path, sequence: list[str], seed: int, test: str) -> np.ndarray:
    record = recorded.record_tsn(out, "I", sequence, seed)
    files = [record.answers[f"train-{name}-{seed}"][test] for name in sequence]
    return np.stack([read_answers(out / "answers" / f / "answers.npz")["scores"][:, 0] for f in files])


def test_oracle_and_last_head_equal_scipy_on_the_answer_files(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    sequence = recorded.ORDERS["I"]
    told = {test: heads(tmp_path, sequence, 0, test) for test in sequence}
    record = recorded.record_tsn(tmp_path)
    mos = {
        t: read_answers(tmp_path / "answers" / record.answers["train-live-0"][t] / "answers.npz")["mos"]
        for t in sequence
    }
    matrix = np.array([[stats.spearmanr(told[k][t], mos[k]).statistic for k in sequence] for t in range(4)])
    assert one(tmp_path, "TSN-IQA-O", "mSRCC") == pytest.approx(np.diag(matrix).mean(), abs=1e-12)
    assert one(tmp_path, "TSN-IQA (last head)", "mSRCC") == pytest.approx(matrix[3].mean(), abs=1e-12)
    assert one(tmp_path, "TSN-IQA (last head)", "mPI") == pytest.approx(np.diag(matrix).mean(), abs=1e-12)
    stability = [
        np.mean([stats.spearmanr(told[sequence[k]][t], told[sequence[k]][k]).statistic for k in range(t)])
        for t in range(1, 4)
    ]
    expected = (1 + sum(stability)) / 4
    assert one(tmp_path, "TSN-IQA (last head)", "mSI") == pytest.approx(expected, abs=1e-12)
    frame = cliqa_bench.reports.load(tmp_path)
    for k, test in enumerate(sequence):
        rows = rows_of(frame, metric="SRCC", method="TSN-IQA (last head)", test_dataset=recorded.TITLES[test])
        got = [row.value for row in sorted(rows, key=lambda r: int(r.length))]
        np.testing.assert_allclose(got, matrix[:, k], atol=1e-12)


def test_soft_gate_equals_the_equations_on_the_answer_files(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    sequence, total = recorded.ORDERS["I"], []
    for test in sequence:
        told = heads(tmp_path, sequence, 0, test).astype(float)
        ids = [record.answers[record.gates[name]][test] for name in sequence]
        files = [read_answers(tmp_path / "answers" / i / "answers.npz") for i in ids]
        near = np.exp(-32 * np.stack([f["distances"][:, 2:].astype(float) for f in files]))
        weights = (near / near.sum(axis=0)).mean(axis=2)
        total.append(stats.spearmanr((weights * told).sum(axis=0), files[0]["mos"]).statistic)
    assert one(tmp_path, "TSN-IQA", "mSRCC") == pytest.approx(np.mean(total), abs=1e-12)


def test_an_order_free_strategy_has_the_same_msrcc_in_every_order(golden_rows: Frame) -> None:
    for method in ("TSN-IQA", "TSN-IQA-O", "TSN-IQA (hard)"):
        assert one(golden_rows, method, "mSRCC", "I") == one(golden_rows, method, "mSRCC", "V")
    assert one(golden_rows, "TSN-IQA-O", "mSI") == 1
    assert one(golden_rows, "TSN-IQA-O", "mPI", "I") == one(golden_rows, "TSN-IQA-O", "mPI", "V")


def test_the_oracle_says_nothing_about_future_tasks(golden_rows: Frame) -> None:
    rows = rows_of(golden_rows, metric="SRCC", method="TSN-IQA-O", order="I")
    assert len(rows) == 1 + 2 + 3 + 4
    assert not any("future" in row.note for row in rows)
    future = [
        r for r in rows_of(golden_rows, metric="SRCC", method="TSN-IQA", order="I") if "future" in r.note
    ]
    assert len(future) == 3 + 2 + 1


def test_seeds_give_mean_and_sample_deviation(tmp_path: Path) -> None:
    single = []
    for seed in (0, 1, 2):
        out = tmp_path / str(seed)
        recorded.record_tsn(out, seed=seed)
        single.append(one(out, "TSN-IQA", "mPSI"))
        recorded.record_tsn(tmp_path / "all", seed=seed)
    (row,) = rows_of(tmp_path / "all", table="III", method="TSN-IQA", metric="mPSI")
    assert row.value == pytest.approx(np.mean(single), abs=1e-12)
    assert row.std == pytest.approx(np.std(single, ddof=1), abs=1e-12)
    assert "n=3 seeds" in row.note


# ------------------------------------------------------------------------------------------ what is not there


def lose(out: Path, record: RunRecord, node: str, *tests: str) -> None:
    """Takes answers away: to what a stopped run had not done."""
    for test in tests or record.tests:
        shutil.rmtree(out / "answers" / record.answers[node][test], ignore_errors=True)


def test_what_an_unfinished_run_lacks_is_left_out_and_named_above_with_the_command(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path, command="python -m cliqa_bench run --orders I")
    lose(tmp_path, record, "train-bid-0", "csiq")
    result = write_report(tmp_path, figures=False)
    assert "1 of 16 answers are missing" not in result.summary  # head 3 answers from the third experience on
    unfinished = "unfinished: tsn, order I: 2 of 16 answers are missing"
    command = "to finish: python -m cliqa_bench run --orders I"
    assert result.summary.startswith("1 run, 1 of them unfinished (")
    assert (
        0 < result.summary.index(unfinished) < result.summary.index(command) < result.summary.index("mSRCC")
    )
    readme = (tmp_path / "report" / "README.md").read_text()
    assert readme.count(unfinished) == 1 and readme.index(unfinished) < readme.index("table_IV.md")
    assert rows_of(tmp_path, method="TSN-IQA", metric="mSRCC") == []  # not the mean of the other test sets
    assert math.isfinite(one(tmp_path, "TSN-IQA", "mPI"))
    assert [row.length for row in rows_of(tmp_path, method="TSN-IQA", metric="mPSI")] == [1, 2]
    told = [line.split() for line in result.summary.splitlines() if "Task-" in line]
    # mPSI of two experiences is not that of the order
    assert len(told) == 4 and {line[-1] for line in told} == {"—"}
    assert "| TSN-IQA | — | **0." in (tmp_path / "report" / "table_III.md").read_text()
    for name in ("table_III.csv", "results.csv"):
        assert all(row["value"] for row in cells((tmp_path / "report" / name).read_text()))


def test_unfinished_seeds_do_not_count_beside_finished_ones(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path / "alone", seed=1)
    recorded.record_tsn(tmp_path, seed=1)
    lose(tmp_path, recorded.record_tsn(tmp_path, asked="2030-01-01"), "train-bid-0", "csiq")
    for metric in ("mSRCC", "mPI", "mPSI"):
        assert one(tmp_path, "TSN-IQA", metric) == one(tmp_path / "alone", "TSN-IQA", metric)
    assert not any("n=2" in row.note for row in rows_of(tmp_path))
    summary = write_report(tmp_path, figures=False).summary
    assert "2 of 16 answers are missing" in summary and "older run" not in summary


def test_of_unfinished_seeds_a_number_is_the_mean_of_those_that_have_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        recorded.record_tsn(tmp_path / "whole", seed=seed)
        lose(tmp_path, recorded.record_tsn(tmp_path, seed=seed), f"train-{['clive', 'bid'][seed]}-{seed}")
    found = rows_of(tmp_path, method="TSN-IQA", metric="PI_t", table="")
    assert [row.length for row in found] == [1, 2, 3]
    assert ["n=2 seeds" in row.note for row in found] == [True, True, False]
    for t in (1, 2):
        assert found[t - 1].value == one(tmp_path / "whole", "TSN-IQA", "PI_t", length=t)


def test_the_first_finished_order_is_the_main_one(tmp_path: Path) -> None:
    recorded.record_single(tmp_path, "sl", "I", command="python -m cliqa_bench run --strategy sl")
    lose(tmp_path, read_records(tmp_path)[0], "sl-clive-0")
    recorded.record_single(tmp_path, "jl")
    recorded.record_tsn(tmp_path, "V")
    result = write_report(tmp_path, figures=False)
    assert "order I is unfinished: Tables III and IV show order V, the first finished" in result.summary
    for name in ("III", "IV"):
        text = (tmp_path / "report" / f"table_{name}.md").read_text()
        assert "Order V: CLIVE, BID, CSIQ, LIVE." in text and "TSN-IQA" in text and "SL" not in text
    table = (tmp_path / "report" / "table_VI.md").read_text().splitlines()
    assert len([line for line in table if "| SL |" in line and line.endswith("| — | — |")]) == 1
    lose(tmp_path, recorded.record_tsn(tmp_path, "V"), "train-live-0")
    result = write_report(tmp_path, figures=False)  # now no order is finished
    assert "Order I: LIVE, CSIQ, BID, CLIVE." in (tmp_path / "report" / "table_IV.md").read_text()
    assert "the first finished" not in result.summary and result.summary.count("unfinished: ") == 2


def test_a_missing_gate_leaves_the_readouts_that_need_none(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    lose(tmp_path, record, "gate-csiq", "live")
    summary = write_report(tmp_path, figures=False).summary
    assert "3 of 16 answers are missing" in summary
    assert rows_of(tmp_path, method="TSN-IQA", metric="mSRCC") == []
    assert math.isfinite(one(tmp_path, "TSN-IQA-O", "mSRCC"))


@pytest.mark.parametrize("what", ["nan", "constant"])
def test_predictions_without_a_correlation_are_named(tmp_path: Path, what: str) -> None:
    record = recorded.record_tsn(tmp_path)
    path = tmp_path / "answers" / record.answers["train-clive-0"]["bid"] / "answers.npz"
    told = read_answers(path)
    told["scores"][5 if what == "nan" else slice(None)] = np.nan if what == "nan" else 0.25
    write_answers(path, told["keys"], told["mos"], scores=told["scores"])
    recorded.sign(path.parent)
    summary = write_report(tmp_path, figures=False).summary
    where = "TSN-IQA (last head), order I, seed 0, after CLIVE, on BID: "
    expected = (
        "has no finite score for image bid/005.png" if what == "nan" else "gives all images the same score"
    )
    assert where + expected in summary
    assert math.isnan(one(tmp_path, "TSN-IQA (last head)", "mSRCC"))
    assert math.isfinite(one(tmp_path, "TSN-IQA-O", "mSRCC"))


def test_an_undefined_number_of_one_seed_is_not_the_mean_of_the_others(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    recorded.record_tsn(tmp_path, seed=1)
    path = tmp_path / "answers" / record.answers["train-clive-0"]["bid"] / "answers.npz"
    told = read_answers(path)
    write_answers(path, told["keys"], told["mos"], scores=0 * told["scores"])
    recorded.sign(path.parent)
    assert math.isnan(one(tmp_path, "TSN-IQA (last head)", "mSRCC"))
    write_report(tmp_path, figures=False)
    assert "| TSN-IQA (last head) | — |" in (tmp_path / "report" / "table_III.md").read_text()


def test_without_runs_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs in"):
        write_report(tmp_path)


def test_unknown_format(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    with pytest.raises(UserError, match=r"unknown format 'text'.*csv, html, md, tex"):
        write_report(tmp_path, formats=["csv", "text"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    (tmp_path / "report").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path, figures=False)


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    (tmp_path / "report").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path, figures=False)


# ------------------------------------------------------------------------------------------ nothing is mixed


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"preset": "paper"}, marks=pytest.mark.slow),
        pytest.param({"split": "2"}, marks=pytest.mark.slow),
        {"fingerprints": {"live": "another", "csiq": "print-of-csiq"}},
        {"config": {"training": {"epochs": 99}}},
        pytest.param({"weights": "those of another file"}, marks=pytest.mark.slow),
    ],
    ids=["preset", "split", "data", "protocol", "weights"],
)
def test_runs_that_cannot_be_compared_are_reported_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    recorded.record_tsn(tmp_path, seed=0)
    recorded.record_tsn(tmp_path, seed=1, asked="2024-06-01T00:00:00+00:00", **other)
    result = write_report(tmp_path, figures=False)
    assert "not comparable with these, reported separately" in result.summary
    (apart,) = (tmp_path / "report").glob("other-*")
    assert (apart / "table_III.md").is_file()
    alone = tmp_path / "alone"
    recorded.record_tsn(alone, seed=1)
    (newest,) = rows_of(tmp_path, table="III", method="TSN-IQA", metric="mSRCC")
    assert newest.value == one(alone, "TSN-IQA", "mSRCC") and math.isnan(newest.std)


def test_what_is_no_longer_reported_apart_is_removed(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path, seed=0)
    record = recorded.record_tsn(tmp_path, seed=1, asked="2024-06-01T00:00:00+00:00", preset="paper")
    write_report(tmp_path, figures=False)
    (apart,) = (tmp_path / "report").glob("other-*")
    (tmp_path / "runs" / f"{record.id}.json").unlink()
    write_report(tmp_path, figures=False)
    assert not apart.exists()


def test_real_and_generated_data_are_never_in_one_table(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path, generated=True)
    recorded.record_tsn(tmp_path, seed=1, generated=False, asked="2025-01-01T00:00:00+00:00")
    write_report(tmp_path, figures=False)
    texts = [p.read_text() for p in (tmp_path / "report").glob("[!.]*.*")]
    assert len(texts) > 10 and not any("iniature" in text for text in texts)


@pytest.mark.slow
def test_generated_data_is_said_in_every_file(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    result = write_report(tmp_path)
    for path in result.files:
        if path.suffix in (".csv", ".md", ".tex", ".svg", ".html"):
            assert "not comparable with published numbers" in path.read_text(encoding="utf-8"), path.name
    assert GENERATED in result.summary
    rows = cells((tmp_path / "report" / "results.csv").read_text())
    assert all(GENERATED in row["note"] for row in rows)


@pytest.mark.slow
def test_of_a_real_set_among_miniatures_it_is_said_that_it_is_real(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path, generated=["live", "csiq"])
    assert record.sequence[:2] == ["live", "csiq"]
    real = ", ".join(recorded.TITLES[name] for name in record.sequence[2:])
    told = f"generated miniatures (LIVE, CSIQ) beside real data ({real})"
    caution = f"{told}: not comparable with published numbers"
    result = write_report(tmp_path)
    for path in result.files:
        if path.suffix in (".csv", ".md", ".tex", ".html"):
            text = path.read_text(encoding="utf-8")
            assert caution[1:] in text, path.name
            assert GENERATED not in text, path.name
    for line in (caution, "generated miniatures and real data, group"):
        assert line in result.summary
    rows = cells((tmp_path / "report" / "results.csv").read_text())
    assert all(row["note"].endswith(caution) for row in rows)


def test_of_a_record_that_does_not_say_which_data_is_generated_all_may_be(tmp_path: Path) -> None:
    group = RunGroup("", [recorded.record_tsn(tmp_path, generated=True)])
    assert "generated" not in group.records[0].facts and group.caution == GENERATED


def test_variants_are_rows_of_their_own(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    write_record(tmp_path, replace(record, variant="tau=0", tau=0.0))
    rows = rows_of(tmp_path, table="III", method="TSN-IQA", metric="mSRCC")
    assert {row.variant for row in rows} == {"", "tau=0"} and len({row.value for row in rows}) == 2
    write_report(tmp_path, figures=False)
    assert "| TSN-IQA (tau=0) |" in (tmp_path / "report" / "table_V.md").read_text()


def test_a_second_run_of_the_same_name_is_not_taken_for_a_seed(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    newer = replace(record, tau=1.0, facts={**record.facts, "asked": "2030-01-01"})
    write_record(tmp_path, newer)
    result = write_report(tmp_path, figures=False)
    assert f"an older run of the same name is left out: {record.id}" in result.summary
    (row,) = rows_of(tmp_path, table="III", method="TSN-IQA", metric="mSRCC")
    assert math.isnan(row.std) and "seeds" not in row.note


def test_without_order_one_the_first_there_is_stands_in_table_iv(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path, "V")
    write_report(tmp_path, figures=False)
    assert "Order V: CLIVE, BID, CSIQ, LIVE." in (tmp_path / "report" / "table_IV.md").read_text()


def test_files_of_a_former_report_do_not_stay(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    write_report(tmp_path, figures=False)
    (tmp_path / "report" / "mine.txt").write_text("stays")
    write_report(tmp_path, formats=["md"], figures=False)
    names = {p.name for p in (tmp_path / "report").glob("[!.]*")}
    assert {"results.csv", "README.md", "mine.txt", "table_III.md", "table_transfer.md"} <= names
    assert {Path(name).suffix for name in names} == {".csv", ".md", ".txt"}
    assert [name for name in names if name.endswith(".csv")] == ["results.csv"]


def test_several_backbones_stand_beside_each_other(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    write_record(tmp_path, replace(record, backbone="ResNet-18"))
    write_report(tmp_path, figures=False)
    table = (tmp_path / "report" / "table_III.tex").read_text()
    assert "\\multicolumn{4}{c}{ResNet-18} & \\multicolumn{4}{c}{S-CNN}" in table
    assert r"| TSN-IQA \[S-CNN\] |" in (tmp_path / "report" / "table_IV.md").read_text()


def test_what_was_not_pre_trained_is_marked_and_in_no_ranking(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path, weights="0123")
    facts = {**record.facts, "weights": "random+4567"}
    write_record(tmp_path, replace(record, backbone="ResNet-18", facts=facts))
    result = write_report(tmp_path, figures=False)
    assert "ResNet-18 was not pre-trained (--weights random): its rows are in no ranking" in result.summary
    notes = {(r.backbone, r.note.split("; ")[0]) for r in rows_of(tmp_path, metric="mSRCC")}
    assert ("ResNet-18", UNTRAINED) in notes and ("S-CNN", UNTRAINED) not in notes


# ------------------------------------------------------------------------------------------- shapes and looks


def row(table: str, method: str, metric: str, value: float, **more: object) -> TidyRow:
    known: dict[str, object] = dict.fromkeys(TIDY_COLUMNS, "")
    known.update(table=table, setting="Task-Agnostic", backbone="S-CNN", order="I", length=6, std=math.nan)
    known.update(method=method, metric=metric, value=value, **more)
    return TidyRow(**known)  # type: ignore[arg-type]


def bold_of(values: dict[str, float], **more: object) -> list[str]:
    section = shape("V", [row("V", m, "mSRCC", v, **more) for m, v in values.items()]).sections[0]
    return [name for name, cells in section.rows if cells[0].bold]


def test_the_best_is_bold_where_it_is_the_best_alone_as_printed() -> None:
    assert bold_of({"A": 0.9006, "B": 0.9004, "C": 0.8994, "D": math.nan}) == ["A"]
    assert bold_of({"A": 0.9004, "B": 0.8996, "C": 0.8994}) == []  # both are printed as 0.900
    assert bold_of({"A": 0.9}) == bold_of({"A": 0.9, "B": math.nan}) == []


def test_results_of_future_tasks_are_never_bold_and_do_not_compete() -> None:
    assert bold_of({"A": 0.9, "B": 0.8}, note="future task") == []
    future, own, other = TableValue(0.9, gray=True), TableValue(0.8), TableValue(0.7)
    assert [value.bold for value in only_best([future, own, other])] == [False, True, False]
    assert [value.bold for value in only_best([future, own, other], min)] == [False, False, True]


def test_what_was_not_pre_trained_is_never_bold_and_does_not_compete() -> None:
    assert bold_of({"A": 0.9, "B": 0.8}, note=f"{UNTRAINED}; {GENERATED}") == []
    values = [
        row("V", m, "mSRCC", v, note=n) for m, v, n in (("A", 0.9, UNTRAINED), ("B", 0.8, ""), ("C", 0.7, ""))
    ]
    cells = shape("V", values).sections[0].rows
    assert [cell[0].bold for _, cell in cells] == [False, True, False]


def test_numbers_as_printed() -> None:
    assert [number(v) for v in (0.12345, -0.0001, 1.0, math.nan, -0.5)] == [
        "0.123", "0.000", "1.000", "—", "-0.500",
    ]  # fmt: skip


def published(read: dict[str, Any]) -> TidyRow:
    length = int(read["length"]) if read["length"].isdigit() else read["length"]
    return TidyRow(**{**read, "value": float(read["value"]), "std": math.nan, "length": length})


def test_the_published_tables_take_their_shape(shared: Path) -> None:
    tables = {}
    for name in ("III", "IV", "V", "VI"):
        with (shared / "data" / "paper_tables" / f"table_{name}.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        tables[name] = shape(name, [published(r) for r in read])
    matrix = tables["IV"]
    assert [s.label for s in matrix.sections] == ["All", *matrix.columns]
    assert [len(s.rows) for s in matrix.sections] == [1, 8, 8, 8, 8, 8, 8]
    assert sum(v.gray for s in matrix.sections for _, values in s.rows for v in values) == 120
    clive = dict(matrix.sections[4].rows)
    assert clive["TSN-IQA"][0].bold and clive["SL"][2].bold and not clive["TSN-IQA"][2].bold
    assert not any(v.bold and v.gray for s in matrix.sections for _, values in s.rows for v in values)
    assert tables["III"].spans == [("ResNet-18", 4), ("Two-Stream DNN", 4)]
    assert "| Task-Agnostic | SL | 0.666 | 0.851 |" in markdown(tables["III"])
    assert tables["V"].columns == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
    assert dict(tables["VI"].sections[4].rows)["TSN-IQA"][-1].mean == 0.909
    for table in tables.values():
        assert not any(math.isnan(v.mean) for s in table.sections for _, values in s.rows for v in values)


HOSTILE = r"a_b|<b>*x*\y {z} 50% & #1 $2 ~ ^ [l](u) `c`"


def test_hostile_names_are_escaped() -> None:
    assert escape_tex(HOSTILE) == (
        r"a\_b|\textless{}b\textgreater{}*x*\textbackslash{}y \{z\} 50\% \& \#1 \$2 \textasciitilde{} "
        r"\textasciicircum{} [l](u) `c`"
    )
    assert escape_md("a|b\nc<d>") == r"a\|b c\<d\>"
    table = shape("V", [row("V", HOSTILE, "mSRCC", 0.5), row("V", 'say "x", y', "mSRCC", 0.4)])
    lines = markdown(table).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")} == {4}
    back = cells(csv_text([row("V", 'say "x", y', "mSRCC", 0.1 + 0.2)]))
    assert back[0]["method"] == 'say "x", y' and float(back[0]["value"]) == 0.1 + 0.2
    text = latex(table)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
@pytest.mark.slow
def test_latex_compiles_as_it_is(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path, generated=True)
    write_record(tmp_path, replace(record, variant=HOSTILE, tau=1.0))
    write_report(tmp_path)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
        cwd=tmp_path / "report", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


@pytest.mark.slow
def test_figures_are_the_same_bytes_for_the_same_numbers(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    recorded.record_tsn(tmp_path, seed=1)
    curves = rows_of(tmp_path, table="Fig. 4")
    titles = [recorded.TITLES[name] for name in record.sequence]
    first, second = (draw_psi(curves, titles, tmp_path / name) for name in ("a", "b"))
    assert [p.name for p in first] == ["fig_4.svg", "fig_4.pdf", "fig_4.png"]
    for one_file, other in zip(first, second, strict=True):
        assert one_file.read_bytes() == other.read_bytes()
    svg = first[0].read_text()
    for text in ("TSN-IQA (hard)", "CLIVE", "S-CNN"):
        assert f">{text}</text>" in svg or f">{text}<" in svg
    assert b"/FontFile2" in first[1].read_bytes() and b"CreationDate" not in first[1].read_bytes()


@pytest.mark.slow
def test_nothing_of_a_figure_is_cut_off(tmp_path: Path) -> None:
    from PIL import Image

    record = recorded.record_tsn(tmp_path)
    write_record(tmp_path, replace(record, variant="stages=(1, 2, 3, 4), tau=16", tau=16.0))
    write_report(tmp_path)
    with Image.open(tmp_path / "report" / "fig_4.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 500
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (edge == 255).all()


def test_curves_without_a_value_are_not_drawn(tmp_path: Path) -> None:
    assert draw_psi([row("Fig. 4", "A", "PSI_t", math.nan)], ["LIVE"], tmp_path) == []


# --------------------------------------------------------------------------------------------- as a library


def test_load_gives_the_rows_of_results_csv(golden: tuple[Path, ReportResult]) -> None:
    frame = cliqa_bench.reports.load(str(golden[0]))  # a str does as well as a Path
    assert tuple(frame.columns) == TIDY_COLUMNS
    assert frame["value"].dtype == frame["std"].dtype == np.float64
    rows = cells((golden[0] / "report" / "results.csv").read_text(encoding="utf-8"))
    np.testing.assert_array_equal([float(row["value"] or "nan") for row in rows], frame["value"])


def test_tables_need_no_torch_no_pandas_and_no_matplotlib(golden: tuple[Path, ReportResult]) -> None:
    program = (
        "import sys; from pathlib import Path; from cliqa_bench.reports.report import write_report; "
        f"write_report(Path({str(golden[0])!r}), figures=False); "
        "bad = {'torch', 'avalanche', 'pandas', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_naming_the_package_is_cheap_and_other_names_do_not_exist() -> None:
    program = (
        "import sys, cliqa_bench.reports; assert not {'numpy', 'scipy', 'pandas'} & set(sys.modules); "
        "assert callable(cliqa_bench.reports.load)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = cliqa_bench.reports.lode
