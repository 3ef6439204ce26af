"""SPAQ: 11,125 photographs of 66 smartphones."""

from __future__ import annotations

import math

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.benchmarks.readers.workbooks import read_sheet
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating


class Spaq(Dataset):
    """SPAQ.

    The label file's name has blanks in it. No deviations of the opinions were published: `Rating.std` is nan.
    The photographs are large (about 3000 x 4000), and the protocol shrinks them to a shorter side of 768
    (`training.resize`); at full size the same model gives other numbers.
    """

    name = "spaq"
    title = "SPAQ"
    folders = ("SPAQ",)
    label_files = (
        "Annotations/MOS and Image attribute scores.xlsx",
        "MOS and Image attribute scores.xlsx",
    )
    image_folders = ("TestImage",)
    citation = (
        "Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang: Perceptual quality assessment of smartphone photography. "
        "CVPR 2020"
    )
    homepage = "https://github.com/h4nwei/SPAQ"
    n_images = 11125
    direction = "higher"
    rule = "the column MOS, 0 to 100, unchanged; no std is published"
    score_facts = ScoreFacts(2, 96, 50.3179)

    def entries(self) -> list[Entry]:
        """Reads the workbook of scores and attributes."""
        return read_all(read_sheet(self.label_file(*self.label_files), ("Image name", "MOS")), entry)


def entry(row: LabelRow) -> Entry:
    """Reads a row of the workbook.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name = row.match("Image name", r"\d{5}\.jpe?g", "the name of an image such as 00001.jpg")[0]
    score = row.number_in("MOS", 0, 100)
    return Entry(row.where, Rating(f"TestImage/{name}", score, math.nan, None, "authentic"))
