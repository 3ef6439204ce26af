"""The pairwise learning-to-rank loss of TSN-IQA (Eq. 4 and 5). Shapes are free; means are over pairs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def pair_probability(first: Tensor, second: Tensor, slope: Literal["paper", "code"] = "paper") -> Tensor:
    """Returns the probability that the first image of each pair looks better than the second (Eq. 4).

    Args:
        first: Predicted quality of the first images, any shape.
        second: Predicted quality of the second images, the same shape.
        slope: "paper": Phi((s1 - s2) / sqrt 2), the Thurstone model with unit variances. "code": the
            published code's Phi(s1 - s2), which divides by sqrt 2 once where Phi needs it twice.

    Returns:
        Probabilities in [0, 1], at least float32 whatever the precision of the scores.
    """
    scale = 0.5 if slope == "paper" else math.sqrt(0.5)
    first, second = (s if s.dtype == torch.float64 else s.float() for s in (first, second))
    return 0.5 * (1 + torch.erf((first - second) * scale))


def fidelity(probability: Tensor, label: Tensor, eps: float = 1e-8) -> Tensor:
    """Returns the mean fidelity loss between predicted and true pair probabilities (Eq. 5).

    Args:
        probability: Predicted probabilities in [0, 1].
        label: True probabilities in [0, 1], the same shape: 0 or 1 from opinion scores, or anything between
            when a teacher's probabilities are distilled.
        eps: Keeps the root's slope finite at 0 (published code; not in the paper). The minimum is -eps-ish
            rather than 0 because of it.

    Returns:
        Scalar, float32.
    """
    agree = torch.sqrt(probability * label + eps)
    disagree = torch.sqrt((1 - probability) * (1 - label) + eps)
    return (1 - agree - disagree).mean()
