"""KADID-10k: 10,125 distorted images of 81 references."""

from __future__ import annotations

import math
import re
from typing import ClassVar

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow, read_csv
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating

DISTORTIONS = (
    "gaussian blur",
    "lens blur",
    "motion blur",
    "color diffusion",
    "color shift",
    "color quantization",
    "color saturation 1",
    "color saturation 2",
    "JPEG2000",
    "JPEG",
    "white noise",
    "white noise in color component",
    "impulse noise",
    "multiplicative noise",
    "denoise",
    "brighten",
    "darken",
    "mean shift",
    "jitter",
    "non-eccentricity patch",
    "pixelate",
    "quantization",
    "color block",
    "high sharpen",
    "contrast change",
)
"""Names of the types 01 to 25."""

GROUPS = {
    "blur": DISTORTIONS[:3],
    "colour": DISTORTIONS[3:8],
    "compression": DISTORTIONS[8:10],
    "noise": DISTORTIONS[10:15],
    "brightness": DISTORTIONS[15:18],
    "spatial": DISTORTIONS[18:23],
    "sharpness": DISTORTIONS[23:],
}
"""The authors' seven groups; the last is of sharpness and contrast."""


class Kadid10k(Dataset):
    """KADID-10k.

    Its label is called DMOS, but high values are good. Its column `var` is a standard deviation: with 30
    integer votes an image, only that reading gives whole sums of squares. The published TSN-IQA splits carry
    the square root of this column; where their numbers are wanted, take `std ** 0.5`.
    """

    name = "kadid10k"
    title = "KADID-10K"
    folders = ("kadid10k", "kadid-10k", "KADID")
    distortions = DISTORTIONS
    groups: ClassVar = {**GROUPS, "common": ("gaussian blur", "JPEG2000", "JPEG", "white noise")}
    stream = tuple(GROUPS)
    label_files = ("dmos.csv",)
    image_folders = ("images",)
    citation = (
        "H. Lin, V. Hosu, D. Saupe: KADID-10k: a large-scale artificially distorted IQA database. QoMEX 2019"
    )
    homepage = "https://database.mmsp-kn.de/kadid-10k-database.html"
    n_images = 10125
    n_groups = 81
    direction = "higher"
    rule = "the column dmos, 1 to 5, unchanged; std = the column var, which is a standard deviation"
    score_facts = ScoreFacts(1, 4.93, 3.03263)
    n_pairs_paper = 140071
    n_pairs_files = None
    labels_digest = "473d8bd67d3fc02f"

    def entries(self) -> list[Entry]:
        """Reads `dmos.csv`."""
        rows = read_csv(self.label_file(*self.label_files), ("dist_img", "ref_img", "dmos", "var"))
        return read_all(rows, entry)

    def unrated(self, relative: str) -> Rating | None:
        """See the base class: the name of a picture gives its reference and its distortion."""
        name = relative.rpartition("/")[2]
        if not (match := _named(name)):
            return None
        group, distortion = f"{match[1]}.png", DISTORTIONS[int(match[2]) - 1]
        return Rating(f"images/{name}", math.nan, math.nan, group, distortion)

    def is_extra(self, relative: str) -> bool:
        """The references, which are in the same folder."""
        return re.fullmatch(r"images/i\d+\.png", relative) is not None


def entry(row: LabelRow) -> Entry:
    """Reads a row of `dmos.csv`.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name, group = row.text("dist_img"), row.text("ref_img")
    match = _named(name)
    if not match:
        raise row.fault("dist_img", "a name such as I01_01_01.png, with a type 01 to 25 and a level 01 to 05")
    if group.lower() != f"{match[1]}.png".lower():
        raise row.fault("ref_img", f"the reference of {name}, {match[1]}.png")
    score, std = row.number_in("dmos", 1, 5), row.number_in("var", 0, 2)
    distortion = DISTORTIONS[int(match[2]) - 1]
    return Entry(row.where, Rating(f"images/{name}", score, std, group, distortion))


def _named(name: str) -> re.Match[str] | None:
    """Reads the name of a picture: reference and number of the type of distortion."""
    match = re.fullmatch(r"(I\d\d)_(\d\d)_0[1-5]\.png", name, re.IGNORECASE | re.ASCII)
    return match if match and 1 <= int(match[2]) <= len(DISTORTIONS) else None
