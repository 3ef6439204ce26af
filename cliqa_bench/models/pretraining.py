"""Teaches a backbone to tell distortions apart: all of it from scratch, or only its normalisation.

The task is the one of DBCNN (Zhang et al., 2020): which of 39 pairs of distortion type and level a picture
was given. Pictures and distortions are generated, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.backbones.staged import NORMS, FeatureNet
from cliqa_bench.benchmarks.generated.distortions import PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.errors import UserError
from cliqa_bench.models.pretraining_config import PretrainConfig, distortion_bn_file, pretraining
from cliqa_bench.paths import cache_root
from cliqa_bench.progress import Tick, bar, track, warn
from cliqa_bench.results.nodes import atomic_path, canonical, digest
from cliqa_bench.results.weights import parse_weights, write_weights
from cliqa_bench.seeds import rng_for, seed_for
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.locks import locked, sweep_lock
from cliqa_bench.system.memory import trim_memory, tune_malloc
from cliqa_bench.system.processes import attend_loader
from cliqa_bench.system.signals import block_signals

T = TypeVar("T")

CHECKPOINT_EVERY = 100

WORKERS = 2
"""Processes that make mini-batches ahead while a CPU learns from them."""

MOST_WORKERS = 16
"""The same at most while a GPU does: it waits for pictures, and the cores have nothing else to do."""


class _DistortedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Mini-batch number `step`, made again from names and numbers: a resumed training sees the same ones."""

    def __init__(self, config: PretrainConfig, pictures: NDArray[np.uint8], part: str) -> None:
        self.config, self.pictures, self.part = config, pictures, part

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = rng_for("pretrain", self.part, self.config.seed, step)
        size, half = self.config.size, self.config.batch // 2
        crops, labels = [], []
        for label in rng.integers(len(PRETRAIN_CLASSES), size=half):
            picture = self.pictures[rng.integers(len(self.pictures))]
            name, level = PRETRAIN_CLASSES[label]
            distorted = distort(picture[:, :: rng.choice((-1, 1))], name, level, rng)
            for _ in range(2):
                y, x = rng.integers(0, np.array(distorted.shape[:2]) - size, endpoint=True)
                crops.append(distorted[y : y + size, x : x + size])
                labels.append(label)
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        return images, torch.tensor(labels)


class _References(Dataset[Tensor]):
    """The pristine pictures of a part, each painted from a number of its own."""

    def __init__(self, config: PretrainConfig, part: str) -> None:
        self.config, self.part = config, part

    def __getitem__(self, number: int) -> Tensor:
        size = (round(1.8 * self.config.size), round(1.4 * self.config.size))
        seed = seed_for("pretrain", self.part, self.config.seed, number)
        return torch.from_numpy(reference(seed, size))


class _Classifier(nn.Module):
    """The tail of S-CNN's pre-training: two 1 x 1 convolutions and a linear layer on the pooled features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tail = nn.Sequential(
            nn.Linear(channels, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True),
            nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True),
            nn.Linear(256, len(PRETRAIN_CLASSES)),
        )  # fmt: skip

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.tail(pooled)
        return out


class _Whole(nn.Module):
    """Backbone and classifier; the classifier reads pooled features before they get unit length."""

    def __init__(self, net: FeatureNet, channels: int) -> None:
        super().__init__()
        self.net, self.classifier = net, _Classifier(channels)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.net.pooled(images, self.net.fixed(images)).final)
        return out


def _workers(device: torch.device) -> int:
    """Returns how many processes make mini-batches; what they make does not depend on it."""
    return max(WORKERS, min(MOST_WORKERS, cores())) if device.type == "cuda" else WORKERS


def _pictures(config: PretrainConfig, part: str, count: int, workers: int = 0) -> NDArray[np.uint8]:
    with _made_ahead(_References(config, part), range(count), workers) as made:
        return np.stack([p.numpy() for p in track(made, count, f"pictures ({part})", "picture")])


@contextlib.contextmanager
def _loaded(
    config: PretrainConfig, part: str, count: int, steps: range, device: torch.device
) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Gives the mini-batches of these steps, made by other processes, which end with the context."""
    workers = _workers(device)
    pictures = _pictures(config, part, count, workers if device.type == "cuda" else 0)
    with _made_ahead(_DistortedBatches(config, pictures, part), steps, workers) as batches:
        yield batches


