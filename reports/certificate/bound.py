"""How far one more task can move a score: a bound that is known before anything is released.

In stage s of the gate the old tasks t have the weights w_s(t), a softmax over them (Eq. 8). A further
task with the weight n_s in that stage leaves them (1 - n_s) w_s(t), since it only adds a term to the
softmax's sum. The score is the mean over the stages (Eq. 9), so with the old mixture
o_s = sum_t w_s(t) h_t of that stage and the new head's score h

    change = mean_s n_s (h - o_s),    |change| <= mean_s n_s |h - o_s|.

The bound must be taken stage by stage. With averaged weights, N = mean_s n_s and the old score, N |h - old|
is not a bound: where the new task is near in one stage and the old mixtures of the stages differ, it may be
too small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.results.readouts import stage_weights
from cliqa_bench.types import Floats

SLACK = 8 * float(np.finfo(np.float32).eps)
"""How much more than its bound a score may change, for heads up to 1: 9.5e-7.

Heads are float32: one that meets other images in a batch may differ in its last bits.
"""


class ScoreBound(NamedTuple):
    """How far n scores can move.

    Attributes:
        bound: (n,) at most, in the unit of the scores.
        weight: (n,) the new head's weight, the mean over the stages.
        slack: (n,) what rounding may add.
    """

    bound: Floats
    weight: Floats
    slack: Floats


def score_bound(distances: NDArray[Any], heads: NDArray[Any], tau: float) -> ScoreBound:
    """Returns how far scores can move when the last task joins the others.

    Args:
        distances: (n, tasks, stages) to the nearest centroid of each task, the new one last.
        heads: (n, tasks) what each head says; nan only where it has no weight.
        tau: Temperature of the gate, the same before and after.
    """
    h = np.nan_to_num(np.asarray(heads, np.float64), nan=0.0)
    weight = stage_weights(distances, tau)[:, -1, :]
    old = stage_weights(distances[:, :-1], tau)
    mixture = (old * h[:, :-1, None]).sum(axis=1)
    apart = h[:, -1:] - mixture
    return ScoreBound(
        bound=(weight * np.abs(apart)).mean(axis=1),
        weight=weight.mean(axis=1),
        slack=SLACK * np.maximum(1.0, np.abs(h).max(axis=1)),
    )
