"""What backbones with torchvision's ImageNet weights share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet


class TorchvisionWeights:
    """Returns where torchvision keeps a backbone's weights: in torch's hub cache.

    Attributes:
        weights_name: The file, as torchvision names it; the eight digits begin its SHA-256.
    """

    weights_name: ClassVar[str]

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See `Backbone`."""
        home = Path(
            os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
        )
        remedy = (
            f"download https://download.pytorch.org/models/{cls.weights_name} to that place, or name the "
            "file with --weights PATH (--weights random starts from scratch, for trying things out)"
        )
        return home.expanduser() / "hub" / "checkpoints" / cls.weights_name, remedy


def read_weights(path: Path) -> dict[str, Any]:
    """Reads a state dict that torch saved, without running any code in it."""
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def residual_net(build: Callable[..., Any], weights: Path | None) -> StagedNet:
    """Builds a torchvision ResNet as a chain of its four stages.

    Args:
        build: `torchvision.models.resnet18` or one of its kind.
        weights: Its ImageNet weights, if any.
    """
    from torch import nn

    from cliqa_bench.backbones._classifier import with_classifier_of
    from cliqa_bench.backbones.staged import StagedNet

    net = build(weights=None)
    if weights is not None:
        names = [f"fc.{name}" for name in net.fc.state_dict()]
        net.load_state_dict(with_classifier_of(net, names, read_weights(weights), weights))
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return StagedNet(stem, [net.layer1, net.layer2, net.layer3, net.layer4], non_negative=True)
