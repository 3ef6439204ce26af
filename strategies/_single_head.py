"""A network with a head that belongs to none of its tasks."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.models.quality import QualityModel


class SingleHead(nn.Module):
    """Scores images by a linear head on the features that all tasks share.

    Args:
        model: The model whose features they are.
        weights: (d,).
        intercept: What it says where all features are 0.
    """

    weights: Tensor

    def __init__(self, model: QualityModel, weights: NDArray, intercept: float) -> None:
        super().__init__()
        self.model = model
        device = next(model.parameters()).device
        self.register_buffer("weights", torch.from_numpy(weights).to(device, torch.float32))
        self.intercept = intercept

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores (B, 1) of images (B, 3, H, W)."""
        features = self.model.features(images).final.float()
        with torch.autocast(features.device.type, enabled=False):
            return (features @ self.weights + self.intercept)[:, None]
