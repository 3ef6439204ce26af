"""LIQE's tables and the published numbers, from recorded runs; and the second path to them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reported import numbers_of, rows_of
from scipy import stats

from cliqa_bench.reports import published_liqe
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.parts import collect, make_tables
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Tidy, TidyRow, group_records
from cliqa_bench.reports.tables.liqe import PLCC
from cliqa_bench.results.nodes import Node, read_answers, write_answers
from cliqa_bench.results.records import AnswerReader, RunRecord, Step, read_records, write_record
from cliqa_bench.seeds import rng_for

SIX = ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"]
TITLES = {
    "live": "LIVE", "csiq": "CSIQ", "bid": "BID", "clive": "CLIVE", "koniq10k": "KonIQ-10K",
    "kadid10k": "KADID-10K", "tid2013": "TID2013",
}  # fmt: skip
IMAGES = 24
TABLES = ("liqe_1", "liqe_2", "liqe_4", "liqe_5", "liqe_aspects", "liqe_gain")
ROWS = {"liqe": "LIQE", "liqe_cl": "LIQE-CL", "jl": "JL", "naive": "MH-CL"}
VARIANTS = (
    "", "tasks=q", "tasks=qs", "tasks=qd", "weighting=equal", "freeze_text=True",
    "freeze_text=True, weighting=equal", "pooling=pairs", "tasks=q, pooling=pairs",
)  # fmt: skip


def labels_of(test: str, images: int = IMAGES) -> np.ndarray:
    """Returns one to three scenes and one distortion of each image, (n, 20)."""
    rng = rng_for("labels", test)
    true = np.zeros((images, 20), np.float32)
    for row in true:
        row[rng.choice(9, size=rng.integers(1, 4), replace=False)] = 1
        row[9 + min(rng.geometric(0.3), 11) - 1] = 1
    return true


def columns_of(variant: str) -> slice | None:
    """Returns which columns of the aspects a run has."""
    tasks = dict(part.split("=") for part in variant.split(", ") if part).get("tasks", "qsd")
    return {"q": None, "qs": slice(0, 9), "qd": slice(9, 20), "qsd": slice(0, 20)}[tasks]


def record(
    out: Path,
    strategy: str,
    variant: str = "",
    seed: int = 0,
    sequence: Sequence[str] = SIX,
    tests: Sequence[str] = ("tid2013",),
    generated: bool = True,
    backbone: str = "S-CNN",
) -> RunRecord:
    """Records a run, its answers drawn."""
    joint = strategy in ("liqe", "jl")
    learned = sequence[-1:] if joint else sequence
    name = f"{strategy}-{variant}-{seed}-{len(sequence)}".replace("=", "").replace(", ", "-")
    nodes = [f"train-{name}-{step}" for step in range(len(learned))]
    every = [*sequence, *tests]
    made = RunRecord(
        strategy=strategy, variant=variant, rows={"last": ROWS[strategy]}, backbone=backbone, seed=seed,
        order="I", sequence=list(sequence), tests=every, titles={test: TITLES[test] for test in every},
        steps=[Step(dataset, [(node, 0)]) for dataset, node in zip(learned, nodes, strict=True)], gates={},
        answers={
            node: {test: answered(out, node, test, strategy, variant) for test in every} for node in nodes
        },
        tau=32.0, stages=[3, 4], generated=generated,
        facts={
            "preset": "quick", "split": "1", "asked": f"2026-01-0{seed + 1}T00:00:00+00:00",
            "fingerprints": {test: f"print-of-{test}" for test in every},
            "generated": every if generated else [], "config": {"training": {}}, "pictures": {},
        },
    )  # fmt: skip
    write_record(out, made)
    return made


def answered(out: Path, node: str, test: str, strategy: str, variant: str) -> str:
    made = Node(out, "answers", f"{node}-on-{test}", {"of": node, "test": [test, f"print-of-{test}"]})
    columns, extras = columns_of(variant), {}
    rng = rng_for("answers", node, test)
    if strategy.startswith("liqe") and columns is not None and test in SIX:
        true = labels_of(test)
        said = (true * 0.4 + rng.random(true.shape)).astype(np.float32)
        extras = {"aspects": said[:, columns], "true_aspects": true[:, columns]}
    with made.building({}) as folder:
        mos = rng_for("mos", test).uniform(0, 100, IMAGES)
        scores = ((mos - 50) / 30 + rng.normal(size=IMAGES))[:, None].astype(np.float32)
        keys = np.array([f"img{i:02}.png" for i in range(IMAGES)])
        contents = np.arange(IMAGES) // 4
        write_answers(folder / "answers.npz", keys, mos, scores=scores, extras=extras, contents=contents)
    return made.id


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns recorded runs; read it, never write to it but a report."""
    folder = tmp_path_factory.mktemp("liqe") / "runs"
    for seed in (0, 1):
        for variant in VARIANTS:
            record(folder, "liqe", variant, seed)
        record(folder, "liqe_cl", seed=seed)
        record(folder, "liqe_cl", "memory=100", seed)
        record(folder, "jl", seed=seed)
        record(folder, "naive", seed=seed)
    return folder


