"""Ridge: one linear head on frozen features, solved in closed form from sums of products.

The backbone never learns. Of every dataset a few sums remain, over its training and its validation images: of
the features, of their products with each other and with the scores. From those of all datasets so far comes
one head, by ridge regression; the penalty is the one with the least squared error on all validation images.
No image is seen twice, and the order of the datasets changes no bit. Scores are standardised within each
dataset, because their scales have nothing in common.

With `projection`, the features first go through a fixed random layer, as in RanPAC (McDonnell, Gong,
Parvaneh, Abbasnejad, van den Hengel: "RanPAC: Random Projections and Pre-trained Models for Continual
Learning", NeurIPS 2023), which classifies; here scores are regressed. The sums take 16 bytes times the square
of its size for each dataset, in every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.strategies._scale import standard
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Subset

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.heads import LinearHead
    from cliqa_bench.models.quality import QualityModel

F64 = NDArray[np.float64]
SUBSETS: tuple[Subset, ...] = ("train", "val")


class Sums(NamedTuple):
    """What remains of n images with features x (n, d) and scores y (n,), float64.

    Products are of what is centred: left uncentred, they would lose the digits in which features differ.

    Attributes:
        n: (), how many.
        x: (d,) mean of the features.
        y: (), mean of the scores.
        xx: (d, d) sum of the products of the features.
        xy: (d,) sum of their products with the scores.
        yy: (), sum of the squared scores.
    """

    n: F64
    x: F64
    y: F64
    xx: F64
    xy: F64
    yy: F64


def sums_of(x: F64, y: F64) -> Sums:
    """Adds up features (n, d) and scores (n,)."""
    mean_x, mean_y = x.mean(axis=0), y.mean()
    x, y = x - mean_x, y - mean_y
    return Sums(np.asarray(float(len(y))), mean_x, mean_y, x.T @ x, x.T @ y, y @ y)


def added(parts: Mapping[str, Sums]) -> Sums:
    """Adds several up, in the order of their names, so that no other order matters."""
    sums = [parts[name] for name in sorted(parts)]
    n = np.sum([s.n for s in sums], axis=0)
    x = np.sum([s.n * s.x for s in sums], axis=0) / n
    y = np.sum([s.n * s.y for s in sums], axis=0) / n
    xx = np.sum([s.xx + s.n * np.outer(s.x - x, s.x - x) for s in sums], axis=0)
    xy = np.sum([s.xy + s.n * (s.x - x) * (s.y - y) for s in sums], axis=0)
    yy = np.sum([s.yy + s.n * (s.y - y) ** 2 for s in sums], axis=0)
    return Sums(n, x, y, xx, xy, yy)


def solve(sums: Sums, penalty: float) -> tuple[F64, float]:
    """Returns weights (d,) and intercept of the ridge regression with `penalty` times the squared weights.

    The intercept is not penalised.
    """
    weights: F64 = np.linalg.solve(sums.xx + penalty * np.eye(len(sums.x)), sums.xy).astype(np.float64)
    return weights, float(sums.y - weights @ sums.x)


def squared_error(sums: Sums, weights: F64, intercept: float) -> float:
    """Returns the sum of the squared errors on the images that sums are of."""
    away = sums.y - weights @ sums.x - intercept
    return float(sums.yy - 2 * weights @ sums.xy + weights @ sums.xx @ weights + sums.n * away**2)


@dataclass
class Ridge(Strategy):
    """Streaming ridge regression.

    Attributes:
        projection: Size of the random layer; 0 for none.
        penalties: What the penalty is chosen from, as multiples of the features' mean variance times the
            number of images; each above 0.
    """

    by_gradient = False
    rows: ClassVar[dict[str, str]] = {"last": "Ridge"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "M. D. McDonnell, D. Gong, A. Parvaneh, E. Abbasnejad, A. van den Hengel: RanPAC: random "
        "projections and pre-trained models for continual learning. NeurIPS 2023"
    )

    projection: int = 0
    penalties: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    def __post_init__(self) -> None:
        """Starts without sums.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("projection", least=0)
        if not self.penalties or not all(penalty > 0 for penalty in self.penalties):
            raise UserError(f"{self.name}.penalties must be numbers above 0, not {self.penalties}")
        self._sums: dict[Subset, dict[str, Sums]] = {subset: {} for subset in SUBSETS}

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head."""
        return True

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head."""
        return list(model.heads[task].parameters())

    def new_head(self, features: int) -> nn.Module:
        """Makes a linear head with an intercept, behind the random layer if there is one."""
        from cliqa_bench.models.heads import LinearHead

        return LinearHead(features, self.projection)

    def finish(self, learner: Learner) -> None:
        """Adds the dataset's sums to what there is, and solves for the head."""
        head = cast("LinearHead", learner.model.heads[learner.task])
        for source in learner.sources:
            for subset, parts in self._sums.items():
                parts[source.name] = _sums_of(head, learner, source, subset)
        head.set(*self._solved())

    def _solved(self) -> tuple[F64, float]:
        train, val = (added(self._sums[subset]) for subset in SUBSETS)
        unit = max(float(np.trace(train.xx)) / len(train.x), 1e-12)
        solutions = [solve(train, penalty * unit) for penalty in self.penalties]
        return min(solutions, key=lambda solution: squared_error(val, *solution))

    def state(self) -> dict[str, Tensor]:
        """Returns the sums: "subset.dataset.name" -> float64."""
        import torch

        return {
            f"{subset}.{name}.{field}": torch.from_numpy(np.asarray(value))
            for subset, parts in self._sums.items()
            for name, sums in parts.items()
            for field, value in sums._asdict().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        self._sums = {subset: {} for subset in SUBSETS}
        for subset, parts in self._sums.items():
            mine = {key.removeprefix(f"{subset}."): t for key, t in state.items() if key.startswith(subset)}
            for name in {key.rpartition(".")[0] for key in mine}:
                parts[name] = Sums(*(mine[f"{name}.{field}"].cpu().numpy() for field in Sums._fields))


def _sums_of(head: LinearHead, learner: Learner, source: DecodedDataset, subset: Subset) -> Sums:
    """Adds up a subset's images, as the linear head reads them; those without a score are left out."""
    labels = source.labels[source.indices(subset)]
    known = np.isfinite(labels)
    if not known.any():
        raise UserError(
            f"{source.title}: no {subset} image has a score, and ridge needs some to choose its penalty"
        )
    features = head.lift_array(learner.describe(source, subset))
    train = source.labels[source.indices("train")]
    return sums_of(features[known], standard(labels[known], like=train))
