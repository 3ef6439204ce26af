"""Memories: images of earlier datasets that are seen again, by name and position; never their pixels.

What a step sees again are images of one dataset, so that all of them make pairs. Which dataset, and which of
its images, is drawn for each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._exemplars import Positions
from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.types import Floats


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
class ImageMemory(Strategy):
    """A strategy with a bounded memory of images; `consolidate` fills it.

    Attributes:
        memory: Most images in the memory; at least 2.
    """

    memory: int = 100

    def __post_init__(self) -> None:
        """Starts with an empty memory.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("memory", least=2, why=" (a pair)")
        self._kept: dict[str, NDArray[np.int64]] = {}
        self._step = 0

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        return self.memory

    @property
    def values_per_image(self) -> int:
        """Numbers that are kept with each image: its position."""
        return 1

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the backbone and all heads, because all have a loss."""
        return super().trainable(model, task, warmup) if warmup else model.learnable_parameters()

    def after_warmup(self, learner: Learner) -> None:
        """Counts the steps from here."""
        self._step = 0

    def draw(self, learner: Learner) -> Replayed | None:
        """Draws what a step sees again; None while no two images of a dataset are kept."""
        tasks = [t for t, name in enumerate(learner.seen) if len(self._kept.get(name, ())) > 1]
        if not tasks:
            return None
        rng = rng_for("replay", learner.source.name, learner.seed, self._step)
        self._step += 1
        sources = list(learner.seen.values())
        shares = self.chances([len(self._kept[sources[task].name]) for task in tasks])
        task = int(rng.choice(tasks, p=shares))
        source = sources[task]
        kept = self._kept[source.name]
        images = rng.choice(kept, min(len(kept), learner.training.batch), replace=False)
        return Replayed(task, source, images, rng)

    def chances(self, kept: Sequence[int]) -> Floats | None:
        """Returns how likely each dataset is drawn, from how many of its images are kept; None if uniform."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Returns which images are in the memory: dataset -> their positions in its ratings, int64."""
        import torch

        return {f"memory.{name}": torch.from_numpy(kept) for name, kept in self._kept.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        self._kept = part_of(state, "memory.")

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the number of the step that comes next; the memory does not change meanwhile."""
        import torch

        return {"step": torch.tensor(self._step)}

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Continues counting."""
        self._step = int(progress["step"])


def part_of(state: dict[str, Tensor], kind: str) -> dict[str, NDArray[Any]]:
    """Returns the tensors whose names begin with `kind`, without it, as arrays."""
    return {n.removeprefix(kind): t.cpu().numpy() for n, t in state.items() if n.startswith(kind)}
