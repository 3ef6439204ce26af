"""The network that answers with a kernel ridge regression on its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliqa_bench.models.quality import QualityModel
from cliqa_bench.strategies._kernel import KernelRegression


class KernelReadout(nn.Module):
    """Scores images by a regression from the features of a model.

    Args:
        model: The model.
        regression: Fitted to features of this model.
    """

    def __init__(self, model: QualityModel, regression: KernelRegression) -> None:
        super().__init__()
        self.model, self.regression = model, regression

    def forward(self, images: Tensor) -> Tensor:
        """Returns (B, 1) scores of images (B, 3, H, W)."""
        final = self.model.features(images, 0).final
        scores = self.regression.predict(final.float().cpu().numpy())
        return torch.from_numpy(scores).to(final)[:, None]
