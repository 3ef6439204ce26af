"""What a score means: percentile, word, novelty, neighbours, and how they are written."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from test_score_files import picture, pictures, truncated

import cliqa_bench
from cliqa_bench.cli.parser import main
from cliqa_bench.execution.learned import LearnedRun
from cliqa_bench.execution.run_scale import run_scale
from cliqa_bench.execution.score_files import choose_run
from cliqa_bench.execution.score_table import Lines
from cliqa_bench.models.reading_scale import ACR_WORDS, UNLIKE, ReadingScale, novelty_limits, scale_of
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.terminal import noted

pytestmark = pytest.mark.usefixtures("one_thread")
RUNS = Path(__file__).parent / "run_0_1_0" / "runs"
WHOLE = st.integers(-6, 6).map(lambda n: n / 4)


def scale(scores: list[float]) -> ReadingScale:
    return scale_of(np.array(scores), [f"p{i}" for i in range(len(scores))], "some")


@given(st.lists(WHOLE, min_size=1, max_size=30), WHOLE)
def test_percentiles_are_scipy_s_with_ties(scores: list[float], score: float) -> None:
    expected = stats.percentileofscore(scores, score, kind="mean")
    assert scale(scores).percentile(score) == pytest.approx(expected, abs=1e-12)


@given(st.lists(WHOLE, min_size=1, max_size=30), st.lists(WHOLE, min_size=2, max_size=9))
def test_words_never_fall_where_scores_rise(scores: list[float], asked: list[float]) -> None:
    read = scale(scores)
    places = [ACR_WORDS.index(read.word(score)) for score in sorted(asked)]
    assert places == sorted(places)


def test_each_word_has_a_fifth_of_the_population() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1000)
    read = scale(scores.tolist())
    words = [read.word(score) for score in scores]
    assert {word: words.count(word) for word in ACR_WORDS} == dict.fromkeys(ACR_WORDS, 200)
    assert read.word(scores.min() - 1) == "bad" and read.word(scores.max() + 1) == "excellent"
    assert read.percentile(scores.max() + 1) == 100 and read.percentile(scores.min() - 1) == 0


def test_neighbours_are_the_next_with_another_score() -> None:
    read = scale([0.3, 0.1, 0.2, 0.2])
    assert read.neighbours(0.2) == (("p1", 0.1), ("p0", 0.3))
    assert read.neighbours(0.25) == (("p3", 0.2), ("p0", 0.3))
    assert read.neighbours(0.1) == (None, ("p2", 0.2))
    assert read.neighbours(9) == (("p0", 0.3), None)


def drawn(rng: np.random.Generator, task: int, n: int) -> NDArray[np.float64]:
    """Draws distances (n, 2 tasks, 2 stages) of a task's pictures: near to their own, far from the other."""
    far: NDArray[np.float64] = rng.gamma(9, 1, (n, 2, 2)) * np.array([[1, 20], [3, 0.1]])
    far[:, 1 - task] *= 5
    return far


def test_one_percent_of_further_pictures_is_flagged() -> None:
    """Calibrated on some, counted on others: 8,000 pictures, whose share has a deviation of .0011."""
    rng = np.random.default_rng(1)
    limits = novelty_limits([drawn(rng, 0, 4000), drawn(rng, 1, 4000)])
    read = ReadingScale(np.zeros(1), [""], "", limits)
    further = np.concatenate([drawn(rng, 0, 4000), drawn(rng, 1, 4000)])
    share = np.mean([read.novelty(one) > 1 for one in further])
    assert 0.006 < share < 0.014


def test_of_those_it_is_calibrated_on_at_most_that_share_is_flagged() -> None:
    rng = np.random.default_rng(2)
    known = [drawn(rng, 0, 250), drawn(rng, 1, 150)]
    read = ReadingScale(np.zeros(1), [""], "", novelty_limits(known))
    flagged = sum(read.novelty(one) > 1 for of_set in known for one in of_set)
    assert flagged == 400 - math.ceil(401 * 0.99)
    few = [drawn(rng, 0, 20), drawn(rng, 1, 20)]
    read = ReadingScale(np.zeros(1), [""], "", novelty_limits(few))
    assert max(read.novelty(one) for of_set in few for one in of_set) == pytest.approx(1)


def test_novelty_is_by_the_stage_that_objects_and_the_task_that_does_not() -> None:
    read = ReadingScale(np.zeros(1), [""], "", np.array([[1.0, 2.0], [4.0, 1.0]]))
    assert read.novelty(np.array([[3.0, 2.0], [2.0, 0.25]])) == 0.5
    assert read.novelty(np.array([[0.5, 3.0], [8.0, 0.1]])) == 1.5


# -- the scale of a run --------------------------------------------------------------------------------------


def test_a_run_s_population_is_what_it_answered() -> None:
    record = choose_run(RUNS, "tsn")
    read = run_scale(AnswerReader(RUNS), record, "gate")
    assert read is not None and read.limits is not None
    files = [np.load(f"{RUNS}/answers/{record.answers[node][test]}/answers.npz") for test in ("live", "bid")
             for node, _ in record.steps[-1].heads]  # fmt: skip
    assert len(read.scores) == len(files[0]["keys"]) + len(files[2]["keys"]) == len(read.names)
    assert read.population == f"{len(read.scores)} test pictures of LIVE, BID"
    assert "MOS" in read.names[0] and (np.diff(read.scores) >= 0).all()
    assert run_scale(AnswerReader(RUNS), choose_run(RUNS, "naive"), "last").limits is None  # type: ignore[union-attr]


