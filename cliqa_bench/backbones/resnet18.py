"""ResNet-18 with torchvision's ImageNet weights: the paper's main backbone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet

FILE = "resnet18-f37072fd.pth"
URL = f"https://download.pytorch.org/models/{FILE}"


class ResNet18(Backbone):
    """ResNet-18 (He et al., 2016), 512-d features, stride 32."""

    title = "ResNet-18"
    stage_sizes = (64, 128, 256, 512)
    feature_size = 512
    norm_channels = 4800
    gmacs = 1.81

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: torch's hub cache."""
        home = Path(
            os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
        )
        remedy = (
            f"download {URL} to there, or name the file with --weights PATH "
            "(--weights random trains from nothing, for trying things out)"
        )
        return home.expanduser() / "hub" / "checkpoints" / FILE, remedy

    @classmethod
    def network(cls, weights: Path | None) -> StagedNet:
        """See the base class."""
        import torch
        from torch import nn
        from torchvision.models import resnet18

        from cliqa_bench.backbones.staged import StagedNet

        net = resnet18(weights=None)
        if weights is not None:
            net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return StagedNet(stem, [net.layer1, net.layer2, net.layer3, net.layer4])
