"""One set of weights for all tasks: every weight has an owner, and a task uses a mask of them.

The owner is a byte beside each weight of a convolution or a linear layer. Nothing else of a network ever
learns: biases, normalisation and its statistics stay as they were pre-trained, for all tasks. What a task
does not use counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.errors import UserError
from cliqa_bench.models.views import TaskView, plain_weight

FREE, PRETRAINED, FIRST, SOFT = 0, 1, 2, 128
"""Owners: none; the pre-trained network; task t (FIRST + t); task t for the time being (SOFT + t)."""

OwnPart = Literal["whole", "core", "soft"]
"""What of a task's own weights learns: all; what is its own for good, without the rest; the rest."""


def smallest(weights: Tensor, among: Tensor, share: float) -> Tensor:
    """Marks a share of the smallest absolute values, rounded down; of equal ones those that come first.

    Args:
        weights: Of any shape.
        among: Which of them count, bool of the same shape.
        share: In [0, 1].

    Returns:
        bool of the same shape, in the memory layout of `among`.
    """
    places = among.flatten().nonzero()[:, 0]
    order = weights.detach().flatten()[places].abs().sort(stable=True).indices
    marked = torch.zeros(among.numel(), dtype=torch.bool, device=among.device)
    marked[places[order[: int(len(places) * share)]]] = True
    return torch.empty_like(among).copy_(marked.view(among.shape))


class Owned(nn.Module):
    """Shows the weights of a layer that a task uses, and lets gradients reach those that learn.

    Args:
        weight: The weights.

    Attributes:
        owners: Who owns each, uint8.
        used: What the task uses; it is made again whenever `shown` is another.
        learns: What of it learns.
        shown: Task and part that the two masks are of; None for masks that are out of date.
    """

    owners: Tensor
    used: Tensor
    learns: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("owners", torch.zeros_like(weight, dtype=torch.uint8))
        self.register_buffer("used", torch.ones_like(weight, dtype=torch.bool), persistent=False)
        self.register_buffer("learns", torch.zeros_like(weight, dtype=torch.bool), persistent=False)
        self.shown: tuple[int, OwnPart] | None = None
        self.register_load_state_dict_post_hook(_out_of_date)  # type: ignore[no-untyped-call]

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weights, 0 where the task does not use them."""
        used = torch.where(self.used, weight, 0.0)
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return used
        return torch.where(self.learns, weight, used.detach())


def _out_of_date(owned: nn.Module, _: object) -> None:
    cast(Owned, owned).shown = None


class OwnedLayer(NamedTuple):
    """A layer whose weights have owners.

    Attributes:
        layer: The layer; its `weight` is what the task uses.
        weight: All of the weights.
        owned: Their owners.
    """

    layer: nn.Module
    weight: nn.Parameter
    owned: Owned


class Sharing(nn.Module):
    """What a network remembers of its tasks beside the owners.

    Args:
        tasks: How many there will be.

    Attributes:
        muted: (tasks, tasks) float32: which share of the weights of a task (column), the smallest ones, a
            later task (row) does without.
        n_tasks: How many there are.
        part: What of the newest task's weights learns, and what of a task's weights is used.
    """

    muted: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("muted", torch.zeros(tasks, tasks))
        self.n_tasks = 0
        self.part: OwnPart = "whole"


class OwnedWeights(TaskView):
    """Every task owns weights, and uses those of earlier tasks, the small ones of which may be muted.

    Args:
        tasks: How many there will be.
        kept: Which share of the pre-trained weights of each layer, the largest, belongs to the pre-trained
            network for good, and serves all tasks. The others are free; they are where the first task starts.
    """

    leaves_tensors = True

    def __init__(self, tasks: int, kept: float = 0.0) -> None:
        self.tasks, self.kept = tasks, kept

    # -- the view --------------------------------------------------------------------------------------------

    def install(self, net: FeatureNet) -> None:
        """Gives every convolution and every linear layer of what learns a byte for each weight.

        Raises:
            UserError: If there is none.
        """
        layers = [m for m in net.plastic.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        if not layers:
            raise UserError(
                f"{type(net).__name__} has no convolution and no linear layer to share weights in"
            )
        for layer in layers:
            owned = Owned(layer.weight)
            if self.kept:
                everything = torch.ones_like(owned.used)
                free = smallest(layer.weight, everything, 1 - self.kept)
                owned.owners.masked_fill_(~free, PRETRAINED)
            parametrize.register_parametrization(layer, "weight", owned)
        net.add_module("sharing", Sharing(self.tasks))

    def add_task(self, net: FeatureNet) -> None:
        """Gives a new task its weights.

        Raises:
            UserError: If there are as many tasks as there were to be.
        """
        sharing = sharing_of(net)
        if sharing.n_tasks >= self.tasks:
            raise UserError(f"there is room for {self.tasks} tasks, and all are taken")
        self.claim(net, sharing.n_tasks)
        sharing.n_tasks += 1
        self.change(net)

    def use(self, net: FeatureNet, task: int | None) -> None:
        """Makes the masks of a task, if they are not those of the last call.

        Raises:
            ValueError: If no task is named: the pre-trained network is not kept.
        """
        if task is None:
            raise ValueError("name a task: the pre-trained weights now belong to tasks")
        shown = (task, sharing_of(net).part)
        for layer in owned_layers(net):
            if layer.owned.shown != shown:
                with torch.inference_mode(False), torch.no_grad():
                    self._show(net, layer, *shown)

    def _show(self, net: FeatureNet, layer: OwnedLayer, task: int, part: OwnPart) -> None:
        owned, muted = layer.owned, sharing_of(net).muted[task].tolist()
        used = has_owner(owned.owners, self.used_by(net, task, part))
        for earlier in range(task):
            if muted[earlier]:
                used &= ~smallest(layer.weight, owned.owners == FIRST + earlier, muted[earlier])
        owned.used, owned.learns = used, has_owner(owned.owners, self.learned_by(task, part))
        owned.shown = (task, part)

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns all weights that have owners; the mask decides which of them learn."""
        return [layer.weight for layer in owned_layers(net)]

    def owns(self, name: str) -> bool:
        """Tells whether it is a weight with an owner, the owners, or what the tasks mute."""
        return ".parametrizations." in name or ".sharing." in name

    def fix(self, net: FeatureNet, task: int | None) -> None:
        """Keeps, in a copy, the weights that the task uses, and sets the others to 0."""
        self.use(net, task)
        for layer, _, _ in list(owned_layers(net)):
            plain_weight(layer, "weight", layer.weight.detach())  # type: ignore[operator]

    # -- who owns what ---------------------------------------------------------------------------------------

    def claim(self, net: FeatureNet, task: int) -> None:
        """Gives a new task all free weights."""
        for layer in owned_layers(net):
            layer.owned.owners.masked_fill_(layer.owned.owners == FREE, FIRST + task)

    def used_by(self, net: FeatureNet, task: int, part: OwnPart) -> list[int]:
        """Returns whose weights a task uses."""
        return [PRETRAINED, *range(FIRST, FIRST + task + 1)]

    def learned_by(self, task: int, part: OwnPart) -> list[int]:
        """Returns whose weights learn with a task."""
        return [FIRST + task]

    def free(self, net: FeatureNet, task: int, share: float) -> None:
        """Takes a share of its weights, in each layer the smallest, from a task; they become 0."""
        with torch.no_grad():
            for _, weight, owned in owned_layers(net):
                freed = smallest(weight, owned.owners == FIRST + task, share)
                owned.owners.masked_fill_(freed, FREE)
                weight.masked_fill_(freed, 0.0)
        self.change(net)

    def mute(self, net: FeatureNet, task: int, earlier: int, share: float) -> None:
        """Lets a task do without a share of an earlier task's weights, in each layer the smallest."""
        sharing_of(net).muted[task, earlier] = share
        self.change(net)

    def learn_part(self, net: FeatureNet, part: OwnPart) -> None:
        """Sets which of the newest task's weights learn from here on."""
        sharing_of(net).part = part

    def change(self, net: FeatureNet) -> None:
        """Notes that masks are out of date: owners or ratios are others."""
        for layer in owned_layers(net):
            layer.owned.shown = None


