"""SS-IQA's tables, its figure and the published numbers, from recorded runs; and the second path to them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reported import numbers_of, rows_of
from scipy import stats

from cliqa_bench.reports import published_ssiqa
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.figures.phases import draw_phases
from cliqa_bench.reports.parts import make_tables
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.reports.tables.ssiqa import (
    COMMON,
    LABELLED,
    PSEUDO,
    UNLABELLED,
    ablation_of,
    options_of,
    phase_curves,
    transfer_of,
)
from cliqa_bench.results.nodes import Node, read_answers, write_answers
from cliqa_bench.results.records import AnswerReader, RunRecord, Step, write_record
from cliqa_bench.seeds import rng_for

TITLES = {"live": "LIVE", "csiq": "CSIQ", "kadid10k": "KADID-10K", "tid2013": "TID2013", "clive": "CLIVE"}
TABLES = ("ssiqa_1", "ssiqa_3", "ssiqa_5", "ssiqa_6", "ssiqa_phases")


def keys_of(name: str) -> list[str]:
    """Returns keys of 24 test images as the authors write them."""
    kinds = ("AWGN", "JPEG", "jpeg2000", "fnoise", "BLUR", "contrast")
    return {
        "csiq": [f"dst_imgs/{k}/{r}.{k}.{n}.png" for r in (1600, "snow") for k in kinds for n in (1, 2)],
        "kadid10k": [
            f"images/I0{r}_{k:02}_0{n}.png" for r in (1, 2) for k in (1, 8, 9, 10, 11, 25) for n in (1, 5)
        ],
        "tid2013": [
            f"distorted_images/i0{r}_{k:02}_{n}.bmp"
            for r in (1, 2) for k in (1, 2, 8, 10, 11, 12) for n in (1, 5)
        ],
    }.get(name, [f"{name}/img{i}.bmp" for i in range(24)])  # fmt: skip


COMMON_OF = {
    "csiq": [k for k in keys_of("csiq") if "fnoise" not in k and "contrast" not in k],
    "kadid10k": [k for k in keys_of("kadid10k") if k[10:13] in ("_01", "_09", "_10", "_11")],
    "tid2013": [k for k in keys_of("tid2013") if k[20:23] in ("_01", "_08", "_10", "_11")],
}


def record_transfer(
    out: Path,
    one: str,
    other: str,
    blocks: int = 3,
    variant: str = "",
    seed: int = 0,
    strategy: str = "ssiqa",
) -> RunRecord:
    """Records a run of a strategy with one head on a transfer, its answers drawn."""
    parts = [
        f"{other}@{b}/{blocks}?unlabelled" if blocks > 1 else f"{other}?unlabelled"
        for b in range(1, blocks + 1)
    ]
    sequence = [one, *parts]
    titles = {one: TITLES[one]} | {
        part: " ".join(filter(None, (TITLES[other], f"{b}/{blocks}" if blocks > 1 else "", "unlabelled")))
        for b, part in enumerate(parts, 1)
    }
    steps, answers = [], {}
    for t, name in enumerate(sequence):
        changed = f"{variant}-{blocks}" if t else ""
        node = f"train-{strategy}-{one}-{t}{other if t else ''}-{changed}-{seed}".replace("=", "").replace(
            ", ", "-"
        )
        steps.append(Step(name, [(node, 0)]))
        answers[node] = {
            test: _answer(out, node, test, "krr=False" not in variant or not t) for test in sequence
        }
    order = f"transfer{'' if blocks == 3 else f'@{blocks}'}:{one},{other}"
    record = RunRecord(
        strategy=strategy, variant=variant, rows={"last": "SS-IQA" if strategy == "ssiqa" else "SH-CL"},
        backbone="S-CNN", seed=seed, order=order, sequence=sequence, tests=sequence, titles=titles,
        steps=steps,
        gates={}, answers=answers, tau=32.0, stages=[3, 4], generated=True,
        facts={
            "preset": "quick", "split": "1", "asked": f"2026-01-0{seed + 1}T00:00:00+00:00",
            "fingerprints": {name: f"print-of-{name}" for name in sequence}, "generated": sequence,
            "config": {"training": {}}, "pictures": {},
        },
    )  # fmt: skip
    write_record(out, record)
    return record


def _answer(out: Path, node: str, test: str, pseudo: bool) -> str:
    base = test.split("@")[0].split("?")[0]
    keys = keys_of(base)
    slug = test.replace("@", "-").replace("/", "-").replace("?", "-")
    made = Node(out, "answers", f"{node}-on-{slug}", {"of": node, "test": [test, f"print-of-{test}"]})
    if made.done:
        return made.id
    with made.building({}) as folder:
        rng = rng_for("scores", node, base)
        mos = rng_for("mos", base).uniform(0, 100, len(keys))
        drawn = [((mos - 50) / 30 + rng.normal(size=len(keys)))[:, None].astype(np.float32) for _ in range(2)]
        write_answers(
            folder / "answers.npz",
            np.array(keys),
            mos,
            scores=drawn[0],
            extras={"pseudo": drawn[1]} if pseudo else {},
        )
    return made.id


VARIANTS = ("", "krr=False", "k1=0, k2=0", "k1=20", "memory=reselect")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns recorded runs of transfers; read it, never write to it but a report."""
    folder = tmp_path_factory.mktemp("ssiqa") / "runs"
    for seed in (0, 1, 2):
        for variant in VARIANTS:
            record_transfer(folder, "live", "csiq", variant=variant, seed=seed)
        record_transfer(folder, "kadid10k", "tid2013", seed=seed)
        record_transfer(folder, "clive", "live", seed=seed)
        record_transfer(folder, "live", "csiq", strategy="naive", seed=seed)
        record_transfer(folder, "live", "csiq", blocks=1, seed=seed)
    return folder


