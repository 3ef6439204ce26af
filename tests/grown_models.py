"""A model of two small tables and datasets that were added to it, for tests of `add` and `remove`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliqa_bench.cli.parser import main
from cliqa_bench.execution.adding import two_scorings
from cliqa_bench.execution.adding.two_scorings import ProcessScores, ScoringTask
from cliqa_bench.extensions import registry

TINY = ("crop=24", "resize=48", "warmup_batch=4", "batch=4", "warmup_epochs=1", "epochs=1")


@contextmanager
def here(function: Callable[[ScoringTask], ProcessScores], asked: ScoringTask) -> Iterator[Any]:
    """Stands for `system.processes.call`: does the work in this process, and starts none."""
    yield lambda: function(asked._replace(threads=1))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Scores in this process, for pictures that are not worth starting two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_scorings, "call", here)
        yield


def table(folder: Path, name: str, seed: int, n: int = 20) -> str:
    """Makes pictures of one kind, the noisier the worse, and a table; returns its name as a dataset."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    rows = ["image,mos"]
    for i in range(n):
        base = np.add.outer(np.arange(40) * (seed + 1), np.arange(32) * 3)[..., None] % 200 + 20
        pixels = base + rng.normal(0, 3 * i, (40, 32, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{i:02}.png")
        rows.append(f"{i:02}.png,{n - i}")
    (folder / name / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{folder / name / name}.csv"


class Grown:
    """A model, and what was added to it.

    Attributes:
        folder: Where all of it lies.
        one: Table of the first dataset that was added.
        two: Of the second.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tables = [table(folder, name, seed) for seed, name in enumerate(("a", "b", "one", "two"))]
        self.orders, self.one, self.two = ",".join(tables[:2]), tables[2], tables[3]
        self.learned = [f"--tables={self.orders}"]
        self.all_learned = [f"--tables={self.orders},{self.one}"]

    def run(self, orders: str, out: str, *more: str) -> None:
        sets = [
            word for text in (*TINY, *more) for word in ("--set", text if "." in text else f"training.{text}")
        ]
        common = ["--device", "cpu", "--jobs", "1", "--no-figures", "--format", "csv", "--preset", "quick"]
        common += ["--seeds", "3", "--split", "2"]
        words = ["run", "--strategy", "tsn", "--orders", orders, "--out", str(self.folder / out)]
        assert main([*words, *common, "--set", "tsn.centroids=4", *sets]) == 0

    def add(self, dataset: str, to: str, out: str, *more: str) -> int:
        words = ["add", dataset, "--to", str(self.folder / to), "--out", str(self.folder / out)]
        return main([*words, "--device", "cpu", *more])

    def path(self, name: str) -> Path:
        return self.folder / name


def make_grown(folder: Path) -> Grown:
    """Makes a run of two small tables as a file, one dataset added to it, and then another."""
    with pytest.MonkeyPatch.context() as patch, in_this_process():
        patch.setattr(registry, "_sourced", dict(registry._sourced))
        made = Grown(folder)
        made.run(made.orders, "runs")
        assert main(["export", str(made.path("runs")), "--to", str(made.path("old.safetensors"))]) == 0
        assert made.add(made.one, "runs", "one.safetensors", "--max-drop", "2") == 0
        assert made.add(made.two, "one.safetensors", "two.safetensors", *made.all_learned) == 0
        return made
