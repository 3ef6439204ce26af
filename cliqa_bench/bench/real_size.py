"""Datasets with as many images as the real ones, and as large, in their authors' layouts.

Memory and starts are measured on them. The pictures are crops of a few generated ones, each file with bytes
of its own, and the ratings are drawn: nothing that is measured depends on what they show. `generated.json`
says that they are generated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from cliqa_bench.benchmarks.generated.layouts import Layout
from cliqa_bench.benchmarks.generated.make import LAYOUTS, mark_generated
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.benchmarks.generated.scenes import Scene, SceneFile
from cliqa_bench.progress import bar
from cliqa_bench.seeds import rng_for
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.processes import processes

REAL: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "live": (779, ((768, 512), (480, 720), (640, 512))),
    "csiq": (866, ((512, 512),)),
    "bid": (586, ((1280, 960), (1600, 1200), (2272, 1704), (960, 1280))),
    "clive": (1162, ((500, 500),)),
    "koniq10k": (10_073, ((1024, 768),)),
    "kadid10k": (10_125, ((512, 384),)),
}
"""Dataset -> number of rated images, and width and height of its images in turn."""

_BASE = (1280, 960)


def make_real_size(root: Path, names: Sequence[str] = tuple(REAL), scale: float = 1.0) -> int:
    """Writes datasets.

    Args:
        root: Folder that gets `databaserelease2`, `CSIQ`, ...
        names: Which of `REAL`.
        scale: Number of images relative to the real one; every dataset has ten at least.

    Returns:
        Number of rated images; it differs from the real numbers by less than a reference's images.
    """
    total, files = 0, []
    for name in names:
        layout = LAYOUTS[name]
        folder = root / layout.folder
        scenes = _scenes(layout, scale * REAL[name][0])
        pictures = [picture for scene in scenes for picture in scene.pictures]
        for place in {(folder / picture.path).parent for picture in pictures}:
            place.mkdir(parents=True, exist_ok=True)
        measures = [rng_for("bench-measures", s.seed).uniform(0.2, 1, (len(s.pictures), 4)) for s in scenes]
        total += mark_generated(folder, layout, scenes, measures, scale)
        sizes = itertools.cycle(REAL[name][1])
        files += [(folder / picture.path, next(sizes), i) for i, picture in enumerate(pictures)]
    with (
        processes(cores()) as spread,
        bar(len(files), "write pictures", "image") as shown,
    ):
        for _ in spread.map(_write, files):
            shown.update()
    return total


def _scenes(layout: Layout, images: float) -> list[Scene]:
    """Returns scenes with about so many rated pictures."""
    if layout.name == "kadid10k":  # its miniature has one level of each type; the real set has all five
        ladder = [
            Scene(s.dataset, s.seed, s.size, s.photo, s.reference, tuple(_levels(s)))
            for s in layout.scenes(images / 2500, 0)
        ]
        return ladder
    one = layout.scenes(1.0, 0)
    rated = sum(picture.fault != "" for scene in one for picture in scene.pictures)
    return layout.scenes(images / rated, 0)


def _levels(scene: Scene) -> list[SceneFile]:
    return [
        SceneFile(f"{picture.path[:-6]}{level:02d}.png", picture.fault, level)
        for picture in scene.pictures
        for level in range(1, 6)
    ]


@cache
def _bases() -> list[Image.Image]:
    half = (_BASE[0] // 2, _BASE[1] // 2)  # whole ones take seconds each
    return [Image.fromarray(reference(seed, half)).resize(_BASE) for seed in range(4)]


def _write(file: tuple[Path, tuple[int, int], int]) -> None:
    """Writes a crop of one of the base pictures, its brightness and contrast changed a little."""
    path, size, number = file
    rng = rng_for("bench-picture", path.parent.name, number)
    base = _bases()[number % len(_bases())]
    if size[0] > base.width or size[1] > base.height:
        base = base.resize((max(size[0], base.width), max(size[1], base.height)))
    left, top = (
        int(rng.integers(0, base.width - size[0] + 1)),
        int(rng.integers(0, base.height - size[1] + 1)),
    )
    pixels = np.asarray(base.crop((left, top, left + size[0], top + size[1])), np.float32)
    changed = (pixels - 128) * rng.uniform(0.4, 1) + 128 + rng.uniform(-8, 8)
    picture = Image.fromarray(changed.clip(0, 255).astype(np.uint8))
    picture.save(path, quality=85, compress_level=1)  # for JPEG and PNG; the others ignore it
