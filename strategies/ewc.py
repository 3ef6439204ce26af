"""EWC: weights are important by the diagonal of the Fisher information (Kirkpatrick et al., PNAS 2017).

Importances of tasks add up (online). As in the code of TSN-IQA, `omega += mean (d l / d theta)**2` over pairs
of the task's training images, where l is the fidelity loss of one pair against the true probability that its
first image is the better one (from the images' mean scores and standard deviations), not against the label 0
or 1. The paper's tables have no EWC.
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
class EWC(OnPairs):
    """Elastic weight consolidation.

    Attributes:
        reg_weight: Factor of the penalty (published code).
        pairs: How many pairs the importances are averaged over; 0 for an epoch's pairs.
    """

    rows: ClassVar[dict[str, str]] = {"last": "EWC", "gate": "EWC-KG", "oracle": "EWC-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "J. Kirkpatrick et al.: Overcoming catastrophic forgetting in neural networks. PNAS 2017"
    )

    reg_weight: float = 10000.0

    def importance(self, learner: Learner) -> Named:
        """Returns the mean (d l / d theta)**2 over pairs of training images."""
        import torch

        from cliqa_bench.benchmarks.pairs import true_probability
        from cliqa_bench.learning.losses import fidelity, pair_probability

        source = learner.source
        mos, std = source.mos, source.std

        def loss(difference: Tensor, batch: Batch) -> Tensor:
            i, j = (batch.images[rows].cpu().numpy() for rows in (batch.first, batch.second))
            true = torch.from_numpy(true_probability(mos[i], mos[j], std[i], std[j])).to(difference)
            predicted = pair_probability(difference, difference.new_zeros(()), learner.training.slope)
            return fidelity(predicted, true) * len(difference)

        return mean_pair_gradient(learner, loss, 2, self.pairs)
