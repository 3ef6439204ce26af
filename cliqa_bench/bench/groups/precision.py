"""What bfloat16 does to scores: finished models score their test images in float32 and in bfloat16.

Also, in each precision, whether an image's score depends on the batch it comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.labelled import miniatures
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import jobs_of
from cliqa_bench.execution.plan import Plan, TrainWork
from cliqa_bench.execution.run import prepare
from cliqa_bench.execution.worker import Worker
from cliqa_bench.learning.scoring import MAX_PIXELS
from cliqa_bench.metrics import srcc
from cliqa_bench.models.folding import Scorer
from cliqa_bench.progress import track
from cliqa_bench.settings.resolve import resolve
from cliqa_bench.system.hardware import Precision

TWO_SETS = ("bid", "live")
"""Miniatures that TSN learns where no finished runs are given."""

PIXELS = (1, MAX_PIXELS // 4, MAX_PIXELS, 4 * MAX_PIXELS)
"""Most pixels in a batch, for the comparison of batches; with 1, every image comes alone."""


def trained_here(setting: Conditions) -> Worker:
    """Trains TSN on two miniatures, with the preset `quick`."""
    root = miniatures(TWO_SETS)
    flags = {"strategy": "tsn", "orders": ",".join(TWO_SETS), "data": str(root), "preset": "quick"}
    return train_missing(resolve({**flags, "device": setting.device, "out": str(setting.folder / "runs")}))


def train_missing(config: RunConfig) -> Worker:
    """Trains what is missing of a run, and nothing else; returns the worker that did."""
    plan = prepare(config, "bench")
    worker = _worker(plan)
    for job in track(jobs_of(plan), len(jobs_of(plan)), "train", "job"):
        if job.kind == "train":
            worker.do(job)
    return worker


def finished(runs: Path, device: str) -> Worker:
    """Opens finished runs.

    Args:
        runs: Their folder.
        device: Where to score.

    Raises:
        UserError: If nothing that its configuration asks for is trained there.
    """
    file = runs / "config.yaml"
    if not file.is_file():
        raise UserError(f"no {file}; --runs takes a folder that `run` has written")
    flags = yaml.safe_load(file.read_text(encoding="utf-8"))
    plan = prepare(resolve({**flags, "out": str(runs), "device": device}), "bench")
    if not any(work.node.done for work in plan.train.values()):
        raise UserError(f"{runs} holds no training that its config.yaml asks for; run it first")
    return _worker(plan)


def _worker(plan: Plan) -> Worker:
    """Returns a worker that keeps what it does to itself."""
    return Worker(plan, {}, lambda images, text, part: None, lambda line: None)


def scores_of(
    scorer: Scorer, source: DecodedDataset, device: str, precision: Precision, pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """Scores a dataset's test images, (n, heads), in batches of at most so many pixels."""
    kind = torch.device(device).type
    out = np.empty((len(source.keys("test")), len(scorer.heads)), np.float32)
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        for positions, images in source.eval_batches("test", pixels):
            out[positions] = scorer(to_float(images.to(device))).float().cpu().numpy()
    return out


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    device = setting.device
    worker = trained_here(setting) if setting.runs is None else finished(setting.runs, device)
    works = [work for work in worker.plan.train.values() if work.node.done]
    yield from against_float32(worker, works, device)
    for precision in ("fp32", "bf16"):
        yield batch_dependence(worker, works[0], device, precision)


def against_float32(worker: Worker, works: list[TrainWork], device: str) -> Iterator[Measurement]:
    """Compares scores, and their SRCC with the opinions, of every head on every test set of its run."""
    apart: list[float] = []
    pairs: list[tuple[float, float]] = []
    tests = sorted(worker.plan.materials)
    for work in track(works, len(works), "score", "model"):
        scorer = Scorer(worker.trained(work))
        for source in map(worker.source, tests):
            full, half = (scores_of(scorer, source, device, p) for p in ("fp32", "bf16"))
            mos = source.mos[source.indices("test")]
            apart.append(float(np.abs(full.astype(np.float64) - half).max()))
            columns = zip(full.T.astype(np.float64), half.T.astype(np.float64), strict=True)
            pairs += [(srcc(a, mos), srcc(b, mos)) for a, b in columns]
    what = f"{len(works)} models on {len(tests)} test sets"
    exact, rounded = (tuple(column) for column in zip(*pairs, strict=True))
    largest = float(np.abs(np.subtract(exact, rounded)).max())  # nan where one is undefined
    means = (float(np.mean(rounded)),), (float(np.mean(exact)),)
    yield Measurement("precision", f"mean SRCC, bf16, {what}", means[0], "", means[1], "fp32")
    yield Measurement(
        "precision", f"largest difference of an SRCC, bf16 and fp32, {what}", (largest,), "",
        better="lower", raw={"bf16": rounded, "fp32": exact},
    )  # fmt: skip
    yield Measurement(
        "precision", f"largest difference of a score in [-1, 1], bf16 and fp32, {what}", (max(apart),), "",
        better="lower",
    )  # fmt: skip


def batch_dependence(worker: Worker, work: TrainWork, device: str, precision: Precision) -> Measurement:
    """Compares the scores of images that come alone with those of images in batches of three sizes."""
    scorer, largest = Scorer(worker.trained(work)), 0.0
    for source in map(worker.source, sorted(worker.plan.materials)):
        alone, *batched = (scores_of(scorer, source, device, precision, pixels) for pixels in PIXELS)
        largest = max(largest, *(float(np.abs(b.astype(np.float64) - alone).max()) for b in batched))
    return Measurement(
        "precision", f"largest difference of a score between batches, {precision}", (largest,), "",
        reach=1e-5 if precision == "fp32" else None, better="lower",
    )  # fmt: skip
