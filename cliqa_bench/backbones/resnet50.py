"""ResNet-50 with torchvision's first ImageNet weights (V1): the backbone of the paper's Table XI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones._torchvision import TorchvisionWeights, residual_net
from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet


class ResNet50(TorchvisionWeights, Backbone):
    """ResNet-50 (He et al., 2016), 2048-d features, stride 32.

    The published code asks for `pretrained=True`, which is IMAGENET1K_V1; torchvision's later V2 weights come
    from another training recipe and can be given with `--weights`.
    """

    title = "ResNet-50"
    citation = (
        "K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition. CVPR 2016, "
        "doi:10.1109/CVPR.2016.90"
    )
    stage_sizes = (256, 512, 1024, 2048)
    feature_size = 2048
    norm_channels = 26_560
    n_parameters = 23_508_032
    gmacs = 4.09
    weights_name = "resnet50-0676ba61.pth"

    @classmethod
    def network(cls, weights: Path | None) -> StagedNet:
        """See the base class."""
        from torchvision.models import resnet50

        return residual_net(resnet50, weights)
