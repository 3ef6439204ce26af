"""LIVE In the Wild Image Quality Challenge Database: 1,162 photographs rated by a crowd."""

from __future__ import annotations

import re
from pathlib import Path

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.matlab import read_mat, strings, vector
from cliqa_bench.errors import UserError
from cliqa_bench.types import Rating

N_PRACTICE = 7
"""The first entries are `t1.bmp` to `t7.bmp`, on which the subjects practised."""

VARIABLES = ("AllImages_release", "AllMOS_release", "AllStdDev_release")


class Clive(Dataset):
    """The LIVE Challenge, without the seven practice images that its label files begin with."""

    name = "clive"
    title = "CLIVE"
    folders = ("ChallengeDB_release", "CLIVE", "LIVEC", "LIVE_Challenge", "LIVE_in_the_wild", "LIVE_itW")
    label_files = tuple(f"Data/{name}.mat" for name in VARIABLES)
    image_folders = ("Images",)
    citation = (
        "D. Ghadiyaram, A. C. Bovik: Massive online crowdsourced study of subjective and objective picture "
        "quality. IEEE TIP 25(1), 2016"
    )
    homepage = "https://live.ece.utexas.edu/research/ChallengeDB/index.html"
    n_images = 1162
    direction = "higher"
    rule = "MOS, 0 to 100, unchanged; std = that of the single opinions"
    score_facts = ScoreFacts(3.42, 92.432, 55.4013)
    n_pairs_paper = 24604
    n_pairs_files = 20000

    def entries(self) -> list[Entry]:
        """Reads the three files in `Data/`, which go by the position of an image.

        Raises:
            UserError: If a file is missing or has another length, or if the practice images are not the first
                seven.
        """
        paths = [self.label_file(f"Data/{name}.mat", f"{name}.mat") for name in VARIABLES]
        names, mos, std = (read_mat(p, name)[0] for p, name in zip(paths, VARIABLES, strict=True))
        n = N_PRACTICE + self.expected_images
        keys = strings(paths[0], VARIABLES[0], names, n)
        check_practice(paths[0], keys)
        scores = vector(paths[1], VARIABLES[1], mos, keys, 0, 100)
        # opinions from 0 to 100 deviate by 50 at most, by 71 where there are two of them
        spread = vector(paths[2], VARIABLES[2], std, keys, 0, 71)
        return [
            Entry(
                f"{paths[0]} entry {i + 1}",
                Rating(f"Images/{keys[i]}", float(scores[i]), float(spread[i]), None, "authentic"),
            )
            for i in range(N_PRACTICE, n)
        ]

    def is_extra(self, relative: str) -> bool:
        """The practice images."""
        return (
            relative.startswith("images/trainingimages/")
            or re.fullmatch(r"images/t\d+\.\w+", relative) is not None
        )


def check_practice(path: Path, names: list[str]) -> None:
    """Checks by name that exactly the first seven entries are practice images.

    Raises:
        UserError: If one is missing, or is elsewhere.
    """
    practice = [i for i, name in enumerate(names) if re.fullmatch(r"t\d+\.\w+", name, re.IGNORECASE)]
    if practice != list(range(N_PRACTICE)):
        at = ", ".join(str(i + 1) for i in practice[:9]) or "nowhere"
        raise UserError(
            f"{path}: the practice images t1.bmp to t7.bmp must be entries 1 to {N_PRACTICE}, but the "
            f"file has them at: {at}; get the authors' file"
        )
