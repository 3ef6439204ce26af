"""CSIQ (Categorical Subjective Image Quality): 866 distorted images of 30 references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.benchmarks.readers.workbooks import read_sheet
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating

FILES = {
    "noise": ("awgn", "AWGN"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
    "fnoise": ("fnoise", "fnoise"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
}
"""`dst_type` of the workbook -> folder, and the word in the file's name."""

COLUMNS = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")


class Csiq(Dataset):
    """CSIQ, read from the authors' workbook in full precision.

    The published TSN-IQA splits carry `1 - DMOS` rounded to three decimals, which makes ties that the
    workbook does not have. Images without a row in the workbook are not part of the dataset.
    """

    name = "csiq"
    title = "CSIQ"
    folders = ("CSIQ", "CSIQ_database", "csiq_iqa")
    distortions = tuple(FILES)
    groups: ClassVar = {"common": ("noise", "jpeg", "jpeg 2000", "blur")}
    label_files = ("csiq.DMOS.xlsx", "csiq.beta.xlsx")
    image_folders = ("dst_imgs", "dst_imgs_all")
    citation = (
        "E. C. Larson, D. M. Chandler: Most apparent distortion: full-reference image quality assessment and "
        "the role of strategy. Journal of Electronic Imaging 19(1), 2010"
    )
    homepage = "https://s2.smu.edu/~eclarson/csiq.html"
    n_images = 866
    n_groups = 30
    direction = "lower"
    rule = "1 - dmos, in full precision; std = dmos_std"
    score_facts = ScoreFacts(0, 1, 0.649256)
    n_pairs_paper = 8786
    n_pairs_files = 8000
    labels_digest = "c2115e3738d85af2"

    def entries(self) -> list[Entry]:
        """Reads the sheet `all_by_image` of `csiq.DMOS.xlsx`."""
        path = self.label_file(*self.label_files)
        return read_all(read_sheet(path, COLUMNS, sheet="all_by_image"), entry)

    def candidates(self, key: str) -> Sequence[str]:
        """Some copies of the release keep all images in the one folder `dst_imgs_all` (or `dst_imgs`)."""
        name = key.rsplit("/", 1)[-1]
        return (key, f"dst_imgs_all/{name}", f"dst_imgs/{name}")


def entry(row: LabelRow) -> Entry:
    """Reads a row of the sheet.

    Raises:
        UserError: If a cell is none of what its column may hold.
    """
    image, kind = row.text("image"), row.text("dst_type").lower()
    if kind not in FILES:
        raise row.fault("dst_type", f"one of: {', '.join(FILES)}")
    folder, token = FILES[kind]
    level = row.integer_in("dst_lev", 1, 5)
    rating = Rating(
        key=f"dst_imgs/{folder}/{image}.{token}.{level}.png",
        score=1 - row.number_in("dmos", 0, 1),
        std=row.number_in("dmos_std", 0, 1),
        group=f"{image}.png",
        distortion=kind,
    )
    return Entry(row.where, rating)
