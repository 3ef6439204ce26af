"""Scoring the images of a subset, in their order and in the right precision. The network is one matrix."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from cliqa_bench.learning import scoring
from cliqa_bench.types import Subset

WEIGHTS = torch.tensor([[0.3, -0.7], [1.1, 0.2], [-0.4, 0.9]])
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Pictures:
    """Two subsets of random pictures in two sizes; batches hold one size and follow no order."""

    title = "Pictures"

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        shapes = [(9, 8), (8, 9), (9, 8), (9, 8), (8, 9)]
        self.images = {
            subset: [rng.integers(0, 256, (3, *shape), dtype=np.uint8) for shape in shapes]
            for subset in ("train", "val", "test")
        }
        self.pixels: list[int] = []

    def keys(self, subset: str) -> list[str]:
        return [f"{subset}{i}.png" for i in range(5)]

    def eval_batches(self, subset: str, pixels: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        self.pixels.append(pixels)
        for places in ([4, 1], [3, 0], [2]):
            images = np.stack([self.images[subset][i] for i in places])
            yield np.array(places), torch.from_numpy(images)

    def expected(self, subset: str) -> np.ndarray:
        means = np.array([image.mean(axis=(1, 2)) / 255 for image in self.images[subset]])
        return np.asarray((means - MEAN) / STD @ WEIGHTS.double().numpy())


def score(network: Any, pictures: Any, subset: Subset, *more: Any, **options: Any) -> np.ndarray:
    """Calls `score_images` with a stand-in for a `DecodedDataset`."""
    return scoring.score_images(network, pictures, subset, *more, **options)


def network(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3)) @ WEIGHTS


@pytest.mark.parametrize("subset", ["train", "val", "test"])
def test_scores_are_those_of_the_subset_in_its_order(subset: Subset) -> None:
    pictures, done = Pictures(), list[int]()
    scores = score(network, pictures, subset, 2, "cpu", tick=done.append)
    assert scores.dtype == np.float32
    # the largest difference seen is 5.4e-8, of sums in float32
    np.testing.assert_allclose(scores, pictures.expected(subset), rtol=0, atol=1.6e-7)
    assert done == [2, 2, 1]


@pytest.mark.parametrize(("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_the_network_s_products(precision: str, kind: torch.dtype) -> None:
    pictures, kinds = Pictures(), set[torch.dtype]()

    def noting(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32 and not torch.is_grad_enabled()
        scores = network(images)
        kinds.add(scores.dtype)
        return scores

    scores = score(noting, pictures, "val", 2, "cpu", precision)
    assert kinds == {kind} and scores.dtype == np.float32
    np.testing.assert_allclose(scores, pictures.expected("val"), rtol=0, atol=0.05)
    assert pictures.pixels == [scoring.pixels_in_batch(torch.device("cpu"), precision)]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_images_whose_score_is_no_number_are_named(wrong: float) -> None:
    pictures = Pictures()
    told = pictures.expected("test")[:, 1]

    def broken(images: torch.Tensor) -> torch.Tensor:
        scores = network(images)
        scores[(scores[:, 1] - told[3]).abs() < 1e-5, 1] = wrong
        return scores

    with pytest.raises(
        FloatingPointError, match=r"^Pictures, test images: NaN or infinite scores for test3\.png$"
    ):
        score(broken, pictures, "test", 2, "cpu")


def test_a_batch_in_parts_keeps_its_order() -> None:
    def small(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1:
            raise MemoryError("out of memory")
        return network(images)

    pictures = Pictures()
    scores = score(small, pictures, "train", 2, "cpu")
    np.testing.assert_allclose(scores, pictures.expected("train"), rtol=0, atol=1.6e-7)
