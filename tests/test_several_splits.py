"""Several splits in one command: the nodes of single ones, and mean, deviation and median in every table."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs as recorded
from PIL import Image, ImageFilter
from scipy import stats
from scipy.stats import permutation_test

from cliqa_bench import metrics
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.splits import resolve_split, whole
from cliqa_bench.cli import parser
from cliqa_bench.cli.parser import main
from cliqa_bench.config import each_split
from cliqa_bench.errors import UserError
from cliqa_bench.execution.run import prepare, prepare_splits
from cliqa_bench.execution.score_files import choose_run
from cliqa_bench.extensions import registry
from cliqa_bench.reports import load
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.recomputed_intervals import student_quantile
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.figures.curves import psi_caption
from cliqa_bench.reports.figures.matrices import srcc_caption
from cliqa_bench.reports.methods import Method, matrices_of, sources
from cliqa_bench.reports.parts import collect, make_tables
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import RunGroup, Tidy, TidyRow, group_records
from cliqa_bench.reports.spread import Replicate, counted, ranges, spread, units
from cliqa_bench.reports.tables.statistics import (
    DRAWN,
    interval_rows,
    power_rows,
    sign_flip_p,
    significance_rows,
)
from cliqa_bench.results.nodes import Node, NodeKind, read_answers, read_json, write_answers
from cliqa_bench.results.records import AnswerReader, RunRecord, read_records, write_record
from cliqa_bench.settings.resolve import config_dict, page_numbers, paper_configs, resolve

# -- numbers of splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("1-10", [*range(1, 11)]),
        ("1,3,5-7", [1, 3, 5, 6, 7]),
        (" 2 , 4 - 5", [2, 4, 5]),
        ("3,1-3", [3, 1, 2]),
        (4, [4]),
        ([1, "3-4", 2], [1, 3, 4, 2]),
    ],
)
def test_numbers_are_given_as_pages_of_a_printer(said: Any, numbers: list[int]) -> None:
    assert page_numbers(said) == numbers
    if isinstance(said, str):
        assert page_numbers(ranges(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("3-1", "--splits 3-1: 3-1 runs backwards; write 1-3"),
        ("0", "--splits 0: splits are numbered from 1"),
        ("0-2", "--splits 0-2: splits are numbered from 1"),
        ("", "--splits must be numbers and ranges"),
        ("1-", "--splits must be numbers and ranges"),
        ("-1", "--splits must be numbers and ranges"),
        ("1;2", "--splits must be numbers and ranges"),
        ("official", "--splits must be numbers and ranges"),
        ("1-1001", "at most 1000 splits go into one run"),
        ("1-999999999", "at most 1000 splits go into one run"),
    ],
)
def test_what_is_no_list_of_splits_is_one_line(said: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}|{re.escape(message)}$") as error:
        page_numbers(said)
    assert "\n" not in str(error.value)


def test_splits_are_seeded_or_those_of_a_folder(tmp_path: Path) -> None:
    seeded = resolve({"strategy": "tsn", "splits": "2-3"})
    assert [one.split for one in each_split(seeded)] == ["2", "3"]
    assert seeded == each_split(seeded)[0]
    files = resolve({"strategy": "tsn", "split": str(tmp_path), "splits": "1,4"})
    assert [one.split for one in each_split(files)] == [f"{tmp_path}#1", f"{tmp_path}#4"]
    single = resolve({"strategy": "tsn", "split": "2"})
    assert each_split(single) == [single] and single.splits == []


@pytest.mark.parametrize("split", ["1", "official", "{}#2"])
def test_a_single_split_and_several_contradict_each_other(tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError, match="is a single split and cannot be combined with --splits; leave one"):
        resolve({"strategy": "tsn", "split": split.format(tmp_path), "splits": "1-3"})


def test_a_file_without_splits_asks_for_a_single_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for said in ("[]", "null"):
        file.write_text(f"strategy: [tsn]\nsplit: '2'\nsplits: {said}\n", encoding="utf-8")
        _, args = parser.parse(["plan", "--config", str(file)])
        config = resolve(args.as_dict())
        assert (config.split, config.splits) == ("2", [])


def test_a_stored_configuration_asks_for_all_splits_again(tmp_path: Path) -> None:
    for split in (None, str(tmp_path)):
        asked = resolve({"strategy": "tsn", "split": split, "splits": "1-3"})
        for one in each_split(asked):
            stored = config_dict(one)
            assert json.loads(json.dumps(stored)) == stored
            assert resolve(stored) == asked


def test_the_paper_s_runs_are_done_on_every_split() -> None:
    configs = paper_configs({"splits": "2-3", "preset": "quick", "weights": "random"})
    assert len(configs) > 5 and all(config.splits == [2, 3] for config in configs)


@pytest.mark.parametrize("said", ["1-3", "[1, 2, 3]", "[1, 2-3]"])
def test_a_file_says_the_same(tmp_path: Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = draw(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(f"strategy: ridge\norders: '{spec}'\npreset: quick\nsplits: {said}\n", encoding="utf-8")
    assert main(["plan", "--config", str(file), "--out", str(tmp_path / "runs")]) == 0
    assert "3 runs of ridge on S-CNN, 3 splits" in capsys.readouterr().out
    assert main(["plan", "--config", str(file), "--splits", "2", "--out", str(tmp_path / "runs")]) == 0
    assert "1 run of ridge on S-CNN, split 2" in capsys.readouterr().out


# -- the same nodes as single splits -------------------------------------------------------------------------


def draw(folder: Path, header: str = "image,mos,group", more: tuple[str, ...] = ()) -> str:
    """Writes 15 contents at three qualities and their table; returns its name as a dataset."""
    rng = np.random.default_rng(0)
    lines = [header]
    for content in range(15):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        picture = small.resize((110, 100), Image.Resampling.BICUBIC)
        for k in range(3):
            name = f"{content:02}_{k}.png"
            picture.filter(ImageFilter.GaussianBlur(1.5 * k)).save(folder / name)
            extra = more[(3 * content + k) % len(more)] if more else ""
            lines.append(f"{name},{5 - 2 * k + 0.8 * rng.normal():.3f},g{content}{extra}")
    (folder / "my.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{folder / 'my.csv'}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return draw(tmp_path_factory.mktemp("pictures"))


def settings(drawn: str, out: Path, **more: Any) -> dict[str, Any]:
    return {"strategy": "ridge", "orders": drawn, "preset": "quick", "out": str(out), **more}


def test_each_split_has_the_nodes_of_a_single_one(drawn: str, tmp_path: Path) -> None:
    plans = prepare_splits(resolve(settings(drawn, tmp_path, splits="1,3")), "")
    for plan, number in zip(plans, ("1", "3"), strict=True):
        alone = prepare(resolve(settings(drawn, tmp_path, split=number)), "")
        for nodes in ("train", "gates", "answers", "pictures"):
            assert getattr(plan, nodes).keys() == getattr(alone, nodes).keys()
        assert [record.id for record in plan.records] == [record.id for record in alone.records]
        assert "splits" not in alone.records[0].facts
    assert not plans[0].train.keys() & plans[1].train.keys()
    told = [plan.records[0].facts["splits"] for plan in plans]
    assert [one["number"] for one in told] == [1, 3] and told[0]["data"] == told[1]["data"]
    assert [plan.records[0].facts["config"] for plan in plans] == [config_dict(plans[0].config)] * 2


def test_what_splits_have_in_common_is_the_data_tested_whole(drawn: str) -> None:
    (one,) = load_materials([registry.check("datasets", drawn)], split="1").values()
    (other,) = load_materials([registry.check("datasets", drawn)], split="2").values()
    assert one.fingerprint != other.fingerprint and one.contents == other.contents
    assert one.contents == replace(one, split=whole(one.ratings)).fingerprint
    changed = replace(one, ratings=[one.ratings[0]._replace(score=99.0), *one.ratings[1:]])
    assert changed.contents != one.contents


@pytest.mark.slow
def test_a_run_reuses_a_finished_split_and_reports_over_all(
    drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    common = ["run", "--strategy", "ridge", "--orders", drawn, "--preset", "quick", "--out", str(out)]
    assert main([*common, "--jobs", "1", "--split", "2"]) == 0
    (node,) = (out / "train").iterdir()
    when = (node / "done.json").stat().st_mtime_ns
    assert main([*common, "--jobs", "1", "--splits", "1-3"]) == 0
    said = capsys.readouterr().out
    assert "2/3: 1 run of ridge on S-CNN, split 2, real data: 1 experience, 1 training, 1 already" in said
    assert (node / "done.json").stat().st_mtime_ns == when and len(list((out / "train").iterdir())) == 3
    records = {record.split_number: record for record in read_records(out)}
    each = []
    for number in (1, 2, 3):
        (answers,) = {a for by_test in records[number].answers.values() for a in by_test.values()}
        held = read_answers(out / "answers" / answers / "answers.npz")
        each.append(stats.spearmanr(held["scores"][:, 0], held["mos"]).statistic)
    assert len(set(each)) > 1
    frame = load(out)
    row = frame[(frame.table == "III") & (frame.metric == "mSRCC")].iloc[0]
    # largest difference seen: 1.2e-16
    np.testing.assert_allclose(
        [row.value, row["std"], row["median"]],
        [np.mean(each), np.std(each, ddof=1), np.median(each)],
        rtol=4e-16,
    )
    shown = f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f} ({np.median(each):.3f})"
    assert shown in said and shown in (out / "report" / "table_IV.md").read_text(encoding="utf-8")
    assert verify(out).problems == []
    stored = (out / "config.yaml").read_text(encoding="utf-8")
    assert "split: null" in stored and "splits:\n- 1\n- 2\n- 3" in stored
    assert choose_run(out, None).split_number == 1
    assert main(["plan", "--config", str(out / "config.yaml")]) == 0
    assert "3 runs of ridge on S-CNN, 3 splits, real data: 3 experiences, 3 trainings, 3 already there" in (
        capsys.readouterr().out
    )


def test_all_splits_stand_in_the_report_while_the_first_is_at_work(
    drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> None:
        arguments[-1]()
        raise KeyboardInterrupt

    monkeypatch.setattr("cliqa_bench.execution.run.run_jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        from cliqa_bench.execution.run import run

        run(resolve(settings(drawn, tmp_path, splits="1-3")), "the command")
    assert sorted(record.split_number for record in read_records(tmp_path)) == [1, 2, 3]


# -- tables with several splits ------------------------------------------------------------------------------


def subsets(spec: str, number: str) -> dict[str, str]:
    cls = registry.load("datasets", spec)
    assert cls.home is not None
    dataset = cls(cls.home)
    return dict(resolve_split(number, dataset, dataset.ratings()).subset)


def numbered(folder: Path, header: str, rows: list[str]) -> str:
    for n, row in enumerate(rows):
        Image.new("RGB", (8, 8), (n, n, n)).save(folder / f"{n}.png")
        rows[n] = f"{n}.png,{n},{row}"
    (folder / "my.csv").write_text("\n".join([f"image,mos,{header}", *rows]) + "\n", encoding="utf-8")
    return f"csv:{folder / 'my.csv'}"


def test_numbered_columns_are_splits(tmp_path: Path) -> None:
    rows = ["train,test", "val,train", "test,val", "train,train"]
    spec = numbered(tmp_path, "Split 1,split_3", rows)
    assert [*subsets(spec, "1").values()] == ["train", "val", "test", "train"]
    assert [*subsets(spec, "3").values()] == ["test", "train", "val", "train"]
    with pytest.raises(UserError, match=r"my.csv has no split 2; it has the columns Split 1, split_3"):
        subsets(spec, "2")
    assert [*subsets(f"{spec}?split=split_3", "2").values()] == ["test", "train", "val", "train"]
    assert "seeded" in str(subsets_name(f"{spec}?split=none"))


def subsets_name(spec: str) -> str:
    cls = registry.load("datasets", spec)
    assert cls.home is not None
    dataset = cls(cls.home)
    return resolve_split("1", dataset, dataset.ratings()).name


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("split,split2", "column 'split2' besides 'split'"),
        ("split1,Split_1", "column 'Split_1' besides 'split1'"),
        ("split0,split1", "column 'split0' and splits are numbered from 1"),
    ],
)
def test_numbered_columns_that_are_unclear_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        registry.load("datasets", numbered(tmp_path, header, ["train,test", "val,val", "test,train"]))


def test_a_column_that_states_one_split_has_not_several(tmp_path: Path) -> None:
    spec = draw(
        tmp_path, "image,mos,group,split", tuple(f",{s}" for s in ["train"] * 9 + ["val"] * 3 + ["test"] * 3)
    )
    config = resolve(settings(spec, tmp_path, splits="1-2"))
    with pytest.raises(UserError, match=r"--splits: 1 and 2 are the same split of csv-my: labels or files"):
        prepare_splits(config, "")


def test_published_files_are_splits(drawn: str, tmp_path: Path) -> None:
    (material,) = load_materials([registry.check("datasets", drawn)], split="1").values()
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        split = resolve_split(number, material.dataset, material.ratings)
        for part, name in (("train", "train_score"), ("val", "val"), ("test", "test")):
            lines = [f"{r.key}\t{r.score}\t0" for r in material.ratings if split.subset[r.key] == part]
            (tmp_path / number / f"csv-my_{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = prepare_splits(resolve(settings(drawn, tmp_path, split=str(tmp_path), splits="1-2")), "")
    seeded = prepare_splits(resolve(settings(drawn, tmp_path, splits="1-2")), "")
    assert [plan.train.keys() for plan in files] == [plan.train.keys() for plan in seeded]
    assert files[1].records[0].facts["splits"]["from"] == str(tmp_path)


# -- numbers over splits -------------------------------------------------------------------------------------


def record(
    out: Path, split: int, seed: int = 0, source: str = "", strategy: str = "tsn", **facts: Any
) -> RunRecord:
    """Records a run on one of several splits, with answers of its own."""
    make = recorded.record_tsn if strategy == "tsn" else recorded.record_single
    made = make(out, seed=100 * split + seed)
    (out / "runs" / f"{made.id}.json").unlink()
    data = {name: f"contents-of-{name}" for name in made.tests}
    told = {"splits": {"from": source, "number": split, "data": data}, "split": str(split), **facts}
    whole = replace(made, seed=seed, facts={**made.facts, **told})
    whole.__dict__.pop("id", None)
    write_record(out, whole)
    return whole


def rows_of(out: Path) -> list[TidyRow]:
    (group, *_) = group_records(read_records(out))
    return collect(group, AnswerReader(out)).rows


def one(rows: list[TidyRow], **wanted: str) -> TidyRow:
    (row,) = [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]
    return row


RUNS = [(1, 0), (1, 1), (2, 0), (5, 0)]


@pytest.fixture(scope="module")
def recorded_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits, one of them with two seeds, and their report; read it, never write to it."""
    out = tmp_path_factory.mktemp("splits") / "runs"
    for split, seed in RUNS:
        record(out, split, seed)
    write_report(out, figures=False)
    return out


