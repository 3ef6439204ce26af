"""A plain vision transformer whose tokens come from convolutions and have no positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import Features, TokenNet


class SelfAttention(nn.Module):
    """Softmax attention of tokens to one another.

    Args:
        width: Length of a token.
        heads: Number of heads; divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns what each token (B, n, d) reads from all, (B, n, d)."""
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        found = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, on every token by itself.

    Args:
        width: Length of a token.
        hidden: Length in between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (B, n, d) to (B, n, d)."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return out


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each behind a LayerNorm and added to what it reads.

    Args:
        width: Length of a token.
        heads: Number of heads of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, 4 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (B, n, d) to (B, n, d)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class ViTNet(TokenNet):
    """A vision transformer; its stages end at 1/4, 2/4, 3/4 and 4/4 of its depth.

    Args:
        stem: Channels of the convolutions (3 x 3, stride 2, GELU) before the one that makes tokens.
        width: Length of a token.
        depth: Number of blocks.
        heads: Number of heads of every attention.
    """

    def __init__(self, stem: Sequence[int], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.prompts, self.decoder, self.width, self.extra = None, None, width, 0
        layers: list[nn.Module] = []
        for channels, out in zip((3, *stem), stem, strict=False):
            layers += [nn.Conv2d(channels, out, 3, 2, 1), nn.GELU()]
        self.stem = nn.Sequential(*layers, nn.Conv2d(stem[-1], width, 3, 2, 1))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = [math.ceil(depth * quarter / 4) - 1 for quarter in range(1, 5)]

    def embed(self, images: Tensor) -> Tensor:
        """See the base class."""
        maps: Tensor = self.stem(images)
        return maps.flatten(2).transpose(1, 2)

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See the base class."""
        after = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.last:
                after.append(tokens)
        return self.norm(tokens), after

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """See the base class: means over the tokens, in float32 even of bfloat16 ones."""
        if (read := self.reread(images)) is not None:
            return read
        final, after = self.encode(self.embed(images))
        return Features(self.summary(final), tuple(x.mean(dim=1, dtype=torch.float32) for x in after))