@pytest.fixture(scope="module")
def numbers(out: Path) -> Tidy:
    return numbers_of(out)


def files_of(out: Path, strategy: str, variant: str, test: str) -> list[dict[str, np.ndarray]]:
    """Returns the answers of each seed after the last experience, by their names."""
    last = 0 if strategy in ("liqe", "jl") else 5
    word = f"{strategy}-{variant}".replace("=", "").replace(", ", "-")
    paths = [
        path
        for seed in (0, 1)
        for path in (out / "answers").glob(f"train-{word}-{seed}-6-{last}-on-{test}-*/answers.npz")
    ]
    assert len(paths) == 2
    return [read_answers(path) for path in paths]


def srcc(out: Path, strategy: str, variant: str, test: str) -> list[float]:
    each = files_of(out, strategy, variant, test)
    return [float(stats.spearmanr(a["scores"][:, 0], a["mos"]).statistic) for a in each]


def same(row: TidyRow, each: Sequence[float]) -> None:
    np.testing.assert_allclose([row.value, row.std], [np.mean(each), np.std(each, ddof=1)], rtol=1e-12)
    assert row.note.startswith("n=2 seeds; generated miniatures")


def test_table_1_is_of_all_that_learned_the_six_datasets_as_it_is(out: Path, numbers: Tidy) -> None:
    rows = rows_of(numbers.rows, "liqe_1", metric="SRCC")
    assert {(row.setting, row.method, row.variant) for row in rows} == {
        ("Joint", "LIQE", ""), ("Joint", "LIQE", "pooling=pairs"), ("Joint", "JL", ""),
        ("Task-Agnostic", "LIQE-CL", ""), ("Task-Agnostic", "LIQE-CL", "memory=100"),
    }  # fmt: skip
    strategies = {title: name for name, title in ROWS.items()}
    for row in rows:
        test = next(name for name, title in TITLES.items() if title == row.test_dataset)
        same(row, srcc(out, strategies[row.method], row.variant, test))
    assert {row.test_dataset for row in rows} == {TITLES[name] for name in SIX}
    assert {row.train_dataset for row in rows} == {"+".join(TITLES[name] for name in SIX)}


def test_table_1_has_the_plcc_after_the_logistic_fit(numbers: Tidy) -> None:
    for method in ("LIQE", "JL"):
        (row,) = rows_of(numbers.rows, "liqe_1", metric=PLCC, method=method, variant="", test_dataset="BID")
        (plain,) = rows_of(
            numbers.rows, "", metric=PLCC, method=method, variant="", test_dataset="BID", setting="Joint"
        )
        assert row.value == plain.value


def test_table_2_is_of_further_test_sets(out: Path, numbers: Tidy) -> None:
    rows = rows_of(numbers.rows, "liqe_2")
    assert {(row.test_dataset, row.metric) for row in rows} == {("TID2013", "SRCC")}
    (row,) = (row for row in rows if (row.method, row.variant) == ("LIQE-CL", "memory=100"))
    same(row, srcc(out, "liqe_cl", "memory=100", "tid2013"))


def test_the_ablation_leaves_out_one_thing(out: Path, numbers: Tidy) -> None:
    expected = {
        "": ("liqe", ""), "(3) Frozen Textual Encoder": ("liqe", "freeze_text=True"),
        "(5) Equal Task Weightings": ("liqe", "weighting=equal"),
        "(6) Fine-Tuned Visual Encoder Only": ("jl", ""),
    }  # fmt: skip
    rows = rows_of(numbers.rows, "liqe_4")
    assert {row.variant for row in rows} == expected.keys()  # beside pooling=pairs there is nothing
    assert {row.setting for row in rows} == {"Joint"}
    for row in rows:
        if row.metric == "mSRCC":
            by_test = [srcc(out, *expected[row.variant], test) for test in SIX]
            same(row, np.mean(by_test, axis=0))
        elif row.test_dataset == "CSIQ":
            same(row, srcc(out, *expected[row.variant], "csiq"))
    assert len(rows) == 4 * 7


