"""TSN-IQA: frozen convolutions, batch normalisation and a head per task, heads mixed by K-means gating.

Zhang, Ma, Zhai, Yang: "Task-Specific Normalization for Continual Learning of Blind Image Quality Models",
IEEE TIP 33:1898-1910, 2024. Nothing that a task learns touches another task, so the order of the tasks does
not matter to the training: eight orders of six datasets are six trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Dependence

if TYPE_CHECKING:
    from torch import nn

    from cliqa_bench.model import QualityModel


@dataclass
class TSN(Strategy):
    """Task-specific normalisation (Section III). The hyper-parameters are those of the gate and the rates."""

    depends_on: ClassVar[Dependence] = "nothing"
    task_norms: ClassVar[bool] = True
    rows: ClassVar[dict[str, str]] = {
        "gate": "TSN-IQA",
        "oracle": "TSN-IQA-O",
        "gate-hard": "TSN-IQA (hard)",
        "last": "TSN-IQA (last head)",
    }

    warmup_rate: float = 1.0
    main_rate: float = 1.0

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the task's gammas and betas too. Convolutions never learn."""
        return list(model.heads[task].parameters()) if warmup else model.task_parameters(task)
