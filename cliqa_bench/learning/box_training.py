"""Trains the model in the box: a backbone learns to rank pictures that full-reference measures judged.

Every step is made from names and numbers. Pictures, and the training every `CHECKPOINT_EVERY` steps, are kept
in the cache: after a kill the same command resumes, to the same bits on the same machine.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.backbones.scnn import SCNN
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.generated.judged import JudgedSubset, SceneKind, judged_scene
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.models.box_config import BOX_KINDS, BOX_PICTURES, BoxConfig
from cliqa_bench.models.heads import CosineHead
from cliqa_bench.models.pretraining import CHECKPOINT_EVERY, annealed, resume_training, save_training
from cliqa_bench.models.quality import QualityModel, seeded
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.paths import cache_root
from cliqa_bench.progress import bar
from cliqa_bench.results.nodes import atomic_path, digest
from cliqa_bench.seeds import rng_for, seed_for

CHUNK = 20
"""Scenes in a file of the cache."""


class JudgedPart(NamedTuple):
    """Scenes of one kind.

    Attributes:
        pictures: (scenes, 6, 192, 192, 3) uint8.
        quality: (scenes, 6) float64 in 0..1, higher is better.
    """

    pictures: NDArray[np.uint8]
    quality: NDArray[np.float64]


class TrainedBox(NamedTuple):
    """What the two phases leave.

    Attributes:
        start: The backbone after the first phase, on the CPU: the convolutions of all heads.
        models: Of each kind, a model with one head and its own normalisation.
    """

    start: FeatureNet
    models: list[QualityModel]


def judged_part(kind: SceneKind, part: JudgedSubset, config: BoxConfig) -> JudgedPart:
    """Makes scenes, or reads them from the cache.

    Raises:
        UserError: If scikit-image, which brings photographs, is missing.
    """
    scenes = config.scenes if part == "train" else config.held_out
    chunks = []
    with bar(scenes, f"pictures ({kind}, {part})", "scene") as shown:
        for first in range(0, scenes, CHUNK):
            numbers = range(first, min(first + CHUNK, scenes))
            chunks.append(_chunk(kind, part, numbers, config.seed))
            shown.update(len(numbers))
    return JudgedPart(*(np.concatenate(arrays) for arrays in zip(*chunks, strict=True)))


def _chunk(kind: SceneKind, part: JudgedSubset, numbers: range, seed: int) -> JudgedPart:
    made_by = {"kind": kind, "part": part, "of": [numbers.start, numbers.stop], "seed": seed}
    path = cache_root() / "box" / f"pictures-{digest({**made_by, 'version': BOX_PICTURES})}.npz"
    if not path.is_file():
        scenes = [judged_scene(kind, part, number, seed) for number in numbers]
        content = io.BytesIO()
        np.savez(
            content,
            pictures=np.stack([scene.pictures for scene in scenes]),
            quality=np.stack([scene.quality for scene in scenes]),
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.getvalue())
    with np.load(path, allow_pickle=False) as archive:
        return JudgedPart(archive["pictures"], archive["quality"])


def train_box(
    parts: Sequence[JudgedPart],
    config: BoxConfig,
    device: torch.device,
    backbone: type[Backbone] = SCNN,
) -> TrainedBox:
    """Trains the model, or continues an interrupted training.

    Args:
        parts: Scenes to learn from, of each of `BOX_KINDS`.
        config: How.
        device: Where.
        backbone: What learns, from its usual weights on.

    Raises:
        UserError: If these weights are missing.
    """
    start, head = backbone.build(None), CosineHead(backbone.feature_size)
    with seeded(seed_for("box head", config.seed)):
        head.reset_parameters()
    shared = _Ranker(start, head).to(device).to(memory_format=torch.channels_last)
    made_by = made_of(config, backbone)
    _phase("all", shared, list(shared.parameters()), parts, config.steps, config.lr, config, made_by)
    models = []
    for kind, part in zip(BOX_KINDS, parts, strict=True):
        model = QualityModel(copy.deepcopy(start), backbone.feature_size, view=TaskNorms())
        model.add_task()
        model.heads[0].load_state_dict(head.state_dict())
        model.to(device).to(memory_format=torch.channels_last)
        model.train_only(model.task_parameters(0))
        own, learned = _OneTask(model), model.task_parameters(0)
        _phase(kind, own, learned, [part], config.own_steps, config.own_lr, config, made_by)
        models.append(model.cpu().eval())
    return TrainedBox(start.cpu().eval(), models)


def made_of(config: BoxConfig, backbone: type[Backbone]) -> dict[str, Any]:
    """Returns what a training depends on besides its pictures; S-CNN, the first there was, goes unnamed."""
    named = {"backbone": backbone.name, "weights": backbone.weights_id(None)}
    return asdict(config) | ({} if backbone is SCNN else named)


class _Ranker(nn.Module):
    """A network and its head: images (B, 3, H, W) to scores (B,)."""

    def __init__(self, net: FeatureNet, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.net(images).final)
        return out


class _OneTask(nn.Module):
    """The only task of a model: images (B, 3, H, W) to scores (B,)."""

    def __init__(self, model: QualityModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.score(images, 0)


def _phase(
    name: str,
    ranker: nn.Module,
    parameters: Sequence[nn.Parameter],
    parts: Sequence[JudgedPart],
    steps: int,
    rate: float,
    config: BoxConfig,
    made_by: dict[str, Any],
) -> None:
    """Does the remaining steps of a phase; each is made from the phase's name and its number."""
    adam = torch.optim.Adam(parameters, rate)
    phase = {"phase": name, **made_by, "pictures": BOX_PICTURES}
    checkpoint = cache_root() / "box" / f"training-{digest(phase)}.safetensors"
    start = resume_training(checkpoint, ranker, adam)
    device = next(ranker.parameters()).device
    ranker.train()
    with bar(steps, f"train the model in the box ({name})", "step") as shown:
        shown.update(start)
        for step in range(start, steps):
            adam.param_groups[0]["lr"] = annealed(rate, step, steps)
            pixels, quality = batch_of(parts, config, rng_for("box", name, config.seed, step))
            adam.zero_grad()
            loss = pair_loss(ranker(to_float(pixels.to(device))), quality.to(device), config.softness)
            torch.autograd.backward(loss)
            adam.step()
            shown.update()
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                shown.note(f"loss {loss.item():.3f}")
                save_training(checkpoint, ranker, adam, step + 1)


