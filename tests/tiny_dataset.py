"""A dataset of a few random pictures, for tests of what stands on datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.types import Rating


class Tiny(Dataset):
    """Reads `scores.txt` (file name and score in a line) beside its pictures."""

    name = "tiny"
    title = "Tiny"
    folders = ("tiny",)
    label_files = ("scores.txt",)
    image_folders = ("",)
    citation = "none"
    homepage = "nowhere"
    n_images = 0
    direction = "higher"
    rule = "as is"
    n_pairs_paper = 40
    n_pairs_files = 30

    def entries(self) -> list[Entry]:
        rows = [line.split() for line in (self.root / "scores.txt").read_text().splitlines()]
        return [
            Entry(f"scores.txt row {n}", Rating(key, float(score), 0.1, None, "none"))
            for n, (key, score) in enumerate(rows, 1)
        ]

    @property
    def expected_images(self) -> int:
        return len((self.root / "scores.txt").read_text().splitlines())


def make_tiny(
    root: Path, n: int = 24, shapes: tuple[tuple[int, int], ...] = ((48, 64), (64, 48), (100, 50))
) -> Tiny:
    """Writes `n` PNG files of random pixels, whose shapes (height, width) take turns, and their scores."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for i in range(n):
        pixels = rng.integers(0, 256, (*shapes[i % len(shapes)], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:03}.png")
    scores = "".join(f"{i:03}.png {score}\n" for i, score in enumerate(rng.permutation(n) / 10))
    (root / "scores.txt").write_text(scores)
    return Tiny(root)


def pixels_of(dataset: Dataset, key: str) -> np.ndarray:
    """Reads a picture with Pillow alone."""
    return np.asarray(Image.open(dataset.path(key)))
