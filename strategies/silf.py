"""SILF: every weight belongs to one task, and a part of them only until further tasks need it.

Ma, Wu, Ngan, Li, Meng, Xu: "Forgetting to Remember: A Scalable Incremental Learning Framework for Cross-Task
Blind Image Quality Assessment", IEEE TMM 2023. The network is shared out among so many preset tasks. Each
learns with all that is free, gives the smallest weights back, and divides the others into a core and a soft
part, the smaller ones. Then core and soft part learn in turn, so that the core also answers alone. When more
tasks come than were preset, the first of them takes the soft weights of the first preset task, which answers
with its core from then on, and so forth. What is forgotten is bounded, and known from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from cliqa_bench.errors import UserError
from cliqa_bench.strategies._owners import Owners, check_shares, freed_share, view_of

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.owned_weights import CoreAndSoft
    from cliqa_bench.models.views import TaskView


@dataclass
class SILF(Owners):
    """Scalable incremental learning.

    Attributes:
        preset: How many datasets share the network out; as many may follow.
        shares: Which share of its weights each of the first preset tasks gives back; the others, or without
            any all preset tasks, get the same number of weights each (published code, of three: .7 and .5).
        soft_share: Which share of a preset task's weights is soft, in (0, 1); half of them gives an
            additional task as many as its predecessor keeps (published code: .4).
        soft: "restore": a preset task uses its own soft weights, until an additional task takes them.
            "code": it uses those of earlier tasks, too, and when the first additional task comes all preset
            tasks answer with their cores for good, and what it does not take is set to 0.
    """

    rows: ClassVar[dict[str, str]] = {"oracle": "SILF-O", "gate": "SILF-KG", "last": "SILF"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "R. Ma, Q. Wu, K. N. Ngan, H. Li, F. Meng, L. Xu: Forgetting to remember: a scalable incremental "
        "learning framework for cross-task blind image quality assessment. IEEE Transactions on Multimedia "
        "25, 2023"
    )

    preset: int = 3
    shares: tuple[float, ...] = ()
    soft_share: float = 0.5
    soft: Literal["restore", "code"] = "restore"

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("preset", least=1, below=64)
        self.require("soft_share", above=0, below=1)
        check_shares(self.name, self.shares, self.preset, "preset")

    def check_length(self, tasks: int) -> None:
        """Checks that there is room for so many tasks.

        Raises:
            UserError: If there is not.
        """
        if tasks > 2 * self.preset:
            raise UserError(
                f"{self.name} has room for {2 * self.preset} datasets, and an order has {tasks}: set "
                f"{self.name}.preset={-(-tasks // 2)}"
            )

    def view(self) -> TaskView:
        """Returns the masks."""
        from cliqa_bench.models.owned_weights import CoreAndSoft

        return CoreAndSoft(self.preset, self.soft, self.kept)

    def reuse(self, relevance: float) -> float:
        """Returns which share of an earlier task's weights a new one uses: all, or down to a half."""
        return 1.0 if relevance >= 0 else 1 + 0.5 * relevance

    def steps(self, learner: Learner) -> list[int]:
        """Returns when weights are shared out, and from when on the core or the soft part learns, this last.

        As published they learn two epochs each, ten times; here one epoch each, as often as there is time.
        """
        if learner.task >= self.preset:
            return []
        epochs = learner.training.epochs
        in_turn = 2 * ((epochs - self.dense_epochs(learner)) // 2)
        return [*range(epochs - in_turn, epochs)] if in_turn > 0 else [epochs]

    def settle(self, learner: Learner, step: int) -> None:
        """Shares the task's weights out at first; then core and soft part learn in turn."""
        view, net = cast("CoreAndSoft", view_of(learner)), learner.model.net
        if step == 0:
            view.free(net, learner.task, freed_share(learner.task, self.preset, self.shares))
            view.soften(net, learner.task, self.soft_share)
        view.learn_part(net, "soft" if step % 2 else "core")

    def may_stay(self, learner: Learner) -> bool:
        """Tells whether the soft part has learned after the core, or neither will."""
        starts = [start for start in self.steps(learner) if start < learner.training.epochs]
        epoch = learner.epoch - learner.training.warmup_epochs
        return not starts or epoch in starts[1::2]
