"""How `pretrain` teaches a backbone to tell distortions apart; kept apart, so that plans need no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cliqa_bench.config import PresetName, named
from cliqa_bench.extensions import registry
from cliqa_bench.paths import cache_root
from cliqa_bench.results.nodes import digest

PICTURES = 1
"""Version of the pictures that a backbone is pre-trained on.

Raise it when `benchmarks/generated` paints or distorts them otherwise than before, or `pretrain` draws other
mini-batches: then no network that learned from the old ones is used. `tests/test_pretrain.py` notices.
"""


@dataclass(frozen=True)
class PretrainConfig:
    """Classification of distortion type and level on generated pictures (after Zhang et al., DBCNN, 2020).

    Attributes:
        pictures: Number of pristine pictures, generated once; every mini-batch distorts some of them.
        size: Side of the training crops, in pixels; the pictures are 1.8 by 1.4 times as large.
        steps: Optimiser steps.
        batch: Crops in a mini-batch, two from each distorted picture.
        lr: Peak learning rate of Adam; warmed up and annealed to zero along a cosine.
        norms_only: Whether only the normalisation (and the classifier) learns: the paper's distortion-aware
            BN (Section III-C), whose objective and schedule neither the paper nor its code gives.
        precision: "fp32", or "bf16" autocast.
        seed: Seed of pictures, distortions and weights.
    """

    pictures: int = 500
    size: int = 80
    steps: int = 3000
    batch: int = 64
    lr: float = 2e-3
    norms_only: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0


SCNN = PretrainConfig()
SHIPPED_PRETRAINING: dict[str, PretrainConfig] = {
    "scnn": SCNN,
    # a step costs a fifth of S-CNN's, and a transformer needs more of them, at half the rate
    "vit_mini": PretrainConfig(steps=4000, lr=1e-3),
}
"""How the weights in the package were made, by backbone."""

DISTORTION_BN: dict[PresetName, PretrainConfig] = {
    "paper": PretrainConfig(size=224, steps=600, batch=32, lr=1e-3, norms_only=True),
    # crops of the preset's size, and a sixth of the work per step: minutes on a CPU, not an hour
    "quick": PretrainConfig(size=96, steps=300, batch=32, lr=1e-3, norms_only=True),
}
"""Distortion-aware normalisation of the gate's network, by preset."""


def pretraining(config: PretrainConfig) -> dict[str, Any]:
    """Returns what a name says of a pre-training: its settings, and the version of its pictures."""
    return {**named(PretrainConfig, asdict(config)), "pictures_version": PICTURES}


def distortion_bn_file(backbone: str, weights: str, config: PretrainConfig) -> Path:
    """Returns where a backbone's distortion-aware normalisation is kept once it is trained.

    Args:
        backbone: Name of the backbone.
        weights: What identifies its weights (`Backbone.weights_id`).
        config: How it is trained.
    """
    made_by = {"backbone": backbone, "weights": weights, **pretraining(config)}
    if origin := registry.origin("backbones", backbone):
        made_by["origin"] = origin
    return cache_root() / "distortion-bn" / f"{backbone.replace(':', '-')}-{digest(made_by)}.safetensors"
