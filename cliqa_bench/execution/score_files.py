"""Scoring any images with a finished run: the gate, and the heads that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench._version import __version__
from cliqa_bench.benchmarks.decoded import batches_by_shape
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.benchmarks.pixels.decode import decoder_version
from cliqa_bench.config import MAX_MEGAPIXELS, PresetName
from cliqa_bench.errors import UserError, one_line
from cliqa_bench.execution.own_picture import most_pixels, read_picture
from cliqa_bench.execution.plan import gate_normalisation
from cliqa_bench.execution.score_table import (
    FileRow,
    Lines,
    Made,
    Printed,
    TableFile,
    stamp,
    written_name,
)
from cliqa_bench.learning.scoring import pixels_in_batch
from cliqa_bench.models.finished import RunNetworks, centroids_of, remembered
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.models.gated import Gate, GatedScorer, Scored
from cliqa_bench.models.pretraining_config import DISTORTION_BN, PretrainConfig, pretraining
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.progress import bar
from cliqa_bench.reports.rows import order_rank
from cliqa_bench.results.nodes import read_json
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.settings.choice import load_backbone, load_strategy
from cliqa_bench.settings.resolve import include
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.memory import is_out_of_memory, trim_memory, tune_malloc

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


def made_with(
    record: RunRecord,
    files: Sequence[Path],
    device: torch.device,
    tolerance: float,
    precision: str,
    max_megapixels: float,
) -> Made:
    """Returns what decides scores: a table with others is not resumed.

    Args:
        record: The run.
        files: What is scored; files named relative to a folder are others in another folder.
        device: Where it is scored.
        tolerance: As in `GatedScorer`.
        precision: As in `Scoring`.
        max_megapixels: As in `Scoring`.
    """
    resize = resize_of(record)
    return {
        "run": record.id,
        "heads": [[node, column] for node, column in record.steps[-1].heads],
        "version": __version__,
        "device": device.type,
        "tolerance": tolerance,
        "precision": precision,
        "max-megapixels": max_megapixels,
        "resize": resize,
        "pixels at most": most_pixels(resize),
        "version of decoding": decoder_version(),
        "folder": str(Path.cwd()) if any(not path.is_absolute() for path in files) else "",
    }


class Tally:
    """What came of the files: how many were scored, and what a person should know of them."""

    def __init__(self) -> None:
        self.files = self.failed = 0
        self._first = ""
        self._notes: dict[str, list[str]] = {}

    def add(self, row: FileRow) -> None:
        """Counts a row."""
        self.files += 1
        self.failed += bool(row.error)
        self._first = self._first or row.error
        escaped = [ESCAPED] if written_name(row.image) != row.image else []
        for note in (*row.notes, *escaped):
            self._notes.setdefault(note, []).append(written_name(row.image))

    def told(self) -> list[str]:
        """Returns a line for each kind of note."""
        return [
            f"{len(names):,} {'picture' if len(names) == 1 else 'pictures'}: {note} (first: {names[0]})"
            for note, names in self._notes.items()
        ]

    def summary(self) -> str:
        """Returns the line on what could not be scored; "" if everything could."""
        if not self.failed:
            return ""
        return (
            f"{self.files - self.failed:,} of {self.files:,} pictures scored; {self.failed:,} could not be, "
            f"see column error; first: {self._first}"
        )


ESCAPED = "has a name with bytes that are no UTF-8, or control characters, written as backslash escapes"


def score_files(
    scoring: Scoring, files: Sequence[Path], table: Printed | TableFile, lines: Lines, tally: Tally
) -> None:
    """Scores image files, in their order, and writes their rows as they come.

    A window of files is decoded, scored and written at a time. Windows lie where they lie in the list of all
    files, whatever is known of them already: a file meets the same others in its batch when a command is
    resumed, and gets the same bits.

    Args:
        scoring: Scores pictures.
        files: What is to be scored.
        table: Where rows go; those it has kept are not scored again.
        lines: How rows are written.
        tally: Counts them.
    """
    tune_malloc()
    with bar(len(files), "score", "image") as shown, ThreadPoolExecutor(min(8, cores())) as pool:
        for start in range(0, len(files), _WINDOW):
            window = files[start : start + _WINDOW]
            todo = [path for path in window if str(path) not in table.kept]
            rows = {row.image: row for row in scoring.rows(todo, lines, pool)} if todo else {}
            whole = [rows.get(str(path)) or table.kept[str(path)] for path in window]
            table.add(whole, new=bool(todo))
            for row in whole:
                tally.add(row)
            shown.update(len(window))


class Scoring:
    """A model and how pictures are given to it.

    Args:
        scorer: The model.
        resize: As in `pixels.decode.adaptive_size`.
        device: Where the model is.
        precision: "fp32", or "bf16" autocast.
        max_megapixels: As in `pixels.decode.decode`.
    """

    def __init__(
        self,
        scorer: GatedScorer,
        resize: int,
        device: torch.device,
        precision: str = "fp32",
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self._scorer, self._device = scorer, device
        self._resize, self._precision, self._max_megapixels = resize, precision, max_megapixels
        self._pixels = pixels_in_batch(device, precision)

    def rows(self, files: Sequence[Path], lines: Lines, pool: Executor) -> list[FileRow]:
        """Returns the rows of files; of a file that cannot be read or scored, with its error."""
        stamps = [stamp(path) for path in files]
        pictures = list(pool.map(lambda path: read_picture(path, self._resize, self._max_megapixels), files))
        results = self._scored([picture.pixels for picture in pictures])
        rows = []
        for path, at, picture, result in zip(files, stamps, pictures, results, strict=True):
            error = picture.error or (f"image {path}: {result}" if isinstance(result, str) else "")
            numbers = _numbers(result) if isinstance(result, Scored) else []
            line = lines.line(path, numbers, one_line(error))
            rows.append(FileRow(str(path), *at, line, one_line(error), picture.notes))
        trim_memory()
        return rows

    def _scored(self, images: Sequence[NDArray[np.uint8] | None]) -> list[Scored | str | None]:
        """Scores images in batches of one shape; what went wrong with one of them stands in its place."""
        found: list[Scored | str | None] = [None] * len(images)
        good = [(place, image) for place, image in enumerate(images) if image is not None]
        shapes = np.array([image.shape[:2] for _, image in good]).reshape(-1, 2)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            for batch in batches_by_shape(shapes, self._pixels):
                results = self._batch([good[i][1] for i in batch])
                for i, result in zip(batch, results, strict=True):
                    found[good[i][0]] = result
        return found

    def _batch(self, images: list[NDArray[np.uint8]]) -> list[Scored | str]:
        """Scores images of one shape, in halves if they do not fit or one of them spoils the others."""
        height, width = images[0].shape[:2]
        try:
            return self._at_once(images)
        except Exception as error:
            reason = _reason(error, width, height)
            if not reason:
                raise
            full = is_out_of_memory(error)
        if len(images) == 1:
            return [reason]
        half = len(images) // 2
        if full:
            self._pixels = half * height * width
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return self._batch(images[:half]) + self._batch(images[half:])

    def _at_once(self, images: list[NDArray[np.uint8]]) -> list[Scored | str]:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        scored = self._scorer(to_float(batch.to(self._device)))
        single = [slice(i, i + 1) for i in range(len(images))]
        found = [Scored(scored.scores[i], scored.weights[i], scored.heads[i]) for i in single]
        return [one if _is_finite(one) else "the model returned NaN or infinity" for one in found]


_TOO_SMALL = ("Output size is too small", "Kernel size can't be greater than actual input size")
"""What PyTorch says of a picture that has no pixel left after some layers."""


def _reason(error: Exception, width: int, height: int) -> str:
    """Returns why a picture cannot be scored; "" where the error is not about a picture."""
    if is_out_of_memory(error):
        return f"{width} x {height} pixels do not fit into memory; shrink it or take another --device"
    if any(text in str(error) for text in _TOO_SMALL):
        return f"{width} x {height} pixels are too few for this backbone; leave it out"
    return str(error) or "FloatingPointError" if isinstance(error, FloatingPointError) else ""


def _is_finite(one: Scored) -> bool:
    """Tells whether a score is a number; a weight that is none would leave its head out without a word."""
    return bool(np.isfinite(one.scores).all() and np.isfinite(one.weights).all())


def _numbers(one: Scored) -> list[float]:
    """Returns what is written of an image: its score, then of several heads each weight and score."""
    if one.heads.shape[1] == 1:
        return [float(one.scores[0])]
    pairs = zip(one.weights[0], one.heads[0], strict=True)
    return [float(one.scores[0]), *(float(x) for pair in pairs for x in pair)]


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