@pytest.fixture(scope="module")
def rows(recorded_splits: Path) -> list[TidyRow]:
    return rows_of(recorded_splits)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], list[TidyRow]]:
    """Returns the rows of each run in a report of its own."""
    found = {}
    for split, seed in RUNS:
        out = tmp_path_factory.mktemp("alone")
        record(out, split, seed)
        found[split, seed] = rows_of(out)
    return found


def of_splits(alone: dict[tuple[int, int], list[TidyRow]], **wanted: str) -> list[float]:
    """Returns the number of each split: the mean over the reports of its seeds."""
    values = {run: one(rows, **wanted).value for run, rows in alone.items()}
    return [float(np.mean([v for run, v in values.items() if run[0] == split])) for split in (1, 2, 5)]


WANTED: list[dict[str, str]] = [
    {"table": "III", "method": "TSN-IQA", "metric": "mPSI"},
    {"table": "IV", "method": "TSN-IQA", "train_dataset": "BID", "test_dataset": "CSIQ"},
    {"table": "", "method": "TSN-IQA-O", "metric": "KRCC", "test_dataset": "LIVE"},
    {"table": "", "method": "TSN-IQA", "metric": "PLCC (logistic)", "test_dataset": "LIVE"},
    {"table": "XIII", "method": "TSN-IQA (hard)", "metric": "mSRCC"},
    {"table": "transfer", "method": "TSN-IQA", "metric": "BWT"},
    {"table": "bounded", "method": "TSN-IQA", "metric": "mSRCC: 0.05"},
]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: f"{wanted['table']} {wanted.get('metric', '')}")
def test_numbers_are_means_deviations_and_medians_over_splits(
    rows: list[TidyRow], alone: dict[tuple[int, int], list[TidyRow]], wanted: dict[str, str]
) -> None:
    single = {**wanted, "table": "III"} if wanted["table"] == "XIII" else wanted  # which has no single run
    found, each = one(rows, **wanted), of_splits(alone, **single)
    assert len(set(each)) > 1
    # largest difference seen: 2.3e-16
    np.testing.assert_allclose(
        [found.value, found.std, found.median or math.nan],
        [np.mean(each), np.std(each, ddof=1), np.median(each)],
        rtol=1e-15, atol=3e-16,
    )  # fmt: skip
    assert "n=3 splits of 1 to 2 seeds" in found.note


