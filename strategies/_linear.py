"""A linear head on given features: by least squares in closed form, or by another loss and L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.pairs import PAIRS_PER_IMAGE, pair_labels, sample_pairs
from cliqa_bench.seeds import Rng
from cliqa_bench.strategies.ridge import added, solve, sums_of

if TYPE_CHECKING:
    from torch import Tensor

F64 = NDArray[np.float64]
Objective = Literal["squared", "smooth-l1", "fidelity"]

ITERATIONS = 200
"""Most iterations of L-BFGS."""


class Linear(NamedTuple):
    """A linear function of features.

    Attributes:
        weights: (d,).
        intercept: What it is where all features are 0.
    """

    weights: F64
    intercept: float

    def __call__(self, x: F64) -> F64:
        """Returns the scores (n,) of features (n, d)."""
        return np.asarray(x @ self.weights + self.intercept, np.float64)


class Lesson(NamedTuple):
    """The scores that a head has to learn for the features of one task.

    Attributes:
        x: (n, d) features.
        y: (n,) scores.
        first: (p,) rows of the first of each pair; pairs matter to "fidelity" alone.
        second: (p,) rows of the second.
        wanted: (p,) probability that the first is the better one.
    """

    x: F64
    y: F64
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    wanted: F64


def lesson(x: F64, y: F64, rng: Rng, ties: Literal["paper", "code"] | None = None) -> Lesson:
    """Makes a lesson of features (n, d) and scores (n,), with random pairs inside it.

    Args:
        x: Features.
        y: Opinion scores, or what another head says.
        rng: Draws the pairs.
        ties: Which of two equal opinion scores is the better one, as in `pairs.pair_labels`. None where a
            head says the scores: then a pair has the probability that belongs to them.
    """
    from scipy.special import ndtr

    first, second = sample_pairs(len(y), PAIRS_PER_IMAGE * len(y), rng).T
    if ties is None:
        wanted = ndtr((y[first] - y[second]) / np.sqrt(2))
    else:
        wanted = pair_labels(y[first], y[second], ties)
    return Lesson(x, y, first, second, np.asarray(wanted, np.float64))


def regress(lessons: Sequence[Lesson], objective: Objective, penalty: float) -> Linear:
    """Returns the head that learns all lessons best.

    It minimises the mean loss, over images or pairs, plus `penalty` times the squared weights times the mean
    variance of the features (half of that where the loss is not "squared"); the intercept is free.

    Args:
        lessons: Of at least one task.
        objective: "squared" errors, "smooth-l1", or "fidelity" of pairs, each inside one lesson.
        penalty: See above; above 0.
    """
    if objective == "squared":
        sums = added({f"{number:06}": sums_of(each.x, each.y) for number, each in enumerate(lessons)})
        return Linear(*solve(sums, penalty * max(float(np.trace(sums.xx)) / len(sums.x), 1e-12)))
    x = np.concatenate([each.x for each in lessons])
    centre, spread = x.mean(axis=0), max(float(np.sqrt(x.var(axis=0).mean())), 1e-6)
    weights, intercept = _descend((x - centre) / spread, lessons, objective, penalty)
    return Linear(weights / spread, intercept - float(weights @ centre) / spread)


def _descend(x: F64, lessons: Sequence[Lesson], objective: Objective, penalty: float) -> tuple[F64, float]:
    """Minimises by L-BFGS, starting from 0, over features of about unit variance."""
    import torch

    features = torch.from_numpy(x)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = _pair_loss(lessons) if objective == "fidelity" else _smooth_loss(lessons)
    optimiser = torch.optim.LBFGS(
        [weights, intercept], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(features @ weights + intercept) + penalty / 2 * (weights @ weights)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    return weights.detach().numpy(), float(intercept.detach())


def _smooth_loss(lessons: Sequence[Lesson]) -> Callable[[Tensor], Tensor]:
    import torch
    from torch.nn import functional

    y = torch.from_numpy(np.concatenate([each.y for each in lessons]))
    return lambda scores: functional.smooth_l1_loss(scores, y)


def _pair_loss(lessons: Sequence[Lesson]) -> Callable[[Tensor], Tensor]:
    """Returns the fidelity loss of all pairs, in float64."""
    import torch

    from cliqa_bench.learning.losses import fidelity

    starts = np.cumsum([0, *(len(each.y) for each in lessons[:-1])])
    first, second = (
        torch.from_numpy(np.concatenate([rows + start for rows, start in zip(parts, starts, strict=True)]))
        for parts in ([each.first for each in lessons], [each.second for each in lessons])
    )
    wanted = torch.from_numpy(np.concatenate([each.wanted for each in lessons]))

    def loss(scores: Tensor) -> Tensor:
        probability = torch.special.ndtr((scores[first] - scores[second]) / 2**0.5)
        return fidelity(probability, wanted)

    return loss
