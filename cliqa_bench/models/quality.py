"""The quality model: one backbone, a head per task, and features that tasks share or own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from cliqa_bench.backbones.staged import NORMS, FeatureNet, Features
from cliqa_bench.benchmarks.pixels.windows import Windows
from cliqa_bench.config import Training
from cliqa_bench.errors import UserError, run_again
from cliqa_bench.models.heads import CosineHead, RichHead, score_of
from cliqa_bench.models.views import TaskNorms, TaskView, task_norms
from cliqa_bench.seeds import seed_for

NewHead = Callable[[int], "nn.Module | None"]
"""Makes the head of a task from the length of the features: (B, d) float32 to (B,), or a `RichHead`; None for
the usual one. The global generator is seeded when it is called."""


class ModelParts(Protocol):
    """What makes the parts of a model that are not the backbone's: a strategy."""

    @property
    def own_features(self) -> bool:
        """Whether every task has features of its own."""

    def view(self) -> TaskView | None:
        """Returns how tasks come by features of their own, if they do."""

    def new_head(self, features: int) -> nn.Module | None:
        """Makes a head, see `NewHead`."""

    def trained_under(self, training: Training) -> Training:
        """Returns the protocol under which it learns, given the run's."""

    def windows(self, training: Training) -> Windows | None:
        """Returns in which windows an image is looked at; None for the whole image."""


