"""ER: experience replay, a few images of earlier datasets are seen again while a new one is learned.

The memory holds the names of at most `memory` training images, an equal share of each dataset learned: those
that come first in an order made when it was learned (`choose`); with every new dataset fewer of them are
kept. After the warm-up, each mini-batch comes with one from the memory: images of one earlier dataset, chosen
at random, all pairs among them (never with another dataset's), and their loss under that dataset's head.
Pixels are read from the dataset again, none are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.config import later
from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._exemplars import ExemplarRule, Positions, exemplar_order, look
from cliqa_bench.strategies._scale import standard
from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.quality import QualityModel


class Replayed(NamedTuple):
    """Images of an earlier dataset that a step sees again.

    Attributes:
        task: Its position in the order.
        source: The dataset.
        images: (n,) positions in its ratings.
        rng: Cuts their crops.
    """

    task: int
    source: DecodedDataset
    images: Positions
    rng: np.random.Generator


@dataclass
class Replay(Strategy):
    """Experience replay.

    Attributes:
        memory: Most images in the memory; at least 2.
        reg_weight: Factor of the replayed loss; at least 0.
        choose: Which images are kept: "random"; "sdk", those that the model scores as their labels say, both
            standardised (SS-IQA); "quantile", spread over the scores.
    """

    rows: ClassVar[dict[str, str]] = {"last": "ER", "gate": "ER-KG", "oracle": "ER-O"}

    memory: int = 100
    reg_weight: float = 1.0
    choose: ExemplarRule = later("random", "0.2.0")  # noqa: RUF009 - a field

    def __post_init__(self) -> None:
        """Starts with an empty memory.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("memory", least=2, why=" (a pair)")
        self.require("reg_weight", least=0)
        self._kept: dict[str, NDArray[np.int64]] = {}
        self._step = 0

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        return self.memory

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the backbone and all heads, because all have a loss."""
        return super().trainable(model, task, warmup) if warmup else model.learnable_parameters()

    def after_warmup(self, learner: Learner) -> None:
        """Counts the steps from here."""
        self._step = 0

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the loss of a mini-batch from the memory."""
        drawn = self.draw(learner)
        if drawn is None:
            return None
        task, source, images, rng = drawn
        return self.reg_weight * learner.loss_on(source.batch_of(images, learner.training, rng), task)

    def draw(self, learner: Learner) -> Replayed | None:
        """Draws what a step sees again; None while no two images of a dataset are kept."""
        tasks = [t for t, name in enumerate(learner.seen) if len(self._kept.get(name, ())) > 1]
        if not tasks:
            return None
        rng = rng_for("replay", learner.source.name, learner.seed, self._step)
        self._step += 1
        task = int(rng.choice(tasks))
        source = list(learner.seen.values())[task]
        kept = self._kept[source.name]
        images = rng.choice(kept, min(len(kept), learner.training.batch), replace=False)
        return Replayed(task, source, images, rng)

    def consolidate(self, learner: Learner) -> None:
        """Makes room for the dataset just learned, and chooses what to keep of it."""
        source = learner.source
        new = self._in_order(learner, source)
        everything = {name: self._kept[name] for name in learner.seen} | {source.name: new}
        n = len(everything)
        shares = [self.memory // n + (i < self.memory % n) for i in range(n)]
        self._kept = {name: kept[:m] for (name, kept), m in zip(everything.items(), shares, strict=True)}

    def _in_order(self, learner: Learner, source: DecodedDataset) -> Positions:
        """Returns the training images, those to be kept first at the beginning."""
        train = source.indices("train")
        scores = standard(look(learner, source).scores) if self.choose == "sdk" else None
        rng = rng_for("memory", source.name, learner.seed)
        order: Positions = train[exemplar_order(self.choose, standard(source.labels[train]), scores, rng)]
        return order

    def state(self) -> dict[str, Tensor]:
        """Returns which images are in the memory: dataset -> their positions in its ratings, int64."""
        import torch

        return {f"memory.{name}": torch.from_numpy(kept) for name, kept in self._kept.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        self._kept = {name.removeprefix("memory."): kept.cpu().numpy() for name, kept in state.items()}

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the number of the step that comes next; the memory does not change meanwhile."""
        import torch

        return {"step": torch.tensor(self._step)}

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Goes on counting."""
        self._step = int(progress["step"])
