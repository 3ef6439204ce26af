"""Scoring any images with a finished run: the gate, and the heads that it asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench._version import __version__
from cliqa_bench.benchmarks.pixels.decode import decoder_version
from cliqa_bench.config import PresetName, Training
from cliqa_bench.errors import UserError
from cliqa_bench.execution.own_picture import most_pixels
from cliqa_bench.execution.plan import gate_normalisation
from cliqa_bench.execution.score_pictures import Scoring
from cliqa_bench.execution.score_table import (
    FileRow,
    Lines,
    Made,
    Printed,
    TableFile,
    written_name,
)
from cliqa_bench.models.finished import RunNetworks, centroids_of, remembered, scales_of
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.models.gated import AspectScorer, Gate, GatedScorer, text_head_of
from cliqa_bench.models.pretraining_config import DISTORTION_BN, PretrainConfig, pretraining
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.progress import bar
from cliqa_bench.reports.rows import order_rank
from cliqa_bench.results.nodes import read_json
from cliqa_bench.results.records import AnswerReader, RunRecord, read_records
from cliqa_bench.settings.choice import load_backbone, load_strategy
from cliqa_bench.settings.resolve import include
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.memory import tune_malloc
from cliqa_bench.terminal import plural

_WINDOW = 64
"""Images that are decoded before they are put into batches of one shape: what bounds the memory."""


def load_scorer(
    out: Path, record: RunRecord, device: torch.device, tolerance: float = 0.0, aspects: bool = False
) -> GatedScorer:
    """Loads what a finished run learned.

    Args:
        out: Folder of the results.
        record: The run.
        device: Where to score.
        tolerance: As in `GatedScorer`.
        aspects: Whether it is to say quality, scene and distortion, too.

    Raises:
        UserError: If the run is not finished, its backbone's weights are not those it was trained with, or it
            cannot say aspects.
    """
    saved = _FinishedRun(out, record)
    heads = saved.heads()
    validation = saved.validation()
    if tolerance and (validation or any(not isinstance(head.heads, torch.Tensor) for head in heads)):
        raise UserError(
            f"run {record.id} has heads whose scores have no bounds: a tolerance means nothing for them"
        )
    if aspects:
        if (texts := text_head_of(heads)) is None:
            raise UserError(
                f"run {record.id} has no texts to compare pictures with; give --run an id of liqe or "
                "liqe_cl, or leave --aspects out"
            )
        return AspectScorer(cast("Scorer", heads[0].to(device)), texts)
    gated = "gate" in record.rows and "merged" not in record.rows and len(record.steps[-1].heads) > 1
    gate = saved.gate(device) if gated else None
    return GatedScorer([head.to(device) for head in heads], gate, tolerance, validation)


class _FinishedRun:
    """What lies in the folder of a run."""

    def __init__(self, out: Path, record: RunRecord) -> None:
        self.out, self.record = out, record
        self.answers = AnswerReader(out)
        config = record.facts.get("config") or {}
        include(config.get("include"))
        backbone = load_backbone(str(config.get("backbone")))
        self.networks = RunNetworks(backbone, config.get("weights"), training_of(record))
        if backbone.weights_id(self.networks.weights) != record.facts.get("weights"):
            raise UserError(
                f"run {record.id} was trained with other weights of {backbone.title} than those found here"
            )
        params = (config.get("params") or {}).get(record.strategy, {})
        # single pictures are scored by the model as it was trained, whatever adapts it to a test set
        self.strategy = load_strategy(record.strategy, params).trained_as()

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
        if "merged" in self.record.rows:  # a strategy that has a single head answers with it
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
        scales = [[scale.to(device) for scale in scales_of(gate)] for gate in gates]
        tau = self.answers.tau(self.record, len(self.record.steps) - 1)
        if tau is None:
            raise UserError(f"run {self.record.id} has not chosen its tau yet; give its command again")
        stages = [stage - 1 for stage in self.record.stages]
        return Gate(net, centroids, stages, tau, scales if any(scales) else ())

    def validation(self) -> list[NDArray[np.float32]]:
        """Returns what each head said of its own task's validation images; [] if scores are mixed as said."""
        if "scores" not in self.record.reading:
            return []
        known = self.answers.validation_scores(self.record, len(self.record.steps) - 1)
        if any(some is None for some in known):
            raise UserError(f"run {self.record.id} is not finished; give its command again")
        return [some for some in known if some is not None]


def resize_of(record: RunRecord) -> int:
    """Returns how a run shrinks images, see `pixels.decode.adaptive_size`."""
    return training_of(record).resize


def training_of(record: RunRecord) -> Training:
    """Returns the protocol of a run."""
    training = (record.facts.get("config") or {}).get("training") or {}
    known = {field.name for field in dataclasses.fields(Training)}  # a run of another release may have others
    return Training(**{name: value for name, value in training.items() if name in known})


def made_with(
    record: RunRecord,
    files: Sequence[Path],
    device: torch.device,
    tolerance: float,
    precision: str,
    max_megapixels: float,
    labels: str = "",
    aspects: bool = False,
) -> Made:
    """Returns what decides scores: a table with others is not resumed.

    Args:
        record: The run.
        files: What is scored; files named relative to a folder are others in another folder.
        device: Where it is scored.
        tolerance: As in `GatedScorer`.
        precision: As in `Scoring`.
        max_megapixels: As in `Scoring`.
        labels: Hash of the labels beside the scores; "" for none.
        aspects: Whether quality, scene and distortion stand beside the scores.
    """
    resize = resize_of(record)
    return {
        **({"labels": labels} if labels else {}),
        **({"aspects": "yes"} if aspects else {}),
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
            f"{plural(len(names), 'picture')}: {note} (first: {names[0]})"
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


def choose_run(out: Path, run: str | None) -> RunRecord:
    """Returns the run of an id, or of the beginning of one; without, the run asked for last.

    Of several that were asked for in one go it is that of the first order, split and seed.

    Raises:
        UserError: If there is no such run, or an id begins several.
    """
    records = read_records(out)
    if run is None:
        # a command asks for all its runs within a second or two
        newest = max(str(record.facts.get("asked", "")) for record in records)[:16]
        asked = [record for record in records if str(record.facts.get("asked", "")).startswith(newest)]
        return min(asked or records, key=lambda r: (order_rank(r.order), r.split_number, r.seed))
    found = [record for record in records if record.id.startswith(run)]
    if len(found) != 1:
        said = f"begins {len(found)} runs" if found else "is no run"
        raise UserError(f"--run {run} {said} of {out}; there is: {', '.join(r.id for r in found or records)}")
    return found[0]
