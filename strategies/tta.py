"""TTA: models of TSN-IQA, adapted to the unlabelled images of a test set before they score them.

Li, Wang, Shi, Liu, Hou: "Revisiting Batch Normalization For Practical Domain Adaptation" (AdaBN), 2016;
Schneider, Rusak, Eck, Bringmann, Brendel, Bethge: "Improving robustness against common corruptions by
covariate shift adaptation", NeurIPS 2020; Roy, Mitra, Biswas, Soundararajan: "Test Time Adaptation for Blind
Image Quality Assessment" (TTA-IQA), ICCV 2023. `docs/tta.md` says what differs from them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cliqa_bench.errors import UserError, unknown
from cliqa_bench.models.pretraining_config import PICTURES
from cliqa_bench.strategies.base import Strategy, answering
from cliqa_bench.strategies.tsn import TSN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.seeds import Rng

STATISTICS, RANK = ("statistics", "both"), ("rank", "both")
"""What `TTA.adapt_by` may be where statistics are adapted, and where ranks are."""
USUAL = ("pretrain:blur", "pretrain:jpeg", "pretrain:white_noise")
"""Blur, compression and noise."""


@dataclass
class TTA(TSN):
    """TSN-IQA whose normalisation is adapted to the test images, a batch at a time; nothing else moves.

    Its trainings are those of `tsn` with the same hyper-parameters: they are shared.

    Attributes:
        adapt_by: "statistics" takes the statistics of BatchNorm from the test images (AdaBN; with `prior`,
            Schneider et al.); "rank" lets gammas and betas learn that a distorted image is worse (TTA-IQA);
            "both", one after the other.
        batch: Most images that are adapted to together.
        prior: N, how many images the statistics of the training weigh; 0 for those of the test images alone.
        side: Longest side of the middle of an image on which ranks are learned; 0 for whole images.
        distortions: What makes an image worse, names of `benchmarks.generated.distortions`.
        levels: Levels of each distortion, rising; 1 is just visible, 5 severe.
        steps: Steps of Adam for each batch.
        lr: Their learning rate.
    """

    transductive: ClassVar[bool] = True
    rows: ClassVar[dict[str, str]] = {
        "gate": "TSN-IQA+TTA",
        "oracle": "TSN-IQA+TTA-O",
        "gate-hard": "TSN-IQA+TTA (hard)",
        "last": "TSN-IQA+TTA (last head)",
    }
    citation: ClassVar[str | tuple[str, ...]] = (
        "Y. Li, N. Wang, J. Shi, X. Hou, J. Liu: Adaptive batch normalization for practical domain "
        "adaptation. Pattern Recognition 80, 109-117, 2018",
        "S. Schneider, E. Rusak, L. Eck, O. Bringmann, W. Brendel, M. Bethge: Improving robustness against "
        "common corruptions by covariate shift adaptation. NeurIPS 2020",
        "S. Roy, S. Mitra, S. Biswas, R. Soundararajan: Test time adaptation for blind image quality "
        "assessment. ICCV 2023",
    )

    adapt_by: Literal["statistics", "rank", "both"] = answering("statistics")
    batch: int = answering(8)
    prior: float = answering(16.0)
    side: int = answering(224)
    distortions: tuple[str, ...] = answering(USUAL)
    levels: tuple[float, ...] = answering((1.0, 3.0))
    steps: int = answering(3)
    lr: float = answering(1e-3)

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of range, a distortion is unknown, or heads are to be standardised.
        """
        super().__post_init__()
        if self.scores == "standard":
            raise UserError(
                f"{self.name}.scores must be raw: models that score validation images are not adapted"
            )
        self.require("batch", least=1)
        for name in ("prior", "side", "steps", "lr"):
            self.require(name, least=0)
        if unusual := [name for name in self.distortions if name not in USUAL]:
            from cliqa_bench.benchmarks.generated.distortions import DISTORTIONS  # takes a while

            if wrong := [name for name in unusual if name not in DISTORTIONS]:
                raise unknown("distortion", wrong[0], DISTORTIONS)
        if not self.distortions or not self.levels:
            raise UserError(f"{self.name}: distortions and levels must not be empty")
        if not 1 <= self.levels[0] <= self.levels[-1] <= 5 or sorted({*self.levels}) != [*self.levels]:
            raise UserError(f"{self.name}.levels must rise from 1 or more to 5 or less, not {self.levels}")

    def trained_as(self) -> Strategy:
        """Returns TSN-IQA with the same hyper-parameters."""
        return TSN(**{f.name: getattr(self, f.name) for f in fields(TSN)})

    @property
    def adaptation_batch(self) -> int:
        """As set by `batch`."""
        return self.batch

    def adaptation(self) -> dict[str, Any]:
        """Returns the hyper-parameters that matter for this way of adapting."""
        unused = {"batch"}  # the batches have a place of their own in the name
        if self.adapt_by not in STATISTICS:
            unused |= {"prior"}
        if self.adapt_by not in RANK:
            unused |= {"side", "distortions", "levels", "steps", "lr"}
        kept = {name: value for name, value in super().adaptation().items() if name not in unused}
        return kept | ({"pictures_version": PICTURES} if self.adapt_by in RANK else {})

    def adapt(self, model: QualityModel, images: Tensor, rng: Rng) -> None:
        """Adapts statistics, then gammas and betas, of each task's normalisation, or of the one they share.

        Raises:
            UserError: If statistics are to be adapted, and no layer keeps any.
        """
        import torch

        from cliqa_bench.benchmarks.pixels.cache import to_float

        tasks = range(model.n_tasks)
        groups = [[task] for task in tasks] if self.own_features else [[*tasks]]
        if self.adapt_by in STATISTICS:
            with torch.no_grad():
                whole = to_float(images)
                for group in groups:
                    take_statistics(model, whole, group[0], self.prior)
        if self.adapt_by in RANK and self.steps:
            rows = [to_float(row) for row in self._distorted(middle(images, self.side), rng)]
            for group in groups:
                self._learn_ranks(model, rows, group)

    def _distorted(self, images: Tensor, rng: Rng) -> list[Tensor]:
        """Returns the images, and what each distortion at each level makes of them, (B, 3, H, W) each."""
        import numpy as np
        import torch

        from cliqa_bench.benchmarks.generated.distortions import distort

        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        made = [images]
        for name in self.distortions:
            for level in self.levels:
                worse = np.stack([distort(image, name, level, rng) for image in pixels])
                made.append(torch.from_numpy(worse).permute(0, 3, 1, 2).to(images.device))
        return made

    def _learn_ranks(self, model: QualityModel, rows: list[Tensor], tasks: Sequence[int]) -> None:
        """Takes `steps` steps of Adam; heads, statistics and convolutions stay as they are."""
        import torch

        parameters = model.norm_parameters(tasks[0])
        model.train_only(parameters)
        with torch.enable_grad():
            optimiser = torch.optim.Adam(parameters, self.lr)
            for _ in range(self.steps):
                finals = [model.read_by_heads(row, tasks[0]) for row in rows]
                scores = torch.stack([
                    torch.stack([model.head(task, final) for final in finals]) for task in tasks
                ])  # fmt: skip
                optimiser.zero_grad()
                rank_loss(scores, len(self.levels)).backward()
                optimiser.step()
        model.requires_grad_(False)