def test_a_model_file_has_the_scale_of_its_run(tmp_path: Path) -> None:
    assert main(["export", str(RUNS), "--run", "tsn", "--to", str(tmp_path / "m.safetensors")]) == 0
    here = LearnedRun(RUNS, choose_run(RUNS, "tsn")).reading_scale()
    there = cliqa_bench.load(tmp_path / "m.safetensors", device="cpu").scale
    assert here is not None and there is not None and here.digest == there.digest
    assert (here.names, here.population, here.calibrated) == (there.names, there.population, there.calibrated)


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readable") / "mine"
    pictures(folder, 5)
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).convert("RGB").save(folder / "drawing.png")
    truncated(folder / "zz.png")
    return folder


def scored(folder: Path, to: Path, *words: str) -> int:
    return main(["score", str(folder), "--runs", str(RUNS), "--run", "tsn", "--device", "cpu",
                 "--to", str(to), *words])  # fmt: skip


def test_columns_come_last_and_agree_with_python(folder: Path, tmp_path: Path) -> None:
    assert scored(folder, tmp_path / "x.csv") == 1
    rows = list(csv.DictReader((tmp_path / "x.csv").open(newline="", encoding="utf-8")))
    assert [*rows[0]] == ["image", "score", "weight:live", "head:live", "weight:bid", "head:bid", "error",
                          "percentile", "word", "novelty"]  # fmt: skip
    assert [rows[-1][name] for name in ("score", "percentile", "word", "novelty")] == [""] * 4
    model = cliqa_bench.load(RUNS, run="tsn", device="cpu")
    found = model.score(folder, errors="keep")
    assert found.percentiles is not None and found.novelty is not None and found.words is not None
    population = model.scale.scores  # type: ignore[union-attr]
    for i, row in enumerate(rows[:-1]):
        assert float(row["percentile"]) == found.percentiles[i]
        expected = stats.percentileofscore(population, found.scores[i], kind="mean")
        assert found.percentiles[i] == pytest.approx(expected)
        assert (row["word"], float(row["novelty"])) == (found.words[i], found.novelty[i])
    assert found.words[-1] == "" and np.isnan(found.percentiles[-1]) and np.isnan(found.novelty[-1])


def test_a_percentile_of_0_is_written_and_an_unknown_novelty_is_not() -> None:
    read = scale_of(np.array([0.5, 1.0]), ["a", "b"], "two pictures", limits=np.ones((1, 1)))
    lines = Lines(".csv", [], reading=read.columns)
    cells = lines.cells(lines.line(Path("x.png"), [0.25], reading=read.read(0.25, None)))
    assert (cells["percentile"], cells["word"], cells["novelty"]) == ("0.0", "bad", "")
    near = Lines(".jsonl", [], reading=read.columns)
    body = json.loads(near.line(Path("x.png"), [0.25], reading=read.read(0.25, np.zeros((1, 1)))))
    assert (body["percentile"], body["word"], body["novelty"]) == (0, "bad", 0)


def test_json_lines_have_null_where_there_is_no_score(folder: Path, tmp_path: Path) -> None:
    assert scored(folder, tmp_path / "x.jsonl") == 1
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["error"] and [rows[-1][n] for n in ("percentile", "word", "novelty")] == [None] * 3
    assert isinstance(rows[0]["percentile"], float) and rows[0]["word"] in ACR_WORDS


def test_what_is_unlike_anything_is_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(folder, tmp_path / "x.csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").open(newline="", encoding="utf-8")))
    unlike = [row for row in rows if row["novelty"] and float(row["novelty"]) > 1]
    said = capsys.readouterr().err
    assert unlike and noted(unlike[0]["image"], UNLIKE, len(unlike)) in said


def test_explanations_say_what_the_row_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(folder, tmp_path / "x.csv", "--explain")
    said = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "x.csv").open(newline="", encoding="utf-8")))
    for row in rows[:-1]:
        place = f"above {float(row['percentile']):.1f} %"
        head = f"{row['image']}: {float(row['score']):.3f}, {row['word']}: {place}"
        after = said[said.index(head) :].splitlines()
        assert (
            f"head LIVE said {float(row['head:live']):.3f}, weight {float(row['weight:live']):.3f}"
            in after[1]
        )
        assert "on the scale: " in after[3] and "(MOS " in after[3]
    assert f"{rows[-1]['image']}: no score: " in said


@pytest.mark.parametrize("again", [False, True])
def test_the_worst_are_listed_from_the_lowest_score(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], again: bool
) -> None:
    if again:  # rows of a table that is resumed count as well
        scored(folder, tmp_path / "x.csv")
        capsys.readouterr()
    scored(folder, tmp_path / "x.csv", "--worst", "3")
    rows = list(csv.DictReader((tmp_path / "x.csv").open(newline="", encoding="utf-8")))
    lowest = sorted((float(row["score"]), row["image"]) for row in rows if row["score"])[:3]
    expected = ["the worst 3 of 6, lowest score first:", *(f"{score:.3f}  {name}" for score, name in lowest)]
    assert capsys.readouterr().out.splitlines()[-4:] == expected


def test_worst_below_one_is_misuse(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert scored(folder, tmp_path / "x.csv", "--worst", "0") == 2
    assert "--worst must be at least 1, not 0" in capsys.readouterr().err


def test_a_single_picture_is_the_worst_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(picture(tmp_path / "a.png"), tmp_path / "x.csv", "--worst", "20", "--explain")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the worst 1 of 1, lowest score first:" and said[1].startswith(
        f"{tmp_path / 'a.png'}: "
    )
