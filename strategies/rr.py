"""R&R-Net: every weight belongs to one task, and new tasks reuse earlier weights by their relevance.

Ma, Luo, Wu, Ngan, Li, Meng, Xu: "Remember and Reuse: Cross-Task Blind Image Quality Assessment via
Relevance-aware Incremental Learning", ACM MM 2021. Of each layer's pre-trained weights the largest stay as
they are and serve all tasks. The first task takes the rest, and starts from it. After some epochs a task
gives the smallest of its weights back, learns on with the others, and never changes again; the next task
starts from the weights that were given back, which are 0. A new task does without some of an earlier task's
smallest weights: the less the earlier task's answers agree with the new task's scores, the more of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.errors import UserError
from cliqa_bench.strategies._owners import Owners, check_shares, freed_share, view_of

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.views import TaskView


@dataclass
class RR(Owners):
    """Remember and reuse.

    Attributes:
        tasks: How many datasets there will be: how much a task may keep depends on it.
        shares: Which share of its weights each of the first tasks gives back; the others, or without any all
            tasks, get the same number of weights each (published code, of three tasks: .67 and .5).
    """

    rows: ClassVar[dict[str, str]] = {"oracle": "R&R-Net-O", "gate": "R&R-Net-KG", "last": "R&R-Net"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "R. Ma, H. Luo, Q. Wu, K. N. Ngan, H. Li, F. Meng, L. Xu: Remember and reuse: cross-task blind image "
        "quality assessment via relevance-aware incremental learning. ACM MM 2021"
    )

    tasks: int = 6
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("tasks", least=1, below=127)
        check_shares(self.name, self.shares, self.tasks, "tasks")

    def check_length(self, tasks: int) -> None:
        """Checks that there is room for so many tasks.

        Raises:
            UserError: If there is not.
        """
        if tasks > self.tasks:
            raise UserError(
                f"{self.name} has room for {self.tasks} datasets, and an order has {tasks}: set "
                f"{self.name}.tasks={tasks}"
            )

    def view(self) -> TaskView:
        """Returns the masks."""
        from cliqa_bench.models.owned_weights import OwnedWeights

        return OwnedWeights(self.tasks, self.kept)

    def reuse(self, relevance: float) -> float:
        """Returns which share of an earlier task's weights a new one uses, by a logistic curve."""
        return 1 / (1 + 0.3 * math.exp(-5 * relevance))

    def _given_back(self, learner: Learner) -> float:
        return freed_share(learner.task, self.tasks, self.shares)

    def steps(self, learner: Learner) -> list[int]:
        """Returns when a task gives weights back; the last one keeps what it has."""
        return [self.dense_epochs(learner)] if self._given_back(learner) else []

    def settle(self, learner: Learner, step: int) -> None:
        """Gives the smallest weights back."""
        view_of(learner).free(learner.model.net, learner.task, self._given_back(learner))

    def may_stay(self, learner: Learner) -> bool:
        """Tells whether the task has given its weights back, or never will."""
        after = [start for start in self.steps(learner) if start < learner.training.epochs]
        return not after or learner.epoch - learner.training.warmup_epochs >= after[0]
