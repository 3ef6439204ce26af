"""Average: the backbones of separately learned datasets, made one; nothing is trained.

Every dataset is learned separately, as `sl` does: from the pre-trained weights, and for nothing else. After t
datasets, the backbone comes from the t finished ones, and each dataset keeps the head that it has learned.

- "mean": every weight is the mean of the t. Wortsman et al.: "Model soups: averaging weights of multiple
  fine-tuned models improves accuracy without increasing inference time", ICML 2022, average trainings on one
  dataset.
- "arithmetic": the pre-trained weight plus `scale` times the sum of the t differences from it. Ilharco et
  al.: "Editing Models with Task Arithmetic", ICLR 2023. With a scale of 1 / t this is the mean.

Statistics of the normalisation are averaged under both rules: a sum of differences may make a variance
negative. They are not re-estimated, for which earlier images would have to be seen again.

The set of the datasets decides: sums are in float64, from the smallest addend to the largest, so that the
order of the datasets changes no bit. `tsn` has nothing to average: its tasks move no weight that they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.sl import SL

if TYPE_CHECKING:
    from torch import Tensor

    from cliqa_bench.models.quality import QualityModel

Rule = Literal["mean", "arithmetic"]

_NAMES: dict[Rule, str] = {"mean": "Average", "arithmetic": "Task arithmetic"}


@dataclass
class Average(Strategy):
    """One network out of several, by arithmetic on their weights.

    Attributes:
        rule: "mean", or "arithmetic" for task arithmetic.
        scale: Lambda of task arithmetic; above 0. 0.4 is what is usual where no validation images choose it
            (Yadav et al., NeurIPS 2023).
        warmup_rate: That of the separate learning, and so is `main_rate`.
    """

    depends_on = "set"
    rows: ClassVar[dict[str, str]] = {"last": "Average", "gate": "Average-KG", "oracle": "Average-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "M. Wortsman, G. Ilharco, S. Y. Gadre, R. Roelofs, R. Gontijo-Lopes, A. S. Morcos, H. Namkoong, A. "
        "Farhadi, Y. Carmon, S. Kornblith, L. Schmidt: Model soups: averaging weights of multiple fine-tuned "
        "models improves accuracy without increasing inference time. ICML 2022",
        "G. Ilharco, M. T. Ribeiro, M. Wortsman, S. Gururangan, L. Schmidt, H. Hajishirzi, A. Farhadi: "
        "Editing models with task arithmetic. ICLR 2023",
    )

    rule: Rule = "mean"
    scale: float = 0.4

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("scale", above=0)

    def table_rows(self) -> dict[str, str]:
        """Returns readout -> name of its row, after the rule."""
        name = _NAMES[self.rule]
        return {readout: row.replace(_NAMES["mean"], name) for readout, row in self.rows.items()}

    @property
    def built_from(self) -> Strategy:
        """Separate learning, at the rates given here."""
        return SL(warmup_rate=self.warmup_rate, main_rate=self.main_rate)

    def build(self, model: QualityModel, parts: Sequence[QualityModel]) -> None:
        """Averages the backbones, and takes over the heads."""
        for part in parts:
            model.heads[model.add_task()].load_state_dict(part.heads[-1].state_dict())
        learned = {name for name, _ in model.net.named_parameters()}
        of_parts = [part.net.state_dict() for part in parts]
        for name, start in model.net.state_dict().items():
            if start.is_floating_point():
                found = [state[name] for state in of_parts]
                moved = self.rule == "arithmetic" and name in learned
                start.copy_(arithmetic(start, found, self.scale) if moved else mean(found))


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the mean of tensors of one shape, in float64; no order of theirs changes a bit of it."""
    return _sum(tensors) / len(tensors)


def arithmetic(start: Tensor, tensors: Sequence[Tensor], scale: float) -> Tensor:
    """Returns `start` plus `scale` times the sum of the differences of tensors from it, in float64."""
    return start.double() + scale * _sum([tensor.double() - start.double() for tensor in tensors])


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([tensor.double() for tensor in tensors]).sort(dim=0).values.sum(dim=0)
