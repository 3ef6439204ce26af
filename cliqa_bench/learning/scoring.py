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


def pixels_in_batch(device: torch.device, precision: str) -> int:
    """Returns how many pixels are scored at once: more where a pixel takes less time and memory."""
    if device.type == "cuda":
        return 16 * MAX_PIXELS
    return 4 * MAX_PIXELS if precision == "bf16" else MAX_PIXELS


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
        FloatingPointError: If what the network says of an image is no number; names dataset and images.
        OutOfMemory: If an image does not even fit alone; names it, its size and what to lower.
    """
    device = torch.device(device)
    applied = _Applied(network, device)
    keys = source.keys(subset)
    out = np.empty((len(keys), width or 0), dtype=np.float32)
    pixels = pixels_in_batch(device, precision)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for positions, images in source.eval_batches(subset, pixels):
            try:
                found = applied(images)
            except OutOfMemory as error:
                raise OutOfMemory(f"{source.title}, {keys[positions[0]]}: {error}") from None
            if wrong := [keys[i] for i in positions[~np.isfinite(found).all(axis=1)]]:
                raise FloatingPointError(
                    f"{source.title}, {subset} images: no number comes out for {join_names(wrong)}"
                )
            if width is None:
                width = found.shape[1]
                out = np.empty((len(keys), width), dtype=np.float32)
            out[positions] = found
            trim_memory()
            if tick is not None:
                tick(len(positions))
    return out


class _Applied:
    """A network applied to batches of images, in smaller parts from when one of them did not fit.

    Args:
        network: As in `score_images`.
        device: Where it is.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._network, self._device = network, device
        self._pixels = 0  # most pixels in a part; 0 for any number

    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Returns (n, width) float32 of (n, 3, H, W) uint8 images.

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
                    f"an image of {width} x {height} pixels does not fit into memory, even alone: lower "
                    "training.resize or --jobs, or take another --device"
                )
            self._pixels = most // 2 * height * width

    def _in_parts(self, images: Tensor, most: int) -> NDArray[np.float32] | None:
        """Returns None where it does not fit; by then what it had taken is free again."""
        parts: list[NDArray[np.float32]] = []
        try:
            for part in images.split(most):
                batch = to_float(part.to(self._device, non_blocking=True))
                parts.append(self._network(batch).float().cpu().numpy())
            return np.concatenate(parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None
