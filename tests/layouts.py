"""Writes tiny datasets in the authors' own layouts, with the writers that such files come from.

Every function returns what a loader must make of them: key -> (score, std, group), computed here from the
numbers that were written, without any of the code under test.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import scipy.io
import xlwt
from PIL import Image

Truth = dict[str, tuple[float, float, str | None]]

LIVE_BLOCKS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
LIVE_TINY = {"jp2k": 32, "jpeg": 32, "wn": 24, "gblur": 24, "fastfading": 24}
CSIQ_TYPES = {
    "noise": ("awgn", "AWGN"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
    "fnoise": ("fnoise", "fnoise"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
}


def write_image(path: Path, seed: int, size: tuple[int, int] = (12, 9)) -> None:
    """Writes a picture that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    # JPEG survives this size only coarsely, but two seeds stay two pictures
    Image.fromarray(pixels).save(
        path, format={".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP"}[path.suffix.lower()]
    )


def write_images(root: Path, keys: Iterable[str]) -> None:
    """Writes a picture for each key."""
    for seed, key in enumerate(keys):
        write_image(root / key, seed)


def describe(root: Path, n_images: int, n_groups: int | None, **more: Any) -> None:
    """Writes the file by which a loader knows that fewer images are meant to be there."""
    facts = {"generator": "cliqa_bench", "version": 1, "seed": 0, "scale": 1.0}
    (root / "generated.json").write_text(
        json.dumps(facts | {"n_images": n_images, "n_groups": n_groups} | more)
    )


def cells(values: list[str], nested: bool = False) -> np.ndarray:
    """Makes a MATLAB cell array of strings; `nested` puts each into a cell of its own."""
    out = np.empty((len(values), 1), dtype=object)
    for i, value in enumerate(values):
        inner = np.empty((1, 1), dtype=object)
        inner[0, 0] = value
        out[i, 0] = inner if nested else value
    return out


def write_live(
    root: Path, blocks: dict[str, int] | None = None, n_refs: int = 8, images: bool = True
) -> Truth:
    """LIVE: a folder holds two (jp2k, jpeg) or one copy of each reference, at positions drawn at random."""
    blocks = blocks or LIVE_TINY
    rng = np.random.default_rng(0)
    keys, refs, orgs = [], [], []
    for folder, count in blocks.items():
        copies = n_refs * (2 if folder in ("jp2k", "jpeg") else 1)
        order = rng.permutation(count)
        names = [f"Ref{(i if i < copies else i - copies) % n_refs}.bmp" for i in range(count)]
        refs += [names[i] for i in order]
        orgs += [int(i < copies) for i in order]
        keys += [f"{folder}/img{i}.bmp" for i in range(1, count + 1)]
    org = np.array(orgs)
    dmos = np.where(org == 1, 0.0, rng.uniform(-2, 112, len(org)))
    std = np.where(org == 1, 0.0, rng.uniform(1, 5, len(org)))
    root.mkdir(parents=True)
    realigned = {"dmos_new": dmos[None], "dmos_std": std[None], "orgs": org[None].astype(np.uint8)}
    scipy.io.savemat(root / "dmos_realigned.mat", realigned)
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": cells(refs).T})
    if blocks != LIVE_BLOCKS:
        describe(root, int((org == 0).sum()), n_refs, blocks=blocks)
    if images:
        write_images(root, keys)
    top = max(d for d, o in zip(dmos, orgs, strict=True) if not o)
    return {k: (top - d, s, r) for k, d, s, r, o in zip(keys, dmos, std, refs, orgs, strict=True) if not o}


def write_csiq(root: Path, n_refs: int = 10, levels: int = 1, images: bool = True) -> Truth:
    """CSIQ: the table stands at D4, and the first reference's name is a number."""
    rng = np.random.default_rng(1)
    book = openpyxl.Workbook()
    book.active.title = "z_crit"
    sheet = book.create_sheet("all_by_image")
    header = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
    rows = [
        (1600 if r == 0 else f"scene_{r}", i, kind, level, rng.uniform(0, 0.4), rng.uniform(0, 1))
        for r in range(n_refs)
        for i, kind in enumerate(CSIQ_TYPES, start=1)
        for level in range(1, levels + 1)
    ]
    for number, row in enumerate([header, *rows], start=4):
        for column, value in enumerate(row, start=4):
            sheet.cell(number, column, value)
    root.mkdir(parents=True)
    book.save(root / "csiq.DMOS.xlsx")
    truth: Truth = {}
    for image, _, kind, level, std, dmos in rows:
        folder, token = CSIQ_TYPES[str(kind)]
        truth[f"dst_imgs/{folder}/{image}.{token}.{level}.png"] = (1 - dmos, std, f"{image}.png")
    describe(root, len(truth), n_refs)
    if images:
        write_images(root, truth)
    return truth


