"""TSN-IQA: frozen convolutions, batch normalisation and a head per task, heads mixed by K-means gating.

Zhang, Ma, Zhai, Yang: "Task-Specific Normalization for Continual Learning of Blind Image Quality Models",
IEEE TIP 33:1898-1910, 2024. Nothing that a task learns touches another task, so the order of the tasks does
not matter to the training: eight orders of six datasets are six trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.config import later
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Dependence, GateSpace

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
        gate_features: Beyond the paper. "standard" measures the gate's distances in units of the deviations
            of each task's training images, a dimension at a time; "unit" in features of unit length (paper).
        tau_from: Beyond the paper. "validation" chooses tau after each task, by the cross entropy of the
            gate's guess of the task on the validation images of all tasks so far; "given" takes `tau`.
        scores: Beyond the paper. "standard" brings the heads to one scale before they are mixed: each head's
            scores are standardised by those of its own task's validation images; "raw" mixes cosines (paper).
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
    gate_features: GateSpace = later("unit", "0.2.0", reading=True)  # noqa: RUF009 - a field
    tau_from: Literal["given", "validation"] = later("given", "0.2.0", reading=True)
    scores: Literal["raw", "standard"] = later("raw", "0.2.0", reading=True)
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

    @property
    def gate_space(self) -> GateSpace:
        """In which space the gate measures distances."""
        return self.gate_features

    @property
    def reading_rules(self) -> dict[str, str]:
        """What is chosen or fitted on validation images when answers are read."""
        rules = {"tau": self.tau_from, "scores": self.scores}
        return {name: rule for name, rule in rules.items() if rule not in ("given", "raw")}

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up gammas and betas too. Convolutions never learn."""
        head = list(model.heads[task].parameters())
        return head if warmup else [*head, *model.norm_parameters(task)]
