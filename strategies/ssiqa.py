"""SS-IQA: from a labelled dataset to an unlabelled one, in blocks, by pseudo-labels of a kernel regression.

Pan, Gao, Zhang, Zheng, Shen, Li, Hu, Liu, Dai: "Semi-Supervised Blind Image Quality Assessment through
Knowledge Distillation and Incremental Learning", AAAI 2024. The first dataset of an order is D^A and has
labels. What follows is D^B, whole or in blocks; whether or not it has labels, none is read. After each
experience the network describes D^A's training images, and a kernel ridge regression is fitted from these
features to D^A's labels. What it says of a block's training images are the labels that the next experience
learns, together with a few exemplars of what came before. There is one network and one head.

`docs/ssiqa.md` says where paper and published code disagree, and which option stands for which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cliqa_bench.config import later
from cliqa_bench.errors import UserError
from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies._exemplars import (
    ExemplarRule,
    Looked,
    Positions,
    closest,
    exemplar_order,
    look,
    share_of,
)
from cliqa_bench.strategies._kernel import KernelRegression, fit_kernel
from cliqa_bench.strategies._scale import standard
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.config import Training
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.learning.minibatches import Parts
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.models.query_decoder import SharedDecoder

EVERYTHING = 10**9
"""More images than any dataset has: nothing bounds how many may be seen again."""

BLOCKS_ALONE = ("krr", "refit", "memory", "capacity", "choose", "k1", "k2", "block_rate")
"""Hyper-parameters on which the first experience does not depend: all ablations share it."""

DECAY = 0.05
"""AdamW's weight decay in the published code."""
FIRST_DECAY, BLOCK_DECAY = 3, 2
"""Epochs after which the paper divides the rate by ten: of the first experience, and of a block."""
WARM = 1e-3
"""Share of the rate with which the published code's warm-up starts."""


