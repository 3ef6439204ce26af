"""What the rows are measured on: generated pictures as a dataset, and models with six tasks.

Speed depends on sizes and shapes, not on what the pictures show or on how well the network was trained; so
the pictures are noise of several grains, and the weights are random.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.splits import make_split
from cliqa_bench.extensions import registry
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.seeds import rng_for
from cliqa_bench.system.hardware import cores
from cliqa_bench.types import Rating, Subset

SIX_SETS = ((512, 768), (512, 512), (768, 1024), (500, 500), (768, 1024), (384, 512))
"""Height and width of the commonest images of LIVE, CSIQ, BID (as shrunk), CLIVE, KonIQ-10K, KADID-10K."""

RESIZE = 768
"""The preset `paper`'s rule for large images."""


class Pictures(Dataset):
    """Generated pictures with random scores; `scores.txt` holds a file name and a score in a line."""

    name = "pictures"
    title = "Generated pictures"
    folders = ("pictures",)
    label_files = ("scores.txt",)
    image_folders = ("",)
    citation = "none"
    homepage = "nowhere"
    n_images = 0
    direction = "higher"
    rule = "as is"

    def entries(self) -> list[Entry]:
        """See the base class."""
        lines = self.label_file("scores.txt").read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines]
        return [
            Entry(f"scores.txt row {n}", Rating(key, float(score), 0.1, None, "none"))
            for n, (key, score) in enumerate(rows, 1)
        ]

    @property
    def expected_images(self) -> int:
        """As many as were written."""
        return len(self.entries())


def make_pictures(folder: Path, shapes: Sequence[tuple[int, int]], seed: int = 0) -> Pictures:
    """Writes one JPEG file of each shape, and their scores.

    Args:
        folder: Where to; it is made.
        shapes: Height and width of each picture.
        seed: The same seed gives the same pixels.
    """
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(cores()) as threads:  # numpy's generators and Pillow release the lock
        made = [threads.submit(_make_picture, folder, i, shape, seed) for i, shape in enumerate(shapes)]
        lines = [one.result() for one in made]
    (folder / "scores.txt").write_text("".join(lines), encoding="utf-8")
    return Pictures(folder)


def _make_picture(folder: Path, i: int, shape: tuple[int, int], seed: int) -> str:
    """Writes a file; returns its line of `scores.txt`."""
    height, width = shape
    rng = rng_for("bench-pictures", seed, i)
    coarse = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + rng.normal(0, 1 + i % 16, (height, width, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05}.jpg", quality=90)
    return f"{i:05}.jpg {rng.normal()}\n"


def pictures_source(
    folder: Path, shapes: Sequence[tuple[int, int]], subset: Subset, seed: int = 0
) -> DecodedDataset:
    """Writes and decodes pictures, all of one subset; training needs some of the others, too.

    Args:
        folder: Where files and cache go; it must be new.
        shapes: Height and width of each picture.
        subset: "test", or "train": then there are two further pictures for validation and two for testing.
        seed: As in `make_pictures`.
    """
    more: tuple[Subset, ...] = ("val", "val", "test", "test") if subset == "train" else ()
    dataset = make_pictures(folder, [*shapes, *[shapes[0]] * len(more)], seed)
    ratings = dataset.ratings()
    subsets = [subset] * len(shapes) + list(more)
    where = {rating.key: subset for rating, subset in zip(ratings, subsets, strict=True)}
    cache = ImageCache.open(dataset, [r.key for r in ratings], RESIZE, folder / "cache")
    return DecodedDataset(dataset, ratings, make_split("bench", ratings, where), cache)


def backbone_net(backbone: str, seed: int = 0) -> FeatureNet:
    """Builds a network with random weights, channels last in memory."""
    net: FeatureNet = registry.load("backbones", backbone).build("random", seed)
    return net.to(memory_format=torch.channels_last)


def tsn_model(backbone: str, tasks: int = 6, seed: int = 0) -> QualityModel:
    """Builds a model with a normalisation and a head per task, whose values differ a little between tasks.

    The same arguments give the same values, in any process.
    """
    net = backbone_net(backbone, seed)
    model = QualityModel(net, registry.load("backbones", backbone).feature_size, view=TaskNorms(), seed=seed)
    random = torch.Generator().manual_seed(seed)
    for task in range(tasks):
        model.add_task()
        with torch.no_grad():
            for tensor in _task_values(model, task):
                tensor.add_(0.02 * torch.rand(tensor.shape, generator=random))
    return model.eval().requires_grad_(False)


def _task_values(model: QualityModel, task: int) -> list[torch.Tensor]:
    """Returns a task's head, and its gammas, betas, means and variances."""
    own = [t for n, t in model.own_state().items() if f".tasks.{task}." in n and t.is_floating_point()]
    return [*model.heads[task].parameters(), *own]
