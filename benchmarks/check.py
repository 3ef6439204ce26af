"""Checks a folder of datasets: what is there, whether it can all be read, and whether subsets leak."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cliqa_bench.benchmarks.aspect_labels import aspect_note
from cliqa_bench.benchmarks.base import Dataset, content
from cliqa_bench.benchmarks.parts import check_scores, split_of
from cliqa_bench.benchmarks.pixels.decode import RELEASED, Reading, is_converted
from cliqa_bench.benchmarks.splits import Split
from cliqa_bench.benchmarks.suites import ORDERS, dataset_class, find_folder
from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.errors import UserError, one_line
from cliqa_bench.extensions import registry
from cliqa_bench.progress import bar
from cliqa_bench.system.hardware import cores
from cliqa_bench.terminal import plural, text_table
from cliqa_bench.types import SUBSETS, Rating

SHOWN = 20
"""How many problems of one kind are listed one by one; the rest are counted."""

HEADER = (
    "dataset",
    "found",
    "expected",
    "present",
    "unreadable",
    "unlabelled",
    "score",
    "authors' label",
    "sizes",
    "groups",
    "train/val/test",
    "duplicates",
)


class DecodedFile(NamedTuple):
    """What decoding an image file gave.

    Attributes:
        size: (width, height) in pixels; None if the file cannot be read.
        digest: BLAKE2b of size and pixels.
        fault: Why it cannot be read, in one line; "" if it can.
        notes: What should be known of it, see `pixels.decode.Noted`.
        profile: Whether it has a colour profile that this reading ignores.
    """

    size: tuple[int, int] | None
    digest: bytes
    fault: str
    notes: tuple[str, ...] = ()
    profile: bool = False


@dataclass
class DatasetCheck:
    """What was found about one dataset.

    Attributes:
        cls: The dataset's class.
        dataset: The dataset, None if no folder was found.
        found: Name of its folder, and whether it is generated.
        ratings: Its ratings; empty if the labels could not be read.
        split: The split; None if it could not be made.
        pictures: Key (without labels: path) -> what decoding gave, for the images that exist.
        missing: Keys of images that are not there.
        unlabelled: Image files without a rating that are not a known part of the release.
        duplicates: Groups of keys with equal pixels that are in more than one subset.
        problems: What is wrong, a line each; empty if the dataset is fit for use.
        notes: What is worth knowing, a line each.
    """

    cls: type[Dataset]
    dataset: Dataset | None = None
    found: str = ""
    ratings: list[Rating] = field(default_factory=list)
    split: Split | None = None
    pictures: dict[str, DecodedFile] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unreadable(self) -> list[str]:
        """Keys of images that exist but cannot be decoded."""
        return [key for key, picture in self.pictures.items() if picture.size is None]

    def cells(self) -> tuple[str, ...]:
        """The dataset's row under `HEADER`; a dash stands for what is not known."""
        if self.dataset is None:
            return (self.cls.title, "no", str(self.cls.n_images), *["-"] * (len(HEADER) - 3))
        if not self.ratings:
            return (self.cls.title, self.found, *["-"] * (len(HEADER) - 2))
        scores = [rating.score for rating in self.ratings if not math.isnan(rating.score)] or [math.nan]
        groups = {content(rating.group) for rating in self.ratings if rating.group is not None}
        split = self.split
        return (
            self.cls.title,
            self.found,
            str(self.dataset.expected_images),
            str(len(self.pictures)),
            str(len(self.unreadable)),
            str(len(self.unlabelled)),
            f"{min(scores):.4g}..{max(scores):.4g}",
            f"{self.cls.direction} better",
            sizes({p.size for p in self.pictures.values() if p.size is not None}),
            str(len(groups)) if groups else "-",
            "/".join(str(len(split.keys(s))) for s in SUBSETS) if split else "-",
            str(len(self.duplicates)) if split else "-",
        )


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check_data`.

    Attributes:
        root: The folder that was looked through.
        rows: One check per dataset.
    """

    root: Path
    rows: list[DatasetCheck]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not any(row.problems for row in self.rows)

    def render(self) -> str:
        """Returns the table, then problems and notes, as lines of plain text without control characters."""
        lines = [text_table([row.cells() for row in self.rows], HEADER, ruled=True)]
        for what, told in (
            ("problems", [r.problems for r in self.rows]),
            ("notes", [r.notes for r in self.rows]),
        ):
            said = [
                one_line(f"- {row.cls.title}: {line}")
                for row, of in zip(self.rows, told, strict=True)
                for line in of
            ]
            if said:
                lines += ["", f"{what}:", *said]
        lines += ["", "OK" if self.ok else f"{self.root} has problems, listed above: do not use it yet"]
        return "\n".join(lines)


def check_data(
    root: Path,
    names: Sequence[str] | None = None,
    split: str = "1",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> CheckReport:
    """Reads all labels and decodes all images below a folder in one pass, even if some are broken.

    Problems are: a dataset that is not there, labels or split files that are broken (every row of them that
    is), a count, range, mean or direction of scores that is not the release's, images that are missing or
    cannot be decoded, links that point outside it, and equal pixels in more than one of train, val and test.
    Images without a label are counted and are not a problem: some releases ship them.

    Args:
        root: The folder that holds the datasets.
        names: Which datasets should be there; None for the paper's six, with whatever others are there.
        split: The split within which to look for duplicates, see `resolve_split`.
        max_megapixels: Largest image that is decoded, in 10^6 pixels.

    Raises:
        UserError: If `root` is not a folder, or a name is unknown.
    """
    if names is None:
        further = (name for name in registry.names("datasets") if name not in ORDERS["I"])
        names = [*ORDERS["I"], *(name for name in further if find_folder(root, dataset_class(name)))]
    rows = [_read(root, dataset_class(name), split) for name in names]
    _decode_all(rows, max_megapixels)
    for row in rows:
        _judge(row)
    return CheckReport(root, rows)


def _read(root: Path, cls: type[Dataset], split: str) -> DatasetCheck:
    row = DatasetCheck(cls)
    folder = find_folder(root, cls)
    if folder is None:
        row.problems.append(f"not found in {root}; looked for {', '.join(cls.folders)}; see {cls.homepage}")
        return row
    dataset = row.dataset = cls(folder)
    row.found = dataset.root.name
    with _noted(row, "of the labels"):
        row.found += " (generated)" if dataset.generated else ""
        dataset.may_lack_scores = not dataset.labelled
        row.ratings = dataset.ratings()
        row.problems += dataset.score_faults(row.ratings)
        if not dataset.as_released(row.ratings):
            row.problems.append(
                "the labels are not those of the release, though they look alike: a number was changed, or "
                f"scores were shuffled; get the label files again from {cls.homepage}"
            )
    with _noted(row, "of the folders"):
        if dataset.variant:
            row.notes.append(f"images are of the {dataset.variant} release, not those of the paper")
        row.problems += _some_of(dataset.link_faults(), "links that point outside the dataset's folder")
    if row.ratings:
        row.problems += _some_of(dataset.twin_faults(), "images whose files differ only in case")
        row.notes += _some_of(dataset.twin_notes(), "files whose names differ only in case")
        row.missing = dataset.missing_files()
        row.unlabelled = dataset.unlabelled_files()
        with _noted(row, "of the split"):
            row.split = split_of(split, dataset, row.ratings)
            check_scores(dataset, row.ratings, row.split)
        row.notes += [*dataset.notes(), *([row.split.note] if row.split and row.split.note else [])]
        if row.split is not None:
            with _noted(row, "of scenes and distortions"):
                row.notes += filter(None, [aspect_note(dataset, row.split, row.ratings)])
    return row


@contextlib.contextmanager
def _noted(row: DatasetCheck, of: str) -> Iterator[None]:
    """Turns exceptions into problems."""
    try:
        yield
    except UserError as error:
        lines = [str(single).removeprefix(f"{row.cls.title}: ") for single in error.each]
        row.problems += _some_of(lines, f"problems {of}")


def _some_of(lines: Sequence[str], what: str) -> list[str]:
    """Returns the first lines of a kind, and one that counts the rest."""
    more = [f"and {len(lines) - SHOWN} more {what}"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


def _decode_all(rows: Sequence[DatasetCheck], max_megapixels: float) -> None:
    """Decodes every image that exists, once for all parts of its dataset.

    Pillow works outside Python's lock, so threads do.
    """
    wanted = [(row, key, (path, row.cls.reading)) for row in rows for key, path in _images(row)]
    files = list(dict.fromkeys(file for _, _, file in wanted))
    pictures: dict[tuple[Path, Reading], DecodedFile] = {}

    def decoded(file: tuple[Path, Reading]) -> DecodedFile:
        path, reading = file
        return picture(path, max_megapixels, reading)

    with ThreadPoolExecutor(cores()) as pool, bar(len(files), "decoding", "image") as shown:
        try:
            for file, found in zip(files, pool.map(decoded, files), strict=True):
                pictures[file] = found
                shown.update()
        except BaseException:  # Ctrl-C must not wait for the images that are queued
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for row, key, file in wanted:
        row.pictures[key] = pictures[file]


def _images(row: DatasetCheck) -> list[tuple[str, Path]]:
    """Returns key and file of the rated images; of all images on the disk where the labels are broken."""
    if row.dataset is None:
        return []
    if not row.ratings:
        with contextlib.suppress(UserError):  # a folder that cannot be read: already reported
            return [(path, row.dataset.root / path) for path in row.dataset.files_without_labels()]
        return []
    missing = set(row.missing)
    return [(r.key, row.dataset.path(r.key)) for r in row.ratings if r.key not in missing]


def picture(path: Path, max_megapixels: float = MAX_MEGAPIXELS, reading: Reading = RELEASED) -> DecodedFile:
    """Decodes an image file and hashes its pixels; a fault is an answer, not an error."""
    from cliqa_bench.benchmarks.pixels.decode import decode

    notes: list[str] = []
    try:
        pixels = decode(path, max_megapixels, reading, noted=notes.append)
    except UserError as error:
        return DecodedFile(None, b"", str(error))
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(f"{width}x{height}:".encode(), digest_size=16)
    digest.update(pixels.data)
    ignored = not reading.srgb and is_converted(path)
    return DecodedFile((width, height), digest.digest(), "", tuple(notes), ignored)


def _judge(row: DatasetCheck) -> None:
    if row.missing and row.dataset is not None:
        row.problems.append(
            f"{len(row.missing)} rated images are missing: {_some(row.missing, SHOWN)}; "
            + row.dataset.advice(row.missing)
        )
    faults = [picture.fault for picture in row.pictures.values() if picture.fault]
    row.problems += _some_of(faults, "images that cannot be read")
    noted = [f"{key} {note}" for key, picture in row.pictures.items() for note in picture.notes]
    row.notes += _some_of(noted, "such images")
    if profiled := [key for key, picture in row.pictures.items() if picture.profile]:
        row.notes.append(
            f"{plural(len(profiled), 'image')} with a colour profile other than sRGB ({_some(profiled)}): it "
            "is ignored, as the published code does; run --srgb applies it"
        )
    if row.split is not None:
        row.duplicates = duplicates(row.pictures, row.split)
    told = []
    for keys in row.duplicates:
        shown = ", ".join(f"{key} ({row.split.subset[key]})" for key in keys if row.split is not None)
        told.append(f"equal pixels in different subsets: {shown}")
    row.problems += _some_of(told, "pictures that are in different subsets")
    if row.unlabelled:
        row.notes.append(
            f"{len(row.unlabelled)} images without a label are left out: {_some(row.unlabelled)}"
        )


def duplicates(pictures: dict[str, DecodedFile], split: Split) -> list[list[str]]:
    """Finds pictures that are in more than one subset.

    Args:
        pictures: Key -> what decoding gave.
        split: The split.

    Returns:
        For each picture that does, the keys of the images that show it, in the order of `pictures`.
    """
    same: dict[bytes, list[str]] = {}
    for key, decoded in pictures.items():
        if decoded.size is not None and key in split.subset:
            same.setdefault(decoded.digest, []).append(key)
    return [keys for keys in same.values() if len({split.subset[key] for key in keys}) > 1]


def sizes(found: set[tuple[int, int]]) -> str:
    """Writes (width, height) pairs as the smallest to the largest by area, and how many there are.

    Example:
        >>> sizes({(768, 512), (480, 720), (640, 512)})
        '640x512..768x512 (3)'
    """
    ordered = sorted(found, key=lambda size: (size[0] * size[1], size))
    if not ordered:
        return "-"
    first, last = (f"{width}x{height}" for width, height in (ordered[0], ordered[-1]))
    return first if len(ordered) == 1 else f"{first}..{last} ({len(ordered)})"


def _some(keys: Sequence[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
