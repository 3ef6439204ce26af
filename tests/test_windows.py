"""Windows: where LIQE looks at a picture, through the very methods by which a run trains and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.backbones.staged import FeatureNet, Features
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.decode import adaptive_resize, adaptive_size
from cliqa_bench.benchmarks.pixels.windows import Windows
from cliqa_bench.config import Training
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.heads import RichHead
from cliqa_bench.models.quality import QualityModel, cut_windows
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources(2) as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


def golden(shared: Path) -> Any:
    return np.load(shared / "golden" / "liqe" / "windows.npz")


def sizes(published: Any) -> list[tuple[int, int]]:
    names = [name.removesuffix("_test") for name in published.files if name.endswith("_test")]
    return [(int(name.split("x")[0]), int(name.split("x")[1])) for name in names]


# -- the published windows -----------------------------------------------------------------------------------


def test_windows_are_the_published_ones(shared: Path) -> None:
    published = golden(shared)
    assert len(sizes(published)) == 9
    for height, width in sizes(published):
        name = f"{height}x{width}"
        np.testing.assert_array_equal(Windows().spread(height, width), published[f"{name}_test"])
        grid = Windows().grid(height, width)
        np.testing.assert_array_equal(grid[published[f"{name}_train_index"]], published[f"{name}_train"])


class Corners(FeatureNet):
    """Says where a window was cut from an image whose pixels are their coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, fixed: Tensor | None = None) -> Features:
        where = images[:, :2, 0, 0]
        return Features(where, (where,))


class AllOfThem(RichHead):
    """Says the positions of all windows; the score is the sum of the lefts, the last one counted twice."""

    def forward(self, features: Tensor) -> Tensor:
        return features

    def score(self, said: Tensor) -> Tensor:
        return said[:, :, 1].sum(1) + said[:, -1, 1]


def coordinates(height: int, width: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows])[None].float()


def test_a_model_scores_an_image_by_the_published_windows(shared: Path) -> None:
    published = golden(shared)
    model = QualityModel(Corners(), 2, new_head=lambda features: AllOfThem(), windows=Windows())
    model.add_task()
    model.eval()
    for height, width in sizes(published):
        expected = published[f"{height}x{width}_test"]
        images = torch.cat([coordinates(height, width), coordinates(height, width) + 1])
        with torch.no_grad():
            np.testing.assert_array_equal(model.read_by_heads(images), np.stack([expected, expected + 1]))
            total = expected[:, 1].sum() + expected[-1, 1]
            for scores in (model(images)[:, 0], model.score(images, 0), Scorer(model)(images)[:, 0]):
                assert scores.tolist() == [total, total + 16]


def test_windows_hold_what_lies_there() -> None:
    image = torch.randn(2, 3, 300, 500)
    cut = cut_windows(image, Windows())
    corners = Windows().spread(300, 500)
    assert cut.shape == (2, len(corners), 3, 224, 224)
    for number, (top, left) in enumerate(corners):
        assert torch.equal(cut[:, number], image[:, :, top : top + 224, left : left + 224])


def test_resizing_before_the_windows_is_the_published_one(shared: Path) -> None:
    published = golden(shared)
    given = published["resize_given_wh"].tolist()
    got = [adaptive_size(width, height, 768) for width, height in given]
    np.testing.assert_array_equal(got, published["resize_got_wh"])
    shrunk = adaptive_resize(published["resize_pixels"], 24)
    np.testing.assert_array_equal(shrunk, published["resize_pixels_to_24"])


def test_small_pictures_are_scored_by_what_they_have() -> None:
    assert Windows().grid(256, 224).tolist() == [[0, 0], [32, 0]]
    assert Windows().spread(256, 224).tolist() == [[0, 0], [32, 0]]  # two are all there are
    assert Windows().spread(100, 300).tolist() == [[0, left] for left in range(0, 201, 32)]  # of 100 x 100
    assert cut_windows(torch.zeros(1, 3, 100, 300), Windows()).shape == (1, 7, 3, 100, 100)
    assert len(Windows(stride=1).grid(226, 225)) == 3 * 2


# -- in training ---------------------------------------------------------------------------------------------


class ManyImages:
    """Draws from pictures of several sizes, many times."""

    def __init__(self, crops: int = 3) -> None:
        self.shapes = np.array([[300, 400], [260, 224], [288, 320]] * 400)
        self.crops = crops
        self.drawn = Windows().drawn(self.shapes, crops, np.random.default_rng(4))

    def of(self, picture: int) -> NDArray[np.int64]:
        """Returns the squares drawn for all pictures of a size, (400, crops, 3): top, left, flip."""
        stacked = np.stack(self.drawn, axis=1).reshape(len(self.shapes), self.crops, 3)
        return stacked[picture::3].astype(np.int64)