@pytest.fixture(scope="module")
def numbers(out: Path) -> Tidy:
    return numbers_of(out)


def correlate(
    out: Path,
    variant: str,
    half: str,
    step: int,
    metric: str,
    one: str = "live",
    other: str = "csiq",
    blocks: int = 3,
) -> list[float]:
    """Returns a number of each seed, from the answer files by their names."""
    found = []
    for seed in (0, 1, 2):
        changed = f"{variant}-{blocks}" if step else ""
        node = f"train-ssiqa-{one}-{step}{other if step else ''}-{changed}-{seed}".replace("=", "").replace(
            ", ", "-"
        )
        last = f"{other}-{blocks}-{blocks}-unlabelled" if blocks > 1 else f"{other}-unlabelled"
        (path,) = (out / "answers").glob(f"{node}-on-{one if half == LABELLED else last}-*/answers.npz")
        arrays = read_answers(path)
        kept = np.ones(len(arrays["mos"]), bool)
        if half == COMMON:
            kept = np.isin(arrays["keys"], COMMON_OF[other])
            assert 0 < kept.sum() < len(kept)
        scores = arrays["extra.pseudo" if half == PSEUDO else "scores"][kept, 0]
        of = stats.spearmanr if metric == "SRCC" else stats.pearsonr
        found.append(float(of(scores.astype(float), arrays["mos"][kept]).statistic))
    return found


