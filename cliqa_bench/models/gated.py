"""A model in use: first the gate, then the heads that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.aspects import WORDS
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.models.text_head import TextHead
from cliqa_bench.results.readouts import needed_heads, standardised


class Scored(NamedTuple):
    """What a model says about images.

    Attributes:
        scores: (n,) float64, higher is better; in [-1, 1] for our models.
        weights: (n, tasks) float64, of the gate; without a gate, 1 for the newest head.
        heads: (n, tasks) float32, the scores of each head; nan if it was left out.
        aspects: Probabilities of quality (n, 5), scene (n, 9) and distortion (n, 11), (n, 1) of what the
            texts do not name; None where no texts were asked.
        distances: (n, tasks, stages) float64, of each image to the nearest centroid of each task, per stage
            that the gate uses (Eq. 7); None without a gate.
    """

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    heads: NDArray[np.float32]
    aspects: tuple[NDArray[np.float32], ...] | None = None
    distances: NDArray[np.float64] | None = None

    def part(self, images: slice) -> Scored:
        """Returns what it says about some of the images."""
        aspects = None if self.aspects is None else tuple(some[images] for some in self.aspects)
        distances = None if self.distances is None else self.distances[images]
        return Scored(self.scores[images], self.weights[images], self.heads[images], aspects, distances)


class Gate:
    """Weighs a model's heads for an image, by its distances to the tasks' centroids (Eq. 7 to 9).

    Args:
        net: The network that describes an image for the gate, in evaluation mode.
        centroids: For every task one (k, c) tensor per stage of the network.
        stages: Which of them are used, from 0.
        tau: Temperature.
        scales: For every task, what a stage's features are multiplied with, (c,) each; none for nothing.
    """

    def __init__(
        self,
        net: FeatureNet,
        centroids: Sequence[Sequence[Tensor]],
        stages: Sequence[int],
        tau: float,
        scales: Sequence[Sequence[Tensor]] = (),
    ) -> None:
        self.net, self.stages, self.tau = net, list(stages), tau
        self.centroids = [[c.double() for c in of_task] for of_task in centroids]
        self.scales = scales

    def distances(self, images: Tensor) -> Tensor:
        """Returns how far images are from the nearest centroid of each task (Eq. 7).

        Args:
            images: (B, 3, H, W).

        Returns:
            (B, tasks, stages) float64, Euclidean distances in each stage that is used.
        """
        features = self.net.gate_features(images)
        per_stage = []
        for stage in self.stages:
            plain = features[stage]
            near = []
            for task, centroids in enumerate(self.centroids):
                x = (plain * self.scales[task][stage] if self.scales else plain).double()
                # the quick way of cdist, by a matrix product, loses half the digits
                far = torch.cdist(x, centroids[stage], compute_mode="donot_use_mm_for_euclid_dist")
                near.append(far.amin(dim=1))
            per_stage.append(torch.stack(near, dim=1))
        return torch.stack(per_stage, dim=2)

    def weights(self, images: Tensor) -> Tensor:
        """Returns the weights (B, tasks) float64 of images (B, 3, H, W); each row sums to 1."""
        return self.weights_at(self.distances(images))

    def weights_at(self, distances: Tensor) -> Tensor:
        """Returns the same of distances, (B, tasks, stages) float64."""
        of_stages = [torch.softmax(-self.tau * near, dim=1) for near in distances.unbind(dim=2)]
        return torch.stack(of_stages).mean(dim=0)


class GatedScorer:
    """A model in use: first the gate, then the heads whose weight counts.

    Args:
        heads: One network per task, images to (B, 1); one for all, images to (B, tasks), where the tasks
            share their features.
        gate: The gate; None to read the newest head alone.
        tolerance: How far a score may be off, see `readouts.needed_heads`. Nothing is saved where all heads
            share a pass.
        validation: For every task, scores of its validation images, see `readouts.standardised`; none to mix
            scores as they are.
        ranges: (tasks, 2), the least and the greatest score of each head; None for -1 and 1.

    Attributes:
        aspects: What it predicts for images beside a score, names of `aspects.WORDS`.
    """

    aspects: tuple[str, ...] = ()

    def __init__(
        self,
        heads: Sequence[Scorer | MergedHead],
        gate: Gate | None,
        tolerance: float = 0.0,
        validation: Sequence[NDArray[np.float32]] = (),
        ranges: NDArray[np.float64] | None = None,
    ) -> None:
        self.heads, self.gate, self.tolerance = list(heads), gate, tolerance
        self.validation = validation
        self.ranges = np.tile([-1.0, 1.0], (self.tasks, 1)) if ranges is None else ranges
        needed_heads(np.ones((1, 1)), tolerance)  # refuses a wrong one now rather than with the first image

    @property
    def tasks(self) -> int:
        """How many heads there are, one for each task."""
        return len(self.heads[0].heads) if len(self.heads) == 1 else len(self.heads)

    def __call__(self, images: Tensor) -> Scored:
        """Scores images of one shape, (B, 3, H, W), ImageNet-normalised."""
        together, tasks = len(self.heads) == 1, self.tasks
        distances = None
        if self.gate is None or tasks == 1:
            weights = np.zeros((len(images), tasks))
            weights[:, -1] = 1
        else:
            far = self.gate.distances(images)
            weights, distances = self.gate.weights_at(far).cpu().numpy(), far.cpu().numpy()
        low, high = self.ranges.T
        needed = needed_heads(weights * (high - low) / 2, self.tolerance) & (weights > 0)
        said = np.full(weights.shape, np.nan, np.float32)
        if together:
            said[:] = self.heads[0](images).float().cpu().numpy()
            needed = np.ones_like(needed)
        else:
            fixed = self.heads[0].fixed(images)
            for task, head in enumerate(self.heads):
                rows = np.flatnonzero(needed[:, task])
                if len(rows) == len(images):
                    said[:, task] = head(images, fixed)[:, 0].float().cpu().numpy()
                elif len(rows):
                    some = torch.from_numpy(rows).to(images.device)
                    shared = None if fixed is None else fixed[some]
                    said[rows, task] = head(images[some], shared)[:, 0].float().cpu().numpy()
        for task, known in enumerate(self.validation):
            said[:, task] = standardised(said[:, task], known)
        unsaid = weights * (low + high) / 2
        scores = np.where(needed & (weights > 0), weights * said, unsaid).sum(axis=1)
        return Scored(np.asarray(scores, np.float64), weights, said, distances=distances)


def text_head_of(heads: Sequence[Scorer | MergedHead]) -> TextHead | None:
    """Returns the head that compares images with texts, if it is the model's only one."""
    if len(heads) != 1 or not isinstance(heads[0], Scorer) or not isinstance(heads[0].heads, nn.ModuleList):
        return None
    (head, *more) = heads[0].heads
    return head if isinstance(head, TextHead) and not more else None


class AspectScorer(GatedScorer):
    """A model whose single head compares images with texts: it says quality, scene and distortion, too.

    Args:
        scorer: The network.
        head: Its head, as `text_head_of` returns it.
    """

    def __init__(self, scorer: Scorer, head: TextHead) -> None:
        super().__init__([scorer], None)
        self.scorer, self.head = scorer, head
        named = zip(WORDS.items(), head.axes, strict=True)
        self.aspects = tuple(name for (name, words), length in named if length == len(words))

    def __call__(self, images: Tensor) -> Scored:
        """Scores images as the base class does, and says what they show."""
        (said,) = self.scorer.said(images)
        scores = self.head.score(said).float().cpu().numpy()[:, None]
        found = tuple(part.float().cpu().numpy() for part in self.head.marginals(said))
        return Scored(np.asarray(scores[:, 0], np.float64), np.ones(scores.shape), scores, found)
