"""Scores any images with a finished run: the gate, and the heads that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cliqa_bench._version import __version__
from cliqa_bench.benchmarks.pixels.decode import decoder_version
from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import LearnedRun, ModelFacts
from cliqa_bench.execution.own_picture import most_pixels
from cliqa_bench.execution.score_pictures import Scoring
from cliqa_bench.execution.score_table import (
    FileRow,
    Lines,
    Made,
    Printed,
    TableFile,
    written_name,
)
from cliqa_bench.models.gated import GatedScorer
from cliqa_bench.models.reading_scale import ReadingScale
from cliqa_bench.progress import bar
from cliqa_bench.reports.rows import order_rank
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.memory import tune_malloc
from cliqa_bench.terminal import noted

WINDOW = 64
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
    return LearnedRun(out, record).scorer(device, tolerance, aspects)


def made_with(
    facts: ModelFacts,
    files: Sequence[Path],
    device: torch.device,
    tolerance: float,
    precision: str,
    max_megapixels: float,
    labels: str = "",
    aspects: bool = False,
    model: str = "",
    scale: ReadingScale | None = None,
) -> Made:
    """Returns what decides scores: a table made with other settings is not resumed.

    Args:
        facts: The model.
        files: What is scored; files named relative to a folder are others in another folder.
        device: Where it is scored.
        tolerance: As in `GatedScorer`.
        precision: As in `Scoring`.
        max_megapixels: As in `Scoring`.
        labels: Hash of the labels beside the scores; "" for none.
        aspects: Whether quality, scene and distortion are written beside the scores.
        model: Hash of the model's file; "" if it is in the folder of its run.
        scale: On which the scores are read.
    """
    resize = facts.protocol.resize
    return {
        **({"labels": labels} if labels else {}),
        **({"aspects": "yes"} if aspects else {}),
        "run": facts.id,
        **({"model": model} if model else {}),
        "heads": [[node, column] for node, column in facts.heads],
        "version": __version__,
        "device": device.type,
        "tolerance": tolerance,
        "precision": precision,
        "max-megapixels": max_megapixels,
        "resize": resize,
        "pixels at most": most_pixels(resize),
        "version of decoding": decoder_version(),
        "folder": str(Path.cwd()) if any(not path.is_absolute() for path in files) else "",
        **({} if scale is None else {"scale": scale.digest}),
    }


class Tally:
    """The outcome for the files: how many were scored, and what a person should know about them."""

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
        return [noted(names[0], note, len(names)) for note, names in self._notes.items()]

    def summary(self) -> str:
        """Returns the line on what could not be scored; "" if everything could."""
        if not self.failed:
            return ""
        return (
            f"{self.files - self.failed:,} of {self.files:,} pictures scored; {self.failed:,} could not be, "
            f"see column error; first: {self._first}"
        )


ESCAPED = "has a name with bytes that are not UTF-8, or control characters, written as backslash escapes"


def score_files(
    scoring: Scoring,
    files: Sequence[Path],
    table: Printed | TableFile,
    lines: Lines,
    tally: Tally,
    seen: Callable[[FileRow], None] = lambda row: None,
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
        seen: Is given each row once it is written.
    """
    tune_malloc()
    with bar(len(files), "score", "image") as shown, ThreadPoolExecutor(min(8, cores())) as pool:
        for start in range(0, len(files), WINDOW):
            window = files[start : start + WINDOW]
            todo = [path for path in window if str(path) not in table.kept]
            rows = {row.image: row for row in scoring.rows(todo, lines, pool)} if todo else {}
            whole = [rows.get(str(path)) or table.kept[str(path)] for path in window]
            table.add(whole, new=bool(todo))
            for row in whole:
                tally.add(row)
                seen(row)
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
        said = f"matches {len(found)} runs" if found else "matches no run"
        raise UserError(
            f"--run {run} {said} of {out}; choose from: {', '.join(r.id for r in found or records)}"
        )
    return found[0]
