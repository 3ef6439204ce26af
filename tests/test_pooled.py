"""The pooled SRCC of streams of parts: over each test image once, and found again by `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reported import numbers_of
from scipy import stats

from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.parts import collect, empty_parts, make_tables
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import group_records
from cliqa_bench.reports.tables.pooled import is_stream
from cliqa_bench.results.nodes import Node, read_answers, write_answers
from cliqa_bench.results.records import AnswerReader, RunRecord, Step, write_record
from cliqa_bench.seeds import rng_for

PARTS = ["csiq:blur", "csiq:jpeg", "csiq:common"]
TITLES = {"csiq:blur": "CSIQ blur", "csiq:jpeg": "CSIQ jpeg", "csiq:common": "CSIQ common"}
IMAGES = {"csiq:blur": range(12), "csiq:jpeg": range(12, 20), "csiq:common": range(6, 26)}
"""The third has images of the first two."""
ORDER = "csiq:blur,csiq:jpeg,csiq:common"


def answer(out: Path, head: str, test: str) -> str:
    node = Node(
        out,
        "answers",
        f"{head}-on-{test.replace(':', '-')}",
        {"of": head, "test": [test, f"print of {test}"]},
    )
    mos = rng_for("mos").uniform(0, 1, 26)[list(IMAGES[test])]
    keys = np.array([f"{i:03}.png" for i in IMAGES[test]])
    scores = mos + rng_for(head, test).normal(0, 0.4, len(mos))  # another of one image in every part
    with node.building({}) as folder:
        write_answers(
            folder / "answers.npz", keys, mos, scores=scores[:, None].astype(np.float32),
            contents=np.arange(len(mos)),
        )  # fmt: skip
    return node.id


def record(out: Path, seed: int = 0, joint: bool = False, tests: Sequence[str] = PARTS) -> RunRecord:
    heads = [f"joint-{seed}"] if joint else [f"{name.replace(':', '-')}-{seed}" for name in PARTS]
    answers = {head: {test: answer(out, head, test) for test in tests} for head in heads}
    steps = [
        Step(name, [(head, 0) for head in heads[: t + 1]])
        for t, name in enumerate(PARTS[-1:] if joint else PARTS)
    ]
    made = RunRecord(
        strategy="jl" if joint else "naive", variant="", backbone="S-CNN", seed=seed, order=ORDER,
        rows={"last": "JL"} if joint else {"last": "MH-CL", "oracle": "MH-CL-O"},
        sequence=PARTS, tests=PARTS, titles=TITLES, steps=steps, gates={}, answers=answers, tau=32.0,
        stages=[3, 4], generated=True,
        facts={
            "preset": "quick", "split": "1", "asked": f"2024-01-0{seed + 1}",
            "fingerprints": {name: f"print of {name}" for name in PARTS},
        },
    )  # fmt: skip
    write_record(out, made)
    return made


def expected(out: Path, made: RunRecord, oracle: bool) -> float:
    """By hand: the scores of each image's first part, of its own head or the newest."""
    mos: dict[str, float] = {}
    scores: dict[str, float] = {}
    nodes = list(made.answers)
    for task, test in enumerate(PARTS):
        head = nodes[task if oracle else -1]
        file = read_answers(out / "answers" / made.answers[head][test] / "answers.npz")
        for key, opinion, score in zip(file["keys"], file["mos"], file["scores"][:, 0], strict=True):
            if key not in mos:
                mos[key], scores[key] = opinion, score
    assert len(mos) == 26
    return float(stats.spearmanr([scores[key] for key in mos], list(mos.values())).statistic)


def test_every_test_image_counts_once(tmp_path: Path) -> None:
    made = [record(tmp_path, seed) for seed in (0, 1)]
    joint = record(tmp_path, joint=True)
    numbers = numbers_of(tmp_path)
    rows = {row.method: row for row in numbers.rows if row.table == "pooled"}
    assert rows.keys() == {"JL", "MH-CL", "MH-CL-O"}
    for method, oracle in (("MH-CL", False), ("MH-CL-O", True)):
        values = [expected(tmp_path, one, oracle) for one in made]
        assert rows[method].value == pytest.approx(np.mean(values), abs=1e-12)
        assert rows[method].std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert rows["JL"].value == pytest.approx(expected(tmp_path, joint, False), abs=1e-12)
    assert {(row.order, row.length, row.metric) for row in rows.values()} == {(ORDER, 3, "pooled SRCC")}
    (table,) = (table for table in make_tables(numbers) if table.number == "pooled")
    assert table.columns == [ORDER]
    assert [section.label for section in table.sections] == ["Joint", "Task-Aware", "Task-Agnostic"]


def test_verify_computes_it_again(tmp_path: Path) -> None:
    record(tmp_path)
    record(tmp_path, joint=True)
    write_report(tmp_path, ("csv", "md", "tex"), figures=False)
    before = verify(tmp_path)
    assert before.ok, before.render()
    file = tmp_path / "report" / "results.csv"
    lines = file.read_text().splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("pooled,Joint"))
    value = lines[place].split("pooled SRCC,")[1].split(",")[0]
    lines[place] = lines[place].replace(value, f"{float(value) + 1e-6!r}")
    file.write_text("\n".join(lines) + "\n")
    problems = [problem for problem in verify(tmp_path).problems if "pooled" in str(problem)]
    assert len(problems) == 1


def test_only_labelled_parts_of_one_dataset_are_pooled(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert is_stream(made)
    for text in ("live,csiq", "csiq:blur,live:blur", "csiq:blur", "csiq:blur,csiq:jpeg?unlabelled"):
        assert not is_stream(replace(made, sequence=text.split(",")))


def test_reports_without_parts_do_not_miss_it(tmp_path: Path) -> None:
    made = record(tmp_path)
    reader = AnswerReader(tmp_path)
    numbers = collect(group_records([made], reader)[0], reader)
    numbers.rows = [row for row in numbers.rows if row.table != "pooled"]
    assert "pooled" not in {part.number for part in empty_parts(numbers)}


def test_parts_of_a_single_test_image_have_a_pooled_srcc_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "IMAGES", {name: range(i, i + 1) for i, name in enumerate(PARTS)})
    record(tmp_path)
    summary = write_report(tmp_path, ("csv", "md", "tex"), figures=False).summary
    assert summary.count("CSIQ blur has fewer than two test images: correlations are shown as dashes") == 1
    numbers = numbers_of(tmp_path)
    assert all(
        np.isfinite(row.value) == (row.table == "pooled") for row in numbers.rows if "SRCC" in row.metric
    )
    verified = verify(tmp_path)
    assert verified.ok, verified.render()
