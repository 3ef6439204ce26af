"""S-CNN, pre-trained by `cliqa-bench pretrain` on generated distortions; its weights are in the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from torch import nn

    from cliqa_bench.backbones.staged import StagedNet

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "scnn.safetensors"

# (channels, stride) of the convolutions of each stage (Zhang et al., DBCNN, 2020)
LAYERS = (((48, 1), (48, 2)), ((64, 1), (64, 2)), ((64, 1), (64, 2)), ((128, 1), (128, 1), (128, 2)))


def make_stages() -> list[nn.Module]:
    """Builds the nine convolutions (3 x 3, with bias, batch normalisation, ReLU) in four stages."""
    from torch import nn

    stages: list[nn.Module] = []
    channels = 3
    for layers in LAYERS:
        blocks: list[nn.Module] = []
        for width, stride in layers:
            blocks += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        stages.append(nn.Sequential(*blocks))
    return stages


class SCNN(Backbone):
    """S-CNN (Zhang et al., DBCNN, 2020), 128-d features, stride 16; its own BN is distortion-aware."""

    title = "S-CNN"
    citation = (
        "W. Zhang, K. Ma, J. Yan, D. Deng, Z. Wang: Blind image quality assessment using a deep "
        "bilinear convolutional neural network. IEEE TCSVT 30(1), 36-47, 2020"
    )
    stage_sizes = (48, 64, 64, 128)
    feature_size = 128
    norm_channels = 736
    n_parameters = 531_120
    gmacs = 1.13
    gate_net = "own"

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: the package itself."""
        return SHIPPED, f"make them with cliqa-bench pretrain --to {SHIPPED}"

    @classmethod
    def network(cls, weights: Path | None) -> StagedNet:
        """See the base class."""
        from torch import nn

        from cliqa_bench.backbones.staged import StagedNet
        from cliqa_bench.results.weights import parse_weights

        net = StagedNet(nn.Identity(), make_stages(), non_negative=True)
        if weights is not None:
            net.load_state_dict(
                parse_weights(weights.read_bytes(), weights, "name a file that pretrain wrote")
            )
        return net