@contextlib.contextmanager
def _made_ahead(data: Dataset[T], numbers: range, workers: int) -> Iterator[Iterator[T]]:
    """Gives items of a dataset in turn, made by so many other processes, which end with the context.

    Args:
        data: Makes an item from its number.
        numbers: Which items.
        workers: How many processes; 0 for this one.
    """
    loader = DataLoader(
        data, batch_size=None, sampler=numbers, num_workers=workers,
        worker_init_fn=attend_loader if workers else None,
    )  # fmt: skip
    batches: Any = None
    try:
        with block_signals():
            batches = iter(loader)
        yield batches
    finally:
        # else they end when the last reference goes, which a traceback may hold: at exit each is waited for
        if hasattr(batches, "_shutdown_workers"):  # not PyTorch's iterator without processes
            batches._shutdown_workers()


def annealed(rate: float, step: int, steps: int) -> float:
    """Returns the rate of a step: warmed up over a twentieth of the steps, then down to 0 along a cosine.

    Args:
        rate: At the peak.
        step: Number of the step, from 0.
        steps: How many there are.
    """
    warm = min(1.0, (step + 1) / (0.05 * steps))
    return rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(
    backbone: type[Backbone],
    net: FeatureNet,
    weights: str,
    config: PretrainConfig,
    device: torch.device,
    tick: Tick | None = None,
) -> float:
    """Trains a network in place; killed and called again, it resumes from its last checkpoint.

    The checkpoint stays until `forget` is called, when the result is safe.

    Args:
        backbone: What the network is.
        net: The network, on the CPU.
        weights: What identifies its weights, so that no checkpoint of another network is resumed.
        config: How to train it.
        device: Where.
        tick: Called with a number of images that passed, "", and "earlier" where an interrupted training had.

    Returns:
        The accuracy on distorted pictures never seen, in [0, 1]; chance is 1/39.
    """
    tune_malloc()
    torch.manual_seed(seed_for("classifier", config.seed) % 2**63)
    whole = _Whole(net, backbone.feature_size).to(device).to(memory_format=torch.channels_last)
    if config.norms_only:
        net.requires_grad_(False)
        for module in net.modules():
            if isinstance(module, NORMS):
                module.requires_grad_(True)
    learnable = [p for p in whole.parameters() if p.requires_grad]
    adam = torch.optim.Adam(learnable, config.lr)
    checkpoint = _checkpoint(backbone, weights, config)
    start = resume_training(checkpoint, whole, adam)
    steps = range(start, config.steps)
    with (
        _loaded(config, "train", config.pictures, steps, device) as batches,
        bar(config.steps, f"pre-train {backbone.title}", "step") as shown,
    ):
        shown.update(start)
        tick = tick or (lambda images, text, part: None)
        tick(start * config.batch, "", "earlier")
        for step in steps:
            adam.param_groups[0]["lr"] = annealed(config.lr, step, config.steps)
            loss = _step(whole, adam, *next(batches), device, config)
            trim_memory()
            shown.update()
            tick(config.batch, "", "")
            if (step + 1) % CHECKPOINT_EVERY == 0:
                shown.note(f"loss {loss.item():.3f}")
                save_training(checkpoint, whole, adam, step + 1)
    accuracy = _accuracy(whole, config, device)
    net.requires_grad_(True)
    return accuracy


def forget(backbone: type[Backbone], weights: str, config: PretrainConfig) -> None:
    """Removes the checkpoint of a training whose result is written; the arguments are those of `train`."""
    _checkpoint(backbone, weights, config).unlink(missing_ok=True)


def _checkpoint(backbone: type[Backbone], weights: str, config: PretrainConfig) -> Path:
    made_by = {"backbone": backbone.name, "weights": weights, **pretraining(config)}
    return cache_root() / "pretrain" / f"{backbone.name.replace(':', '-')}-{digest(made_by)}.safetensors"


def _step(
    whole: nn.Module,
    adam: torch.optim.Adam,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    config: PretrainConfig,
) -> Tensor:
    whole.train()
    adam.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits = whole(to_float(images.to(device)))
    loss = functional.cross_entropy(logits.float(), labels.to(device))
    torch.autograd.backward(loss)
    adam.step()
    return loss.detach()


