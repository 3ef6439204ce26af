"""What the pictures look like on which a backbone is pre-trained, in figures that no processor changes.

After a change of these pictures raise `PICTURES` in `cliqa_bench/models/pretraining_config.py`, and run
`PYTHONPATH=. python tests/recorded_pictures.py`, which writes `tests/pretrain_pictures.json` anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.generated.distortions import PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.models.pretraining import _DistortedBatches, _pictures
from cliqa_bench.models.pretraining_config import PICTURES, PretrainConfig
from cliqa_bench.seeds import rng_for

FILE = Path(__file__).with_name("pretrain_pictures.json")
TINY = PretrainConfig(pictures=4, size=48, batch=8)


def figures(image: NDArray[np.uint8]) -> list[float]:
    """Returns mean and deviation of each channel, and the mean step between neighbours, down and across."""
    values = image.astype(np.float64)
    steps = [np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1)]
    return [round(float(v), 3) for v in (*values.mean((0, 1)), *values.std((0, 1)), *steps)]


def look() -> dict[str, list[float]]:
    """Returns the figures of pristine pictures, of every distortion and level, and of a mini-batch."""
    pristine = [reference(seed, (120, 96)) for seed in range(6)]
    seen = {f"reference {i}": figures(image) for i, image in enumerate(pristine)}
    for i, (name, level) in enumerate(PRETRAIN_CLASSES):
        distorted = distort(pristine[i % 6], name, level, rng_for("look", i))
        seen[f"{i} {name} {level}"] = figures(distorted)
    images, labels = _DistortedBatches(TINY, _pictures(TINY, "train", 4), "train")[3]
    for i, (crop, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
        seen[f"crop {i} of class {label}"] = figures(crop)
    return seen


if __name__ == "__main__":
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in look().items())
    FILE.write_text(f'{{"version": {PICTURES}, "figures": {{\n{rows}\n}}}}\n', encoding="utf-8")