@pytest.mark.parametrize("metric", ["PLCC", "SRCC"])
@pytest.mark.parametrize("half", [LABELLED, UNLABELLED, COMMON])
def test_table_1_after_the_last_block(out: Path, numbers: Tidy, half: str, metric: str) -> None:
    for one, other, variant in (
        ("live", "csiq", ""),
        ("kadid10k", "tid2013", ""),
        ("live", "csiq", "memory=reselect"),
    ):
        order = f"{TITLES[one]}->{TITLES[other]}"
        (row,) = rows_of(
            numbers.rows,
            "ssiqa_1",
            order=order,
            setting=half,
            metric=metric,
            variant=variant,
            method="SS-IQA",
        )
        each = correlate(out, variant, half, 3, metric, one, other)
        np.testing.assert_allclose([row.value, row.std], [np.mean(each), np.std(each, ddof=1)], rtol=1e-12)
        assert row.note.startswith("n=3 seeds; generated miniatures")
        assert (row.length, row.train_dataset) == (3, TITLES[one])
    variants = {row.variant for row in rows_of(numbers.rows, "ssiqa_1", method="SS-IQA")}
    assert variants == {"", "memory=reselect"}  # ablations are of other tables
    assert rows_of(numbers.rows, "ssiqa_1", method="SH-CL", setting=half, metric=metric)


def test_only_where_there_are_further_distortions_common_ones_are_read(numbers: Tidy) -> None:
    orders = {row.order for row in rows_of(numbers.rows, "ssiqa_1", setting=COMMON)}
    assert orders == {"LIVE->CSIQ", "KADID-10K->TID2013"}
    assert {row.order for row in rows_of(numbers.rows, "ssiqa_1")} == orders | {"CLIVE->LIVE"}


def test_the_ablation_is_of_the_phase_and_the_variant(out: Path, numbers: Tidy) -> None:
    expected = {"baseline": ("", 0), "+ IL": ("krr=False", 3), "+ KRR": ("k1=0, k2=0", 3), "": ("", 3)}
    rows = rows_of(numbers.rows, "ssiqa_3", setting=COMMON, metric="SRCC")
    assert {row.variant for row in rows} == expected.keys()  # with memory=reselect nothing was left out
    for row in rows:
        variant, step = expected[row.variant]
        each = correlate(out, variant, COMMON, step, "SRCC")
        np.testing.assert_allclose([row.value, row.std], [np.mean(each), np.std(each, ddof=1)], rtol=1e-12)
    assert {row.order for row in rows} == {"LIVE->CSIQ"}  # on the others nothing is compared


def test_blocks_and_exemplars(out: Path, numbers: Tidy) -> None:
    blocks = rows_of(numbers.rows, "ssiqa_5", setting=UNLABELLED, metric="SRCC")
    assert {(row.variant, row.length) for row in blocks} == {
        ("blocks=1", 1), ("blocks=3", 3),
    }  # fmt: skip
    (one,) = (row for row in blocks if row.length == 1)
    assert one.value == pytest.approx(np.mean(correlate(out, "", UNLABELLED, 1, "SRCC", blocks=1)), rel=1e-12)
    exemplars = rows_of(numbers.rows, "ssiqa_6", setting=LABELLED, metric="PLCC")
    assert {row.variant for row in exemplars} == {
        "K1=100, K2=100", "K1=20, K2=100", "K1=0, K2=0",
    }  # fmt: skip
    (twenty,) = (row for row in exemplars if row.variant == "K1=20, K2=100")
    assert twenty.value == pytest.approx(np.mean(correlate(out, "k1=20", LABELLED, 3, "PLCC")), rel=1e-12)


def test_phases_are_those_of_the_experiences(out: Path, numbers: Tidy) -> None:
    for setting in (LABELLED, UNLABELLED, COMMON, PSEUDO):
        for step in range(4):
            (row,) = rows_of(
                numbers.rows,
                "ssiqa_phases",
                setting=setting,
                metric=f"SRCC: {step}",
                variant="",
                order="LIVE->CSIQ",
            )
            assert row.value == pytest.approx(np.mean(correlate(out, "", setting, step, "SRCC")), rel=1e-12)
    curves = phase_curves(numbers.rows)
    assert set(curves) == {"LIVE->CSIQ", "KADID-10K->TID2013", "CLIVE->LIVE"}
    assert {name: len(rows) for name, rows in curves["LIVE->CSIQ"].items()} == {
        LABELLED: 4,
        UNLABELLED: 4,
        PSEUDO: 4,
    }


