"""What LIQE's two strategies share: three losses of one joint probability, and how they are weighted.

Zhang, Zhai, Wei, Yang, Ma: "Blind Image Quality Assessment via Vision-Language Correspondence: A Multitask
Learning Perspective", CVPR 2023. The head says how probable each combination of quality, scene and distortion
is (`models.text_head`). Its marginals learn by fidelity losses: the quality from pairs of images of one
dataset (Eq. 6), the scene as a many-hot label (Eq. 7), the distortion as a one-hot label (Eq. 9). Their sum
is weighted by how fast each of them falls (Eq. 11).

`docs/liqe.md` says where paper and published code disagree, and which option stands for which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.aspects import Tasks
from cliqa_bench.benchmarks.aspect_labels import (
    Aspects,
    distortion_targets,
    scene_targets,
    unknown_aspects,
)
from cliqa_bench.errors import UserError
from cliqa_bench.strategies._exemplars import Positions
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from cliqa_bench.benchmarks.decoded import DecodedDataset
    from cliqa_bench.benchmarks.pixels.windows import Windows
    from cliqa_bench.config import Training
    from cliqa_bench.learning.learner import Learner, ShownImages
    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.models.text_head import TextHead

Pooling = Literal["datasets", "pairs"]

EPS = 1e-8
"""Under every root (published code; not in the paper): keeps its slope finite at 0."""

PUBLISHED_VIEWS = 3
"""Crops of a training image in the paper."""

PUBLISHED_RATE = 5e-6
PUBLISHED_DECAY = 1e-3
"""AdamW's rate and weight decay in the published code."""
PERIOD, HALF_PERIOD = 9, 5
"""Epochs after which the published code's rates start again, and after which they rise again."""

ASPECTS, TRUE_ASPECTS = "aspects", "true_aspects"
"""Names of the answers' columns: how probable each scene and distortion is, and which an image has."""


class StepLabels(NamedTuple):
    """The labels of the images of a mini-batch, those of a dataset side by side.

    Attributes:
        first: (p,) int64 positions of the first image of each pair; pairs of a dataset are side by side, too.
        second: (p,) of the second.
        better: (p,) probability that the first is the better one.
        pairs: How many pairs each dataset of the mini-batch has.
        scenes: (n, 9) many-hot; None if no scene is learned.
        distortions: (n, 11) one-hot; None if no distortion is learned.
    """

    first: Tensor
    second: Tensor
    better: Tensor
    pairs: list[int]
    scenes: Tensor | None
    distortions: Tensor | None


# -- the losses ----------------------------------------------------------------------------------------------


def quality_loss(
    scores: Tensor, labels: StepLabels, pooling: Pooling, slope: Literal["paper", "code"]
) -> Tensor:
    """Returns the fidelity loss of the pairs; 0 without any.

    Args:
        scores: (n,) of the images.
        labels: What they are to be.
        pooling: "datasets": the mean over the datasets of the mean over a dataset's pairs; one without pairs
            counts as 0. "pairs": the mean over all pairs.
        slope: As in `pair_probability`.
    """
    from cliqa_bench.learning.losses import fidelity, pair_probability

    probability = pair_probability(scores[labels.first], scores[labels.second], slope)
    if pooling == "pairs":
        return fidelity(probability, labels.better, EPS) if len(probability) else 0 * scores.sum()
    each = zip(probability.split(labels.pairs), labels.better.split(labels.pairs), strict=True)
    means = [fidelity(said, true, EPS) for said, true in each if len(said)]
    return sum(means, 0 * scores.sum()) / len(labels.pairs)


def scene_loss(probability: Tensor, scenes: Tensor) -> Tensor:
    """Returns the mean over images and scenes of the fidelity loss of "shows it" or "does not".

    Args:
        probability: (n, 9).
        scenes: (n, 9) many-hot.
    """
    from cliqa_bench.learning.losses import fidelity

    return fidelity(probability, scenes, EPS)


def distortion_loss(probability: Tensor, distortions: Tensor) -> Tensor:
    """Returns the mean over images of the fidelity loss among all distortions.

    Args:
        probability: (n, 11).
        distortions: (n, 11) one-hot.
    """
    return (1 - (probability * distortions + EPS).sqrt().sum(dim=1)).mean()


# -- their weights -------------------------------------------------------------------------------------------


