"""VGG-16 with batch normalisation and torchvision's ImageNet weights: a backbone of the paper's Table VII."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones._torchvision import TorchvisionWeights, read_weights
from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet

# where the stages begin and end among the layers of torchvision's `features`; each ends with its max pooling
STAGE_ENDS = (0, 14, 24, 34, 44)


class VGG16(TorchvisionWeights, Backbone):
    """VGG-16-BN (Simonyan and Zisserman, 2015), 512-d features, stride 32.

    No code for it was published. The first two of its five blocks are one stage here, so that the four stages
    have strides 4, 8, 16 and 32 as those of ResNet; the fully connected layers are left out.
    """

    title = "VGG-16"
    citation = (
        "K. Simonyan, A. Zisserman: Very deep convolutional networks for large-scale image "
        "recognition. ICLR 2015"
    )
    stage_sizes = (128, 256, 512, 512)
    feature_size = 512
    norm_channels = 4224
    n_parameters = 14_723_136
    gmacs = 15.35
    weights_name = "vgg16_bn-6c64b313.pth"

    @classmethod
    def network(cls, weights: Path | None) -> StagedNet:
        """See the base class."""
        from torch import nn
        from torchvision.models.vgg import cfgs, make_layers

        from cliqa_bench.backbones.staged import StagedNet

        layers = make_layers(cfgs["D"], batch_norm=True)
        if weights is not None:
            state = read_weights(weights)
            layers.load_state_dict(
                {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            )
        stages = [layers[start:end] for start, end in pairwise(STAGE_ENDS)]
        return StagedNet(nn.Identity(), stages, non_negative=True)
