"""TID2013: 3,000 distorted images of 25 references."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import ClassVar

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow, read_lines
from cliqa_bench.errors import UserError, read_all
from cliqa_bench.types import Rating

DISTORTIONS = (
    "additive Gaussian noise",
    "noise in colour components",
    "spatially correlated noise",
    "masked noise",
    "high-frequency noise",
    "impulse noise",
    "quantization noise",
    "Gaussian blur",
    "denoising",
    "JPEG",
    "JPEG2000",
    "JPEG transmission errors",
    "JPEG2000 transmission errors",
    "non-eccentricity pattern noise",
    "local block-wise distortions",
    "mean shift",
    "contrast change",
    "colour saturation change",
    "multiplicative Gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "colour quantization with dither",
    "chromatic aberrations",
    "sparse sampling and reconstruction",
)
"""Names of the types 01 to 24."""

GROUPS = {
    "noise": (*DISTORTIONS[:7], DISTORTIONS[18], DISTORTIONS[19]),
    "blur": DISTORTIONS[7:9],
    "compression": (DISTORTIONS[9], DISTORTIONS[10], DISTORTIONS[20], DISTORTIONS[23]),
    "transmission": DISTORTIONS[11:13],
    "spatial": DISTORTIONS[13:15],
    "brightness": DISTORTIONS[15:17],
    "colour": (DISTORTIONS[17], DISTORTIONS[21], DISTORTIONS[22]),
}
"""Seven groups of our own: those of KADID-10k as far as they go, and errors of transmission."""


class Tid2013(Dataset):
    """TID2013.

    On a case-sensitive disk 75 of its files begin with a capital I, and 50 of those end with .BMP; other
    exports have them in lower case. Names are therefore compared without case. Twenty of its references show
    what references of LIVE show (both took them from Kodak): a model of LIVE has seen those contents.
    """

    name = "tid2013"
    title = "TID2013"
    folders = ("tid2013", "TID-2013")
    distortions = DISTORTIONS
    groups: ClassVar = {
        **GROUPS, "common": ("additive Gaussian noise", "Gaussian blur", "JPEG", "JPEG2000"),
    }  # fmt: skip
    label_files = ("mos_with_names.txt",)
    image_folders = ("distorted_images",)
    citation = (
        "N. Ponomarenko et al.: Image database TID2013: peculiarities, results and perspectives. "
        "Signal Processing: Image Communication 30, 2015"
    )
    homepage = "http://www.ponomarenko.info/tid2013.htm"
    n_images = 3000
    n_groups = 25
    direction = "higher"
    rule = (
        "the MOS of mos_with_names.txt, 0 to 9, unchanged; std = mos_std.txt, the deviation of the MOS itself"
    )
    score_facts = ScoreFacts(0.24242, 7.21429, 4.47466)

    def entries(self) -> list[Entry]:
        """Reads `mos_with_names.txt`, and beside it, line by line, `mos_std.txt`."""
        both = read_pairs(self.label_file(*self.label_files), self.label_file("mos_std.txt"))
        return read_all(both, lambda rows: entry(*rows, len(DISTORTIONS), 5))

    def unrated(self, relative: str) -> Rating | None:
        """See the base class: the name of a picture gives its reference and its distortion."""
        name = relative.rpartition("/")[2]
        match = _named(name, len(DISTORTIONS), 5)
        return match and _rating(name, match, math.nan, math.nan)


def read_pairs(labels: Path, stds_file: Path | None) -> list[tuple[LabelRow, LabelRow | None]]:
    """Reads the rows of `mos_with_names.txt`, each with that of `mos_std.txt`, if there is such a file.

    Raises:
        UserError: If a file cannot be read, or they have different numbers of rows.
    """
    rows = read_lines(labels, ("mos", "name"))
    if stds_file is None:
        return [(row, None) for row in rows]
    stds = read_lines(stds_file, ("std",))
    if len(stds) != len(rows):
        raise UserError(
            f"{stds_file} has {len(stds)} values, {labels} rates {len(rows)} images; download both again"
        )
    return list(zip(rows, stds, strict=True))


def entry(row: LabelRow, std: LabelRow | None, n_types: int, n_levels: int) -> Entry:
    """Reads a row of `mos_with_names.txt` and that of `mos_std.txt`, of TID2013 or TID2008.

    Args:
        row: Score and name.
        std: The deviation; None where it is not known.
        n_types: Number of types of distortion.
        n_levels: Number of levels of each.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    name = row.text("name")
    match = _named(name, n_types, n_levels)
    if not match:
        raise row.fault(
            "name", f"a name such as i01_01_1.bmp, with a type up to {n_types} and a level up to {n_levels}"
        )
    deviation = math.nan if std is None else std.number_in("std", 0, 9)
    return Entry(row.where, _rating(name, match, row.number_in("mos", 0, 9), deviation))


def _named(name: str, n_types: int, n_levels: int) -> re.Match[str] | None:
    """Reads the name of a picture: reference, number of the type of distortion, and level."""
    match = re.fullmatch(r"(i\d\d)_(\d\d)_(\d)\.bmp", name, re.IGNORECASE | re.ASCII)
    return match if match and 1 <= int(match[2]) <= n_types and 1 <= int(match[3]) <= n_levels else None


def _rating(name: str, match: re.Match[str], score: float, std: float) -> Rating:
    distortion = DISTORTIONS[int(match[2]) - 1]
    return Rating(f"distorted_images/{name}", score, std, match[1].lower(), distortion)
