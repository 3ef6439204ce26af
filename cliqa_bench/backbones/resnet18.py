"""ResNet-18 with torchvision's ImageNet weights: the paper's main backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones._torchvision import TorchvisionWeights, residual_net
from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet


class ResNet18(TorchvisionWeights, Backbone):
    """ResNet-18 (He et al., 2016), 512-d features, stride 32."""

    title = "ResNet-18"
    citation = (
        "K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition. CVPR 2016, "
        "doi:10.1109/CVPR.2016.90"
    )
    stage_sizes = (64, 128, 256, 512)
    feature_size = 512
    norm_channels = 4800
    n_parameters = 11_176_512
    gmacs = 1.81
    weights_name = "resnet18-f37072fd.pth"

    @classmethod
    def network(cls, weights: Path | None) -> StagedNet:
        """See the base class."""
        from torchvision.models import resnet18

        return residual_net(resnet18, weights)
