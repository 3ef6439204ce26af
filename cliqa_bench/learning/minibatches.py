"""The mini-batches of an epoch, of one dataset or of several that are learned at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner


class EpochLoader:
    """Gives the mini-batches of the next epoch each time it is iterated, as Avalanche does every epoch.

    Args:
        learner: Whose experience and epoch; is told the keys of each mini-batch's images.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Reads whole mini-batches from the decoded cache."""
        learner, t = self.learner, self.learner.training
        batch = t.warmup_batch if learner.warming_up else t.batch
        # a warm-up is the new head's: where tasks have heads of their own, other datasets cannot teach it
        sources = learner.sources[-1:] if learner.warming_up and not learner.one_head else learner.sources
        epochs = [s.train_batches(t, learner.epoch, learner.seed, batch) for s in sources]
        for i in mixed_evenly([s.n_batches(t, batch) for s in sources]):
            b = next(epochs[i])
            learner.shown = (sources[i], b.images)
            # Avalanche reads the input at 0, the target at 1 and the task label at the end
            yield [b.x, b.y, b.first, b.second, b.labels, torch.full((len(b.x),), sources[i].task)]


def mixed_evenly(counts: Sequence[int]) -> list[int]:
    """Mixes several sequences, each spread evenly over the whole.

    Args:
        counts: Length of each sequence.

    Returns:
        Which sequence gives the next item; number i comes `counts[i]` times.

    Example:
        >>> mixed_evenly([4, 2])
        [0, 1, 0, 0, 1, 0]
    """
    places = [((k + 0.5) / n, i) for i, n in enumerate(counts) for k in range(n)]
    return [i for _, i in sorted(places)]
