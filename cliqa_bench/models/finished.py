"""The networks of a run: as it builds them, and as it left them when it was finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.config import Training
from cliqa_bench.models.folding import folded
from cliqa_bench.models.pretraining import distortion_aware
from cliqa_bench.models.pretraining_config import PretrainConfig
from cliqa_bench.models.quality import ModelParts, QualityModel, load_tasks, model_for
from cliqa_bench.progress import Tick
from cliqa_bench.results.nodes import node_hashes
from cliqa_bench.results.weights import node_weights
from cliqa_bench.seeds import seed_for


@dataclass(frozen=True)
class RunNetworks:
    """Builds the networks of a run, and loads what it learned.

    Attributes:
        backbone: What all of them start from.
        weights: Where its pre-trained weights come from, see `RunConfig.weights`.
        training: The run's protocol.
    """

    backbone: type[Backbone]
    weights: str | None
    training: Training

    def start(self) -> FeatureNet:
        """Builds the network that all of them start from."""
        return self.backbone.build(self.weights, seed_for("backbone") % 2**32)

    def untrained(self, strategy: ModelParts, seed: int = 0) -> QualityModel:
        """Builds a model without tasks.

        Args:
            strategy: Makes heads and the view.
            seed: As in `QualityModel`.

        Raises:
            UserError: If the strategy contradicts itself about features of the tasks' own.
        """
        model = model_for(strategy, self.start(), self.backbone.feature_size, self.training, seed)
        return model.to(memory_format=torch.channels_last)

    def trained(self, node: Path, strategy: ModelParts, seed: int = 0) -> QualityModel:
        """Loads the model that a finished training holds.

        Args:
            node: Folder of the training.
            strategy: Made heads and the view.
            seed: Of the tasks that it may learn yet.

        Raises:
            UserError: If the files are broken, or of another network.
        """
        return self.restored(node_weights(node), node, strategy, seed)

    def restored(
        self,
        state: dict[str, Tensor],
        where: Path,
        strategy: ModelParts,
        seed: int = 0,
        advice: str = "",
    ) -> QualityModel:
        """Loads a model from what `QualityModel.own_state` gave.

        Args:
            state: That.
            where: Where it was read, for messages.
            strategy: Made heads and the view.
            seed: Of the tasks that it may learn yet.
            advice: As in `load_tasks`.

        Raises:
            UserError: If names or shapes are those of another network.
        """
        model = self.untrained(strategy, seed)
        load_tasks(model, state, where, advice)
        return model.eval()

    def gate(self, made: PretrainConfig | None, device: torch.device, tick: Tick | None = None) -> FeatureNet:
        """Builds the network that describes images for the gates, as it works: folded, on its device.

        Args:
            made: As in `gate_net`.
            device: Where it is trained, and is to work.
            tick: As in `gate_net`.
        """
        return ready_gate(self.gate_net(made, device, tick), device)

    def gate_net(
        self, made: PretrainConfig | None, device: torch.device, tick: Tick | None = None
    ) -> FeatureNet:
        """Builds the network that describes images for the gates, on the CPU and with its normalisation.

        Args:
            made: How its normalisation is pre-trained on distortions; None to leave it as it is.
            device: Where it is trained.
            tick: Told about that training.
        """
        net = self.start()
        if made is not None:
            distortion_aware(self.backbone, net, self.weights, device, made, tick)
        return net


def ready_gate(net: FeatureNet, device: torch.device) -> FeatureNet:
    """Returns a gate's network as it describes images, see `RunNetworks.gate`."""
    return folded(net.to(device).to(memory_format=torch.channels_last))


def remembered(node: Path) -> dict[str, Tensor]:
    """Returns what a strategy kept beside the weights of a finished training; {} for nothing."""
    name = "strategy.safetensors"
    return node_weights(node, name) if name in node_hashes(node) else {}


def centroids_of(node: Path) -> list[Tensor]:
    """Returns the centroids of a finished gate, (K, channels) for each stage.

    Args:
        node: Folder of the gate.

    Raises:
        UserError: If the files are broken.
    """
    return _stages(node_weights(node), "stage")


def scales_of(node: Path) -> list[Tensor]:
    """Returns what a finished gate multiplies features with, (channels,) for each stage; [] for nothing.

    Args:
        node: Folder of the gate.

    Raises:
        UserError: If the files are broken.
    """
    return _stages(node_weights(node), "scale")


def _stages(state: dict[str, Tensor], kind: str) -> list[Tensor]:
    n = sum(name.startswith(kind) for name in state)
    return [state[f"{kind}{s}"] for s in range(1, n + 1)]
