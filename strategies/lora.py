"""LoRA: to each weight of a frozen network a task adds a matrix of low rank; adapters and heads are its own.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
2022, in the place that normalisation has in TSN-IQA: nothing that a task learns touches another task, so the
order of the tasks does not matter to the training, and K-means gating mixes the heads. It works where there
is no batch normalisation, in transformers, and in convolutions, too. See docs/adapters.md.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.errors import UserError
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Dependence

if TYPE_CHECKING:
    from torch import nn

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.backbones.staged import FeatureNet
    from cliqa_bench.models.low_rank import LowRankAdapters
    from cliqa_bench.models.quality import QualityModel


@dataclass
class LoRA(Strategy):
    """Low-rank adapters of the tasks' own.

    Attributes:
        rank: Rank r of what is added to a weight; at least 1.
        alpha: What is added is multiplied by alpha / r; above 0.
        where: Which layers have adapters: "all" linear layers and convolutions, the linear layers of the
            "attention" (the paper adapts its queries and values), or the other linear layers ("mlp").
    """

    rows: ClassVar[dict[str, str]] = {"gate": "LoRA-KG", "oracle": "LoRA-O", "last": "LoRA (last head)"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen: LoRA: Low-rank "
        "adaptation of large language models. ICLR 2022"
    )

    rank: int = 4
    alpha: float = 4.0
    where: Literal["all", "attention", "mlp"] = "all"
    warmup_rate: float = 1.0
    main_rate: float = 1.0

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("rank", least=1)
        self.require("alpha", above=0)

    @property
    def depends_on(self) -> Dependence:
        """Nothing: each dataset is learned from the frozen network."""
        return "nothing"

    @property
    def own_features(self) -> bool:
        """Whether every task has features of its own: by its adapters."""
        return True

    @property
    def adapts_statistics(self) -> bool:
        """Whether the statistics of the normalisation follow the images: they are the frozen network's."""
        return False

    def view(self) -> LowRankAdapters:
        """Returns adapters for each task."""
        from cliqa_bench.models.low_rank import LowRankAdapters

        return LowRankAdapters(self.rank, self.alpha / self.rank, self.where)

    def check_backbone(self, backbone: type[Backbone]) -> None:
        """Checks that the backbone has layers to adapt.

        Raises:
            UserError: If it has none.
        """
        if not self._shapes(backbone):
            raise UserError(
                f"lora.where={self.where}: {backbone.title} has no such layers; set lora.where=all"
            )

    def added_parameters(self, backbone: type[Backbone]) -> int:
        """Returns what a task adds: r rows and r columns for each weight, and a head."""
        return backbone.feature_size + self.rank * sum(map(sum, self._shapes(backbone)))

    def _shapes(self, backbone: type[Backbone]) -> list[tuple[int, int]]:
        """Returns rows and columns of each weight that has an adapter."""
        from cliqa_bench.models.low_rank import adaptable

        found = adaptable(_shapes_of(backbone), self.where)
        weights = (getattr(layer, name).flatten(1) for layer, name in found)
        return [(weight.shape[0], weight.shape[1]) for weight in weights]

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up the task's adapters too. Nothing else ever learns."""
        return list(model.heads[task].parameters()) if warmup else model.task_parameters(task)


def _shapes_of(backbone: type[Backbone]) -> FeatureNet:
    """Returns the network with shapes instead of numbers."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*meta parameter")  # of a part whose weights are in the package
        return backbone.network(None)
