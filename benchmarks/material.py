"""A dataset as a run meets it: labels, split, fingerprint, before an image is opened. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.splits import Split, resolve_split
from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.store import digest
from cliqa_bench.types import Rating


@dataclass(frozen=True)
class Material:
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
        """SHA-256 (hex) over labels, split and the sizes of the image files.

        Sizes stand for the pixels: they are the same on every machine, unlike times, and reading them takes a
        tenth of a second where reading ten thousand files takes a minute. The content hash of the decoded
        images goes with the results.
        """
        sizes = sorted((r.key, path.stat().st_size) for r, path in zip(self.ratings, self.paths, strict=True))
        return digest([self.name, self.split.fingerprint, sizes], length=64)


def load_materials(names: Sequence[str], data: Path | None, split: str) -> dict[str, Material]:
    """Loads the labels and splits of datasets.

    Args:
        names: Dataset names.
        data: Folder of the real datasets, or None for the generated miniatures, which are made if needed.
        split: "1", "2", ... or a path, see `resolve_split`.

    Raises:
        UserError: If a dataset is missing or incomplete, or its labels or split files are broken.
    """
    root = data
    if root is None:
        from cliqa_bench.benchmarks.generated.make import default_root, make_miniatures

        root = default_root()
        make_miniatures(root, names=names)
    materials = {}
    for name, dataset in find_datasets(root, names).items():
        ratings = dataset.ratings()
        dataset.verify_files(ratings)
        materials[name] = Material(dataset, ratings, resolve_split(split, dataset, ratings))
    return materials
