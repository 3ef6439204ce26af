"""MAS: weights are important as far as the output changes with them (Aljundi et al., ECCV 2018).

As in the code of TSN-IQA, the output is the probability p of a pair, where the original has the squared
length of the network's output for one input: `omega += mean |d p**2 / d theta|` over pairs of the task's
training images; no labels are needed. Importances of tasks add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.strategies._quadratic import Named, OnPairs, mean_pair_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.benchmarks.decoded import Batch
    from cliqa_bench.learning.learner import Learner


@dataclass
class MAS(OnPairs):
    """Memory-aware synapses.

    Attributes:
        reg_weight: Factor of the penalty (published code).
        pairs: How many pairs the importances are averaged over; 0 for an epoch's pairs.
    """

    rows: ClassVar[dict[str, str]] = {"last": "MAS", "gate": "MAS-KG", "oracle": "MAS-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "R. Aljundi, F. Babiloni, M. Elhoseiny, M. Rohrbach, T. Tuytelaars: Memory aware synapses: "
        "learning what (not) to forget. ECCV 2018",
        "W. Zhang, D. Li, C. Ma, G. Zhai, X. Yang, K. Ma: Continual learning for blind image quality "
        "assessment. IEEE TPAMI 45(3), 2864-2878, 2023",
    )

    reg_weight: float = 10.0

    def importance(self, learner: Learner) -> Named:
        """Returns the mean |d p**2 / d theta| over pairs of training images."""
        from cliqa_bench.learning.losses import pair_probability

        def squared(difference: Tensor, batch: Batch) -> Tensor:
            zero = difference.new_zeros(())
            return (pair_probability(difference, zero, learner.training.slope) ** 2).sum()

        return mean_pair_gradient(learner, squared, 1, self.pairs)
