"""Kernel ridge regression as SS-IQA uses it, around scikit-learn's `KernelRidge`.

What scikit-learn lacks: a width of the kernel that follows from the data, the label of an image that
resembles none, an upper bound of the images it is fitted to, and tensors to store it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

Gamma = Literal["median", "code"] | float

MOST = 20_000
"""Images that a regression is fitted to, at most: its matrix of 8 bytes a pair then takes 3.2 GB."""
MEASURED = 2_000
"""Images between which distances are measured for their median, at most."""
ROWS = 1_000
"""Images that are predicted at once."""


class KernelRegression(NamedTuple):
    """A fitted regression: the label of x is `origin` plus the weighted sum of exp(-gamma |x - support|^2).

    Attributes:
        support: (n, d) float32 features that it was fitted to.
        weights: (n,) float64.
        gamma: (), above 0.
        origin: (), the label of whatever is far from the support.
    """

    support: NDArray[np.float32]
    weights: Floats
    gamma: Floats
    origin: Floats

    def predict(self, features: NDArray[np.floating]) -> Floats:
        """Returns the labels (m,) of features (m, d)."""
        from sklearn.metrics.pairwise import rbf_kernel

        x, support = np.asarray(features, np.float64), self.support.astype(np.float64)
        parts = [
            rbf_kernel(x[start : start + ROWS], support, gamma=float(self.gamma)) @ self.weights
            for start in range(0, len(x), ROWS)
        ]
        return np.concatenate([np.empty(0), *parts]) + self.origin

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Returns its parts as tensors, by name."""
        import torch

        return {prefix + name: torch.from_numpy(np.array(part)) for name, part in self._asdict().items()}

    @classmethod
    def of_tensors(cls, prefix: str, tensors: Mapping[str, Tensor]) -> KernelRegression | None:
        """Returns what `tensors` made tensors of; None if they are not there."""
        names = {name: prefix + name for name in cls._fields}
        if not tensors.keys() >= set(names.values()):
            return None
        return cls(**{name: tensors[key].cpu().numpy() for name, key in names.items()})


def fit_kernel(
    features: NDArray[np.floating], labels: Floats, *, ridge: float, gamma: Gamma, origin: float
) -> KernelRegression:
    """Fits labels (n,) to features (n, d).

    Args:
        features: Of more than `MOST` images, that many are taken, evenly spaced.
        labels: Their labels.
        ridge: Lambda, added to the diagonal of the kernel's matrix; above 0.
        gamma: Of the kernel exp(-gamma |u - v|^2); see `kernel_gamma` for the words.
        origin: The label of whatever is far from all of them.
    """
    from sklearn.kernel_ridge import KernelRidge

    width = kernel_gamma(features, gamma)
    kept = evenly(len(features), MOST)
    x = np.asarray(features[kept], np.float32)
    fitted = KernelRidge(alpha=ridge, kernel="rbf", gamma=width).fit(
        x.astype(np.float64), labels[kept] - origin
    )
    return KernelRegression(x, np.asarray(fitted.dual_coef_), np.asarray(width), np.asarray(float(origin)))


def kernel_gamma(features: NDArray[np.floating], gamma: Gamma) -> float:
    """Returns the gamma that a word stands for.

    Args:
        features: (n, d).
        gamma: "median": one over the median squared distance between two images, among at most `MEASURED`
            evenly spaced ones; "code": the constants of SS-IQA's published code; a number for itself.
    """
    if gamma == "code":
        return 1e-3 if len(features) <= MOST else 1e-4
    if gamma != "median":
        return float(gamma)
    from scipy.spatial.distance import pdist

    distances = pdist(np.asarray(features[evenly(len(features), MEASURED)], np.float64), "sqeuclidean")
    median = float(np.median(distances)) if len(distances) else 0.0
    return 1 / median if median > 0 else 1.0  # images that look all alike


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Returns the positions of at most so many of n items, the first one among them, at even distances."""
    return np.arange(0, n, -(-n // most) if n > most else 1)