class DynamicWeights:
    """Weights each loss by how fast it falls: one that falls slowly gets more ("dynamic weight average").

    An epoch's weights follow from the mean losses of the two epochs before, and sum to the number of losses;
    in the first two epochs all are 1.

    Args:
        temperature: The higher, the more equal the weights.

    Attributes:
        means: (epochs, losses) the mean losses of the epochs that are over, of which the last two count.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.means: list[Floats] = []
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, losses: Tensor) -> None:
        """Notes the unweighted losses (k,) of a step."""
        losses = losses.detach().double()
        self._sum = losses if self._sum is None else self._sum + losses
        self._steps += 1

    def next_epoch(self) -> None:
        """Begins an epoch: what was noted is the mean of the one before."""
        self.means = self.with_current()[-2:]
        self._sum, self._steps = None, 0

    def with_current(self) -> list[Floats]:
        """Returns the means with that of the epoch at hand, if it has begun."""
        if self._sum is None:
            return self.means
        return [*self.means, self._sum.cpu().numpy() / self._steps]

    def weights(self, losses: int) -> Floats:
        """Returns the weights (k,) of this epoch."""
        if len(self.means) < 2:
            return np.ones(losses)
        ratio = self.means[-1] / self.means[-2]
        raised = np.exp((ratio - ratio.max()) / self.temperature)
        return np.asarray(losses * raised / raised.sum(), np.float64)


# -- the strategy --------------------------------------------------------------------------------------------


@dataclass
class TextMultitask(Strategy):
    """Learns quality, scene and distortion from the texts' joint probability, with a single head.

    Attributes:
        tasks: What is learned, and what the texts name: quality, scene, distortion ("qsd"), or fewer.
        weighting: "dwa" as published, or "equal".
        temperature: Of "dwa"; above 0.
        freeze_text: Whether the text tower stays as it is.
        learn_scale: Whether the scale of the cosines learns (paper) or stays (published code).
        pooling: How the quality loss is averaged: over "datasets" (published code) or all "pairs" (paper).
        labels: Scenes and distortions as LIQE's files have them ("published") or with those of LIVE's fast
            fading "repaired".
        ties: Label of a pair with equal scores: as the protocol says, or "half" (LIQE's code).
        distortion: Loss of the distortion: "multi-class" (paper), or "binary", as that of the scene (which
            the published code takes for the tasks "qd").
        views: Crops of a training image; 0 for the paper's 3 where the backbone was pre-trained with a text
            tower, else 1: three crops of a miniature are almost the same, and cost three times as much.
        schedule: "code": AdamW at 5e-6 with a weight decay of 1e-3, and a cosine with restarts every nine
            epochs. "paper": the same, with one cosine over all epochs. "suite": Adam with the protocol's
            rates and decays. "backbone": "code" where the backbone was pre-trained with a text tower, else
            "suite".
        warmup_rate: Factor of the protocol's rate in the warm-up, with "suite". Cosines are multiplied with
            100: on the miniatures a quarter of the usual rate gave a validation SRCC of .774, the usual
            one .66 after seven of the eight epochs (seed 0).
        main_rate: The same after the warm-up.
    """

    rows: ClassVar[dict[str, str]] = {}
    citation: ClassVar[str | tuple[str, ...]] = (
        "W. Zhang, G. Zhai, Y. Wei, X. Yang, K. Ma: Blind image quality assessment via vision-language "
        "correspondence: a multitask learning perspective. CVPR 2023"
    )

    tasks: Tasks = "qsd"
    weighting: Literal["dwa", "equal"] = "dwa"
    temperature: float = 2.0
    freeze_text: bool = False
    learn_scale: bool = False
    pooling: Pooling = "datasets"
    labels: Literal["published", "repaired"] = "published"
    ties: Literal["protocol", "half"] = "protocol"
    distortion: Literal["multi-class", "binary"] = "multi-class"
    views: int = 0
    schedule: Literal["backbone", "code", "paper", "suite"] = "backbone"
    warmup_rate: float = 0.05
    main_rate: float = 0.005

    def __post_init__(self) -> None:
        """Starts with nothing learned.

        Raises:
            UserError: If a hyper-parameter is out of its range.
        """
        super().__post_init__()
        self.require("temperature", above=0)
        self.require("views", least=0)
        self._dwa = DynamicWeights(self.temperature)
        self._targets: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._pretrained = False
        self._lonely = 0  # mini-batches with a single image of a dataset

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head."""
        return True

    @property
    def reads_aspects(self) -> bool:
        """Whether it learns scenes or distortions."""
        return self.tasks != "q"

    @property
    def crops(self) -> int:
        """How many crops of each image a mini-batch holds."""
        return self.views or (PUBLISHED_VIEWS if self._pretrained else 1)

    def new_head(self, features: int) -> nn.Module:
        """Makes the head that compares a picture with the texts."""
        from cliqa_bench.models.text_head import TextHead

        return TextHead(features, self.tasks)

    def windows(self, training: Training) -> Windows | None:
        """Returns the published windows of 224 x 224 if that is the crop; else an image is seen whole."""
        from cliqa_bench.benchmarks.pixels.windows import Windows

        return Windows() if training.crop == Windows.size else None

    # -- how it learns ---------------------------------------------------------------------------------------

    def protocol(self, training: Training) -> Training:
        """Returns the protocol with all pairs of a mini-batch; without a warm-up if only texts had one."""
        training = replace(training, pairs="batch")
        if self.freeze_text and not self.learn_scale and training.epochs:
            return replace(training, warmup_epochs=0)
        return training

    def prepare(self, model: QualityModel) -> int:
        """Adds the head, the first time, and starts an experience."""
        task = super().prepare(model)
        self._pretrained = _text_head(model, task).pretrained
        self._dwa = DynamicWeights(self.temperature)
        self._targets = {}
        return task

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the parameters of the head that may learn; after the warm-up the backbone's, too."""
        head = _text_head(model, task).learnable(text=not self.freeze_text, scale=self.learn_scale)
        return head if warmup else [*model.net.plastic.parameters(), *head]

    def optimiser(self, parameters: list[nn.Parameter], training: Training) -> Optimizer:
        """Returns AdamW as published, or the suite's Adam."""
        import torch

        made = super().optimiser(parameters, training)
        if self._schedule == "suite":
            return made
        fused = made.defaults["fused"]
        return torch.optim.AdamW(parameters, PUBLISHED_RATE, weight_decay=PUBLISHED_DECAY, fused=fused)

    def rate(self, training: Training, epoch: int, warmup: bool) -> float:
        """Returns the learning rate of an epoch, counted from 0."""
        if self._schedule == "suite":
            return super().rate(training, epoch, warmup)
        if self._schedule == "paper":
            return cosine_rate(epoch, training.warmup_epochs + training.epochs)
        return published_rate(epoch)

    @property
    def _schedule(self) -> Literal["code", "paper", "suite"]:
        if self.schedule != "backbone":
            return self.schedule
        return "code" if self._pretrained else "suite"

    def before_epoch(self, learner: Learner) -> None:
        """Lets the weights follow the losses of the epochs before."""
        self._dwa.next_epoch()

    def loss(self, learner: Learner) -> Tensor:
        """Returns the weighted sum of the losses, in the warm-up too.

        Raises:
            UserError: If the mini-batch is a plug-in's: what it shows is not known.
        """
        import torch

        if not learner.shown:
            raise UserError(f"{self.name} cannot learn from a plug-in's mini-batches; leave the plug-in out")
        losses = torch.stack(self.losses(learner, learner.said[learner.task], learner.shown))
        self._dwa.add(losses)
        return self.weighted(losses)

    def weighted(self, losses: Tensor) -> Tensor:
        """Returns the sum of losses (k,), each times its weight of this epoch."""
        n = len(losses)
        weights = self._dwa.weights(n) if self.weighting == "dwa" else np.ones(n)
        return (losses * losses.new_tensor(weights)).sum()

    def losses(self, learner: Learner, said: Tensor, shown: ShownImages) -> list[Tensor]:
        """Returns the unweighted losses of images: quality, distortion, scene, as far as they are learned.

        Args:
            learner: The learner.
            said: (n, 5, 9, 11) the output of the head for them, see `TextHead.forward`.
            shown: Whose images they are, in their order.
        """
        head = _text_head(learner.model, learner.task)
        labels = self.step_labels(learner, shown)
        found = head.marginals(said)
        losses = [quality_loss(head.score(said), labels, self.pooling, learner.training.slope)]
        # a sum of probabilities may exceed 1 by rounding, and a root below 0 is none
        if labels.distortions is not None:
            loss = distortion_loss if self.distortion == "multi-class" else scene_loss
            losses.append(loss(found.distortion.clamp(max=1), labels.distortions))
        if labels.scenes is not None:
            losses.append(scene_loss(found.scene.clamp(max=1), labels.scenes))
        return losses

    # -- what is to be learned -------------------------------------------------------------------------------

    def step_labels(self, learner: Learner, shown: ShownImages) -> StepLabels:
        """Returns the labels of the images of a mini-batch."""
        import torch

        pairs = [self._pairs_of(learner, source.labels[images.numpy()]) for source, images in shown]
        starts = np.cumsum([0, *(len(images) for _, images in shown[:-1])])
        columns = (
            np.concatenate([first + start for (first, _, _), start in zip(pairs, starts, strict=True)]),
            np.concatenate([second + start for (_, second, _), start in zip(pairs, starts, strict=True)]),
            np.concatenate([better for _, _, better in pairs]),
        )
        first, second, better = (torch.from_numpy(column).to(learner.device) for column in columns)
        counts = [len(better) for _, _, better in pairs]
        if not self.reads_aspects:
            return StepLabels(first, second, better, counts, None, None)
        known = [[part[images.numpy()] for part in self._targets_of(source)] for source, images in shown]
        scenes, distortions = (
            torch.from_numpy(np.concatenate([row[i] for row in known])).to(learner.device) for i in (0, 1)
        )
        return StepLabels(
            first, second, better, counts,
            scenes if "s" in self.tasks else None, distortions if "d" in self.tasks else None,
        )  # fmt: skip

    def _pairs_of(self, learner: Learner, scores: Floats) -> tuple[Positions, Positions, NDArray[np.float32]]:
        """Returns all pairs of a dataset's images in a mini-batch, and which first ones are the better."""
        from cliqa_bench.benchmarks.pairs import batch_pairs, pair_labels

        first, second = batch_pairs(len(scores))
        better = pair_labels(scores[first], scores[second], learner.training.ties)
        if self.ties == "half":
            better[scores[first] == scores[second]] = 0.5
        self._lonely += len(scores) == 1
        return first, second, better

    def _targets_of(self, source: DecodedDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns scenes (n, 9) and distortions (n, 11) of all images of a dataset."""
        if source.name not in self._targets:
            known = self.aspects_of(source)
            if not known:
                raise unknown_aspects(self.name, source.title)
            every = [known[rating.key] for rating in source.ratings]
            self._targets[source.name] = scene_targets(every), distortion_targets(every)
        return self._targets[source.name]

    def aspects_of(self, source: DecodedDataset) -> dict[str, Aspects]:
        """Returns scene and distortion of each image, as `labels` says; {} if they are not known."""
        return source.repaired_aspects if self.labels == "repaired" else source.aspects

    # -- what it answers and passes on -----------------------------------------------------------------------

    def extras(self, model: QualityModel) -> dict[str, nn.Module]:
        """Returns the network that says how probable each scene and each distortion is."""
        from cliqa_bench.strategies._aspect_readout import AspectReadout

        return {ASPECTS: AspectReadout(model)} if self.reads_aspects else {}

    def truths(self, source: DecodedDataset) -> dict[str, NDArray[np.float32]]:
        """Returns which scenes and which distortion the test images have, in the columns of `extras`."""
        known = self.aspects_of(source) if self.reads_aspects else {}
        if not known:
            return {}
        every = [known[key] for key in source.keys("test")]
        made = {"s": scene_targets, "d": distortion_targets}
        parts = [made[task](every) for task in made if task in self.tasks]
        return {TRUE_ASPECTS: np.concatenate(parts, axis=1)}

    def state(self) -> dict[str, Tensor]:
        """Returns how many mini-batches had a single image of a dataset, which no pair could be made of."""
        import torch

        return {"lonely": torch.tensor(self._lonely)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        self._lonely = int(state["lonely"])

    def progress(self) -> dict[str, Tensor] | None:
        """Returns the mean losses of the last epochs, from which the weights follow."""
        import torch

        return {f"mean.{i}": torch.from_numpy(mean) for i, mean in enumerate(self._dwa.with_current()[-2:])}

    def load_progress(self, progress: dict[str, Tensor], learner: Learner) -> None:
        """Takes back what `progress` returned."""
        self._dwa = DynamicWeights(self.temperature)
        self._dwa.means = [
            progress[name].cpu().numpy() for name in sorted(progress) if name.startswith("mean.")
        ]


def _text_head(model: QualityModel, task: int) -> TextHead:
    return cast("TextHead", model.heads[task])


def published_rate(epoch: int) -> float:
    """Returns the published code's rate: half a cosine down in five epochs and up in four, and so on.

    It has the form of PyTorch's annealing with `T_max` 5; the epoch in which that would be 0 is left out.
    """
    place = epoch % PERIOD
    return cosine_rate(place + (place >= HALF_PERIOD), HALF_PERIOD)


def cosine_rate(epoch: int, epochs: int) -> float:
    """Returns the rate after so many of the epochs in which it falls to 0 along half a cosine."""
    return PUBLISHED_RATE * (1 + math.cos(math.pi * epoch / epochs)) / 2