def test_files_have_medians_and_tables_show_them(recorded_splits: Path, rows: list[TidyRow]) -> None:
    folder = recorded_splits / "report"
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    found = one(rows, table="III", method="TSN-IQA", metric="mPSI")
    (row,) = [r for r in lines if (r["table"], r["method"], r["metric"]) == ("III", "TSN-IQA", "mPSI")]
    assert [float(row[c]) for c in ("value", "std", "median")] == [found.value, found.std, found.median]
    frame = load(recorded_splits)
    assert frame.columns[-1] == "median" and len(frame) == len(lines)
    shown = f"{found.value:.3f} ± {found.std:.3f} ({found.median:.3f})"
    for name in ("table_III.md", "table_III.tex", "report.html"):
        text = (folder / name).read_text(encoding="utf-8").replace(r"$\pm$", "±")
        assert shown in text, name
    caption = (folder / "table_IV.md").read_text(encoding="utf-8")
    assert "median in parentheses, over n = 3 splits, of each the mean over seeds 0, 1" in caption
    assert "splits 1-2, 5" in caption
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">Split</th>' in page and "<dt>Splits</dt><dd>1-2, 5</dd>" in page


def test_a_single_split_has_no_medians(tmp_path: Path) -> None:
    record(tmp_path, 4)
    write_report(tmp_path, figures=False)
    lines = (tmp_path / "report" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert (
        lines[0].endswith(",value,std,note")
        and "split 4, " in (tmp_path / "report" / "README.md").read_text()
    )


def test_a_run_that_is_not_finished_makes_a_dash(tmp_path: Path) -> None:
    for split in (1, 2):
        unfinished = record(tmp_path, split)
    (answers,) = (tmp_path / "answers").glob("train-bid-200-on-csiq-*")
    (answers / "done.json").unlink()
    rows = rows_of(tmp_path)
    found = one(rows, table="IV", method="TSN-IQA", train_dataset="BID", test_dataset="CSIQ")
    assert [math.isnan(number) for number in (found.value, found.std, found.median or 0.0)] == [True] * 3
    assert "n=2 splits" in found.note and unfinished.split_number == 2
    whole = one(rows, table="IV", method="TSN-IQA", train_dataset="LIVE", test_dataset="CSIQ")
    assert math.isfinite(whole.value)
    write_report(tmp_path, figures=False)
    told = (tmp_path / "report" / "table_III.md").read_text(encoding="utf-8")
    (line,) = [line for line in told.splitlines() if "| TSN-IQA |" in line]
    assert "—" not in line and "±" not in line and "splits" not in told  # the finished split counts alone


def test_two_splits_of_other_data_stand_apart(tmp_path: Path) -> None:
    record(tmp_path, 1)
    other = {"live": "other contents"} | {name: f"contents-of-{name}" for name in ("csiq", "bid", "clive")}
    record(tmp_path, 2, splits={"from": "", "number": 2, "data": other})
    record(tmp_path, 3, source="/files")
    recorded.record_tsn(tmp_path, seed=7)
    groups = group_records(read_records(tmp_path))
    assert sorted(group.splits for group in groups) == [[], [1], [2], [3]]
    record(tmp_path, 4)
    assert sorted(group.splits for group in group_records(read_records(tmp_path))) == [[], [1, 4], [2], [3]]


def test_one_split_with_two_divisions_of_the_data_stands_apart(tmp_path: Path) -> None:
    record(tmp_path, 1)
    prints = {name: f"print-of-{name}" for name in ("live", "csiq", "bid", "clive")}
    record(tmp_path, 1, seed=1, fingerprints={**prints, "bid": "divided otherwise"})
    assert len(group_records(read_records(tmp_path))) == 2


def test_who_lacks_a_split_is_named(tmp_path: Path) -> None:
    for split in (1, 2):
        record(tmp_path, split)
    few = recorded.record_single(tmp_path, "sl", splits=read_records(tmp_path)[0].facts["splits"])
    write_report(tmp_path, figures=False)
    text = (tmp_path / "report" / "table_III.md").read_text(encoding="utf-8").replace("\\", "")
    assert f"(fewer: sl [S-CNN] on {few.split_number})" in text


@pytest.fixture(scope="module")
def single_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a quick method, with results.csv alone; read it, never write to it."""
    out = tmp_path_factory.mktemp("single") / "runs"
    for split, seed in RUNS:
        record(out, split, seed, strategy="sl")
    write_report(out, ("csv",), figures=False)
    return out


@pytest.mark.parametrize("column", ["value", "std", "median"])
def test_verify_computes_means_deviations_and_medians_again(
    single_heads: Path, tmp_path: Path, column: str
) -> None:
    found = verify(single_heads)
    assert found.problems == [] and found.plain > 50
    out = Path(shutil.copytree(single_heads, tmp_path / "runs"))
    path = out / "report" / "results.csv"
    lines = [*csv.reader(path.read_text(encoding="utf-8").splitlines())]
    place = lines[0].index(column)
    lines[1][place] = repr(float(lines[1][place]) + 1e-9)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    (problem,) = verify(out).problems
    assert str(problem).startswith(f"report/results.csv:2: {column} of III")


def test_verify_holds_splits_of_the_same_data_to_it(
    single_heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of split 7 are on another division of BID, in which one image has another MOS."""
    out = Path(shutil.copytree(single_heads, tmp_path / "runs"))

    def changed(path: Path, keys: Any, mos: Any, **more: Any) -> None:
        write_answers(path, keys, mos + (keys == "bid/003.png"), **more)

    class Divided(Node):
        def __init__(self, out: Path, kind: NodeKind, slug: str, spec: dict[str, Any]) -> None:
            super().__init__(out, kind, slug, {**spec, "test": [spec["test"][0], "divided otherwise"]})

    monkeypatch.setattr(recorded, "Node", Divided)
    prints = dict.fromkeys(("live", "csiq", "bid", "clive"), "divided otherwise")
    record(out, 7, strategy="sl", fingerprints=prints)
    write_report(out, ("csv",), figures=False)
    assert verify(out).problems == []
    shutil.rmtree(out / "answers", ignore_errors=False)
    shutil.copytree(single_heads / "answers", out / "answers")
    monkeypatch.setattr(recorded, "write_answers", changed)
    record(out, 7, strategy="sl", fingerprints=prints)
    write_report(out, ("csv",), figures=False)
    (problem,) = verify(out).problems
    assert "another MOS for image bid/003.png than answers/sl-" in str(problem)
    assert "for a split of the same data" in str(problem)


@pytest.mark.parametrize("wrong", ["mean", "std", "median"])
def test_verify_has_a_path_of_its_own(
    single_heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """What the report computes wrongly is told though the report's own code agrees with it."""

    def off(values: Any) -> Any:
        found = spread(values)
        number = getattr(found, wrong)
        return found if number is None else found._replace(**{wrong: number + 1e-6})

    out = Path(shutil.copytree(single_heads, tmp_path / "runs"))
    monkeypatch.setattr("cliqa_bench.reports.rows.spread", off)
    write_report(out, ("csv",), figures=False)
    assert len(verify(out).problems) > 50


def test_the_numbers_of_three_splits_verify(tmp_path: Path) -> None:
    for split in (1, 2, 3):
        record(tmp_path, split, strategy="sl")
    write_report(tmp_path, ("csv",), figures=False)
    assert verify(tmp_path).problems == []


# -- spread --------------------------------------------------------------------------------------------------


def test_seeds_of_a_split_are_averaged_before_splits_are_compared() -> None:
    values = {Replicate(1, 0): 0.0, Replicate(1, 1): 1.0, Replicate(2, 0): 3.0, Replicate(3, 7): 4.0}
    found = spread(values)
    assert (found.mean, found.median) == (2.5, 3.0)
    assert found.std == pytest.approx(np.std([0.5, 3, 4], ddof=1), rel=1e-15)
    assert found.note == "n=3 splits of 1 to 2 seeds"
    assert [*units(values)] == [1, 2, 3]
    assert spread({**values, Replicate(2, 1): math.nan}).median is not None
    assert all(map(math.isnan, spread({**values, Replicate(2, 1): math.nan})[:3]))  # type: ignore[arg-type]


def test_even_numbers_of_splits_have_the_middle_of_two() -> None:
    assert spread({Replicate(split, 0): float(split**2) for split in (1, 2, 3, 4)}).median == 6.5


def test_seeds_alone_have_no_median() -> None:
    found = spread({Replicate(0, 3): 1.0, Replicate(0, 5): 2.0})
    assert (found.mean, found.median, found.note) == (1.5, None, "n=2 seeds")
    assert math.isnan(spread({Replicate(4, 0): 1.0}).std) and spread({Replicate(4, 0): 1.0}).note == ""
    assert counted([Replicate(1, 0), Replicate(2, 0)]) == "n=2 splits"
    assert (ranges([3, 1, 2, 7, 9, 10]), ranges([4]), ranges([])) == ("1-3, 7, 9-10", "4", "")


# -- intervals, tests and orders -----------------------------------------------------------------------------


def test_intervals_allow_for_what_splits_share(tmp_path: Path) -> None:
    for split, seed in [(1, 0), (1, 1), (2, 0), (3, 0)]:
        record(tmp_path, split, seed)
    (group,) = group_records(read_records(tmp_path))
    reader = AnswerReader(tmp_path)
    rows = interval_rows(group, reader)
    by_test: dict[str, list[float]] = {}
    for test in group.main_record.sequence:
        by_run: dict[int, list[float]] = {}
        for run, source in sources(group)[
            Method("Task-Agnostic", "S-CNN", "TSN-IQA (last head)", "")
        ].items():
            head, _ = source.record.steps[-1].heads[-1]
            held = read_answers(tmp_path / "answers" / source.record.answers[head][test] / "answers.npz")
            told = stats.spearmanr(held["scores"][:, 0], held["mos"]).statistic
            by_run.setdefault(run.split, []).append(told)
        by_test[test] = [float(np.mean(same)) for same in by_run.values()]
    for metric, title, each in (
        ("SRCC", "CSIQ", by_test["csiq"]),
        ("mSRCC", "", [float(np.mean(values)) for values in zip(*by_test.values(), strict=True)]),
    ):
        middle = float(np.mean(each))
        half = student_quantile(0.975, 2) * np.std(each, ddof=1) * np.sqrt(1 / 3 + 2 / 7) / (1 - middle**2)
        expected = {"": middle, ": low": np.tanh(np.arctanh(middle) - half)}
        expected[": high"] = np.tanh(np.arctanh(middle) + half)
        for end, value in expected.items():
            row = one(rows, method="TSN-IQA (last head)", metric=f"{metric}{end}", test_dataset=title)
            assert row.value == pytest.approx(value, abs=1e-12)
            assert row.note.startswith("over n=3 splits of 1 to 2 seeds, corrected for what they share")
    power = power_rows(group, reader)
    assert all(row.note.startswith("n=3 splits") for row in power)
    plain = Recomputation(tmp_path, group)
    for row in [*rows, *power]:
        again = plain.value(row)
        assert again is not None and again[0] == pytest.approx(row.value, abs=1e-12, nan_ok=True)
    for row in power:  # seeds do not stand for splits
        assert not row.metric.endswith(": seeds") or np.isnan(row.value)


def test_methods_are_paired_by_split(tmp_path: Path) -> None:
    runs = [(1, 0), (1, 1), *((split, 0) for split in range(2, 8))]
    for split, seed in runs:
        record(tmp_path, split, seed)
    (group,) = group_records(read_records(tmp_path))
    reader = AnswerReader(tmp_path)
    row = one(
        significance_rows(group, reader), method="TSN-IQA", metric="mSRCC: p against TSN-IQA (last head)"
    )
    values = {
        name: {
            run: metrics.summary(*matrices_of(reader, source)).mSRCC
            for run, source in sources(group)[Method("Task-Agnostic", "S-CNN", name, "")].items()
        }
        for name in ("TSN-IQA", "TSN-IQA (last head)")
    }
    both = values["TSN-IQA"], values["TSN-IQA (last head)"]
    less = [np.mean([both[0][r] - both[1][r] for r in both[0] if r.split == split]) for split in range(1, 8)]
    expected = permutation_test(
        (np.array(less),), np.mean, permutation_type="samples", n_resamples=2**7
    ).pvalue
    assert row.value == expected and "n=7 splits of 1 to 2 seeds" in row.note
    assert row.value >= 2 / 2**7


def test_many_differences_have_drawn_signs() -> None:
    """As scipy's exact test has it, of 21 differences; a second with all of them."""
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.3, 0.6):
        less = rng.normal(shift, 1, 21)
        signs = 1 - 2 * ((np.arange(2**21)[:, None] >> np.arange(21)) & 1).astype(np.int8)
        exact = float((np.abs(signs @ less) >= abs(less.sum()) * (1 - 1e-14)).mean())
        # three standard errors of DRAWN draws
        assert sign_flip_p([*less]) == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / DRAWN))
    assert sign_flip_p([1.0] * 30) == pytest.approx(1 / (DRAWN + 1))
    assert sign_flip_p([1.0, -1.0] * 15) == 1.0


