"""A dataset as a run meets it: labels, split, fingerprint, before an image is opened. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.pixels.decode import reading_changes
from cliqa_bench.benchmarks.pixels.hashes import any_converted, changed_rules, content_hashes
from cliqa_bench.benchmarks.splits import Split, resolve_split, whole
from cliqa_bench.benchmarks.suites import dataset_class, find_datasets
from cliqa_bench.errors import UserError, refuse
from cliqa_bench.paths import user_path
from cliqa_bench.progress import say
from cliqa_bench.results.nodes import digest
from cliqa_bench.types import Rating


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset with its labels and a split.

    Attributes:
        dataset: The dataset.
        ratings: Its ratings, in label order.
        split: Which image is in which subset.
    """

    dataset: Dataset
    ratings: list[Rating]
    split: Split

    @property
    def name(self) -> str:
        """The dataset's name on the command line."""
        return self.dataset.name

    @property
    def generated(self) -> bool:
        """Whether it is a generated miniature."""
        return self.dataset.generated is not None

    @cached_property
    def paths(self) -> list[Path]:
        """The image files, in rating order."""
        return [self.dataset.path(rating.key) for rating in self.ratings]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over labels, split, image files, how they are read, and changed rules of decoding.

        Raises:
            UserError: If two files of a table are equal but in different subsets.
        """
        if self.dataset.home is not None:  # `data check` reports it for the published sets
            _refuse_leaks(self, self._hashes)
        return self._fingerprint(self.split)

    @cached_property
    def contents(self) -> str:
        """The same but for the split, as if all images were test images: splits of the same data share it."""
        return self._fingerprint(whole(self.ratings))

    @cached_property
    def _hashes(self) -> list[str]:
        return content_hashes(self.dataset.root, self.paths, self.dataset.title)

    def _fingerprint(self, split: Split) -> str:
        images = sorted((r.key, h) for r, h in zip(self.ratings, self._hashes, strict=True))
        rules = changed_rules(self.dataset.root, self.paths, self.dataset.title)
        reading = reading_changes(self.dataset.reading)
        more = [part for part in (rules, reading) if part]
        return digest([self.name, split.fingerprint, images, *more], length=64)


def _refuse_leaks(material: LabelledDataset, hashes: Sequence[str]) -> None:
    """Refuses files of equal content in different subsets: what is tested must not have been learned."""
    first: dict[str, str] = {}
    faults = []
    for rating, content in zip(material.ratings, hashes, strict=True):
        other, key = first.setdefault(content, rating.key), rating.key
        there, here = material.split.subset[other], material.split.subset[key]
        if here != there:
            faults.append(
                UserError(
                    f"{material.dataset.title}: {other} ({there}) and {key} ({here}) are the same picture; "
                    "leave one out, put both into one subset, or give both one group"
                )
            )
    refuse(faults)


def say_notes(materials: Iterable[LabelledDataset]) -> None:
    """Prints the notes on how labels, splits and pictures were read."""
    for material in materials:
        for note in filter(None, [*material.dataset.notes(), material.split.note]):
            say(f"{material.dataset.title}: {note}")


def miniatures(names: Sequence[str] | None = None) -> Path:
    """Returns the folder of the generated miniatures; makes those named (None: all) that are missing."""
    from cliqa_bench.benchmarks.generated.make import default_root, make_miniatures

    root = default_root()
    make_miniatures(root, names=names)
    return root


def without_home(names: Sequence[str]) -> list[str]:
    """Returns the datasets that are looked for in the data folder: all but the user's own tables."""
    return [name for name in names if dataset_class(name).home is None]


def open_datasets(names: Sequence[str], data: Path | None = None) -> dict[str, Dataset]:
    """Opens datasets by their names.

    Args:
        names: As on the command line.
        data: Folder that holds the datasets; None for `$CLIQA_DATA` or, without it, for the generated
            miniatures, which are made where they are not yet.

    Raises:
        UserError: If a dataset is unknown or missing.
    """
    if data is None and os.environ.get("CLIQA_DATA"):
        data = user_path(os.environ["CLIQA_DATA"])
    below = without_home(names)
    if data is None and below:
        data = miniatures(below)
    return find_datasets(data or Path(), names)


def load_materials(
    names: Sequence[str],
    data: Path | None = None,
    split: str = "1",
    test_only: Sequence[str] = (),
    srgb: bool = False,
) -> dict[str, LabelledDataset]:
    """Loads the labels and splits of datasets, and sees that the images are there.

    Args:
        names: Dataset names.
        data: As in `open_datasets`.
        split: "1", "2", ... or a path, see `resolve_split`.
        test_only: Further datasets, all of whose images are test images.
        srgb: Whether published datasets are converted to sRGB, too. One in which this changes no picture
            keeps its fingerprint.

    Raises:
        UserError: If a dataset is missing or incomplete, or its labels or split files are broken.
    """
    materials = {}
    for name, dataset in open_datasets([*names, *test_only], data).items():
        ratings = dataset.ratings()
        dataset.verify_files(ratings)
        whose = whole(ratings) if name in test_only else resolve_split(split, dataset, ratings)
        material = materials[name] = LabelledDataset(dataset, ratings, whose)
        if srgb and not dataset.reading.srgb and any_converted(dataset.root, material.paths, dataset.title):
            dataset.reading = dataset.reading._replace(srgb=True)
    return materials