def middle(images: Tensor, side: int) -> Tensor:
    """Returns the middles of images (B, 3, H, W), no side longer than `side`; all of them for 0."""
    height, width = images.shape[2:]
    rows, columns = (min(length, side) if side else length for length in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[:, :, top : top + rows, left : left + columns]


def take_statistics(model: QualityModel, images: Tensor, task: int, prior: float) -> None:
    """Replaces the statistics of every BatchNorm layer that a task uses, in one pass.

    Each layer sees what the layers before it make of the images with their new statistics. Mean and variance
    (the biased one, by which BatchNorm normalises) are over all positions of all images; with N = `prior` and
    n images, the new ones are N / (N + n) times the old and n / (N + n) times theirs.

    Args:
        model: In evaluation mode; its statistics are changed in place.
        images: (n, 3, H, W), ImageNet-normalised.
        task: Whose features.
        prior: N; infinity leaves everything as it is.

    Raises:
        UserError: If no layer keeps statistics.
    """
    import torch
    from torch import nn

    share = len(images) / (len(images) + prior)

    def renew(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        var, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        for kept, new in ((layer.running_mean, mean), (layer.running_var, var)):
            assert kept is not None
            kept.copy_((1 - share) * kept + share * new)

    with ExitStack() as hooks:
        for layer in (layers := statistics_of(model, task)):
            hooks.callback(layer.register_forward_pre_hook(renew).remove)
        if not layers:
            raise UserError(
                "this backbone's normalisation keeps no statistics that could be adapted: set "
                "tta.adapt_by=rank, or use a backbone with BatchNorm"
            )
        model.features(images, task)


def statistics_of(model: QualityModel, task: int) -> list[nn.BatchNorm2d]:
    """Returns the BatchNorm layers with statistics that a task uses: its own where tasks have some."""
    from torch import nn

    from cliqa_bench.models.views import task_norms

    own = [norm.layer(task) for norm in task_norms(model.net)]
    layers = own if model.view is not None else model.net.plastic.modules()
    return [m for m in layers if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]


def rank_loss(scores: Tensor, levels: int) -> Tensor:
    """Returns the mean of -log sigmoid(better - worse) over images, distortions and neighbouring levels.

    Args:
        scores: (tasks, 1 + distortions * levels, B): of the images themselves, then of each distortion at its
            levels, rising.
        levels: How many levels a distortion has.

    Returns:
        Scalar; log 2 where all scores are equal.
    """
    import torch
    from torch.nn import functional

    clean, worse = scores[:, :1], scores[:, 1:].unflatten(1, (-1, levels))
    chain = torch.cat([clean[:, :, None].expand(-1, worse.shape[1], -1, -1), worse], dim=2)
    return functional.softplus(chain[:, :, 1:] - chain[:, :, :-1]).mean()