def test_captions_say_that_intervals_are_over_splits(recorded_splits: Path, rows: list[TidyRow]) -> None:
    (group,) = group_records(read_records(recorded_splits))
    tables = {table.number: table for table in make_tables(Tidy(group, rows, []))}
    assert "In brackets: 95% intervals over splits, see" in tables["III"].caption
    for number in ("intervals", "power"):
        caption = tables[number].caption
        assert "Splits share images" in caption and "contents" not in caption and "one seed" not in caption
    assert "Best mSRCC of each section in bold." in tables["intervals"].caption
    assert "that these splits would have shown" in tables["power"].caption
    assert tables["power"].columns == ["Value", "Low", "High", "Could be shown"]


def test_orders_are_studied_in_means_over_splits(
    rows: list[TidyRow], alone: dict[tuple[int, int], list[TidyRow]]
) -> None:
    wanted = {"table": "orders", "method": "TSN-IQA", "metric": "mPSI: mean"}
    found, each = one(rows, **wanted), of_splits(alone, **wanted)
    # largest difference seen: 1.2e-16
    assert found.value == pytest.approx(np.mean(each), rel=4e-16)
    assert "means over n=3 splits of 1 to 2 seeds" in found.note


def test_figures_say_that_they_are_over_splits(recorded_splits: Path, rows: list[TidyRow]) -> None:
    (group,) = group_records(read_records(recorded_splits))
    assert "standard deviation over splits" in psi_caption([r for r in rows if r.metric == "PSI_t"])
    assert "Means over the splits." in srcc_caption(Tidy(group, rows, []))


def test_a_record_with_broken_splits_is_refused(tmp_path: Path) -> None:
    cases: tuple[Any, ...] = (
        [],
        {"number": 1},
        {"from": "", "number": 0, "data": {}},
        {"from": "", "number": "1", "data": {}},
    )
    for broken in cases:
        made = record(tmp_path, 1)
        path = tmp_path / "runs" / f"{made.id}.json"
        body = read_json(path)
        body["facts"]["splits"] = broken
        path.write_text(json.dumps(body), encoding="utf-8")
        with pytest.raises(UserError, match="is not a run record"):
            read_records(tmp_path)


def test_groups_of_splits_keep_the_names_of_single_ones(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    (group,) = group_records(read_records(tmp_path))
    assert isinstance(group, RunGroup) and (group.splits, group.split) == ([], "split 1")
