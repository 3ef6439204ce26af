"""How cost grows: with images and their pixels, in scoring; with images, in training; with tasks.

The time of three sizes is fitted by a power law. Its exponent is the slope of log time over log size, by
least squares over all repeats, with a 95 % interval from the residuals (Student's t). Growth is called linear
where the whole interval lies within 1 +- `TOLERANCE`, not linear where none of it does, and otherwise open:
then the repeats scatter too much to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import pictures_source
from cliqa_bench.bench.groups import score_speed, training
from cliqa_bench.bench.measurement import Measurement, interleaved, seconds
from cliqa_bench.benchmarks.decoded import DecodedDataset

TOLERANCE = 0.15
"""How far from 1 an exponent may be: with 0.15, four times the work takes 3.2 to 4.9 times as long."""

FACTORS = (1, 2, 4)
TASKS = (2, 6, 12)
SIDES = ((192, 256), (384, 256), (384, 512))
"""Height and width of the pictures of growing size: 1, 2 and 4 times the pixels."""
LARGE = 8
"""Images per size, on a CPU."""
IMAGES = 128
"""Images of the smallest size on a CPU."""


class Fit(NamedTuple):
    """A power law through times.

    Attributes:
        exponent: Slope of log time over log size.
        low: Lower end of its 95 % interval; nan without residuals.
        high: Upper end.
    """

    exponent: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Says "linear", "not linear" or "open"."""
        if self.low >= 1 - TOLERANCE and self.high <= 1 + TOLERANCE:
            return "linear"
        return "not linear" if self.low > 1 + TOLERANCE or self.high < 1 - TOLERANCE else "open"


def power_law(sizes: Sequence[float], times: Sequence[Sequence[float]]) -> Fit:
    """Fits time = c * size**exponent.

    Args:
        sizes: At least two different ones, above 0.
        times: For each size its repeats, in seconds.
    """
    points = [(size, time) for size, repeats in zip(sizes, times, strict=True) for time in repeats]
    x, y = np.log(np.array(points)).T
    found = stats.linregress(x, y)
    freedom = len(points) - 2
    half = float(stats.t.ppf(0.975, freedom)) * float(found.stderr) if freedom else float("nan")
    return Fit(float(found.slope), float(found.slope) - half, float(found.slope) + half)


def row(what: str, sizes: Sequence[int], sides: Sequence[Callable[[], float]], repeats: int) -> Measurement:
    """Measures the seconds of several sizes in turn; the row's values are the exponents of each repeat.

    Args:
        what: What grows.
        sizes: How much of it each side has.
        sides: Each measures its size once and returns its seconds.
        repeats: How often.
    """
    times = interleaved(sides, repeats, what=what)
    fit = power_law(sizes, times)
    exponents = [power_law(sizes, [[t] for t in once]).exponent for once in zip(*times, strict=True)]
    note = f"{fit.verdict}: all repeats together {fit.exponent:.3f} ({fit.low:.3f}..{fit.high:.3f})"
    raw = {str(size): seconds for size, seconds in zip(sizes, times, strict=True)}
    return Measurement("growth", what, tuple(exponents), "(exponent)", note=note, raw=raw)


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    least = IMAGES * (score_speed.ON_GPU if torch.device(setting.device).type == "cuda" else 1)
    sizes = [least * factor for factor in FACTORS]
    yield scoring_images(setting, sizes)
    yield scoring_pixels(setting, LARGE * sizes[0] // IMAGES)
    yield scoring_tasks(setting, sizes[1])
    yield training_images(setting, sizes)


def _source(setting: Conditions, images: int, folder: str) -> DecodedDataset:
    shapes = [score_speed.MINIATURES[i % len(score_speed.MINIATURES)] for i in range(images)]
    return pictures_source(setting.folder / folder, shapes, "test")


def scoring_images(setting: Conditions, sizes: Sequence[int]) -> Measurement:
    """Measures scoring, gate and six heads, of more and more images."""
    all_ours = [score_speed.OurScoring("scnn", _source(setting, n, f"images-{n}"), setting) for n in sizes]
    sides = [_timed(ours.score) for ours in all_ours]
    return row(f"scoring, images {_listed(sizes)}, S-CNN", sizes, sides, setting.repeats)


def scoring_pixels(setting: Conditions, images: int) -> Measurement:
    """Measures scoring, gate and six heads, of larger and larger images."""
    sources = [pictures_source(setting.folder / f"{h}x{w}", [(h, w)] * images, "test") for h, w in SIDES]
    sides = [_timed(score_speed.OurScoring("scnn", source, setting).score) for source in sources]
    sizes = [height * width for height, width in SIDES]
    return row(f"scoring, pixels of an image {_listed(sizes)}, S-CNN", sizes, sides, setting.repeats)


def scoring_tasks(setting: Conditions, images: int) -> Measurement:
    """Measures scoring with more and more heads, each with its own normalisation; no gate."""
    source = _source(setting, images, "tasks")
    all_ours = [score_speed.OurScoring("scnn", source, setting, tasks) for tasks in TASKS]
    sides = [_timed(ours.heads) for ours in all_ours]
    return row(f"scoring, tasks {_listed(TASKS)}, S-CNN", TASKS, sides, setting.repeats)


def training_images(setting: Conditions, sizes: Sequence[int]) -> Measurement:
    """Measures an epoch of TSN's training on more and more images."""
    all_ours = [training.OurTraining("tsn", training.make_job(setting, setting.precision, n)) for n in sizes]
    sides = [lambda ours=ours: ours.epoch()[0] for ours in all_ours]
    return row(f"training, images {_listed(sizes)}, TSN", sizes, sides, setting.repeats)


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    return lambda: seconds(call)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