def write_bid(root: Path, n: int = 20, images: bool = True) -> Truth:
    """BID: an old workbook with ten to twenty grades a row; the average need not be theirs."""
    rng = np.random.default_rng(2)
    book = xlwt.Workbook()
    sheet = book.add_sheet("Plan1")
    book.add_sheet("Plan2")
    header = ["Image Number", "Average Subjective Grade", "Number of Grades"]
    for column, name in enumerate(header + [f"Grade #{i}" for i in range(1, 21)]):
        sheet.write(0, column, name)
    truth: Truth = {}
    for row in range(1, n + 1):
        grades = rng.uniform(0, 5, rng.integers(10, 21))
        average = float(grades.mean()) + (0.1 if row == 3 else 0.0)
        for column, value in enumerate([float(row), average, float(len(grades)), *grades]):
            sheet.write(row, column, float(value))
        truth[f"ImageDatabase/DatabaseImage{row:04d}.JPG"] = (average, float(np.std(grades, ddof=1)), None)
    root.mkdir(parents=True)
    book.save(str(root / "DatabaseGrades.xls"))
    if n != 586:
        describe(root, n, None)
    if images:
        write_images(root, truth)
    return truth


def write_clive(root: Path, n: int = 20, images: bool = True) -> Truth:
    """LIVE Challenge: nested cells, seven practice images first, names in no order."""
    rng = np.random.default_rng(3)
    names = [f"{i}.{'JPG' if i % 2 else 'bmp'}" for i in rng.permutation(np.arange(3, n + 3))]
    everything = [f"t{i}.bmp" for i in range(1, 8)] + names
    mos, std = rng.uniform(3, 93, (1, n + 7)), rng.uniform(6, 29, (1, n + 7))
    (root / "Data").mkdir(parents=True)
    for name, value in (
        ("AllImages_release", cells(everything, nested=True)),
        ("AllMOS_release", mos),
        ("AllStdDev_release", std),
    ):
        scipy.io.savemat(root / "Data" / f"{name}.mat", {name: value})
    truth: Truth = {
        f"Images/{name}": (float(mos[0, i]), float(std[0, i]), None) for i, name in enumerate(names, start=7)
    }
    if n != 1162:
        describe(root, n, None)
    if images:
        write_images(root, truth)
        write_image(root / "Images/trainingImages/t1.bmp", 10**6)
    return truth


def write_koniq10k(root: Path, n: int = 20, images: bool = True, fractions: bool = False) -> Truth:
    """KonIQ-10k: with counts and a MOS of 1 to 5, or with fractions and a MOS of 0 to 100."""
    rng = np.random.default_rng(4)
    root.mkdir(parents=True, exist_ok=True)
    name = "koniq10k_distributions_sets.csv" if fractions else "koniq10k_scores_and_distributions.csv"
    truth: Truth = {}
    with (root / name).open("w", newline="") as file:
        writer = csv.writer(file)
        last = ("MOS", "SD", "set") if fractions else ("MOS", "SD", "MOS_zscore")
        writer.writerow(("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", *last))
        for i in range(n):
            counts = rng.integers(1, 40, 5)
            votes = np.repeat(np.arange(1, 6), counts)
            mos, sd = float(np.mean(votes)), float(np.std(votes, ddof=1))
            total = int(counts.sum())
            zscore = 25 * (mos - 1) + rng.normal()
            shown = [repr(float(c / total)) for c in counts] if fractions else list(counts)
            tail = (zscore, sd, "training") if fractions else (mos, sd, zscore)
            writer.writerow((f"{100000 + 7 * i}.jpg", *shown, total, *tail))
            truth[f"1024x768/{100000 + 7 * i}.jpg"] = (mos, sd, None)
    if n != 10073:
        describe(root, n, None)
    if images:
        write_images(root, truth)
    return truth


def write_kadid10k(root: Path, n_refs: int = 10, images: bool = True) -> Truth:
    """KADID-10k: references share the folder of the images; `var` is a standard deviation."""
    rng = np.random.default_rng(5)
    root.mkdir(parents=True)
    truth: Truth = {}
    with (root / "dmos.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("dist_img", "ref_img", "dmos", "var"))
        for ref in range(1, n_refs + 1):
            for kind in (1, 10, 25):
                dmos, std = round(rng.uniform(1, 4.93), 2), round(rng.uniform(0, 1.5), 3)
                name = f"I{ref:02d}_{kind:02d}_01.png"
                writer.writerow((name, f"I{ref:02d}.png", f"{dmos:.2f}", f"{std:.3f}"))
                truth[f"images/{name}"] = (dmos, std, f"I{ref:02d}.png")
    describe(root, len(truth), n_refs)
    if images:
        write_images(root, [*truth, *(f"images/I{ref:02d}.png" for ref in range(1, n_refs + 1))])
    return truth


FOLDERS = {
    "live": "databaserelease2",
    "csiq": "CSIQ",
    "bid": "BID",
    "clive": "ChallengeDB_release",
    "koniq10k": "koniq-10k",
    "kadid10k": "kadid10k",
}
WRITERS: dict[str, Callable[..., Truth]] = {
    "live": write_live,
    "csiq": write_csiq,
    "bid": write_bid,
    "clive": write_clive,
    "koniq10k": write_koniq10k,
    "kadid10k": write_kadid10k,
}


def write_all(root: Path) -> dict[str, Truth]:
    """Writes all six."""
    return {name: write(root / FOLDERS[name]) for name, write in WRITERS.items()}
