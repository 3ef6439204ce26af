"""LIQE's speed against IQA-PyTorch's, in one run: python tests/liqe_against_pyiqa.py FOLDER [REPEATS].

Not part of the test suite. Both sides score the same forty JPEG files with the same random weights and the
same fifteen windows of each, from the file to the score, alternating, with two threads; the largest
difference of their scores is printed beside the ratio. IQA-PyTorch is the package `pyiqa` 0.1.16, as
published but for two functions that would download weights. It gets an environment of its own in FOLDER, with
PyTorch and all else from the present one, so that both sides compute with the same libraries. Its licence
(PolyForm Noncommercial) allows such a measurement and little more: nothing of it is used here.

Before that, the rows of `cliqa-bench bench --rows liqe`: the same scoring, and training, against bare loops.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from cliqa_bench.bench import table
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups.liqe_speed import LIQEScoring, liqe_pictures, measure
from cliqa_bench.bench.measurement import Measurement, interleaved, seconds
from cliqa_bench.benchmarks.pixels.cache import to_float

THREADS = 2
NEEDS = (
    "pyiqa==0.1.16", "opencv-python-headless==4.13.0.92", "openai-clip==1.0.1", "setuptools==80.9.0",
)  # fmt: skip
_PEER = """
import json, sys, time
import torch
from safetensors.torch import load_file
torch.set_num_threads(int(sys.argv[1]))
weights, files = load_file(sys.argv[2]), json.loads(sys.argv[3])
import pyiqa
from pyiqa.archs import clip_model, liqe_arch
liqe_arch.load = lambda name, device: clip_model.build_model(dict(weights)).float()
liqe_arch.load_pretrained_network = lambda *args, **kwargs: None
metric = pyiqa.create_metric("liqe_mix", device=torch.device("cpu"))
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    scores = [float(metric(file)) for file in files]
    print(json.dumps([time.perf_counter() - start, scores]), flush=True)
"""


class Peer:
    """IQA-PyTorch's LIQE in a process of its own.

    Attributes:
        scores: What it said in its last pass over the files.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.scores: list[float] = []

    def seconds(self) -> float:
        """Scores all files; returns how long that took."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        taken, self.scores = json.loads(self.line("["))
        return float(taken)

    def line(self, start: str) -> str:
        """Returns its next line that starts so; the package prints lines of its own."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise RuntimeError("IQA-PyTorch has ended")


@contextmanager
def peer(folder: Path, weights: Path, files: list[Path]) -> Iterator[Peer]:
    """Starts IQA-PyTorch's LIQE with given weights, installing it first, and ends it."""
    python = _installed(folder)
    words = [str(python), "-c", _PEER, str(THREADS), str(weights), json.dumps([str(f) for f in files])]
    (weights.parent / "hub" / "pyiqa").mkdir(parents=True)  # where it keeps text features; downloads make it
    environment = {**os.environ, "TORCH_HOME": str(weights.parent)}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            other = Peer(process)
            other.line("ready")
            yield other
        finally:
            process.kill()


def _installed(folder: Path) -> Path:
    home = folder / "pyiqa-venv"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        (own,) = (home / "lib").glob("python*/site-packages")
        (own / "shared.pth").write_text(
            "\n".join(path for path in sys.path if path.endswith("-packages")), encoding="utf-8"
        )
    if subprocess.run([python, "-c", "import pyiqa, clip"], capture_output=True).returncode:
        words = ["install", "-q", "--no-deps", *NEEDS]
        subprocess.run([python, "-m", "pip", *words], check=True)
    return python


def all_weights(ours: LIQEScoring) -> dict[str, torch.Tensor]:
    """Returns the weights of both towers under OpenAI's names."""
    net: Any = ours.model.net
    visual = {f"visual.{name}": tensor for name, tensor in net.visual.state_dict().items()}
    return {name: tensor.contiguous().clone() for name, tensor in {**visual, **net.text_weights()}.items()}


def from_files(ours: LIQEScoring, files: list[Path]) -> NDArray[np.float32]:
    """Scores files one by one."""
    scores = []
    with torch.inference_mode():
        for file in files:
            pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
            scores.append(float(ours.scorer(to_float(pixels[None]))[0, 0]))
    return np.array(scores, np.float32)


def against_peer(folder: Path, setting: Conditions) -> Measurement:
    """Measures both sides, from the files to the scores."""
    ours = LIQEScoring(liqe_pictures(setting), setting)
    files = [ours.source.dataset.path(key) for key in ours.source.keys("test")]
    weights = setting.folder / "weights.safetensors"
    save_file(all_weights(ours), weights)
    with peer(folder, weights, files) as other:
        sides = [
            lambda: len(files) / seconds(lambda: from_files(ours, files)),
            lambda: len(files) / other.seconds(),
        ]
        got, theirs = interleaved(sides, setting.repeats, what="IQA-PyTorch")
        found = from_files(ours, files)
        away = float(np.abs(found - other.scores).max())
    note = f"largest difference of a score: {away:.2g}, of scores from {found.min():.4f} to {found.max():.4f}"
    what = f"LIQE scores {len(files)} files, CLIP ViT-B/32, fp32"
    return Measurement("liqe", what, got, "image/s", theirs, "IQA-PyTorch 0.1.16", reach=1.0, note=note)


def main(folder: Path, repeats: int = 3) -> None:
    """Measures, and prints the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:

        def setting(part: str) -> Conditions:
            own = Path(scratch) / part
            own.mkdir()
            return Conditions("cpu", "fp32", THREADS, repeats, own)

        rows = [*measure(setting("bare")), against_peer(folder, setting("peer"))]
    print(table.text(rows))
    for row in rows:
        print(row.what, "|", row.against, row.ours, row.reference, row.note)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
