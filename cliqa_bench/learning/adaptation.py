"""Test sets answered by a transductive strategy: copies of the model adapt to some images, and score those.

Which images come together depends on the test set and the seed alone, whatever batches they are scored in. No
opinion score is read here: a strategy is given pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.learning.scoring import score_images
from cliqa_bench.models.folding import Scorer, cast_weights
from cliqa_bench.seeds import rng_for

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.strategies.base import Strategy


def batches_of(name: str, images: int, most: int, seed: int) -> list[NDArray[np.int64]]:
    """Returns which test images a model is adapted to together, each once.

    They are shuffled and cut into as few batches as there may be, whose sizes differ by one at most; in a
    batch they are in their old order. The rule has a name, `execution.plan.COMPOSITION`.

    Args:
        name: The test set's name.
        images: How many images it has.
        most: Most images in a batch.
        seed: Seed of the training.
    """
    order = rng_for("adaptation batches", name, seed).permutation(images)
    parts = np.array_split(order, -(-images // most)) if images else []
    return [np.sort(part) for part in parts]


def middles(source: DecodedDataset, images: NDArray[np.int64]) -> Tensor:
    """Returns images, (B, 3, H, W) uint8, whole if they have one shape, else their centres.

    Args:
        source: The dataset.
        images: (B,) positions in its ratings; H and W are the least of their heights and widths.
    """
    height, width = source.cache.shapes[images].min(axis=0).tolist()
    parts = []
    for image in map(source.cache.image, images.tolist()):
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        parts.append(image[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)


def score_adapted(
    strategy: Strategy,
    model: QualityModel,
    source: DecodedDataset,
    seed: int,
    device: torch.device | str,
    precision: str = "fp32",
    tick: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Scores the test images of a dataset, each by a copy of the model that was adapted to its batch.

    Args:
        strategy: Adapts the copies.
        model: As it was trained; it keeps its bits.
        source: The dataset.
        seed: Seed of the training.
        device: Where the model is.
        precision: In which images are scored; it adapts in float32.
        tick: Called with the number of images done.

    Returns:
        (n, heads) float32, in the order of `source.keys("test")`.

    Raises:
        FloatingPointError: If a score is NaN or infinite; names dataset and images.
        OutOfMemory: If an image does not even fit alone.
        UserError: If the model cannot be adapted so.
    """
    keys, places = np.array(source.keys("test")), source.indices("test")
    out = np.empty((len(keys), model.n_tasks), np.float32)
    for number, batch in enumerate(batches_of(source.name, len(keys), strategy.adaptation_batch, seed)):
        adapted = copy.deepcopy(model).eval()
        rng = rng_for("adaptation", source.name, seed, number)
        strategy.adapt(adapted, middles(source, places[batch]).to(device), rng)
        scorer = Scorer(adapted)
        cast_weights(scorer.nets, precision)
        split = replace(source.split, subset=dict.fromkeys(keys[batch].tolist(), "test"))
        part = replace(source, split=split)
        out[batch] = score_images(scorer, part, "test", len(scorer.heads), device, precision, tick)
    return out
