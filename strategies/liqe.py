"""LIQE: all datasets at once, quality, scene and distortion as texts that a picture is compared with.

Every step holds images of every dataset, four of a small one and four times as many of a large one (the
published code: 4 of LIVE, CSIQ, BID and CLIVE, 16 of KonIQ-10k and KADID-10k). The best epoch has the highest
validation SRCC, averaged over the datasets. `_liqe.py` has the losses and their weights.

`docs/liqe.md` says where paper and published code disagree, and which option stands for which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cliqa_bench.strategies._liqe import TextMultitask

LARGE, TIMES = 2000, 4
"""Training images from which a dataset is a large one, and how many times as many of them a step holds."""


@dataclass
class LIQE(TextMultitask):
    """Learns all datasets of an order at once.

    Attributes:
        images: Images of each small dataset in a step, at least 2; of a large one four times as many.
    """

    depends_on = "set"
    rows: ClassVar[dict[str, str]] = {"last": "LIQE"}

    images: int = 4

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("images", least=2, why=" (a pair)")

    def in_step(self, images: Sequence[int], batch: int) -> list[int]:
        """Returns how many images of each dataset every step sees."""
        return [self.images * (TIMES if n >= LARGE else 1) for n in images]
