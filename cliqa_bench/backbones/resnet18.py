"""ResNet-18 with torchvision's ImageNet weights: the paper's main backbone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.errors import UserError

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
    def weights_file(cls, weights: str | None) -> Path | None:
        """See the base class; the usual place is torch's hub cache."""
        if weights == "random":
            return None
        if weights is not None:
            return cls.existing(weights)
        home = Path(
            os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
        )
        path = home.expanduser() / "hub" / "checkpoints" / FILE
        if not path.is_file():
            raise UserError(
                f"no ImageNet weights for ResNet-18 at {path}: download {URL} to there, or name the file "
                "with --weights PATH (--weights random trains from nothing, for trying things out)"
            )
        return path

    @classmethod
    def build(cls, weights: str | None, seed: int = 0) -> StagedNet:
        """See the base class."""
        import torch
        from torch import nn
        from torchvision.models import resnet18

        from cliqa_bench.backbones.staged import StagedNet

        path = cls.weights_file(weights)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = resnet18(weights=None)
        if path is not None:
            try:
                net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            except Exception as error:  # torch.load raises many kinds for a file that is something else
                reason = str(error).splitlines()[0]
                raise UserError(f"{path} does not hold torchvision's ResNet-18: {reason}") from error
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return StagedNet(stem, [net.layer1, net.layer2, net.layer3, net.layer4])
