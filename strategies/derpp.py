"""DER++: earlier images are seen again, and should keep the scores that they once had.

Buzzega, Boschini, Porrello, Abati, Calderara: "Dark Experience for General Continual Learning: a Strong,
Simple Baseline", NeurIPS 2020. With each image, the memory keeps the score that the model gave it when the
image entered. After the warm-up, two mini-batches are drawn from the memory, independently of each other. In
the first, the probability of each pair is to stay what the stored scores make it; in the second, it is to
follow the opinion scores. Both losses are the fidelity loss, where the paper, which classifies, has a squared
error between logits and a cross entropy. Pairs are within one dataset, and each dataset keeps its head.

The memory is a reservoir over the stream of training images: every image seen so far is kept with the same
probability. An image enters once, when its dataset is finished, with the score of the whole image. The
paper's enters in every epoch, with the logits of that moment; here the best epoch by validation stays, and a
score of another epoch would be of a network that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._exemplars import Positions, look
from cliqa_bench.strategies._memory import ImageMemory, Replayed, part_of
from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.learning.learner import Learner


def reservoir(priorities: Sequence[Floats], size: int) -> list[Positions]:
    """Chooses what is kept of a stream: the items with the largest random numbers.

    An item that is not among the largest now never will be again, so it may be forgotten at once.

    Args:
        priorities: For each part of the stream, (n,) a random number of each item, drawn once, in [0, 1).
        size: How many stay at most.

    Returns:
        For each part, the positions of those that stay, the largest number first.
    """
    every = np.concatenate([np.zeros(0), *priorities])
    part = np.repeat(np.arange(len(priorities)), [len(some) for some in priorities])
    start = np.cumsum([0, *(len(some) for some in priorities)])
    kept = np.argsort(-every, kind="stable")[:size]
    return [kept[part[kept] == i] - start[i] for i in range(len(priorities))]


@dataclass
class DERPP(ImageMemory):
    """Dark experience replay with labels.

    Attributes:
        alpha: Factor of the loss to the stored scores; at least 0. The paper's for CIFAR-10 and 200 images.
        beta: Factor of the loss to the labels; at least 0. Likewise the paper's.
    """

    rows: ClassVar[dict[str, str]] = {"last": "DER++", "gate": "DER++-KG", "oracle": "DER++-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "P. Buzzega, M. Boschini, A. Porrello, D. Abati, S. Calderara: Dark experience for general continual "
        "learning: a strong, simple baseline. NeurIPS 2020"
    )

    alpha: float = 0.1
    beta: float = 0.5

    def __post_init__(self) -> None:
        """Starts with an empty memory.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("alpha", least=0)
        self.require("beta", least=0)
        self._scores: dict[str, NDArray[np.float32]] = {}
        self._priorities: dict[str, Floats] = {}

    @property
    def values_per_image(self) -> int:
        """Numbers that are kept with each image: position, score, and random number of the reservoir."""
        return 3

    def chances(self, kept: Sequence[int]) -> Floats:
        """Returns shares of the memory: each of its images is as likely as any other to be seen again."""
        return np.array(kept) / sum(kept)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the losses of two mini-batches from the memory, to stored scores and to labels."""
        dark, labelled = self.draw(learner), self.draw(learner)
        if dark is None or labelled is None:
            return None
        task, source, images, rng = labelled
        to_labels = learner.loss_on(source.batch_of(images, learner.training, rng), task)
        return self.alpha * self._to_stored(learner, dark) + self.beta * to_labels

    def _to_stored(self, learner: Learner, drawn: Replayed) -> Tensor:
        """Returns the fidelity loss between the pair probabilities of stored scores and of today's."""
        import torch

        from cliqa_bench.learning.losses import pair_probability

        task, source, images, rng = drawn
        batch = source.batch_of(images, learner.training, rng)
        stored = torch.from_numpy(self._stored(source.name, images))
        before = pair_probability(stored[batch.first], stored[batch.second], learner.training.slope)
        return learner.loss_on(batch._replace(labels=before), task)

    def _stored(self, name: str, images: Positions) -> NDArray[np.float32]:
        """Returns the scores (n,) that were stored with images of a dataset."""
        place = {int(image): i for i, image in enumerate(self._kept[name])}
        return self._scores[name][[place[int(image)] for image in images]]

    def consolidate(self, learner: Learner) -> None:
        """Lets the training images of the dataset just learned enter, each once, with its score."""
        source = learner.source
        train = source.indices("train")
        self._kept[source.name] = train
        self._scores[source.name] = look(learner, source).scores.astype(np.float32)
        self._priorities[source.name] = rng_for("reservoir", source.name, learner.seed).random(len(train))
        names = [*learner.seen, source.name]
        stay = dict(zip(names, reservoir([self._priorities[n] for n in names], self.memory), strict=True))
        self._kept = {name: self._kept[name][kept] for name, kept in stay.items()}
        self._scores = {name: self._scores[name][kept] for name, kept in stay.items()}
        self._priorities = {name: self._priorities[name][kept] for name, kept in stay.items()}

    def state(self) -> dict[str, Tensor]:
        """Returns positions, stored scores (n,) float32 and random numbers (n,) float64 of each dataset."""
        import torch

        found = super().state()
        found |= {f"score.{name}": torch.from_numpy(kept) for name, kept in self._scores.items()}
        return found | {f"priority.{name}": torch.from_numpy(kept) for name, kept in self._priorities.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        super().load_state(state)
        self._scores, self._priorities = part_of(state, "score."), part_of(state, "priority.")
