"""How the model in the box was trained; a separate module, so that the command line needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BOX = Path(__file__).resolve().parents[1] / "data" / "box.safetensors"
"""The model that the package ships."""

BOX_PICTURES = 2
"""Version of the judged pictures; raise it when `benchmarks.generated.judged` makes others."""

BOX_KINDS: tuple[Literal["drawn", "photographs"], ...] = ("drawn", "photographs")
"""What it learned, in this order: a head for each."""


@dataclass(frozen=True)
class BoxConfig:
    """The training of a model in the box, in two phases.

    First all of the backbone and a head learn to rank pictures of both kinds. Then the convolutions are
    frozen, and each kind gets a normalisation and a head of its own, as TSN-IQA does.

    Attributes:
        scenes: Scenes of each kind to learn from; see `benchmarks.generated.judged`.
        held_out: Scenes of each kind to validate on, and as many to test on.
        crop: Side of the training crops, in pixels.
        batch_scenes: Scenes in a mini-batch.
        per_scene: Pictures of each of them.
        steps: Mini-batches of the first phase.
        own_steps: Mini-batches of the second phase, for each kind.
        lr: Peak rate of Adam in the first phase; warmed up and annealed to zero along a cosine.
        own_lr: The same in the second phase.
        softness: Difference of quality, in 0..1, that is noticed with a probability of Phi(1).
        seed: Seed of pictures, crops and head.
    """

    scenes: int = 640
    held_out: int = 60
    crop: int = 128
    batch_scenes: int = 6
    per_scene: int = 4
    steps: int = 1600
    own_steps: int = 160
    lr: float = 1e-3
    own_lr: float = 1e-3
    softness: float = 0.05
    seed: int = 0


BOX_TRAININGS = {"scnn": BoxConfig(), "lite0": BoxConfig(lr=3e-4)}
"""Backbone -> its training; the package ships the first. Weights that have seen ImageNet move less."""
