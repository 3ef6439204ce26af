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

    Attributes:
        non_negative: Whether no final feature can be below 0, whatever the network has learned, as where it
            ends with a ReLU. It narrows what heads can say, see `folding.Scorer.ranges`.
    """

    non_negative = False

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
        """Returns the output of a part that never learns, the same for all tasks; None without one."""
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
        non_negative: See the base class.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], non_negative: bool = False) -> None:
        super().__init__()
        self.non_negative = non_negative
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


class TokenNet(FeatureNet):
    """A transformer that gives access to its tokens: others may be put before them, or something read them.

    Attributes:
        prompts: Takes the features of images without prompts, (B, d), to the tokens that come before
            those of the images, (B, k, d); None for none.
        decoder: Takes the features of images without it, (B, d), and their patches (B, n, d) to the features
            that heads read; None for none. A network has either prompts or a decoder, not both.
        width: Length d of a token.
        extra: How many of an image's tokens are no patches, such as a class token; they come first.
    """

    prompts: nn.Module | None
    decoder: nn.Module | None
    width: int
    extra: int

    def embed(self, images: Tensor) -> Tensor:
        """Returns the tokens of images (B, 3, H, W) as the first block reads them, (B, n, d)."""
        raise NotImplementedError

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Sends tokens (B, n, d) through the blocks.

        Returns:
            What the last normalisation makes of them, (B, n, d), and the tokens after each stage.
        """
        raise NotImplementedError

    def summary(self, tokens: Tensor) -> Tensor:
        """Returns what the heads read, (B, d), of what `encode` makes of an image's tokens, (B, n, d)."""
        return self.read_from(tokens)

    def read_from(self, tokens: Tensor) -> Tensor:
        """Returns the mean (B, d) of some of the tokens that `encode` returns, (B, k, d)."""
        return tokens.mean(dim=1, dtype=torch.float32)

    def reread(self, images: Tensor) -> Features | None:
        """Returns the features of images, before they get unit length, under prompts or through a decoder.

        None where the network has neither.
        """
        if self.prompts is not None:
            return self.prompted(images)
        return None if self.decoder is None else self.decoded(images)

    def decoded(self, images: Tensor) -> Features:
        """Returns the features of images before they get unit length, the final ones read by the decoder.

        Those of the stages are the mean over the patches, as without it.
        """
        assert self.decoder is not None
        tokens, after = self.encode(self.embed(images))
        final = self.decoder(self.summary(tokens), tokens[:, self.extra :])
        return Features(final, tuple(x[:, self.extra :].mean(dim=1, dtype=torch.float32) for x in after))

    def prompted(self, images: Tensor) -> Features:
        """Returns the features of images before they get unit length, read from their prompts.

        The final ones are the mean over the prompts, those of the stages the mean over the image's own
        tokens. No gradient reaches what chooses the prompts.
        """
        assert self.prompts is not None
        tokens = self.embed(images)
        with torch.no_grad():
            query = self.summary(self.encode(tokens)[0])
        before = self.prompts(query)
        final, after = self.encode(torch.cat([before.to(tokens.dtype), tokens], dim=1))
        count = before.shape[1]
        stages = tuple(some[:, count:].mean(dim=1, dtype=torch.float32) for some in after)
        return Features(self.read_from(final[:, :count]), stages)