def found_by_hand(said: np.ndarray, true: np.ndarray) -> float:
    """Returns labels found / labels, an image and a label at a time."""
    found = 0
    for p, t in zip(said, true, strict=True):
        k = int(t.sum())
        found += sum(int(t[c]) for c in range(len(t)) if (p > p[c]).sum() < k)
    return found / int(true.sum())


def accuracy(out: Path, variant: str, test: str, what: str) -> list[float]:
    """Returns an accuracy of each seed, from the answer files."""
    found = []
    for arrays in files_of(out, "liqe", variant, test):
        said, true = arrays["extra.aspects"], arrays["extra.true_aspects"]
        part = slice(0, 9) if what == "scene" else slice(said.shape[1] - 11, said.shape[1])
        found.append(found_by_hand(said[:, part], true[:, part]))
    return found


@pytest.mark.parametrize("what", ["scene", "distortion"])
def test_accuracies_by_test_set_and_in_the_mean(out: Path, numbers: Tidy, what: str) -> None:
    for variant in ("", "tasks=qs" if what == "scene" else "tasks=qd", "pooling=pairs"):
        each = {test: accuracy(out, variant, test, what) for test in SIX}
        for test in SIX:
            (row,) = rows_of(
                numbers.rows, "liqe_aspects", method="LIQE", variant=variant, metric=f"ACC_{what}",
                test_dataset=TITLES[test],
            )  # fmt: skip
            same(row, each[test])
        (row,) = rows_of(numbers.rows, "liqe_aspects", method="LIQE", variant=variant, metric=f"mACC_{what}")
        same(row, np.mean([*each.values()], axis=0))
    other = "tasks=qd" if what == "scene" else "tasks=qs"
    for variant in (other, "tasks=q"):  # what was not learned has no number
        rows = rows_of(numbers.rows, "liqe_aspects", variant=variant)
        assert not [row for row in rows if what in row.metric]


def test_what_naming_the_commonest_would_give(numbers: Tidy) -> None:
    for test in SIX:
        true = labels_of(test)
        for what, part in (("scene", true[:, :9]), ("distortion", true[:, 9:])):
            (row,) = rows_of(
                numbers.rows, "liqe_aspects", method="LIQE", variant="", test_dataset=TITLES[test],
                metric=f"ACC_{what}: always the commonest",
            )  # fmt: skip
            order = np.argsort(-part.sum(axis=0), kind="stable")
            found = sum(int(t[order[: int(t.sum())]].sum()) for t in part)
            assert row.value == pytest.approx(found / part.sum(), rel=1e-12)
            if what == "distortion":
                assert row.value == pytest.approx(part.sum(axis=0).max() / IMAGES)


def test_table_5_is_of_several_numbers_of_tasks(out: Path, numbers: Tidy) -> None:
    rows = rows_of(numbers.rows, "liqe_5")
    both = {"mSRCC", "mACC_scene", "mACC_distortion"}
    assert {row.variant: {r.metric for r in rows if r.variant == row.variant} for row in rows} == {
        "Quality": {"mSRCC"}, "Quality + Scene": {"mSRCC", "mACC_scene"},
        "Quality + Distortion": {"mSRCC", "mACC_distortion"}, "All Tasks": both,
        "Quality; pooling=pairs": {"mSRCC"}, "All Tasks; pooling=pairs": both,
    }  # fmt: skip
    assert {row.method for row in rows} == {"LIQE"}  # LIQE-CL has all tasks only
    (row,) = rows_of(rows, "liqe_5", variant="Quality", metric="mSRCC")
    same(row, np.mean([srcc(out, "liqe", "tasks=q", test) for test in SIX], axis=0))
    (row,) = rows_of(rows, "liqe_5", variant="Quality + Scene", metric="mACC_scene")
    same(row, np.mean([accuracy(out, "tasks=qs", test, "scene") for test in SIX], axis=0))


