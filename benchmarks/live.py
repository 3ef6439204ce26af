"""LIVE Image Quality Assessment Database, release 2: 779 distorted images of 29 references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts, content, find_file
from cliqa_bench.benchmarks.readers.matlab import read_mat, strings, vector
from cliqa_bench.errors import UserError
from cliqa_bench.types import Rating

BLOCKS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Folder -> number of its files, in the order of the label files; 203 of them are copies of references."""

DISTORTIONS = {
    "jp2k": "JPEG2000",
    "jpeg": "JPEG",
    "wn": "white noise",
    "gblur": "Gaussian blur",
    "fastfading": "fast fading",
}

COPIES = {"jp2k": 2, "jpeg": 2, "wn": 1, "gblur": 1, "fastfading": 1}
"""How many exact copies of each reference a folder holds."""

MAX_BLOCK = 100_000
"""Most files that generated data may list for a folder."""

RANGES = {"dmos_new": (-20.0, 130.0), "dmos_std": (0.0, 50.0), "orgs": (0.0, 1.0)}
"""Variable -> what its numbers may be; the release has -2.6 to 111.8, 0 to 5.4, and 0 and 1."""

REALIGNED = "dmos_realigned.mat"


class Live(Dataset):
    """LIVE, with the realigned DMOS of the update to release 2.

    The label files list 982 images, of which 203 are exact copies of references with a DMOS of 0; those are
    left out, as everywhere in the literature, because they repeat the same pixels and the same label.
    """

    name = "live"
    title = "LIVE"
    folders = ("databaserelease2", "LIVE", "LIVE_release2", "LIVE_IQA_release2")
    distortions = tuple(DISTORTIONS.values())
    groups: ClassVar = {"common": ("JPEG2000", "JPEG", "white noise", "Gaussian blur")}
    label_files = (REALIGNED, "dmos.mat", "refnames_all.mat")
    image_folders = ("jp2k", "jpeg", "wn", "gblur", "blur", "fastfading")
    citation = (
        "H. R. Sheikh, M. F. Sabir, A. C. Bovik: A statistical evaluation of recent full reference image "
        "quality assessment algorithms. IEEE TIP 15(11), 2006"
    )
    homepage = "https://live.ece.utexas.edu/research/Quality/subjective.htm"
    n_images = 779
    n_groups = 29
    direction = "lower"
    rule = "max(dmos_new) - dmos_new, the maximum over all 779 distorted images; std = dmos_std"
    score_facts = ScoreFacts(0, 114.4147, 63.193447)
    n_pairs_paper = 7780
    n_pairs_files = 7000
    labels_digest = "d797c0a82e00621d"

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Folder -> number of files listed for it, reference copies included."""
        if self.generated is None:
            return dict(BLOCKS)
        given = self.generated.get("blocks")
        blocks = given if isinstance(given, dict) else {}
        if set(blocks) != set(BLOCKS) or not all(map(_is_count, blocks.values())):
            raise UserError(f"{self.root / 'generated.json'} names no blocks of LIVE; make the data again")
        return {folder: blocks[folder] for folder in BLOCKS}

    def _labels(self) -> Path:
        if find_file(self.root, REALIGNED) is None:
            raise UserError(
                f"LIVE: no {REALIGNED} in {self.root}; it is not in the zip but a download of its own "
                f'("Update to Release 2") at {self.homepage}: put it in that folder (the older dmos.mat '
                "holds other numbers and does not replace it)"
            )
        return self.label_file(REALIGNED)

    def entries(self) -> list[Entry]:
        """Reads `dmos_realigned.mat` and `refnames_all.mat`, which go by the position of an image.

        Raises:
            UserError: If a file is missing, or is not the authors' own: copies with `orgs` cut to the
                distorted images, and with references in another order, are going round.
        """
        path, refs_path = self._labels(), self.label_file("refnames_all.mat")
        keys = [f"{folder}/img{i}.bmp" for folder, count in self.blocks.items() for i in range(1, count + 1)]
        dmos, std, orgs = (
            vector(path, name, values, keys, *RANGES[name])
            for name, values in zip(RANGES, read_mat(path, *RANGES), strict=True)
        )
        refs = strings(refs_path, "refnames_all", read_mat(refs_path, "refnames_all")[0], len(keys))
        copies = self._copies(path, dmos, orgs)
        if self.generated is None:
            check_copies(refs_path, keys, refs, copies)
        best = dmos[~copies].max()  # before any split, as in the published split files
        return [
            Entry(
                f"{path} entry {i + 1}",
                Rating(
                    keys[i], float(best - dmos[i]), float(std[i]), refs[i], DISTORTIONS[keys[i].split("/")[0]]
                ),
            )
            for i in np.flatnonzero(~copies)
        ]

    def _copies(self, path: Path, dmos: NDArray[np.float64], orgs: NDArray[np.float64]) -> NDArray[np.bool_]:
        expected = len(dmos) - self.expected_images
        if int(orgs.sum()) != expected or not np.isin(orgs, (0, 1)).all():
            raise UserError(
                f"{path}: orgs marks {orgs.sum():g} reference copies, expected {expected}; "
                f"it is not the authors' file, get it from {self.homepage}"
            )
        copies: NDArray[np.bool_] = orgs == 1
        odd = np.flatnonzero((dmos == 0) != copies)
        if odd.size:
            raise UserError(
                f"{path}: entry {odd[0] + 1} has dmos_new {dmos[odd[0]]:g} but orgs {orgs[odd[0]]:g}; "
                "a reference copy has DMOS 0, and no other image does; download the file again"
            )
        return copies

    def candidates(self, key: str) -> Sequence[str]:
        """Some copies of the release call the folder `gblur` `blur`."""
        return (key, key[1:]) if key.startswith("gblur/") else (key,)

    def is_extra(self, relative: str) -> bool:
        """The 203 reference copies."""
        folder, _, name = relative.partition("/")
        folder = "gblur" if folder == "blur" else folder
        number = name.removeprefix("img").removesuffix(".bmp")
        return number.isdigit() and 1 <= int(number) <= self.blocks.get(folder, 0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BLOCK


def check_copies(path: Path, keys: Sequence[str], refs: Sequence[str], copies: NDArray[np.bool_]) -> None:
    """Checks that reference names are in the order of the images: each folder copies each reference equally.

    Args:
        path: `refnames_all.mat`, for the message.
        keys: (982,) image keys.
        refs: (982,) reference names.
        copies: (982,) bool, which images are reference copies.

    Raises:
        UserError: If a folder does not hold its number of copies of every reference.
    """
    names = {content(ref) for ref in refs}
    found = Counter((keys[i].split("/")[0], content(refs[i])) for i in range(len(keys)) if copies[i])
    for folder, copied in COPIES.items():
        for name in sorted(names):
            if found[folder, name] != copied:
                raise UserError(
                    f"{path}: it names {name!r} for {found[folder, name]} reference copies in {folder}/, "
                    f"expected {copied}; its names are not in the order of the images, get the authors' file"
                )
