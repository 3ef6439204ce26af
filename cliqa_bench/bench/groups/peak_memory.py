"""Resident memory of a run on six datasets of real-size images, at one, two and four times the images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.bench.process import run
from cliqa_bench.bench.real_size import make_real_size

PROTOCOL = ("training.crop=96", "training.pairs=batch", "training.warmup_epochs=0", "training.epochs=1")
"""Few and small steps: what is large is the images, which are decoded, described and scored whole."""


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group: at a quarter, at half and at the whole of the scale."""
    first = float("nan")
    for part in (0.25, 0.5, 1.0):
        folder = setting.folder / f"{part:g}"
        n = make_real_size(folder / "data", scale=part * setting.scale)
        words = [
            "run", "--strategy", "tsn", "--orders", "I", "--data", str(folder / "data"), "--preset", "paper",
            "--backbone", "scnn", "--device", setting.device, "--precision", setting.precision,
            "--out", str(folder / "runs"), *(word for text in PROTOCOL for word in ("--set", text)),
        ]  # fmt: skip
        ran = run(words, folder / "cache")
        shutil.rmtree(folder)  # tens of gigabytes at the whole scale
        peak = ran.peak_bytes / 1e9
        yield Measurement(
            "memory", f"decode, train, gate and test {n:,} images of real size", (peak,), "GB", reach=4,
            better="lower", note=f"{ran.seconds:.0f} s",
        )  # fmt: skip
        if part == 1.0:
            yield Measurement(
                "memory", "four times the images", (peak,), "GB", (first,), "a quarter of them", reach=1.2,
                better="lower",
            )  # fmt: skip
        elif part == 0.25:
            first = peak
