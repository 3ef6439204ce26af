"""One of timm's models, wrapped so that it describes images by the features of its stages."""

from __future__ import annotations

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from cliqa_bench.backbones.staged import FeatureNet, Features


class TimmNet(FeatureNet):
    """A model of timm without its classifier.

    Args:
        model: The model.
        blocks: Which of its intermediate outputs are the stages.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, blocks: list[int]) -> None:
        super().__init__()
        source = model.pretrained_cfg
        model.reset_classifier(0)
        self.model, self.blocks = model, blocks
        # images come normalised as for ImageNet, and some models were trained with other numbers
        mean, std = torch.tensor(source["mean"]), torch.tensor(source["std"])
        scale = torch.tensor(IMAGENET_DEFAULT_STD) / std
        shift = (torch.tensor(IMAGENET_DEFAULT_MEAN) - mean) / std
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """See the base class."""
        last, maps = self.model.forward_intermediates(images * self.scale + self.shift, indices=self.blocks)
        final = self.model.forward_head(last, pre_logits=True)
        return Features(final, tuple(m.mean(dim=(2, 3), dtype=torch.float32) for m in maps))
