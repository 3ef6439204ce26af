"""What a backbone is: stages of convolutions whose pooled outputs describe an image.

A backbone's file describes it without importing torch, so that `list` and `plan` stay quick; the network is
built by `build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.errors import UserError
from cliqa_bench.store import file_digest

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import StagedNet

GateNet = Literal["own", "distortion-bn"]


class Backbone(ABC):
    """A network, its stages, and where its pre-trained weights are.

    Attributes:
        title: Name in the tables.
        stage_sizes: Channels of each stage's output; stage s of the paper is entry s - 1.
        feature_size: Length of the feature vector that the heads read.
        norm_channels: Channels of all normalisation layers together.
        gmacs: Billions of multiply-adds for one image of 224 x 224.
        gate_net: Which normalisation the gate's features use: the backbone's "own" (it was pre-trained on
            distortions), or a "distortion-bn" that `pretrain` makes (the paper's distortion-aware BN).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stage_sizes: ClassVar[tuple[int, ...]]
    feature_size: ClassVar[int]
    norm_channels: ClassVar[int]
    gmacs: ClassVar[float]
    gate_net: ClassVar[GateNet] = "distortion-bn"

    def __init_subclass__(cls) -> None:
        """Names the backbone after its file."""
        super().__init_subclass__()
        cls.name = cls.__module__.rpartition(".")[2]

    @classmethod
    @abstractmethod
    def weights_file(cls, weights: str | None) -> Path | None:
        """Finds the pre-trained weights.

        Args:
            weights: A path, "random", or None for the usual places.

        Returns:
            The file, or None for "random".

        Raises:
            UserError: If there is no such file; the line says where to get it and where to put it.
        """

    @classmethod
    @abstractmethod
    def build(cls, weights: str | None, seed: int = 0) -> StagedNet:
        """Builds the network with its pre-trained weights ("random": initialised from `seed`)."""

    @classmethod
    def weights_id(cls, weights: str | None) -> str:
        """Returns what tells one set of weights from another: the file's hash, or "random"."""
        path = cls.weights_file(weights)
        return "random" if path is None else file_digest(path)[:16]

    @classmethod
    def task_parameters(cls) -> int:
        """Returns the learnable parameters TSN-IQA adds per task: gamma, beta and a bias-free head."""
        return 2 * cls.norm_channels + cls.feature_size

    @staticmethod
    def existing(path: str) -> Path:
        """Returns a path given by the user.

        Raises:
            UserError: If it is not a file.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"--weights {path}: no such file")
        return file
