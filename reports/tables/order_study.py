"""How the order affects a method: where the paper's orders lie, what the variance is, what few orders tell.

**Shares of the variance.** Each order has a value per seed, or per split if there are several. The sum of
squares of all of them about their mean is divided, as in an analysis of variance, between the orders and the
seeds. That between the orders is fitted by least squares: on the dataset that is learned first; on the last
one; on both; on who follows whom, an indicator for each pair of neighbours, from which first and last follow,
too. A model with as many parameters as orders explains anything, so its share is nan. By chance alone, a
factor explains its degrees of freedom over those of all.

**The intervals** are a delete-one-order jackknife with Student's t. They tell how much a share depends on
single orders; they do not cover the choice of images, and of one seed nothing of chance in training.

**How few orders tell it.** Of a design, the mean of its orders estimates that of all, and their standard
deviation (ddof = 1, times sqrt((N - 1) / N), so that all N orders give their own) estimates that of all. A
Williams square is tried with every assignment of the datasets to its letters; of random samples, the mean's
error is known exactly (sampling without replacement), and that of the spread comes from seeded draws.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.order_designs import ORDERS, williams
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.tables.all_orders import OrderStudy
from cliqa_bench.reports.tables.jackknife import LEVEL, t_quantile
from cliqa_bench.seeds import rng_for
from cliqa_bench.types import Floats

ALIKE = 1e-6
"""Orders that differ by less are alike: what is left may be rounding, and is not a variance to divide."""

TIES = 9
"""Decimals to which values are compared when they are ranked; what differs further behind is rounding."""

DRAWS = 2000
"""Samples that are drawn to see how well they estimate the spread."""

SAMPLES = (8, 12, 24)
"""Sizes of random samples that are tried."""

PAPER = "the paper's eight"
SQUARE = "Williams square"
SHARES = ("first", "last", "first and last", "neighbour", "rest of the order", "seed", "order x seed")
"""What the variance is divided between; the last five add up to one."""

ERRORS = ("bias of the mean", "RMSE of the mean", "bias of the spread", "RMSE of the spread")


def paper_orders(names: list[str]) -> dict[str, tuple[int, ...]]:
    """Returns the paper's orders, restricted to some datasets, as indices into these; {} if it lacks one.

    Fewer datasets than the paper's six make some of the eight alike.
    """
    if not set(names) <= set(ORDERS["I"]):
        return {}
    return {
        label: tuple(names.index(name) for name in order if name in names) for label, order in ORDERS.items()
    }


def paper_places(study: OrderStudy) -> dict[str, int]:
    """Returns where the paper's orders are in a study; those that are not there are left out."""
    rows = {tuple(row): i for i, row in enumerate(study.permutations.tolist())}
    return {label: rows[order] for label, order in paper_orders(study.names).items() if order in rows}


def is_finished(study: OrderStudy) -> bool:
    """Tells whether every order that is there has all its numbers."""
    return bool(np.isfinite(study.each["mPSI"]).all())


# -------------------------------------------------------------------------------------- percentile ranks


def percentile_rank(values: Floats, one: float) -> float:
    """Returns the percentage of values below one, ties counted half (scipy's kind "mean")."""
    rounded, own = np.round(values, TIES), round(one, TIES)
    return float(100 * (np.sum(rounded < own) + np.sum(rounded == own) / 2) / len(rounded))


# --------------------------------------------------------------------------------- shares of the variance


def design_of(permutations: NDArray[np.int64], factor: str) -> Floats:
    """Returns the columns of a factor: (N, p) indicators, the first column being ones.

    Args:
        permutations: (N, T) orders.
        factor: "first", "last", "first and last", or "neighbour" (who follows whom).
    """
    n = permutations.shape[1]
    first = permutations[:, :1] == np.arange(n)
    last = permutations[:, -1:] == np.arange(n)
    followed = permutations[:, :-1, None] * n + permutations[:, 1:, None] == np.arange(n * n)
    columns = {
        "first": first,
        "last": last,
        "first and last": np.hstack([first, last]),
        "neighbour": followed.any(axis=1),
    }[factor]
    return np.hstack([np.ones((len(permutations), 1)), columns]).astype(np.float64)


