"""From the heads' scores and the distances to centroids to one score per image: a choice made at report time.

Readouts: "gate" weights the heads softly (TSN-IQA, -KG), "gate-hard" takes the head with the largest of
these weights, "oracle" the head of the test set's own task (-O), "last" the newest head, "merged" a single
head that is none of the tasks'. Only numpy is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import unknown
from cliqa_bench.types import Answers, Floats

READOUTS = ("gate", "gate-hard", "oracle", "last", "merged")

RULES = {"tau": "validation", "scores": "standard"}
"""What a run may ask for besides, by the answers to validation images: see `chosen_tau`, `standardised`."""

TAUS = tuple(float(tau) for tau in 2.0 ** np.arange(-2, 11, 0.5))
"""What `chosen_tau` chooses from: 0.25 to 1448, twice as much every other time."""


def _sum_tasks(values: Floats) -> Floats:
    """Sums over axis 1 from the smallest to the largest: the order of the tasks changes no bit of it."""
    return np.asarray(np.sort(values, axis=1).sum(axis=1), np.float64)


def stage_weights(distances: NDArray[Any], tau: float) -> Floats:
    """Weights of the heads in each stage: softmin over the tasks (Eq. 8).

    Args:
        distances: (n, tasks, stages) Euclidean distances to each task's nearest centroid (Eq. 7).
        tau: Temperature; weights are proportional to exp(-tau * distance).

    Returns:
        (n, tasks, stages) float64, each sums to 1 over the tasks.
    """
    d = np.asarray(distances, np.float64)
    # the nearest task has exponent 0: nothing overflows, and the sum is at least 1
    weights = np.exp(-tau * (d - d.min(axis=1, keepdims=True)))
    weights /= _sum_tasks(weights)[:, None, :]
    return np.asarray(weights, np.float64)


def gate_weights(distances: NDArray[Any], tau: float = 32.0, stages: Sequence[int] | None = None) -> Floats:
    """Weights of the heads: softmin over the tasks per stage, then the mean over the stages (Eq. 8 and 9).

    Args:
        distances: (n, tasks, stages) Euclidean distances to each task's nearest centroid (Eq. 7).
        tau: Temperature; the weights of a stage are proportional to exp(-tau * distance).
        stages: Columns of `distances` to use, from 0; None for all.

    Returns:
        (n, tasks) float64, each row sums to 1. Bit-identical for any order of the tasks.
    """
    d = np.asarray(distances, np.float64)
    if stages is not None:
        d = d[:, :, list(stages)]
    return np.asarray(stage_weights(d, tau).mean(axis=2), np.float64)


def chosen_tau(distances: Sequence[NDArray[Any]]) -> float:
    """Chooses the temperature by the gate's guess of the task: the least mean cross entropy.

    The weight of the right task is to be large, and all tasks count alike. Opinion scores are not read.

    Args:
        distances: For each task, in the order of the columns, (n, tasks, stages) of its validation images.

    Returns:
        One of `TAUS`; of several that are equal to 12 digits after the point, the smallest.
    """
    entropies = []
    with np.errstate(divide="ignore"):  # a weight of 0 is as wrong as possible
        for tau in TAUS:
            right = [gate_weights(d, tau)[:, task] for task, d in enumerate(distances)]
            entropies.append(round(float(np.mean([-np.log(w).mean() for w in right])), 12))
    return TAUS[int(np.argmin(entropies))]


def standardised(scores: NDArray[Any], validation: NDArray[Any]) -> NDArray[np.float32]:
    """Standardises a head's scores by those of its own task's validation images.

    Args:
        scores: (n,) of test images.
        validation: (m,) of validation images of the head's task, from the same model.

    Returns:
        (n,) scores less the mean of `validation`, in its deviations; where these are 0, less the mean alone.
    """
    v = np.asarray(validation, np.float64)
    found = (np.asarray(scores, np.float64) - v.mean()) / (v.std() or 1.0)
    return np.asarray(found, np.float32)


def needed_heads(stakes: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    """Says which heads an image needs if its score may be off by a tolerance.

    Of each image the heads with the smallest stakes are left out, as many as have no more than the tolerance
    together. A head's score lies in [-1, 1], so its weight is how far the weighted sum can be off without it;
    where its range is known, that is its weight times half the range, with the middle of the range in its
    place. The bound holds whatever the scores would have been, and is known before any head has run.

    Args:
        stakes: (n, tasks), at least 0: how far an image's score can be off without each head.
        tolerance: Largest error allowed; 0 leaves out what has no weight at all.

    Returns:
        (n, tasks) bool; at least one head of each image.

    Raises:
        ValueError: If the tolerance is not in [0, 1).
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be at least 0 and below 1")
    at_stake = np.asarray(stakes, np.float64)
    order = np.argsort(at_stake, axis=1, kind="stable")
    # what is at stake with a head and all smaller ones
    together = np.cumsum(np.take_along_axis(at_stake, order, axis=1), axis=1)
    kept = ~(together <= tolerance)  # where weights are nan, nothing is left out
    kept[:, -1] = True
    needed = np.empty_like(kept)
    np.put_along_axis(needed, order, kept, axis=1)
    return needed


def read(answers: Answers, readout: str, task: int | None = None, tau: float = 32.0) -> Floats | None:
    """Reads one score per image.

    "gate-hard" takes the argmax of the soft weights after the mean over the stages, as the published code
    does; the paper's wording (tau to infinity, per stage) would give two heads half the weight each wherever
    the stages disagree. A model with one head is read without a gate.

    Args:
        answers: The model's answers to a test set.
        readout: One of `READOUTS`.
        task: Index of the test set's own task, None where it is not one of the sequence ("oracle" only).
        tau: Temperature of the gate.

    Returns:
        (n,) float64, or None where the readout is not defined: the oracle on a task not yet learned, the gate
        without distances, a merged head that the strategy does not have.

    Raises:
        UserError: If there is no such readout.
        ValueError: If heads and gates do not belong together.
    """
    scores = np.asarray(answers.scores, np.float64)
    heads = scores.shape[1]
    if readout == "last":
        return scores[:, -1]
    if readout == "oracle":
        return scores[:, task] if task is not None and task < heads else None
    if readout == "merged":
        merged = answers.extras.get("merged")
        return None if merged is None else np.asarray(merged[:, 0], np.float64)
    if readout not in READOUTS:
        raise unknown("readout", readout, READOUTS)
    if heads == 1:
        return scores[:, 0]
    if answers.distances is None:
        return None
    if answers.distances.shape[:2] != scores.shape:
        raise ValueError(f"{scores.shape} scores (images, heads), {answers.distances.shape[:2]} distances")
    weights = gate_weights(answers.distances, tau)
    if readout == "gate":
        return _sum_tasks(weights * scores)
    # argmax takes a nan for the largest: where the distances are not finite there is no choice to make
    chosen = scores[np.arange(len(scores)), weights.argmax(axis=1)]
    return np.where(np.isfinite(weights).all(axis=1), chosen, np.nan)
