"""Exemplars: in which order images are chosen to be kept, whatever their number.

Every order is made so that its beginning is a good choice on its own: a memory that shrinks keeps the first.

- "random": as the generator shuffles them.
- "sdk": the images of which the model's prediction is closest to the label come first (SDK-Sample of SS-IQA,
  Pan et al., AAAI 2024); images that are equally close stay in their order.
- "quantile": spread over the range of the labels: the median, then the quartiles, then the eighths, ...
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner

ExemplarRule = Literal["random", "sdk", "quantile"]
Positions = NDArray[np.int64]


def exemplar_order(
    choose: ExemplarRule, labels: Floats, predicted: Floats | None, rng: np.random.Generator
) -> Positions:
    """Returns the positions of images, (n,), those to be kept first at the beginning.

    Args:
        choose: How.
        labels: (n,) what is learned of each image; higher is better.
        predicted: (n,) the model's predictions for them, on the scale of `labels`; for "sdk" alone.
        rng: Shuffles; used for "random" alone.
    """
    if choose == "random":
        return rng.permutation(len(labels))
    if choose == "quantile":
        return spread(labels)
    assert predicted is not None
    return closest(np.abs(labels - predicted))


def share_of(n: int, one_for: int) -> int:
    """Returns how many of n images are kept where there is one for so many, rounded up; none for 0."""
    return math.ceil(n / one_for) if one_for else 0


def closest(distances: Floats) -> Positions:
    """Returns positions in the order of distances; equal ones stay in their order."""
    return np.argsort(distances, kind="stable")


def spread(labels: Floats) -> Positions:
    """Returns positions so that the first k labels, for any k, are spread over the range of all.

    The ranks follow van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, 5/8, ...
    """
    n = len(labels)
    bits = max(1, (n - 1).bit_length())
    turned = [int(f"{i:0{bits}b}"[::-1], 2) for i in (*range(1, 1 << bits), 0)]
    ranks = list(dict.fromkeys(number * n >> bits for number in turned))
    return closest(labels)[ranks[:n]]


class Looked(NamedTuple):
    """A network's features and scores of a dataset's whole training images.

    Attributes:
        features: (n, d) float32 features.
        scores: (n,) float64 scores of the head that learns.
    """

    features: NDArray[np.float32]
    scores: Floats


def look(learner: Learner, source: DecodedDataset) -> Looked:
    """Lets the learner's model describe and score the training images of a dataset; reads no label."""
    import torch

    from cliqa_bench.learning.scoring import score_images

    model, task = learner.model.eval(), learner.task

    def described(images: Tensor) -> Tensor:
        final = model.features(images, task).final
        return torch.cat([final, model.head(task, final)[:, None]], dim=1)

    width, precision = model.feature_size + 1, learner.training.precision
    found = score_images(described, source, "train", width, learner.device, precision)
    return Looked(found[:, :-1], found[:, -1].astype(np.float64))
