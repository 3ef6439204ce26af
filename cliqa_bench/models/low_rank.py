"""Low-rank adapters: to each layer's weight a task adds a matrix of low rank that is its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models.views import TaskView, plain_weight

AdaptedPart = Literal["all", "attention", "mlp"]
"""Which layers have adapters: all linear layers and convolutions; the linear layers of attentions; the other
linear layers."""

QUERIES = ("qkv", "q", "q_proj", "to_q", "query")
"""Names by which timm and others call the layer that makes queries; its parent is an attention."""


class AdaptedWeight(NamedTuple):
    """A weight that has adapters, or is to have some.

    Attributes:
        layer: Its layer.
        name: What the layer calls it.
    """

    layer: nn.Module
    name: str


class LowRankFactors(nn.Module):
    """One task's adapter: the product `up` @ `down`, which is 0 at first.

    Args:
        weight: What it is added to, of any shape; its first dimension are the rows.
        rank: Rank r of the product.

    Attributes:
        down: (r, columns), drawn uniformly from +-1/sqrt(columns).
        up: (rows, r), 0.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        bound = 1 / math.sqrt(columns)
        down = torch.empty(rank, columns, dtype=weight.dtype).uniform_(-bound, bound)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))


class LowRank(nn.Module):
    """Shows a layer its weight with the active task's adapter added.

    Args:
        rank: Rank of the adapters.
        scale: Their factor.
    """

    def __init__(self, rank: int, scale: float) -> None:
        super().__init__()
        self.rank, self.scale = rank, scale
        self.tasks = nn.ModuleList()
        self.active: int | None = None

    def add_task(self, weight: Tensor) -> None:
        """Adds an adapter for the weight."""
        self.tasks.append(LowRankFactors(weight, self.rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weight as the active task uses it (None: as it was pre-trained)."""
        if self.active is None:
            return weight
        factors: Any = self.tasks[self.active]
        with torch.autocast(weight.device.type, enabled=False):  # bfloat16 would lose small changes
            product: Tensor = factors.up @ factors.down
        return weight + self.scale * product.view(weight.shape)


class LowRankAdapters(TaskView):
    """Every task owns an adapter of each layer (LoRA); only these are stored with the model.

    Args:
        rank: Rank of the adapters.
        scale: Their factor.
        where: Which layers have some.
    """

    leaves_tensors = True

    def __init__(self, rank: int, scale: float, where: AdaptedPart) -> None:
        self.rank, self.scale, self.where = rank, scale, where

    def install(self, net: FeatureNet) -> None:
        """Puts adapters' sums in the place of the weights."""
        for layer, name in list(adaptable(net, self.where)):
            parametrize.register_parametrization(layer, name, LowRank(self.rank, self.scale))

    def add_task(self, net: FeatureNet) -> None:
        """Adds an adapter to each layer."""
        for adapted in adapted_weights(net):
            low_rank_of(adapted).add_task(_parametrised(adapted).original)

    def use(self, net: FeatureNet, task: int | None) -> None:
        """Switches every layer."""
        for adapted in adapted_weights(net):
            low_rank_of(adapted).active = task

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns a task's adapters."""
        return [p for a in adapted_weights(net) for p in low_rank_of(a).tasks[task].parameters()]

    def owns(self, name: str) -> bool:
        """Tells whether it is of a task's adapter."""
        return ".parametrizations." in name and ".tasks." in name

    def fix(self, net: FeatureNet, task: int | None) -> None:
        """Keeps, in a copy, the sums that the task uses."""
        self.use(net, task)
        for layer, name in list(adapted_weights(net)):
            plain_weight(layer, name, getattr(layer, name).detach())


def adaptable(net: FeatureNet, where: AdaptedPart) -> Iterator[AdaptedWeight]:
    """Gives the weights of what may learn that can have adapters, in the network's order."""
    for module in net.plastic.modules():
        if isinstance(module, nn.Conv2d) and where == "all":
            yield AdaptedWeight(module, "weight")
        attends = isinstance(module, nn.MultiheadAttention) or any(
            isinstance(getattr(module, name, None), nn.Linear) for name in QUERIES
        )
        if where not in ("all", "attention" if attends else "mlp"):
            continue
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield AdaptedWeight(module, "in_proj_weight")
        yield from (AdaptedWeight(m, "weight") for m in module.children() if isinstance(m, nn.Linear))


def adapted_weights(net: nn.Module) -> Iterator[AdaptedWeight]:
    """Gives the weights that have adapters, in the network's order."""
    for layer in net.modules():
        for name in getattr(layer, "parametrizations", ()):
            adapted = AdaptedWeight(layer, name)
            if isinstance(_parametrised(adapted)[0], LowRank):
                yield adapted


def low_rank_of(adapted: AdaptedWeight) -> LowRank:
    """Returns the adapters of a weight."""
    found: LowRank = _parametrised(adapted)[0]
    return found


def _parametrised(adapted: AdaptedWeight) -> Any:
    parametrised: Any = adapted.layer.parametrizations
    return parametrised[adapted.name]