def test_without_the_regression_pseudo_labels_are_the_heads(numbers: Tidy) -> None:
    for step in range(4):
        own = {
            setting: rows_of(
                numbers.rows,
                "ssiqa_phases",
                setting=setting,
                metric=f"SRCC: {step}",
                variant="krr=False",
                order="LIVE->CSIQ",
            )[0].value
            for setting in (UNLABELLED, PSEUDO)
        }
        assert own[PSEUDO] == own[UNLABELLED]


def test_every_number_follows_from_a_second_path(out: Path, numbers: Tidy) -> None:
    plain = Recomputation(out, numbers.group)
    rows = [row for row in numbers.rows if row.table in TABLES]
    assert len(rows) > 200
    for row in rows:
        found = plain.value(row)
        assert found is not None
        np.testing.assert_allclose(found[:2], [row.value, row.std], rtol=1e-12, atol=1e-12, err_msg=str(row))


@pytest.mark.slow
def test_a_report_has_them_and_verifies(out: Path, numbers: Tidy) -> None:
    write_report(out, ("csv", "md", "tex", "html"), figures=False, beside_published=True)
    report = out / "report"
    for number in TABLES:
        assert all((report / f"table_{number}.{kind}").is_file() for kind in ("csv", "md", "tex"))
    assert verify(out).problems == []
    text = (report / "table_ssiqa_3.md").read_text(encoding="utf-8")
    assert "+ IL" in text and "baseline" in text
    made = {table.number: table for table in make_tables(numbers)}
    ablation = made["ssiqa_3"]
    assert ablation.columns[-1] == "n"
    assert all(values[-1].mean == 3 for section in ablation.sections for _, values in section.rows)
    assert sum(n for _, n in ablation.spans) == len(ablation.columns)
    assert [section.label for section in made["ssiqa_1"].sections] == [LABELLED, UNLABELLED, COMMON]
    assert made["ssiqa_phases"].columns == ["0", "1", "2", "3"]


def test_the_figure_has_a_panel_for_each_transfer(out: Path, numbers: Tidy, tmp_path: Path) -> None:
    files = draw_phases(numbers, AnswerReader(out), tmp_path)
    assert {path.name for path in files} == {f"fig_ssiqa.{kind}" for kind in ("svg", "pdf", "png")}
    svg = (tmp_path / "fig_ssiqa.svg").read_text(encoding="utf-8")
    texts = [text for text in ("LIVE-&gt;CSIQ", "CLIVE-&gt;LIVE", LABELLED, PSEUDO) if text not in svg]
    assert texts == []
    assert draw_phases(replace(numbers, rows=[]), AnswerReader(out), tmp_path) == []


