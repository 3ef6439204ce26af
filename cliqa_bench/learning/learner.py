"""The learner: an Avalanche template that learns one experience, in two stages, from pairs of images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.benchmarks.pairs import pair_labels, pairs_within
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import Training
from cliqa_bench.errors import join_names
from cliqa_bench.learning.consolidation import consolidate
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.learning.minibatches import EpochLoader
from cliqa_bench.learning.refused_plugins import refuse_plugins
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.metrics import srcc
from cliqa_bench.models.heads import RichHead, score_of
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.progress import Tick
from cliqa_bench.seeds import seed_for
from cliqa_bench.system.avalanche_parts import EvaluationPlugin, SupervisedPlugin, SupervisedTemplate
from cliqa_bench.system.memory import trim_memory
from cliqa_bench.types import Subset

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
    from cliqa_bench.strategies.base import Strategy


class Best(NamedTuple):
    """The best epoch so far of an experience.

    Attributes:
        srcc: Its validation SRCC, in [-1, 1]; -inf where that is undefined.
        weights: The model's own state after it; empty before the first epoch.
        learned: The strategy's state after it.
    """

    srcc: float = -math.inf
    weights: dict[str, Tensor] = {}
    learned: dict[str, Tensor] = {}


class BatchPairs(NamedTuple):
    """The pairs of a mini-batch.

    Attributes:
        first: (p,) int64 positions, among its images, of the first image of each pair.
        second: (p,) int64 positions of the second.
        labels: (p,) float32, 1 where the first is the better one, else 0.
    """

    first: Tensor
    second: Tensor
    labels: Tensor


ShownImages = list[tuple["DecodedDataset", Tensor]]
"""Whose images a mini-batch holds, and their positions in its ratings."""

LOOK_EVERY = 50
"""Steps after which losses are looked at on a GPU, where to look is to wait for it."""


class StrategyPlugin(SupervisedPlugin):
    """Lets a `Strategy` take part in Avalanche's training loop."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        self.strategy = strategy

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Adds the penalty to the loss, once the warm-up is over."""
        if not strategy.warming_up:
            penalty = self.strategy.penalty(strategy)
            if penalty is not None:
                strategy.loss = strategy.loss + penalty

    def after_update(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Tells the strategy about an optimiser step, once the warm-up is over."""
        if not strategy.warming_up:
            self.strategy.after_step(strategy)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Lets the strategy consolidate what was learned; the best weights are back by then."""
        self.strategy.consolidate(strategy)


class Learner(SupervisedTemplate):
    """Learns experiences from pairs of images with the fidelity loss (Eq. 4 and 5).

    Two stages (protocol of the published code): `warmup_epochs` in which only the new head learns and the
    normalisation is fixed, then `epochs` in which whatever the strategy names learns. After every epoch
    the new head is validated on the experience's own validation images, and the best weights are what stays.
    A head that has learned before needs no warm-up: its epochs start after it.

    An experience is a dataset, or several that are learned at once. Then every mini-batch is of one dataset,
    all mixed evenly, or of all of them (`in_step` of the strategy), and the validation SRCC is the mean over
    the datasets. Images are scored by the head of their own task: a task label is a position in the order,
    and so is a head.

    Mini-batches may also come from Avalanche's loaders, as [images, scores, task labels], where a plug-in has
    replaced `dataloader`. Then all pairs of images of one task are compared.

    Attributes:
        task: Index of the head that learns.
        warming_up: Whether only that head learns.
        skipping: Whether nothing is learned in this experience, as it has no opinion scores.
        epoch: Number of the epoch, counted from the start of the warm-up.
        seen: Dataset name -> source, of all experiences before this one, in their order.
        features: (B, d) features of the mini-batch's crops, with their graph.
        said: Each head's output for the mini-batch's images (or crops), with its graph; a score unless the
            head says more, see `models.heads.RichHead`.
        images: How many images have passed in the current experience, in training and validation.
        best: The best epoch so far of the current experience: its validation SRCC, and both states.
        best_epoch: Which one it is, counted from 1.
        history: One dict per epoch of the current experience: epoch, stage, lr, loss, val_srcc.
        last_state: The model's own state after the last epoch, which need not be the best.
        look_every: Steps after which losses are looked at; 1 on a CPU.
        shown: Whose images the mini-batch holds, and their positions in its ratings; empty where the
            mini-batches are a plug-in's.

    Args:
        model: The model; heads are added as experiences come.
        strategy: The strategy.
        training: The protocol.
        device: Where to train.
        seed: Seed of crops, flips, shuffles and pairs.
        tick: Called after every mini-batch, for progress bars.
        plugins: Further Avalanche plug-ins.
        evaluator: Avalanche's metrics and loggers, see `learning.avalanche_loggers`; None for none.
        seen: Sources of the experiences that the model has learned already.

    Raises:
        UserError: If a plug-in is one of Avalanche's that cannot do its job here.
    """

    def __init__(
        self,
        *,
        model: QualityModel,
        strategy: Strategy,
        training: Training,
        device: str | torch.device = "cpu",
        seed: int = 0,
        tick: Tick | None = None,
        plugins: Sequence[SupervisedPlugin] = (),
        evaluator: EvaluationPlugin | None = None,
        seen: Sequence[DecodedDataset] = (),
    ) -> None:
        refuse_plugins(plugins)
        self.strategy, self.training, self.seed = strategy, strategy.trained_under(training), seed
        self.tick: Tick = tick or (lambda images, text, part: None)
        self.seen = {source.name: source for source in seen}
        self.task = -1
        self.epoch = 0
        self.warming_up = False
        self.skipping = False
        self.history: list[dict[str, Any]] = []
        self.images = 0
        self.last_state: dict[str, Tensor] = {}
        self.best = Best()
        self.best_epoch = 0
        self.shown: ShownImages = []
        self.features = torch.empty(0)
        self.said: list[Tensor] = []
        self._targeted: dict[str, DecodedDataset] = {}  # with targets in the place of their scores
        self._losses: list[Tensor] = []
        self._unseen: list[
            list[tuple[DecodedDataset, Tensor]]
        ] = []  # what the losses not looked at yet are of
        self._fresh = 0  # images of the mini-batch that are of this experience
        self._heads: Tensor | None = None  # head of each image of the mini-batch; None for the newest
        with warnings.catch_warnings():
            # the learner keeps its own history; metrics and loggers come as plug-ins where they are wanted
            warnings.filterwarnings("ignore", "No loggers specified")
            self._init_template(model, plugins, evaluator, device)
        self.look_every = 1 if self.device.type == "cpu" else LOOK_EVERY

    def _init_template(
        self,
        model: QualityModel,
        plugins: Sequence[SupervisedPlugin],
        evaluator: EvaluationPlugin | None,
        device: str | torch.device,
    ) -> None:
        super().__init__(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), self.training.lr),
            criterion=self.loss_of,
            train_mb_size=self.training.batch,
            train_epochs=self.training.warmup_epochs + self.training.epochs,
            device=device,
            plugins=[self.strategy.as_plugin(), *plugins],
            evaluator=evaluator,
        )

    def log_to(self, evaluator: EvaluationPlugin) -> None:
        """Replaces metrics and loggers."""
        self.plugins[self.plugins.index(self.evaluator)] = evaluator
        self.evaluator: EvaluationPlugin = evaluator

    @property
    def sources(self) -> tuple[DecodedDataset, ...]:
        """Images and labels of the current experience: of one dataset, or of several."""
        return tuple(self._targeted.get(source.name, source) for source in self.experience.sources)

    @property
    def pairs(self) -> BatchPairs:
        """The pairs of the mini-batch."""
        return BatchPairs(*self.mbatch[2:5])

    @property
    def source(self) -> DecodedDataset:
        """The only source of an experience of one dataset."""
        (source,) = self.sources
        return source

    @property
    def one_head(self) -> bool:
        """Whether every image is scored by the newest head: there is one, or each has features of its own."""
        return self.strategy.single_head or self.model.own_features

    # -- what happens before the first epoch -----------------------------------------------------------------

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Reads whole mini-batches from the decoded cache instead of collating single images."""
        self.dataloader = EpochLoader(self)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Adds the new task to the model, and resets Adam: its state must not leak between tasks."""
        heads, t = self.model.n_tasks, self.training
        self.task = self.strategy.prepare(self.model)
        new_head = self.model.n_tasks > heads
        self.skipping = self.strategy.skips(all(source.labelled for source in self.experience.sources))
        if self.skipping and new_head:
            self.model.heads[self.task].load_state_dict(self.model.heads[self.task - 1].state_dict())
        learns = self.strategy.by_gradient and not self.skipping
        epochs = t.warmup_epochs + t.epochs if learns else 0
        self.epoch = 0 if new_head or not t.epochs else min(t.warmup_epochs, epochs)
        self.train_epochs = epochs - self.epoch
        self.model.to(self.device)
        self.optimizer = self.strategy.optimiser(list(self.model.parameters()), t)
        self._targeted = {}
        if not self.skipping:
            self._targeted = {source.name: self._with_targets(source) for source in self.sources}
            for source in self.sources:
                source.check_labels()
        self.history = []
        self.images = 0
        self.best = Best()
        self.best_epoch = 0

    def _with_targets(self, source: DecodedDataset) -> DecodedDataset:
        self.model.eval()
        with torch.no_grad():
            targets = self.strategy.targets(self, source)
        return source if targets is None else replace(source, targets=np.asarray(targets, np.float64))

    # -- an epoch --------------------------------------------------------------------------------------------

    def _before_training_epoch(self, **kwargs: Any) -> None:
        epoch, t = self.epoch, self.training
        self.warming_up = epoch < t.warmup_epochs
        self.strategy.before_epoch(self)
        self.model.train()
        # the published code forgets to go back to training mode after its first evaluation ("first")
        adapts = not self.warming_up and (t.bn_adapts == "all" or epoch == t.warmup_epochs)
        self.model.net.train(adapts and self.strategy.adapts_statistics)
        self.model.train_only(self.strategy.trainable(self.model, self.task, self.warming_up))
        for group in self.optimizer.param_groups:
            group["lr"] = self.strategy.rate(t, epoch, self.warming_up) * group.get("scale", 1.0)
        self._losses, self._unseen, self.shown = [], [], []
        # for what draws from the global generator (dropout): an epoch's bits depend on no epoch before
        torch.manual_seed(seed_for("epoch", *(s.name for s in self.sources), self.seed, epoch) % 2**63)
        if epoch == t.warmup_epochs:
            self.strategy.after_warmup(self)
        super()._before_training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        batch = list(self.mbatch)
        task = batch[-1]
        newest = task == self.sources[-1].task
        self._fresh = sum(len(images) for _, images in self.shown) or len(task)
        if len(batch) == 3:
            batch = self._with_pairs(*batch)
            self._fresh = int(newest.sum())
        # a head is a column of the output; a lone experience may call its task 0 whatever came before
        heads = None if self.one_head or newest.all() else torch.where(newest, self.task, task)
        self.mbatch: list[Tensor] = [part.to(self.device, non_blocking=True) for part in batch]
        self._heads = None if heads is None else heads.to(self.device, non_blocking=True)
        if self.mb_x.dtype == torch.uint8:
            self.mbatch[0] = to_float(self.mb_x)

    def _with_pairs(self, x: Tensor, mos: Tensor, task: Tensor) -> list[Tensor]:
        """Puts all pairs within a task, and their labels, into a mini-batch of Avalanche's own loaders."""
        first, second = pairs_within(task.cpu().numpy())
        scores = mos.cpu().double().numpy()
        labels = pair_labels(scores[first], scores[second], self.training.ties)
        return [x, mos, *map(torch.from_numpy, (first, second, labels)), task]

    def forward(self) -> Tensor:
        """Returns (B, heads) scores, or (B, 1) of the current head where every task has its own features."""
        heads = [self.task] if self.model.own_features else range(self.model.n_tasks)
        crops = self.strategy.crops if self.is_training and self.shown else 1
        # a head reads all crops of an image at once
        together = self.model.windows is not None or isinstance(self.model.heads[self.task], RichHead)
        with self.autocast():
            self.features = self.model.features(self.mb_x, self.task).final
            read = self.features.unflatten(0, (-1, crops)) if together else self.features
            self.said = [self.model.said(task, read) for task in heads]
            said = zip(heads, self.said, strict=True)
            scores = torch.stack([score_of(self.model.heads[task], x) for task, x in said], dim=1)
        if together or crops == 1:
            return scores
        return self.strategy.pool(scores.view(-1, crops, scores.shape[1]))

    def autocast(self) -> torch.autocast:
        """Returns the context in which a network runs in the training's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16")

    def scores(self, model: QualityModel, images: Tensor, task: int | None = None) -> Tensor:
        """Applies a model in the training's precision: (B, heads) scores, or (B,) of one task's head."""
        with self.autocast():
            scores: Tensor = model(images) if task is None else model.score(images, task)
            return scores

    def criterion(self) -> Tensor:
        """Returns the loss of the mini-batch."""
        return self.strategy.loss(self)

    @property
    def predicted(self) -> Tensor:
        """The scores (n,) of the mini-batch's images, each under the head of its task, with their graph."""
        output: Tensor = self.mb_output
        return output[:, -1] if self._heads is None else output.gather(1, self._heads[:, None])[:, 0]

    def pair_loss(self) -> Tensor:
        """Returns the fidelity loss of the mini-batch's pairs."""
        return self.loss_of_pairs(self.predicted, *self.pairs)

    def loss_of(self, output: Tensor, mos: Tensor) -> Tensor:
        """Returns the fidelity loss of all pairs under the newest head; what plug-ins take for the criterion.

        Args:
            output: (B, heads) scores.
            mos: (B,) mean opinion scores of images of one dataset.
        """
        one_task = torch.zeros(len(mos), dtype=torch.int64)
        _, _, first, second, labels, _ = self._with_pairs(output, mos, one_task)
        return self.loss_of_pairs(output[:, -1], *(t.to(output.device) for t in (first, second, labels)))

    def loss_on(self, batch: Batch, task: int) -> Tensor:
        """Returns the fidelity loss of another mini-batch's pairs under the head of a task."""
        x, _, first, second, _, labels = (part.to(self.device, non_blocking=True) for part in batch)
        return self.loss_of_pairs(self.scores(self.model, to_float(x), task), first, second, labels)

    def memory_loss(self, memory: Sequence[Tensor]) -> Tensor:
        """Returns the fidelity loss of images of a plug-in's memory: of all pairs within a task, by its head.

        Args:
            memory: [images, scores, task labels], as Avalanche's loaders give them.
        """
        x, _, first, second, labels, task = (t.to(self.device) for t in self._with_pairs(*memory))
        scores = self.scores(self.model, x)
        own = scores[:, -1] if self.one_head else scores.gather(1, task[:, None])[:, 0]
        return self.loss_of_pairs(own, first, second, labels)

    def loss_of_pairs(self, scores: Tensor, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        """Returns the fidelity loss of pairs; 0 without any.

        Args:
            scores: (n,) scores of images.
            first: (p,) positions in `scores` of the first of each pair.
            second: (p,) positions of the second.
            labels: (p,) probability that the first is the better one.
        """
        if not len(first):  # the rest of an epoch can be a single image: it teaches nothing
            return 0 * scores.sum()
        return fidelity(pair_probability(scores[first], scores[second], self.training.slope), labels)

    def _before_backward(self, **kwargs: Any) -> None:
        super()._before_backward(**kwargs)  # adds the penalty
        self._losses.append(self.loss.detach())
        self._unseen.append(self.shown)
        if len(self._unseen) >= self.look_every:
            self._look_at_losses()

    def _look_at_losses(self) -> None:
        """Stops if a loss is NaN or infinite.

        Raises:
            FloatingPointError: Names experience, epoch, step and images.
        """
        if not self._unseen:
            return
        first = len(self._losses) - len(self._unseen)
        recent = torch.stack(self._losses[first:]).flatten().tolist()
        for step, (loss, shown) in enumerate(zip(recent, self._unseen, strict=True), first + 1):
            if not math.isfinite(loss):
                titles = ", ".join(source.title for source in self.sources)
                where = f"{titles}, epoch {self.epoch + 1}, step {step}: the loss is {loss}"
                raise FloatingPointError(where + (f", on {_keys(shown)}" if shown else ""))
        self._unseen = []

    def optimizer_step(self) -> None:
        """Updates the weights; fused Adam assumes that gradients have the weights' memory layout."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.grad.stride() != weight.stride():
                    weight.grad = torch.empty_like(weight).copy_(weight.grad)
        super().optimizer_step()

    def _after_training_iteration(self, **kwargs: Any) -> None:
        super()._after_training_iteration(**kwargs)
        self._count(self._fresh, "warm-up" if self.warming_up else "main")
        trim_memory()

    def _count(self, images: int, part: str) -> None:
        self.images += images
        self.tick(images, "", part)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        self._look_at_losses()
        loss = float(torch.stack(self._losses).mean())
        value = self.validate()
        lr = self.optimizer.param_groups[0]["lr"]
        stage = "warm-up" if self.warming_up else "main"
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "stage": stage,
                "lr": lr,
                "loss": loss,
                "val_srcc": _finite_or_none(value),
            }
        )
        better = value > self.best.srcc or not self.best.weights or not self._can_choose
        if better and self.strategy.may_stay(self):
            state = {k: v.detach().clone() for k, v in self.model.own_state().items()}
            self.best = Best(value if math.isfinite(value) else -math.inf, state, self.strategy.state())
            self.best_epoch = self.epoch + 1
        self.epoch += 1
        super()._after_training_epoch(**kwargs)

    @property
    def is_last_epoch(self) -> bool:
        """Whether the current epoch is the last one of the experience."""
        return self.epoch + 1 == self.training.warmup_epochs + self.training.epochs

    @property
    def _can_choose(self) -> bool:
        """Whether the validation images have labels that differ: if not, the last epoch is kept."""
        labels = [source.labels[source.indices("val")] for source in self.sources]
        return all(np.isfinite(some).all() and len(np.unique(some)) > 1 for some in labels)

    def validate(self) -> float:
        """Returns the SRCC on the validation images under the newest head, the mean over the datasets.

        Of datasets that are learned together with a head each, every one is scored by its own head.

        It is nan where the scores of a dataset are constant, or there are none.
        """
        self.model.eval()
        value = float(np.mean([self._validate(source) for source in self.sources]))
        if math.isfinite(value):
            self.tick(0, f"val SRCC {value:.3f}", "validation")
        return value

    def _validate(self, source: DecodedDataset) -> float:
        mos = source.labels[source.indices("val")]
        self._count(len(mos), "validation")
        if np.isnan(mos).any():  # nothing to compare with
            return math.nan
        newest = self.one_head or source is self.sources[-1]

        def score(images: Tensor) -> Tensor:
            scores: Tensor = self.model.score(images, self.task if newest else source.task)[:, None]
            return scores

        scores = score_images(score, source, "val", 1, self.device, self.training.precision)
        return srcc(np.asarray(scores[:, 0], dtype=np.float64), mos)

    # -- after the last epoch --------------------------------------------------------------------------------

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.last_state = {k: v.detach().clone() for k, v in self.model.own_state().items()}
        if self.best.weights:  # there are epochs
            self.model.load_own_state(self.best.weights)
            self.strategy.load_state(self.best.learned)
        self.model.eval()
        if self.skipping:
            self.history.append(_stage(self.epoch, "skipped", None))
        elif self.strategy.overrides("finish"):
            self._finish()
        consolidate(self, **kwargs)
        self.seen |= {source.name: source for source in self.experience.sources}

    def _finish(self) -> None:
        """Lets the strategy change what was learned, and validates the result."""
        self.strategy.finish(self)
        value = _finite_or_none(self.validate())
        self.history.append(_stage(self.epoch, "finish", value))

    def describe(self, source: DecodedDataset, subset: Subset) -> NDArray[np.float32]:
        """Returns the features (n, d) of a subset's whole images, as the task that learns sees them."""

        def features(images: Tensor) -> Tensor:
            final: Tensor = self.model.features(images, self.task).final
            return final

        def count(images: int) -> None:
            self._count(images, "validation")

        self.model.eval()
        size, precision = self.model.feature_size, self.training.precision
        return score_images(features, source, subset, size, self.device, precision, count)


def _stage(epoch: int, stage: str, value: float | None) -> dict[str, Any]:
    """Returns the line of a history about what happens after the last epoch."""
    return {"epoch": epoch, "stage": stage, "lr": 0.0, "loss": None, "val_srcc": value}


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _keys(shown: ShownImages) -> str:
    """Names the images of a mini-batch, each once."""
    keys = (source.ratings[i].key for source, images in shown for i in images.tolist())
    return join_names(dict.fromkeys(keys))
