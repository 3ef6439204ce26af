"""TSN-IQA: frozen convolutions, batch normalisation and a head per task, heads mixed by K-means gating.

Zhang, Ma, Zhai, Yang: "Task-Specific Normalization for Continual Learning of Blind Image Quality Models",
IEEE TIP 33:1898-1910, 2024. Nothing that a task learns touches another task, so the order of the tasks does
not matter to the training: eight orders of six datasets are six trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Dependence

if TYPE_CHECKING:
    from torch import nn

    from cliqa_bench.models.quality import QualityModel


@dataclass
class TSN(Strategy):
    """Task-specific normalisation (Section III).

    Attributes:
        norms: "task" for a normalisation of each task's own; "shared" for one that all tasks learn in turn
            and that serves all heads in the end (the task-agnostic BN of Table VII): then the training
            depends on the tasks before.
    """

    rows: ClassVar[dict[str, str]] = {
        "gate": "TSN-IQA",
        "oracle": "TSN-IQA-O",
        "gate-hard": "TSN-IQA (hard)",
        "last": "TSN-IQA (last head)",
    }
    citation: ClassVar[str | tuple[str, ...]] = (
        "W. Zhang, K. Ma, G. Zhai, X. Yang: Task-specific normalization for continual learning of "
        "blind image quality models. IEEE TIP 33, 1898-1910, 2024"
    )

    norms: Literal["task", "shared"] = "task"
    warmup_rate: float = 1.0
    main_rate: float = 1.0

    @property
    def depends_on(self) -> Dependence:
        """Nothing, unless the tasks share their normalisation."""
        return "nothing" if self.own_features else "prefix"

    @property
    def own_features(self) -> bool:
        """Whether every task owns its normalisation layers."""
        return self.norms == "task"

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up gammas and betas too. Convolutions never learn."""
        head = list(model.heads[task].parameters())
        return head if warmup else [*head, *model.norm_parameters(task)]
