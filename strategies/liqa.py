"""LIQA-style: features of old distortions are drawn from generators, and all heads distilled into one.

A re-implementation from the abstract: of Liu, Zhou, Li, Xu, Chen, "LIQA: Lifelong blind image quality
assessment", IEEE Transactions on Multimedia 25, 5358-5373, 2023, neither code nor body text was available.
The two stages and the words for them come from the abstract; every other choice is ours, and has a name
below.

Split: each task, a distortion or a dataset, gets an auxiliary head, which then stays as it is, and a
generator of features that look like those of its training images. Merge: a single head learns what the
auxiliary heads say, of the features of the current task and of pseudo features of every task before it. The
single head answers (readout "merged"). No image is kept.

By default the backbone does not learn: old generators and old heads stay exact, and there are no epochs. With
`features="plastic"` it learns too, and is held to what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.part_names import base_of
from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._generator import Gaussians, Generator, Kept, Network
from cliqa_bench.strategies._linear import Linear, Objective, lesson, regress
from cliqa_bench.strategies._scale import scale_of
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.lwf import LwF

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.heads import LinearHead
    from cliqa_bench.models.quality import QualityModel

F64 = NDArray[np.float64]
GENERATORS: dict[str, type[Gaussians | Network | Kept]] = {
    "gaussian": Gaussians,
    "network": Network,
    "kept": Kept,
}

MOST_FEATURES = 4096
"""Whose covariance, of 16.8 million numbers, is still computed."""

MERGE_PENALTY = 1e-6
"""Of the single head: it only makes the solution unique. Its teachers were held back already."""


@dataclass
class LIQA(LwF):
    """LIQA-style: a re-implementation from the abstract.

    Attributes:
        features: "frozen", or "plastic": the backbone learns each task, held by `hold`.
        generator: "gaussian" (a normal distribution in each of `bins` ranges of the score), "network" (a
            small one, from noise and a score), or "kept": the features themselves, which no generator beats.
        bins: Ranges of the score, with equally many images each, of "gaussian".
        draws: Least number of pseudo features of each task. As many are drawn as the current task has images,
            or a multiple of that which is no less; its own features then count as often.
        objective: What a head minimises: "squared" errors in closed form, "smooth-l1", or "fidelity" of pairs
            inside one task. The first two need a scale of scores: that of the first training images of each
            dataset, for all its parts.
        head_penalty: With frozen features: factor of an auxiliary head's squared weights, in multiples of the
            features' mean variance.
        hold: With plastic features: "lwf" distils the old heads, "features" holds the features themselves,
            "none" does neither.
        reg_weight: With plastic features: factor of the loss that holds.
    """

    rows: ClassVar[dict[str, str]] = {
        "merged": "LIQA-style",
        "oracle": "LIQA-style-O",
        "gate": "LIQA-style-KG",
    }
    citation: ClassVar[str | tuple[str, ...]] = (
        "J. Liu, W. Zhou, X. Li, J. Xu, Z. Chen: LIQA: Lifelong blind image quality assessment. IEEE "
        "Transactions on Multimedia 25, 5358-5373, 2023"
    )

    features: Literal["frozen", "plastic"] = "frozen"
    generator: Literal["gaussian", "network", "kept"] = "gaussian"
    bins: int = 4
    draws: int = 512
    objective: Objective = "squared"
    head_penalty: float = 0.1
    hold: Literal["lwf", "features", "none"] = "lwf"

    def __post_init__(self) -> None:
        """Starts without generators.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("bins", least=1)
        self.require("draws", least=1)
        self.require("head_penalty", above=0)
        self._generators: list[Generator] = []
        self._scales: dict[str, tuple[float, float]] = {}
        self._merged: Linear | None = None
        self._x: F64 | None = None

    # -- what a model is made of, and what learns ------------------------------------------------------------

    @property
    def by_gradient(self) -> bool:  # type: ignore[override]
        """Whether it learns in epochs of gradient steps: only where the backbone learns."""
        return self.features == "plastic"

    def new_head(self, features: int) -> nn.Module | None:
        """Makes a linear head; a cosine for pairs, whose scores have no scale.

        Raises:
            UserError: If a matrix of features by features would be needed that is too large.
        """
        from cliqa_bench.models.heads import LinearHead

        if features > MOST_FEATURES and (self.generator == "gaussian" or self.objective == "squared"):
            raise UserError(
                f"{self.name}: the backbone has {features} features, too many for their covariances; use "
                "another backbone, or liqa.generator=network with liqa.objective=smooth-l1"
            )
        return None if self.objective == "fidelity" else LinearHead(features)

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the newest head, and after the warm-up the backbone if it is plastic; never an old head."""
        return Strategy.trainable(self, model, task, warmup or self.features == "frozen")

    def added_parameters(self, backbone: type[Backbone]) -> int:
        """Returns the numbers of a head and of a generator; those of "kept" features depend on the images."""
        d = backbone.feature_size
        sizes = {"gaussian": Gaussians.size(d, self.bins), "network": Network.size(d), "kept": 0}
        return d + (self.objective != "fidelity") + sizes[self.generator]

    # -- plastic features: epochs, and what holds them -------------------------------------------------------

    def loss(self, learner: Learner) -> Tensor:
        """Returns the loss of the mini-batch."""
        from torch.nn import functional

        if self.objective == "fidelity":
            return learner.pair_loss()
        mean, std = self._scale(learner.source)
        distance = functional.mse_loss if self.objective == "squared" else functional.smooth_l1_loss
        return distance(learner.predicted, (learner.mb_y - mean) / std)

    def after_warmup(self, learner: Learner) -> None:
        """Takes the copy that teaches."""
        if self.hold != "none":
            super().after_warmup(learner)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns how far old heads, or the features, have drifted on the mini-batch."""
        import torch

        if self._teacher is None or self.hold == "lwf":
            return super().penalty(learner)
        with torch.no_grad(), learner.autocast():
            before = self._teacher.features(learner.mb_x).final
        return self.reg_weight * ((learner.features.float() - before.float()) ** 2).sum(dim=1).mean()

    # -- split and merge -------------------------------------------------------------------------------------

    def finish(self, learner: Learner) -> None:
        """Split: fits the auxiliary head, unless epochs have."""
        if self.features == "plastic":
            return
        source = learner.source
        x = self._x = _described(learner)
        y = self._standardised(source)
        pairs = rng_for("liqa head", source.name, learner.seed)
        fitted = regress([lesson(x, y, pairs, learner.training.ties)], self.objective, self.head_penalty)
        _set(learner.model.heads[learner.task], fitted)

    def consolidate(self, learner: Learner) -> None:
        """Fits the task's generator, and merges: what the heads say becomes one head."""
        source = learner.source
        x = _described(learner) if self._x is None else self._x  # a frozen backbone was asked in `finish`
        self._x = None
        fitted = self._fit(x, self._standardised(source), source.name, learner.seed)
        self._generators = [*self._generators, fitted]
        self._scales = {base_of(source.name): self._scale(source)} | self._scales
        self._merged = self._merge(learner, x)
        super().consolidate(learner)

    def _fit(self, x: F64, y: F64, name: str, seed: int) -> Generator:
        if self.generator == "gaussian":
            return Gaussians.fit(x, y, self.bins)
        if self.generator == "network":
            return Network.fit(x, y, rng_for("liqa generator", name, seed))
        return Kept(np.asarray(x, np.float32))

    def _merge(self, learner: Learner, x: F64) -> Linear:
        """Returns the single head that predicts what the auxiliary heads do.

        Args:
            learner: The learner, with the heads.
            x: (n, d) features of the current task.
        """
        times = -(-self.draws // len(x))
        names = [*learner.seen, learner.source.name]
        lessons = []
        for task, (name, generator) in enumerate(zip(names, self._generators, strict=True)):
            rng = rng_for("liqa", name, learner.source.name, learner.seed)
            here = task == learner.task
            features = np.tile(x, (times, 1)) if here else generator.draw(times * len(x), rng)
            teacher = _linear_of(learner.model.heads[task])
            lessons.append(lesson(features, teacher(features), rng))
        return regress(lessons, self.objective, MERGE_PENALTY)

    def _standardised(self, source: DecodedDataset) -> F64:
        """Returns the labels of the training images, on the scale of the dataset."""
        mean, std = self._scale(source)
        return np.asarray((source.labels[source.indices("train")] - mean) / std, np.float64)

    def _scale(self, source: DecodedDataset) -> tuple[float, float]:
        """Returns mean and standard deviation of the first training labels of a dataset."""
        own = scale_of(source.labels[source.indices("train")])
        return self._scales.get(base_of(source.name), own)

    # -- what remains ----------------------------------------------------------------------------------------

    def extras(self, model: QualityModel) -> dict[str, nn.Module]:
        """Returns the network with the single head."""
        from cliqa_bench.strategies._single_head import SingleHead

        assert self._merged is not None
        return {"merged": SingleHead(model, *self._merged)}

    def state(self) -> dict[str, Tensor]:
        """Returns generators, scales and the single head."""
        import torch

        arrays = {
            f"generator.{task}.{field}": array
            for task, generator in enumerate(self._generators)
            for field, array in generator._asdict().items()
        } | {f"scale.{name}": np.array(scale) for name, scale in self._scales.items()}
        if self._merged is not None:
            arrays |= {f"merged.{field}": np.asarray(part) for field, part in self._merged._asdict().items()}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
        parts: dict[str, dict[str, NDArray[np.float32]]] = {}
        for name in (name for name in arrays if name.startswith("generator.")):
            _, task, field = name.split(".")
            parts.setdefault(task, {})[field] = arrays[name]
        self._generators = [GENERATORS[self.generator](**parts[task]) for task in sorted(parts, key=int)]
        self._scales = {
            name.removeprefix("scale."): (float(array[0]), float(array[1]))
            for name, array in arrays.items()
            if name.startswith("scale.")
        }
        merged = "merged.weights" in arrays
        self._merged = Linear(arrays["merged.weights"], float(arrays["merged.intercept"])) if merged else None


def _described(learner: Learner) -> F64:
    """Returns the features (n, d) of the whole training images."""
    return learner.describe(learner.source, "train").astype(np.float64)


def _linear_of(head: nn.Module) -> Linear:
    """Returns a head's output as in training: a cosine times its length."""
    linear = cast("LinearHead", head).linear if hasattr(head, "linear") else cast("nn.Linear", head)
    weights = linear.weight.detach()[0].double().cpu().numpy()
    return Linear(weights, 0.0 if linear.bias is None else float(linear.bias.detach()))


def _set(head: nn.Module, fitted: Linear) -> None:
    """Puts weights into a head; those of a cosine have no use for an intercept."""
    import torch

    if hasattr(head, "linear"):
        cast("LinearHead", head).set(*fitted)
        return
    with torch.no_grad():
        cast("nn.Linear", head).weight.copy_(torch.from_numpy(fitted.weights)[None])
