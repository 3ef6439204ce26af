"""Label and split files for the fuzzer: what is accepted must be the authors' rows, and only those.

A digit that becomes another digit of the same range is not a fault that a reader could see: the files
have no checksums. What is held against the readers is written at `wrong_ratings`.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import further_layouts
import layouts
from fuzz_mutations import BYTES, TEXT, ZIP, Mutation

from cliqa_bench.benchmarks import splits, suites
from cliqa_bench.benchmarks.base import Dataset, content
from cliqa_bench.types import SUBSETS, Rating, Subset

RANGES = {
    "live": (0, 150), "csiq": (0, 1), "bid": (0, 5), "clive": (0, 100), "koniq10k": (1, 5),
    "kadid10k": (1, 5), "tid2013": (0, 9), "spaq": (0, 100), "agiqa3k": (0, 5), "flive": (0, 100),
    "pipal": (0, 4000), "tid2008": (0, 9), "biq2021": (0, 1), "uhdiqa": (0, 1),
}  # fmt: skip
"""What a score may be, as the datasets' own pages have it."""


class Case(NamedTuple):
    """A sample to damage, and how to tell whether what came of it is right.

    Attributes:
        file: The file that is damaged.
        read: Reads it as the suite does; raises a UserError where it is refused.
        wrong: Says what is wrong with what was read, given the damaged bytes; "" for nothing.
    """

    file: Path
    read: Callable[[], object]
    wrong: Callable[[object, bytes], str]


class Format(NamedTuple):
    """A file format.

    Attributes:
        make: Writes the sample into a folder.
        mutations: What may be done to it.
    """

    make: Callable[[Path], Case]
    mutations: Sequence[Mutation]


Unchanged = Callable[[bytes, bytes, Sequence[Rating]], Collection[str]]
"""Original bytes, damaged bytes, original ratings -> keys of the rows whose bytes are what they were."""


def wrong_ratings(
    name: str, truth: Sequence[Rating], found: Sequence[Rating], same: Collection[str], std: bool = True
) -> str:
    """Says what is wrong with accepted ratings.

    Every rated image is rated once and no other is; every number is finite (a std may be nan where none is
    published) and in the dataset's range; rows whose bytes did not change hold what they held. Scores of LIVE
    count from its worst image, so there the differences between unchanged rows are compared.
    """
    known = {rating.key: rating for rating in truth}
    keys = [rating.key for rating in found]
    # an image is named as the label file spells it; loaders compare without case
    low = {key.lower(): key for key in known}
    if sorted(key.lower() for key in keys) != sorted(low):
        return f"keys are others: {sorted(set(keys) ^ set(known))[:3]}"
    lowest, highest = RANGES[name]
    for rating in found:
        was = known[low[rating.key.lower()]]
        if not lowest <= rating.score <= highest:
            return f"score of {rating.key} is {rating.score}"
        if math.isnan(rating.std) != math.isnan(was.std) or rating.std < 0 or math.isinf(rating.std):
            return f"std of {rating.key} is {rating.std}"
    offsets = set()
    for rating in found:
        was = known[low[rating.key.lower()]]
        if was.key not in same:
            continue
        offset = rating.score - was.score
        offsets.add(round(offset, 9) if name == "live" else offset)
        if std and not (rating.std == was.std or math.isnan(was.std)):
            return f"std of {rating.key} is {rating.std}, was {was.std}, and its bytes did not change"
        if content(rating.group or "") != content(was.group or ""):
            return f"group of {rating.key} is {rating.group}, was {was.group}, and its bytes did not change"
    if len(offsets) > 1 or (offsets and name != "live" and offsets != {0.0}):
        return f"scores moved by {sorted(offsets)[:3]}, and their bytes did not change"
    return ""


