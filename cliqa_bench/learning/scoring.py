"""Running a network over the images of a subset, whole, in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.errors import OutOfMemory, join_names
from cliqa_bench.system.memory import is_out_of_memory, trim_memory
from cliqa_bench.types import Subset

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.decoded import DecodedDataset

MAX_PIXELS = 32 * 128 * 96
"""Pixels in one batch on a CPU in float32: enough to fill the cores, and little memory."""

WAITING = 32
"""Batches after which a GPU's outputs are fetched; to fetch them is to wait for it."""


def pixels_in_batch(device: torch.device, precision: str) -> int:
    """Returns how many pixels are scored at once: more where a pixel takes less time and memory."""
    if device.type == "cuda":
        return 64 * MAX_PIXELS
    return 4 * MAX_PIXELS if precision == "bf16" else MAX_PIXELS


def batches_waiting(device: torch.device) -> int:
    """Returns after how many batches their outputs are fetched."""
    return 1 if device.type == "cpu" else WAITING


def score_images(
    network: Callable[[Tensor], Tensor],
    source: DecodedDataset,
    subset: Subset,
    width: int | None,
    device: torch.device | str,
    precision: str = "fp32",
    tick: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Applies a network to every image of a subset.

    Args:
        network: (B, 3, H, W) float32, ImageNet-normalised, to (B, width).
        source: The dataset.
        subset: Which images.
        width: Number of outputs per image; None for what comes out for the first batch.
        device: Where the network is.
        precision: "fp32", or "bf16" autocast.
        tick: Called with the number of images done.

    Returns:
        (n, width) float32, finite, in the order of the subset, whatever the batches were.

    Raises:
        FloatingPointError: If the score of an image is NaN or infinite; names dataset and images.
        OutOfMemory: If an image does not even fit alone; names it, its size and what to lower.
    """
    device = torch.device(device)
    applied = _Applied(network, device)
    keys = source.keys(subset)
    gathered = _Gathered(source, subset, width)
    most = batches_waiting(device)
    pixels = pixels_in_batch(device, precision)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for positions, images in source.eval_batches(subset, pixels):
            try:
                found = applied(images)
            except OutOfMemory as error:
                raise OutOfMemory(f"{source.title}, {keys[positions[0]]}: {error}") from None
            gathered.add(positions, found)
            if len(gathered.waiting) >= most:
                gathered.fetch()
            trim_memory()
            if tick is not None:
                tick(len(positions))
        return gathered.fetch()


class _Gathered:
    """A network's outputs for the images of a subset, fetched from its device now and then.

    Args:
        source: The dataset.
        subset: Which images.
        width: Number of outputs per image; None for as many as come out first.
    """

    def __init__(self, source: DecodedDataset, subset: Subset, width: int | None) -> None:
        self._source, self._subset = source, subset
        self._keys = source.keys(subset)
        self._out = np.empty((len(self._keys), width or 0), dtype=np.float32)
        self._widens = width is None
        self.waiting: list[tuple[NDArray[np.int64], Tensor]] = []

    def add(self, positions: NDArray[np.int64], found: Tensor) -> None:
        """Notes the outputs for images, (b, width), without waiting for them."""
        self.waiting.append((positions, found))

    def fetch(self) -> NDArray[np.float32]:
        """Waits for the outputs noted; returns all so far, (n, width) float32.

        Raises:
            FloatingPointError: If a score is NaN or infinite.
        """
        if not self.waiting:
            return self._out
        found = torch.cat([part for _, part in self.waiting]).float().cpu().numpy()
        positions = np.concatenate([places for places, _ in self.waiting])
        self.waiting = []
        if wrong := [self._keys[i] for i in positions[~np.isfinite(found).all(axis=1)]]:
            raise FloatingPointError(
                f"{self._source.title}, {self._subset} images: NaN or infinite scores for {join_names(wrong)}"
            )
        if self._widens:
            self._out = np.empty((len(self._keys), found.shape[1]), dtype=np.float32)
            self._widens = False
        self._out[positions] = found
        return self._out


class _Applied:
    """A network applied to batches of images, in smaller parts from when one of them did not fit.

    Args:
        network: As in `score_images`.
        device: Where it is.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._network, self._device = network, device
        self._pixels = 0  # most pixels in a part; 0 for any number

    def __call__(self, images: Tensor) -> Tensor:
        """Returns (n, width), on the device, of (n, 3, H, W) uint8 images.

        Raises:
            OutOfMemory: If a single image is too large; says its size and what to lower.
        """
        n, _, height, width = images.shape
        while True:
            most = min(n, self._pixels // (height * width) or 1) if self._pixels else n
            if (found := self._in_parts(images, most)) is not None:
                return found
            if most == 1:
                raise OutOfMemory(
                    f"an image of {width} x {height} pixels does not fit into memory, even alone: reduce "
                    "training.resize or --jobs, or use another --device"
                )
            self._pixels = most // 2 * height * width

    def _in_parts(self, images: Tensor, most: int) -> Tensor | None:
        """Returns None if it does not fit; its memory is free again by then."""
        parts: list[Tensor] = []
        try:
            for part in images.split(most):
                parts.append(self._network(to_float(part.to(self._device, non_blocking=True))))
            return torch.cat(parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None
