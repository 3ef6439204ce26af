"""Naive: one dataset after the other with nothing against forgetting; the lower bound.

MH-CL gives every task a head, SH-CL has one head for all (published code of LwF-KG, Zhang et al., arXiv
2102.09717). In SH-CL the head has learned already when the second task comes, so that only the first has a
warm-up.

Images without opinion scores teach it nothing: such an experience leaves the model as it is, and its head is
a copy of the one before (the baseline of SS-IQA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cliqa_bench.strategies.base import Strategy


@dataclass
class Naive(Strategy):
    """Sequential fine-tuning.

    Attributes:
        heads: "multi" for a head per task (MH-CL), "single" for one head (SH-CL).
    """

    skips_unlabelled = True
    rows: ClassVar[dict[str, str]] = {"last": "MH-CL", "gate": "MH-CL-KG", "oracle": "MH-CL-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "W. Zhang, D. Li, C. Ma, G. Zhai, X. Yang, K. Ma: Continual learning for blind image quality "
        "assessment. IEEE TPAMI 45(3), 2864-2878, 2023"
    )

    heads: Literal["multi", "single"] = "multi"

    def table_rows(self) -> dict[str, str]:
        """Returns the rows; with a single head there is only one way to read the model."""
        return {"last": "SH-CL"} if self.single_head else dict(self.rows)

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head."""
        return self.heads == "single"
