"""How probable each scene and each distortion is, beside the score of a picture; imported where torch is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.models.text_head import TextHead


class AspectReadout(nn.Module):
    """Says the probabilities of the aspects that the texts of a model's newest head name.

    Args:
        model: The model; its newest head compares a picture with texts.
    """

    def __init__(self, model: QualityModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Returns (B, 9 scenes + 11 distortions), or those of the two that the texts name, of images."""
        task = self.model.n_tasks - 1
        head = cast("TextHead", self.model.heads[task])
        found = head.marginals(self.model.said(task, self.model.read_by_heads(images, task)))
        named = [part for part in (found.scene, found.distortion) if part.shape[1] > 1]
        return torch.cat(named, dim=1)
