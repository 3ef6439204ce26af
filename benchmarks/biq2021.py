"""BIQ2021: 12,000 photographs, of a private gallery, of deliberate faults, and of Unsplash."""

from __future__ import annotations

import math

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating, Subset

FILES: dict[Subset, str] = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}
"""Subset -> its label file."""


class Biq2021(Dataset):
    """BIQ2021.

    Two label files are the authors' split into training and test set; they leave validation to the user, so
    that an eighth of the training set is drawn for it. Names hold blanks and brackets: `ss03 (7805).jpg`.

    Source: the authors' repository, which holds labels and pictures.
    """

    name = "biq2021"
    title = "BIQ2021"
    folders = ("BIQ2021", "BIQ2021-main")
    label_files = tuple(FILES.values())
    image_folders = ("Images",)
    citation = (
        "N. Ahmed, S. Asif: BIQ2021: a large-scale blind image quality assessment database. "
        "Journal of Electronic Imaging 31(5), 2022"
    )
    homepage = "https://github.com/nisarahmedrana/BIQ2021"
    n_images = 12000
    direction = "higher"
    rule = "the column MOS, 0 to 1, unchanged; no std is published"
    labels_digest = "0886dcce543f4e29"
    score_facts = ScoreFacts(0, 1, 0.643458)
    official_counts = (10000, 0, 2000)

    def entries(self) -> list[Entry]:
        """Reads the label files of both subsets."""
        return [entry for part in FILES for entry in self._entries_of(part)]

    def _entries_of(self, part: Subset) -> list[Entry]:
        return read_all(read_csv(self.label_file(FILES[part]), ("Image Name", "MOS")), entry)

    def official_split(self) -> dict[str, Subset]:
        """See the base class; without a validation set."""
        return {entry.rating.key: part for part in FILES for entry in self._entries_of(part)}


def entry(row: LabelRow) -> Entry:
    """Reads a row of a label file.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    pattern, expected = r"ss0[1-3] \(\d{1,4}\)\.jpg", "the name of an image such as ss03 (7805).jpg"
    name = row.match("Image Name", pattern, expected)[0]
    score = row.number_in("MOS", 0, 1)
    return Entry(row.where, Rating(f"Images/{name}", score, math.nan, None, "authentic"))