def test_squares_are_drawn_from_the_whole_grid_of_the_mirrored_picture() -> None:
    many = ManyImages()
    for picture, (height, width) in enumerate(((300, 400), (260, 224), (288, 320))):
        found = many.of(picture)
        flips = found[:, :, 2]
        assert (flips == flips[:, :1]).all()  # all crops of a picture, or none
        assert 0.4 < flips[:, 0].mean() < 0.6
        seen_at = np.where(flips, width - 224 - found[:, :, 1], found[:, :, 1])
        pairs = np.stack([found[:, :, 0], seen_at], axis=2).reshape(-1, 2)
        grid = {tuple(corner) for corner in Windows().grid(height, width).tolist()}
        assert {tuple(corner) for corner in pairs.tolist()} == grid
    distinct = [len({tuple(square) for square in squares}) for squares in many.of(0).tolist()]
    assert np.mean(distinct) > 2.5  # of 18 squares
    repeated = [len({tuple(square) for square in squares}) for squares in many.of(1).tolist()]
    assert 1 in repeated  # with replacement: the grid has two squares


@dataclass
class ByWindows(Strategy):
    """Learns from three crops on a grid; its head weighs them by a softmax."""

    rows: ClassVar[dict[str, str]] = {"last": "ByWindows"}
    crops = 3

    def windows(self, training: Training) -> Windows:
        return Windows(size=training.crop, stride=4)

    def new_head(self, features: int) -> nn.Module:
        return Weighing(features)


class Weighing(RichHead):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2)

    def forward(self, features: Tensor) -> Tensor:
        said: Tensor = self.linear(features)
        return said

    def score(self, said: Tensor) -> Tensor:
        return (said[:, :, 0].softmax(1) * said[:, :, 1]).sum(1)


class Watched(Learner):
    """Notes what every step sees."""

    steps: ClassVar[list[Any]] = []

    def forward(self) -> Tensor:
        output = super().forward()
        ((source, images),) = self.shown
        crops = self.mbatch[0].detach().clone()
        by_image = self.features.detach().view(len(images), 3, 128)
        torch.testing.assert_close(self.model.heads[0](by_image), self.said[0], rtol=0, atol=0)
        self.steps.append(
            (source, images.tolist(), crops, self.features.detach(), self.said, output.detach())
        )
        return output


@pytest.mark.slow
def test_a_run_trains_on_windows_and_its_head_reads_all_of_an_image(sources: list[DecodedDataset]) -> None:
    check_strategy(ByWindows)
    Watched.steps.clear()
    strategy = ByWindows()
    learner = learn(strategy, new_model(strategy), sources[:1], kind=Watched)
    mirrored = plain = 0
    for source, images, crops, features, (said,), output in Watched.steps:
        assert features.shape == (3 * len(images), 128)
        assert said.shape == (len(images), 3, 2)
        weights = said.detach()[:, :, 0].softmax(1)
        by_hand = (weights * said.detach()[:, :, 1]).sum(1)
        torch.testing.assert_close(output[:, 0], by_hand, rtol=0, atol=0)
        for image, three in zip(images, crops.unflatten(0, (-1, 3)), strict=True):
            found = {where(source, image, crop) for crop in three}
            assert len({flip for _, _, flip in found}) == 1
            mirrored += any(flip for _, _, flip in found)
            plain += not all(flip for _, _, flip in found)
            height, width = source.cache.shapes[image]
            for top, left, _ in found:
                assert top % 4 == left % 4 == 0
                assert top <= height - 32
                assert left <= width - 32
    assert mirrored > 10
    assert plain > 10
    model = learner.model.eval()
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        read = torch.stack(
            [
                model.features(images[:, :, top : top + 32, left : left + 32]).final
                for top, left in Windows(size=32, stride=4).spread(40, 48)
            ],
            dim=1,
        )
        assert read.shape[1] == 15
        expected = model.heads[0].score(model.heads[0](read))
        for scores in (model(images)[:, 0], Scorer(model)(images)[:, 0]):
            # largest difference seen: 6e-8
            torch.testing.assert_close(scores, expected, rtol=0, atol=1.8e-7)


def where(source: DecodedDataset, image: int, crop: Tensor) -> tuple[int, int, bool]:
    """Returns where a normalised crop lies in its picture, mirrored or not: top, left, mirrored."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = np.rint((crop.permute(1, 2, 0).numpy() * std + mean) * 255).astype(np.uint8)
    whole = source.cache.image(image)
    for flip, picture in ((False, whole), (True, whole[:, ::-1])):
        for top in range(picture.shape[0] - 31):
            for left in range(picture.shape[1] - 31):
                if (picture[top : top + 32, left : left + 32] == pixels).all():
                    return top, left, flip
    raise AssertionError("the crop lies nowhere in its picture")


def test_without_augmentation_crops_are_those_of_testing(sources: list[DecodedDataset]) -> None:
    source, windows = sources[0], Windows(size=36, stride=4)
    plain = replace(TRAINING, augment="none", crop=36)
    for batch in source.train_batches(plain, 0, 0, 4, 3, windows):
        for image, three in zip(batch.images.tolist(), batch.x.unflatten(0, (-1, 3)), strict=True):
            picture = source.cache.image(image)
            corners = windows.spread(picture.shape[0], picture.shape[1], 3)
            assert len(corners) == 3
            for crop, (top, left) in zip(three, corners, strict=True):
                expected = picture[top : top + 36, left : left + 36]
                np.testing.assert_array_equal(crop.permute(1, 2, 0), expected)
