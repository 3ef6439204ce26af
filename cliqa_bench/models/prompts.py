"""Prompts: tokens that are learned and put before those of an image, chosen by what the image looks like."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import FeatureNet, TokenNet
from cliqa_bench.errors import UserError
from cliqa_bench.models.views import SharedPart, part_of


class PromptPool(nn.Module):
    """Prompts with a key each; an image takes those whose keys are nearest to it.

    Args:
        width: Length d of a token, and of a key.
        pool: Number M of prompts.
        length: Tokens L of a prompt.
        top: Prompts N that an image takes.

    Attributes:
        keys: (M, d), drawn uniformly from [-1, 1).
        prompts: (M, L, d), the same.
        queries: (B, d), what the last images looked like while gradients were recorded; for the pull.
    """

    def __init__(self, width: int, pool: int, length: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.keys = nn.Parameter(torch.empty(pool, width).uniform_(-1, 1))
        self.prompts = nn.Parameter(torch.empty(pool, length, width).uniform_(-1, 1))
        self.queries: Tensor | None = None

    def select(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses prompts.

        Args:
            queries: (B, d), of any length; one of zeros has similarity 0 to all keys.

        Returns:
            Cosine similarity to the keys chosen, (B, N) float32, the largest first, and which they are,
            (B, N) int64.
        """
        with torch.autocast(queries.device.type, enabled=False):  # bfloat16 would tie keys
            similarity = (
                functional.normalize(queries.float(), dim=1) @ functional.normalize(self.keys, dim=1).T
            )
        found = similarity.topk(self.top, dim=1)
        return found.values, found.indices

    def forward(self, queries: Tensor) -> Tensor:
        """Returns the tokens of the prompts that images with these queries (B, d) take, (B, N L, d)."""
        if torch.is_grad_enabled():
            self.queries = queries.detach()
        with torch.no_grad():
            _, chosen = self.select(queries)
        return self.prompts[chosen].flatten(1, 2)

    def distance(self) -> Tensor:
        """Returns the mean over the last images of the sum of 1 - cosine to the keys that they chose.

        Raises:
            ValueError: If no images have been seen yet.
        """
        if self.queries is None:
            raise ValueError("no images have been seen yet")
        similarity, _ = self.select(self.queries)
        return (1 - similarity).sum(dim=1).mean()


class SharedPrompts(SharedPart):
    """All tasks share a pool of prompts; nothing else learns, and only the pool is stored with the model.

    Args:
        pool: As of `PromptPool`, like the other two.
        length: Tokens of a prompt.
        top: Prompts that an image takes.
    """

    def __init__(self, pool: int, length: int, top: int) -> None:
        self.pool, self.length, self.top = pool, length, top

    def install(self, net: FeatureNet) -> None:
        """Adds the pool.

        Raises:
            UserError: If the network has no tokens.
        """
        if not isinstance(net, TokenNet):
            raise UserError(f"{type(net).__name__} has no tokens to put prompts before")
        net.prompts = PromptPool(net.width, self.pool, self.length, self.top)

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns prompts and keys, which all tasks learn in turn."""
        return list(pool_of(net).parameters())

    def owns(self, name: str) -> bool:
        """Tells whether it is of the pool."""
        return name.startswith("net.prompts.")

    def fix(self, net: FeatureNet, task: int | None) -> None:
        """Gives a copy of a network a pool of its own: the one that it shares may learn on."""
        pool = pool_of(net)
        pool.queries = None
        if isinstance(net, TokenNet):
            net.prompts = copy.deepcopy(pool).requires_grad_(False)


def pool_of(net: nn.Module) -> PromptPool:
    """Returns the prompts of a network.

    Raises:
        ValueError: If it has none.
    """
    return part_of(net, "prompts", PromptPool)
