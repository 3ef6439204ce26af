"""ViT-mini, a small vision transformer pre-trained by `cliqa-bench pretrain` on generated distortions.

Its weights are in the package, so that what needs tokens can be tried without a download.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.backbones.base import Backbone

if TYPE_CHECKING:
    from cliqa_bench.backbones._vit_net import ViTNet

SHIPPED_VIT = Path(__file__).resolve().parents[1] / "data" / "vit_mini.safetensors"


class ViTMini(Backbone):
    """A ViT with a convolutional stem of stride 16: 96-d tokens, six blocks, three heads; no BatchNorm.

    The tokens have no positions: what distorts an image does so everywhere, and images may have any size.
    """

    title = "ViT-mini"
    citation = (
        "A. Dosovitskiy, L. Beyer, A. Kolesnikov, D. Weissenborn, X. Zhai, T. Unterthiner et al.: An image "
        "is worth 16x16 words: Transformers for image recognition at scale. ICLR 2021",
        "T. Xiao, M. Singh, E. Mintun, T. Darrell, P. Dollar, R. Girshick: Early convolutions help "
        "transformers see better. NeurIPS 2021",
    )
    stage_sizes = (96, 96, 96, 96)
    feature_size = 96
    norm_channels = 1248
    n_parameters = 765_424
    gmacs = 0.25
    gate_net = "own"
    has_tokens = True

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: the package itself."""
        return SHIPPED_VIT, f"make them with cliqa-bench pretrain --backbone vit_mini --to {SHIPPED_VIT}"

    @classmethod
    def network(cls, weights: Path | None) -> ViTNet:
        """See the base class."""
        from cliqa_bench.backbones._vit_net import ViTNet
        from cliqa_bench.results.weights import parse_weights

        net = ViTNet(stem=(24, 48, 64), width=cls.feature_size, depth=6, heads=3)
        if weights is not None:
            net.load_state_dict(
                parse_weights(weights.read_bytes(), weights, "name a file that pretrain wrote")
            )
        return net
