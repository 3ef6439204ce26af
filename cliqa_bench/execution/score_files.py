"""Scoring any images with a finished run: the gate, and the heads that it asks for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench.benchmarks.decoded import batches_by_shape
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.benchmarks.pixels.decode import adaptive_resize, decode
from cliqa_bench.config import MAX_MEGAPIXELS, PresetName
from cliqa_bench.errors import UserError
from cliqa_bench.execution.plan import gate_normalisation
from cliqa_bench.learning.scoring import pixels_in_batch
from cliqa_bench.models.finished import RunNetworks, centroids_of, remembered
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.models.gated import Gate, GatedScorer, Scored
from cliqa_bench.models.pretraining_config import DISTORTION_BN, PretrainConfig, pretraining
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.progress import bar
from cliqa_bench.reports.rows import order_rank
from cliqa_bench.results.nodes import csv_cell, read_json
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.settings.choice import load_backbone, load_strategy
from cliqa_bench.settings.resolve import include
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.memory import trim_memory, tune_malloc

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_WINDOW = 64
"""Images that are decoded before they are put into batches of one shape: what bounds the memory."""


def load_scorer(out: Path, record: RunRecord, device: torch.device, tolerance: float = 0.0) -> GatedScorer:
    """Loads what a finished run learned.

    Args:
        out: Folder of the results.
        record: The run.
        device: Where to score.
        tolerance: As in `GatedScorer`.

    Raises:
        UserError: If the run is not finished, or its backbone's weights are not those it was trained with.
    """
    saved = _FinishedRun(out, record)
    heads = saved.heads()
    if tolerance and any(not isinstance(head.heads, torch.Tensor) for head in heads):
        raise UserError(
            f"run {record.id} has heads whose scores have no bounds: a tolerance means nothing for them"
        )
    gated = "gate" in record.rows and len(record.steps[-1].heads) > 1
    return GatedScorer([head.to(device) for head in heads], saved.gate(device) if gated else None, tolerance)


class _FinishedRun:
    """What lies in the folder of a run."""

    def __init__(self, out: Path, record: RunRecord) -> None:
        self.out, self.record = out, record
        config = record.facts.get("config") or {}
        include(config.get("include"))
        backbone = load_backbone(str(config.get("backbone")))
        self.networks = RunNetworks(backbone, config.get("weights"))
        if backbone.weights_id(self.networks.weights) != record.facts.get("weights"):
            raise UserError(
                f"run {record.id} was trained with other weights of {backbone.title} than those found here"
            )
        params = (config.get("params") or {}).get(record.strategy, {})
        self.strategy = load_strategy(record.strategy, params)

    def _folder(self, kind: str, node: str) -> Path:
        folder = self.out / kind / node
        if not (folder / "done.json").is_file():
            raise UserError(f"run {self.record.id} is not finished (no {folder}); give its command again")
        return folder

    def model(self, node: str) -> QualityModel:
        return self.networks.trained(self._folder("train", node), self.strategy)

    def heads(self) -> list[Scorer | MergedHead]:
        """Returns what scores images: the last step's heads, or the network of the readout "merged"."""
        last = self.record.steps[-1].heads
        models = {node: self.model(node) for node, _ in last}
        newest = last[-1][0]
        if "merged" in self.record.rows and "gate" not in self.record.rows:
            self.strategy.load_state(remembered(self._folder("train", newest)))
            return [MergedHead(self.strategy.extras(models[newest])["merged"])]
        if self.strategy.own_features or len(models) > 1:
            return [Scorer(models[node], [column]) for node, column in last]
        return [Scorer(models[newest], [column for _, column in last])]

    def _check_gate_net(self, made: PretrainConfig) -> None:
        """Refuses centroids of a network that was pre-trained otherwise than it would be now."""
        for node in self.record.gates.values():
            path = self.out / "gate" / node / "spec.json"
            if path.is_file() and read_json(path).get("net") != pretraining(made):
                raise UserError(
                    f"run {self.record.id} has gates of a network that was pre-trained on other pictures or "
                    "settings than today's; give its command again"
                )

    def gate(self, device: torch.device) -> Gate:
        made = None
        if gate_normalisation(self.networks.backbone, self.strategy) == "distortion-bn":
            made = DISTORTION_BN[cast("PresetName", self.record.facts.get("preset"))]
            self._check_gate_net(made)
        net = self.networks.gate(made, device)
        gates = [self._folder("gate", self.record.gates[step.dataset]) for step in self.record.steps]
        centroids = [[stage.to(device) for stage in centroids_of(gate)] for gate in gates]
        return Gate(net, centroids, [stage - 1 for stage in self.record.stages], self.record.tau)


