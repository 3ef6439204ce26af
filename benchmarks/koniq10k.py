"""KonIQ-10k: 10,073 photographs from a public archive, rated by a crowd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.subsets import place_images, read_set
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating, Subset

SIZES = ("1024x768", "512x384")
"""Folders of the releases that can be read; the first is the one of the paper."""

SETS_FILES = ("koniq10k_distributions_sets.csv", "metadata/koniq10k_distributions_sets.csv")
"""Where the file is that also says which image is in which set."""

VOTES = ("c1", "c2", "c3", "c4", "c5")


class Koniq10k(Dataset):
    """KonIQ-10k, with the mean opinion on the 1 to 5 scale.

    Two label files of the authors call different things `MOS`: `koniq10k_scores_and_distributions.csv` holds
    counts of votes and a MOS of 1 to 5; `koniq10k_distributions_sets.csv` (from their repository) holds
    fractions of votes and a MOS of 0 to 100, which orders the images differently (SRCC 0.9919). They are told
    apart by the votes, and the score is that of 1 to 5 from either.
    """

    name = "koniq10k"
    title = "KonIQ-10K"
    folders = (
        "koniq-10k",
        "koniq10k",
        "KonIQ",
        "koniq-10k_1024x768",
        "koniq10k_1024x768",
        "koniq10k_512x384",
    )
    label_files = (
        "koniq10k_scores_and_distributions.csv",
        "koniq10k_scores_and_distributions/koniq10k_scores_and_distributions.csv",
        *SETS_FILES,
    )
    image_folders = SIZES
    citation = (
        "V. Hosu, H. Lin, T. Sziranyi, D. Saupe: KonIQ-10k: an ecologically valid database for deep learning "
        "of blind image quality assessment. IEEE TIP 29, 2020"
    )
    homepage = "https://database.mmsp-kn.de/koniq-10k-database.html"
    n_images = 10073
    direction = "higher"
    rule = "mean of the votes, 1 to 5 (not the MOS of 0 to 100); std = SD, on the same scale"
    score_facts = ScoreFacts(1.09615, 4.31, 3.16199)
    official_counts = (7058, 1000, 2015)
    n_pairs_paper = 139274
    n_pairs_files = None

    @cached_property
    def size(self) -> str:
        """The folder that the images are read from: 1024x768 where it has any, else 512x384."""
        present = {path.split("/")[0] for path in self.files}
        return next((size for size in SIZES if size in present), SIZES[0])

    @property
    def variant(self) -> str:
        """The size of the images where it is not that of the paper."""
        return "" if self.size == SIZES[0] else self.size

    def entries(self) -> list[Entry]:
        """Reads either csv."""
        rows = read_csv(self.label_file(*self.label_files), ("image_name", *VOTES, "MOS", "SD"))
        return read_all(rows, lambda row: Entry(row.where, rating(row)))

    def official_split(self) -> dict[str, Subset]:
        """Reads the column `set` of `koniq10k_distributions_sets.csv`, from the authors' repository.

        The split of the TSN-IQA paper is another: it is random, and mixes the three sets.

        Raises:
            UserError: If the file is missing or broken, or names other images than the labels.
        """
        rows = read_csv(self.label_file(*SETS_FILES), ("image_name", "set"))
        known = {rating.key.rsplit("/", 1)[-1].lower(): rating.key for rating in self.ratings()}
        return place_images(rows, "image_name", known, lambda row: read_set(row, "set"))

    def candidates(self, key: str) -> Sequence[str]:
        """All images are read at one size."""
        return (f"{self.size}/{key.rsplit('/', 1)[-1]}",)

    def is_extra(self, relative: str) -> bool:
        """The images at another size."""
        return not relative.startswith(self.size)


def rating(row: LabelRow) -> Rating:
    """Reads a row of either csv.

    Raises:
        UserError: If a cell is not a number of its range, or votes and MOS do not belong together.
    """
    name = row.text("image_name").strip('"')
    if not re.fullmatch(r"\w+\.(jpg|jpeg|png)", name, re.IGNORECASE | re.ASCII):
        raise row.fault("image_name", "the name of an image such as 826373.jpg")
    votes = [row.number_in(column, 0) for column in VOTES]
    total = sum(votes)
    if total <= 0:
        raise row.fault("c1", "votes of which at least one is above 0")
    score = sum(i * vote for i, vote in enumerate(votes, start=1)) / total
    if abs(total - 1) > 1e-6:  # counts: the file's own MOS is the mean of the votes
        mos = row.number_in("MOS", 1, 5)
        if abs(mos - score) > 0.01:
            raise row.fault("MOS", f"the mean of the votes, {score:.4f}")
        score = mos
    return Rating(f"{SIZES[0]}/{name}", score, row.number_in("SD", 0, 4), None, "authentic")
