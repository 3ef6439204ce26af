"""A model as it is used: a gate first, then the heads that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.readouts import needed_heads


class Scored(NamedTuple):
    """What a model says about images.

    Attributes:
        scores: (n,) float64, higher is better; in [-1, 1] for our models.
        weights: (n, tasks) float64, of the gate; where there is none, 1 for the newest head.
        heads: (n, tasks) float32, what each head said; nan where it was left out.
    """

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    heads: NDArray[np.float32]


class Gate:
    """Weights of the heads for an image, from the images that each task was learned on (Eq. 7 to 9).

    Args:
        net: The network that describes an image for the gate, in evaluation mode.
        centroids: For every task one (k, c) tensor per stage of the network.
        stages: Which of them are used, from 0.
        tau: Temperature.
    """

    def __init__(
        self, net: FeatureNet, centroids: Sequence[Sequence[Tensor]], stages: Sequence[int], tau: float
    ) -> None:
        self.net, self.stages, self.tau = net, list(stages), tau
        self.centroids = [[c.double() for c in of_task] for of_task in centroids]

    def weights(self, images: Tensor) -> Tensor:
        """Returns the weights (B, tasks) float64 of images (B, 3, H, W); each row sums to 1."""
        features = self.net.gate_features(images)
        per_stage = []
        for stage in self.stages:
            x = features[stage].double()
            # the quick way of cdist, by a matrix product, loses half of the digits
            near = [
                torch.cdist(x, c[stage], compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
                for c in self.centroids
            ]
            per_stage.append(torch.softmax(-self.tau * torch.stack(near, dim=1), dim=1))
        return torch.stack(per_stage).mean(dim=0)


class GatedScorer:
    """A model as it is used: the gate first, then the heads whose weight counts.

    Args:
        heads: One network per task, images to (B, 1); one for all, images to (B, tasks), where the tasks
            share their features.
        gate: The gate; None to read the newest head alone.
        tolerance: How far a score may be off, see `readouts.needed_heads`. Nothing is saved where all heads
            share a pass.
    """

    def __init__(
        self, heads: Sequence[Scorer | MergedHead], gate: Gate | None, tolerance: float = 0.0
    ) -> None:
        self.heads, self.gate, self.tolerance = list(heads), gate, tolerance
        needed_heads(np.ones((1, 1)), tolerance)  # refuses a wrong one now and not with the first image

    @property
    def tasks(self) -> int:
        """How many heads there are, one for each task."""
        return len(self.heads[0].heads) if len(self.heads) == 1 else len(self.heads)

    def __call__(self, images: Tensor) -> Scored:
        """Scores images of one shape, (B, 3, H, W), ImageNet-normalised."""
        together, tasks = len(self.heads) == 1, self.tasks
        if self.gate is None or tasks == 1:
            weights = np.zeros((len(images), tasks))
            weights[:, -1] = 1
        else:
            weights = self.gate.weights(images).cpu().numpy()
        needed = needed_heads(weights, self.tolerance) & (weights > 0)
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
        scores = np.where(needed & (weights > 0), weights * said, 0).sum(axis=1)
        return Scored(np.asarray(scores, np.float64), weights, said)
