"""The model in the box: there without runs, says what it is, and knows what it has not seen."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import stats

import cliqa_bench
from cliqa_bench.backbones.scnn import SCNN
from cliqa_bench.benchmarks.generated.judged import judged_scene
from cliqa_bench.benchmarks.generated.photo_sources import TRAINING_PHOTOS
from cliqa_bench.cli.parser import main
from cliqa_bench.execution.box_model import SAID, open_box
from cliqa_bench.execution.loaded_model import LoadedModel
from cliqa_bench.learning.box_training import made_of
from cliqa_bench.models import box_config
from cliqa_bench.results.nodes import digest

pytestmark = pytest.mark.usefixtures("one_thread")
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def box() -> LoadedModel:
    return cliqa_bench.load(device="cpu")


def rows(to: Path) -> list[dict[str, str]]:
    with to.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder of pictures, beside which there are no runs."""
    monkeypatch.chdir(tmp_path)
    scene = judged_scene("drawn", "test", 0)
    for i, pixels in enumerate(scene.pictures[:4]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


# -- where it is used ----------------------------------------------------------------------------------------


def test_without_runs_score_uses_it_and_says_what_it_is(
    folder: Path, box: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "photos", "--device", "cpu", "--to", "x.csv"]) == 0
    said = capsys.readouterr().err
    assert said.splitlines()[0] == SAID and "not from people's opinions" in SAID
    found = rows(Path("x.csv"))
    assert [*found[0]][-3:] == ["percentile", "word", "novelty"]
    assert [float(row["score"]) for row in found] == box.score(folder).scores.tolist()
    assert "head:photographs" in found[0] and "weight:drawn" in found[0]


def test_where_there_are_runs_score_uses_these(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    assert main(["score", "photos", "--device", "cpu"]) == 2
    assert "no runs in runs; make some" in capsys.readouterr().err
    assert main(["score", "photos", "--device", "cpu", "--model", "box", "--to", "x.csv"]) == 0
    assert main(["score", "photos", "--device", "cpu", "--runs", "others"]) == 2
    assert "no runs in others" in capsys.readouterr().err


def test_it_can_be_exported_from(box: LoadedModel, tmp_path: Path) -> None:
    assert main(["export", str(box_config.BOX), "--to", str(tmp_path / "m.safetensors")]) == 0
    other = cliqa_bench.load(tmp_path / "m.safetensors", device="cpu")
    picture = judged_scene("drawn", "test", 1).pictures[2]
    assert other.score(picture).score == box.score(picture).score


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cliqa_bench.execution.box_model.BOX", tmp_path / "gone")
    with pytest.raises(cliqa_bench.errors.UserError, match=r"^the model in the box is missing .*install"):
        open_box()


def test_all_shipped_weights_are_below_8_megabytes() -> None:
    sizes = [file.stat().st_size for file in box_config.BOX.parent.glob("*.safetensors")]
    assert len(sizes) == 3 and sum(sizes) < 8_000_000


def test_its_facts_say_how_it_was_made(box: LoadedModel) -> None:
    facts = box.facts
    assert facts.generated and facts.sequence == ["drawn", "photographs"] and facts.strategy == "tsn"
    assert (
        facts.training["command"] == "python -m cliqa_bench pretrain --box"
        and facts.training["box"]["seed"] == 0
    )
    assert facts.srcc["drawn"] > 0.8 and facts.srcc["photographs"] > 0.6
    assert box.scale is not None and box.scale.population.endswith("pictures that it did not learn from")


def test_its_training_photographs_are_none_that_it_is_measured_on() -> None:
    from against_brisque import PHOTOS

    learned = {(source.package, source.file) for source in TRAINING_PHOTOS}
    assert not learned & set(PHOTOS.values()) and len(PHOTOS) >= 12
    assert {source.package for source in TRAINING_PHOTOS} == {"sklearn", "skimage"}
    assert all(source.licence for source in TRAINING_PHOTOS)


# -- what it says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_it_ranks_what_it_has_not_seen(box: LoadedModel, number: int) -> None:
    scenes = [judged_scene("drawn", "test", 100 + 3 * number + n) for n in range(3)]
    quality = np.concatenate([scene.quality for scene in scenes])
    scores = box.score([pixels for scene in scenes for pixels in scene.pictures]).scores
    assert stats.spearmanr(scores, quality).statistic > 0.6


# -- unlike anything seen ------------------------------------------------------------------------------------


def canvas(seed: int, shade: int = 255) -> tuple[Image.Image, ImageDraw.ImageDraw, np.random.Generator]:
    image = Image.new("RGB", (400, 300), (shade, shade, shade))
    return image, ImageDraw.Draw(image), np.random.default_rng(seed)


def screenshot(seed: int) -> Image.Image:
    """Draws windows with title bars, buttons and lines of text."""
    image, draw, rng = canvas(seed, 236)
    for _ in range(3):
        x, y = (int(n) for n in rng.integers(0, (200, 140)))
        draw.rectangle((x, y, x + 190, y + 150), fill="white", outline=(120, 120, 120))
        draw.rectangle((x, y, x + 190, y + 14), fill=tuple(int(n) for n in rng.integers(40, 200, 3)))
        for row in range(y + 22, y + 140, 13):
            draw.text((x + 8, row), "".join(rng.choice([*"abcdefgh ijklm"], 26)), fill=(30, 30, 30))
    return image


def text(seed: int) -> Image.Image:
    image, draw, rng = canvas(seed)
    for row in range(8, 290, 12):
        draw.text((8, row), "".join(rng.choice([*"abcdefghijk lmnop"], 60)), fill="black")
    return image


def line_drawing(seed: int) -> Image.Image:
    image, draw, rng = canvas(seed)
    for _ in range(14):
        x, y, w, h = (int(n) for n in rng.integers((0, 0, 30, 30), (300, 200, 120, 100)))
        draw.ellipse((x, y, x + w, y + h), outline="black")
        draw.line([(int(a), int(b)) for a, b in rng.integers(0, (400, 300), (3, 2))], fill="black", width=2)
    return image


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (300, 400, 3), np.uint8))


def test_the_shipped_model_is_named_by_the_training_that_makes_it_again() -> None:
    made = made_of(box_config.BOX_TRAININGS["scnn"], SCNN)
    assert open_box().facts.id == f"box-{digest(made)}"


missed = pytest.mark.xfail(reason="see docs/box.md: what the model in the box does not notice", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [text, line_drawing, screenshot, pytest.param(noise, marks=missed)],
    ids=lambda kind: kind.__name__,
)
def test_novelty_fires_on_what_is_no_photograph(kind, box: LoadedModel) -> None:
    """At least half of twenty; fifteen line drawings are flagged, the fewest of the three kinds."""
    novelty = box.score([kind(seed) for seed in range(20)]).novelty
    assert novelty is not None and (novelty > 1).sum() >= 10


@pytest.mark.slow
def test_one_percent_of_held_out_pictures_is_flagged(box: LoadedModel) -> None:
    """Calibrated on validation scenes: 1 % of 480 test pictures is 4.8; up to 12, three deviations above."""
    pictures = [pixels for n in range(80) for pixels in judged_scene("drawn", "test", n).pictures]
    novelty = box.score(pictures).novelty
    assert novelty is not None and (novelty > 1).sum() <= 12
