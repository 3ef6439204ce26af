"""Trainings small enough for tests: datasets of two dozen pictures, an untrained S-CNN, three epochs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from cliqa_bench.benchmarks.aspect_labels import AspectRow
from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.splits import seeded_split
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.quality import QualityModel, model_for
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Rating

if TYPE_CHECKING:
    from cliqa_bench.system.avalanche_parts import SupervisedPlugin

TRAINING: Training = replace(
    PRESETS["quick"], crop=32, resize=0, batch=8, warmup_batch=8, warmup_epochs=1, epochs=2, decay_epochs=()
)
"""The protocol under which strategies are checked."""

N_IMAGES = 24
SIDE = 40


class _Pictures(Dataset):
    """A dozen pictures of noise in training, the rest for validation and test."""

    name = "pictures"
    title = "Pictures"
    folders = ("pictures",)
    label_files = ()
    image_folders = ("",)
    citation = "none"
    homepage = "nowhere"
    n_images = N_IMAGES
    direction = "higher"
    rule = "the noisier the worse"
    n_pairs_paper = 40
    n_pairs_files = None

    def entries(self) -> list[Entry]:
        """Returns the ratings; noise of strength i has the score -i."""
        ratings = (Rating(f"{i:02}.png", -float(i), 1.0, None, "noise") for i in range(N_IMAGES))
        return [Entry(f"picture {r.key}", r) for r in ratings]


@contextmanager
def tiny_sources(n: int = 3) -> Iterator[list[DecodedDataset]]:
    """Gives datasets of small random pictures whose noise determines the quality.

    Args:
        n: How many datasets; their pictures differ, and their names are "tiny0", "tiny1", ...
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number in range(n):
            root = Path(folder) / f"tiny{number}"
            root.mkdir()
            rng = np.random.default_rng(number)
            for i in range(N_IMAGES):
                noise = rng.normal(100 + 20 * number, 1 + 2 * i, (SIDE, SIDE + 8 * (i % 2), 3))
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / f"{i:02}.png")
            kind = cast("type[Dataset]", type("Tiny", (_Pictures,), {"name": root.name, "title": root.name}))
            dataset = kind(root)
            ratings = dataset.ratings()
            split = replace(seeded_split(ratings, root.name, 1), aspects=_aspects(ratings))
            cache = ImageCache.open(dataset, [r.key for r in ratings], 0, root / "cache")
            sources.append(DecodedDataset(dataset, ratings, split, cache))
        yield sources


def _aspects(ratings: Sequence[Rating]) -> dict[str, AspectRow]:
    """Returns distortions and scenes, which take turns."""
    words = (("white noise", "human"), ("gaussian blur", "plant", "night"), ("other realistic", "others"))
    return {r.key: AspectRow(f"picture {r.key}", words[i % 3]) for i, r in enumerate(ratings)}


def new_model(strategy: Strategy, seed: int = 0) -> QualityModel:
    """Returns an untrained S-CNN as the strategy wants it, or a ViT-mini, if that is what it needs."""
    backbone = registry.load("backbones", "scnn")
    try:
        strategy.check_backbone(backbone)
    except UserError:
        backbone = registry.load("backbones", "vit_mini")
    net = backbone.build("random", 3)
    return model_for(strategy, net, backbone.feature_size, TRAINING, seed)


def learn(
    strategy: Strategy,
    model: QualityModel,
    sources: Sequence[DecodedDataset],
    training: Training = TRAINING,
    seed: int = 0,
    seen: Sequence[DecodedDataset] = (),
    joint: bool = False,
    kind: type[Learner] = Learner,
    learner: Learner | None = None,
    plugins: Sequence[SupervisedPlugin] = (),
) -> Learner:
    """Trains experiences in one go, and returns the learner that did: the one given, else a new one."""
    if learner is None:
        learner = kind(
            model=model, strategy=strategy, training=training, seed=seed, seen=seen, plugins=plugins
        )
    first = 0 if joint else len(seen)
    stream = quality_benchmark(sources, training, seed, joint=joint, first_task=first).train_stream
    learner.train(list(stream), eval_streams=[])
    return learner
