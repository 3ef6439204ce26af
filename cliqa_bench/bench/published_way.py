"""The published way to score: one image at a time, every task's normalisation loaded for every image.

What favours it, compared with the published code (protocol, sections 5 and 6): normalisation states and
centroids are not read from the disk for every image but kept in memory, nothing is recorded for gradients,
and the gate's network has its normalisation loaded once. As there, one worker decodes ahead.

Run as a module it is the other side of a comparison in a process of its own, because how the C library keeps
freed memory cannot be changed back: it says when it is ready, and then, for every line that it is sent, how
many seconds it took to score all images.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

from cliqa_bench.bench.fixtures import RESIZE, backbone_net, tsn_model
from cliqa_bench.bench.measurement import seconds
from cliqa_bench.benchmarks.decoded import prefetch
from cliqa_bench.benchmarks.pixels.cache import MEAN, STD
from cliqa_bench.models.quality import QualityModel


@dataclass(frozen=True)
class Task:
    """What a process of its own is to score.

    Attributes:
        folder: Of the image files.
        backbone: Name of the backbone; its weights are random.
        device: Where to compute; on a GPU in float16 autocast, as published, else in float32.
        threads: Of PyTorch's computations on a CPU.
    """

    folder: str
    backbone: str
    device: str
    threads: int


class PublishedWay:
    """A six-task TSN as the published code scores with it.

    Args:
        backbone: Name of the backbone.
        model: The model whose tasks are loaded one after the other; `fixtures.tsn_model` by default.
        device: Where to compute.
    """

    def __init__(self, backbone: str, model: QualityModel | None = None, device: str = "cpu") -> None:
        model = tsn_model(backbone) if model is None else model
        self.device = torch.device(device)
        nets = (backbone_net(backbone).to(memory_format=torch.contiguous_format) for _ in range(2))
        self.net, self.gate = (net.to(self.device).eval() for net in nets)
        state = {name: tensor.to(self.device) for name, tensor in model.own_state().items()}
        self.norms = [_norms_of(state, task) for task in range(model.n_tasks)]
        self.heads = [state[f"heads.{task}.weight"] for task in range(model.n_tasks)]
        self._read = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def read(self, path: Path) -> Tensor:
        """Decodes an image file: (1, 3, H, W) float32, shrunk by the 768 rule and normalised."""
        image = Image.open(path).convert("RGB")
        if min(image.size) >= RESIZE:
            image = transforms.functional.resize(image, RESIZE)
        pixels: Tensor = self._read(image)
        return pixels[None]

    def score(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gate's features (all stages side by side) and every head's score of one image."""
        stages = torch.cat(self.gate(image).stages, dim=1)
        scores = []
        for norms, head in zip(self.norms, self.heads, strict=True):
            self.net.load_state_dict(norms, strict=False)
            scores.append(self.net(image).final @ functional.normalize(head, dim=1).T)
        return stages[0], torch.cat(scores, dim=1)[0]

    def score_files(self, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
        """Scores image files: (n, channels of all stages) and (n, tasks), on the CPU, float32."""
        kind = self.device.type
        with torch.no_grad(), torch.autocast(kind, torch.float16, enabled=kind == "cuda"):
            images = prefetch(self.read(path) for path in paths)
            found = [self.score(image.to(self.device)) for image in images]
            stages, scores = (torch.stack(part).float().cpu() for part in zip(*found, strict=True))
        return stages, scores


def _norms_of(state: dict[str, Tensor], task: int) -> dict[str, Tensor]:
    """Returns a task's normalisation under the names that it has in a network without tasks."""
    own = f".tasks.{task}."
    return {n.replace(own, ".").removeprefix("net."): t for n, t in state.items() if own in n}


class Elsewhere:
    """The published way in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds(self) -> float:
        """Scores all images once, and returns how long it took there."""
        assert self._process.stdin is not None
        self._process.stdin.write("score\n")
        self._process.stdin.flush()
        return float(self.line())

    def line(self) -> str:
        """Returns the next line that the process prints.

        Raises:
            RuntimeError: If it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the published way ended with code {self._process.wait()}")
        return line


@contextmanager
def elsewhere(task: Task) -> Iterator[Elsewhere]:
    """Starts the published way in a process of its own, and ends it."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(task))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            other = Elsewhere(process)
            other.line()
            yield other
        finally:
            process.kill()


def _main(task: Task) -> None:
    torch.set_num_threads(task.threads)
    way = PublishedWay(task.backbone, device=task.device)
    files = sorted(Path(task.folder).glob("*.jpg"))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(lambda: way.score_files(files)), flush=True)


if __name__ == "__main__":
    _main(Task(**json.loads(sys.argv[1])))
