"""Views of one network: what of it belongs to a task, and how a task's own features are switched on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from cliqa_bench.backbones.staged import NORMS, FeatureNet

_P = TypeVar("_P", bound=nn.Module)


class TaskView:
    """Gives every task features of its own from one network.

    A strategy's `view` returns a new one for each model; a model without one has the same features for all
    tasks. A view holds nothing itself: whatever it needs is in the network, as parameters or buffers, and
    is stored with the model as far as `owns` says.

    Class attributes:
        leaves_tensors: Whether `use` and `fix` change no parameter and no buffer in place; then copies of the
            network share them.
        shared: Whether what it adds to the network serves all tasks, which then have the same features: it is
            never switched, and the pre-trained network's own features are not asked for.
    """

    leaves_tensors: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def install(self, net: FeatureNet) -> None:
        """Prepares a network, once, before its first task; the global generator is seeded."""

    def feature_size(self, backbone: int) -> int:
        """Returns the length of the features that heads read, given that of the backbone's."""
        return backbone

    def add_task(self, net: FeatureNet) -> None:
        """Adds what a further task owns; the global generator is seeded, alike for all tasks."""
        raise NotImplementedError

    def use(self, net: FeatureNet, task: int | None) -> None:
        """Switches the network to a task's features.

        Args:
            net: The network.
            task: Which task; None for the features of the pre-trained network.
        """
        raise NotImplementedError

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns what belongs to a task and may learn."""
        raise NotImplementedError

    def owns(self, name: str) -> bool:
        """Tells whether a tensor of the model's state is to be stored with it.

        False promises that every model of this backbone has the same one.
        """
        return True

    def fix(self, net: FeatureNet, task: int | None) -> None:
        """Turns a copy of a network into one that has the features of a single task and learns no more."""
        self.use(net, task)


class SharedPart(TaskView):
    """Adds a part to the network that serves all tasks; a task owns nothing but its head."""

    leaves_tensors = True
    shared = True

    def add_task(self, net: FeatureNet) -> None:
        """Adds nothing."""

    def use(self, net: FeatureNet, task: int | None) -> None:
        """Does nothing: the part is the same for all tasks."""


def part_of(net: nn.Module, name: str, kind: type[_P]) -> _P:
    """Returns what a view has added to a network.

    Args:
        net: The network.
        name: Its attribute.
        kind: Its class.

    Raises:
        ValueError: If the network has no such part.
    """
    found = getattr(net, name, None)
    if not isinstance(found, kind):
        raise ValueError(f"{type(net).__name__} has no {name}")
    return found


class TaskNorm(nn.Module):
    """A normalisation layer with one copy per task; an index chooses which one is used.

    Args:
        pristine: The pre-trained layer, from which every task starts (protocol: BN is reset to ImageNet's for
            each task). It is kept, and never trained.
    """

    def __init__(self, pristine: nn.Module) -> None:
        super().__init__()
        self.pristine = pristine.requires_grad_(False)
        self.tasks = nn.ModuleList()
        self.active: int | None = None

    def add_task(self) -> None:
        """Adds a task's layer, equal to the pre-trained one."""
        self.tasks.append(copy.deepcopy(self.pristine).requires_grad_(True))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises with the active task's layer (None: the pre-trained one)."""
        out: Tensor = self.layer(self.active)(x)
        return out

    def layer(self, task: int | None) -> nn.Module:
        """Returns a task's layer (None: the pre-trained one)."""
        return self.pristine if task is None else self.tasks[task]

    def train(self, mode: bool = True) -> TaskNorm:
        """Keeps the pre-trained layer's statistics fixed whatever the mode."""
        super().train(mode)
        self.pristine.eval()
        return self


class TaskNorms(TaskView):
    """Every task owns the affine parameters and statistics of the normalisation (TSN-IQA).

    Only these are stored with the model: the convolutions are the backbone's.
    """

    leaves_tensors = True

    def install(self, net: FeatureNet) -> None:
        """Replaces every normalisation layer of what learns by a `TaskNorm` around it."""
        for parent in list(net.plastic.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, NORMS):
                    setattr(parent, name, TaskNorm(child))

    def add_task(self, net: FeatureNet) -> None:
        """Adds a copy of every pre-trained layer."""
        for norm in task_norms(net):
            norm.add_task()

    def use(self, net: FeatureNet, task: int | None) -> None:
        """Switches every layer."""
        for norm in task_norms(net):
            norm.active = task

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        """Returns a task's gammas and betas."""
        return [p for norm in task_norms(net) for p in norm.tasks[task].parameters()]

    def owns(self, name: str) -> bool:
        """Tells whether it is of a task's layer."""
        return ".tasks." in name

    def fix(self, net: FeatureNet, task: int | None) -> None:
        """Puts the layers themselves where the switches were."""
        for name, module in list(net.named_modules()):
            if isinstance(module, TaskNorm):
                replace_module(net, name, module.layer(task))


def task_norms(net: nn.Module) -> Iterator[TaskNorm]:
    """Gives the layers that tasks own, in the network's order."""
    return (m for m in net.modules() if isinstance(m, TaskNorm))


def plain_weight(layer: nn.Module, name: str, weight: Tensor) -> None:
    """Gives a layer whose only parametrised tensor this is a plain one, which does not learn.

    `remove_parametrizations` would take the tensor from the class, which copies of a layer share.
    """
    del layer.parametrizations
    layer.__class__ = type(layer).__bases__[0]
    layer.register_parameter(name, nn.Parameter(weight, requires_grad=False))


def replace_module(net: nn.Module, name: str, module: nn.Module) -> None:
    """Does what `net.set_submodule` does, which PyTorch has from 2.5 on."""
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module)
