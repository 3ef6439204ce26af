"""JL: joint learning of all datasets of an order at once with one head; the upper bound.

Pairs never mix datasets, whose scores have different scales: every mini-batch is of one dataset, and those of
all datasets are mixed evenly. The best epoch has the highest validation SRCC, averaged over the datasets. The
published code draws from one list of all pairs, so that its mini-batches mix datasets though its pairs do
not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cliqa_bench.strategies.base import Strategy


@dataclass
class JL(Strategy):
    """Joint learning. After the head's warm-up everything learns."""

    depends_on = "set"
    rows: ClassVar[dict[str, str]] = {"last": "JL"}

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head: there is one task."""
        return True
