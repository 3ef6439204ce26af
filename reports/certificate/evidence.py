"""The scores of the old model and of the new one: all that a certificate is computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.types import Floats


@dataclass(frozen=True)
class SetPictures:
    """The test images of a dataset.

    Attributes:
        name: The dataset.
        title: Its name in tables.
        keys: (n,) names of the images.
        mos: (n,) opinion scores, higher is better.
        contents: (n,) int64, one number for all images of a reference.
        paths: Where they are.
    """

    name: str
    title: str
    keys: NDArray[np.str_]
    mos: Floats
    contents: NDArray[np.int64]
    paths: list[Path]


@dataclass(frozen=True)
class SetEvidence(SetPictures):
    """The n test images of a dataset, scored by both models.

    Attributes:
        added: Whether it is the dataset that was added.
        before: (n,) scores of the old model, from one process.
        after: (n,) scores of the new model, from another process.
        old_heads: (n, tasks) float32, the scores of the old model's heads; nan for a head without weight.
        heads: (n, tasks + 1) float32, the scores of the new model's heads; nan for a head without weight.
        distances: (n, tasks + 1, stages) to the nearest centroid of each task, the new one last.
    """

    added: bool
    before: Floats
    after: Floats
    old_heads: NDArray[np.float32]
    heads: NDArray[np.float32]
    distances: Floats


class UnscoredSet(NamedTuple):
    """A test set of the old model whose pictures were not there.

    Attributes:
        title: Its name in tables.
        srcc: SRCC of the old model, by the answers that its file carries; None where it has none.
        reason: Why it was not scored, and what to do.
    """

    title: str
    srcc: float | None
    reason: str


class ModelSeen(NamedTuple):
    """A model file that was scored.

    Attributes:
        file: Its name.
        sha256: Hash of its bytes.
        process: Number of the process that scored it.
    """

    file: str
    sha256: str
    process: int


@dataclass(frozen=True)
class ReleaseEvidence:
    """All that a certificate is computed from.

    Attributes:
        old: The model before.
        new: The model as it was scored: the released one but for the answers that it carries.
        released: Hash of the released file, and whether all tensors but its answers are those of `new`.
        same_parts: How many tensors of the old file there are, and how many are in the new one bit by bit.
        learned: Titles of the datasets that the old model learned.
        tau: Temperature of the gate.
        stages: Stages of the backbone that the gate uses.
        sets: The test sets that both have scored.
        unscored: Those that were not there.
        facts: What else should be known: strategy, backbone, protocol, seed, split, versions, device.
        command: The command line.
    """

    old: ModelSeen
    new: ModelSeen
    released: tuple[str, bool]
    same_parts: tuple[int, int]
    learned: list[str]
    tau: float
    stages: list[int]
    sets: list[SetEvidence]
    unscored: list[UnscoredSet]
    facts: dict[str, Any] = field(default_factory=dict)
    command: str = ""
