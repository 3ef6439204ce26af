"""Writes further datasets in their authors' layouts, in small, with their traps.

Every function returns what a loader must make of them: key -> (score, std, group).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import scipy.io
from layouts import cells, describe, write_image

Truth = dict[str, tuple[float, float, str | None]]


def write_tid2013(root: Path) -> Truth:
    """Two references, the file names with the capitals of the authors' archive, the labels in lower case."""
    truth: Truth = {}
    lines, stds = [], []
    for reference in ("01", "25"):
        for kind, level in (("01", 1), ("10", 5), ("11", 1), ("13", 1), ("24", 3)):
            odd = level == 1
            on_disk = (
                f"{'I' if odd else 'i'}{reference}_{kind}_{level}.{'BMP' if kind in ('11', '13') else 'bmp'}"
            )
            write_image(root / "distorted_images" / on_disk, len(truth))
            score, std = round(7.2 - 0.31 * len(truth), 5), round(0.1 + 0.01 * len(truth), 5)
            name = f"i{reference}_{kind}_{level}.bmp"
            lines.append(f"{score} {name}")
            stds.append(str(std))
            truth[f"distorted_images/{name}"] = (score, std, f"i{reference}")
    (root / "mos_with_names.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    (root / "mos_std.txt").write_text("\n".join(stds) + "\n")
    describe(root, len(truth), 2)
    return truth


def write_spaq(root: Path) -> Truth:
    """The workbook's name has blanks, and there is no std."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"])
    truth: Truth = {}
    for i in range(6):
        name = f"{i + 1:05d}.jpg"
        sheet.append([name, 10.5 * i + 2, 50, 50, 50, 50, 50])
        write_image(root / "TestImage" / name, i)
        truth[f"TestImage/{name}"] = (10.5 * i + 2, math.nan, None)
    (root / "Annotations").mkdir()
    book.save(root / "Annotations/MOS and Image attribute scores.xlsx")
    describe(root, len(truth), None)
    return truth


def write_agiqa3k(root: Path) -> Truth:
    """Prompts are quoted and hold commas, names hold dots, lines end with CRLF, pictures lie flat."""
    lines = ["name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"]
    truth: Truth = {}
    for i, (generator, number) in enumerate(
        (g, n) for n in ("000", "001", "002") for g in ("sd1.5_highcorr", "xl2.2_normal", "AttnGAN_normal")
    ):
        name = f"{generator}_{number}.jpg"
        lines.append(
            f'{name},"a cat, a ""dog"", and a house",bright,,anime style,{0.4 * i},{0.2 + i / 9},4.2,0.1'
        )
        write_image(root / name, i)
        truth[name] = (0.4 * i, 0.2 + i / 9, number)
    (root / "data.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    describe(root, len(truth), 3)
    return truth


def write_flive(root: Path) -> Truth:
    names = ("voc_emotic_ava/AVA__1.jpg", "voc_emotic_ava/VOC2012__2.jpg", "blur_dataset/motion0091.JPG")
    truth: Truth = {}
    for i, name in enumerate((*names, "EE371R/rq59.jpg")):
        write_image(root / "database" / name, i)
        truth[f"database/{name}"] = (30.0 * i, math.nan, None)
    write_image(root / "database/patches/AVA__1.jpg_patch_1.jpg", 99)
    rows = [f"{key.removeprefix('database/')},{score}" for key, (score, _, _) in truth.items()]
    (root / "labels_image.csv").write_text("\n".join(["name,mos", *rows]) + "\n")
    describe(root, len(truth), None)
    return truth


def write_pipal(root: Path) -> Truth:
    """A label file per reference, images in one of four folders."""
    truth: Truth = {}
    (root / "Train_Label").mkdir(parents=True)
    for folder, reference in (("Distortion_1", "A0001"), ("Distortion_4", "A0248")):
        rows = []
        for i, kind in enumerate(("00_00", "03_23", "06_26")):
            name = f"{reference}_{kind}.bmp"
            score = 1520.0648 + 7 * i + len(truth)
            rows.append(f"{name},{score!r}")
            write_image(root / folder / name, len(truth))
            truth[f"Distortion/{name}"] = (score, math.nan, reference)
        (root / f"Train_Label/{reference}.txt").write_text("\n".join(rows) + "\n")
    describe(root, len(truth), 2)
    return truth


def write_tid2008(root: Path) -> Truth:
    """Four levels, 17 types, capitals at some names alone; this copy has no deviations."""
    truth: Truth = {}
    lines = []
    for reference, first in (("01", "I"), ("25", "i")):
        for kind, level in (("01", 1), ("09", 4), ("17", 2)):
            name = f"{first}{reference}_{kind}_{level}.bmp"
            write_image(root / "distorted_images" / name.lower(), len(truth))
            score = round(7.7143 - 1.1 * len(truth), 4)
            lines.append(f"{score:.4f} {name}")
            truth[f"distorted_images/{name}"] = (score, math.nan, f"i{reference}")
    (root / "mos_with_names.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    describe(root, len(truth), 2)
    return truth


def write_livemd(root: Path) -> Truth:
    """Two parts that share names, references beside the images, lower is better, more variables than read."""
    dmos: dict[str, float] = {}
    for part, folder, after in ((1, "blurjpeg", "jpeg"), (2, "blurnoise", "noise")):
        here = root / f"Part {part}"
        kinds = ("blur1", f"{after}3", f"blur3_{after}2")
        names = [f"{reference}_{kind}.bmp" for reference in ("babygirl", "palace2") for kind in kinds]
        values = np.array([[21.5789 + 7 * i + part for i in range(len(names))]])
        for name, value in zip(names, values[0], strict=True):
            # what is only blurred is the same picture in both parts
            write_image(here / folder / name, hash_of(name))
            dmos[f"Part {part}/{folder}/{name}"] = float(value)
        for reference in ("babygirl.bmp", "palace2.bmp"):
            write_image(here / folder / reference, hash_of(reference))
        scipy.io.savemat(here / "Scores.mat", {"DMOSscores": values, "Zscores": -values})
        refs = cells(["babygirl.bmp", "palace2.bmp"])
        lists = {
            "distimgs": cells(names),
            "refimgs": refs,
            "ref4dist": np.array([[1], [1], [1], [2], [2], [2]], np.uint8),
        }
        scipy.io.savemat(here / "Imagelists.mat", lists)
    describe(root, len(dmos), 2)
    worst = max(dmos.values())
    return {
        key: (worst - value, math.nan, key.rsplit("/", 1)[-1].split("_")[0]) for key, value in dmos.items()
    }


def hash_of(name: str) -> int:
    """Returns a seed that is the same for the same name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def write_cid2013(root: Path) -> Truth:
    """The labels are on the second sheet, beside a MOS that is of a set alone; one score is negative."""
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["Source_ID", "Realigned MOS"])  # of other things
    book.active.append(["CID2013", 1])
    sheet = book.create_sheet("CID2013 MOS")
    sheet.append(["Source_ID", "Image set specific  MOS", "Realigned MOS", "Sharpness"])
    truth: Truth = {}
    for numeral, number in (("I", 1), ("IV", 4), ("VI", 6)):
        for scene in (1, 8):
            name = f"IS_{numeral}_C0{scene}_D14"
            score = -9.5 + 13.25 * len(truth)
            sheet.append([name, 50.0, score, 3.0])
            write_image(root / f"IS{number}/co{scene}/{name}.jpg", len(truth))
            truth[f"IS{number}/co{scene}/{name}.jpg"] = (score, math.nan, f"scene {scene}")
    book.save(root / "CID2013 data - version 12112014.xlsx")
    describe(root, len(truth), 2)
    return truth


