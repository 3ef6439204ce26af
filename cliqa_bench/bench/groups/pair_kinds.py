"""Image passes to a validation SRCC: all pairs of every mini-batch against the paper's list of random pairs.

TSN-IQA's stage after the warm-up on a dataset with as many images as KonIQ-10k has, small ones. "Sampled"
goes once through Table II's 139,274 pairs, two passes for each, at the paper's rate and mini-batch, and is
then validated for the first time, as published; to be fair it is also looked at forty times on the way.
"Batch" has a rate of its own, as the preset quick has, and the last steps at a low one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.benchmarks.decoded import DecodedDataset, open_source
from cliqa_bench.benchmarks.generated.make import make_miniatures
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.metrics import srcc
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.progress import bar

SEEDS = (0, 1, 2)
IMAGES_AT_ONE = 320
"""Of KonIQ-10k's miniature at scale 1."""

IMAGES, PAIRS = 10_073, 139_274
LEVELS = (0.95, 0.98, 0.99)
"""Of what the sampled pairs end with."""


class Schedule(NamedTuple):
    """How a training goes.

    Attributes:
        pieces: How often an epoch is validated.
        epochs: Pieces in all.
        batch: Images, or pairs, in a mini-batch.
        lr: Learning rate.
        decay: Pieces after which it is divided by ten.
    """

    pieces: int
    epochs: int
    batch: int
    lr: float
    decay: tuple[int, ...]


Pairs = Literal["batch", "sampled"]

_PAPER = PRESETS["paper"]
KINDS: dict[Pairs, Schedule] = {
    "batch": Schedule(pieces=4, epochs=32, batch=32, lr=3e-2, decay=(6, 28)),
    "sampled": Schedule(pieces=40, epochs=40, batch=_PAPER.batch, lr=_PAPER.lr, decay=()),
}

Groups = Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class Sliced(DecodedDataset):
    """A dataset whose epochs are cut into pieces, so that each piece is validated.

    Attributes:
        pieces: How many of them an epoch has; what counts as an epoch elsewhere is one piece.
    """

    pieces: int = 1

    def n_batches(self, training: Training, batch: int) -> int:
        """Returns the number of mini-batches in a piece; what is left over in an epoch is not used."""
        return super().n_batches(training, batch) // self.pieces

    def _groups(self, training: Training, epoch: int, seed: int, batch: int) -> Groups:
        each = self.n_batches(training, batch)
        start = epoch % self.pieces * each
        return itertools.islice(
            super()._groups(training, epoch // self.pieces, seed, batch), start, start + each
        )


class Curve(NamedTuple):
    """How a training went.

    Attributes:
        passes: Images that had passed when it was validated.
        srcc: On the validation images.
        test: On the test images, with the weights of the best epoch.
    """

    passes: list[int]
    srcc: list[float]
    test: float


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    root = setting.folder / "data"
    make_miniatures(root, setting.scale * IMAGES / IMAGES_AT_ONE, names=["koniq10k"])
    material = load_materials(["koniq10k"], root)["koniq10k"]
    found = open_source(material, 0, setting.folder / "cache")
    curves = {kind: [_train(setting, found, kind, seed) for seed in SEEDS] for kind in KINDS}
    end = min(curve.srcc[-1] for curve in curves["sampled"])
    published = tuple(float(curve.passes[-1]) for curve in curves["sampled"])
    n = len(found.keys("train"))
    for part in LEVELS:
        what = f"image passes to {part:.0%} of what sampled pairs end with, all pairs of a mini-batch"
        note = f"{n:,} training images, validation SRCC {part * end:.3f}, seeds {', '.join(map(str, SEEDS))}"
        ours, finely = (tuple(_reaches(c, part * end) for c in curves[kind]) for kind in KINDS)
        yield Measurement(
            "pairs", what, ours, "passes", published, "sampled pairs, validated once an epoch as published",
            reach=1 / 20, better="lower", note=note,
        )  # fmt: skip
        yield Measurement(
            "pairs", what, ours, "passes", finely, "sampled pairs, looked at forty times an epoch",
            better="lower", note=note,
        )  # fmt: skip
    gap = fmean(c.test for c in curves["batch"]) - fmean(c.test for c in curves["sampled"])
    yield Measurement(
        "pairs", "final test SRCC less that of sampled pairs, mean over the seeds", (gap,), "SRCC",
        reach=-0.005, note=", ".join(
            f"{k} {fmean(c.test for c in v):.4f} after {v[0].passes[-1]:,} passes" for k, v in curves.items()
        ),
    )  # fmt: skip


def _reaches(curve: Curve, level: float) -> float:
    """Returns the passes after which a level was first reached; nan where it never was."""
    return next((float(n) for n, v in zip(curve.passes, curve.srcc, strict=True) if v >= level), math.nan)


def _train(setting: Conditions, found: DecodedDataset, name: Pairs, seed: int) -> Curve:
    kind = KINDS[name]
    pairs = round(PAIRS * min(1.0, len(found.ratings) / IMAGES))
    source = Sliced(found.dataset, found.ratings, found.split, found.cache, pieces=kind.pieces)
    training = replace(
        PRESETS["quick"], crop=64, resize=0, pairs=name, n_pairs=pairs,
        batch=kind.batch, warmup_epochs=0, epochs=kind.epochs, decay_epochs=kind.decay, lr=kind.lr,
        precision=setting.precision,
    )  # fmt: skip
    images = source.n_batches(training, kind.batch) * kind.batch * (2 if name == "sampled" else 1)  # at most
    passes = [0]
    backbone = registry.load("backbones", "scnn")
    model = QualityModel(backbone.build(None), backbone.feature_size, view=TaskNorms(), seed=seed)
    benchmark = quality_benchmark([source], training, seed)
    with bar(images * kind.epochs, f"{name} pairs, seed {seed}", "image") as shown:

        def tick(done: int, text: str, part: str) -> None:
            if text:  # a piece has been validated
                passes.append(passes[-1])
                shown.note(text)
            elif part != "validation":  # images of the validation are not passes of the training
                passes[-1] += done
                shown.update(done)

        learner = Learner(
            model=model, strategy=registry.load("strategies", "tsn")(), training=training,
            device=setting.device, seed=seed, tick=tick,
        )  # fmt: skip
        learner.train(benchmark.train_stream[0], eval_streams=[])
    values = [-1.0 if h["val_srcc"] is None else h["val_srcc"] for h in learner.history]
    scores = score_images(Scorer(model), source, "test", 1, setting.device, setting.precision)
    test = srcc(np.asarray(scores[:, 0], np.float64), source.mos[source.indices("test")])
    return Curve(passes[:-1], values, test)
