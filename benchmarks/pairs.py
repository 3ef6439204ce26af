"""Pairs of images: which are compared in training, and which of the two is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.base import Dataset

TRAIN_SHARE = 0.7
"""Share of a dataset's images that the paper trains on."""


def count_pairs(n_images: int) -> int:
    """Returns the number of unordered pairs of different images, n (n - 1) / 2."""
    return n_images * (n_images - 1) // 2


PAIRS_PER_IMAGE = 20
"""Pairs per training image of KonIQ-10k and KADID-10k in Table II."""


def n_batches(images: int, batch: int) -> int:
    """Returns how many mini-batches a dataset fills; a last one of a single image is not counted."""
    return images // batch + (images % batch > 1)


def images_in_step_epoch(images: Sequence[int], in_step: Sequence[int]) -> int:
    """Returns how many images pass in an epoch in which every step sees images of every dataset.

    It has as many steps as the dataset with the most mini-batches; the others start again.

    Args:
        images: Training images of each dataset.
        in_step: How many of each a step sees.
    """
    sized = [(n, size) for n, size in zip(images, in_step, strict=True) if n_batches(n, size)]
    steps = max((n_batches(n, size) for n, size in sized), default=0)
    passed = 0
    for n, size in sized:
        rounds, more = divmod(steps, n_batches(n, size))
        passed += rounds * (n - (n % size == 1)) + more * size
    return passed


def n_pairs_for(dataset: Dataset, n_pairs: Literal["paper", "files"] | int, n_images: int) -> int:
    """Returns how many pairs a dataset is trained on.

    Args:
        dataset: Knows the number in the paper's Table II and the one in the published pair lists.
        n_pairs: Which of the two (they differ: 7,780 and 7,000 for LIVE), or a number. Where no list is
            published (KonIQ-10k, KADID-10k), "files" is the paper's number; a dataset that the paper does not
            learn has `PAIRS_PER_IMAGE` pairs per training image.
        n_images: Number of training images.

    Returns:
        The number asked for, at most all pairs of the training images. Generated miniatures, and parts of a
        dataset, get as many pairs per training image as the whole real dataset has.
    """
    if isinstance(n_pairs, int):
        wanted = n_pairs
    else:
        published = dataset.n_pairs_files if n_pairs == "files" else None
        paper = dataset.n_pairs_paper
        if paper is None:
            return min(PAIRS_PER_IMAGE * n_images, count_pairs(n_images))
        wanted = published if published is not None else paper
        if dataset.generated is not None or dataset.part is not None:
            wanted = round(wanted * n_images / (TRAIN_SHARE * dataset.n_images))
    return min(wanted, count_pairs(n_images))


def sample_pairs(n_images: int, n_pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws pairs of images as the published lists were drawn: uniformly, without repeating a pair.

    Every unordered pair has a rank in [0, C(n, 2)); ranks are drawn without replacement and turned into
    pairs, so memory goes with the pairs drawn and not with the pairs there are (unless most are drawn).

    Args:
        n_images: Number of images.
        n_pairs: Number of pairs; all pairs where there are not more.
        rng: Source of the draw.

    Returns:
        (n_pairs, 2) int64 with first < second in every row, in random order.
    """
    total = count_pairs(n_images)
    ranks = rng.choice(total, size=min(n_pairs, total), replace=False, shuffle=True)
    return unrank_pairs(ranks.astype(np.int64))


def unrank_pairs(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turns ranks into pairs: 0, 1, 2, 3, ... are (0, 1), (0, 2), (1, 2), (0, 3), ...

    Args:
        ranks: (p,) int64, each below 2**52.

    Returns:
        (p, 2) int64, first < second.
    """
    second = ((1 + np.sqrt(8.0 * ranks + 1)) / 2).astype(np.int64)
    # the root is rounded: it may be off by one, which integers can tell
    second -= second * (second - 1) // 2 > ranks
    second += (second + 1) * second // 2 <= ranks
    return np.stack([ranks - second * (second - 1) // 2, second], axis=1)


def batch_pairs(n_images: int) -> NDArray[np.int64]:
    """Returns all pairs inside a mini-batch.

    Returns:
        (2, n (n - 1) / 2) int64: positions of the first and of the second image, first < second.
    """
    return np.stack(np.triu_indices(n_images, k=1)).astype(np.int64)


def pairs_within(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns all pairs inside a mini-batch whose two images are of one group.

    Args:
        groups: (n,) group of each image, such as its task label.

    Returns:
        (2, p) int64: positions of the first and of the second image, first < second; in the order of
        `batch_pairs`, which it is where there is one group.
    """
    first, second = batch_pairs(len(groups))
    kept = groups[first] == groups[second]
    return np.stack([first[kept], second[kept]])


def pair_labels(
    mos_first: NDArray[np.float64], mos_second: NDArray[np.float64], ties: Literal["paper", "code"] = "paper"
) -> NDArray[np.float32]:
    """Returns for each pair whether the first image is the better one.

    Args:
        mos_first: (p,) mean opinion scores, higher is better.
        mos_second: (p,) likewise.
        ties: Label of equal scores: 1 ("paper", Eq. 3: mu_x >= mu_y) or 0 ("code": the published lists).

    Returns:
        (p,) float32, 0 or 1.
    """
    better = mos_first >= mos_second if ties == "paper" else mos_first > mos_second
    return np.asarray(better, dtype=np.float32)


def true_probability(
    mos_first: NDArray[np.float64],
    mos_second: NDArray[np.float64],
    std_first: NDArray[np.float64],
    std_second: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Returns how probable it is that the first image of each pair is the better one (Thurstone).

    Phi((m1 - m2) / sqrt(s1**2 + s2**2)), the third column of the published pair lists.

    Args:
        mos_first: (p,) mean opinion scores, higher is better.
        mos_second: (p,) likewise.
        std_first: (p,) standard deviations of the opinions; one that is not known counts as 0.
        std_second: (p,) likewise.

    Returns:
        (p,) float32 in [0, 1]; 0.5 where neither scores nor opinions differ.
    """
    from scipy.special import ndtr

    spread = np.hypot(np.nan_to_num(std_first), np.nan_to_num(std_second))
    # as in the published code, which thus avoids a division by zero
    z = (mos_first - mos_second) / (spread + np.finfo(np.float64).eps)
    return np.asarray(ndtr(z), dtype=np.float32)
