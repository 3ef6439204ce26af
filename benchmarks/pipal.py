"""PIPAL: 23,200 images by restoration algorithms and distortions, of 200 references (the training set)."""

from __future__ import annotations

import math
import re

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts, find_file
from cliqa_bench.benchmarks.readers.text import LabelRow, read_lines
from cliqa_bench.errors import UserError, read_all
from cliqa_bench.types import Rating

VARIANTS = (12, 16, 10, 24, 13, 14, 27)
"""Number of variants of the classes 00 to 06: 116 images of each reference."""

IMAGE_FOLDERS = ("Distortion_1", "Distortion_2", "Distortion_3", "Distortion_4", "Train_Distort", "Dist_Imgs")


class Pipal(Dataset):
    """PIPAL's public training set (NTIRE 2021).

    Scores are Elo ratings; whether those of different references may be compared is an open question of the
    authors' page. What the classes 00 to 06 mean is not stated in the order of the paper's table.
    """

    name = "pipal"
    title = "PIPAL"
    folders = ("PIPAL", "pipal")
    label_files = ("Train_Label/A0001.txt",)
    image_folders = IMAGE_FOLDERS
    citation = (
        "J. Gu, H. Cai, H. Chen, X. Ye, J. S. Ren, C. Dong: PIPAL: a large-scale image quality assessment "
        "dataset for perceptual image restoration. ECCV 2020"
    )
    homepage = "https://github.com/HaomingCai/PIPAL-dataset"
    n_images = 23200
    n_groups = 200
    direction = "higher"
    rule = "the Elo rating, about 900 to 1850, unchanged; no std is published"
    score_facts = ScoreFacts(916.7136, 1835.9856, 1448.96)

    def entries(self) -> list[Entry]:
        """Reads the label file of every reference."""
        folder = find_file(self.root, "Train_Label", directory=True)
        files = sorted(folder.glob("[Aa]*.txt")) if folder else []
        if not files:
            raise UserError(
                f"{self.title}: no Train_Label/A0001.txt in {self.root}; get it from {self.homepage}"
            )
        of_files = read_all(files, lambda path: read_lines(path, ("name", "score"), ","))
        return read_all([row for rows in of_files for row in rows], entry)

    def candidates(self, key: str) -> tuple[str, ...]:
        """Images are in four folders of 50 references each; some copies merge these."""
        name = key.rsplit("/", 1)[-1]
        return tuple(f"{folder}/{name}" for folder in IMAGE_FOLDERS)


def entry(row: LabelRow) -> Entry:
    """Reads a row of the label file of a reference.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name, reference = row.text("name"), row.path.stem
    match = re.fullmatch(r"(A\d{4})_(\d\d)_(\d\d)\.(bmp|png)", name, re.IGNORECASE | re.ASCII)
    if not match or not int(match[2]) < len(VARIANTS) or not int(match[3]) < VARIANTS[int(match[2])]:
        raise row.fault("name", "a name such as A0001_00_00.bmp")
    if match[1].lower() != reference.lower():
        raise row.fault("name", f"an image of {reference}")
    score = row.number_in("score", 0, 4000)
    return Entry(row.where, Rating(f"Distortion/{name}", score, math.nan, match[1], f"class {match[2]}"))
