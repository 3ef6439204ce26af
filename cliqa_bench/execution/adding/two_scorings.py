"""Two models score the same pictures, each in a process of its own, as `score` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.execution.loaded_model import LoadedModel, load
from cliqa_bench.reports.certificate.evidence import SetPictures
from cliqa_bench.results.nodes import file_digest
from cliqa_bench.system.processes import call
from cliqa_bench.types import Floats


class ScoringTask(NamedTuple):
    """What a process is to score.

    Attributes:
        model: A model file.
        digest: Hash of that file.
        tests: Paths of the pictures of each test set.
        device: As in `load`.
        max_megapixels: As in `load`.
        threads: Of the computation.
    """

    model: Path
    digest: str
    tests: list[list[Path]]
    device: str | None
    max_megapixels: float | None
    threads: int


class SetScores(NamedTuple):
    """A model's predictions for the n pictures of a test set.

    Attributes:
        scores: (n,) float64, higher is better.
        heads: (n, tasks) float32; nan where a head has no weight.
        distances: (n, tasks, stages) float64, to the nearest centroid of each task; None of a single task.
    """

    scores: Floats
    heads: NDArray[np.float32]
    distances: Floats | None


class ProcessScores(NamedTuple):
    """What one process found.

    Attributes:
        process: Its number.
        sets: One for each test set.
    """

    process: int
    sets: list[SetScores]


def start_scoring(
    model: Path,
    tests: Sequence[SetPictures],
    device: str | None,
    max_megapixels: float | None,
    threads: int,
) -> AbstractContextManager[Callable[[], ProcessScores]]:
    """Starts to score test sets with a model file, in a process of its own that ends with the block.

    Args:
        model: The file.
        tests: The test sets; each is scored by itself, so that pictures meet the same others in a batch
            whichever sets are there.
        device: As in `load`.
        max_megapixels: As in `load`.
        threads: Of the computation; scores differ by rounding at most whatever the number.

    Returns:
        A context manager; it gives what waits for the scores.
    """
    paths = [test.paths for test in tests]
    asked = ScoringTask(model, file_digest(model), paths, device, max_megapixels, threads)
    return call(score_sets, asked)


def score_sets(asked: ScoringTask) -> ProcessScores:
    """Scores test sets with one model, in this process.

    Raises:
        UserError: If a picture cannot be scored, or the file is not the one that was asked for.
    """
    import torch

    torch.set_num_threads(asked.threads)
    if file_digest(asked.model) != asked.digest:
        raise UserError(f"{asked.model} was changed while it was used; run the same command again")
    model = load(asked.model, device=asked.device, max_megapixels=asked.max_megapixels)
    return ProcessScores(os.getpid(), [_scored(model, paths) for paths in asked.tests])


def _scored(model: LoadedModel, paths: list[Path]) -> SetScores:
    found = model.score(paths)
    return SetScores(found.scores, found.heads, found.distances)