class CoreAndSoft(OwnedWeights):
    """Preset tasks share the network; additional ones take what the preset tasks own until further notice.

    Task `preset` + k takes the soft weights of task k.

    Args:
        preset: How many preset tasks there will be, and how many additional ones there may be.
        soft: "restore": a preset task uses its own soft weights, until an additional task takes them.
            "code": it uses those of earlier tasks, too, and the first additional task sets to 0 what it does
            not take.
        kept: As in `OwnedWeights`.
    """

    def __init__(self, preset: int, soft: Literal["restore", "code"], kept: float = 0.0) -> None:
        super().__init__(2 * preset, kept)
        self.preset, self.soft = preset, soft

    def claim(self, net: FeatureNet, task: int) -> None:
        """Gives a preset task all free weights, an additional one the soft ones of its predecessor."""
        if task < self.preset:
            super().claim(net, task)
            return
        with torch.no_grad():
            for _, weight, owned in owned_layers(net):
                owned.owners.masked_fill_(owned.owners == SOFT + task - self.preset, FIRST + task)
                if self.soft == "code":
                    weight.masked_fill_(owned.owners >= SOFT, 0.0)

    def soften(self, net: FeatureNet, task: int, share: float) -> None:
        """Makes a share of its weights, in each layer the smallest, a task's until further notice."""
        for _, weight, owned in owned_layers(net):
            owned.owners.masked_fill_(smallest(weight, owned.owners == FIRST + task, share), SOFT + task)
        self.change(net)

    def used_by(self, net: FeatureNet, task: int, part: OwnPart) -> list[int]:
        """Adds soft weights, unless the core learns alone."""
        core = super().used_by(net, task, part)
        if part == "core" or task >= self.preset:
            return core
        return [*core, *range(SOFT if self.soft == "code" else SOFT + task, SOFT + task + 1)]

    def learned_by(self, task: int, part: OwnPart) -> list[int]:
        """Returns whose weights learn with a task."""
        return [SOFT + task] if part == "soft" else super().learned_by(task, part)


def owned_layers(net: nn.Module) -> Iterator[OwnedLayer]:
    """Gives the layers whose weights have owners, in the network's order."""
    for layer in net.modules():
        if parametrize.is_parametrized(layer, "weight"):
            found: Any = layer.parametrizations
            yield OwnedLayer(layer, found.weight.original, found.weight[0])


def without_owners(net: FeatureNet) -> list[str]:
    """Returns the names of the tensors of weights that learn elsewhere and have no owners here.

    Biases and normalisation, which have one value a channel, are not among them.
    """
    return [
        n for n, p in net.plastic.named_parameters() if p.ndim > 1 and ".parametrizations." not in f".{n}"
    ]


def sharing_of(net: nn.Module) -> Sharing:
    """Returns what a network remembers of its tasks."""
    return cast(Sharing, net.get_submodule("sharing"))


def has_owner(owners: Tensor, wanted: list[int]) -> Tensor:
    """Returns a mask of the weights that belong to any of the wanted owners."""
    marked = torch.zeros_like(owners, dtype=torch.bool)
    for owner in wanted:
        marked |= owners == owner
    return marked
