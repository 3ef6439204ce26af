"""Agreement of predictions with opinions, and the paper's measures of continual learning.

Everything is float64. A measure that is not defined (fewer than two images, constant or non-finite numbers)
is nan, never 0, and no sign is ever dropped: a model that ranks the wrong way has a negative correlation. nan
goes through every mean, so a summary of an incomplete matrix is nan too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cliqa_bench.types import Floats

NAN = float("nan")


# ---------------------------------------------------------------- one prediction against one set of opinions


def _defined(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats] | None:
    """Returns both as float64 vectors, or None where no correlation is defined."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"two vectors of one length are needed, got shapes {a.shape} and {b.shape}")
    usable = len(a) > 1 and all(bool(np.isfinite(v).all()) and np.ptp(v) > 0 for v in (a, b))
    return (a, b) if usable else None


def spearman(vectors: ArrayLike) -> Floats:
    """Spearman's rank correlation between all rows, ties by average ranks (each row is ranked once).

    Twice the centred ranks are whole numbers, so all sums are exact and the result does not depend on the
    order of the images or on the machine; rows that rank alike give exactly 1.

    Args:
        vectors: (m, n) numbers.

    Returns:
        (m, m) float64 in [-1, 1], symmetric; nan in the rows and columns of vectors that are constant, hold a
        non-finite number, or are shorter than two.
    """
    from scipy.stats import rankdata

    x = np.asarray(vectors, np.float64)
    m, n = x.shape
    result = np.full((m, m), NAN)
    if n < 2:
        return result
    usable = np.isfinite(x).all(axis=1) & (x.max(axis=1) > x.min(axis=1))
    ranks = rankdata(x[usable], axis=1) - (n + 1) / 2
    products = ranks @ ranks.T
    square = np.diag(products)
    result[np.ix_(usable, usable)] = products / np.sqrt(np.outer(square, square))
    return result


def srcc(scores: ArrayLike, mos: ArrayLike) -> float:
    """Spearman's rank correlation (SRCC) of predictions with opinions, in [-1, 1], or nan.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions, higher is better.

    Example:
        >>> srcc([0.1, 0.4, 0.3], [20, 60, 90])
        0.5
    """
    a, b = np.asarray(scores, np.float64), np.asarray(mos, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"two vectors of one length are needed, got shapes {a.shape} and {b.shape}")
    return float(spearman(np.stack([a, b]))[0, 1])


