"""Heads: the cosine that every task gets, and others that a strategy may make instead."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import FeatureNet


class RichHead(nn.Module):
    """A head that predicts more about an image than a score.

    It takes the features (B, d), or (B, U, d) where an image is looked at in U windows (`windows` of the
    strategy), to what it says, (B, ...).
    """

    def begin(self, net: FeatureNet) -> None:
        """Takes what the backbone has for it, before it learns; does nothing unless overridden."""

    def score(self, said: Tensor) -> Tensor:
        """Returns the scores (B,) of images, higher is better, from what `forward` says of them."""
        raise NotImplementedError


class CosineHead(nn.Linear):
    """Scores features of unit length: in evaluation their cosine with the head's direction, in [-1, 1].

    During training the head's length is free and acts as the slope of the pair probability (published code;
    not in the paper).

    Args:
        features: Length of the features.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the scores (B,) of features (B, d) float32."""
        weight = self.weight.float()
        return (features @ (weight if self.training else functional.normalize(weight, dim=1)).T).squeeze(1)


class LinearHead(nn.Module):
    """Scores features on a scale of their own: weights and an intercept, behind a fixed random layer or none.

    Args:
        features: Length of the features.
        projection: Size of the random layer; 0 for none. It is drawn from the global generator.
    """

    layer: Tensor | None

    def __init__(self, features: int, projection: int = 0) -> None:
        super().__init__()
        # stored like the weights: another version of PyTorch may draw other numbers
        self.register_buffer("layer", torch.randn(features, projection) if projection else None)
        self.linear = nn.Linear(projection or features, 1)

    def lift(self, features: Tensor) -> Tensor:
        """Returns what the weights are applied to, (B, projection or features)."""
        return features if self.layer is None else torch.relu(features @ self.layer)

    def lift_array(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns the same of an array."""
        with torch.no_grad():
            return self.lift(torch.from_numpy(features).to(self.linear.weight)).double().cpu().numpy()

    def forward(self, features: Tensor) -> Tensor:
        """Returns the scores (B,) of features (B, d) float32."""
        scores: Tensor = self.linear(self.lift(features))
        return scores.squeeze(1)

    def set(self, weights: NDArray[np.float64], intercept: float) -> None:
        """Sets weights (projection or features,) and intercept."""
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weights)[None])
            self.linear.bias.fill_(intercept)


def score_of(head: nn.Module, said: Tensor) -> Tensor:
    """Returns the scores (B,) of images from what a head says of them."""
    return head.score(said) if isinstance(head, RichHead) else said
