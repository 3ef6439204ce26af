"""SL: separate learning, a fresh model with one head for every dataset; nothing is carried over.

The published code trains each of them from the pre-trained weights alone. The tables read the models in the
order of the datasets, as if they were one that forgets: each is tested on all datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cliqa_bench.strategies.base import Strategy


@dataclass
class SL(Strategy):
    """Separate learning. After the head's warm-up everything learns."""

    depends_on = "nothing"
    rows: ClassVar[dict[str, str]] = {"last": "SL"}

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head: each model has but one."""
        return True