@dataclass
class SSIQA(Strategy):
    """Semi-supervised transfer in blocks.

    Attributes:
        krr: Whether pseudo-labels come from kernel ridge regression; else from the head itself.
        ridge: Lambda of the regression; above 0.
        gamma: Of its kernel: "median" (one over the median squared distance of D^A's features), "code"
            (the published code's 1e-3, above 20,000 images 1e-4), or a number above 0.
        centre: Whether what resembles no image of D^A gets D^A's mean label, instead of its lowest one (in
            the paper's regression without intercept: 0 of 100).
        subset: What the regression is fitted to: "all" training images of D^A (published code; at most
            20,000), or "sdk" (paper), the exemplars that `k1` says.
        refit: "phase" fits it after every experience, to features of the newest network (paper); "once"
            after the first one only (published code).
        memory: "frozen" chooses the exemplars of a dataset once, when it was learned, and keeps no others.
            "reselect" chooses from all images of all datasets after every experience, and labels the earlier
            blocks again (paper and code).
        capacity: Most exemplars with "frozen".
        choose: "sdk", the images whose prediction is closest to their label (paper), "quantile", spread
            over the labels, or "random".
        k1: One exemplar of D^A for so many images, rounded up; 0 for none.
        k2: The same of each block.
        criterion: "smooth-l1" to D^A's standardised labels (paper), or "fidelity" over pairs, from which the
            other strategies learn.
        block_rate: Factor of the learning rate from the second experience on (paper: 2e-5 after 2e-4).
        schedule: "suite": the protocol's rates and decays. "paper": the protocol's `lr` from the first epoch,
            a tenth after every third; in a block a tenth after every second. "code": the same, but in the
            warm-up it rises from a thousandth of `lr`, and what follows has decayed from the start.
        decoupled: Whether AdamW learns, with a weight decay of 0.05 on matrices alone (code), instead of Adam
            with the protocol's (paper).
        clip: Largest norm of the gradient (code: 5); 0 for any.
        select: Of the first experience, "last" keeps the last epoch (paper and code), "validation" the best
            on D^A's validation images. Of a block it is always the last.
        decoder: Queries of a Transformer decoder layer between a vision transformer's tokens and the head
            (code: 6); 0 for none.
    """

    rows: ClassVar[dict[str, str]] = {"last": "SS-IQA"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "W. Pan, T. Gao, Y. Zhang, X. Zheng, Y. Shen, K. Li, R. Hu, Y. Liu, P. Dai: Semi-supervised blind "
        "image quality assessment through knowledge distillation and incremental learning. AAAI 2024"
    )

    krr: bool = True
    ridge: float = 1.0
    gamma: Literal["median", "code"] | float = "median"
    centre: bool = False
    subset: Literal["all", "sdk"] = "all"
    refit: Literal["phase", "once"] = "phase"
    memory: Literal["frozen", "reselect"] = "frozen"
    capacity: int = 500
    choose: ExemplarRule = "sdk"
    k1: int = 100
    k2: int = 100
    criterion: Literal["smooth-l1", "fidelity"] = "smooth-l1"
    block_rate: float = 0.1
    schedule: Literal["suite", "paper", "code"] = "suite"
    decoupled: bool = False
    clip: float = 0.0
    select: Literal["last", "validation"] = "last"
    decoder: int = later(0, "0.2.0")

    def __post_init__(self) -> None:
        """Starts without data.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("ridge", above=0)
        self.require("block_rate", above=0)
        for name in ("capacity", "k1", "k2", "clip", "decoder"):
            self.require(name, least=0)
        if not isinstance(self.gamma, str):
            self.require("gamma", above=0)
        if self.subset == "sdk":
            self.require("k1", least=1, why=' with subset="sdk"')
        self._predicted: dict[str, Floats] = {}
        self._pseudo: dict[str, Floats] = {}
        self._regression: KernelRegression | None = None
        self._exemplars: list[tuple[DecodedDataset, Positions]] = []

    # -- what it depends on ----------------------------------------------------------------------------------

    def experience_params(self, place: int) -> dict[str, Any]:
        """Returns the hyper-parameters that an experience depends on: the first one on fewer."""
        params = self.training_params()
        if place:
            return params
        shared = {name for name in BLOCKS_ALONE if name != "k1" or self.subset != "sdk"}
        return {name: value for name, value in params.items() if name not in shared}

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head."""
        return True

    @property
    def adapts_statistics(self) -> bool:
        """Whether the statistics of the normalisation follow the images: of a block there are too few.

        The paper's network keeps none.
        """
        return not self._in_block

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        rereads = self.memory == "reselect" or (self.krr and self.refit == "phase")
        return EVERYTHING if rereads else self.capacity

    @property
    def _in_block(self) -> bool:
        """Whether D^A has been learned."""
        return bool(self._predicted)

    # -- how it learns ---------------------------------------------------------------------------------------

    def view(self) -> SharedDecoder | None:
        """Returns the decoder, if there is one."""
        from cliqa_bench.models.query_decoder import SharedDecoder

        return SharedDecoder(self.decoder) if self.decoder else None

    def check_backbone(self, backbone: type[Backbone]) -> None:
        """Checks that a decoder has tokens to read.

        Raises:
            UserError: If it has none.
        """
        if self.decoder and not backbone.has_tokens:
            raise UserError(
                f"ssiqa.decoder needs a plain vision transformer, and {backbone.title} is not one; use "
                "--backbone vit_mini, or one of timm's, such as timm:deit3_small_patch16_224.fb_in1k"
            )

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the parameters that learn: in the warm-up the head, and the decoder before it."""
        if warmup and self.decoder:
            return model.task_parameters(task)
        return super().trainable(model, task, warmup)

    def new_head(self, features: int) -> nn.Module:
        """Makes a linear head with an intercept: a cosine cannot fit a label."""
        from cliqa_bench.models.heads import LinearHead

        return LinearHead(features)

    def optimiser(self, parameters: list[nn.Parameter], training: Training) -> Optimizer:
        """Returns Adam or AdamW, which clip the gradient if they are to."""
        import torch

        made = super().optimiser(parameters, training)
        if self.decoupled:
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
            made = torch.optim.AdamW(groups, training.lr, fused=made.defaults["fused"])
        if self.clip:
            made.register_step_pre_hook(lambda *_: clip_gradient(parameters, self.clip))
        return made

    def rate(self, training: Training, epoch: int, warmup: bool) -> float:
        """Returns the learning rate of an epoch, counted from the start of the first experience's warm-up."""
        factor = self.block_rate if self._in_block else 1.0
        if self.schedule == "suite":
            return factor * super().rate(training, epoch, warmup)
        if self._in_block:
            return factor * training.lr * 0.1 ** ((epoch - training.warmup_epochs) // BLOCK_DECAY)
        if self.schedule == "code" and warmup:
            return training.lr * (WARM + (1 - WARM) * epoch / training.warmup_epochs)
        return training.lr * 0.1 ** (epoch // FIRST_DECAY)

    def may_stay(self, learner: Learner) -> bool:
        """Tells whether an epoch may be kept: any if validation is to choose, else the last one alone.

        In a block the last one is kept in any case: nothing shows which is best.
        """
        return self.select == "validation" or learner.is_last_epoch

    def loss(self, learner: Learner) -> Tensor:
        """Returns the loss of the mini-batch."""
        if self.criterion == "fidelity":
            return learner.pair_loss()
        return _smooth_l1(learner.predicted, learner.mb_y)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns the loss of exemplars; over an epoch each weighs as much as an image of the block."""
        if not self._exemplars:
            return None
        step = learner.clock.train_epoch_iterations
        rng = rng_for("exemplars", learner.source.name, learner.seed, learner.epoch, step)
        n = sum(len(images) for _, images in self._exemplars)
        drawn = np.sort(rng.choice(n, min(n, learner.training.batch), replace=False))
        weight = n / len(learner.source.keys("train"))
        return weight * self._loss_on(self._batches(drawn, learner.training, rng), learner)

    def _batches(self, drawn: Positions, training: Training, rng: np.random.Generator) -> Parts:
        """Cuts exemplars, counted through all datasets; those of a dataset are one mini-batch."""
        parts: Parts = []
        start = 0
        for source, images in self._exemplars:
            own = drawn[(drawn >= start) & (drawn < start + len(images))] - start
            start += len(images)
            if len(own):
                parts.append((source, source.batch_of(images[own], training, rng)))
        return parts

    def _loss_on(self, parts: Parts, learner: Learner) -> Tensor:
        from cliqa_bench.benchmarks.pixels.cache import to_float
        from cliqa_bench.learning.minibatches import together

        x, y, first, second, labels, _ = (part.to(learner.device) for part in together(parts))
        scores = learner.scores(learner.model, to_float(x), learner.task)
        if self.criterion == "smooth-l1":
            return _smooth_l1(scores, y)
        return learner.loss_of_pairs(scores, first, second, labels)

    # -- what it learns --------------------------------------------------------------------------------------

    def targets(self, learner: Learner, source: DecodedDataset) -> Floats:
        """Returns the labels of D^A, standardised, or the pseudo-labels of a block."""
        if not self._in_block:
            return _standardised(source)
        new = look(learner, source)
        if not self.krr:
            self._regression = None
        self._pseudo[source.name] = self._pseudo_of(new)
        self._exemplars = self._chosen(learner)
        return _spread_out(self._pseudo[source.name], source)

    def _pseudo_of(self, seen: Looked) -> Floats:
        return self._regression.predict(seen.features) if self._regression else seen.scores

    def consolidate(self, learner: Learner) -> None:
        """Describes what was learned, then fits the regression and labels blocks again as needed."""
        new = look(learner, learner.source)
        if not self._in_block:
            self._fit(learner.source, new)
        else:
            self._look_back(learner, new)
        self._predicted[learner.source.name] = new.scores

    def _look_back(self, learner: Learner, new: Looked) -> None:
        """Looks at the datasets before a block, as far as `refit` and `memory` want it."""
        first, *blocks = learner.seen.values()
        refit = self.krr and self.refit == "phase"
        if not refit and self.memory == "frozen":
            return
        old = look(learner, first)
        if refit:
            self._fit(first, old)
        if self.memory == "frozen":
            return
        self._predicted[first.name] = old.scores
        self._pseudo[learner.source.name] = self._pseudo_of(new)
        for block in blocks:
            seen = look(learner, block)
            self._predicted[block.name] = seen.scores
            self._pseudo[block.name] = self._pseudo_of(seen)

    def _fit(self, source: DecodedDataset, seen: Looked) -> None:
        """Fits the regression to the labels of D^A."""
        labels = _standardised(source)[source.indices("train")]
        kept = np.arange(len(labels))
        if self.subset == "sdk":
            kept = closest(np.abs(labels - self._on_scale(seen.scores, labels)))
            kept = kept[: share_of(len(labels), self.k1)]
        origin = labels.mean() if self.centre else labels.min()
        self._regression = fit_kernel(
            seen.features[kept], labels[kept], ridge=self.ridge, gamma=self.gamma, origin=float(origin)
        )

    def _on_scale(self, predicted: Floats, labels: Floats) -> Floats:
        """Puts predictions on the scale of labels, where the loss leaves their scale open."""
        if self.criterion == "smooth-l1":
            return predicted
        return np.asarray(standard(predicted) * labels.std() + labels.mean())

    def _chosen(self, learner: Learner) -> list[tuple[DecodedDataset, Positions]]:
        """Returns the exemplars of each earlier dataset: it with its labels, and their positions."""
        found = [self._chosen_of(source, learner.seed) for source in learner.seen.values()]
        if self.memory == "frozen" and sum(len(images) for _, images in found) > self.capacity:
            found = [(source, images[: self.capacity // len(found)]) for source, images in found]
        return [(source, images) for source, images in found if len(images)]

    def _chosen_of(self, source: DecodedDataset, seed: int) -> tuple[DecodedDataset, Positions]:
        name, train = source.name, source.indices("train")
        block = name in self._pseudo
        every = _spread_out(self._pseudo[name], source) if block else _standardised(source)
        labels = every[train]
        predicted = self._on_scale(self._predicted[name], labels)
        order = exemplar_order(self.choose, labels, predicted, rng_for("exemplars", name, seed))
        n = share_of(len(train), self.k2 if block else self.k1)
        return replace(source, targets=every), train[order[:n]]

    # -- what it passes on -----------------------------------------------------------------------------------

    def extras(self, model: QualityModel) -> dict[str, nn.Module]:
        """Returns the regression's answer to test images, as the newest network describes them."""
        from cliqa_bench.strategies._kernel_readout import KernelReadout

        return {} if self._regression is None else {"pseudo": KernelReadout(model, self._regression)}

    def state(self) -> dict[str, Tensor]:
        """Returns predictions, pseudo-labels (n,) of each dataset's training images, and the regression."""
        import torch

        found = {f"predicted.{name}": torch.from_numpy(kept) for name, kept in self._predicted.items()}
        found |= {f"pseudo.{name}": torch.from_numpy(kept) for name, kept in self._pseudo.items()}
        return found | (self._regression.tensors("krr.") if self._regression else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
        self._predicted, self._pseudo = (
            {name.removeprefix(kind): kept for name, kept in arrays.items() if name.startswith(kind)}
            for kind in ("predicted.", "pseudo.")
        )
        self._regression = KernelRegression.of_tensors("krr.", state)

    def progress(self) -> dict[str, Tensor] | None:
        """Returns nothing: exemplars and pseudo-labels follow from what the experience before left."""
        return {}


def _standardised(source: DecodedDataset) -> Floats:
    """Returns the labels (n,) of D^A in standard deviations of its training images' labels.

    Raises:
        UserError: If some training image has none.
    """
    train = source.mos[source.indices("train")]
    if not np.isfinite(train).all():
        raise UserError(
            f"{source.title} comes first and has images without opinion scores: ssiqa starts from a labelled "
            "dataset; put one first, as in transfer:live,csiq"
        )
    return standard(source.mos, like=train)


def _spread_out(labels: Floats, source: DecodedDataset) -> Floats:
    """Returns labels of the training images as labels (n,) of all images, nan for the others."""
    every = np.full(len(source.ratings), np.nan)
    every[source.indices("train")] = labels
    return every


def _smooth_l1(scores: Tensor, labels: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.smooth_l1_loss(scores, labels)


def clip_gradient(parameters: list[nn.Parameter], most: float) -> None:
    """Scales the gradient of all parameters together down to a norm of at most `most`."""
    import torch

    torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], most)
