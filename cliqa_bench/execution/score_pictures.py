"""Pictures scored by a model, a window of them at a time: each has a score, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cliqa_bench.aspects import WORDS
from cliqa_bench.benchmarks.decoded import batches_by_shape
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.errors import one_line
from cliqa_bench.execution.given_picture import GivenPicture, read_given
from cliqa_bench.execution.own_picture import read_picture
from cliqa_bench.execution.score_table import FileRow, Lines, stamp
from cliqa_bench.learning.scoring import pixels_in_batch
from cliqa_bench.models.gated import GatedScorer, Scored
from cliqa_bench.models.reading_scale import UNLIKE, ReadingScale, ScoreReading
from cliqa_bench.system.memory import is_out_of_memory, trim_memory


class Judged(NamedTuple):
    """The outcome for a picture.

    Attributes:
        scored: The model's prediction for it, a `Scored` of one image; None where there is an error.
        error: Why it has no score; "" where it has one.
        notes: What should be known about it anyway.
    """

    scored: Scored | None
    error: str
    notes: list[str]


class Scoring:
    """A model and how pictures are given to it.

    Args:
        scorer: The model.
        resize: As in `pixels.decode.adaptive_size`.
        device: Where the model is.
        precision: "fp32", or "bf16" autocast.
        max_megapixels: As in `pixels.decode.decode`.
        scale: On which scores are read; None for none.
    """

    def __init__(
        self,
        scorer: GatedScorer,
        resize: int,
        device: torch.device,
        precision: str = "fp32",
        max_megapixels: float = MAX_MEGAPIXELS,
        scale: ReadingScale | None = None,
    ) -> None:
        self.scale = scale
        self._scorer, self._device = scorer, device
        self._resize, self._precision, self._max_megapixels = resize, precision, max_megapixels
        self._pixels = pixels_in_batch(device, precision)

    def rows(self, files: Sequence[Path], lines: Lines, pool: Executor) -> list[FileRow]:
        """Returns the rows of files; of a file that cannot be read or scored, with its error."""
        stamps = [stamp(path) for path in files]
        rows = []
        for path, at, judged in zip(files, stamps, self.judged(files, pool), strict=True):
            numbers = judged_numbers(judged.scored) if judged.scored else ()
            reading = reading_of(self.scale, judged.scored)
            line = lines.line(path, numbers, judged.error, reading)
            if reading.unlike:
                judged.notes.append(UNLIKE)
            score = float(judged.scored.scores[0]) if judged.scored else None
            rows.append(FileRow(str(path), *at, line, judged.error, judged.notes, score))
        return rows

    def judged(self, given: Sequence[Path | GivenPicture], pool: Executor) -> list[Judged]:
        """Returns the model's predictions for pictures, or why one cannot be read or scored."""
        how = (self._resize, self._max_megapixels)
        waiting = [pool.submit(read_picture, one, *how) if isinstance(one, Path) else one for one in given]
        # here, not there: a picture of Pillow's that is given twice must not be loaded by two threads
        pictures = [
            read_given(one, *how) if isinstance(one, GivenPicture) else one.result() for one in waiting
        ]
        found = []
        results = self._scored([picture.pixels for picture in pictures])
        for one, picture, result in zip(given, pictures, results, strict=True):
            name = one if isinstance(one, Path) else one.name
            error = picture.error or (f"image {name}: {result}" if isinstance(result, str) else "")
            found.append(
                Judged(result if isinstance(result, Scored) else None, one_line(error), picture.notes)
            )
        trim_memory()
        return found

    def _scored(self, images: Sequence[NDArray[np.uint8] | None]) -> list[Scored | str | None]:
        """Scores images in batches of one shape; an image that fails gets its error instead."""
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
        found = [scored.part(i) for i in single]
        return [one if _is_finite(one) else "the model returned NaN or infinity" for one in found]


_TOO_SMALL = ("Output size is too small", "Kernel size can't be greater than actual input size")
"""What PyTorch says of a picture that has no pixel left after some layers."""


def _reason(error: Exception, width: int, height: int) -> str:
    """Returns why a picture cannot be scored; "" if the error is not about a picture."""
    if is_out_of_memory(error):
        return f"{width} x {height} pixels do not fit into memory; shrink it or use another --device"
    if any(text in str(error) for text in _TOO_SMALL):
        return f"{width} x {height} pixels are too few for this backbone; leave it out"
    return str(error) or "FloatingPointError" if isinstance(error, FloatingPointError) else ""


def _is_finite(one: Scored) -> bool:
    """Tells whether a score is finite; a weight that is not would silently leave its head out."""
    return bool(np.isfinite(one.scores).all() and np.isfinite(one.weights).all())


def reading_of(scale: ReadingScale | None, one: Scored | None) -> ScoreReading:
    """Returns how an image's score is read; without either, nothing is known.

    Args:
        scale: The scale.
        one: The model's prediction for an image.
    """
    if scale is None or one is None:
        return ScoreReading()
    return scale.read(float(one.scores[0]), None if one.distances is None else one.distances[0])


def judged_numbers(one: Scored) -> list[float | str]:
    """Returns the row of an image.

    That is its score, then of several heads each weight and score, then the most probable word of each aspect
    and its probability.
    """
    numbers: list[float | str] = [float(one.scores[0])]
    if one.heads.shape[1] > 1:
        pairs = zip(one.weights[0], one.heads[0], strict=True)
        numbers += [float(x) for pair in pairs for x in pair]
    for words, probability in zip(WORDS.values(), one.aspects or (), strict=False):
        if probability.shape[1] == len(words):
            best = int(probability[0].argmax())
            numbers += [words[best], float(probability[0, best])]
    return numbers
