"""Generators of features: what remains of a task's images once they are gone, for LIQA-style.

Each is a tuple of arrays, which are all that is stored of it, and draws as many features as are asked for.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.seeds import Rng
from cliqa_bench.strategies._scale import standard

if TYPE_CHECKING:
    from torch import Tensor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

NOISE, HIDDEN = 8, 64
"""Width of the noise and of the two hidden layers of `Network`."""

STEPS, BATCH, RATE = 400, 64, 3e-3
"""Of Adam, when a `Network` is fitted."""

QUANTILES = 65
"""How many scores a `Network` keeps."""


class Generator(Protocol):
    """Draws features that look like those of a task."""

    def draw(self, n: int, rng: Rng) -> F64:
        """Returns (n, d) features."""

    def _asdict(self) -> dict[str, F32]:
        """Returns what is stored."""


class Gaussians(NamedTuple):
    """A normal distribution for each of several ranges of the score.

    Attributes:
        share: (k,) share of the task's images in each range.
        mean: (k, d).
        root: (k, d (d + 1) / 2) lower triangles, row by row, of the Cholesky roots of the covariances.
    """

    share: F32
    mean: F32
    root: F32

    @classmethod
    def fit(cls, x: F64, y: F64, bins: int) -> Gaussians:
        """Fits means and covariances, which Ledoit and Wolf's estimate shrinks towards a multiple of one.

        Args:
            x: (n, d) features, at least one.
            y: (n,) scores.
            bins: How many ranges, with equal numbers of images; at most one for every two images.
        """
        from sklearn.covariance import LedoitWolf

        ranges = np.array_split(np.argsort(y, kind="stable"), max(1, min(bins, len(y) // 2)))
        rows, columns = np.tril_indices(x.shape[1])
        # where all features are alike there is no covariance, and no root of it
        least = 1e-12 * np.eye(x.shape[1])
        fits = [LedoitWolf().fit(x[images]) for images in ranges]
        roots = [np.linalg.cholesky(fit.covariance_ + least)[rows, columns] for fit in fits]
        shares, means = [len(images) / len(y) for images in ranges], [fit.location_ for fit in fits]
        return cls(*(np.asarray(part, np.float32) for part in (shares, means, roots)))

    @staticmethod
    def size(d: int, bins: int) -> int:
        """Returns how many numbers are stored, of features of length d."""
        return bins * (1 + d + d * (d + 1) // 2)

    def roots(self) -> F64:
        """Returns the Cholesky roots, (k, d, d)."""
        k, d = self.mean.shape
        roots = np.zeros((k, d, d))
        rows, columns = np.tril_indices(d)
        roots[:, rows, columns] = self.root
        return roots

    def draw(self, n: int, rng: Rng) -> F64:
        """Draws a range for each feature, then the feature."""
        share = self.share.astype(np.float64)
        of = rng.choice(len(share), n, p=share / share.sum())
        noise = rng.standard_normal((n, self.mean.shape[1]))
        x = self.mean[of].astype(np.float64)
        for number, root in enumerate(self.roots()):
            x[of == number] += noise[of == number] @ root.T
        return x


class Network(NamedTuple):
    """A small network from noise and a score to features, fitted by the energy score.

    The energy score, |x - g| less half of |g - g'| for two draws g and g' at the score of x, is least in the
    mean where the draws are distributed as the features are: nothing adversarial is needed.

    Attributes:
        scores: (`QUANTILES`,) quantiles of the task's scores, standardised.
        centre: (d,) mean of the features.
        spread: (1,) their mean standard deviation.
        weights: All weights, one after the other: those of three layers, each followed by its biases.
    """

    scores: F32
    centre: F32
    spread: F32
    weights: F32

    @classmethod
    def fit(cls, x: F64, y: F64, rng: Rng) -> Network:
        """Fits the network.

        Args:
            x: (n, d) features.
            y: (n,) scores.
            rng: Starts the weights, and draws mini-batches and noise.
        """
        import torch

        y = standard(y)
        centre, spread = x.mean(0), float(np.sqrt(x.var(0).mean())) or 1.0
        layers = _start(x.shape[1], rng)
        optimiser = torch.optim.Adam(layers, RATE)
        with torch.enable_grad():
            for _ in range(STEPS):
                of = rng.integers(0, len(y), BATCH)
                real = _tensor((x[of] - centre) / spread)
                draws = [_apply(layers, _tensor(_inputs(y[of], rng))) for _ in range(2)]
                away = torch.stack([(real - draw).norm(dim=1) for draw in draws]).mean()
                loss = away - (draws[0] - draws[1] + 1e-8).norm(dim=1).mean() / 2
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        weights = np.concatenate([layer.detach().numpy().ravel() for layer in layers])
        scores = np.quantile(y, np.linspace(0, 1, QUANTILES))
        return cls(*(np.asarray(part, np.float32) for part in (scores, centre, [spread], weights)))

    def draw(self, n: int, rng: Rng) -> F64:
        """Draws a score for each feature, then the feature."""
        import torch

        of = rng.choice(self.scores, n).astype(np.float64)
        with torch.no_grad():
            drawn = _apply(self._layers(), _tensor(_inputs(of, rng))).double().numpy()
        return np.asarray(self.centre + self.spread * drawn, np.float64)

    @staticmethod
    def size(d: int) -> int:
        """Returns how many numbers are stored, of features of length d."""
        return QUANTILES + d + 1 + sum(int(np.prod(shape)) for shape in _shapes(d))

    def _layers(self) -> list[Tensor]:
        shapes = _shapes(len(self.centre))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(self.weights, ends[:-1])
        return [_tensor(part.reshape(shape)) for part, shape in zip(parts, shapes, strict=True)]


class Kept(NamedTuple):
    """The features themselves: what a perfect generator would draw, to tell its errors from all others.

    Attributes:
        x: (n, d).
    """

    x: F32

    def draw(self, n: int, rng: Rng) -> F64:
        """Returns the features in turn."""
        return self.x[np.arange(n) % len(self.x)].astype(np.float64)


def _shapes(features: int) -> list[tuple[int, ...]]:
    sizes = (NOISE + 1, HIDDEN, HIDDEN, features)
    return [shape for a, b in itertools.pairwise(sizes) for shape in ((a, b), (b,))]


def _start(features: int, rng: Rng) -> list[Tensor]:
    """Starts the layers: weights by He et al., no biases."""
    starts = [
        rng.standard_normal(shape) * (np.sqrt(2 / shape[0]) if len(shape) == 2 else 0.0)
        for shape in _shapes(features)
    ]
    return [_tensor(start).requires_grad_() for start in starts]


def _inputs(scores: F64, rng: Rng) -> F64:
    return np.column_stack([rng.standard_normal((len(scores), NOISE)), scores])


def _apply(layers: list[Tensor], x: Tensor) -> Tensor:
    first, a, second, b, last, c = layers
    return ((x @ first + a).relu() @ second + b).relu() @ last + c


def _tensor(array: F64 | F32) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