def text_rows(header: bool) -> Unchanged:
    """Compares lines; where a header changed, columns may have other names, and no row is what it was."""

    def same(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
        before, after = _text_lines(was), _text_lines(now)
        if header and before[:1] != after[:1]:
            return ()
        rows = [line for line in before[header:] if line.strip()]
        there = set(after)
        return {rating.key for rating, line in zip(truth, rows, strict=False) if line in there}

    return same


def line_by_line(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """Compares the lines at the same place, for files whose rows have no names."""
    before, after = ([x for x in _text_lines(data) if x.strip()] for data in (was, now))
    pairs = zip(truth, before, after, strict=False)
    return {rating.key for rating, one, other in pairs if one.strip() == other.strip()}


def _text_lines(data: bytes) -> list[bytes]:
    return re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))


def bytes_at(width: int, places: Callable[[bytes, Sequence[Rating]], Sequence[int]]) -> Unchanged:
    """Compares a number's bytes at its place; where the length changed, all rows must be what they were."""

    def same(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
        if len(was) != len(now):
            return {rating.key for rating in truth}
        starts = places(was, truth)
        return {
            rating.key
            for rating, start in zip(truth, starts, strict=True)
            if was[start : start + width] == now[start : start + width]
        }

    return same


def all_rows(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """Nothing may have changed."""
    return {rating.key for rating in truth}


def few_bytes(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """For binary workbooks: where no byte of a row's number can be told, nothing is compared."""
    return () if was != now else all_rows(was, now, truth)


def sheet_rows(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """Compares the rows of a sheet's XML; where anything else changed, none is what it was."""
    try:
        before, after = (_members(data) for data in (was, now))
    except Exception:  # what is not an archive any more was never accepted
        return all_rows(was, now, truth)
    sheets = [name for name in before if name.startswith("xl/worksheets/")]
    if {k: v for k, v in before.items() if k not in sheets} != {
        k: v for k, v in after.items() if k not in sheets
    }:
        return ()
    last = sheets[-1]
    rows = re.findall(rb"<row .*?</row>", before[last], re.DOTALL)
    if len(set(rows)) < len(rows) or rows[0] not in after.get(last, b""):
        return ()
    rows = rows[1:]
    return {r.key for r, row in zip(truth, rows, strict=True) if row in after[last]}


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def labels(name: str, file: str, mutations: Sequence[Mutation], same: Unchanged, std: bool = True) -> Format:
    """Makes the format of a dataset's label file."""

    def make(folder: Path) -> Case:
        if name in layouts.WRITERS:
            root = folder / layouts.FOLDERS[name]
            layouts.WRITERS[name](root)
        else:
            sub, write = further_layouts.WRITERS[name]
            root = folder / sub
            root.mkdir()
            write(root)
        path, cls = root / file, suites.dataset_class(name)
        truth, original = cls(root).ratings(), path.read_bytes()

        def read() -> list[Rating]:
            dataset = cls(root)
            ratings = dataset.ratings()
            dataset.verify_files(ratings)
            return ratings

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, list)
            return wrong_ratings(name, truth, found, same(original, now, truth), std)

        return Case(path, read, wrong)

    return Format(make, mutations)


def _doubles(variable: str, first: int) -> Unchanged:
    """Finds the numbers of a variable in an uncompressed .mat file, from the entry `first` on."""

    def places(data: bytes, truth: Sequence[Rating]) -> list[int]:
        import scipy.io

        source: Any = io.BytesIO(data)
        held = scipy.io.loadmat(source)
        values = held[variable]
        start = data.index(values.tobytes())
        rated = range(first, values.size)
        if first < 0:  # LIVE: the entries that are not copies of references
            orgs = held["orgs"].ravel()
            rated = [i for i in range(values.size) if not orgs[i]]  # type: ignore[assignment]
        return [start + 8 * i for i in rated]

    return bytes_at(8, places)


def _live(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """Rows of which neither the score nor the deviation changed."""
    return set(_doubles("dmos_new", -1)(was, now, truth)) & set(_doubles("dmos_std", -1)(was, now, truth))


def _names_of_live(was: bytes, now: bytes, truth: Sequence[Rating]) -> Collection[str]:
    """Groups come from the damaged file, scores do not; a group is compared where no name changed."""
    return all_rows(was, now, truth) if was == now else ()


def split_files(name: str, kind: str, part: Subset) -> Format:
    """Makes the format of published split files."""

    def make(folder: Path) -> Case:
        root = folder / layouts.FOLDERS[name]
        layouts.WRITERS[name](root, images=False)
        dataset: Dataset = suites.dataset_class(name)(root)
        ratings = dataset.ratings()
        truth = splits.seeded_split(ratings, name, 7)
        published = folder / "published"
        write_split(published, dataset, truth, kind)
        file = published / f"{name}_{splits.FORMATS[kind][0][part]}.txt"
        original = file.read_bytes()

        def read() -> splits.Split:
            return splits.resolve_split(str(published), dataset, ratings)

        def wrong(found: object, now: bytes) -> str:
            assert isinstance(found, splits.Split)
            return wrong_split(truth, found, ratings, original, now)

        return Case(file, read, wrong)

    return Format(make, TEXT)


def write_split(folder: Path, dataset: Dataset, split: splits.Split, kind: str) -> None:
    """Writes a split as its publishers do."""
    folder.mkdir()
    for subset in SUBSETS:
        rows = [r for r in dataset.ratings() if split.subset[r.key] == subset]
        more = "0.1" if kind == "tsn" else "blur\thuman\tinvalid\tinvalid"
        end = "\r" if kind == "tsn" else "\n"
        text = "".join(f"{r.key}\t{r.score:f}\t{more}{end}" for r in rows)
        (folder / f"{dataset.name}_{splits.FORMATS[kind][0][subset]}.txt").write_bytes(text.encode())


def wrong_split(
    truth: splits.Split, found: splits.Split, ratings: Sequence[Rating], was: bytes, now: bytes
) -> str:
    """Says what is wrong with an accepted split: it must be the published one, whatever was damaged.

    Only one of its three files is, and an image that this one does not place has no other place to go.
    """
    if found.subset != truth.subset:
        moved = [key for key in truth.subset if found.subset.get(key) != truth.subset[key]]
        return f"{moved[:3]} are in other subsets"
    return "" if found.fingerprint == truth.fingerprint else "the fingerprint is another"


FORMATS: dict[str, Format] = {
    "live-mat": labels("live", "dmos_realigned.mat", BYTES, _live),
    "live-names-mat": labels("live", "refnames_all.mat", BYTES, _names_of_live),
    "csiq-xlsx": labels("csiq", "csiq.DMOS.xlsx", ZIP, sheet_rows),
    "bid-xls": labels("bid", "DatabaseGrades.xls", BYTES, few_bytes),
    "clive-mos-mat": labels("clive", "Data/AllMOS_release.mat", BYTES, _doubles("AllMOS_release", 7)),
    "clive-std-mat": labels("clive", "Data/AllStdDev_release.mat", BYTES, _doubles("AllStdDev_release", 7)),
    "clive-names-mat": labels("clive", "Data/AllImages_release.mat", BYTES, all_rows),
    "koniq10k-csv": labels("koniq10k", "koniq10k_scores_and_distributions.csv", TEXT, text_rows(True)),
    "kadid10k-csv": labels("kadid10k", "dmos.csv", TEXT, text_rows(True)),
    "tid2013-txt": labels("tid2013", "mos_with_names.txt", TEXT, text_rows(False), std=False),
    "tid2013-std-txt": labels("tid2013", "mos_std.txt", TEXT, line_by_line),
    "spaq-xlsx": labels("spaq", "Annotations/MOS and Image attribute scores.xlsx", ZIP, sheet_rows),
    "agiqa3k-csv": labels("agiqa3k", "data.csv", TEXT, text_rows(True)),
    "flive-csv": labels("flive", "labels_image.csv", TEXT, text_rows(True)),
    "pipal-txt": labels("pipal", "Train_Label/A0001.txt", TEXT, text_rows(False)),
    "tid2008-txt": labels("tid2008", "mos_with_names.txt", TEXT, text_rows(False)),
    "biq2021-csv": labels("biq2021", "Train (Images and MOS).csv", TEXT, text_rows(True)),
    "uhdiqa-csv": labels("uhdiqa", "uhd-iqa-metadata.csv", TEXT, text_rows(True)),
    "tsn-split": split_files("kadid10k", "tsn", "test"),
    "liqe-split": split_files("csiq", "liqe", "val"),
}
