"""Speed on a GPU: training and scoring against bare loops, all tasks in one pass against six trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from cliqa_bench.bench.bare import BareLoop
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import backbone_net, pictures_source, tsn_model
from cliqa_bench.bench.groups import score_speed, training
from cliqa_bench.bench.measurement import Measurement, interleaved, synchronised
from cliqa_bench.bench.six_in_one import NORM_OF, Arrangement, SixInOne
from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
from cliqa_bench.config import PRESETS
from cliqa_bench.extensions import registry
from cliqa_bench.system.usage import GpuLoad

TASKS = 6

FEW = 32
"""Most images that are scored the published way: some 24 a second on an H200."""

SECONDS_BUSY = 2.0
"""How long the GPU's utilisation is watched."""


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group; on a CPU at toy size, to rehearse."""
    gpu = torch.device(setting.device).type == "cuda"
    job = training.make_job(setting, setting.precision, 2048 if gpu else 32)
    ours = training.OurTraining("tsn", job)
    yield replace(training.against_bare(setting, "tsn", job), row="gpu-speed")
    yield busy(setting, "training TSN", lambda: ours.epoch())
    for shape, n in (
        {(384, 512): 512, (768, 1024): 256}.items() if gpu else {(48, 64): 4, (64, 48): 4}.items()
    ):
        yield from scoring(setting, shape, n)
    for images, crop in ((16, 96), (64, 384)) if gpu else ((4, 32),):
        yield from six_in_one(setting, images, crop, steps=20 if gpu else 1)
    for name in ("lwf", "si"):
        yield replace(training.against_bare(setting, name, job), row="gpu-speed")


def scoring(setting: Conditions, shape: tuple[int, int], n: int) -> Iterator[Measurement]:
    """Measures the scoring of six tasks and a gate, against seven bare passes and the published way."""
    what = f"{shape[0]} x {shape[1]}"
    source = pictures_source(setting.folder / f"limit {what}", [shape] * n, "test")
    ours = score_speed.OurScoring(_backbone(setting), source, setting)
    yield replace(score_speed.limit_row(ours, what), row="gpu-speed", reach=0.95)
    yield busy(setting, f"scoring, {what}", ours.score)
    del ours, source  # the other process needs memory, too
    published = score_speed.against_published(setting, _backbone(setting), shape, min(n, FEW))
    yield replace(published, row="gpu-speed")


def busy(setting: Conditions, what: str, work: Callable[[], object]) -> Measurement:
    """Measures for what share of the time the GPU is busy while work is repeated."""
    device = torch.device(setting.device)
    with GpuLoad(device) as load:
        spent = 0.0
        while spent < SECONDS_BUSY:
            spent += synchronised(work, device)
    return Measurement("gpu-speed", f"utilisation, {what}", (load.mean,), "%")


def six_in_one(setting: Conditions, images: int, crop: int, steps: int) -> Iterator[Measurement]:
    """Measures all tasks of TSN in one pass against as many trainings, both as bare loops."""
    device = torch.device(setting.device)
    backbone = _backbone(setting)
    source = pictures_source(setting.folder / f"six {crop}", [(crop + 32, crop + 32)] * images, "train")
    case = SixTrainings(backbone, source, setting, crop, images, steps)
    count = TASKS * sum(len(batch.x) for batch in case.batches)
    six = [case.one(task) for task in range(TASKS)]

    def apart() -> None:
        for loop in six:
            loop.epoch()

    layouts: tuple[Arrangement, ...] = tuple(NORM_OF)
    together = [case.together(layout).epoch for layout in layouts]
    sides = [partial(_rate, count, side, device) for side in (*together, apart)]
    *got, reference = interleaved(sides, setting.repeats, what="six in one")
    title = registry.load("backbones", backbone).title
    for layout, rates in zip(layouts, got, strict=True):
        what = (
            f"six tasks of TSN in one pass ({layout}), {title}, {images} crops of {crop}, {setting.precision}"
        )
        yield Measurement(
            "gpu-speed", what, rates, "image/s", reference, "six trainings, bare loops",
            reach=2.5 if images == 16 else None,
        )  # fmt: skip


def _backbone(setting: Conditions) -> str:
    return "resnet18" if torch.device(setting.device).type == "cuda" else "scnn"


def _rate(images: int, side: Callable[[], None], device: torch.device) -> float:
    return images / synchronised(side, device)


class SixTrainings:
    """The same mini-batches for bare loops of one task and of all.

    Args:
        backbone: Name of the backbone; its weights are random.
        source: Training images.
        setting: Device and precision.
        crop: Side of the crops.
        batch: Images in a task's mini-batch.
        steps: Mini-batches.
    """

    def __init__(
        self, backbone: str, source: DecodedDataset, setting: Conditions, crop: int, batch: int, steps: int
    ) -> None:
        self.device, self.backbone = torch.device(setting.device), backbone
        self.training = replace(
            PRESETS["paper"], precision=setting.precision, crop=crop, pairs="batch", batch=batch
        )
        self.batches: list[Batch] = [
            one for epoch in range(steps) for one in source.train_batches(self.training, epoch, 0, batch)
        ]
        state = tsn_model(backbone, TASKS).own_state()
        self.heads = [state[f"heads.{task}.weight"] for task in range(TASKS)]
        self.strategy = registry.load("strategies", "tsn")()

    def one(self, task: int) -> BareLoop:
        """Returns the loop of a task."""
        net, head = backbone_net(self.backbone), self.heads[task].detach().clone().to(self.device)
        return BareLoop(net, [head], self.batches, self.strategy, self.training, self.device)

    def together(self, layout: Arrangement) -> SixInOne:
        """Returns the loop of all tasks."""
        rate = self.training.lr * self.strategy.main_rate
        net, same = backbone_net(self.backbone), [self.batches] * TASKS
        return SixInOne(net, self.heads, same, self.training, rate, self.device, layout)