def write_biq2021(root: Path) -> Truth:
    """Names hold blanks and brackets; the file of the training set has two columns without a name."""
    truth: Truth = {}
    for file, end, numbers in (("Train", ",,", range(1, 9)), ("Test", "", range(9, 12))):
        lines = ["Image Name,MOS" + end]
        for i in numbers:
            name, score = f"ss0{1 + i % 3} ({i * 700}).jpg", round(0.09 * i, 4)
            lines.append(f"{name},{score:.4f}{end}")
            on_disk = name.replace(".jpg", ".JPG") if i == 2 else name
            write_image(root / "Images" / on_disk, i)
            truth[f"Images/{name}"] = (score, math.nan, None)
        (root / f"{file} (Images and MOS).csv").write_text("\n".join([*lines, ""]))
    describe(root, len(truth), None)
    return truth


def write_gfiqa(root: Path) -> Truth:
    """Several faces of one photograph; the cell of the ratings goes over two lines."""
    lines = ["img_name,mos,val,rating"]
    truth: Truth = {}
    for i, name in enumerate(("831481558_0.png", "831481558_12.png", "5446868959_0.png")):
        lines.append(f'{name},{0.25 + 0.1 * i!r},0.0679,"[0.46391753 0.40206186\n 0.43434343]"')
        write_image(root / "image" / name, i)
        truth[f"image/{name}"] = (0.25 + 0.1 * i, math.nan, name.split("_")[0])
    (root / "mos_val_rating.csv").write_text("\n".join([*lines, ""]))
    describe(root, len(truth), 2)
    return truth


def write_uhdiqa(root: Path) -> Truth:
    """A folder for each set; all text is quoted, and a user's name holds a comma."""
    lines = ['"image_name","quality_mos","set","subset","orig_width","user_name"']
    truth: Truth = {}
    for i, part in enumerate(("training", "test", "validation", "training", "training", "test"), start=1):
        lines.append(f'"{i}.jpg",{0.3 + i / 16!r},"{part}","exclusive",5515,"a, b"')
        write_image(root / part / f"{i}.jpg", i)
        truth[f"{part}/{i}.jpg"] = (0.3 + i / 16, math.nan, None)
    (root / "uhd-iqa-metadata.csv").write_text("\n".join([*lines, ""]))
    describe(root, len(truth), None)
    return truth


WRITERS: dict[str, tuple[str, Callable[[Path], Truth]]] = {
    "tid2013": ("tid2013", write_tid2013),
    "spaq": ("SPAQ", write_spaq),
    "agiqa3k": ("AGIQA-3K", write_agiqa3k),
    "flive": ("FLIVE", write_flive),
    "pipal": ("PIPAL", write_pipal),
    "tid2008": ("tid2008", write_tid2008),
    "livemd": ("LIVEmultidistortiondatabase", write_livemd),
    "cid2013": ("CID2013", write_cid2013),
    "biq2021": ("BIQ2021-main", write_biq2021),
    "gfiqa": ("GFIQA-20k", write_gfiqa),
    "uhdiqa": ("UHD-IQA-database", write_uhdiqa),
}
