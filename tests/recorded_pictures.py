"""What generated pictures look like, in figures that no processor changes.

Their bytes are the same on one machine only: NumPy raises to a power with other instructions where there is
AVX-512, and then a pixel in some thousands is one level brighter or darker.

After a change of the pictures on which a backbone is pre-trained raise `PICTURES` in
`cliqa_bench/models/pretraining_config.py`; after one of the miniatures, `VERSION` in
`cliqa_bench/benchmarks/generated/make.py`. Then run `PYTHONPATH=. python tests/recorded_pictures.py`, which
writes `tests/pretrain_pictures.json` and `tests/miniature_pictures.json` anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from conftest import SCALE
from numpy.typing import NDArray
from PIL import Image

from cliqa_bench.benchmarks import labelled
from cliqa_bench.benchmarks.generated.distortions import PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.make import LAYOUTS, VERSION, make_miniatures
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.models.pretraining import _DistortedBatches, _pictures
from cliqa_bench.models.pretraining_config import PICTURES, PretrainConfig
from cliqa_bench.seeds import rng_for

FILE = Path(__file__).with_name("pretrain_pictures.json")
MINIATURES = Path(__file__).with_name("miniature_pictures.json")
EACH = 12
"""How many pictures of a dataset are looked at."""
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


def look_at_miniatures(root: Path) -> dict[str, list[float]]:
    """Returns the figures of some pictures of each miniature, and mean and deviation of its MOS."""
    seen = {}
    for name, dataset in labelled.load_materials(list(LAYOUTS), root).items():
        ratings = dataset.ratings
        for rating in ratings[:: -(-len(ratings) // EACH)]:
            with Image.open(dataset.dataset.path(rating.key)) as image:
                seen[f"{name} {rating.key}"] = figures(np.asarray(image.convert("RGB")))
        scores = [rating.score for rating in ratings]
        seen[f"{name} MOS"] = [round(float(v), 3) for v in (np.mean(scores), np.std(scores))]
    return seen


def assert_alike(file: Path, version: int, seen: dict[str, list[float]], margin: float, advice: str) -> None:
    """Fails if pictures differ from those that a file describes for this version; says what to do."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["version"] == version, advice
    assert seen.keys() == kept["figures"].keys(), f"other pictures, classes or labels: {advice}"
    for name, figures in seen.items():
        same = np.allclose(figures, kept["figures"][name], rtol=0, atol=margin)
        assert same, f"{name} differs from version {version}: {advice}"


def _write(path: Path, version: int, seen: dict[str, list[float]]) -> None:
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in seen.items())
    path.write_text(f'{{"version": {version}, "figures": {{\n{rows}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    _write(FILE, PICTURES, look())
    with tempfile.TemporaryDirectory() as folder:
        make_miniatures(Path(folder), SCALE, seed=0)
        _write(MINIATURES, VERSION, look_at_miniatures(Path(folder)))
