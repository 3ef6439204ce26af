"""The scale of numbers: what scores of datasets are divided by, whose scales have nothing in common."""

from __future__ import annotations

import numpy as np

from cliqa_bench.types import Floats


def scale_of(values: Floats) -> tuple[float, float]:
    """Returns the mean and the standard deviation of numbers; 1 for the latter if they are all alike."""
    return float(values.mean()), float(values.std()) or 1.0


def standard(values: Floats, like: Floats | None = None) -> Floats:
    """Returns numbers in standard deviations from their mean, or from the mean of others."""
    mean, scale = scale_of(values if like is None else like)
    return np.asarray((values - mean) / scale)
