"""`score --aspects`: quality level, scene and distortion of a picture, each with its probability."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import cliqa_bench
from cliqa_bench.aspects import DISTORTIONS, QUALITIES, SCENES
from cliqa_bench.cli import parser
from cliqa_bench.execution.score_pictures import judged_numbers
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.gated import AspectScorer, text_head_of
from cliqa_bench.models.text_head import TextHead
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.strategies.jl import JL
from cliqa_bench.strategies.liqe import LIQE
from cliqa_bench.testing.tiny import new_model

COLUMNS = ["quality", "quality_probability", "scene", "scene_probability",
           "distortion", "distortion_probability"]  # fmt: skip
pytestmark = pytest.mark.usefixtures("undrawn", "one_thread")


@pytest.fixture(scope="module")
def finished(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of LIQE on CSIQ, an epoch each with and without the network."""
    out = tmp_path_factory.mktemp("aspects") / "runs"
    words = ["run", "--strategy", "liqe", "--orders", "csiq", "--data", str(miniatures), "--out", str(out)]
    words += ["--set", "training.epochs=1", "--set", "training.warmup_epochs=1"]
    assert parser.main(words) == 0
    return out


Read = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def read(finished: Path, capsys: pytest.CaptureFixture[str]) -> Read:
    """Gives what scores pictures with the run: name -> row."""

    def rows(*words: object) -> dict[str, dict[str, str]]:
        assert parser.main(["score", *map(str, words), "--runs", str(finished), "--device", "cpu"]) == 0
        return {Path(r["image"]).name: r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}

    return rows


NEAR = 4e-6
"""1.4e-6 seen, of a probability, with PyTorch 2.4."""


def test_they_are_those_that_the_run_answered(finished: Path, miniatures: Path, read: Read) -> None:
    (path,) = (finished / "answers").glob("liqe-*/answers.npz")
    answers = read_answers(path)
    rows = read("--aspects", miniatures / "CSIQ")
    assert [*next(iter(rows.values()))] == ["image", "score", *COLUMNS, "error", "percentile", "word"]
    said = answers["extra.aspects"]
    assert len(said) > 10
    for key, score, p in zip(answers["keys"], answers["scores"][:, 0], said, strict=True):
        row = rows[Path(str(key)).name]
        assert float(row["score"]) == pytest.approx(float(score), abs=7e-7)  # 2.4e-7 seen
        for words, part, name in ((SCENES, p[:9], "scene"), (DISTORTIONS, p[9:], "distortion")):
            assert row[name] == words[part.argmax()]
            assert float(row[f"{name}_probability"]) == pytest.approx(float(part.max()), abs=NEAR)
        assert row["quality"] in QUALITIES and 0.2 <= float(row["quality_probability"]) <= 1


def test_a_run_that_knows_what_pictures_show_verifies(finished: Path) -> None:
    assert verify(finished).problems == []


def test_from_python_and_from_a_file_they_are_the_same(
    finished: Path, miniatures: Path, read: Read, tmp_path: Path
) -> None:
    rows, to = read("--aspects", miniatures / "CSIQ"), tmp_path / "model.safetensors"
    assert parser.main(["export", str(finished), "--to", str(to)]) == 0
    for source in (finished, to):
        found = cliqa_bench.load(source, device="cpu", aspects=True).score(miniatures / "CSIQ")
        frame = found.frame()
        assert [*frame.columns] == ["image", "score", *COLUMNS, "error", "percentile", "word"] and len(
            frame
        ) == len(rows) > 10
        for name in ("score", *COLUMNS):
            expected = [row[name] for row in rows.values()]
            assert [value if isinstance(value, str) else repr(value) for value in frame[name]] == expected
        words, probabilities = found.aspects["scene"]
        assert words == SCENES and probabilities.shape == (len(rows), 9)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-5)


def test_without_the_flag_the_scores_have_the_same_bits(miniatures: Path, read: Read) -> None:
    with_them, without = read("--aspects", miniatures / "CSIQ"), read(miniatures / "CSIQ")
    assert [*next(iter(without.values()))] == ["image", "score", "error", "percentile", "word"]
    assert {name: row["score"] for name, row in with_them.items()} == {
        name: row["score"] for name, row in without.items()
    }


