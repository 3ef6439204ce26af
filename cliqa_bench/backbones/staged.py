"""The network behind a backbone: an image in, pooled features of every stage out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional


class Features(NamedTuple):
    """Pooled features of a batch, each row of unit length.

    Attributes:
        final: (B, d), what the heads read.
        stages: One (B, c_s) per stage, what the gate reads.
    """

    final: Tensor
    stages: tuple[Tensor, ...]


class StagedNet(nn.Module):
    """A chain of stages; every stage's output is averaged over the image and scaled to unit length.

    The scaling is in the published code (BaseCNN_all.py) and not in the paper; it puts the heads of all tasks
    on one scale.

    Args:
        stem: What comes before the first stage.
        stages: The stages, in order.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Features:
        """Describes images.

        Args:
            images: (B, 3, H, W), ImageNet-normalised; any H and W the strides allow.
        """
        maps = self.stem(images)
        pooled = []
        for stage in self.stages:
            maps = stage(maps)
            pooled.append(functional.normalize(maps.mean(dim=(2, 3)).float(), dim=1))
        return Features(pooled[-1], tuple(pooled))
