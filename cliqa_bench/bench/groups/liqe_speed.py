"""LIQE, an image tower and a text tower, against what no implementation can leave out.

Scoring is that of CLIP ViT-B/32 with random weights: fifteen windows of each picture. Ours is what `run`
does, from the decoded cache to the score. The limit is open_clip's own tower over windows that are ready in
memory, cosines with text features that are ready, too, and the softmax.

Training is that of S-CNN beside the small text tower, as on the miniatures: an epoch of the `Learner` against
a bare loop of forward, backward and a fused Adam step over the same mini-batches; both learn the texts, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import Pictures, backbone_net, pictures_source
from cliqa_bench.bench.groups.training import EpochClock
from cliqa_bench.bench.measurement import Measurement, interleaved, quickest, seconds, wait_for
from cliqa_bench.benchmarks.aspect_labels import AspectRow
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.models.folding import Scorer, cast_weights
from cliqa_bench.models.quality import QualityModel, cut_windows, model_for
from cliqa_bench.models.text_head import TextHead
from cliqa_bench.strategies._liqe import StepLabels, distortion_loss, quality_loss, scene_loss
from cliqa_bench.strategies.liqe import LIQE
from cliqa_bench.system.avalanche_parts import SupervisedPlugin
from cliqa_bench.system.memory import tune_malloc

BELOW_768 = ((384, 512), (512, 384), (480, 640), (500, 500), (512, 720))
"""Height and width of the pictures that are scored; none is shrunk."""

TIMES = 8
"""How many pictures of each there are."""

WINDOWS_AT_ONCE = (15, 60)
"""Batches of the limit; the quicker one counts."""

DATASETS, IMAGES = 6, 48
"""Datasets of the training, and training images of each."""


# -- scoring -------------------------------------------------------------------------------------------------


class LIQEScoring:
    """Scores a dataset as `run` does.

    Args:
        source: The dataset; all its test images are scored.
        setting: Device and precision.
    """

    def __init__(self, source: DecodedDataset, setting: Conditions) -> None:
        tune_malloc()
        self.source, self.setting = source.on(torch.device(setting.device)), setting
        backbone, strategy = registry.load("backbones", "clip_b32"), LIQE()
        net = backbone.build("random", 0)
        self.model = model_for(strategy, net, backbone.feature_size, replace(PRESETS["paper"], crop=224))
        strategy.prepare(self.model)
        self.model.to(setting.device).eval().requires_grad_(False)
        self.scorer = Scorer(self.model)
        cast_weights(self.scorer.nets, setting.precision)

    def score(self) -> Tensor:
        """Returns the score of every test image, (n, 1)."""
        s = self.setting
        return torch.from_numpy(score_images(self.scorer, self.source, "test", 1, s.device, s.precision))


class LIQELimit:
    """The bare loop.

    Args:
        ours: Whose network, texts and images.
        at_once: Windows in a batch; a multiple of an image's.
    """

    def __init__(self, ours: LIQEScoring, at_once: int) -> None:
        model, self.device = ours.model, torch.device(ours.setting.device)
        kind = torch.bfloat16 if ours.setting.precision == "bf16" else torch.float32
        head = cast("TextHead", model.heads[0])
        net, windows = cast("Any", model.net), model.windows
        assert windows is not None
        self.tower = copy.deepcopy(net.visual).to(kind)
        cut = []
        for _, images in ours.source.eval_batches("test", 1):  # one by one
            ready = cut_windows(to_float(images.to(self.device)), windows).flatten(0, 1)
            cut.append((ready * net.scale + net.shift).to(kind))
        self.windows = len(cut[0])
        self.batches = torch.cat(cut).split(at_once)
        with torch.inference_mode():
            self.scaled_texts = head.logit_scale.exp() * head.text_features().T

    def score(self) -> Tensor:
        """Returns every image's score, (n,), in the order of the batches."""
        grades = torch.arange(1.0, 6, device=self.device)
        scores = []
        with torch.inference_mode():
            for windows in self.batches:
                features = functional.normalize(self.tower(windows).float(), dim=1)
                likeness = (features @ self.scaled_texts).unflatten(0, (-1, self.windows)).mean(dim=1)
                quality = likeness.softmax(dim=1).unflatten(1, (5, -1)).sum(dim=2)
                scores.append(quality @ grades)
            wait_for(self.device)
            return torch.cat(scores)


def liqe_pictures(setting: Conditions) -> DecodedDataset:
    """Writes and decodes the pictures that are scored."""
    return pictures_source(setting.folder / "liqe", BELOW_768 * TIMES, "test")


def scoring_row(ours: LIQEScoring) -> Measurement:
    """Measures scoring against the limit."""
    limit = quickest([LIQELimit(ours, at_once) for at_once in WINDOWS_AT_ONCE], LIQELimit.score)
    n, setting = len(ours.source.keys("test")), ours.setting
    sides = [lambda: n / seconds(ours.score), lambda: n / seconds(limit.score)]
    got, bare = interleaved(sides, setting.repeats, what="scoring, LIQE")
    what = f"LIQE scores {n} pictures, CLIP ViT-B/32, {setting.precision}"
    return Measurement("liqe", what, got, "image/s", bare, "the limit: bare passes", reach=0.95)


# -- training ------------------------------------------------------------------------------------------------


class LIQEStep(NamedTuple):
    """A mini-batch, ready in memory.

    Attributes:
        x: (n, 3, H, W) float32.
        labels: What is to be learned from it.
    """

    x: Tensor
    labels: StepLabels


