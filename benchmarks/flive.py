"""FLIVE (LIVE-FB, PaQ-2-PiQ): 39,810 pictures from AVA, VOC, EMOTIC and a blur detection set."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.subsets import place_images
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import UserError, read_all
from cliqa_bench.types import Rating, Subset


class Flive(Dataset):
    """FLIVE.

    It is not distributed as one archive: the authors' notebook collects the pictures from their sources and
    renames them into `database/`. `EE371R` holds three more pictures that some copies lack; the official
    split places them nowhere.
    """

    name = "flive"
    title = "FLIVE"
    folders = ("FLIVE", "FLIVE_Database", "LIVEFB", "PaQ-2-PiQ")
    label_files = ("labels_image.csv", "database/labels_image.csv")
    image_folders = ("database",)
    citation = (
        "Z. Ying, H. Niu, P. Gupta, D. Mahajan, D. Ghadiyaram, A. Bovik: From patches to pictures "
        "(PaQ-2-PiQ): mapping the perceptual space of picture quality. CVPR 2020"
    )
    homepage = "https://github.com/niu-haoran/FLIVE_Database"
    n_images = 39810
    direction = "higher"
    rule = "the column mos, 0 to 100, unchanged; no std is published"
    labels_digest = "be0b182361a179aa"
    score_facts = ScoreFacts(0, 94.3332, 72.1325)
    official_counts = (30256, 7727, 1827)

    test_files: ClassVar[tuple[str, ...]] = ("labels640.csv", "database/labels640.csv")
    train_files: ClassVar[tuple[str, ...]] = ("labels=640_padded.csv", "database/labels=640_padded.csv")

    def entries(self) -> list[Entry]:
        """Reads `labels_image.csv`."""
        return read_all(read_csv(self.label_file(*self.label_files), ("name", "mos")), entry)

    def official_split(self) -> dict[str, Subset]:
        """Reads the test set, pictures larger than 640, and which of the others validate.

        `labels640.csv` is the test set; `labels=640_padded.csv` holds the others, those for validation with a
        true `is_valid`. The three pictures of `EE371R` are in neither file, and are trained on.

        Raises:
            UserError: If a file is missing or broken, names an unknown picture or one twice, or a picture of
                the other sources is in neither.
        """
        known = {r.key.removeprefix("database/").lower(): r.key for r in self.ratings()}
        tests = read_csv(self.label_file(*self.test_files), ("name_image",))
        others = read_csv(self.label_file(*self.train_files), ("name_image", "is_valid"))
        placed = place_images(tests, "name_image", known, lambda row: "test")
        placed = place_images(others, "name_image", known, _train_or_val, placed)
        rest = [key for key in known.values() if key not in placed]
        left_out = [key for key in rest if not key.startswith("database/EE371R/")]
        if left_out:
            raise UserError(
                f"{self.title}: {' and '.join((self.test_files[0], self.train_files[0]))} leave out "
                f"{len(left_out)} pictures, first {left_out[0]}; download both again from {self.homepage}"
            )
        return placed | dict.fromkeys(rest, "train")

    def advice(self, missing: Sequence[str]) -> str:
        """Names the sources that have to be fetched again; there is no archive of the whole."""
        sources = Counter(map(_source, missing)).most_common()
        told = ", ".join(f"{count} of {source}" for source, count in sources)
        return f"collect them from their sources with the authors' database_prep.ipynb: {told}"

    def is_extra(self, relative: str) -> bool:
        """Patches of the pictures, which have labels of their own."""
        return relative.startswith("database/patches/")


def entry(row: LabelRow) -> Entry:
    """Reads a row of `labels_image.csv`.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name = row.text("name")
    if not re.fullmatch(r"(voc_emotic_ava|blur_dataset|EE371R)/[^/]+\.jpe?g", name, re.IGNORECASE):
        raise row.fault("name", "a picture such as voc_emotic_ava/AVA__123.jpg")
    score = row.number_in("mos", 0, 100)
    return Entry(row.where, Rating(f"database/{name}", score, math.nan, None, "authentic"))


def _train_or_val(row: LabelRow) -> Subset:
    text = row.text("is_valid").lower()
    if text not in ("true", "false"):
        raise row.fault("is_valid", "True or False")
    return "val" if text == "true" else "train"


def _source(key: str) -> str:
    """Returns where the authors took a picture from: `database/voc_emotic_ava/AVA__1.jpg` is of AVA."""
    _, folder, name = key.split("/")
    prefix, mark, _ = name.partition("__")
    return {"JPEGImages": "VOC2012"}.get(prefix, prefix) if mark else folder