def test_the_gain_is_paired_and_has_the_interval_of_the_table_of_power(numbers: Tidy) -> None:
    rows = rows_of(numbers.rows, "liqe_gain")
    means = {(r.method, r.variant): r.value for r in numbers.rows if r.table == "III" and r.metric == "mSRCC"}
    means |= {
        (r.method, r.variant): r.value
        for r in numbers.rows
        if r.table == "intervals" and r.metric == "mSRCC" and r.setting == "Joint"
    }
    pairs = {
        ("LIQE", "", "LIQE", "tasks=q"), ("LIQE", "tasks=qs", "LIQE", "tasks=q"),
        ("LIQE", "tasks=qd", "LIQE", "tasks=q"), ("LIQE", "pooling=pairs", "LIQE", "tasks=q, pooling=pairs"),
        ("LIQE", "", "JL", ""), ("LIQE", "tasks=qs", "JL", ""), ("LIQE", "tasks=qd", "JL", ""),
    }  # fmt: skip
    power = {(r.variant, r.method, r.metric): r.value for r in numbers.rows if r.table == "power"}
    assert len(rows) == 3 * len(pairs)
    for method, variant, rival, without in pairs:
        label = f"{rival} ({without})" if without else rival
        (row,) = rows_of(rows, "liqe_gain", variant=variant, metric=f"mSRCC less {label}")
        assert row.value == pytest.approx(means[method, variant] - means[rival, without], abs=1e-12)
        (low,) = rows_of(rows, "liqe_gain", variant=variant, metric=f"mSRCC less {label}: low")
        (high,) = rows_of(rows, "liqe_gain", variant=variant, metric=f"mSRCC less {label}: high")
        assert low.value < row.value < high.value
        for one in (row, low, high):
            if (variant, method, one.metric) in power:
                assert one.value == power[variant, method, one.metric]
            else:  # the other way round
                end = {"": "", "low": ": high", "high": ": low"}[one.metric.partition(": ")[2]]
                mine = f"mSRCC less {method}{f' ({variant})' if variant else ''}{end}"
                assert one.value == pytest.approx(-power[without, rival, mine], abs=1e-12)


def test_every_number_follows_from_a_second_path(out: Path, numbers: Tidy) -> None:
    plain = Recomputation(out, numbers.group)
    rows = [row for row in numbers.rows if row.table in TABLES and "logistic" not in row.metric]
    assert len(rows) > 250 and {row.table for row in rows} == set(TABLES)
    for row in rows:
        found = plain.value(row)
        assert found is not None
        # 4e-15 seen
        np.testing.assert_allclose(found[:2], [row.value, row.std], rtol=1e-14, atol=1e-14, err_msg=str(row))


@pytest.mark.slow
def test_a_report_has_them_and_verifies(out: Path, numbers: Tidy) -> None:
    write_report(out, ("csv", "md", "tex"), figures=False, beside_published=True)
    report = out / "report"
    for number in TABLES:
        assert all((report / f"table_{number}.{kind}").is_file() for kind in ("csv", "md", "tex"))
        text = (report / f"table_{number}.md").read_text(encoding="utf-8")
        assert "not comparable with published numbers" in text
        assert "**" not in text.partition("|")[2]  # nothing is bold beside the paper's
    assert verify(out).problems == []
    made = {table.number: table for table in make_tables(numbers)}
    assert [section.label for section in made["liqe_aspects"].sections] == ["Scene", "Distortion"]
    assert [row[0] for row in made["liqe_aspects"].sections[1].rows][-1] == "always the commonest"
    assert made["liqe_4"].columns == [*(TITLES[name] for name in SIX), "mSRCC"]
    assert made["liqe_5"].title == "LIQE 5"
    assert "LIQE less LIQE (tasks=q)" in [name for name, _ in made["liqe_gain"].sections[0].rows]


def test_without_a_run_of_liqe_there_is_no_table(tmp_path: Path) -> None:
    for strategy in ("jl", "naive"):
        record(tmp_path, strategy)
    reader = AnswerReader(tmp_path)
    (found,) = group_records(read_records(tmp_path), reader)
    assert not [row for row in collect(found, reader).rows if row.table.startswith("liqe")]
    record(tmp_path, "liqe", tests=())
    reader = AnswerReader(tmp_path)
    (found,) = group_records(read_records(tmp_path), reader)
    tables = {row.table for row in collect(found, reader).rows if row.table.startswith("liqe")}
    assert tables == {"liqe_1", "liqe_2", "liqe_4", "liqe_aspects", "liqe_gain"}  # JL was tested on TID2013


# ------------------------------------------------------------------------------------- beside the paper's


