"""ResNet-18 and a frozen S-CNN, joined by bilinear pooling: the paper's two-stream network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones._torchvision import TorchvisionWeights
from cliqa_bench.backbones.base import Backbone
from cliqa_bench.backbones.resnet18 import ResNet18
from cliqa_bench.backbones.scnn import SCNN

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import FeatureNet


class TwoStream(TorchvisionWeights, Backbone):
    """DBCNN (Zhang et al., 2020): ResNet-18 times S-CNN, 65,536-d features.

    S-CNN never learns, and all tasks share it; its pooled features are the gate's only stage, as in LwF-KG's
    published code (what gates the two-stream TSN-IQA is nowhere said). The paper lets BN statistics adapt and
    so do we; the published two-stream TSN-IQA keeps ImageNet's, by calling `fix_bn` at every stage.

    Weights (`--weights`, "random") are those of ResNet-18; S-CNN's are the ones in the package.
    """

    title = "Two-Stream DNN"
    citation = (
        "W. Zhang, K. Ma, J. Yan, D. Deng, Z. Wang: Blind image quality assessment using a deep "
        "bilinear convolutional neural network. IEEE TCSVT 30(1), 36-47, 2020"
    )
    stage_sizes = (128,)
    gate_stages = (1,)
    feature_size = 512 * 128
    norm_channels = ResNet18.norm_channels
    n_parameters = ResNet18.n_parameters + SCNN.n_parameters
    gmacs = 2.95
    fixed_gmacs = SCNN.gmacs
    gate_net = "own"
    weights_name = ResNet18.weights_name

    @classmethod
    def network(cls, weights: Path | None) -> FeatureNet:
        """See the base class."""
        from cliqa_bench.backbones._bilinear import BilinearNet

        return BilinearNet(ResNet18.network(weights), SCNN.network(SCNN.weights_file(None)))

    @classmethod
    def weights_id(cls, weights: str | None) -> str:
        """See the base class: both networks' weights."""
        return f"{super().weights_id(weights)}+{SCNN.weights_id(None)}"
