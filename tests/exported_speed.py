"""Scores of exported models beside ours, and times: python tests/exported_speed.py RUNS [RUN] [SIDE].

Not part of the test suite, but for `compare`. Exports the run to ONNX and as PyTorch's program, scores 100
generated pictures of ten sizes with each, one at a time and in turn with ours, with one thread each, and
prints the largest difference and the ratio of CPU times. Ours is what `score` runs: the gate, then the heads.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.execution import export_model
from cliqa_bench.execution.learned import Learned
from cliqa_bench.execution.loaded_model import open_learned

SHAPES = (
    (1.0, 1.0), (1.0, 1.34), (1.5, 1.0), (1.0, 1.79), (2.1, 1.0), (1.13, 1.27), (1.0, 3.0), (1.61, 1.43),
    (1.21, 1.0), (1.9, 1.9),
)  # fmt: skip
"""Heights and widths, of the shorter side."""


class Compared(NamedTuple):
    """What came of it.

    Attributes:
        pictures: How many.
        sizes: Of how many sizes.
        largest: Largest difference of a score.
        ours: Seconds of CPU time that our network took, of all pictures.
        theirs: Those that the other took.
    """

    pictures: int
    sizes: int
    largest: float
    ours: float
    theirs: float


def generated(number: int, side: int) -> NDArray[np.uint8]:
    """Returns a picture with smooth colours, edges, and noise of a strength of its own."""
    rng = np.random.default_rng(number)
    height, width = (round(side * factor) for factor in SHAPES[number % len(SHAPES)])
    y, x = np.mgrid[:height, :width] / side
    waves = [
        np.sin(rng.uniform(2, 30) * x + rng.uniform(2, 30) * y + phase) for phase in rng.uniform(0, 6, 3)
    ]
    colours = 128 + 80 * np.stack(waves, axis=2) + 40 * np.sign(np.sin(9 * x * y))[:, :, None]
    noisy = colours + rng.normal(size=colours.shape) * rng.uniform(0, 40)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def compare(learned: Learned, run: export_model.Runner, pictures: int, side: int) -> Compared:
    """Scores pictures with a model and with what it was exported to.

    Args:
        learned: The model.
        run: Scores with the other.
        pictures: How many.
        side: Their shorter side, in pixels.
    """
    scorer = learned.scorer(torch.device("cpu"))
    largest, times, sizes = 0.0, [0.0, 0.0], set()
    for number in range(-len(SHAPES), pictures):  # each size once before anything counts
        pixels = generated(abs(number), side)[None]
        start = time.process_time()
        with torch.inference_mode():
            ours = scorer(to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))).scores
        middle = time.process_time()
        theirs = run(pixels)
        end = time.process_time()
        if number >= 0:
            largest = max(largest, float(np.abs(ours - theirs).max()))
            times = [times[0] + middle - start, times[1] + end - middle]
            sizes.add(pixels.shape)
    return Compared(pictures, len(sizes), largest, *times)


def main(runs: str, run: str | None = None, side: str = "224") -> None:
    """Prints a line for each format."""
    torch.set_num_threads(1)
    learned = open_learned(Path(runs), run)
    with tempfile.TemporaryDirectory() as folder:
        for form, write, runner in (
            ("onnx", export_model.export_onnx, export_model.runner_of_onnx),
            ("pt2", export_model.export_program, export_model.runner_of_program),
        ):
            file = Path(folder) / f"model.{form}"
            write(learned, file)
            found = compare(learned, runner(file), 100, int(side))
            print(
                f"{form}: {found.pictures} pictures of {found.sizes} sizes, largest difference "
                f"{found.largest:.1e}; ours {found.ours:.2f} s, "
                f"theirs {found.theirs:.2f} s, ratio {found.theirs / found.ours:.2f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
