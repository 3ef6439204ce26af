"""The model in the box, made: trained, its gate fitted, its scale and novelty calibrated."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench import metrics
from cliqa_bench.backbones.base import Backbone
from cliqa_bench.backbones.scnn import SCNN
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.config import Training
from cliqa_bench.execution.learned import Learned, ModelFacts, UsualParts
from cliqa_bench.execution.model_file import StoredNetworks, write_model
from cliqa_bench.learning.box_training import JudgedPart, TrainedBox, judged_part, made_of, train_box
from cliqa_bench.models.box_config import BOX, BOX_KINDS, BoxConfig
from cliqa_bench.models.finished import ready_gate
from cliqa_bench.models.gates import fit_centroids
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.reading_scale import ReadingScale, novelty_limits, scale_of
from cliqa_bench.results.nodes import digest
from cliqa_bench.system.versions import versions

CENTROIDS = 192
"""Of each kind. More than TSN-IQA has for a dataset: novelty is measured from them."""
TITLES = {"drawn": "drawn pictures", "photographs": "photographs"}
_BATCH = 24


class HeldOutSaid(NamedTuple):
    """The model's predictions for n pictures.

    Attributes:
        scores: (n,) float64.
        distances: (n, kinds, stages), to the nearest centroid of each kind.
    """

    scores: NDArray[np.float64]
    distances: NDArray[np.float64]


class BoxLearned(Learned):
    """The trained model before it becomes a file.

    Args:
        trained: What the training left.
        centroids: Of each kind, (K, channels) of each stage.
        facts: What is known of it.
        backbone: What was trained.
    """

    def __init__(
        self, trained: TrainedBox, centroids: list[list[Tensor]], facts: ModelFacts, backbone: type[Backbone]
    ) -> None:
        self.name, self.facts, self.parts = "the model in the box", facts, UsualParts(own_features=True)
        stored = trained.start.state_dict()
        self.networks = StoredNetworks(backbone, "random", facts.protocol, stored, {}, "", BOX)
        self._trained, self._centroids = trained, centroids
        self.scale: ReadingScale | None = None

    def state(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self.model(node).own_state()

    def remembered(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return {}

    def model(self, node: str) -> QualityModel:
        """See the base class."""
        return self._trained.models[int(node)]

    def centroids(self) -> list[list[Tensor]]:
        """See the base class."""
        return self._centroids

    def gate_net(self, device: torch.device) -> FeatureNet:
        """See the base class."""
        return self.networks.backbone.build(None)

    def reading_scale(self) -> ReadingScale | None:
        """See the base class."""
        return self.scale


def make_box(
    to: Path,
    device: torch.device,
    config: BoxConfig,
    command: str = "",
    backbone: type[Backbone] = SCNN,
) -> dict[str, float]:
    """Trains a model for the box, or continues an interrupted training, and writes its file.

    Args:
        to: The file.
        device: Where to train.
        config: How.
        command: The command line, for the file's facts.
        backbone: What learns; the package ships S-CNN.

    Returns:
        Kind of picture -> SRCC of the scores with the judged quality, on its test scenes.

    Raises:
        UserError: If scikit-image, which brings photographs, or the backbone's weights are missing, or the
            file cannot be written.
    """
    backbone.weights_file(None)  # pictures take a quarter of an hour
    train = [judged_part(kind, "train", config) for kind in BOX_KINDS]
    validation = [judged_part(kind, "validation", config) for kind in BOX_KINDS]
    tests = [judged_part(kind, "test", config) for kind in BOX_KINDS]
    trained = train_box(train, config, device, backbone)
    centroids = _fitted(train, config.seed, device, backbone)
    learned = BoxLearned(trained, centroids, _facts(config, command, backbone), backbone)
    tested = [_said(learned, part, device) for part in tests]
    srcc: dict[str, float] = {
        kind: metrics.srcc(found.scores, part.quality.reshape(-1))
        for kind, found, part in zip(BOX_KINDS, tested, tests, strict=True)
    }
    learned.facts = replace(learned.facts, srcc=srcc)
    names = [name for kind, part in zip(BOX_KINDS, tests, strict=True) for name in _names(kind, part)]
    known = [_said(learned, part, device).distances for part in validation]
    learned.scale = scale_of(
        np.concatenate([found.scores for found in tested]),
        names,
        f"{len(names)} generated pictures that it did not learn from",
        limits=novelty_limits(known),
        calibrated=f"{sum(map(len, known))} generated validation pictures",
    )
    write_model(learned, to)
    return srcc


def _facts(config: BoxConfig, command: str, backbone: type[Backbone]) -> ModelFacts:
    made = made_of(config, backbone)
    return ModelFacts(
        id=f"box-{digest(made)}",
        strategy="tsn",
        params={},
        usual_parts=True,
        own_features=True,
        backbone=backbone.name,
        weights=backbone.weights_id(None),
        training=asdict(replace(Training(), crop=config.crop)) | {"box": made, "command": command},
        sequence=list(BOX_KINDS),
        titles=TITLES,
        heads=[(str(number), 0) for number in range(len(BOX_KINDS))],
        readout="gate",
        tau=32.0,
        stages=[1, 2, 3, 4],
        generated=True,
        versions=versions(),
        srcc={},
        gate_weights=backbone.weights_id(None),
    )


def _fitted(
    parts: list[JudgedPart], seed: int, device: torch.device, backbone: type[Backbone]
) -> list[list[Tensor]]:
    """Fits the centroids of each kind's training pictures, of each stage of the backbone as it comes."""
    described = ready_gate(backbone.build(None), device)
    found = []
    for kind, part in zip(BOX_KINDS, parts, strict=True):
        pixels = part.pictures.reshape(-1, *part.pictures.shape[2:])
        stages: list[list[NDArray[np.float32]]] = []
        with torch.inference_mode():
            for first in range(0, len(pixels), _BATCH):
                features = described.gate_features(_batch(pixels[first : first + _BATCH], device))
                stages.append([stage.cpu().numpy() for stage in features])
        whole = [np.concatenate(stage) for stage in zip(*stages, strict=True)]
        fitted = [fit_centroids(x, CENTROIDS, kind, stage, seed) for stage, x in enumerate(whole, 1)]
        found.append([torch.from_numpy(centroids) for centroids in fitted])
    return found


def _batch(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    return to_float(torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(device))


def _said(learned: Learned, part: JudgedPart, device: torch.device) -> HeldOutSaid:
    """Returns the model's predictions for held-out pictures."""
    scorer, scores, distances = learned.scorer(device), [], []
    pixels = part.pictures.reshape(-1, *part.pictures.shape[2:])
    with torch.inference_mode():
        for first in range(0, len(pixels), _BATCH):
            said = scorer(_batch(pixels[first : first + _BATCH], device))
            assert said.distances is not None  # it has a gate
            scores.append(said.scores)
            distances.append(said.distances)
    return HeldOutSaid(np.concatenate(scores), np.concatenate(distances))


def _names(kind: str, part: JudgedPart) -> list[str]:
    """Names the pictures of a part, as neighbours on the scale."""
    return [
        f"{TITLES[kind]}, test scene {scene}, picture {picture}, judged {quality:.2f}"
        for scene, of_scene in enumerate(part.quality)
        for picture, quality in enumerate(of_scene)
    ]
