"""What a run chooses or fits on validation images when its answers are read, by a plain path."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.results.records import RunRecord
from cliqa_bench.types import Floats

Load = Callable[[str | None], "dict[str, NDArray[Any]] | None"]
"""Answers node -> what it holds; None for one that is missing."""

CANDIDATES = [0.25 * 2 ** (i / 2) for i in range(26)]
"""Temperatures to choose from."""


def rescaled(record: RunRecord, step: int, scores: Floats, load: Load) -> Floats | None:
    """Returns scores (tasks, n) as they are mixed: standardised by each task's validation images, if asked.

    None where an answer is missing.
    """
    if "scores" not in record.reading:
        return scores
    rows = []
    for (node, column), learned, row in zip(record.steps[step].heads, record.steps, scores, strict=False):
        file = load(record.validation.get(node, {}).get(learned.dataset))
        if file is None:
            return None
        known = [float(v) for v in file["scores"][:, column]]
        deviation = statistics.pstdev(known)
        rows.append((row - statistics.fmean(known)) / (deviation if deviation > 0 else 1.0))
    return np.array(rows).astype(np.float32).astype(np.float64)


def temperature(record: RunRecord, step: int, load: Load) -> float | None:
    """Returns the gate's temperature after an experience; None where an answer that chooses it is missing."""
    if "tau" not in record.reading or step == 0:
        return record.tau
    learned = [s.dataset for s in record.steps[: step + 1]]
    right, others = [], []  # of each task: (n, stages) distances to the own gate, (n, tasks, stages) to all
    for k, dataset in enumerate(learned):
        files = [load(record.validation.get(record.gates.get(d, ""), {}).get(dataset)) for d in learned]
        far = [file["distances"].astype(np.float64) for file in files if file is not None]
        if len(far) < len(learned):
            return None
        every = np.array([[d[:, stage - 1] for stage in record.stages] for d in far]).transpose(2, 0, 1)
        right.append(every[:, k])
        others.append(every)
    costs = [
        round(
            statistics.fmean(_entropy(own, every, tau) for own, every in zip(right, others, strict=True)), 12
        )
        for tau in CANDIDATES
    ]
    return CANDIDATES[costs.index(min(costs))]


def _entropy(own: Floats, every: Floats, tau: float) -> float:
    """Returns the mean of minus the logarithm of the right task's weight."""
    from scipy.special import logsumexp

    weight = np.exp(-tau * own - logsumexp(-tau * every, axis=1)).mean(axis=1)
    return statistics.fmean(-math.log(w) if w > 0 else math.inf for w in weight.tolist())