def published(out: Path, table: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Returns the rows of a table, with the published number beside each of ours."""
    with (out / "report" / f"table_{table}.csv").open(newline="", encoding="utf-8") as file:
        return {
            tuple(row[name].lstrip("'") for name in ("method", "variant", "test_dataset", "metric")): row
            for row in csv.DictReader(file)
        }


def test_published_numbers_stand_beside_ours(out: Path) -> None:
    write_report(out, ("csv", "md"), figures=False, beside_published=True)
    wanted: dict[str, dict[tuple[str, str, str, str], float]] = {
        "liqe_1": {
            ("LIQE", "", "LIVE", "SRCC"): 0.970, ("LIQE", "", "KADID-10K", PLCC): 0.931,
            ("LIQE", "pooling=pairs", "LIVE", "SRCC"): math.nan, ("JL", "", "LIVE", "SRCC"): math.nan,
            ("LIQE-CL", "", "LIVE", "SRCC"): math.nan, ("UNIQUE", "", "CSIQ", "SRCC"): 0.902,
            ("NIQE", "", "LIVE", "SRCC"): 0.908, ("DBCNN", "", "LIVE", PLCC): 0.966,
        },
        "liqe_2": {("LIQE", "", "TID2013", "SRCC"): 0.811, ("DBCNN", "r", "TID2013", "SRCC"): 0.471},
        "liqe_4": {
            ("LIQE", "", "", "mSRCC"): 0.922, ("LIQE", "(5) Equal Task Weightings", "BID", "SRCC"): 0.870,
            ("JL", "(6) Fine-Tuned Visual Encoder Only", "", "mSRCC"): 0.915,
            ("LIQE", "(4) Separate Task Templates", "", "mSRCC"): 0.916,
        },
        "liqe_5": {
            ("LIQE", "Quality + Distortion", "", "mSRCC"): 0.920,
            ("LIQE", "All Tasks", "", "mACC_scene"): 0.894, ("LIQE", "Scene", "", "mACC_scene"): 0.908,
            ("LIQE", "All Tasks; pooling=pairs", "", "mSRCC"): math.nan,
        },
    }  # fmt: skip
    for table, numbers in wanted.items():
        rows = published(out, table)
        for about, value in numbers.items():
            found = float(rows[about]["published"] or "nan")
            assert found == pytest.approx(value, nan_ok=True), (table, about)
        assert not [row for row in rows.values() if row["test_dataset"] == "SPAQ"]
        text = (out / "report" / f"table_{table}.md").read_text(encoding="utf-8")
        assert published_liqe.SOURCE in text and "are not comparable" in text
    assert [about for about in published(out, "liqe_1") if about[:2] == ("LIQE", "")] == [
        ("LIQE", "", TITLES[name], metric) for name in SIX for metric in ("SRCC", PLCC)
    ]  # ours and the paper's are one row


def row_of(**changes: Any) -> TidyRow:
    row = TidyRow(
        "liqe_1", "Joint", "CLIP ViT-B/32", "LIQE", "", "", "", "+".join(TITLES[name] for name in SIX),
        "LIVE", "SRCC", 0.5, 0.1, "",
    )  # fmt: skip
    return row._replace(**changes)


def test_only_the_same_thing_has_the_paper_s_number() -> None:
    of = published_liqe.published_of
    found = of(row_of())
    assert found is not None and (found.value, found.std) == (0.970, 0.004)
    assert of(row_of(backbone="ResNet-18")) is None
    generated = row_of(backbone="S-CNN", note="generated miniatures: not comparable with published numbers")
    assert of(generated) == found
    assert of(row_of(train_dataset="LIVE+CSIQ")) is None  # the paper's learned six
    backwards = "+".join(TITLES[name] for name in reversed(SIX))
    assert of(row_of(train_dataset=backwards)) == found
    assert of(row_of(method="LIQE-CL")) is None and of(row_of(variant="labels=repaired")) is None


@pytest.mark.parametrize(("number", "rows"), [("1", 132), ("2", 21), ("4", 49), ("5", 10)])
def test_published_tables_are_as_printed(shared: Path, number: str, rows: int) -> None:
    read = published_liqe.read_published(f"liqe_{number}")
    assert len(read) == rows and {row.table for row in read} == {f"liqe_{number}"}
    with (shared / "data" / "paper_tables" / f"liqe_table_{number}.csv").open(encoding="utf-8") as file:
        printed = list(csv.DictReader(file))
    assert [(row.method, row.variant, row.test_dataset, row.value) for row in read] == [
        (row["method"], row["variant"], row["test_dataset"], float(row["value"])) for row in printed
    ]
    for method in {row.variant for row in read} if number == "4" else ():  # means agree with what is printed
        own = [row for row in read if row.variant == method]
        mean = np.mean([row.value for row in own if row.metric == "SRCC"])
        assert own[-1].metric == "mSRCC" and own[-1].value == pytest.approx(mean, abs=0.00061)