def plcc(scores: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's linear correlation (PLCC) of the raw predictions with opinions, in [-1, 1], or nan.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions.

    Example:
        >>> round(plcc([0.1, 0.4, 0.3], [20, 60, 90]), 3)
        0.715
    """
    pair = _defined(scores, mos)
    if pair is None:
        return NAN
    a, b = ((v - v.mean()) / np.abs(v - v.mean()).max() for v in pair)  # scaled: squares cannot underflow
    with np.errstate(invalid="ignore"):
        return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1, 1))


def krcc(scores: ArrayLike, mos: ArrayLike) -> float:
    """Kendall's rank correlation (KRCC, tau-b: corrected for ties), in [-1, 1], or nan.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions.

    Example:
        >>> round(krcc([0.1, 0.4, 0.3], [20, 60, 90]), 3)
        0.333
    """
    from scipy.stats import kendalltau

    pair = _defined(scores, mos)
    return NAN if pair is None else float(kendalltau(*pair).statistic)


def srcc_ordinal(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation in which ties are ranked by their position, in [-1, 1], or nan.

    The TSN-IQA paper's -0.776 between its Tables VIII and IX is of this kind; elsewhere ties have average
    ranks.

    Args:
        x: (n,) numbers.
        y: (n,) numbers.

    Example:
        >>> srcc_ordinal([1, 1, 2], [1, 2, 2]), round(srcc([1, 1, 2], [1, 2, 2]), 3)
        (1.0, 0.5)
    """
    from scipy.stats import rankdata

    pair = _defined(x, y)
    return NAN if pair is None else srcc(*(rankdata(v, method="ordinal") for v in pair))


# ------------------------------------------------------------------------------ through the logistic function


def logistic(x: ArrayLike, b1: float, b2: float, b3: float, b4: float) -> Floats:
    """The four-parameter logistic function of VQEG: (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2."""
    from scipy.special import expit

    return np.asarray((b1 - b2) * expit((np.asarray(x, np.float64) - b3) / abs(b4)) + b2, np.float64)


STEEPEST = 0.2
"""Smallest width |b4| of a logistic fit, in standard deviations of the predictions: no step through a gap."""


@dataclass(frozen=True)
class LogisticCurve:
    """A fitted logistic function, predictions to opinions.

    Attributes:
        parameters: b1, b2, b3 and b4 > 0 of `logistic`, on standardised numbers.
        inward: Mean and standard deviation of the predictions.
        outward: Mean and standard deviation of the opinions.
        steep: Whether the fit is as steep as it may be, so that a steeper one would be nearer to the data.
    """

    parameters: tuple[float, float, float, float]
    inward: tuple[float, float]
    outward: tuple[float, float]
    steep: bool

    def __call__(self, scores: ArrayLike) -> Floats:
        """Maps predictions, an array of any shape, to opinions, float64."""
        (x0, dx), (y0, dy) = self.inward, self.outward
        return logistic((np.asarray(scores, np.float64) - x0) / dx, *self.parameters) * dy + y0


def fit_logistic(scores: ArrayLike, mos: ArrayLike) -> LogisticCurve | None:
    """Fits the four-parameter logistic function that maps predictions to opinions, by least squares.

    Both sides are standardised for the fit, which starts from VQEG's values (b1, b2 the extremes of the
    opinions, b3 the middle and b4 the spread of the predictions). Where the data lie at a limit of the family
    (a straight line, an exponential), the parameters run away without end; the search then stops after 300
    evaluations and its last curve is used, which is that limit to several digits. On few images the nearest
    curve may be a step, which says more of two clusters than of the model: abs(b4) is at least `STEEPEST`.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions.

    Returns:
        The fitted function (predictions to opinions, float64), or None if there is none: fewer than five
        images (four parameters would go through all points), constant or non-finite numbers, or a best curve
        that falls (the predictions rank the wrong way; turning them over would hide it).

    Example:
        >>> scores, mos = [0.1, 0.2, 0.4, 0.6, 0.8, 0.9], [10, 12, 30, 70, 88, 90]
        >>> curve = fit_logistic(scores, mos)
        >>> curve.steep
        False
    """
    from scipy.optimize import leastsq
    from scipy.special import expit

    pair = _defined(scores, mos)
    if pair is None or len(pair[0]) < 5:
        return None
    (x, x0, dx), (y, y0, dy) = ((v, float(v.mean()), float(v.std())) for v in pair)
    if not (dx > 0 and dy > 0):  # a spread below the smallest number
        return None
    u, v = (x - x0) / dx, (y - y0) / dy
    # |b4| is the root of b[3]^2 + STEEPEST^2
    start = np.array([v.max(), v.min(), np.median(u), math.sqrt(1 - STEEPEST**2)])

    def errors(b: Floats) -> Floats:
        return np.asarray((b[0] - b[1]) * expit((u - b[2]) / math.hypot(b[3], STEEPEST)) + b[1] - v)

    def slopes(b: Floats) -> Floats:
        width, rise = math.hypot(b[3], STEEPEST), b[0] - b[1]
        z = (u - b[2]) / width
        s = expit(z)
        by_z = rise * s * (1 - s)
        return np.stack([s, 1 - s, -by_z / width, -by_z * z * b[3] / width**2], axis=1)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # what `least_squares(method="lm")` calls, without its wrappers, which take longer than the search
        found = leastsq(
            errors, start, Dfun=slopes, full_output=True, ftol=1e-8, xtol=1e-8, gtol=1e-8, maxfev=300
        )
    b = np.asarray(found[0], np.float64)
    if not (np.isfinite(b).all() and np.isfinite(errors(b)).all() and b[0] > b[1]):
        return None
    width = math.hypot(b[3], STEEPEST)
    parameters = (float(b[0]), float(b[1]), float(b[2]), width)
    return LogisticCurve(parameters, (x0, dx), (y0, dy), steep=width < 1.05 * STEEPEST)


class Fitted(NamedTuple):
    """Agreement after the logistic function.

    Attributes:
        plcc: Pearson's correlation in [-1, 1], or nan.
        rmse: Root mean squared error in the unit of the opinions, or nan.
        steep: Whether the fit is as steep as it may be, see `LogisticCurve`.
    """

    plcc: float
    rmse: float
    steep: bool = False


def fitted(scores: ArrayLike, mos: ArrayLike) -> Fitted:
    """Returns PLCC and RMSE after `fit_logistic`, from one fit; both nan without a fit.

    They have nine significant digits: a fit ends when it gains less than that, and what follows differs from
    run to run with the place of its arrays in memory.

    Args:
        scores: (n,) predictions.
        mos: (n,) opinions.
    """
    curve = fit_logistic(scores, mos)
    if curve is None:
        return Fitted(NAN, NAN)
    mapped, y = curve(scores), np.asarray(mos, np.float64)
    told = (plcc(mapped, y), float(np.sqrt(np.mean((mapped - y) ** 2))))
    correlation, error = (float(f"{value:.9g}") for value in told)
    return Fitted(correlation, error, curve.steep)


def plcc_logistic(scores: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's linear correlation after `fit_logistic`, or nan (see there).

    Example:
        >>> scores, mos = [0.1, 0.2, 0.4, 0.6, 0.8, 0.9], [10, 12, 30, 70, 88, 90]
        >>> plcc_logistic(scores, mos) > plcc(scores, mos)  # the curve is steeper in the middle
        True
    """
    return fitted(scores, mos).plcc


def rmse(scores: ArrayLike, mos: ArrayLike) -> float:
    """Root mean squared error after `fit_logistic`, in the unit of the opinions, or nan (see there).

    Example:
        >>> rmse([0.1, 0.2, 0.4, 0.6, 0.8, 0.9], [10, 12, 30, 70, 88, 90]) < 2
        True
    """
    return fitted(scores, mos).rmse


# ------------------------------------------------------------------------------ scenes and distortions (LIQE)


def distortion_accuracy(probability: ArrayLike, truth: ArrayLike) -> float:
    """Returns the share of images whose most probable distortion is theirs; nan without images.

    Args:
        probability: (n, distortions); of equal ones the first counts.
        truth: (n, distortions) 1 for the distortion of an image, else 0.
    """
    said, true = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    return float((said.argmax(axis=1) == true.argmax(axis=1)).mean()) if len(true) else NAN


def scene_accuracy(probability: ArrayLike, truth: ArrayLike) -> float:
    """Returns how many of the images' scenes are found, as a share of all; nan without any.

    Of an image that shows k scenes, the k most probable ones count as found (LIQE, published training code).

    Args:
        probability: (n, scenes); of equal ones the first counts.
        truth: (n, scenes) 1 for each scene that an image shows, else 0.
    """
    said, true = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    rank = np.argsort(np.argsort(-said, axis=1, kind="stable"), axis=1)
    found = (rank < true.sum(axis=1, keepdims=True)) & (true == 1)
    return float(found.sum() / true.sum()) if true.any() else NAN


# ------------------------------------------------------------------------------ continual learning, Eq. 11-15


def matrices(predictions: Sequence[NDArray[Any]], mos: Sequence[NDArray[Any]]) -> tuple[Floats, Floats]:
    """Returns `srcc_matrix` and `stability_matrix` from one ranking of each prediction.

    Args:
        predictions: Per test set, (T, n_k): row t is the prediction of the model after experience t; nan
            where there is none. The test sets of the T experiences come first, in the order of learning.
        mos: Per test set, (n_k,) opinions.

    Returns:
        (T, K) float64 and (T, T) float64.
    """
    steps = len(predictions[0])
    agreement = np.full((steps, len(predictions)), NAN)
    stability = np.full((steps, steps), NAN)
    for k, (rows, opinions) in enumerate(zip(predictions, mos, strict=True)):
        between = spearman(np.vstack([np.asarray(rows, np.float64), np.asarray(opinions, np.float64)]))
        agreement[:, k] = between[:-1, -1]
        if k < steps:
            stability[:, k] = between[:-1, k]
    return agreement, stability


def srcc_matrix(predictions: Sequence[NDArray[Any]], mos: Sequence[NDArray[Any]]) -> Floats:
    """SRCC_tk, the SRCC of the model after experience t on test set k; arguments as of `matrices`.

    Returns:
        (T, K) float64, nan where undefined.

    Example:
        >>> one = np.array([[1, 2, 3], [1, 3, 2]])  # what models 1 and 2 predict on the first test set
        >>> two = np.array([[2, 1, 3], [1, 2, 3]])
        >>> srcc_matrix([one, two], [np.array([1, 2, 3]), np.array([1, 2, 3])]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    return matrices(predictions, mos)[0]


def stability_matrix(predictions: Sequence[NDArray[Any]], mos: Sequence[NDArray[Any]]) -> Floats:
    """S_tk, the SRCC between what models t and k predict on test set k; arguments as of `matrices`.

    Returns:
        (T, T) float64, nan where undefined. Eq. 12 uses what lies below the diagonal.

    Example:
        >>> one, two = np.array([[1, 2, 3], [1, 3, 2]]), np.array([[2, 1, 3], [1, 2, 3]])
        >>> stability_matrix([one, two], [np.array([1, 2, 3]), np.array([1, 2, 3])]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    return matrices(predictions, mos)[1]


def _mean(values: Floats) -> float:
    """The mean, from an exact sum that is rounded once: the order of the tasks changes no bit of it."""
    return math.fsum(values) / len(values)


def pi_t(agreement: Floats) -> Floats:
    """Plasticity index PI_t = SRCC_tt.

    Args:
        agreement: (T, K >= T) SRCC matrix.

    Returns:
        (T,) float64.

    Example:
        >>> pi_t(np.array([[0.9, 0.2], [0.7, 0.8]])).tolist()
        [0.9, 0.8]
    """
    return np.diag(agreement).astype(np.float64)


def si_t(stability: Floats) -> Floats:
    """Stability index: SI_1 = 1, SI_t = mean of S_tk over k < t.

    Args:
        stability: (T, T) stability matrix.

    Returns:
        (T,) float64.

    Example:
        >>> si_t(np.array([[1.0, 0.3], [0.6, 1.0]])).tolist()
        [1.0, 0.6]
    """
    return np.array([1.0] + [_mean(stability[t, :t]) for t in range(1, len(stability))])


def psi_t(agreement: Floats, stability: Floats) -> Floats:
    """Plasticity-stability index PSI_t = (PI_t + SI_t) / 2, (T,) float64.

    Example:
        >>> agreement, stability = np.array([[0.9, 0.2], [0.7, 0.8]]), np.array([[1.0, 0.3], [0.6, 1.0]])
        >>> psi_t(agreement, stability).round(3).tolist()
        [0.95, 0.7]
    """
    return (pi_t(agreement) + si_t(stability)) / 2


def mpsi_by_length(agreement: Floats, stability: Floats) -> Floats:
    """Mean PSI (mPSI) over the first l experiences, for l = 1..T (the paper's Table VI), (T,) float64."""
    values = psi_t(agreement, stability)
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1), np.float64)


class Summary(NamedTuple):
    """The four numbers of the paper's Table III, each nan where a cell it needs is."""

    mSRCC: float
    mPI: float
    mSI: float
    mPSI: float


def summary(agreement: Floats, stability: Floats) -> Summary:
    """Summarises a sequence of T experiences.

    mSRCC is the mean of the last row of the SRCC matrix over the T datasets learned. (The published code
    prints another number as its final average: the mean over t of the means of rows t up to the diagonal.)

    Args:
        agreement: (T, K >= T) SRCC matrix.
        stability: (T, T) stability matrix.

    Example:
        >>> agreement, stability = np.array([[0.9, 0.2], [0.7, 0.8]]), np.array([[1.0, 0.3], [0.6, 1.0]])
        >>> found = summary(agreement, stability)
        >>> [round(value, 3) for value in found]  # mSRCC, mPI, mSI, mPSI
        [0.75, 0.85, 0.8, 0.825]
    """
    plasticity, steadiness = _mean(pi_t(agreement)), _mean(si_t(stability))
    last = _mean(agreement[-1, : len(agreement)])
    return Summary(last, plasticity, steadiness, (plasticity + steadiness) / 2)


# ---------------------------------------------------------------------------- transfer between experiences


def backward_transfer(agreement: Floats) -> float:
    """BWT: how much later experiences change what an experience had reached, the mean of SRCC_Tk - SRCC_kk.

    Eq. 3 of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning" (NIPS 2017), with SRCC
    for accuracy.

    Args:
        agreement: (T, K >= T) SRCC matrix.

    Returns:
        The mean over k < T, in [-2, 2], negative where something is lost; nan for T = 1.

    Example:
        >>> round(backward_transfer(np.array([[0.9, 0.2], [0.7, 0.8]])), 3)
        -0.2
    """
    steps = len(agreement)
    return _mean(agreement[-1, : steps - 1] - pi_t(agreement)[:-1]) if steps > 1 else NAN


def forward_transfer(agreement: Floats, baseline: float = 0.0) -> float:
    """FWT: what a model knows of an experience just before it learns it, the mean of SRCC_(k-1)k - baseline.

    Eq. 4 of Lopez-Paz and Ranzato (2017). Their baseline is the accuracy of a random model; the SRCC of a
    prediction that knows nothing of the image is 0 on average, which is the default.

    Args:
        agreement: (T, K >= T) SRCC matrix; the cells above the diagonal are used.
        baseline: SRCC of a model that has learned nothing.

    Returns:
        The mean over k > 1, in [-1, 1] less the baseline; nan for T = 1, and of the oracle.

    Example:
        >>> forward_transfer(np.array([[0.9, 0.2], [0.7, 0.8]]))
        0.2
    """
    steps = len(agreement)
    return _mean(np.diag(agreement[:, :steps], 1) - baseline) if steps > 1 else NAN


def forgetting(agreement: Floats) -> float:
    """Forgetting: the best that was ever reached on a learned test set, less what is left of it at the end.

    Chaudhry et al., "Riemannian Walk for Incremental Learning" (ECCV 2018), Sec. 4, with SRCC for accuracy:
    the mean over k < T of max_{l < T} SRCC_lk - SRCC_Tk. Here the maximum begins with the experience that
    learns k (l >= k): before it there is nothing to forget, and the oracle has no head to ask.

    Args:
        agreement: (T, K >= T) SRCC matrix; correlations may be negative.

    Returns:
        The mean over k < T, in [-2, 2], negative where later experiences helped; nan for T = 1.

    Example:
        >>> round(forgetting(np.array([[0.9, 0.2], [0.7, 0.8]])), 3)
        0.2
    """
    steps = len(agreement)
    lost = [agreement[k : steps - 1, k].max() - agreement[-1, k] for k in range(steps - 1)]
    return _mean(np.array(lost)) if lost else NAN


# --------------------------------------------------------------------------- between normalisation statistics


def gaussian_kl(mean_p: ArrayLike, var_p: ArrayLike, mean_q: ArrayLike, var_q: ArrayLike) -> float:
    """Kullback-Leibler divergence KL(p || q) of two Gaussians with diagonal covariance, in nats.

    The sum over the channels of (ln(var_q / var_p) + (var_p + (mean_p - mean_q)^2) / var_q - 1) / 2. The
    TSN-IQA paper (Section IV-F) takes the statistics of the last normalisation layer for Gaussians.

    Args:
        mean_p: (C,) means.
        var_p: (C,) variances.
        mean_q: (C,) means.
        var_q: (C,) variances.

    Returns:
        0 or more; nan where a variance is not above 0, a number is not finite, or there is no channel.
    """
    m, v, n, w = (np.asarray(part, np.float64) for part in (mean_p, var_p, mean_q, var_q))
    if not len(m) or not (np.isfinite([m, v, n, w]).all() and (v > 0).all() and (w > 0).all()):
        return NAN
    return float(np.sum(np.log(w / v) + (v + (m - n) ** 2) / w - 1) / 2)
