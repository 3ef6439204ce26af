"""TSN through eight orders on six datasets with images of the real shapes; what more of them would take."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.process import Ran, run
from cliqa_bench.bench.real_size import REAL, make_real_size
from cliqa_bench.results.nodes import read_json

WHOLE = sum(n for n, _ in REAL.values())
"""Images of the six real datasets."""

PROTOCOL = ("training.pairs=batch",)
"""Beside the preset `paper`: every image once an epoch, and all pairs of a mini-batch."""

TOY_SETS = ("bid", "clive")
TOY = (*PROTOCOL, "training.crop=96", "training.warmup_epochs=0", "training.epochs=1")


class Passed(NamedTuple):
    """A run through the orders.

    Attributes:
        images: How many the datasets had.
        what: Says what was done.
        ran: What the command took.
        taken: Says what else it took: memory of all its processes and of the GPU, energy of the trainings.
    """

    images: int
    what: str
    ran: Ran
    taken: str


def eight_orders(setting: Conditions, scale: float) -> Passed:
    """Runs TSN through the eight orders from an empty cache; on a CPU, at toy size, through one.

    Args:
        setting: Device, precision and folder.
        scale: Number of images relative to the real one.
    """
    gpu = torch.device(setting.device).type == "cuda"
    folder = setting.folder / f"{scale:g}"
    names = tuple(REAL) if gpu else TOY_SETS
    n = make_real_size(folder / "data", names, scale)
    orders, backbone = ("all", "resnet18") if gpu else (",".join(names), "scnn")
    protocol = PROTOCOL if gpu else TOY
    words = [
        "run", "--strategy", "tsn", "--orders", orders, "--data", str(folder / "data"), "--preset", "paper",
        "--device", setting.device, "--precision", setting.precision, "--out", str(folder / "runs"),
        "--weights", "random", "--backbone", backbone,
        *(word for text in protocol for word in ("--set", text)),
    ]  # fmt: skip
    ran = run(words, folder / "cache")
    taken = f"{ran.peak_bytes / 1e9:.1f} GB of main memory at the peak{_on_gpu(folder / 'runs')}"
    shutil.rmtree(folder)
    title = "eight orders, ResNet-18" if gpu else "one order at toy size, S-CNN, cpu"
    return Passed(n, f"TSN, {title}, {n:,} images of real shapes, {setting.precision}", ran, taken)


def _on_gpu(runs: Path) -> str:
    """Returns the peak of a run's GPU memory, and the energy of its trainings, in words."""
    files = [*runs.glob("train/[!.]*/done.json"), *runs.glob("answers/[!.]*/done.json")]
    facts = [read_json(file)["facts"] for file in files]
    peaks = [f[name] for f in facts for name in ("gpu_bytes", "score_gpu_bytes") if name in f]
    joules = [f["joules"] for f in facts if "joules" in f]
    memory = f", {max(peaks) / 1e9:.1f} GB of the GPU's" if peaks else ""
    return memory + (f"; {sum(joules) / 1000:.1f} kJ for the trainings" if joules else "")


class Foretold(NamedTuple):
    """The prediction of a straight line.

    Attributes:
        value: At the place that was asked for.
        error: Half of its 95 % interval, for one new measurement.
    """

    value: float
    error: float


def foretell(x: Sequence[float], y: Sequence[float], at: float) -> Foretold:
    """Extends the least-squares line through points.

    Args:
        x: Three numbers at least, not all alike.
        y: As many.
        at: Where to read the line.
    """
    places, values = np.array(x, np.float64), np.array(y, np.float64)
    line = stats.linregress(places, values)
    freedom = len(places) - 2
    rest = values - line.intercept - line.slope * places
    spread = np.sqrt((rest**2).sum() / freedom)
    away = (at - places.mean()) ** 2 / ((places - places.mean()) ** 2).sum()
    error = stats.t.ppf(0.975, freedom) * spread * np.sqrt(1 + 1 / len(places) + away)
    return Foretold(float(line.intercept + line.slope * at), float(error))
