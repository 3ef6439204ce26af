"""ER: experience replay, a few images of earlier datasets are seen again while a new one is learned.

The memory holds the names of at most `memory` training images, an equal share of each dataset learned: those
that come first in an order made when it was learned (`choose`); with every new dataset fewer of them are
kept. After the warm-up, each mini-batch comes with one from the memory: images of one earlier dataset, chosen
at random, all pairs among them (never with another dataset's), and their loss under that dataset's head.
Pixels are read from the dataset again, none are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.config import later
from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._exemplars import ExemplarRule, Positions, exemplar_order, look
from cliqa_bench.strategies._memory import ImageMemory
from cliqa_bench.strategies._scale import standard

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner


@dataclass
class Replay(ImageMemory):
    """Experience replay.

    Attributes:
        reg_weight: Factor of the replayed loss; at least 0.
        choose: Which images are kept: "random"; "sdk", those that the model scores as their labels say, both
            standardised (SS-IQA); "quantile", spread over the scores.
    """

    rows: ClassVar[dict[str, str]] = {"last": "ER", "gate": "ER-KG", "oracle": "ER-O"}

    reg_weight: float = 1.0
    choose: ExemplarRule = later("random", "0.2.0")  # noqa: RUF009 - a field

    def __post_init__(self) -> None:
        """Starts with an empty memory.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("reg_weight", least=0)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the loss of a mini-batch from the memory."""
        drawn = self.draw(learner)
        if drawn is None:
            return None
        task, source, images, rng = drawn
        return self.reg_weight * learner.loss_on(source.batch_of(images, learner.training, rng), task)

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
