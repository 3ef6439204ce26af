"""`score --compare`: the pictures of a table are scored, and compared with its labels."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from PIL import Image
from scipy import optimize, special, stats

from cliqa_bench.cli.parser import main
from cliqa_bench.execution import score_files
from cliqa_bench.execution.compare_labels import Agreement, agreement
from cliqa_bench.models.gated import Scored

RUNS = Path(__file__).parent / "run_0_1_0" / "runs"
GRAYS = (200, 40, 120, 80, 240, 160, 20)
MOS = (3.5, 2.0, 3.0, 3.0, 4.5, 2.5, 1.0)


class Mean:
    """A model that takes no time: it gives an image its mean.

    Attributes:
        images: How many images it was given.
    """

    tasks = 1
    images = 0

    def __call__(self, images: torch.Tensor) -> Scored:
        self.images += len(images)
        scores = images.double().mean(dim=(1, 2, 3)).numpy()
        return Scored(scores, np.ones((len(scores), 1)), scores[:, None].astype(np.float32))


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Mean:
    made = Mean()
    monkeypatch.setattr(score_files, "load_scorer", lambda *args: made)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the current folder, with seven gray pictures."""
    monkeypatch.chdir(tmp_path)
    for number, gray in enumerate(GRAYS):
        Image.new("RGB", (24, 16), (gray,) * 3).save(f"{number}.png")
    return tmp_path


def table(labels: Sequence[float], header: str = "image,mos", name: str = "my.csv") -> str:
    lines = [header, *(f"{number}.png,{label}" for number, label in enumerate(labels))]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def compare(*words: str) -> int:
    return main(["score", "--compare", *words, "--runs", str(RUNS), "--run", "tsn", "--device", "cpu"])


def shown(text: str) -> dict[str, str]:
    """Returns the printed numbers by their names."""
    lines = text.splitlines()
    found = (line.rpartition("  ") for line in lines[lines.index("") + 1 :])
    return {name.strip(): value.strip() for name, _, value in found}


# -- formulas ------------------------------------------------------------------------------------------------


def correlations(x: ArrayLike, y: ArrayLike) -> list[float]:
    return [float(of(x, y).statistic) for of in (stats.spearmanr, stats.pearsonr, stats.kendalltau)]


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_scipy_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40).round(seed % 3)  # many ties, some, few
    y = (2 * special.expit(1.5 * x) + 0.2 * rng.normal(size=40)).round(1)
    found = agreement(x, y)
    # largest difference seen: 4.5e-16
    ours = np.array([found.srcc, found.plcc, found.krcc])
    np.testing.assert_allclose(ours, correlations(x, y), rtol=0, atol=1e-15)

    if seed % 3 == 0:
        return  # of scores from -2 to 2 alone, many curves are as good

    def curve(x: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
        return np.asarray(a * special.expit(np.exp(d) * (x - c)) + b)

    fit = optimize.curve_fit(curve, x, y, (np.ptp(y), y.min(), np.median(x), 0.0), ftol=1e-14, xtol=1e-14)[0]
    mapped = curve(x, *fit)
    # largest differences seen: 4.7e-10, 2.9e-10
    assert found.plcc_logistic == pytest.approx(stats.pearsonr(mapped, y).statistic, abs=1.4e-9)
    assert found.rmse == pytest.approx(math.sqrt(np.mean((mapped - y) ** 2)), abs=8e-10)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2, 3, 4, 5, 6], [2] * 6), ([2] * 6, [1, 2, 3, 4, 5, 6]), ([], []), ([1], [1]), ([1, 2], [1, 2])],
    ids=["labels", "scores", "0", "1", "2"],
)
def test_what_is_not_defined_is_no_number(x: list[float], y: list[float]) -> None:
    found = agreement(x, y)
    assert found.n == len(x) and all(map(math.isnan, found[1:]))


