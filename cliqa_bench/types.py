"""The nouns that every room shares. Nothing here imports torch, avalanche or another of our modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Json = Any
"""What `json` reads and writes."""
Floats = NDArray[np.float64]
"""Numbers in an array of any shape."""

Subset = Literal["train", "val", "test"]
SUBSETS: tuple[Subset, ...] = ("train", "val", "test")

Dependence = Literal["nothing", "set", "prefix"]
"""What the training on a dataset depends on: no other dataset, the set of those seen, or their sequence."""

GateSpace = Literal["unit", "standard"]
"""Space of the gate's features: of unit length, or these in units of the training images' deviations."""

TIDY_COLUMNS = (
    "table",
    "setting",
    "backbone",
    "method",
    "variant",
    "order",
    "length",
    "train_dataset",
    "test_dataset",
    "metric",
    "value",
    "std",
    "note",
)
"""Columns of `results.csv` and of the published tables: one value a row."""


class Rating(NamedTuple):
    """One image and how people rated it.

    Attributes:
        key: Path of the image relative to the dataset's folder, with "/" (the authors' spelling).
        score: Mean opinion score in the authors' unit, turned so that **higher is better**.
        std: Standard deviation of the single opinions, in the unit of `score`; nan where not published.
        group: The reference image (or prompt) whose content it shows; None if there is none.
        distortion: Name of the distortion in the authors' words; "authentic" for photographs.
    """

    key: str
    score: float
    std: float
    group: str | None
    distortion: str


@dataclass(frozen=True)
class Answers:
    """A model's answers to the images of one test set.

    Attributes:
        keys: (n,) str, image keys.
        mos: (n,) float64, higher is better.
        scores: (n, heads) float32, one column per head, in the order in which the tasks were learned.
        distances: (n, tasks, stages) float32, Euclidean distance to the nearest centroid of each task, per
            stage of the gate's features (Eq. 7); None where no gate was fitted.
        extras: Further answers of the newest model, see `Strategy.extras`: name -> (n, k) float32.
        contents: (n,) int64, one number for all images of a reference; None where the files do not say.
        tau: Temperature of the gate by which they are read.
    """

    keys: NDArray[np.str_]
    mos: NDArray[np.float64]
    scores: NDArray[np.float32]
    distances: NDArray[np.float32] | None = None
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    contents: NDArray[np.int64] | None = None
    tau: float = 32.0