def resize_of(record: RunRecord) -> int:
    """Returns how a run shrinks images, see `pixels.decode.adaptive_size`."""
    config = record.facts.get("config") or {}
    return int((config.get("training") or {}).get("resize", 768))


def score_files(
    scorer: GatedScorer,
    paths: Sequence[Path],
    resize: int,
    device: torch.device,
    precision: str = "fp32",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Scored:
    """Scores image files, in their order.

    Args:
        scorer: The model.
        paths: The files, at least one.
        resize: As in `pixels.decode.adaptive_size`.
        device: Where the model is.
        precision: "fp32", or "bf16" autocast.
        max_megapixels: As in `pixels.decode.decode`.

    Raises:
        UserError: If an image is missing or refused; names it.
    """
    tune_malloc()
    found: list[Scored] = []
    bf16, pixels = precision == "bf16", pixels_in_batch(device, precision)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        bar(len(paths), "score", "image") as shown,
    ):
        for images in _windows(paths, resize, max_megapixels):
            found += _in_order(scorer, images, device, pixels)
            trim_memory()
            shown.update(len(images))
    return Scored(
        np.concatenate([part.scores for part in found]),
        np.concatenate([part.weights for part in found]),
        np.concatenate([part.heads for part in found]),
    )


def _windows(paths: Sequence[Path], resize: int, max_megapixels: float) -> Iterator[list[NDArray[np.uint8]]]:
    def read(path: Path) -> NDArray[np.uint8]:
        return np.ascontiguousarray(adaptive_resize(decode(path, max_megapixels), resize))

    with ThreadPoolExecutor(min(8, cores())) as pool:
        for start in range(0, len(paths), _WINDOW):
            yield list(pool.map(read, paths[start : start + _WINDOW]))


def _in_order(
    scorer: GatedScorer, images: list[NDArray[np.uint8]], device: torch.device, pixels: int
) -> list[Scored]:
    """Scores a window of images in batches of one shape, and puts them back into their order."""
    out: list[Scored | None] = [None] * len(images)
    for rows in batches_by_shape(np.array([image.shape[:2] for image in images]), pixels):
        batch = torch.from_numpy(np.stack([images[row] for row in rows])).permute(0, 3, 1, 2)
        scored = scorer(to_float(batch.to(device)))
        for i, row in enumerate(rows):
            one = slice(i, i + 1)
            out[row] = Scored(scored.scores[one], scored.weights[one], scored.heads[one])
    return [scored for scored in out if scored is not None]


def find_files(named: Sequence[Path]) -> list[Path]:
    """Returns image files, and those in folders, sorted by name within each.

    Raises:
        UserError: If one is missing, or there is none at all.
    """
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    if not found:
        raise UserError(f"no images in {', '.join(map(str, named))}")
    return found


def choose_run(out: Path, run: str | None) -> RunRecord:
    """Returns the run of an id, or of the beginning of one; without, the run asked for last.

    Of several that were asked for in one go it is that of the first order and seed.

    Raises:
        UserError: If there is no such run, or an id begins several.
    """
    records = read_records(out)
    if run is None:
        # a command asks for all its runs within a second or two
        newest = max(str(record.facts.get("asked", "")) for record in records)[:16]
        asked = [record for record in records if str(record.facts.get("asked", "")).startswith(newest)]
        return min(asked or records, key=lambda r: (order_rank(r.order), r.seed))
    found = [record for record in records if record.id.startswith(run)]
    if len(found) != 1:
        said = f"begins {len(found)} runs" if found else "is no run"
        raise UserError(f"--run {run} {said} of {out}; there is: {', '.join(r.id for r in found or records)}")
    return found[0]


def as_csv(paths: Sequence[Path], scored: Scored, tasks: Sequence[str]) -> str:
    """Writes scores as CSV: image, score, then the weight and the score of each task's head, unrounded.

    A head that was left out is an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    single = scored.heads.shape[1] == 1
    names = [] if single else [f"{what}:{task}" for task in tasks for what in ("weight", "head")]
    writer.writerow(["image", "score", *names])
    for path, score, weights, heads in zip(paths, *scored, strict=True):
        pairs = [] if single else [v for pair in zip(weights, heads, strict=True) for v in pair]
        writer.writerow(
            [csv_cell(str(path)), repr(float(score)), *("" if np.isnan(v) else repr(float(v)) for v in pairs)]
        )
    return text.getvalue()
