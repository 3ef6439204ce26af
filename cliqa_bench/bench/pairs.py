"""Image passes to a validation SRCC: all pairs of every mini-batch against the paper's list of random pairs.

TSN-IQA's stage after the warm-up on a dataset with as many images as KonIQ-10k has, small ones. Both kinds
see 64 images a step at the same learning rate. "Sampled" goes through Table II's 139,274 pairs, two passes
for each, and is validated at the end, as published, and also after every 7,000 passes; "batch" is validated
after every epoch, which is as many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import registry
from cliqa_bench.bench.measured import Measured
from cliqa_bench.bench.setting import Setting
from cliqa_bench.benchmarks.generated.make import make_miniatures
from cliqa_bench.benchmarks.material import load_materials
from cliqa_bench.benchmarks.source import Source, open_source
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.evaluate import score_images
from cliqa_bench.folding import Scorer
from cliqa_bench.learner import Learner
from cliqa_bench.metrics import srcc
from cliqa_bench.model import QualityModel
from cliqa_bench.progress import bar

SEEDS = (0, 1, 2)
IMAGES_AT_ONE = 320
"""Of KonIQ-10k's miniature at scale 1."""

IMAGES, PAIRS, STEP = 10_073, 139_274, 64
EPOCHS = 12
"""Of "batch"; "sampled" has one, as many passes as forty of these."""

Groups = Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]


class Sliced(Source):
    """A dataset whose epochs of sampled pairs are cut into pieces, so that each piece is validated."""

    pieces: int = 1

    def n_pairs(self, training: Training) -> int:
        """Returns the number of pairs in a piece."""
        whole = super().n_pairs(training)
        return -(-whole // self.pieces) if training.pairs == "sampled" else whole

    def _groups(self, training: Training, epoch: int, seed: int, batch: int) -> Groups:
        if training.pairs == "batch":
            return super()._groups(training, epoch, seed, batch)
        each = self.n_batches(training, batch)
        whole = Source(self.dataset, self.ratings, self.split, self.cache)
        groups = whole._groups(training, epoch // self.pieces, seed, batch)
        start = epoch % self.pieces * each
        return itertools.islice(groups, start, start + each)


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


def measure(setting: Setting) -> Iterator[Measured]:
    """Gives the rows of the group."""
    root = setting.folder / "data"
    make_miniatures(root, setting.scale * IMAGES / IMAGES_AT_ONE, names=["koniq10k"])
    material = load_materials(["koniq10k"], root)["koniq10k"]
    found = open_source(material, 0, setting.folder / "cache")
    curves = {kind: [_train(setting, found, kind, seed) for seed in SEEDS] for kind in ("batch", "sampled")}
    # a level that all reach
    level = 0.99 * min(max(curve.srcc) for of_kind in curves.values() for curve in of_kind)
    ours = tuple(float(_reaches(curve, level)) for curve in curves["batch"])
    finely = tuple(float(_reaches(curve, level)) for curve in curves["sampled"])
    published = tuple(float(curve.passes[-1]) for curve in curves["sampled"])
    n = len(found.keys("train"))
    note = f"{n:,} training images, validation SRCC {level:.3f}, seeds {', '.join(map(str, SEEDS))}"
    yield Measured(
        "pairs", "image passes, all pairs of a mini-batch", ours, "passes", published,
        "sampled pairs, validated once an epoch as published", reach=1 / 20, better="lower", note=note,
    )  # fmt: skip
    yield Measured(
        "pairs", "image passes, all pairs of a mini-batch", ours, "passes", finely,
        "sampled pairs, validated as often as ours", better="lower", note=note,
    )  # fmt: skip
    gap = fmean(c.test for c in curves["batch"]) - fmean(c.test for c in curves["sampled"])
    yield Measured(
        "pairs", "final test SRCC less that of sampled pairs, mean over the seeds", (gap,), "SRCC",
        reach=-0.005, note=", ".join(f"{k} {fmean(c.test for c in v):.4f}" for k, v in curves.items()),
    )  # fmt: skip


def _reaches(curve: Curve, level: float) -> int:
    return next(n for n, value in zip(curve.passes, curve.srcc, strict=True) if value >= level)


def _train(setting: Setting, found: Source, kind: str, seed: int) -> Curve:
    per_epoch = len(found.keys("train")) // STEP * STEP
    batch = kind == "batch"
    pairs = round(PAIRS * min(1.0, len(found.ratings) / IMAGES))
    source = Sliced(found.dataset, found.ratings, found.split, found.cache)
    object.__setattr__(source, "pieces", 1 if batch else max(1, round(2 * pairs / per_epoch)))
    training = replace(
        PRESETS["quick"], crop=64, resize=0, pairs="batch" if batch else "sampled", n_pairs=pairs,
        batch=STEP if batch else STEP // 2, warmup_epochs=0, epochs=EPOCHS if batch else source.pieces,
        decay_epochs=(), lr=5e-3, precision=setting.precision,
    )  # fmt: skip
    backbone = registry.load("backbones", "scnn")
    model = QualityModel(backbone.build(None), backbone.feature_size, task_norms=True, seed=seed)
    images = source.n_batches(training, training.batch) * STEP
    benchmark = quality_benchmark([source], training, seed)
    with bar(images * training.epochs, f"{kind} pairs, seed {seed}", "image") as shown:

        def tick(done: int, text: str) -> None:
            shown.update(done)
            if text:
                shown.set_postfix_str(text)

        learner = Learner(
            model=model, strategy=registry.load("strategies", "tsn")(), training=training,
            device=setting.device, seed=seed, tick=tick,
        )  # fmt: skip
        learner.train(benchmark.train_stream[0], eval_streams=[])
    values = [-1.0 if h["val_srcc"] is None else h["val_srcc"] for h in learner.history]
    scorer = Scorer(model)
    scores = score_images(scorer, source, "test", 1, setting.device, setting.precision)
    test = srcc(np.asarray(scores[:, 0], np.float64), source.mos[source.indices("test")])
    return Curve([images * (i + 1) for i in range(len(values))], values, test)
