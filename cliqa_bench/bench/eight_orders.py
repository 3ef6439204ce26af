"""TSN through the eight orders on six datasets with images of the real shapes, and what more of them would take."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.process import Ran, run
from cliqa_bench.bench.real_size import REAL, make_real_size

WHOLE = sum(n for n, _ in REAL.values())
"""Images of the six real datasets."""

PROTOCOL = ("training.pairs=batch",)
"""Beside the preset `paper`: every image once an epoch, and all pairs of a mini-batch."""

TOY = (*PROTOCOL, "training.crop=96", "training.warmup_epochs=0", "training.epochs=1")


class Passed(NamedTuple):
    """A run through the orders.

    Attributes:
        images: How many the datasets had.
        what: Says what was done.
        ran: What the command took.
    """

    images: int
    what: str
    ran: Ran


def eight_orders(setting: Conditions, scale: float) -> Passed:
    """Runs TSN through the eight orders from an empty cache; on a CPU, at toy size, through one.

    Args:
        setting: Device, precision and folder.
        scale: Number of images relative to the real one.
    """
    gpu = torch.device(setting.device).type == "cuda"
    folder = setting.folder / f"{scale:g}"
    n = make_real_size(folder / "data", scale=scale)
    orders, backbone, protocol = ("all", "resnet18", PROTOCOL) if gpu else ("I", "scnn", TOY)
    words = [
        "run", "--strategy", "tsn", "--orders", orders, "--data", str(folder / "data"), "--preset", "paper",
        "--device", setting.device, "--precision", setting.precision, "--out", str(folder / "runs"),
        "--weights", "random", "--backbone", backbone,
        *(word for text in protocol for word in ("--set", text)),
    ]  # fmt: skip
    ran = run(words, folder / "cache")
    shutil.rmtree(folder)
    title = "eight orders, ResNet-18" if gpu else "one order at toy size, S-CNN, cpu"
    return Passed(n, f"TSN, {title}, {n:,} images of real shapes, {setting.precision}", ran)


class Foretold(NamedTuple):
    """What a straight line says.

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
