"""Two streams joined by bilinear pooling: every channel of one times every channel of the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.backbones.staged import FeatureNet, Features, StagedNet, unit


class BilinearNet(FeatureNet):
    """A stream that learns and a frozen one (published code, DBCNN.py).

    Args:
        learning: The stream that learns; X1 is its last stage's output.
        frozen: The stream that never does; X2 is its last stage's output, and its mean what the gate reads.
    """

    def __init__(self, learning: StagedNet, frozen: StagedNet) -> None:
        super().__init__()
        self.learning = learning
        self.frozen = frozen.requires_grad_(False).eval()

    @property
    def plastic(self) -> nn.Module:
        """See the base class."""
        return self.learning

    def train(self, mode: bool = True) -> BilinearNet:
        """Keeps the frozen stream's statistics fixed whatever the mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def init_head(self, head: nn.Linear) -> None:
        """See the base class: He's normal distribution, standard deviation sqrt(2 / d)."""
        nn.init.kaiming_normal_(head.weight)

    def fixed(self, images: Tensor) -> Tensor:
        """Returns X2."""
        with torch.no_grad():
            return _last(self.frozen, images)

    def gate_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the base class: the frozen stream's alone."""
        return (unit(_mean(self.fixed(images))),)

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        """Returns B = X1 X2^T / (HW), flattened, and X2's mean; X2 is resized to X1's H x W."""
        assert fixed is not None
        x1 = _last(self.learning, images)
        # of equal size it stays as it is
        x2 = functional.interpolate(fixed, x1.shape[2:], mode="bilinear", align_corners=True).flatten(2)
        x1 = x1.flatten(2)
        return Features((x1 @ x2.mT / x1.shape[2]).flatten(1), (_mean(fixed),))


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3), dtype=torch.float32)


def _last(net: StagedNet, images: Tensor) -> Tensor:
    """Returns the output of the last stage; the others' are dropped as soon as they are used."""
    maps = images
    for maps in net.maps(images):  # noqa: B007 - the last one is wanted
        pass
    return maps