def published(report: Path, table: str) -> list[dict[str, str]]:
    with (report / f"table_{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_published_numbers_stand_beside_ours(out: Path) -> None:
    write_report(out, ("csv", "md"), figures=False, beside_published=True)
    one = published(out / "report", "ssiqa_1")
    wanted = {
        (LABELLED, "LIVE->CSIQ", "SS-IQA", ""): "0.978", (COMMON, "LIVE->CSIQ", "SS-IQA", ""): "0.949",
        (UNLABELLED, "LIVE->CSIQ", "SS-IQA", ""): "nan", (LABELLED, "CLIVE->LIVE", "SS-IQA", ""): "nan",
        (COMMON, "LIVE->CSIQ", "SS-IQA", "memory=reselect"): "0.949",
        (COMMON, "KADID-10K->TID2013", "SS-IQA", ""): "0.94",
        (LABELLED, "LIVE->CSIQ", "HyperIQA", ""): "0.962", (COMMON, "LIVE->CSIQ", "LPSI", ""): "0.771",
        (LABELLED, "LIVE->CSIQ", "SH-CL", ""): "nan",
    }  # fmt: skip
    for about, value in wanted.items():
        (row,) = (
            r for r in one
            if (r["setting"], r["order"], r["method"], r["variant"]) == about and r["metric"] == "SRCC"
        )  # fmt: skip
        assert float(row["published"] or "nan") == pytest.approx(float(value), nan_ok=True), about
    three = {
        (r["setting"], r["variant"].removeprefix("'")): float(r["published"] or "nan")  # no formula
        for r in published(out / "report", "ssiqa_3") if r["metric"] == "SRCC"
    }  # fmt: skip
    assert three[COMMON, "baseline"] == 0.94
    assert three[COMMON, "+ IL"] != three[COMMON, "+ KRR"]
    assert math.isnan(three[UNLABELLED, "baseline"])
    six = published(out / "report", "ssiqa_6")
    assert {r["variant"] for r in six if math.isfinite(float(r["published"] or "nan"))} == {
        "K1=100, K2=100", "K1=20, K2=100",
    }  # fmt: skip
    (line,) = (
        line for line in (out / "report" / "table_ssiqa_3.md").read_text(encoding="utf-8").splitlines()
        if "+ IL |" in line
    )  # fmt: skip
    assert line.endswith("| 3 | — |")  # of how many runs the paper's numbers are is not known
    text = (out / "report" / "table_ssiqa_1.md").read_text(encoding="utf-8")
    assert published_ssiqa.SOURCE in text
    assert "Transactions on Image Processing" not in text


@pytest.mark.parametrize(
    ("number", "rows"), [("ssiqa_1", 306), ("ssiqa_3", 32), ("ssiqa_5", 40), ("ssiqa_6", 40)]
)
def test_published_tables_are_as_printed(number: str, rows: int) -> None:
    read = published_ssiqa.read_published(number)
    assert len(read) == rows
    assert {row.setting for row in read} <= {LABELLED, UNLABELLED, COMMON}
    if number == "ssiqa_3":  # the paper's Tables 3 and 4 end with the numbers of Table 1
        first = {r[1:10]: r.value for r in published_ssiqa.read_published("ssiqa_1")}
        own = [row for row in read if row.method == "SS-IQA" and not row.variant]
        assert len(own) == 8
        assert all(first[row[1:10]] == row.value for row in own)


# -- what a run is about -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (["live", "csiq@1/2?unlabelled", "csiq@2/2?unlabelled"], ("live", "csiq@2/2?unlabelled", "csiq", 2)),
        (["live", "csiq?unlabelled"], ("live", "csiq?unlabelled", "csiq", 1)),
        (
            ["live", "csiq:common@1/2?unlabelled", "csiq:common@2/2?unlabelled"],
            ("live", "csiq:common@2/2?unlabelled", "csiq", 2),
        ),
        (["live", "csiq"], None), (["live"], None), (["live", "csiq@1/2?unlabelled"], None),
        (["live", "csiq@1/2", "csiq@2/2"], None),
        (["live", "csiq@2/2?unlabelled", "csiq@1/2?unlabelled"], None),
        (["live", "csiq@1/2?unlabelled", "bid@2/2?unlabelled"], None),
    ],
)  # fmt: skip
def test_which_orders_are_transfers(sequence: Sequence[str], expected: tuple[Any, ...] | None) -> None:
    record = RunRecord(
        "ssiqa", "", {"last": "SS-IQA"}, "S-CNN", 0, "x", list(sequence), list(sequence),
        {name: name.upper() for name in sequence}, [], {}, {}, 32.0, [], True,
    )  # fmt: skip
    found = transfer_of(record)
    assert (None if found is None else tuple(found[:4])) == expected


def test_a_variant_is_read() -> None:
    assert options_of("k1=20, stages=(3, 4), gamma=code") == {"k1": "20", "stages": "(3, 4)", "gamma": "code"}
    assert options_of("") == {}
    assert ablation_of("krr=False, k1=0, k2=0, memory=reselect") == ("blocks alone", "memory=reselect")
    assert ablation_of("k1=20") is None
    assert ablation_of("gamma=code") == ("", "gamma=code")
