"""A dataset before any image is opened: labels, split, fingerprint. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cliqa_bench.benchmarks.aspect_labels import aspects_of, repaired
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.parts import check_scores, hidden, in_group, part_split
from cliqa_bench.benchmarks.pixels.decode import reading_changes
from cliqa_bench.benchmarks.pixels.hashes import any_converted, changed_rules, content_hashes
from cliqa_bench.benchmarks.splits import Split, resolve_split, whole
from cliqa_bench.benchmarks.suites import dataset_class, find_datasets
from cliqa_bench.errors import UserError, refuse
from cliqa_bench.part_names import base_of
from cliqa_bench.paths import user_path
from cliqa_bench.progress import say
from cliqa_bench.results.nodes import digest
from cliqa_bench.types import Rating


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset with its labels and a split.

    Attributes:
        dataset: The dataset.
        ratings: Its ratings, in label order; of a part, those of the whole dataset.
        split: Which image is in which subset.
        part_of: The whole dataset, of a part.
    """

    dataset: Dataset
    ratings: list[Rating]
    split: Split
    part_of: LabelledDataset | None = None

    @property
    def name(self) -> str:
        """The dataset's name on the command line."""
        return self.dataset.name

    @property
    def generated(self) -> bool:
        """Whether it is a generated miniature."""
        return self.dataset.generated is not None

    @property
    def whole(self) -> LabelledDataset:
        """The whole dataset: its files, caches and hashes are those of its parts."""
        return self.part_of or self

    @cached_property
    def paths(self) -> list[Path]:
        """The image files, in rating order."""
        return [self.whole.dataset.path(rating.key) for rating in self.ratings]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over labels, split, image files, how they are read, and changed rules of decoding.

        That of a part is over its own images, and over those labels of them that are not hidden.

        Raises:
            UserError: If two files of a table are equal but in different subsets.
        """
        if self.dataset.home is not None:  # `data check` reports it for the published sets
            _refuse_leaks(self.whole, self.whole._hashes)
        return self._fingerprint(self.split)

    @cached_property
    def contents(self) -> str:
        """The same but for the split, as if all images were test images: splits of the same data share it."""
        return self._fingerprint(whole(self.whole.ratings))

    @cached_property
    def aspects_digest(self) -> str:
        """A digest of what is known of the pictures' distortions and scenes; "" if nothing is.

        Raises:
            UserError: As `aspects_of`.
        """
        found = aspects_of(self.dataset, self.split, self.ratings)
        if not found:
            return ""
        rows = sorted((key, *found[key]) for key in self.split.subset)
        if self.part_of is not None:  # what is corrected in a part depends on images outside of it
            mended = repaired(self.dataset, found, self.ratings)
            rows += sorted((key, *mended[key]) for key in self.split.subset if mended[key] != found[key])
        return digest(rows, length=64)

    @cached_property
    def _hashes(self) -> list[str]:
        return content_hashes(self.dataset.root, self.paths, self.dataset.title)

    @cached_property
    def _hash_of(self) -> dict[str, str]:
        return {r.key: h for r, h in zip(self.ratings, self._hashes, strict=True)}

    def _fingerprint(self, split: Split) -> str:
        files = self.whole
        images = sorted((key, files._hash_of[key]) for key in split.subset)
        paths = [files.dataset.path(key) for key in split.subset] if self.part_of else self.paths
        rules = changed_rules(files.dataset.root, paths, files.dataset.title)
        reading = reading_changes(files.dataset.reading)
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
    told = []
    for material in materials:
        files = material.whole
        told += [
            f"{files.dataset.title}: {note}" for note in [*files.dataset.notes(), files.split.note] if note
        ]
        if material.part_of and material.split.note:
            told.append(f"{material.dataset.title}: {material.split.note}")
    for line in dict.fromkeys(told):  # parts of one dataset say the same
        say(line)


def miniatures(names: Sequence[str] | None = None) -> Path:
    """Returns the folder of the generated miniatures; makes those named (None: all) that are missing."""
    from cliqa_bench.benchmarks.generated.make import default_root, make_miniatures

    root = default_root()
    make_miniatures(root, names=names)
    return root


def without_home(names: Sequence[str]) -> list[str]:
    """Returns the datasets that are looked for in the data folder: all but the user's own tables.

    Of a part that is the whole dataset.
    """
    return list(dict.fromkeys(base_of(name) for name in names if dataset_class(name).home is None))


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
    """Loads the labels and splits of datasets, and checks that the images are there.

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
    opened = open_datasets([*names, *test_only], data)
    unlabelled = {base_of(name) for name, dataset in opened.items() if not dataset.labelled}
    wholes: dict[str, LabelledDataset] = {}
    materials = {}
    for name, dataset in opened.items():
        base = base_of(name)
        if base not in wholes:
            whole_one = dataset if dataset.part is None else dataset_class(base)(dataset.root)
            whole_one.may_lack_scores = base in unlabelled
            wholes[base] = _load_whole(whole_one, split, srgb, name in test_only)
        material = materials[name] = _share(dataset, wholes[base], name in test_only)
        if base in unlabelled:
            check_scores(dataset, material.ratings, material.split)
    return materials


def _load_whole(dataset: Dataset, split: str, srgb: bool, test_only: bool) -> LabelledDataset:
    ratings = dataset.ratings()
    dataset.verify_files(ratings)
    whose = whole(ratings) if test_only else resolve_split(split, dataset, ratings)
    material = LabelledDataset(dataset, ratings, whose)
    if srgb and not dataset.reading.srgb and any_converted(dataset.root, material.paths, dataset.title):
        dataset.reading = dataset.reading._replace(srgb=True)
    return material


def _share(dataset: Dataset, files: LabelledDataset, test_only: bool) -> LabelledDataset:
    """Returns a dataset, or a part of it with its share of the split (all images, if never learned)."""
    if dataset.part is None:
        return files
    if test_only:
        return LabelledDataset(dataset, files.ratings, whole(in_group(dataset, files.ratings)), files)
    ratings = files.ratings if dataset.labelled else hidden(files.ratings, files.split)
    return LabelledDataset(dataset, ratings, part_split(dataset, ratings, files.split), files)
