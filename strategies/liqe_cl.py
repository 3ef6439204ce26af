"""LIQE-CL: LIQE's losses, one dataset after the other, with a single head; nothing published.

Without a memory the network and the texts are simply trained on. With one, every step after the warm-up also
sees a few images of one earlier dataset, as `replay` draws them, and learns from them all that it learned
then: quality, distortion and scene, with the weights of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.strategies._exemplars import ExemplarRule
from cliqa_bench.strategies._liqe import TextMultitask
from cliqa_bench.strategies.replay import Replay

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.learning.learner import Learner


@dataclass
class LIQECL(TextMultitask):
    """Learns one dataset after the other.

    Attributes:
        memory: Most images of earlier datasets that it may see again; 0 for none, else at least 2.
        reg_weight: Factor of their losses; at least 0.
        choose: Which images are kept, see `replay`.
    """

    rows: ClassVar[dict[str, str]] = {"last": "LIQE-CL"}

    memory: int = 0
    reg_weight: float = 1.0
    choose: ExemplarRule = "random"

    def __post_init__(self) -> None:
        """Starts with an empty memory.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("reg_weight", least=0)
        if self.memory:
            self.require("memory", least=2, why=" (a pair), or 0")
        self._replay = Replay(memory=self.memory, choose=self.choose) if self.memory else None

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        return self.memory

    @property
    def values_per_image(self) -> int:
        """Numbers that are kept with each of these images: its position."""
        return 1

    def after_warmup(self, learner: Learner) -> None:
        """Counts the steps from here."""
        if self._replay:
            self._replay.after_warmup(learner)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the losses of a mini-batch from the memory, weighted as those of the step."""
        import torch

        from cliqa_bench.benchmarks.pixels.cache import to_float

        drawn = self._replay.draw(learner) if self._replay else None
        if drawn is None:
            return None
        training = learner.training
        batch = drawn.source.batch_of(drawn.images, training, drawn.rng, self.crops, self.windows(training))
        with learner.autocast():
            features = learner.model.features(to_float(batch.x.to(learner.device)), learner.task).final
        said = learner.model.said(learner.task, features.unflatten(0, (-1, self.crops)))
        losses = self.losses(learner, said, [(drawn.source, batch.images)])
        return self.reg_weight * self.weighted(torch.stack(losses))

    def consolidate(self, learner: Learner) -> None:
        """Makes room for the dataset just learned, and chooses what to keep of it."""
        if self._replay:
            self._replay.consolidate(learner)

    def state(self) -> dict[str, Tensor]:
        """Returns which images are in the memory, and what the base class has."""
        return super().state() | (self._replay.state() if self._replay else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        super().load_state(state)
        if self._replay:
            self._replay.load_state({k: t for k, t in state.items() if k.startswith("memory.")})

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the number of the step that comes next, and what the base class has."""
        step = (self._replay.progress() or {}) if self._replay else {}
        return (super().progress() or {}) | step

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Takes back what `progress` returned."""
        super().load_progress(progress, learner)
        if self._replay:
            self._replay.load_progress(progress, learner)
