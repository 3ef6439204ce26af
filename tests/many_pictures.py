"""Scores 10,000 mixed pictures, 1 % of them faulty, killed in the middle and resumed: bytes, memory, speed.

In the checkout's root: `PYTHONPATH=. python tests/many_pictures.py --runs runs`, where `runs` holds a
finished run; about ten minutes. Pictures of 48 to 96 pixels in ten formats and modes are made in a temporary
folder, once without faults and once with every hundredth broken, each in one of six ways. Then

- both folders are scored in turn, several times: throughput of the faulty folder over that of the clean one,
  by wall clock and by CPU time, each picture counted in both;
- the faulty folder is scored by a command that is killed with -9 in the middle and given again: its table is
  compared, byte for byte, with that of an undisturbed command;
- the peak memory of a command over 10,000 pictures stands beside that over 1,000.

The exit code is 1 if a table differs, or a picture or an error is missing. It is not part of the test suite.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

KINDS: dict[str, Callable[[Image.Image, Path], None]] = {
    "JPEG": lambda image, path: image.save(path.with_suffix(".jpg"), quality=85),
    "progressive JPEG": lambda image, path: image.save(path.with_suffix(".jpeg"), progressive=True),
    "CMYK JPEG": lambda image, path: image.convert("CMYK").save(path.with_suffix(".jpg")),
    "PNG": lambda image, path: image.save(path.with_suffix(".png")),
    "PNG with alpha": lambda image, path: image.convert("RGBA").save(path.with_suffix(".png")),
    "PNG with palette": lambda image, path: image.quantize(64).save(path.with_suffix(".png")),
    "gray PNG, 16 bits": lambda image, path: _gray16(image).save(path.with_suffix(".png")),
    "BMP": lambda image, path: image.save(path.with_suffix(".bmp")),
    "TIFF, LZW": lambda image, path: image.save(path.with_suffix(".tif"), compression="tiff_lzw"),
    "WebP": lambda image, path: image.save(path.with_suffix(".webp"), quality=80),
}
SIZES = ((64, 48), (96, 64), (72, 96), (80, 80))
PASSES = 3


def _gray16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def make_folder(folder: Path, n: int, faulty: bool) -> int:
    """Makes n pictures; breaks every hundredth if asked to. Returns how many are broken."""
    folder.mkdir()
    broken = 0
    for number in range(n):
        rng = np.random.default_rng(number)
        width, height = SIZES[number % len(SIZES)]
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        name = folder / f"{number:05}"
        list(KINDS.values())[number // len(SIZES) % len(KINDS)](image, name)
        if faulty and number % 100 == number // 100 * 37 % 100:  # of every kind and size
            (path,) = folder.glob(f"{number:05}.*")
            _break(path, broken)
            broken += 1
    return broken


def _break(path: Path, way: int) -> None:
    """Breaks a file: cut off, emptied, text, a hole of zeros, too small a picture, one of float pixels."""
    data = path.read_bytes()
    kind = way % 6
    if kind == 0:
        path.write_bytes(data[: len(data) // 3])
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        path.write_bytes(b"this is not a picture\n" * 20)
    elif kind == 3:
        path.write_bytes(data[:8] + bytes(len(data) - 8))
    elif kind == 4:
        path.unlink()
        Image.new("RGB", (7, 7)).save(path.with_suffix(".png"))
    else:
        path.unlink()
        Image.fromarray(np.full((64, 64), 0.5, np.float32)).save(path.with_suffix(".tif"))


class Usage(NamedTuple):
    """What a command took.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of CPU time, of all its processes.
        peak: Largest resident memory of one of its processes, in MB.
        rc: Its exit code.
    """

    wall: float
    cpu: float
    peak: float
    rc: int


def command(folder: Path, table: Path, runs: Path) -> list[str]:
    """Returns the command that scores a folder."""
    score = [sys.executable, "-m", "cliqa_bench", "score", str(folder), "--runs", str(runs)]
    return [*score, "--to", str(table), "--progress", "none", "--device", "cpu"]


def measured(folder: Path, table: Path, runs: Path) -> Usage:
    """Scores a folder and says what that took."""
    start = time.monotonic()
    child = subprocess.Popen(command(folder, table, runs), stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, child.returncode)


def killed(folder: Path, table: Path, runs: Path, rows: int) -> int:
    """Scores a folder, kills the command with -9 after so many rows; returns how many the table has then."""
    child = subprocess.Popen(command(folder, table, runs), stderr=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None and count_rows(table) < rows:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return count_rows(table)


def count_rows(table: Path) -> int:
    """Counts the rows below the header; 0 for no file."""
    return max(table.read_bytes().count(b"\n") - 1, 0) if table.is_file() else 0


def check_table(table: Path, n: int, broken: int) -> list[str]:
    """Returns what is wrong with a finished table."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    errors = sum(bool(row["error"]) for row in rows)
    scored = sum(bool(row["score"]) for row in rows)
    wrong = []
    if len(rows) != n:
        wrong.append(f"{table.name} has {len(rows)} rows, not {n}")
    if (scored, errors) != (n - broken, broken):
        wrong.append(f"{table.name} has {scored} scores and {errors} errors, not {n - broken} and {broken}")
    return wrong


def main() -> int:
    """Makes the pictures, scores them, prints what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--pictures", type=int, default=10_000)
    options = parser.parse_args()
    n, runs = options.pictures, options.runs.resolve()
    with tempfile.TemporaryDirectory(prefix="many-pictures-") as name:
        work = Path(name)
        make_folder(work / "clean", n, faulty=False)
        broken = make_folder(work / "faulty", n, faulty=True)
        make_folder(work / "few", n // 10, faulty=False)
        print(f"{n} pictures of {len(KINDS)} kinds; {broken} of the faulty folder are broken", flush=True)
        usages: dict[str, list[Usage]] = {"clean": [], "faulty": []}
        for number in range(PASSES):
            for folder, found in usages.items():
                found.append(measured(work / folder, work / f"{folder}{number}.csv", runs))
                print(f"{folder:6} {number + 1}: {found[-1]}", flush=True)
        few = measured(work / "few", work / "few.csv", runs)
        print(f"peak memory: {few.peak:.0f} MB for {n // 10}, {usages['faulty'][0].peak:.0f} MB for {n}")
        for what in ("wall", "cpu"):
            clean, faulty = (statistics.median(getattr(u, what) for u in usages[f]) for f in usages)
            print(f"throughput, faulty over clean, by {what}: {clean / faulty:.3f}")
        wrong = check_table(work / "faulty0.csv", n, broken)
        if [u.rc for u in usages["clean"] + usages["faulty"]] != [0] * PASSES + [1] * PASSES:
            wrong.append("an exit code is wrong")
        there = killed(work / "faulty", work / "killed.csv", runs, n // 2)
        again = measured(work / "faulty", work / "killed.csv", runs)
        print(f"killed with -9 after {there} rows; resumed: {again}", flush=True)
        if (work / "killed.csv").read_bytes() != (work / "faulty0.csv").read_bytes():
            wrong.append("the resumed table has other bytes")
        print("\n".join(wrong) or "the resumed table has the same bytes; all rows and errors are there")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
