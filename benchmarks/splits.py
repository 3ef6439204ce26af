"""Which images are trained on, validated on and tested on: seeded splits, and the published split files.

Seeded splits are 70 / 10 / 20 and keep all images of one reference together. Published files say only which
image is where: scores and deviations always come from the label files (those published with CSIQ's test set
are wrong, and KADID-10k's are square roots of deviations).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.aspect_labels import FILE as ASPECTS
from cliqa_bench.benchmarks.aspect_labels import AspectRow
from cliqa_bench.benchmarks.base import Dataset, content, find_file, folded
from cliqa_bench.benchmarks.readers.text import LabelRow, read_records
from cliqa_bench.errors import UserError, one_line, refuse
from cliqa_bench.paths import user_path
from cliqa_bench.results.nodes import csv_cell
from cliqa_bench.seeds import rng_for
from cliqa_bench.types import SUBSETS, Rating, Subset

TRAIN, VAL = 0.7, 0.1
"""Shares of the images (TSN-IQA, IV-A); the rest is the test set."""

FORMATS = {
    "tsn": ({"train": "train_score", "val": "val", "test": "test"}, (3,)),
    "liqe": ({"train": "train_clip", "val": "val_clip", "test": "test_clip"}, (3, 4, 5, 6)),
}
"""Format -> (subset -> file name after the dataset's prefix, numbers of cells in a record)."""

MIN_SRCC = 0.95
"""Below this rank correlation, the scores of a split file are not scores of the images it names."""


OFFICIAL = "official"
"""Names the split that the authors of a dataset published with its labels."""

CSV_COLUMNS = ("key", "score", "std", "group", "distortion", "subset")


@dataclass(frozen=True)
class Split:
    """A split of one dataset.

    Attributes:
        name: What it is called in results: "seeded-1"; "official", or "official-val-1" where the authors
            leave validation to others; "tsn-1" and "liqe-1" for published files.
        subset: Image key -> subset, for every image, in rating order; of a part of a dataset, for its images.
        fingerprint: SHA-256 (hex) of all labels and where each image went; it does not depend on any order.
        note: What the user should know about how it was made; "" for nothing.
        aspects: Image key -> what its files say of distortion and scenes; {} for nothing.
    """

    name: str
    subset: dict[str, Subset]
    fingerprint: str
    note: str = ""
    aspects: Mapping[str, AspectRow] = field(default_factory=dict)

    def keys(self, subset: Subset) -> list[str]:
        """Returns the images of a subset, in rating order."""
        return list(self._keys.get(subset, ()))

    @cached_property
    def _keys(self) -> dict[Subset, list[str]]:
        found: dict[Subset, list[str]] = {}
        for key, subset in self.subset.items():
            found.setdefault(subset, []).append(key)
        return found


def make_split(name: str, ratings: Sequence[Rating], subset: Mapping[str, Subset], note: str = "") -> Split:
    """Puts a split together: brings it into rating order and computes its fingerprint."""
    ordered = {rating.key: subset[rating.key] for rating in ratings}
    lines = sorted(
        f"{r.key}\t{float(r.score)!r}\t{float(r.std)!r}\t{content(r.group or '')}\t{ordered[r.key]}"
        for r in ratings
    )
    return Split(name, ordered, hashlib.sha256("\n".join(lines).encode()).hexdigest(), note)


def whole(ratings: Sequence[Rating]) -> Split:
    """Puts all images into the test set: nothing of the dataset is ever trained on."""
    return make_split("whole", ratings, {rating.key: "test" for rating in ratings})


def seeded_split(ratings: Sequence[Rating], dataset_name: str, number: int) -> Split:
    """Splits 70 / 10 / 20 at random, by reference content where there are references.

    Contents (else images) are shuffled and dealt out whole; a subset ends where its number of images comes
    closest to its share. On the real datasets this gives 20 / 3 / 6 references of LIVE, 21 / 3 / 6 of CSIQ
    and 57 / 8 / 16 of KADID-10k, as in the published splits.

    Args:
        ratings: All ratings of a dataset, in any order.
        dataset_name: Name of the dataset; with the number it seeds the shuffle.
        number: 1, 2, 3, ...

    Raises:
        UserError: If the number is below 1, or there are fewer than three contents.
    """
    if number < 1:
        raise UserError(f"split {number} does not exist; splits are numbered 1, 2, 3, ...")
    counts: dict[str, int] = {}
    for rating in ratings:
        unit = unit_of(rating)
        counts[unit] = counts.get(unit, 0) + 1
    if len(counts) < len(SUBSETS):
        raise UserError(
            f"{dataset_name} has {len(counts)} separate contents; train, val and test need at least one each"
        )
    units = sorted(counts)  # so that the split does not depend on the order of the ratings
    shuffled = [units[i] for i in rng_for("split", dataset_name, number).permutation(len(units))]
    ends = np.cumsum([counts[unit] for unit in shuffled])
    first = _nearest(ends, TRAIN * len(ratings), 1, len(units) - 2)
    second = _nearest(ends, (TRAIN + VAL) * len(ratings), first + 1, len(units) - 1)
    where: dict[str, Subset] = {
        unit: "train" if i < first else "val" if i < second else "test" for i, unit in enumerate(shuffled)
    }
    return make_split(f"seeded-{number}", ratings, {r.key: where[unit_of(r)] for r in ratings})


def _stated_split(
    subset: dict[str, Subset], dataset: Dataset, ratings: Sequence[Rating], number: int
) -> Split:
    """Returns the split that the labels state, with a validation set.

    Args:
        subset: Key of every image -> subset, as stated.
        dataset: The dataset.
        ratings: All its ratings.
        number: As in `_with_validation`.

    Raises:
        UserError: If a subset is empty, or a reference is torn apart.
    """
    source = dataset.homepage
    faults = [
        UserError(
            f"{source}: its split has no image for {part}; correct it, or ignore its column (split=none)"
        )
        for part in ("train", "test")
        if part not in subset.values()
    ]
    refuse(faults + _torn(source, ratings, subset))
    called = f"{source}: its split", "the split of the labels"
    return _with_validation(make_split("column", ratings, subset), dataset, ratings, number, called)


def _with_validation(
    split: Split, dataset: Dataset, ratings: Sequence[Rating], number: int, called: tuple[str, str]
) -> Split:
    """Returns a split with a validation set; one without takes an eighth of the training images for it.

    They are drawn by reference content where there are references.

    Args:
        split: The split.
        dataset: The dataset.
        ratings: All its ratings.
        number: Seeds the draw.
        called: What the split is called in an error and in a note.

    Raises:
        UserError: If there is only one content to train on.
    """
    if split.keys("val"):
        return split
    in_error, in_note = called
    subset = split.subset
    train = [rating for rating in ratings if subset[rating.key] == "train"]
    counts: dict[str, int] = {}
    for rating in train:
        counts[unit_of(rating)] = counts.get(unit_of(rating), 0) + 1
    if len(counts) < 2:
        raise UserError(f"{in_error} has one content to train on and none to validate on; add some")
    contents = sorted(counts)
    drawn = [contents[i] for i in rng_for("validation", dataset.name, number).permutation(len(contents))]
    ends = np.cumsum([counts[unit] for unit in drawn])
    validation = {*drawn[: _nearest(ends, VAL / (TRAIN + VAL) * len(train), 1, len(contents) - 1)]}
    chosen: dict[str, Subset] = {r.key: "val" for r in train if unit_of(r) in validation}
    note = f"{in_note} has no val: {len(chosen)} of {len(train)} train images are used, drawn with a seed"
    return make_split(f"{split.name}-val-{number}", ratings, {**subset, **chosen}, note)


def _official_split(dataset: Dataset, ratings: Sequence[Rating]) -> Split:
    """Returns the authors' split, with a validation set.

    Raises:
        UserError: If there is none, or it leaves images out, tears a reference apart, or has other numbers of
            images than the release's.
    """
    subset = dataset.official_split()
    whose = f"{dataset.title}: its official split"
    faults = _incomplete(whose, ratings, subset, ("train", "test")) + _torn(whose, ratings, subset)
    found = tuple(sum(part == of for part in subset.values()) for of in SUBSETS)
    expected = None if dataset.generated else dataset.official_counts
    if expected is not None and expected != found:
        sizes = f"{_counts(found)} images (train/val/test), not {_counts(expected)}"
        faults.append(UserError(f"{whose} has {sizes}; download its files again from {dataset.homepage}"))
    refuse(faults)
    called = whose, "the official split"
    return _with_validation(make_split(OFFICIAL, ratings, subset), dataset, ratings, 1, called)


def _counts(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def unit_of(rating: Rating) -> str:
    """Returns the group that stays in one subset: the content of the reference, or else the image itself."""
    return rating.key if rating.group is None else content(rating.group)


def _nearest(ends: NDArray[np.int64], target: float, low: int, high: int) -> int:
    """Returns the number of units, in [low, high], whose images add up closest to the target."""
    return low + int(np.argmin(np.abs(ends[low - 1 : high] - target)))


def resolve_split(spec: str, dataset: Dataset, ratings: Sequence[Rating]) -> Split:
    """Returns the split that `--split` names.

    Args:
        spec: "1", "2", ... for a seeded split; "official" for that of the dataset's authors; else a path with
            published split files: the folder of the files, a folder of numbered splits, a dataset's folder
            with `splits2/<k>/` in it, or a folder with the datasets' folders. `PATH#3` takes split 3 (else 1)
            where there are several. If the labels state a split, that is used; the number then picks one
            of several, and seeds the draw of a missing validation set.
        dataset: The dataset.
        ratings: Its ratings.

    Raises:
        UserError: If there are no such files, or they do not fit the dataset, or it has no official split.
    """
    spec = spec.strip()
    said = re.search("(?:^|#)([0-9]{1,9})$", spec)
    number = int(said[1]) if said else 1
    own = dataset.own_split(number)
    if own is not None:
        return _stated_split(own, dataset, ratings, number)
    if spec == OFFICIAL:
        return _official_split(dataset, ratings)
    if re.fullmatch("-?[0-9]{1,9}", spec):
        return seeded_split(ratings, dataset.name, int(spec))
    root = user_path(spec[: said.start()] if said else spec)
    if not root.is_dir():
        raise UserError(f"split {spec!r} is neither a number (1, 2, ...) nor a folder with split files")
    return read_split(find_split_folder(root, dataset, said[1] if said else ""), dataset, ratings)


def find_split_folder(root: Path, dataset: Dataset, number: str = "") -> Path:
    """Finds the folder that holds a dataset's published split files.

    Args:
        root: The folder itself, or a tree as the publishers ship it.
        dataset: The dataset.
        number: Which split; "" for the folder itself if it holds files, else split 1.

    Raises:
        UserError: If none of the usual places holds the dataset's three files.
    """
    tops = [root]
    for parent in (root, root / "IQA_Database"):
        folders = sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        names = {folded(name) for name in dataset.folders}
        tops += [p for p in folders if folded(p.name) in names]
    k = number or "1"
    places = [] if number else [root]
    places += [top / sub for top in tops for sub in (k, f"splits2/{k}", f"splits/{k}")]
    found = next((place for place in places if _files(place, dataset)), None)
    if found is None:
        raise UserError(
            f"no split files of {dataset.title} in {root}: looked for {dataset.name}_train_score.txt, "
            f"_val.txt, _test.txt (or {dataset.name}_*_clip.txt) there, in {k}/, splits2/{k}/ and "
            f"{dataset.folders[0]}/splits2/{k}/"
        )
    return found


def has_aspects(spec: str, dataset: Dataset) -> bool:
    """Tells whether a dataset's scenes and distortions are known; opens no file.

    Args:
        spec: As in `resolve_split`.
        dataset: The dataset.
    """
    if (dataset.root / ASPECTS).is_file():
        return True
    path, _, number = spec.strip().partition("#")
    root = user_path(path)
    if path == OFFICIAL or path.isdigit() or not root.is_dir():
        return False
    try:
        found = _files(find_split_folder(root, dataset, number), dataset)
    except UserError:
        return False
    return found is not None and found[0] == "liqe"


def _files(folder: Path, dataset: Dataset) -> tuple[str, dict[Subset, Path]] | None:
    """Returns the format and the three files of a dataset, or None if the folder does not hold all three.

    A lone `*_val_clip.txt` beside the numbered folders, as one repository ships it, does not count.
    """
    for kind, (parts, _) in FORMATS.items():
        paths = {s: find_file(folder, f"{dataset.name}_{parts[s]}.txt") for s in SUBSETS}
        present = {s: path for s, path in paths.items() if path is not None}
        if len(present) == len(SUBSETS):
            return kind, present
    return None


def read_split(folder: Path, dataset: Dataset, ratings: Sequence[Rating]) -> Split:
    """Reads published split files, in the format of TSN-IQA or of LIQE.

    Args:
        folder: The folder that holds `<dataset>_train_score.txt`, `_val.txt` and `_test.txt` (path, score,
            std), or `<dataset>_{train,val,test}_clip.txt` (path, score, distortion, scenes); tab-separated,
            lines ended by LF, CRLF or a lone CR.
        dataset: The dataset.
        ratings: All its ratings; the split must place every one of them.

    Raises:
        UserError: If a file is missing or broken, names an unknown image, an image twice or in two subsets,
            leaves images out, tears a reference apart, or carries scores that are not those of the images.
    """
    found = _files(folder, dataset)
    if found is None:
        raise UserError(f"{folder} does not hold the three split files of {dataset.title}; see --split")
    kind, files = found
    known = {c.lower(): r.key for r in ratings for c in reversed(dataset.candidates(r.key))}
    known |= {rating.key.lower(): rating.key for rating in ratings}
    subset: dict[str, Subset] = {}
    scores: dict[str, float] = {}
    places: dict[str, str] = {}
    aspects: dict[str, AspectRow] = {}
    faults: list[UserError] = []
    for part, path in files.items():
        for row, cells in _records(path, FORMATS[kind][1], faults):
            key = known.get(cells[0].lower())
            place = f"{path.name} row {row}"
            if key is None:
                what = (
                    f"names {cells[0]!r}, which is not an image of {dataset.title}; download the split again"
                )
                faults.append(UserError(f"{path} row {row} {what}"))
                continue
            if key in subset:
                again = "twice" if subset[key] == part else "in two subsets"
                faults.append(UserError(f"{folder}: {key} appears {again}: {places[key]} and {place}"))
                continue
            subset[key], places[key] = part, place
            if kind == "liqe":
                aspects[key] = AspectRow(f"{path} row {row}", tuple(cells[2:]))
            try:
                scores[key] = _score(path, row, cells[1])
            except UserError as error:
                faults.append(error)
    faults += _incomplete(folder, ratings, subset) + _torn(folder, ratings, subset)
    refuse(faults)
    note = _check_scores(folder, ratings, scores)
    return replace(make_split(f"{kind}-{folder.name}", ratings, subset, note), aspects=aspects)


def _records(path: Path, widths: tuple[int, ...], faults: list[UserError]) -> list[tuple[int, list[str]]]:
    """Reads the records of a file; if that fails, it is one more fault."""
    try:
        return read_records(path, widths)
    except UserError as error:
        faults.append(error)
        return []


def _score(path: Path, row: int, cell: str) -> float:
    try:
        return LabelRow(path, row, {"score": cell}).number_in("score")
    except UserError as error:
        raise UserError(
            f"{path} row {row} holds {cell!r} where the score should be, expected a number; download it again"
        ) from error


def _incomplete(
    source: Path | str,
    ratings: Sequence[Rating],
    subset: Mapping[str, Subset],
    parts: Sequence[Subset] = SUBSETS,
) -> list[UserError]:
    """Returns faults of a split: images in no subset, and empty subsets."""
    faults = []
    left_out = [rating.key for rating in ratings if rating.key not in subset]
    if left_out:
        faults.append(
            UserError(
                f"{source}: {len(left_out)} images are in no subset, first {left_out[0]}; download it again"
            )
        )
    empty = [part for part in parts if part not in subset.values()]
    return faults + [UserError(f"{source}: the subset {part} is empty; download it again") for part in empty]


def _torn(source: Path | str, ratings: Sequence[Rating], subset: Mapping[str, Subset]) -> list[UserError]:
    """Returns a fault for each reference whose images are in more than one subset."""
    first: dict[str, str] = {}
    faults: dict[str, UserError] = {}
    for rating in ratings:
        if rating.key not in subset:
            continue
        unit = unit_of(rating)
        other = first.setdefault(unit, rating.key)
        if subset[other] != subset[rating.key]:
            told = (
                f"{source}: reference {rating.group} is in two subsets: {other} in {subset[other]}, "
                f"{rating.key} in {subset[rating.key]}; use a split by references"
            )
            faults.setdefault(unit, UserError(told))
    return list(faults.values())


def _check_scores(folder: Path, ratings: Sequence[Rating], scores: Mapping[str, float]) -> str:
    """Compares the scores of split files with ours: they need not be equal, but must rank alike.

    Returns:
        A line that says how they differ; "" if they do not.
    """
    ratings = [rating for rating in ratings if not math.isnan(rating.score)]
    ours = np.array([rating.score for rating in ratings])
    theirs = np.array([scores[rating.key] for rating in ratings])
    spread = np.ptp(ours)
    if spread == 0 or np.abs(ours - theirs).max() <= 1e-3 * spread:  # three decimals of CSIQ's 0 to 1
        return ""
    from scipy.stats import rankdata

    ranks = rankdata(ours), rankdata(theirs)
    worst = int(np.argmax(np.abs(ranks[0] - ranks[1])))
    srcc = float(np.corrcoef(*ranks)[0, 1]) if np.ptp(theirs) else 0.0
    example = f"{ratings[worst].key} has {theirs[worst]:g} there and {ours[worst]:g} in the labels"
    if srcc < 0:
        raise UserError(f"{folder}: scores run the wrong way (SRCC {srcc:.3f} with the labels): {example}")
    if srcc < MIN_SRCC:
        raise UserError(
            f"{folder}: scores do not belong to these images (SRCC {srcc:.3f} with the labels): {example}"
        )
    return one_line(
        f"{folder}: scores differ from the label file's (SRCC {srcc:.4f}), for instance {example}; "
        "the label file's are used"
    )


def ratings_csv(dataset: Dataset, ratings: Sequence[Rating], split: Split | None = None) -> str:
    """Writes the ratings of a dataset as CSV (header, LF), in rating order.

    Args:
        dataset: The dataset, for messages.
        ratings: Its ratings.
        split: Fills the column `subset`, which is empty without it.

    Returns:
        Columns `key,score,std,group,distortion,subset`; score and std in the shortest form that reads back to
        the same float64; `score` empty where it is hidden, `std` where it is not published, `group` where
        there are no references.

    Raises:
        UserError: If the split leaves one of the images out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for rating in ratings:
        if split is not None and rating.key not in split.subset:
            raise UserError(f"{dataset.title}: the split {split.name} leaves out {rating.key}")
        subset = "" if split is None else split.subset[rating.key]
        # repr: the shortest digits that give the same number again
        score, std = ("" if math.isnan(value) else repr(value) for value in (rating.score, rating.std))
        names = map(csv_cell, (rating.group or "", rating.distortion))
        writer.writerow((csv_cell(rating.key), score, std, *names, subset))
    return text.getvalue()
