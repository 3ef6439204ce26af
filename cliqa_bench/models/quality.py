"""The quality model: one backbone, a head per task, and normalisation that tasks share or own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import NORMS, FeatureNet, Features
from cliqa_bench.errors import UserError
from cliqa_bench.seeds import seed_for


class TaskNorm(nn.Module):
    """A normalisation layer with one copy per task; which one is used is a matter of an index.

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
        """Keeps the pre-trained layer's statistics still whatever the mode."""
        super().train(mode)
        self.pristine.eval()
        return self


class QualityModel(nn.Module):
    """Scores images with one head per learned task.

    The features and, outside training, the heads have unit length, so that a score is a cosine in [-1, 1] and
    the heads of all tasks share a scale; during training a head's length is free and acts as the slope of the
    pair probability (published code; not in the paper).

    Args:
        net: The backbone.
        feature_size: Length of its final features.
        task_norms: Whether every task owns the affine parameters and statistics of the normalisation.
        seed: Seeds the head that every task starts from; all start alike, as in the published code.
    """

    def __init__(
        self, net: FeatureNet, feature_size: int, *, task_norms: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.net = net
        self.heads = nn.ModuleList()
        self.task_norms = task_norms
        self._feature_size = feature_size
        self._seed = seed_for("head", seed)
        if task_norms:
            _install_task_norms(net.plastic)

    @property
    def n_tasks(self) -> int:
        """Number of heads."""
        return len(self.heads)

    def add_task(self) -> int:
        """Adds a head (and, with `task_norms`, normalisation layers) and returns its index."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed % 2**63)
            head = nn.Linear(self._feature_size, 1, bias=False)
            self.net.init_head(head)
        device = next(self.net.parameters()).device
        self.heads.append(head.to(device))
        for norm in self._norms():
            norm.add_task()
        return self.n_tasks - 1

    def _norms(self) -> Iterator[TaskNorm]:
        return (m for m in self.net.modules() if isinstance(m, TaskNorm))

    def features(self, images: Tensor, task: int | None = None) -> Features:
        """Describes images, (B, 3, H, W), with a task's normalisation (None: the pre-trained one)."""
        if self.task_norms:
            for norm in self._norms():
                norm.active = task
        out: Features = self.net(images)
        return out

    def head(self, task: int, features: Tensor) -> Tensor:
        """Returns a head's scores (B,) of features (B, d), in float32."""
        weight = self.heads[task].weight
        assert isinstance(weight, Tensor)
        if not self.training:
            weight = functional.normalize(weight, dim=1)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would tie images
            return (features.float() @ weight.float().T).squeeze(1)

    def score(self, images: Tensor, task: int) -> Tensor:
        """Returns the scores (B,) of one task's head, computed with that task's normalisation."""
        return self.head(task, self.features(images, task).final)

    def forward(self, images: Tensor) -> Tensor:
        """Scores images with every head.

        Args:
            images: (B, 3, H, W), ImageNet-normalised.

        Returns:
            (B, heads), in [-1, 1] outside training. With shared normalisation the network runs once, with
            task-specific normalisation once per task.
        """
        if self.task_norms:
            return torch.stack([self.score(images, task) for task in range(self.n_tasks)], dim=1)
        final = self.features(images).final
        return torch.stack([self.head(task, final) for task in range(self.n_tasks)], dim=1)

    def learnable_parameters(self) -> list[nn.Parameter]:
        """Returns all parameters but those of a part of the backbone that never learns."""
        return [*self.net.plastic.parameters(), *self.heads.parameters()]

    def train_only(self, parameters: list[nn.Parameter]) -> None:
        """Lets these parameters learn and no others."""
        self.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def task_parameters(self, task: int) -> list[nn.Parameter]:
        """Returns what belongs to one task: its head and, with `task_norms`, its gammas and betas."""
        return [*self.heads[task].parameters(), *(self.norm_parameters(task) if self.task_norms else [])]

    def norm_parameters(self, task: int) -> list[nn.Parameter]:
        """Returns the gammas and betas that a task uses: its own with `task_norms`, else those of all."""
        norms = [
            n for n in self.net.plastic.modules() if isinstance(n, TaskNorm if self.task_norms else NORMS)
        ]
        return [p for n in norms for p in (n.tasks[task] if isinstance(n, TaskNorm) else n).parameters()]

    def last_statistics(self, task: int) -> tuple[Tensor, Tensor] | None:
        """Returns mean and variance (C,) that the last BatchNorm layer keeps for a task (Table VIII).

        None where no normalisation keeps statistics, or where the tasks share it.
        """
        layers = [norm.tasks[task] for norm in self._norms()]
        kept = [n for n in layers if isinstance(getattr(n, "running_mean", None), Tensor)]
        return (kept[-1].running_mean, kept[-1].running_var) if kept else None  # type: ignore[return-value]

    def own_state(self) -> dict[str, Tensor]:
        """Returns what this model does not share with every other model of its backbone.

        With task-specific normalisation that is the heads and the tasks' normalisation (the convolutions are
        the backbone's); otherwise everything.
        """
        state = self.state_dict()
        if not self.task_norms:
            return state
        return {k: v for k, v in state.items() if k.startswith("heads.") or ".tasks." in k}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Loads what `own_state` returned, into a model with as many tasks.

        Raises:
            RuntimeError: If names or shapes do not fit.
        """
        expected = self.own_state().keys()
        if state.keys() != expected:
            raise RuntimeError(f"state does not fit the model: {sorted(state.keys() ^ expected)[:3]} ...")
        self.load_state_dict(state, strict=False)


def load_tasks(model: QualityModel, state: dict[str, Tensor], where: Path) -> None:
    """Adds as many tasks to a new model as a stored state has, and loads it.

    Args:
        model: Without tasks.
        state: As `own_state` returned it.
        where: The node that it is of, for messages.

    Raises:
        UserError: If names or shapes are those of another network.
    """
    for _ in range(sum(name.startswith("heads.") for name in state)):
        model.add_task()
    try:
        model.load_own_state(state)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"the weights in {where} are of another network ({said:.200}); delete it and run again"
        ) from error


def _install_task_norms(net: nn.Module) -> None:
    """Replaces every normalisation layer of a network by a `TaskNorm` around it."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NORMS):
                setattr(parent, name, TaskNorm(child))
