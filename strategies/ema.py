"""EMA: weights averaged along the sequence.

After every experience the backbone is `decay` times the average so far plus `1 - decay` times what was just
learned; the next experience starts from there. With a decay that grows as 1 - 1/t this would be the plain
mean of CoMA (Marouf, Roy, Tartaglione, Lathuiliere: "Weighted Ensemble Models Are Strong Continual Learners",
ECCV 2024), here over datasets instead of classes; an exponential average needs to know no t. The statistics
of the normalisation are averaged like the weights. Heads are not: each learns in one experience only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.learning.learner import Learner


@dataclass
class EMA(Strategy):
    """Sequential fine-tuning with averaged weights.

    Attributes:
        decay: Share of the average so far that stays, in [0, 1); 0 is `naive`.
    """

    rows: ClassVar[dict[str, str]] = {"last": "EMA", "gate": "EMA-KG", "oracle": "EMA-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "I. E. Marouf, S. Roy, E. Tartaglione, S. Lathuilière: Weighted ensemble models are strong "
        "continual learners. ECCV 2024"
    )

    decay: float = 0.5

    def __post_init__(self) -> None:
        """Starts without an average.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("decay", least=0, below=1)
        self._average: dict[str, Tensor] = {}

    def after_warmup(self, learner: Learner) -> None:
        """Remembers the average so far, from which the backbone starts; it has not moved yet."""
        if learner.seen:
            self._average = {n: t.detach().clone() for n, t in learner.model.net.state_dict().items()}

    def finish(self, learner: Learner) -> None:
        """Averages what was learned with the average so far."""
        import torch

        for name, now in learner.model.net.state_dict().items():
            if name in self._average and now.is_floating_point():
                # exact where nothing moved, which a weighted sum is not: what is frozen keeps its bits
                now.copy_(torch.lerp(self._average[name], now, 1 - self.decay))
        self._average = {}

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the average so far."""
        return dict(self._average)

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Takes the average back."""
        self._average = {name: tensor.to(learner.device) for name, tensor in progress.items()}
