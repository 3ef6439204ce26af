"""Scoring test images with a six-task TSN: gate features and six heads, seven passes through the network.

Ours is what `run` does: pixels from the decoded cache, batches by shape, then `score_images`, once
for the gate's features and once for all heads. The limit is a bare loop of the same seven passes over tensors
that are ready on the device in the precision of the computation, channels last, with normalisation folded,
in batches of the better of two sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import SIX_SETS, backbone_net, pictures_source, tsn_model
from cliqa_bench.bench.measurement import Measurement, interleaved, quickest, seconds
from cliqa_bench.bench.published_way import Task, elsewhere
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.extensions import registry
from cliqa_bench.learning.scoring import pixels_in_batch, score_images
from cliqa_bench.models.folding import Scorer, cast_weights, folded
from cliqa_bench.system.memory import tune_malloc

MINIATURES = ((96, 128), (128, 96), (128, 128), (128, 160))
"""Height and width of pictures as small as the miniatures'."""

SIZES = {(128, 128): 32, (384, 512): 8, (768, 1024): 4}
"""Height and width of the images scored the published way, and how many of them a repeat has on a CPU."""

ON_GPU = 16
"""How many times as many images a repeat has on a GPU."""


class OurScoring:
    """Scores a dataset as `run` does, with an untrained six-task TSN.

    Args:
        backbone: Name of the backbone.
        source: The dataset; all its test images are scored.
        setting: Device and precision.
        tasks: How many tasks.
    """

    def __init__(self, backbone: str, source: DecodedDataset, setting: Conditions, tasks: int = 6) -> None:
        tune_malloc()
        self.source, self.setting = source.on(torch.device(setting.device)), setting
        self.scorer = Scorer(tsn_model(backbone, tasks).to(setting.device))
        self.gate = folded(backbone_net(backbone).to(setting.device))
        for nets in (self.scorer.nets, self.gate):
            cast_weights(nets, setting.precision)
        self.title = registry.load("backbones", backbone).title
        self.widths = sum(registry.load("backbones", backbone).stage_sizes), tasks

    def stages(self, images: Tensor) -> Tensor:
        """Returns the gate's features of a batch, all stages side by side."""
        return torch.cat(self.gate.gate_features(images), dim=1)

    def heads(self) -> Tensor:
        """Returns every head's score of every test image, (n, tasks)."""
        return self._of(self.scorer, self.widths[1])

    def score(self) -> tuple[Tensor, Tensor]:
        """Returns the gate's features, (n, channels of all stages), and the scores, (n, tasks)."""
        return self._of(self.stages, self.widths[0]), self.heads()

    def _of(self, network: Callable[[Tensor], Tensor], width: int) -> Tensor:
        s = self.setting
        return torch.from_numpy(score_images(network, self.source, "test", width, s.device, s.precision))


class Limit:
    """The bare loop: seven networks, tensors ready in memory, nothing else.

    Args:
        ours: Whose networks and images.
        pixels: Most pixels in a batch.
    """

    def __init__(self, ours: OurScoring, pixels: int) -> None:
        self.device = torch.device(ours.setting.device)
        kind = torch.bfloat16 if ours.setting.precision == "bf16" else torch.float32
        # copies: ours must keep their float32 weights
        nets = [folded(net) for net in (ours.gate, *ours.scorer.nets) if isinstance(net, FeatureNet)]
        self.nets = [net.to(kind).to(memory_format=torch.channels_last) for net in nets]
        assert isinstance(ours.scorer.heads, torch.Tensor)
        self.heads = ours.scorer.heads.clone()
        self.batches = [
            to_float(images.to(self.device)).to(kind)
            for _, images in ours.source.eval_batches("test", pixels)
        ]

    def score(self) -> Tensor:
        """Returns every head's score, (n, tasks), in the order of the batches."""
        gate, *nets = self.nets
        scores = []
        with torch.inference_mode():
            for images in self.batches:
                gate(images)
                finals = [net(images).final for net in nets]
                scores.append(torch.stack([f @ h for f, h in zip(finals, self.heads, strict=True)], dim=1))
            done = torch.cat(scores)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return done


def quickest_limit(ours: OurScoring) -> Limit:
    """Returns the bare loop with the batches that suit it best: as large as ours, or four times as large."""
    pixels = pixels_in_batch(torch.device(ours.setting.device), ours.setting.precision)
    return quickest([Limit(ours, pixels), Limit(ours, 4 * pixels)], Limit.score)


def against_limit(
    setting: Conditions, backbone: str, shapes: Sequence[tuple[int, int]], what: str
) -> Measurement:
    """Measures our scoring of test images of given shapes against the limit."""
    source = pictures_source(setting.folder / what.replace(" ", "-"), shapes, "test")
    return limit_row(OurScoring(backbone, source, setting), what)


def limit_row(ours: OurScoring, what: str) -> Measurement:
    """Measures prepared scoring against the limit."""
    limit, n, setting = quickest_limit(ours), len(ours.source.keys("test")), ours.setting
    sides = [lambda: n / seconds(ours.score), lambda: n / seconds(limit.score)]
    got, bare = interleaved(sides, setting.repeats, what=what)
    what = f"six-task TSN, {ours.title}, {what}, {setting.precision}"
    return Measurement("scoring", what, got, "image/s", bare, "the limit: seven bare passes", reach=0.9)


def against_published(setting: Conditions, backbone: str, shape: tuple[int, int], n: int) -> Measurement:
    """Measures our scoring of images of one shape, cache warm, against the published way."""
    height, width = shape
    folder = setting.folder / f"{height}x{width}"
    source = pictures_source(folder, [shape] * n, "test")
    ours = OurScoring(backbone, source, setting)
    with elsewhere(Task(str(folder), backbone, setting.device, setting.threads)) as published:
        sides = [lambda: n / seconds(ours.score), lambda: n / published.seconds()]
        got, theirs = interleaved(sides, setting.repeats, what=f"{height} x {width}, published way")
    cuda = torch.device(setting.device).type == "cuda"
    title = registry.load("backbones", backbone).title
    return Measurement(
        "scoring", f"six-task TSN, {title}, {height} x {width}, {setting.precision}", got, "image/s",
        theirs, f"the published way, {'fp16' if cuda else 'fp32'}", reach=20 if cuda else 4,
    )  # fmt: skip


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    more = ON_GPU if torch.device(setting.device).type == "cuda" else 1
    yield against_limit(setting, "resnet18", SIX_SETS * 4 * more, "shapes of the six sets")
    yield against_limit(setting, "scnn", MINIATURES * 32 * more, "shapes of miniatures")
    for shape, n in SIZES.items():
        yield against_published(setting, "resnet18", shape, n * more)