@torch.inference_mode()
def _accuracy(whole: nn.Module, config: PretrainConfig, device: torch.device) -> float:
    whole.eval()
    n = max(1, min(60, config.steps))
    with _loaded(config, "test", max(1, config.pictures // 5), range(n), device) as batches:
        right = [
            (whole(to_float(images.to(device))).argmax(1).cpu() == labels).float().mean()
            for images, labels in track(batches, n, "test", "batch")
        ]
    return float(torch.stack(right).mean())


def save_training(path: Path, whole: nn.Module, adam: torch.optim.Adam, step: int) -> None:
    """Writes a checkpoint: a network, its optimiser, and the number of steps that they have behind them."""
    tensors = {f"model.{k}": v for k, v in whole.state_dict().items()}
    for index, state in adam.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": v for k, v in state.items()}
    with atomic_path(path) as temporary:
        write_weights(temporary, tensors, {"step": str(step)})


def resume_training(path: Path, whole: nn.Module, adam: torch.optim.Adam) -> int:
    """Loads a checkpoint, if there is a sound one.

    Args:
        path: The checkpoint.
        whole: The network.
        adam: Its optimiser.

    Returns:
        The number of steps behind them, 0 where the training starts.
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        warn(f"ignoring {path}, which is damaged ({error}): training starts over")
        return 0
    whole.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
    return step


def pretrain(
    backbone: type[Backbone], to: Path, device: torch.device, config: PretrainConfig, command: str = ""
) -> float:
    """Pre-trains a backbone from random weights and writes its weights.

    Args:
        backbone: What the network is.
        to: The safetensors file to write; its metadata say how it was made.
        device: Where to train.
        config: How to train.
        command: The command line, for the metadata.

    Returns:
        The accuracy on distorted pictures never seen, in [0, 1].
    """
    net = backbone.build("random", seed_for(backbone.name, config.seed) % 2**32)
    accuracy = train(backbone, net, "random", config, device)
    facts: dict[str, Any] = {
        **pretraining(config),
        "accuracy": round(accuracy, 4),
        "classes": len(PRETRAIN_CLASSES),
    }
    with atomic_path(to) as temporary:
        write_weights(temporary, net.state_dict(), {"command": command, "made_by": canonical(facts)})
    forget(backbone, "random", config)
    return accuracy


def distortion_aware(
    backbone: type[Backbone],
    net: FeatureNet,
    weights: str | None,
    device: torch.device,
    config: PretrainConfig,
    tick: Tick | None = None,
) -> None:
    """Gives a network distortion-aware normalisation (Section III-C), trained once and cached.

    Args:
        backbone: What the network is.
        net: The network with its pre-trained weights, on the CPU; changed in place.
        weights: Where those weights came from.
        device: Where to train.
        config: How to train.
        tick: As of `train`.
    """
    weights_id = backbone.weights_id(weights)
    path = distortion_bn_file(backbone.name, weights_id, config)
    lock = path.with_suffix(".lock")
    if path.is_file():
        sweep_lock(lock)
    else:
        what = f"that trains the gate's network of {backbone.title}"
        with locked(lock, what):
            if not path.is_file():  # another process may have made it while this one waited
                _make_distortion_aware(path, backbone, net, weights_id, device, config, tick)
    state = parse_weights(path.read_bytes(), path, "delete it, it is made again")
    try:
        missing = _norm_names(net) - state.keys()
        unexpected = net.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as error:
        missing, unexpected = {" ".join(str(error).split())}, []
    if missing or unexpected:
        told = ", ".join([*sorted(missing), *unexpected])
        raise UserError(f"{path} is not the normalisation of {backbone.title} ({told:.200}); delete it")


def _make_distortion_aware(
    path: Path,
    backbone: type[Backbone],
    net: FeatureNet,
    weights: str,
    device: torch.device,
    config: PretrainConfig,
    tick: Tick | None,
) -> None:
    accuracy = train(backbone, net, weights, config, device, tick)
    norms = {k for k in net.state_dict() if k in _norm_names(net)}
    state = {k: v for k, v in net.state_dict().items() if k in norms}
    facts = {**pretraining(config), "accuracy": round(accuracy, 4)}
    with atomic_path(path) as temporary:
        write_weights(temporary, state, {"made_by": canonical(facts)})
    forget(backbone, weights, config)


def _norm_names(net: nn.Module) -> set[str]:
    return {
        f"{name}.{key}"
        for name, module in net.named_modules()
        if isinstance(module, NORMS)
        for key in module.state_dict()
    }