class QualityModel(nn.Module):
    """Scores images with one head per learned task.

    The features have unit length. So have, outside training, the usual heads, so that a score is a cosine in
    [-1, 1] and the heads of all tasks share a scale.

    Args:
        net: The backbone.
        feature_size: Length of its final features, to which a view may give another one.
        view: How each task comes by features of its own; None where all tasks share them.
        seed: Seeds the head that every task starts from; all start alike, as in the published code.
        new_head: Makes the heads; None for the usual ones.
        windows: In which windows an image is looked at; None for the whole image. With windows, heads read
            those of an image at once: (B, U, d), where they else read (B, d).
    """

    def __init__(
        self,
        net: FeatureNet,
        feature_size: int,
        *,
        view: TaskView | None = None,
        seed: int = 0,
        new_head: NewHead | None = None,
        windows: Windows | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.windows = windows
        self.heads = nn.ModuleList()
        self.view = view
        self.feature_size = view.feature_size(feature_size) if view is not None else feature_size
        self._seed = seed_for("head", seed)
        self._view_seed = seed_for("view", seed)
        self._new_head = new_head
        if view is not None:
            with seeded(self._view_seed):
                view.install(net)

    @property
    def n_tasks(self) -> int:
        """Number of heads."""
        return len(self.heads)

    def add_task(self) -> int:
        """Adds a head and whatever the view gives a task, and returns the head's index."""
        with seeded(self._seed):
            head = self._new_head(self.feature_size) if self._new_head else None
            if head is None:
                head = CosineHead(self.feature_size)
                self.net.init_head(head)
            elif isinstance(head, RichHead):
                head.begin(self.net)
        device = next(self.net.parameters()).device
        self.heads.append(head.to(device))
        if self.view is not None:
            with seeded(self._view_seed):
                self.view.add_task(self.net)
        return self.n_tasks - 1

    @property
    def own_features(self) -> bool:
        """Whether every task has features of its own."""
        return self.view is not None and not self.view.shared

    def features(self, images: Tensor, task: int | None = None) -> Features:
        """Describes images, (B, 3, H, W), as a task sees them (None: as the pre-trained network does)."""
        if self.view is not None and not self.view.shared:
            self.view.use(self.net, task)
        out: Features = self.net(images)
        return out

    def read_by_heads(self, images: Tensor, task: int | None = None) -> Tensor:
        """Returns the final features of images, (B, d), or of their windows, (B, U, d)."""
        if self.windows is None:
            return self.features(images, task).final
        cut = cut_windows(images, self.windows)
        final: Tensor = self.features(cut.flatten(0, 1), task).final.unflatten(0, cut.shape[:2])
        return final

    def said(self, task: int, features: Tensor) -> Tensor:
        """Returns what a head says, see `heads.RichHead`; scores, where it says no more; in float32."""
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would tie images
            out: Tensor = self.heads[task](features.float())
            return out

    def head(self, task: int, features: Tensor) -> Tensor:
        """Returns a head's scores (B,) of features (B, d), or (B, U, d) of windows, in float32."""
        return score_of(self.heads[task], self.said(task, features))

    def score(self, images: Tensor, task: int) -> Tensor:
        """Returns the scores (B,) of one task's head, computed from that task's features."""
        return self.head(task, self.read_by_heads(images, task))

    def forward(self, images: Tensor) -> Tensor:
        """Scores images with every head.

        Args:
            images: (B, 3, H, W), ImageNet-normalised.

        Returns:
            (B, heads), in [-1, 1] outside training where the heads are the usual ones. The network runs once,
            or once per task where tasks have features of their own.
        """
        if self.own_features:
            return torch.stack([self.score(images, task) for task in range(self.n_tasks)], dim=1)
        final = self.read_by_heads(images)
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
        """Returns what belongs to one task: its head and what the view says."""
        own = self.view.parameters(self.net, task) if self.view is not None else []
        return [*self.heads[task].parameters(), *own]

    def norm_parameters(self, task: int) -> list[nn.Parameter]:
        """Returns the gammas and betas that a task uses: its own where tasks have some, else those of all."""
        if isinstance(self.view, TaskNorms):
            return self.view.parameters(self.net, task)
        return [p for n in self.net.plastic.modules() if isinstance(n, NORMS) for p in n.parameters()]

    def last_statistics(self, task: int) -> tuple[Tensor, Tensor] | None:
        """Returns mean and variance (C,) that the last BatchNorm layer keeps for a task (Table VIII).

        None where no normalisation keeps statistics, or where the tasks share it.
        """
        layers = [norm.tasks[task] for norm in task_norms(self.net)]
        kept = [n for n in layers if isinstance(getattr(n, "running_mean", None), Tensor)]
        return (kept[-1].running_mean, kept[-1].running_var) if kept else None  # type: ignore[return-value]

    def own_state(self) -> dict[str, Tensor]:
        """Returns what this model does not share with every other model of its backbone.

        Without a view that is everything; with one, the heads and what the view owns.
        """
        state, view = self.state_dict(), self.view
        if view is None:
            return state
        return {k: v for k, v in state.items() if k.startswith("heads.") or view.owns(k)}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Loads what `own_state` returned, into a model with as many tasks.

        Raises:
            RuntimeError: If names or shapes do not fit.
        """
        expected = self.own_state().keys()
        if state.keys() != expected:
            raise RuntimeError(f"state does not fit the model: {sorted(state.keys() ^ expected)[:3]} ...")
        self.load_state_dict(state, strict=False)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU's global generator, and restores it at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        yield


def cut_windows(images: Tensor, windows: Windows) -> Tensor:
    """Returns the windows by which images (B, 3, H, W) are scored, (B, U, 3, side, side)."""
    height, width = images.shape[2:]
    side = windows.side(height, width)
    corners = windows.spread(height, width).tolist()
    cut = [images[:, :, top : top + side, left : left + side] for top, left in corners]
    return torch.stack([part.contiguous(memory_format=torch.channels_last) for part in cut], dim=1)


def model_for(
    strategy: ModelParts, net: FeatureNet, feature_size: int, training: Training, seed: int = 0
) -> QualityModel:
    """Returns a model without tasks, whose heads, view and windows are a strategy's.

    Args:
        strategy: The strategy.
        net: As in `QualityModel`.
        feature_size: As in `QualityModel`.
        training: The run's protocol.
        seed: As in `QualityModel`.

    Raises:
        UserError: If the strategy contradicts itself about features of the tasks' own.
    """
    view = strategy.view()
    if (view is not None and not view.shared) != strategy.own_features:
        name = type(strategy).__name__
        raise UserError(f"{name}.own_features is {strategy.own_features}, but its view() gives {view}")
    windows = strategy.windows(strategy.trained_under(training))
    return QualityModel(net, feature_size, view=view, seed=seed, new_head=strategy.new_head, windows=windows)


def load_tasks(
    model: QualityModel,
    state: dict[str, Tensor],
    where: Path,
    advice: str = "",
) -> None:
    """Adds as many tasks to a new model as a stored state has, and loads it.

    Args:
        model: Without tasks.
        state: As `own_state` returned it.
        where: The node or the file that it is of, for messages.
        advice: What to do where it is of another network; by default, to run again.

    Raises:
        UserError: If names or shapes are those of another network.
    """
    # a head may have several tensors
    for _ in {name.split(".")[1] for name in state if name.startswith("heads.")}:
        model.add_task()
    try:
        model.load_own_state(state)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"the weights in {where} are of another network ({said:.200}); {advice or run_again()}"
        ) from error
