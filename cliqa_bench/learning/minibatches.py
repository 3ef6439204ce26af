"""The mini-batches of an epoch, of one dataset or of several that are learned at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
    from cliqa_bench.learning.learner import Learner

Parts = list[tuple["DecodedDataset", "Batch"]]
"""The datasets of a step, each with its mini-batch."""

STARTS = 1_000_000
"""Added to an epoch's number when a dataset starts again within it: more epochs than there ever are."""


class EpochLoader:
    """Gives the mini-batches of the next epoch each time it is iterated, as Avalanche does every epoch.

    Args:
        learner: Whose experience and epoch; is given the keys of each mini-batch's images.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Reads whole mini-batches from the decoded cache."""
        learner, t = self.learner, self.learner.training
        batch = t.warmup_batch if learner.warming_up else t.batch
        # a warm-up is the new head's: where tasks have heads of their own, other datasets cannot teach it
        sources = learner.sources[-1:] if learner.warming_up and not learner.one_head else learner.sources
        images = [len(source.keys("train")) for source in sources]
        sizes = learner.strategy.in_step(images, batch) if len(sources) > 1 else None
        steps = self._one_a_step(sources, batch) if sizes is None else self._all_a_step(sources, sizes)
        for parts in steps:
            learner.shown = [(source, b.images) for source, b in parts]
            yield together(parts)

    def _batches(self, source: DecodedDataset, batch: int, start: int = 0) -> Iterator[Batch]:
        """Gives a dataset's mini-batches of the epoch; those of another start are drawn again."""
        learner = self.learner
        epoch = learner.epoch + start * STARTS
        strategy, t = learner.strategy, learner.training
        return source.train_batches(t, epoch, learner.seed, batch, strategy.crops, strategy.windows(t))

    def _one_a_step(self, sources: Sequence[DecodedDataset], batch: int) -> Iterator[Parts]:
        epochs = [self._batches(source, batch) for source in sources]
        for i in mixed_evenly([s.n_batches(self.learner.training, batch) for s in sources]):
            yield [(sources[i], next(epochs[i]))]

    def _all_a_step(self, sources: Sequence[DecodedDataset], sizes: Sequence[int]) -> Iterator[Parts]:
        t, pairs = self.learner.training, zip(sources, sizes, strict=True)
        sized = [(source, batch) for source, batch in pairs if source.n_batches(t, batch)]
        endless = [(source, self._anew(source, batch)) for source, batch in sized]
        for _ in range(max((source.n_batches(t, batch) for source, batch in sized), default=0)):
            yield [(source, next(batches)) for source, batches in endless]

    def _anew(self, source: DecodedDataset, batch: int) -> Iterator[Batch]:
        for start in itertools.count():
            yield from self._batches(source, batch, start)


def together(parts: Parts) -> list[Tensor]:
    """Makes one mini-batch of several; pairs stay within a dataset.

    Returns:
        What Avalanche takes: the input at 0, the target at 1 and the task label at the end; between them
        first, second and labels of the pairs.
    """
    batches = [batch for _, batch in parts]
    starts = np.cumsum([0, *(len(b.y) for b in batches[:-1])]).tolist()
    shifted = [(b.first + start, b.second + start) for b, start in zip(batches, starts, strict=True)]
    # images of one may be on a GPU, those of another not
    where = next((b.x.device for b in batches if b.x.device.type != "cpu"), batches[0].x.device)
    columns = (
        [b.x.to(where) for b in batches],
        [b.y for b in batches],
        [first for first, _ in shifted],
        [second for _, second in shifted],
        [b.labels for b in batches],
        [torch.full((len(b.y),), source.task) for source, b in parts],
    )
    # a single one is not copied: its crops keep their memory layout
    return [column[0] if len(column) == 1 else torch.cat(column) for column in columns]


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