class _Fit(NamedTuple):
    """A linear model of the orders.

    Attributes:
        basis: (N, rank) orthonormal basis of its columns.
        leverage: (N,) of each order.
    """

    basis: Floats
    leverage: Floats

    @property
    def free(self) -> int:
        """Degrees of freedom beside the mean."""
        return int(self.basis.shape[1]) - 1

    @property
    def saturated(self) -> bool:
        """Whether it has as many parameters as there are orders."""
        return bool(self.basis.shape[0] == self.basis.shape[1])


@functools.lru_cache(maxsize=32)
def _fit(tasks: int, factor: str) -> _Fit:
    permutations = np.array(list(itertools.permutations(range(tasks))))
    left, singular, _ = np.linalg.svd(design_of(permutations, factor), full_matrices=False)
    basis = left[:, singular > singular[0] * 1e-9]
    return _Fit(basis, np.sum(basis**2, axis=1))


def by_chance(tasks: int) -> dict[str, float]:
    """Returns what each factor would explain of one seed's values that do not depend on the order."""
    most = math.factorial(tasks) - 1
    free = {factor: _fit(tasks, factor).free for factor in ("first", "last", "first and last", "neighbour")}
    beyond = free["neighbour"] - free["first and last"]
    told = {**free, "neighbour": beyond, "rest of the order": most - free["neighbour"]}
    return {factor: degrees / most for factor, degrees in told.items()}


def variance_shares(values: Floats) -> dict[str, tuple[float, float]]:
    """Divides the variance of all orders of T datasets, and says how far each share can be trusted.

    Args:
        values: (seeds, T!) values of all orders in lexicographic order.

    Returns:
        Factor of `SHARES` -> its share of the sum of squares, and half of its 95 % interval; nan where a
        share has no meaning: no variance, one seed, a model with as many parameters as orders. All are nan if
        a value is.
    """
    nothing = dict.fromkeys(SHARES, (math.nan, math.nan))
    if not np.isfinite(values).all() or np.ptp(values) <= ALIKE:
        return nothing
    seeds, n = values.shape
    tasks = next(t for t in range(1, 20) if math.factorial(t) == n)
    far = values - values.mean()
    # each a sum of squares, and that sum without each of the orders
    total = _of_all(far)
    orders = _of_orders(far)
    sums = {factor: orders - seeds * _left_over(far, _fit(tasks, factor)) for factor in _FACTORS}
    by_seed = _of_seeds(far)
    parts = {
        "first": sums["first"],
        "last": sums["last"],
        "first and last": sums["first and last"],
        "neighbour": sums["neighbour"] - sums["first and last"],
        "rest of the order": orders - sums["neighbour"],
        "seed": by_seed,
        "order x seed": total - orders - by_seed,
    }
    if seeds == 1:
        del parts["seed"], parts["order x seed"]
    for factor in (factor for factor in _FACTORS if _fit(tasks, factor).saturated):
        del parts[factor]
    if "neighbour" not in parts:
        del parts["rest of the order"]
    return nothing | {factor: _jackknifed(part / total) for factor, part in parts.items()}


_FACTORS = ("first", "last", "first and last", "neighbour")


def _of_all(far: Floats) -> Floats:
    """(1 + N,) sum of squares about the mean: of all, then without each order."""
    seeds, n = far.shape
    squares = np.sum(far**2)
    own = np.sum(far**2, axis=0) + seeds * far.mean(axis=0) ** 2 / (n - 1)
    return np.concatenate([[squares], squares - own])


def _of_orders(far: Floats) -> Floats:
    """The same between the orders."""
    return np.asarray(far.shape[0] * _of_all(far.mean(axis=0, keepdims=True)))


def _of_seeds(far: Floats) -> Floats:
    """The same between the seeds."""
    n = far.shape[1]
    whole = far.sum(axis=1, keepdims=True)
    means = np.hstack([whole / n, (whole - far) / (n - 1)])
    sizes = np.concatenate([[n], np.full(n, n - 1)])
    return np.asarray(sizes * np.sum((means - means.mean(axis=0)) ** 2, axis=0))


