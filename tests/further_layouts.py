"""Writes TID2013, SPAQ, AGIQA-3K, FLIVE and PIPAL in their authors' layouts, in small, with their traps.

Every function returns what a loader must make of them: key -> (score, std, group).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import openpyxl
from layouts import describe, write_image

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


WRITERS: dict[str, tuple[str, Callable[[Path], Truth]]] = {
    "tid2013": ("tid2013", write_tid2013),
    "spaq": ("SPAQ", write_spaq),
    "agiqa3k": ("AGIQA-3K", write_agiqa3k),
    "flive": ("FLIVE", write_flive),
    "pipal": ("PIPAL", write_pipal),
}