def test_a_picture_s_aspects_depend_on_no_other_picture(miniatures: Path, read: Read) -> None:
    pictures = sorted((miniatures / "CSIQ").rglob("*.png"))[:12]
    together = read("--aspects", *pictures)
    for path in pictures[::4]:
        (alone,) = read("--aspects", path).values()
        row = together[path.name]
        assert [alone[name] for name in COLUMNS[::2]] == [row[name] for name in COLUMNS[::2]]
        for name in ("score", *COLUMNS[1::2]):
            assert float(alone[name]) == pytest.approx(float(row[name]), abs=NEAR)


def test_a_table_in_a_file_is_resumed_and_holds_the_same(
    finished: Path, miniatures: Path, tmp_path: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted((miniatures / "CSIQ").rglob("*.png"))[:6]
    for path in pictures:
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ["score", str(tmp_path), "--aspects", "--runs", str(finished), "--device", "cpu"]
    lines = tmp_path / "out" / "a.jsonl"
    assert parser.main([*words, "--to", str(lines)]) == 1
    rows = {Path(row["image"]).name: row for row in map(json.loads, lines.read_text().splitlines())}
    assert rows["broken.png"]["scene"] is None and rows["broken.png"]["error"]
    expected = read("--aspects", *pictures)
    for path in pictures:
        row, same = rows[path.name], expected[path.name]
        assert row["scene"] == same["scene"]
        assert row["distortion_probability"] == pytest.approx(float(same["distortion_probability"]), abs=NEAR)
    before = lines.read_bytes()
    assert parser.main([*words, "--to", str(lines)]) == 1
    assert lines.read_bytes() == before
    capsys.readouterr()
    assert parser.main([*(word for word in words if word != "--aspects"), "--to", str(lines)]) == 2
    assert "was begun with aspects yes, not None" in capsys.readouterr().err


def test_a_run_without_texts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Path(__file__).parent / "run_0_1_0" / "runs"
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    words = ["score", str(tmp_path / "a.png"), "--runs", str(runs), "--run", "tsn", "--aspects"]
    assert parser.main([*words, "--device", "cpu", "--to", str(tmp_path / "x.csv")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has no texts to compare pictures with; give --run an id of liqe or liqe_cl" in said
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("tasks", "named"),
    [("qsd", ("quality", "scene", "distortion")), ("qs", ("quality", "scene")),
     ("qd", ("quality", "distortion")), ("q", ("quality",))],
)  # fmt: skip
def test_what_texts_do_not_name_is_not_said(tasks: Any, named: tuple[str, ...]) -> None:
    strategy = LIQE(tasks=tasks)
    model = new_model(strategy)
    model.add_task()
    scorer = Scorer(model.eval())
    head = text_head_of([scorer])
    assert head is not None
    aspects = AspectScorer(scorer, head)
    assert aspects.aspects == named
    images = torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scored = aspects(images)
        features = model.read_by_heads(images, 0)
        joint = cast(TextHead, model.heads[0])(features).exp().double().numpy()
    # 2.6e-6 seen (oneDNN with SSE4.1 alone)
    np.testing.assert_allclose(scored.scores, joint.sum(axis=(2, 3)) @ np.arange(1, 6), rtol=0, atol=7.8e-6)
    expected: list[Any] = [float(scored.scores[1])]
    for name, words, axes in (
        ("quality", QUALITIES, (1, 2)), ("scene", SCENES, (0, 2)), ("distortion", DISTORTIONS, (0, 1)),
    ):  # fmt: skip
        if name in named:
            p = joint[1].sum(axis=axes)
            expected += [words[p.argmax()], pytest.approx(p.max(), abs=NEAR)]
    assert judged_numbers(scored.part(slice(1, 2))) == expected


def test_other_heads_and_several_have_no_texts() -> None:
    model = new_model(JL())
    model.add_task()
    assert text_head_of([Scorer(model)]) is None
    model = new_model(LIQE())
    for _ in range(2):
        model.add_task()
    assert text_head_of([Scorer(model)]) is None
    assert text_head_of([Scorer(model, [0]), Scorer(model, [1])]) is None
    assert text_head_of([Scorer(model, [1])]) is not None