def batch_of(
    parts: Sequence[JudgedPart], config: BoxConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draws a mini-batch: a few scenes of each part in turn, and some pictures of each.

    Args:
        parts: Where scenes are drawn.
        config: How many, and the side of the crops.
        rng: Their randomness.

    Returns:
        (B, 3, crop, crop) uint8 and the quality (B,) float32 of the pictures they are cut from.
    """
    crops, quality = [], []
    for number in range(config.batch_scenes):
        part = parts[number % len(parts)]
        scene = rng.integers(len(part.pictures))
        for picture in rng.choice(part.pictures.shape[1], config.per_scene, replace=False):
            pixels = part.pictures[scene, picture]
            y, x = rng.integers(0, np.array(pixels.shape[:2]) - config.crop, endpoint=True)
            crops.append(pixels[y : y + config.crop, x : x + config.crop][:, :: rng.choice((-1, 1))])
            quality.append(part.quality[scene, picture])
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return images, torch.tensor(quality, dtype=torch.float32)


def pair_loss(scores: Tensor, quality: Tensor, softness: float) -> Tensor:
    """Returns the mean fidelity loss over all pairs of a mini-batch.

    Args:
        scores: (B,) what a head says, any scale.
        quality: (B,) in 0..1.
        softness: As in `BoxConfig`.
    """
    first, second = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    truth = 0.5 * (1 + torch.erf((quality[first] - quality[second]) / (softness * math.sqrt(2))))
    return fidelity(pair_probability(scores[first], scores[second]), truth)
