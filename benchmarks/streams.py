"""The datasets as Avalanche streams: one experience a dataset, with train, validation and test streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset, open_source
from cliqa_bench.benchmarks.labelled import load_materials, say_notes
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.benchmarks.suites import parse_orders
from cliqa_bench.benchmarks.targets import OpinionScores
from cliqa_bench.config import PRESETS, PresetName, Training
from cliqa_bench.errors import UserError, unknown
from cliqa_bench.seeds import seed_for
from cliqa_bench.types import SUBSETS, Subset

if TYPE_CHECKING:
    from cliqa_bench.system.avalanche_parts import CLScenario

__all__ = [
    "Batch",
    "DecodedDataset",
    "QualityDataset",
    "iqa_benchmark",
    "quality_benchmark",
]


class QualityDataset(torch.utils.data.Dataset[tuple[Any, torch.Tensor]]):
    """The images of one subset with their scores, untransformed; Avalanche's transform groups do the rest.

    Attributes:
        source: Where the images come from.
        subset: Which of them.
        targets: Mean opinion scores, higher is better.
    """

    def __init__(self, source: DecodedDataset, subset: Subset) -> None:
        self.source = source
        self.subset = subset
        self._indices = source.indices(subset)
        self.targets: list[float] = source.mos[self._indices].tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], torch.Tensor]:
        """Returns (H, W, 3) uint8 pixels (a read-only view) and the score, a float32 scalar."""
        pixels = self.source.cache.image(int(self._indices[index]))
        score = torch.tensor(self.targets[index], dtype=torch.float32)
        return pixels, score.as_subclass(OpinionScores)


class WholeImage:
    """Test transform: the whole image, normalised; (H, W, 3) uint8 becomes (3, H, W) float32."""

    def __call__(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Transforms one image."""
        return to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])[0]


