"""FLIVE (LIVE-FB, PaQ-2-PiQ): 39,810 pictures from AVA, VOC, EMOTIC and a blur detection set."""

from __future__ import annotations

import math
import re

from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.benchmarks.labels import read_csv
from cliqa_bench.types import Rating


class Flive(Dataset):
    """FLIVE.

    It is not distributed as one archive: the authors' notebook collects the pictures from their sources and
    renames them into `database/`. `EE371R` holds three more pictures that some copies lack.
    """

    name = "flive"
    title = "FLIVE"
    folders = ("FLIVE", "FLIVE_Database", "LIVEFB", "PaQ-2-PiQ")
    label_files = ("labels_image.csv",)
    image_folders = ("database",)
    citation = (
        "Z. Ying et al.: From patches to pictures (PaQ-2-PiQ): mapping the perceptual space of picture "
        "quality. CVPR 2020"
    )
    homepage = "https://github.com/niu-haoran/FLIVE_Database"
    n_images = 39810
    direction = "higher"
    rule = "the column mos, 0 to 100, unchanged; no std is published"

    def entries(self) -> list[Entry]:
        """Reads `labels_image.csv`."""
        entries = []
        for row in read_csv(self.label_file(*self.label_files), ("name", "mos")):
            name = row.text("name")
            if not re.fullmatch(r"(voc_emotic_ava|blur_dataset|EE371R)/[^/]+\.jpe?g", name, re.IGNORECASE):
                raise row.fault("name", "a picture such as voc_emotic_ava/AVA__123.jpg")
            score = row.number_in("mos", 0, 100)
            entries.append(Entry(row.where, Rating(f"database/{name}", score, math.nan, None, "authentic")))
        return entries

    def is_extra(self, relative: str) -> bool:
        """Patches of the pictures, which have labels of their own."""
        return relative.startswith("database/patches/")
