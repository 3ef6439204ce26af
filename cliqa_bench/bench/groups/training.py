"""Training after the warm-up: images a second through the real learner, against a bare loop.

Ours is an epoch of the `Learner`, from its first mini-batch to its last: reading the decoded cache, cutting,
mirroring, Avalanche's loop, the strategy; validation is left out. The bare loop takes the same mini-batches
as tensors that are ready on the device and does only what cannot be left out: forward, backward, a fused Adam
step; for LwF the old model's forward pass (with normalisation folded), for SI its element-wise updates. LwF
and SI are measured on their second experience, where they have both.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from cliqa_bench.bench.bare import LOOPS, BareLoop
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import backbone_net, pictures_source
from cliqa_bench.bench.measurement import Measurement, interleaved, seconds, wait_for
from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.quality import QualityModel, model_for
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.system.avalanche_parts import SupervisedPlugin
from cliqa_bench.system.hardware import Precision
from cliqa_bench.system.memory import tune_malloc

IMAGES = 256
"""Images in a measured epoch."""


@dataclass(frozen=True)
class TrainingCase:
    """What is trained.

    Attributes:
        backbone: Name of the backbone; its weights are random.
        training: The protocol: one epoch, no warm-up.
        first: What a strategy that needs it has learned before.
        second: The dataset whose epoch is measured.
        device: Where to train.
    """

    backbone: str
    training: Training
    first: DecodedDataset
    second: DecodedDataset
    device: torch.device

    def batches(self) -> list[Batch]:
        """Returns the mini-batches of the epoch, as the learner gets them."""
        t = self.training
        return list(self.second.train_batches(t, 0, 0, t.batch))


def make_job(setting: Conditions, precision: Precision, images: int = IMAGES) -> TrainingCase:
    """Makes pictures to train on: S-CNN and the preset `quick` on a CPU, ResNet-18 and `paper` on a GPU.

    Args:
        setting: Device and folder.
        precision: Of the training.
        images: In an epoch; with sampled pairs two for each pair.
    """
    device = torch.device(setting.device)
    if device.type == "cuda":
        backbone, preset, shape, files = "resnet18", PRESETS["paper"], (512, 512), 64
    else:
        backbone, preset, shape, files = "scnn", PRESETS["quick"], (128, 160), images
    training = replace(preset, precision=precision, n_pairs=images // 2, warmup_epochs=0, epochs=1)
    folder = setting.folder / f"{precision}-{images}"
    first = pictures_source(folder / "first", [shape] * 2 * preset.batch, "train", seed=0)
    second = pictures_source(folder / "second", [shape] * files, "train", seed=1)
    return TrainingCase(backbone, training, first.on(device), second.on(device), device)


class EpochClock(SupervisedPlugin):
    """Takes the time from the start of an epoch to the end of its last mini-batch."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches
        self.seconds = 0.0

    def before_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        wait_for(strategy.device)
        self._start = time.perf_counter()

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if not self.left:
            wait_for(strategy.device)
            self.seconds = time.perf_counter() - self._start


class OurTraining:
    """Trains the epoch through the real learner, every time from the same weights.

    Args:
        name: Of the strategy.
        job: What is trained.
    """

    def __init__(self, name: str, job: TrainingCase) -> None:
        tune_malloc()
        self.job = job
        self.strategy: Strategy = registry.load("strategies", name)()
        size = registry.load("backbones", job.backbone).feature_size
        net = backbone_net(job.backbone)
        self.model = model_for(self.strategy, net, size, job.training).to(job.device)
        self.seen: list[DecodedDataset] = []
        if self.strategy.depends_on == "prefix":
            self._learner(self.model, self.strategy, job.first)
            self.seen = [job.first]

    def epoch(self) -> tuple[float, Learner]:
        """Trains the epoch; returns its seconds, and the learner."""
        strategy = replace(self.strategy)
        strategy.load_state(self.strategy.state())
        clock = EpochClock(self.job.second.n_batches(self.job.training, self.job.training.batch))
        learner = self._learner(copy.deepcopy(self.model), strategy, self.job.second, clock)
        return clock.seconds, learner

    def bare(self) -> BareLoop:
        """Returns the bare loop that starts where the epoch starts."""
        model = copy.deepcopy(self.model)
        self.strategy.prepare(model)
        net = backbone_net(self.job.backbone) if model.view else model.net
        heads = [head.weight for head in model.heads]
        job = self.job
        loop = LOOPS[self.strategy.name]
        return loop(net, heads, job.batches(), self.strategy, job.training, job.device)  # type: ignore[arg-type]

    def _learner(
        self, model: QualityModel, strategy: Strategy, source: DecodedDataset, *plugins: SupervisedPlugin
    ) -> Learner:
        job = self.job
        learner = Learner(
            model=model, strategy=strategy, training=job.training, device=job.device, plugins=plugins,
            seen=self.seen,
        )  # fmt: skip
        benchmark = quality_benchmark([source], job.training, first_task=len(self.seen))
        learner.train(benchmark.train_stream[0], eval_streams=[])
        return learner


def against_bare(setting: Conditions, name: str, job: TrainingCase) -> Measurement:
    """Measures a strategy's training against its bare loop."""
    ours = OurTraining(name, job)
    bare = ours.bare()
    images = sum(len(batch.x) for batch in bare.batches)
    title, precision = registry.load("backbones", job.backbone).title, job.training.precision
    what = f"{name}, {title}, crops of {job.training.crop}, {precision}"
    sides = [lambda: images / ours.epoch()[0], lambda: images / seconds(bare.epoch)]
    got, limit = interleaved(sides, setting.repeats, what=what)
    return Measurement("training", what, got, "image/s", limit, "the bare loop", reach=0.9)


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    more = 8 if torch.device(setting.device).type == "cuda" else 1
    for precision in setting.precisions:
        job = make_job(setting, precision, IMAGES * more)
        for name in LOOPS:
            yield against_bare(setting, name, job)
