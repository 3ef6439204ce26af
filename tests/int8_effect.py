"""What 8 bits do to the SRCC of a run's test sets, and to its speed: python tests/int8_effect.py RUNS [RUN].

Not part of the test suite. Exports the run to ONNX in float32 and with convolutions in 8 bits, whose ranges
come from training pictures of its datasets, evenly chosen; scores all test pictures with both and with ours,
one picture at a time, one thread, in turn; and prints the three SRCC and the ratio of CPU times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cliqa_bench.benchmarks.labelled import LabelledDataset, load_materials
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.execution.export_int8 import MOST, export_int8
from cliqa_bench.execution.export_model import Runner, export_onnx, runner_of_onnx
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.execution.own_picture import read_picture
from cliqa_bench.metrics import srcc
from cliqa_bench.types import Subset


def paths_of(material: LabelledDataset, subset: Subset) -> list[tuple[Path, float]]:
    """Returns the pictures of a subset and their MOS."""
    where = material.split.subset
    rated = zip(material.ratings, material.paths, strict=True)
    return [(Path(path), rating.score) for rating, path in rated if where[rating.key] == subset]


def link_pictures(materials: Sequence[LabelledDataset], folder: Path) -> None:
    """Fills a folder with training pictures of all datasets alike."""
    each = -(-2 * MOST // len(materials))
    for name, material in enumerate(materials):
        paths = [path for path, _ in paths_of(material, "train")]
        for i in range(each):
            path = paths[i * len(paths) // each]
            (folder / f"{name}-{i}{path.suffix}").symlink_to(path)


def main(runs: str, run: str | None = None) -> None:
    """Prints a line for each test set."""
    torch.set_num_threads(1)
    learned = open_learned(Path(runs), run)
    materials = load_materials(learned.facts.sequence, None, "1")
    scorer, resize = learned.scorer(torch.device("cpu")), learned.facts.protocol.resize

    def ours(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return scorer(to_float(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2))).scores

    with tempfile.TemporaryDirectory() as scratch:
        whole, small, pictures = (Path(scratch) / name for name in ("whole.onnx", "int8.onnx", "pictures"))
        pictures.mkdir()
        link_pictures(list(materials.values()), pictures)
        export_onnx(learned, whole)
        print(export_int8(learned, small, pictures), whole.stat().st_size, small.stat().st_size)
        runners: list[Runner] = [ours, runner_of_onnx(whole), runner_of_onnx(small)]
        for name, material in materials.items():
            found, mos, took = [], [], np.zeros(3)
            for path, score in paths_of(material, "test"):
                pixels = read_picture(path, resize, 64.0).pixels
                assert pixels is not None
                said = []
                for i, runner in enumerate(runners):
                    start = time.process_time()
                    said.append(runner(pixels[None])[0])
                    took[i] += time.process_time() - start
                found.append(said)
                mos.append(score)
            agreed = [f"{srcc(column, mos):.4f}" for column in np.array(found, np.float64).T]
            times = ", ".join(f"{one / took[0]:.2f}" for one in took)
            print(f"{name}: SRCC ours, ONNX, int8 {', '.join(agreed)}; CPU time, of ours: {times}")


if __name__ == "__main__":
    main(*sys.argv[1:])