def test_three_pictures_have_correlations_and_no_fit() -> None:
    found = agreement([1, 2, 3], [1, 3, 2])
    np.testing.assert_allclose(
        [found.srcc, found.plcc, found.krcc], correlations([1, 2, 3], [1, 3, 2]), rtol=0, atol=2e-16
    )
    assert math.isnan(found.plcc_logistic) and math.isnan(found.rmse)


@pytest.mark.parametrize(
    ("n", "srcc", "against"),
    [(8, -0.9, False), (8, -0.95, True), (30, -0.45, False), (30, -0.48, True), (1000, -0.29, False),
     (1000, -0.3, True), (1000, 0.9, False), (1000, math.nan, False)],
)  # fmt: skip
def test_negative_agreement_counts_if_it_is_strong_and_no_chance(n: int, srcc: float, against: bool) -> None:
    assert Agreement(n, srcc, 0, 0, 0, 0).runs_against is against


# -- the command ---------------------------------------------------------------------------------------------


def test_scores_and_labels_stand_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(table(MOS), "--to", "s.csv") == 0
    with Path("s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["image", "label", "score", "error", "percentile", "word", "novelty"]
    assert [(row["image"], float(row["label"])) for row in rows] == [
        (f"{i}.png", m) for i, m in enumerate(MOS)
    ]
    scores = [float(row["score"]) for row in rows]
    assert [*np.argsort(scores)] == [*np.argsort(GRAYS)]
    said = capsys.readouterr()
    assert said.out.startswith("my: 7 of 7 pictures compared with run tsn-")
    assert "score: mos, higher is better" in said.out and "all names are exactly those of files" in said.out
    numbers = shown(said.out)
    expected = [f"{value:.3f}" for value in correlations(scores, MOS)]
    assert [numbers[name] for name in ("SRCC", "PLCC", "KRCC")] == expected
    assert numbers["n"] == "7" and float(numbers["RMSE (logistic)"]) > 0
    assert float(numbers["PLCC (logistic)"]) >= float(numbers["PLCC"])
    assert "other way round" not in said.err


def test_a_column_is_named_and_lower_is_better(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The label stands as it is in the table; the correlation is with what is better."""
    spec = f"{table(MOS, 'fname,z')}?image=fname&score=z&lower_is_better"
    assert compare(f"csv:{spec}", "--to", "s.jsonl") == 0
    rows = [json.loads(line) for line in Path("s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in rows] == [*MOS]
    said = capsys.readouterr()
    assert shown(said.out)["SRCC"] == f"{-correlations(GRAYS, MOS)[0]:.3f}"
    assert shown(said.out)["RMSE (logistic)"] == "—"
    assert "no logistic fit: the best curve does not rise" in said.err


def test_a_model_that_ranks_the_other_way_round_is_pointed_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(len(GRAYS), 12):
        Image.new("RGB", (24, 16), (number,) * 3).save(f"{number}.png")
    labels = [-gray / 50 for gray in GRAYS] + [0.0 - number / 50 for number in range(len(GRAYS), 12)]
    assert compare(table(labels), "--to", "s.csv") == 0
    said = capsys.readouterr()
    assert shown(said.out)["SRCC"] == "-1.000"
    assert "SRCC -1.000: the scores rank these pictures in the opposite order" in said.err
    assert "nothing was flipped; if that reading is wrong, say lower_is_better" in said.err
    assert compare("my.csv?lower_is_better&name=turned", "--to", "t.csv") == 0
    said = capsys.readouterr()
    assert shown(said.out)["SRCC"] == "1.000" and "other way round" not in said.err


@pytest.mark.parametrize(
    ("labels", "message"),
    [([2.0] * 7, "all 7 labels are equal: their correlation is undefined"),
     ([2.0], "1 picture: too few for a correlation, which needs at least 3")],
)  # fmt: skip
def test_no_correlation_is_a_dash_and_a_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], labels: list[float], message: str
) -> None:
    assert compare(table(labels), "--to", "s.csv") == 0
    said = capsys.readouterr()
    names = ("SRCC", "PLCC", "PLCC (logistic)", "KRCC", "RMSE (logistic)")
    assert [shown(said.out)[name] for name in names] == ["—"] * 5
    assert message in said.err and "nan" not in said.out + said.err


def test_a_model_that_scores_all_alike_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        Image.new("RGB", (24, 16), (9, 9, 9)).save(f"{number}.png")
    assert compare(table(MOS), "--to", "s.csv") == 0
    assert "all 7 scores are equal: their correlation is undefined" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_rows_and_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("1.png").write_bytes(b"no picture")
    Path("4.png").unlink()
    assert compare(table(MOS), "--to", "s.csv") == 1
    with Path("s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [n in (1, 4) for n in range(7)]
    assert [(row["score"], float(row["label"])) for row in rows if row["error"]] == [("", 2.0), ("", 4.5)]
    said = capsys.readouterr()
    left = [n for n in range(7) if n not in (1, 4)]
    assert (
        shown(said.out)["SRCC"] == f"{correlations([GRAYS[n] for n in left], [MOS[n] for n in left])[0]:.3f}"
    )
    assert said.out.startswith("my: 5 of 7 pictures compared") and shown(said.out)["n"] == "5"
    assert "the numbers leave out 2 pictures without a score" in said.err


def test_names_are_matched_as_people_write_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures").mkdir()
    for number in range(7):
        Path(f"{number}.png").rename(folder / "pictures" / f"{number}.PNG")
    assert compare(table(MOS), "--to", "s.csv") == 0
    said = capsys.readouterr().out
    assert "7 of 7 names matched after changes: 7 with another case (0.png is 0.PNG)" in said
    assert "exactly" not in said and shown(said)["n"] == "7"
    assert Path("s.csv").read_text(encoding="utf-8").splitlines()[1].startswith("pictures/0.PNG,3.5,")


def test_a_comparison_is_resumed_with_its_labels_alone(
    folder: Path, model: Mean, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(table(MOS), "--to", "s.csv") == 0
    first, text = Path("s.csv").read_bytes(), capsys.readouterr().out
    assert compare("my.csv", "--to", "s.csv") == 0
    assert (Path("s.csv").read_bytes(), capsys.readouterr().out, model.images) == (first, text, 7)
    assert compare(table([1.0, *MOS[1:]]), "--to", "s.csv") == 2
    assert "was begun with labels " in capsys.readouterr().err
    assert main(["score", "0.png", "--to", "s.csv", "--runs", str(RUNS), "--run", "tsn"]) == 2


def test_without_a_file_the_table_has_standard_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(table(MOS), "--progress", "none") == 0
    said = capsys.readouterr()
    assert (
        said.out.startswith("image,label,score,error,percentile,word,novelty\n0.png,3.5,")
        and len(said.out.splitlines()) == 8
    )
    assert shown(said.err)["n"] == "7"


def test_a_run_that_learned_the_table_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[..., object] = score_files.choose_run

    def learned(*args: object) -> object:
        record = real(*args)
        record.sequence.append("csv-my")  # type: ignore[attr-defined]
        return record

    monkeypatch.setattr(score_files, "choose_run", learned)
    assert compare(table(MOS), "--to", "s.csv") == 0
    assert "learned my: pictures it was trained on are among these" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "my.csv", "0.png"], "score takes either IMAGES or --compare TABLE;"),
        ([], "score takes IMAGES, or --compare TABLE;"),
        (["--compare", "no.csv"], "csv:no.csv is not a file;"),
        (["--compare", "dmos.csv"], "it is unclear whether lower or higher is better"),
        (["--compare", "other.csv"], "names 1 images, and none of them, such as zzz.png, is in"),
        (["--compare", "twice.csv"], "rates 0.png a second time"),
    ],
)
def test_misuse_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    table(MOS)
    table(MOS, "image,dmos", "dmos.csv")
    Path("other.csv").write_text("image,mos\nzzz.png,1\n")
    Path("twice.csv").write_text("image,mos\n0.png,1\n0.png,2\n")
    assert main(["score", *words, "--runs", str(RUNS), "--run", "tsn"]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
