"""The networks behind backbones: an image in, pooled features of every stage out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
"""Normalisation layers, with their subclasses (timm has several), that tasks can own."""


class Features(NamedTuple):
    """Pooled features of a batch, each row of unit length.

    Attributes:
        final: (B, d), what the heads read.
        stages: One (B, c_s) per stage, what the gate reads.
    """

    final: Tensor
    stages: tuple[Tensor, ...]


class FeatureNet(nn.Module):
    """A network that describes images by vectors of unit length.

    The scaling is in the published code (BaseCNN_all.py) and not in the paper; it puts the heads of all tasks
    on one scale. A network says what it pools (`pooled`) and, if a part of it never learns, which part does.
    """

    @property
    def plastic(self) -> nn.Module:
        """The part that may learn and whose normalisation tasks may own; nothing else ever changes."""
        return self

    def init_head(self, head: nn.Linear) -> None:
        """Draws the first weights of a head that reads the final features; by default torch's are kept."""

    def text_weights(self) -> Mapping[str, Tensor]:
        """Returns the weights of the text tower that it was pre-trained with; {} without one.

        They have OpenAI's names, and `logit_scale` is one of them.
        """
        return {}

    def fixed(self, images: Tensor) -> Tensor | None:
        """Returns what a part that never learns says of images, alike for all tasks; None without one."""
        return None

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """Returns the features of images, (B, 3, H, W), before they get unit length; `fixed` is theirs."""
        raise NotImplementedError

    def gate_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns `Features.stages` alone; to be overridden where they take less than the whole network."""
        features: Features = self(images)
        return features.stages

    def forward(self, images: Tensor, fixed: Tensor | None = None) -> Features:
        """Describes images.

        Args:
            images: (B, 3, H, W), ImageNet-normalised; any H and W the strides allow.
            fixed: What `fixed` returned for them, if that is known already.
        """
        final, stages = self.pooled(images, self.fixed(images) if fixed is None else fixed)
        return Features(unit(final), tuple(unit(stage) for stage in stages))


def unit(x: Tensor) -> Tensor:
    """Gives every row of x (B, d) unit length, in float32."""
    return functional.normalize(x.float(), dim=1)


class StagedNet(FeatureNet):
    """A chain of stages; every stage's output is averaged over the image.

    Args:
        stem: What comes before the first stage.
        stages: The stages, in order.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yields the output (B, c_s, H_s, W_s) of every stage, one at a time."""
        maps = self.stem(images)
        for stage in self.stages:
            maps = stage(maps)
            yield maps

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """See the base class."""
        # a mean in float32 even of bfloat16 maps: its three digits would tie images
        stages = tuple(maps.mean(dim=(2, 3), dtype=torch.float32) for maps in self.maps(images))
        return Features(stages[-1], stages)
