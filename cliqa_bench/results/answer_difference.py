"""How far two sets of answers are apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def most_apart(one: NDArray[Any], other: NDArray[Any], size: NDArray[Any] | None = None) -> float:
    """Returns the largest difference of two arrays.

    Args:
        one: Numbers.
        other: As many, of the same shape.
        size: By what the differences are divided, at least 0; None for nothing.

    Returns:
        0 or more. Equal numbers, or NaN on both sides, are no difference; NaN on one side is an infinite one.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
        if size is not None:
            apart /= np.maximum(size, np.finfo(np.float32).tiny)
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    return float(np.nan_to_num(apart, nan=math.inf, posinf=math.inf).max(initial=0.0))