class CropAndFlip:
    """Training transform: a random crop, mirrored half of the time, normalised.

    Args:
        crop: Side of the crop in pixels.
        augment: "crop-flip", or "none" for the centre crop.
        name: The dataset's name; with the seed, it seeds the draw.
        seed: Seed of the training.
    """

    def __init__(self, crop: int, augment: str, name: str, seed: int) -> None:
        self.crop = crop
        self.augment = augment
        self.names = (name, seed)
        self._seeded_for = -1
        self._generator = torch.Generator()

    def __call__(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Cuts (H, W, 3) uint8 to (3, crop, crop) float32."""
        rows, columns = pixels.shape[0] - self.crop, pixels.shape[1] - self.crop
        if self.augment == "none":
            top, left, flip = rows // 2, columns // 2, False
        else:
            top, left, flip = self._draw(rows + 1), self._draw(columns + 1), bool(self._draw(2))
        cut = pixels[top : top + self.crop, left : left + self.crop]
        return WholeImage()(cut[:, ::-1] if flip else cut)

    def _draw(self, below: int) -> int:
        # the workers of a loader are copies of one process: each needs a stream of its own, in every epoch
        worker = get_worker_info()
        process = 0 if worker is None else worker.seed
        if process != self._seeded_for:
            self._seeded_for = process
            self._generator.manual_seed(seed_for("crops", *self.names, process))
        return int(torch.randint(below, (1,), generator=self._generator))


def collate(items: Sequence[Sequence[Any]]) -> list[torch.Tensor]:
    """Stacks (image, score, task label) into a mini-batch.

    Raises:
        UserError: If the images have different sizes.
    """
    images = [item[0] for item in items]
    sizes = {tuple(image.shape[1:]) for image in images}
    if len(sizes) > 1:
        (h, w), (h2, w2) = sorted(sizes)[:2]
        raise UserError(
            f"images of {w} x {h} and {w2} x {h2} pixels cannot share a mini-batch; evaluate whole images "
            "one at a time (eval_mb_size=1), or by source.eval_batches, which groups them by size"
        )
    scores = torch.stack([item[1] for item in items])
    return [torch.stack(images), scores, torch.tensor([int(item[2]) for item in items])]


def quality_benchmark(
    sources: Sequence[DecodedDataset],
    training: Training,
    seed: int = 0,
    *,
    joint: bool = False,
    first_task: int = 0,
) -> CLScenario:
    """Makes an Avalanche benchmark of datasets in the order given; see `iqa_benchmark`.

    Args:
        sources: The datasets.
        training: Crop and augmentation.
        seed: Seed of the augmentation.
        joint: Whether all datasets are one experience, instead of one each.
        first_task: Task label of the first dataset; the others count on from there. Not 0 where the benchmark
            is the rest of a longer sequence.

    Raises:
        UserError: If a training image is smaller than the crop.

    Example:
        >>> materials = load_materials(["live"], Path("IQA"), "1")
        >>> training = PRESETS["quick"]
        >>> sources = [open_source(material, training.resize) for material in materials.values()]
        >>> benchmark = quality_benchmark(sources, training)
        >>> [len(experience.dataset) for experience in benchmark.test_stream]
        [20]
    """
    from cliqa_bench.system.avalanche_parts import benchmark_from_datasets, with_task_labels

    placed = [replace(source, task=task) for task, source in enumerate(sources, first_task)]
    for source in placed:
        source.check_crop(training.crop)
    groups = [tuple(placed)] if joint else [(source,) for source in placed]
    streams = {name: [_experience(g, name, training, seed) for g in groups] for name in SUBSETS}
    benchmark = with_task_labels(benchmark_from_datasets(**streams))
    for stream in benchmark.streams.values():
        for experience, group in zip(stream, groups, strict=True):
            experience.dataset_name = ",".join(source.name for source in group)
            experience.source = group[0]
            experience.sources = group
            experience.labelled = all(source.labelled for source in group)
    return benchmark


def _experience(group: Sequence[DecodedDataset], subset: Subset, training: Training, seed: int) -> Any:
    from cliqa_bench.system.avalanche_parts import concat_datasets

    parts = [_avalanche(source, subset, training, seed) for source in group]
    return parts[0] if len(parts) == 1 else concat_datasets(parts)


def _avalanche(source: DecodedDataset, subset: Subset, training: Training, seed: int) -> Any:
    from cliqa_bench.system.avalanche_parts import (
        AvalancheDataset,
        ConstantSequence,
        DataAttribute,
        TransformGroups,
    )

    data = QualityDataset(source, subset)
    groups: Mapping[str, Any] = {
        "train": CropAndFlip(training.crop, training.augment, source.name, seed),
        "eval": WholeImage(),
    }
    attributes = [
        DataAttribute(data.targets, "targets"),
        DataAttribute(ConstantSequence(source.task, len(data)), "targets_task_labels", use_in_getitem=True),
    ]
    dataset = AvalancheDataset(
        [data], data_attributes=attributes, transform_groups=TransformGroups(groups), collate_fn=collate
    )
    return dataset if subset == "train" else dataset.eval()


def iqa_benchmark(
    order: Sequence[str] | str,
    data: Path | None = None,
    split: str = "1",
    seed: int = 0,
    preset: PresetName | None = None,
    srgb: bool = False,
) -> CLScenario:
    """Makes the benchmark: `train_stream`, `val_stream` and `test_stream`, one experience a dataset.

    An item is (image, score, task label): float32 (3, H, W) normalised by ImageNet's statistics, float32 mean
    opinion score (higher is better, in the authors' unit), and the dataset's position in the order. Training
    items are random crops of one size, mirrored half of the time; the others are whole images, whose sizes
    differ: evaluate them with `eval_mb_size=1`. Every experience also has `dataset_name`, `task_label`,
    `labelled` (False where the scores of the training and validation images are nan, as those of the part
    `csiq?unlabelled`) and `source`, a `DecodedDataset` with quicker ways to the same images (`sources` names
    it in a tuple, because a joint experience has several).

    Args:
        order: Dataset names in the order of learning, one of "I" to "VIII", or comma-separated names.
        data: Folder of the real datasets; None for `$CLIQA_DATA` or generated miniatures.
        split: "1", "2", ... for the seeded split of that number, or a path with published split files.
        seed: Seed of the augmentation.
        preset: "paper" (384 crop, 768 rule) or "quick" (96, 192); None for "paper" on real data and "quick"
            on generated.
        srgb: Whether the colour profiles of published datasets are converted to sRGB, as `--srgb` does.

    Raises:
        UserError: If something does not exist or a file is not as it should be.

    Example:
        >>> benchmark = iqa_benchmark("bid,live", data=Path("IQA"))
        >>> [experience.dataset_name for experience in benchmark.train_stream]
        ['bid', 'live']
        >>> image, score, task = benchmark.train_stream[1].dataset[0]
        >>> tuple(image.shape), task
        ((3, 96, 96), 1)
    """
    orders = parse_orders(order if isinstance(order, str) else ",".join(order))
    if len(orders) != 1:
        raise UserError(f"a benchmark has one order, not {len(orders)} ({', '.join(orders):.200}); name one")
    (names,) = orders.values()
    materials = load_materials(names, data, split, srgb=srgb)
    say_notes(materials.values())
    if preset is None:
        preset = "quick" if all(m.generated for m in materials.values()) else "paper"
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    training = PRESETS[preset]
    return quality_benchmark([open_source(materials[n], training.resize) for n in names], training, seed)
