"""One dataset ready for training: ratings, split and decoded images, given out in mini-batches of pixels.

What a mini-batch holds depends on the dataset, the seed and the epoch alone, so a task trains alike whatever
its place in an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.aspect_labels import Aspects, aspects_of, repaired
from cliqa_bench.benchmarks.pairs import batch_pairs, n_batches, n_pairs_for, pair_labels, sample_pairs
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.pixels.windows import Windows
from cliqa_bench.benchmarks.splits import unit_of
from cliqa_bench.config import MAX_MEGAPIXELS, Training
from cliqa_bench.errors import UserError
from cliqa_bench.seeds import rng_for
from cliqa_bench.types import Rating, Subset

if TYPE_CHECKING:
    import torch

    from cliqa_bench.benchmarks.base import Dataset
    from cliqa_bench.benchmarks.labelled import LabelledDataset
    from cliqa_bench.benchmarks.splits import Split

T = TypeVar("T")


class Batch(NamedTuple):
    """A mini-batch of pairs.

    Attributes:
        x: (n * crops, 3, crop, crop) uint8 crops, those of an image side by side, channels last in memory;
            `cache.to_float` makes them a network's.
        y: (n,) float32 mean opinion scores, higher is better.
        first: (p,) int64 positions in `images` of the first image of each pair.
        second: (p,) int64 positions of the second.
        images: (n,) int64 positions of the images in the dataset's ratings.
        labels: (p,) float32, 1 where the first image of a pair is the better one, else 0; made from the
            scores in float64, in which there are no ties but the real ones.
    """

    x: torch.Tensor
    y: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class DecodedDataset:
    """A dataset, its split and its decoded images.

    Attributes:
        dataset: The dataset itself.
        ratings: Of all its images.
        split: Which image is for training, validation, test.
        cache: Decoded images, in the order of `ratings`.
        task: Position of the dataset in the order, from 0; no number drawn here depends on it.
        targets: (n,) what is learned instead of `mos`, higher is better; None for `mos` itself.
    """

    dataset: Dataset
    ratings: list[Rating]
    split: Split
    cache: ImageCache
    task: int = 0
    targets: NDArray[np.float64] | None = None

    @property
    def name(self) -> str:
        """The dataset's name on the command line."""
        return self.dataset.name

    @property
    def title(self) -> str:
        """The dataset's name in the tables."""
        return self.dataset.title

    @property
    def generated(self) -> bool:
        """Whether the dataset is a generated miniature."""
        return self.dataset.generated is not None

    @property
    def labelled(self) -> bool:
        """Whether its training and validation images have opinion scores; those of the test set always do."""
        return self.dataset.labelled

    def on(self, device: torch.device) -> DecodedDataset:
        """Returns the dataset in the form for a device: on a GPU, with its pixels there, if there is room."""
        from cliqa_bench.benchmarks.pixels.resident import ResidentImages

        if device.type != "cuda":
            return self
        return replace(self, cache=ResidentImages(self.cache, device))

    @cached_property
    def mos(self) -> NDArray[np.float64]:
        """(n,) mean opinion scores of all images, higher is better."""
        return np.array([rating.score for rating in self.ratings], np.float64)

    @property
    def labels(self) -> NDArray[np.float64]:
        """(n,) what is learned, higher is better: `targets`, or else `mos`."""
        return self.mos if self.targets is None else self.targets

    @cached_property
    def std(self) -> NDArray[np.float64]:
        """(n,) standard deviations of the opinions on all images, in the unit of `mos`; nan where unknown."""
        return np.array([rating.std for rating in self.ratings], np.float64)

    @cached_property
    def aspects(self) -> dict[str, Aspects]:
        """Image key -> distortion and scenes, from its files; {} if they are not known.

        Raises:
            UserError: If a word is in no table, or an image is left out.
        """
        return aspects_of(self.dataset, self.split, self.ratings)

    @cached_property
    def repaired_aspects(self) -> dict[str, Aspects]:
        """The same without the fault of LIQE's files about LIVE, see `aspect_labels.repaired`."""
        return repaired(self.dataset, self.aspects, self.ratings)

    @cached_property
    def contents(self) -> NDArray[np.int64]:
        """(n,) one number for all images of a reference; an image without one has a number of its own."""
        return contents_of(self.ratings)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {rating.key: place for place, rating in enumerate(self.ratings)}

    @cached_property
    def _pairs(self) -> dict[tuple[int, int], NDArray[np.int64]]:
        return {}

    def keys(self, subset: Subset) -> list[str]:
        """Returns the keys of a subset's images, in rating order."""
        return self.split.keys(subset)

    def indices(self, subset: Subset) -> NDArray[np.int64]:
        """Returns the positions in `ratings` of a subset's images, in the order of `keys`."""
        return np.array([self._places[key] for key in self.keys(subset)], np.int64)

    def check_labels(self) -> None:
        """Refuses training images without a label.

        Raises:
            UserError: Names the first such image and what to do.
        """
        if key := self._unlabelled(self.indices("train")):
            raise UserError(
                f"{self.title}: training image {key} has no opinion score; use a strategy that learns from "
                "images without labels (its method `targets`)"
            )

    def _unlabelled(self, images: NDArray[np.int64]) -> str:
        """Returns the key of the first of some images that has no label; "" if all have one."""
        without = images[~np.isfinite(self.labels[images])]
        return self.ratings[without[0]].key if len(without) else ""

    def check_crop(self, crop: int) -> None:
        """Refuses training images that are smaller than the crop.

        Raises:
            UserError: Names the first such image, its size and what to do.
        """
        train = self.indices("train")
        small = train[self.cache.shapes[train].min(axis=1) < crop]
        if len(small):
            height, width = self.cache.shapes[small[0]]
            raise UserError(
                f"{self.title}: training image {self.ratings[small[0]].key} has {width} x {height} pixels, "
                f"smaller than the crop of {crop} x {crop}; use a smaller crop (the preset quick has 96)"
            )

    def n_pairs(self, training: Training) -> int:
        """Returns the number of sampled pairs an epoch."""
        return n_pairs_for(self.dataset, training.n_pairs, len(self.keys("train")))

    def n_batches(self, training: Training, batch: int) -> int:
        """Returns the number of mini-batches that `train_batches` gives."""
        if training.pairs == "sampled":
            return -(-self.n_pairs(training) // batch)
        return n_batches(len(self.keys("train")), batch)

    def train_batches(
        self,
        training: Training,
        epoch: int,
        seed: int,
        batch: int,
        crops: int = 1,
        windows: Windows | None = None,
    ) -> Iterator[Batch]:
        """Gives one epoch of training, cut and shuffled; the next mini-batch is made while one is used.

        With `training.pairs` "batch", a mini-batch holds `batch` images (the last one what is left, unless
        that is a single image) and all pairs inside. With "sampled", it holds `batch` pairs of the list
        drawn once per dataset and seed, and two images for each, cut independently.

        Args:
            training: Crop, kind and number of pairs, augmentation.
            epoch: Number of the epoch, from 0.
            seed: Seed of the training.
            batch: Images, or pairs, in a mini-batch.
            crops: How many crops of each image it holds.
            windows: Where crops may lie, their size being the crop's; None for anywhere.

        Raises:
            UserError: If an image is smaller than the crop or has no label, or no two of them meet in a
                mini-batch.
        """
        self.check_crop(training.crop)
        if len(self.keys("train")) < 2 or (batch < 2 and training.pairs == "batch"):
            raise UserError(
                f"{self.title}: a mini-batch of {batch} from {len(self.keys('train'))} training images "
                "holds no pair; batch size and training images must each be at least 2"
            )
        return self._ahead(self._batches(training, epoch, seed, batch, crops, windows))

    def _ahead(self, items: Iterator[T]) -> Iterator[T]:
        return prefetch(items) if self.cache.made_ahead else items

    def _batches(
        self, training: Training, epoch: int, seed: int, batch: int, crops: int, windows: Windows | None
    ) -> Iterator[Batch]:
        cuts = rng_for("crops", self.name, seed, epoch)
        for images, first, second in self._groups(training, epoch, seed, batch):
            yield self._batch(images, first, second, training, cuts, crops, windows)

    def batch_of(
        self,
        images: NDArray[np.int64],
        training: Training,
        rng: np.random.Generator,
        crops: int = 1,
        windows: Windows | None = None,
    ) -> Batch:
        """Cuts crops of the images that the caller chose.

        Args:
            images: (n,) positions in `ratings`.
            training: Crop and augmentation.
            rng: Source of crops and flips.
            crops: How many crops of each image it holds.
            windows: As in `train_batches`.

        Returns:
            The mini-batch, with all pairs among the images.

        Raises:
            UserError: If an image has no label.
        """
        first, second = batch_pairs(len(images))
        return self._batch(images, first, second, training, rng, crops, windows)

    def _batch(
        self,
        images: NDArray[np.int64],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        training: Training,
        rng: np.random.Generator,
        crops: int = 1,
        windows: Windows | None = None,
    ) -> Batch:
        import torch

        if key := self._unlabelled(images):  # a pair with it would get a label anyway
            raise UserError(f"{self.title}: image {key} has no opinion score and cannot be paired")
        each = np.repeat(images, crops)
        if windows is None:
            tops, lefts, flips = self._cuts(each, training, rng)
        else:
            tops, lefts, flips = self._windows(images, training, rng, crops, windows)
        x = self.cache.crops(each, tops, lefts, training.crop, flips)
        mos = self.labels[images]
        labels = pair_labels(mos[first], mos[second], training.ties)
        arrays = (mos.astype(np.float32), first, second, images, labels)
        return Batch(x, *map(torch.from_numpy, arrays))

    def _groups(
        self, training: Training, epoch: int, seed: int, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Gives the images of each mini-batch and the rows of its pairs."""
        train = self.indices("train")
        shuffle = rng_for("shuffle", self.name, seed, epoch)
        if training.pairs == "sampled":
            pairs = train[self._sampled(training, seed)]
            order = shuffle.permutation(len(pairs))
            for start in range(0, len(order), batch):
                chosen = pairs[order[start : start + batch]]
                rows = np.arange(len(chosen))
                yield chosen.T.reshape(-1), rows, rows + len(chosen)
            return
        order = shuffle.permutation(len(train))
        for start in range(0, len(order) - 1, batch):
            images = train[order[start : start + batch]]
            first, second = batch_pairs(len(images))
            yield images, first, second

    def _sampled(self, training: Training, seed: int) -> NDArray[np.int64]:
        key = (self.n_pairs(training), seed)
        if key not in self._pairs:
            n_images = len(self.keys("train"))
            self._pairs[key] = sample_pairs(n_images, key[0], rng_for("pairs", self.name, seed))
        return self._pairs[key]

    def _cuts(
        self, images: NDArray[np.int64], training: Training, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        room = self.cache.shapes[images] - training.crop
        if training.augment == "none":
            return room[:, 0] // 2, room[:, 1] // 2, np.zeros(len(images), bool)
        corners = rng.integers(0, room, endpoint=True)
        return corners[:, 0], corners[:, 1], rng.random(len(images)) < 0.5

    def _windows(
        self,
        images: NDArray[np.int64],
        training: Training,
        rng: np.random.Generator,
        crops: int,
        windows: Windows,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        shapes = self.cache.shapes[images]
        if training.augment != "none":
            return windows.drawn(shapes, crops, rng)
        # repeated, if an image has fewer windows than crops
        each = [windows.spread(height, width, crops) for height, width in shapes.tolist()]
        tops, lefts = np.concatenate([corners[np.arange(crops) % len(corners)] for corners in each]).T
        return tops, lefts, np.zeros(len(tops), bool)

    def eval_batches(
        self, subset: Subset, max_pixels: int = 1 << 22
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Gives the whole images of a subset, those of equal shape together.

        Args:
            subset: Which images.
            max_pixels: Most pixels in a batch; an image that has more comes alone.

        Yields:
            (b,) positions in `keys(subset)`, and (b, 3, H, W) uint8 images, channels last in memory. Every
            image comes once.
        """
        indices = self.indices(subset)
        groups = batches_by_shape(self.cache.shapes[indices], max_pixels)
        return self._ahead((group, self.cache.images(indices[group])) for group in groups)


def contents_of(ratings: Sequence[Rating]) -> NDArray[np.int64]:
    """Returns (n,) one number for all images of a reference; one without has a number of its own."""
    units = [unit_of(rating) for rating in ratings]
    number = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    return np.array([number[unit] for unit in units], np.int64)


def batches_by_shape(shapes: NDArray[np.int64], max_pixels: int) -> list[NDArray[np.int64]]:
    """Groups images of equal shape into batches of bounded size.

    Args:
        shapes: (n, 2) height and width.
        max_pixels: Most pixels (height times width, summed over its images) in a batch; an image that has
            more is a batch of its own.

    Returns:
        Arrays of positions, each position once; inside a shape in ascending order.
    """
    batches = []
    kinds, kind_of = np.unique(shapes, axis=0, return_inverse=True)
    for kind, (height, width) in enumerate(kinds):
        members = np.flatnonzero(kind_of.reshape(-1) == kind)
        step = max(1, int(max_pixels // max(1, height * width)))
        batches += [members[start : start + step] for start in range(0, len(members), step)]
    return batches


def open_source(
    material: LabelledDataset, resize: int, folder: Path | None = None, max_megapixels: float = MAX_MEGAPIXELS
) -> DecodedDataset:
    """Decodes a dataset's images, where that is not done yet.

    Args:
        material: The dataset, its labels and its split.
        resize: As in `pixels.decode.adaptive_size`.
        folder: Where decoded images are kept, by default in the cache folder.
        max_megapixels: As in `pixels.decode.decode`.

    Raises:
        UserError: If an image is missing or refused.
    """
    keys = [rating.key for rating in material.ratings]
    cache = ImageCache.open(material.whole.dataset, keys, resize, folder, max_megapixels)
    return DecodedDataset(material.dataset, material.ratings, material.split, cache)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Iterates with one item made ahead in a thread; exceptions there are raised here."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        ahead = thread.submit(next, items, end)
        while (item := ahead.result()) is not end:
            ahead = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # `end` never gets here
