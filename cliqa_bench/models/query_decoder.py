"""A Transformer decoder layer between a vision transformer's tokens and the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliqa_bench.backbones.staged import FeatureNet, TokenNet
from cliqa_bench.errors import UserError
from cliqa_bench.models.views import SharedPart, part_of

HEAD_WIDTH = 64
"""Width of an attention head, as in DeiT III small, whose tokens have 384 numbers and six heads."""


class QueryDecoder(nn.Module):
    """Reads an image's patches by queries that are learned.

    SS-IQA's published code has it, and the paper does not name it. Each query is added to the summary of the
    image, looks at the other queries, then at the patches; what comes out is shortened to half its length.

    Args:
        width: Length d of a token.
        queries: Number Q of queries; at least 1.

    Attributes:
        queries: (Q, d).
    """

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        most = max(1, width // HEAD_WIDTH)
        heads = next(n for n in range(most, 0, -1) if width % n == 0)
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.layer = nn.TransformerDecoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.shorten = nn.Linear(width, width // 2, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, summary: Tensor, patches: Tensor) -> Tensor:
        """Reads images.

        Args:
            summary: (B, d), what heads would read without the decoder.
            patches: (B, n, d).

        Returns:
            The mean over the queries, (B, d // 2) float32.
        """
        asked = self.queries + summary[:, None].to(patches.dtype)
        read: Tensor = self.shorten(self.layer(asked, patches)).float().mean(dim=1)
        return read


class SharedDecoder(SharedPart):
    """All tasks read the network through one decoder, which learns with it.

    Args:
        queries: As of `QueryDecoder`.
    """

    def __init__(self, queries: int) -> None:
        self.queries = queries

    def install(self, net: FeatureNet) -> None:
        """Adds the decoder.

        Raises:
            UserError: If the network has no tokens, or does not ask for a decoder.
        """
        if not isinstance(net, TokenNet):
            raise UserError(f"{type(net).__name__} has no tokens for a decoder to read")
        if not hasattr(net, "decoder"):  # one of a user's own, from before there were decoders
            raise UserError(
                f"{type(net).__name__} has no attribute 'decoder'; set it to None, and let pooled() return "
                "what reread() gives, if that is not None"
            )
        net.decoder = QueryDecoder(net.width, self.queries)

    def feature_size(self, backbone: int) -> int:
        """Returns the length of what the decoder makes of tokens."""
        return backbone // 2

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns the decoder's."""
        return list(decoder_of(net).parameters())


def decoder_of(net: nn.Module) -> QueryDecoder:
    """Returns the decoder of a network.

    Raises:
        ValueError: If it has none.
    """
    return part_of(net, "decoder", QueryDecoder)
