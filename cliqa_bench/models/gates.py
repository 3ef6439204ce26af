"""K-means gating (Eq. 7): how far an image is from each task's training images.

The gate's features come from a frozen network that knows distortions; its centroids depend on the data alone,
so that all strategies of a backbone share them. The weights (Eq. 8 and 9) are computed while reading answers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin_min

from cliqa_bench.seeds import seed_for

N_INIT = 20
MAX_ITER = 1000
"""K-means restarts and iterations of the published code."""
SHRINKAGE = 0.1
"""Share of the mean variance in every dimension's, see `whitening`."""


def fit_centroids(
    features: NDArray[np.float32], k: int, dataset: str, stage: int, seed: int
) -> NDArray[np.float32]:
    """Clusters one stage's features of a task's training images.

    Args:
        features: (n, c), rows of unit length.
        k: Number of centroids; lowered to n where there are fewer images.
        dataset: Name of the dataset, for the seed.
        stage: Number of the stage, for the seed.
        seed: Seed of the run.

    Returns:
        (min(k, n), c) centroids.
    """
    k = min(k, len(features))
    state = seed_for("kmeans", dataset, stage, seed) % 2**32
    means = KMeans(k, n_init=N_INIT, max_iter=MAX_ITER, random_state=state).fit(features.astype(np.float64))
    return np.asarray(means.cluster_centers_, dtype=np.float32)


def whitening(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns what the dimensions of a stage's features are multiplied with for the space "standard".

    Distances are then root mean squares of differences in units of a dimension's deviation, whatever the
    number of dimensions. Variances are drawn a little towards their mean: a dimension in which the training
    images do not differ would else outweigh all others.

    Args:
        features: (n, c) of the training images.

    Returns:
        (c,), above 0.
    """
    variance = features.astype(np.float64).var(axis=0)
    variance = (1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean()
    factors = 1 / np.sqrt(len(variance) * np.where(variance > 0, variance, 1.0))
    return np.asarray(factors, np.float32)


def nearest_distance(features: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the Euclidean distance (n,) of each row to its nearest centroid (Eq. 7, not squared)."""
    _, distance = pairwise_distances_argmin_min(features.astype(np.float64), centroids.astype(np.float64))
    return np.asarray(distance, dtype=np.float32)
