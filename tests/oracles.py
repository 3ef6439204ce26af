"""Formulas of the paper in numpy, to hold ours against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fidelity(p: NDArray[Any], g: NDArray[Any] | float) -> NDArray[np.float64]:
    """Returns the fidelity loss of each pair (Eq. 5), with what the published code adds below the roots.

    Args:
        p: Probability that the first image of a pair is the better one, as a model has it.
        g: The same as people have it.
    """
    return np.asarray(1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8))
