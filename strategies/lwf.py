"""LwF: what the old heads predicted for pairs before a task, they should still predict after it.

Li, Hoiem: "Learning without Forgetting", TPAMI 2018, with the fidelity loss between pair probabilities for
the distillation ("modified LwF" of the TSN-IQA paper; LwF-KG is Zhang et al., arXiv 2102.09717). The teacher
is a copy of the model taken after the warm-up of the new head, so it holds the previous backbone; it sees the
same crops of the new task's images. Its normalisation is fixed (evaluation mode), and its heads keep the
length they have in training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.quality import QualityModel


@dataclass
class LwF(Strategy):
    """Learning without forgetting, with fidelity distillation of every old head.

    Attributes:
        reg_weight: Factor of the distillation loss of each old head (published code; not in the paper).
    """

    rows: ClassVar[dict[str, str]] = {"last": "LwF", "gate": "LwF-KG", "oracle": "LwF-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "Z. Li, D. Hoiem: Learning without forgetting. IEEE TPAMI 40(12), 2935-2947, 2018",
        "W. Zhang, D. Li, C. Ma, G. Zhai, X. Yang, K. Ma: Continual learning for blind image quality "
        "assessment. IEEE TPAMI 45(3), 2864-2878, 2023",
    )

    reg_weight: float = 10.0

    def __post_init__(self) -> None:
        """Starts without a teacher.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("reg_weight", least=0)
        self._teacher: QualityModel | None = None
        self._folded: QualityModel | None = None

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the backbone and all heads, because all have a loss."""
        return super().trainable(model, task, warmup) if warmup else model.learnable_parameters()

    def after_warmup(self, learner: Learner) -> None:
        """Takes the copy that teaches."""
        if learner.model.n_tasks > 1:
            self._take_teacher(learner.model)

    def _take_teacher(self, model: QualityModel) -> None:
        self._teacher = copy.deepcopy(model).requires_grad_(False).train()
        self._teacher.net.eval()
        self._folded = None

    def _teacher_scores(self, learner: Learner) -> Tensor:
        """Returns the teacher's scores (n, heads) of the mini-batch."""
        import torch

        from cliqa_bench.models.folding import folded

        if self._folded is None:  # its normalisation is fixed
            self._folded = copy.deepcopy(self._teacher)
            assert self._folded is not None
            self._folded.net = folded(self._folded.net)
        with torch.no_grad():
            return learner.scores(self._folded, learner.mb_x)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the distillation loss of the old heads on the mini-batch's pairs."""
        if self._teacher is None:
            return None
        old, new = (
            scores[:, : learner.task] for scores in (self._teacher_scores(learner), learner.mb_output)
        )
        pairs = learner.pairs
        return self.reg_weight * distillation(new, old, pairs.first, pairs.second, learner.training.slope)

    def consolidate(self, learner: Learner) -> None:
        """Drops the teacher."""
        self._teacher = self._folded = None

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the teacher."""
        return {} if self._teacher is None else self._teacher.own_state()

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Takes the teacher back."""
        if progress:
            self._take_teacher(learner.model)
            assert self._teacher is not None
            self._teacher.load_own_state(progress)


def distillation(
    new: Tensor, old: Tensor, first: Tensor, second: Tensor, slope: Literal["paper", "code"] = "paper"
) -> Tensor:
    """Returns the fidelity loss between what two models say of pairs: mean over pairs, sum over heads.

    Args:
        new: (n, heads) scores of the model that learns.
        old: (n, heads) scores of the teacher.
        first: (p,) rows of the first image of each pair.
        second: (p,) rows of the second.
        slope: As in `losses.pair_probability`.
    """
    from cliqa_bench.learning.losses import fidelity, pair_probability

    told, meant = (pair_probability(s[first], s[second], slope) for s in (new, old))
    return fidelity(told, meant) * new.shape[1]