class _Recorder(SupervisedPlugin):
    """Keeps the mini-batches of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[LIQEStep] = []

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        labels = cast("LIQE", strategy.strategy).step_labels(strategy, strategy.shown)
        self.steps.append(LIQEStep(strategy.mb_x.clone(), labels))


class LIQETraining:
    """Trains an epoch of S-CNN and a small text tower, every time from the same weights.

    Args:
        setting: Device and folder.
        images: Training images of each dataset.
    """

    def __init__(self, setting: Conditions, images: int = IMAGES) -> None:
        tune_malloc()
        self.setting, self.device = setting, torch.device(setting.device)
        self.training: Training = replace(PRESETS["quick"], warmup_epochs=0, epochs=1)
        self.sources = [_with_aspects(setting, i, images) for i in range(DATASETS)]
        size = registry.load("backbones", "scnn").feature_size
        self.model = model_for(LIQE(), backbone_net("scnn"), size, self.training).to(self.device)
        recorder = _Recorder()
        self._learn(recorder)
        self.steps = recorder.steps

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return sum(len(step.x) for step in self.steps)

    def epoch(self) -> tuple[float, Learner]:
        """Trains the epoch; returns its seconds, and the learner."""
        clock = EpochClock(len(self.steps))
        learner = self._learn(clock)
        return clock.seconds, learner

    def bare(self) -> BareLIQE:
        """Returns the bare loop that starts where the epoch starts."""
        return BareLIQE(copy.deepcopy(self.model), self.steps, self.training)

    def _learn(self, plugin: SupervisedPlugin) -> Learner:
        learner = Learner(
            model=copy.deepcopy(self.model), strategy=LIQE(), training=self.training, device=self.device,
            plugins=[plugin],
        )  # fmt: skip
        stream = quality_benchmark(self.sources, self.training, joint=True).train_stream
        learner.train(list(stream), eval_streams=[])
        return learner


class BareLIQE:
    """The bare loop: both towers, three losses, backward, a fused Adam step.

    Attributes:
        weights: What learns.

    Args:
        model: The model without a task; it is trained.
        steps: Mini-batches of an epoch.
        training: The protocol.
    """

    def __init__(self, model: QualityModel, steps: Sequence[LIQEStep], training: Training) -> None:
        strategy = LIQE()
        task = strategy.prepare(model)
        self.weights = strategy.trainable(model, task, warmup=False)
        model.train_only(self.weights)
        self.net, self.head = model.train().net, cast("TextHead", model.heads[task])
        self.steps, self.slope = steps, training.slope
        rate = training.lr * strategy.main_rate
        self.adam = torch.optim.Adam(self.weights, rate, weight_decay=training.weight_decay, fused=True)

    def epoch(self) -> None:
        """Trains an epoch."""
        for x, labels in self.steps:
            self.adam.zero_grad()
            torch.autograd.backward(self._loss(x, labels))
            self.adam.step()
        wait_for(self.weights[0].device)

    def _loss(self, x: Tensor, labels: StepLabels) -> Tensor:
        said = self.head(self.net(x).final)
        found = self.head.marginals(said)
        assert labels.scenes is not None and labels.distortions is not None
        return (
            quality_loss(self.head.score(said), labels, "datasets", self.slope)
            + distortion_loss(found.distortion.clamp(max=1), labels.distortions)
            + scene_loss(found.scene.clamp(max=1), labels.scenes)
        )


def _with_aspects(setting: Conditions, number: int, images: int) -> DecodedDataset:
    """Returns a dataset with a name of its own, whose pictures' scenes and distortions are known."""
    folder = setting.folder / f"learned-{number}"
    source = pictures_source(folder, [(128, 160)] * images, "train", seed=number)
    words = (("white noise", "human"), ("gaussian blur", "plant", "night"), ("other realistic", "others"))
    aspects = {r.key: AspectRow(r.key, words[i % 3]) for i, r in enumerate(source.ratings)}
    kind = cast("type[Pictures]", type("Learned", (Pictures,), {"name": folder.name}))
    made = replace(source, dataset=kind(folder), split=replace(source.split, aspects=aspects))
    return made.on(torch.device(setting.device))


def training_row(ours: LIQETraining) -> Measurement:
    """Measures training against the bare loop."""
    bare = ours.bare()
    sides = [lambda: ours.images / ours.epoch()[0], lambda: ours.images / seconds(bare.epoch)]
    got, limit = interleaved(sides, ours.setting.repeats, what="training, LIQE")
    what = f"LIQE learns from {DATASETS} datasets, S-CNN and a small text tower, fp32"
    return Measurement("liqe", what, got, "image/s", limit, "the bare loop", reach=0.9)


# -- texts ---------------------------------------------------------------------------------------------------


def texts_row(ours: LIQEScoring) -> Measurement:
    """Measures the 495 texts of CLIP's text tower: again, with the same weights, against computed anew."""
    head = cast("TextHead", ours.model.heads[0])
    tower = head.tower
    with torch.inference_mode():
        again = partial(seconds, head.text_features)
        anew = partial(seconds, lambda: functional.normalize(tower(), dim=1))
        got, first = interleaved([again, anew], ours.setting.repeats, what="texts, LIQE")
    what = "LIQE's 495 texts, the weights unchanged"
    return Measurement("liqe", what, got, "s", first, "computed anew", reach=0.1, better="lower")


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    yield training_row(LIQETraining(setting))
    scoring = LIQEScoring(liqe_pictures(setting), setting)
    yield scoring_row(scoring)
    yield texts_row(scoring)