def _left_over(far: Floats, fit: _Fit) -> Floats:
    """(1 + N,) squares that a model of the orders' means leaves over: of all, then without each order."""
    means = far.mean(axis=0)
    rest = means - fit.basis @ (fit.basis.T @ means)
    left = np.sum(rest**2)
    alone = fit.leverage > 1 - 1e-9  # an order with a parameter of its own leaves nothing over
    own = np.where(alone, 0.0, rest**2 / np.where(alone, 1.0, 1 - fit.leverage))
    return np.concatenate([[left], left - own])


def _jackknifed(share: Floats) -> tuple[float, float]:
    """Returns a share, and half of its interval from the shares without each order."""
    n = len(share) - 1
    if n < 3:
        return float(share[0]), math.nan
    error = math.sqrt((n - 1) / n * float(np.sum((share[1:] - share[1:].mean()) ** 2)))
    return float(share[0]), t_quantile((1 + LEVEL) / 2, n - 1) * error


# ----------------------------------------------------------------------------- what few orders tell of all


def estimates(values: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Returns the (2, D) means and standard deviations that D designs of k orders estimate.

    Args:
        values: (N,) values of all orders.
        chosen: (D, k) which orders each design has.
    """
    few, n = values[chosen], len(values)
    return np.stack([few.mean(axis=1), few.std(axis=1, ddof=1) * math.sqrt((n - 1) / n)])


def design_errors(values: Floats, chosen: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Returns bias and root mean square error of the mean, then of the spread; see `estimates`."""
    off = estimates(values, chosen) - np.array([[values.mean()], [values.std()]])
    bias, rmse = off.mean(axis=1), np.sqrt(np.mean(off**2, axis=1))
    return float(bias[0]), float(rmse[0]), float(bias[1]), float(rmse[1])


def sample_errors(values: Floats, size: int) -> tuple[float, float, float, float]:
    """Returns the same of random samples: of the mean exactly, of the spread from `DRAWS` seeded draws."""
    n = len(values)
    exact = float(values.std()) * math.sqrt((n - size) / (size * (n - 1)))
    return (0.0, exact, *design_errors(values, drawn_samples(n, size))[2:])


@functools.lru_cache(maxsize=32)
def drawn_samples(n: int, size: int) -> NDArray[np.int64]:
    """Returns (DRAWS, size) samples of the numbers below n, without repetition."""
    rng = rng_for("samples of orders", n, size)
    return np.array([rng.choice(n, size, replace=False) for _ in range(DRAWS)])


@functools.lru_cache(maxsize=8)
def williams_designs(tasks: int) -> NDArray[np.int64]:
    """Returns (T!, k) the places of a Williams square's k orders, under every assignment of its letters."""
    every = list(itertools.permutations(range(tasks)))
    place = {order: i for i, order in enumerate(every)}
    rows = williams(tasks)
    return np.array([[place[tuple(letters[k] for k in row)] for row in rows] for letters in every])


class Tried(NamedTuple):
    """A design of orders that was tried.

    Attributes:
        design: What it is called.
        size: How many orders it has.
        how: How its errors are known.
        errors: Metric -> the numbers of `ERRORS`.
    """

    design: str
    size: int
    how: str
    errors: dict[str, tuple[float, float, float, float]]


def tried_designs(study: OrderStudy) -> Iterator[Tried]:
    """Yields the paper's eight, a Williams square and random samples, as far as there are so many orders."""
    values, tasks = study.values, len(study.names)
    places = sorted(set(paper_places(study).values()))
    if len(places) > 1:
        alone = np.array([places])
        yield Tried(PAPER, len(places), "one design", {m: design_errors(values[m], alone) for m in SUMMARY})
    if tasks > 2:
        every = williams_designs(tasks)
        how = "every assignment of the datasets"
        yield Tried(SQUARE, every.shape[1], how, {m: design_errors(values[m], every) for m in SUMMARY})
    for size in SAMPLES:
        if size <= study.total:
            how = f"mean exact, spread from {DRAWS:,} draws"
            yield Tried(f"random {size}", size, how, {m: sample_errors(values[m], size) for m in SUMMARY})
