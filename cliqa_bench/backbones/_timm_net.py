"""One of timm's models, wrapped so that it describes images by the features of its stages."""

from __future__ import annotations

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from cliqa_bench.backbones.staged import FeatureNet, Features, TokenNet


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


class TimmTokenNet(TimmNet, TokenNet):
    """A vision transformer of timm; see the base classes."""

    def __init__(self, model: VisionTransformer, blocks: list[int]) -> None:
        super().__init__(model, blocks)
        self.prompts, self.decoder = None, None
        self.width, self.extra = model.embed_dim, model.num_prefix_tokens

    def embed(self, images: Tensor) -> Tensor:
        """See the base class; the tokens have their positions."""
        model = self.model
        patches = model.patch_embed(images * self.scale + self.shift)
        tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(patches)))
        return tokens

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See the base class; a class token and its like are among the tokens after a stage."""
        after = []
        for index, block in enumerate(self.model.blocks):
            tokens = block(tokens)
            if index in self.blocks:
                after.append(tokens)
        return self.model.norm(tokens), after

    def summary(self, tokens: Tensor) -> Tensor:
        """See the base class: what timm's own classifier would read."""
        read: Tensor = self.model.forward_head(tokens, pre_logits=True)
        return read.float()

    def read_from(self, tokens: Tensor) -> Tensor:
        """See the base class; some models normalise means instead of tokens."""
        read: Tensor = self.model.fc_norm(super().read_from(tokens))
        return read.float()

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """See the base class."""
        read = self.reread(images)
        return super().pooled(images, fixed) if read is None else read


def timm_net(model: Any, blocks: list[int]) -> TimmNet:
    """Wraps a model; a plain vision transformer so that its tokens can be reached."""
    return (TimmTokenNet if type(model) is VisionTransformer else TimmNet)(model, blocks)
