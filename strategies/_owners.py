"""What R&R-Net and SILF share: one network whose weights each belong to one task.

As in PackNet (Mallya, Lazebnik, CVPR 2018): a task takes the free weights, learns them while all others stand
still, and gives some of them back for the next. What a new task does without, of earlier tasks' weights,
depends on their relevance: the SRCC of the earlier task's answers for the new task's images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from cliqa_bench.errors import UserError, join_names
from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.owned_weights import OwnedWeights
    from cliqa_bench.models.quality import QualityModel


@dataclass
class Owners(Strategy):
    """A strategy under which every weight belongs to one task.

    Attributes:
        kept: Share of each layer's pre-trained weights, the largest, that stays as it is and serves all
            tasks, in [0, 1) (published code: .1 for R&R-Net, 0 for SILF, of 88 million weights).
        relevance_on: The images of a new task on which earlier tasks are tried ("train": published code of
            SILF; that of R&R-Net tries them on test images).
        dense: Share of the epochs after the warm-up in which a task learns with all weights that are free,
            in [0, 1), before it gives some back; at least one epoch (published code: two thirds for R&R-Net,
            half for SILF).
    """

    kept: float = 0.3
    relevance_on: Literal["val", "train"] = "val"
    dense: float = 0.25

    def __post_init__(self) -> None:
        """Starts without a copy of the weights.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("kept", least=0, below=1)
        self.require("dense", least=0, below=1)
        self._still: list[Tensor] = []

    # -- to be defined by the strategy -----------------------------------------------------------------------

    def reuse(self, relevance: float) -> float:
        """Returns which share of its weights a task of some relevance in [-1, 1] contributes, in [0, 1]."""
        raise NotImplementedError

    def settle(self, learner: Learner, step: int) -> None:
        """Changes the owners of weights as a step of `steps` requires."""
        raise NotImplementedError

    def steps(self, learner: Learner) -> list[int]:
        """Returns the epochs after the warm-up, from 0, before which the weights are settled.

        An epoch that the training does not have is made up for at its end.
        """
        raise NotImplementedError

    def dense_epochs(self, learner: Learner) -> int:
        """Returns in how many epochs after the warm-up a task learns with all weights that are free."""
        return max(1, int(self.dense * learner.training.epochs))

    # -- what is the same for all ----------------------------------------------------------------------------

    @property
    def own_features(self) -> bool:
        """Whether every task has features of its own: it uses a part of the weights."""
        return True

    @property
    def adapts_statistics(self) -> bool:
        """Whether the statistics of the normalisation follow the images: they are all tasks'."""
        return False

    def added_parameters(self, backbone: type[Backbone]) -> int:
        """Returns what a task adds: a head, and no weight."""
        return backbone.feature_size

    def prepare(self, model: QualityModel) -> int:
        """Adds a head, and weights that are the task's own; warns once of weights that cannot have owners."""
        from cliqa_bench.models.owned_weights import without_owners
        from cliqa_bench.progress import warn

        if not model.n_tasks and (names := without_owners(model.net)):
            warn(
                f"{self.name}: {join_names(names)} cannot be masked and stay as pre-trained: only weights of "
                "convolutions and linear layers have owners"
            )
        return super().prepare(model)

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the weights, too, of which the others' stay fixed."""
        return list(model.heads[task].parameters()) if warmup else model.task_parameters(task)

    def before_epoch(self, learner: Learner) -> None:
        """Measures relevance before the first epoch, and settles the weights when it is time."""
        if learner.epoch == 0:
            self._relate(learner)
        if learner.warming_up:
            return
        epoch = learner.epoch - learner.training.warmup_epochs
        for step, start in enumerate(self.steps(learner)):
            if epoch == start:
                self.settle(learner, step)
        self._still = [weight.detach().clone() for weight in _weights(learner)]

    def _relate(self, learner: Learner) -> None:
        """Mutes earlier tasks' weights for the new one, by what their answers for its images are worth."""
        from cliqa_bench.learning.scoring import score_images
        from cliqa_bench.metrics import srcc

        source, model = learner.source, learner.model.eval()
        labels = source.labels[source.indices(self.relevance_on)]
        known = np.isfinite(labels)
        for earlier in range(learner.task):

            def score(images: Tensor, earlier: int = earlier) -> Tensor:
                scores: Tensor = model.score(images, earlier)[:, None]
                return scores

            scores = score_images(
                score, source, self.relevance_on, 1, learner.device, learner.training.precision
            )
            relevance = srcc(scores[known, 0].astype(np.float64), labels[known]) if known.sum() > 1 else 0.0
            share = 1 - self.reuse(relevance if math.isfinite(relevance) else 0.0)  # constant answers
            view_of(learner).mute(model.net, learner.task, earlier, share)

    def after_step(self, learner: Learner) -> None:
        """Restores what does not learn: weight decay also changes what has no gradient."""
        import torch

        from cliqa_bench.models.owned_weights import owned_layers

        with torch.no_grad():
            for (_, weight, owned), still in zip(owned_layers(learner.model.net), self._still, strict=True):
                weight.copy_(torch.where(owned.learns, weight, still))

    def finish(self, learner: Learner) -> None:
        """Does the steps that no epoch did, and switches to the task with all that it owns."""
        epochs = learner.training.epochs
        for step, start in enumerate(self.steps(learner)):
            if start >= epochs > 0:  # without any, nothing is learned that later tasks need room for
                self.settle(learner, step)
        view_of(learner).learn_part(learner.model.net, "whole")
        self._still = []

    def progress(self) -> dict[str, Tensor] | None:
        """Returns nothing: owners are stored with the model, and each epoch copies the weights again."""
        return {}


def view_of(learner: Learner) -> OwnedWeights:
    """Returns the view of the learner's model."""
    return cast("OwnedWeights", learner.model.view)


def _weights(learner: Learner) -> Sequence[nn.Parameter]:
    return view_of(learner).parameters(learner.model.net, learner.task)


def freed_share(task: int, tasks: int, shares: tuple[float, ...]) -> float:
    """Returns which share of its weights a task gives back to those that come.

    Args:
        task: From 0.
        tasks: How many there will be.
        shares: Those of the first tasks; the others get the same number of weights each.
    """
    return shares[task] if task < len(shares) else (tasks - 1 - task) / (tasks - task)


def check_shares(name: str, shares: tuple[float, ...], tasks: int, counted: str) -> None:
    """Checks the shares that tasks give back.

    Args:
        name: The strategy.
        shares: As in `freed_share`.
        tasks: How many tasks there will be.
        counted: The hyper-parameter that says so.

    Raises:
        UserError: If the last task would give some back, too, or a share is not between 0 and 1.
    """
    if len(shares) >= tasks:
        raise UserError(f"{name}.shares must be fewer than {name}.{counted} = {tasks}, not {len(shares)}")
    if not all(0 < share < 1 for share in shares):
        raise UserError(f"{name}.shares must be between 0 and 1, not {shares}")
