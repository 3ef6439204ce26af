"""What a backbone is: a network in stages whose pooled outputs describe an image.

A backbone's file describes it without importing torch, so that `list` and `plan` stay quick; the network is
built by `build`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, ClassVar, Literal

from cliqa_bench.errors import UserError
from cliqa_bench.paths import user_path
from cliqa_bench.results.nodes import file_digest

if TYPE_CHECKING:
    from cliqa_bench.backbones.staged import FeatureNet

GateNet = Literal["own", "distortion-bn"]


class Backbone(ABC):
    """A network, its stages, and where its pre-trained weights are.

    Attributes:
        title: Name in the tables.
        stage_sizes: Channels of each stage's output; stage s of the paper is entry s - 1.
        feature_size: Length of the feature vector that the heads read.
        norm_channels: Channels of all normalisation layers together.
        n_parameters: Learnable values of the whole network.
        gmacs: Billions of multiply-adds for one image of 224 x 224.
        fixed_gmacs: Those of the part that never learns, once for all tasks; where there is one, the gate
            needs nothing else.
        gate_stages: Stages that the gate reads unless a strategy names others, counted from 1; the paper's
            are the last two.
        citation: What `cite` prints for it: `A. Author, B. Author: Title. Venue, 2026`, or several.
        gate_net: Which normalisation the gate's features use: the backbone's "own" (it was pre-trained on
            distortions), or a "distortion-bn" that `pretrain` makes (the paper's distortion-aware BN).
        has_tokens: Whether it is a transformer before whose tokens others can be put, and behind whose tokens
            a decoder (`backbones.staged.TokenNet`).

    Example:
        >>> from cliqa_bench.backbones.scnn import SCNN
        >>> SCNN.title, SCNN.task_parameters() == 2 * SCNN.norm_channels + SCNN.feature_size
        ('S-CNN', True)
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stage_sizes: ClassVar[tuple[int, ...]]
    feature_size: ClassVar[int]
    norm_channels: ClassVar[int]
    n_parameters: ClassVar[int]
    gmacs: ClassVar[float]
    fixed_gmacs: ClassVar[float] = 0.0
    gate_stages: ClassVar[tuple[int, ...]] = (3, 4)
    gate_net: ClassVar[GateNet] = "distortion-bn"
    citation: ClassVar[str | tuple[str, ...]] = ""
    has_tokens: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Names the backbone after its file."""
        super().__init_subclass__()
        cls.name = cls.__module__.rpartition(".")[2]

    @classmethod
    @abstractmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """Returns where the pre-trained weights usually are, and what to do if they are not there."""

    @classmethod
    @abstractmethod
    def network(cls, weights: Path | None) -> FeatureNet:
        """Builds the network and loads weights into it, if any; whatever goes wrong may be raised."""

    @classmethod
    def weights_file(cls, weights: str | None) -> Path | None:
        """Finds the pre-trained weights.

        Args:
            weights: A path, "random", or None for the usual place.

        Returns:
            The file, or None for "random".

        Raises:
            UserError: If there is no such file; the line says where to get it and where to put it.
        """
        if weights == "random":
            return None
        if weights is not None:
            file = user_path(weights)
            if not file.is_file():
                raise UserError(f"--weights {weights}: no such file")
            return file
        file, remedy = cls.usual_weights()
        if not file.is_file():
            raise UserError(
                f"no weights of {cls.title} at {file}: use the backbone whose weights are in the package, "
                "--backbone scnn (and for small pictures or a small machine --preset quick), or "
                f"{remedy}"
            )
        return file

    @classmethod
    def build(cls, weights: str | None, seed: int = 0) -> FeatureNet:
        """Builds the network.

        Args:
            weights: As in `weights_file`.
            seed: Seeds the network that "random" asks for.

        Raises:
            UserError: If the weights are missing, or are those of something else.
        """
        import torch

        path = cls.weights_file(weights)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # torch on how a file was written
            torch.manual_seed(seed)
            try:
                net = cls.network(path)
            except UserError:
                raise
            except Exception as error:  # torch and safetensors raise many kinds of errors for other files
                if path is None:
                    raise
                reason = shorten(str(error) or type(error).__name__, 160)
                raise UserError(f"{path} does not hold {cls.title}: {reason}") from error
        odd = [name for name, tensor in net.state_dict().items() if not tensor.isfinite().all()]
        if odd:
            raise UserError(
                f"{path}: the weights {odd[0]} of {cls.title} hold NaN or infinity; download the file again"
            )
        return net

    @classmethod
    def weights_id(cls, weights: str | None) -> str:
        """Returns an identifier of the weights: the file's hash, or "random"."""
        path = cls.weights_file(weights)
        return "random" if path is None else file_digest(path)[:16]

    @classmethod
    def task_parameters(cls) -> int:
        """Returns the learnable parameters TSN-IQA adds per task: gamma, beta and a bias-free head."""
        return 2 * cls.norm_channels + cls.feature_size

    @classmethod
    def centroid_values(cls, centroids: int) -> int:
        """Returns the numbers that TSN-IQA's gate keeps per task, with so many centroids a stage."""
        return centroids * sum(cls.stage_sizes[stage - 1] for stage in cls.gate_stages)
