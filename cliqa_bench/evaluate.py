"""Running a network over the images of a subset, whole, in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.benchmarks.cache import to_float
from cliqa_bench.types import Subset

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.source import Source

MAX_PIXELS = 32 * 128 * 96
"""Pixels in one batch on a CPU: enough to fill the cores, small enough to stay in their caches."""


def score_images(
    network: Callable[[Tensor], Tensor],
    source: Source,
    subset: Subset,
    width: int,
    device: torch.device | str,
    precision: str = "fp32",
    tick: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Applies a network to every image of a subset.

    Args:
        network: (B, 3, H, W) float32, ImageNet-normalised, to (B, width).
        source: The dataset.
        subset: Which images.
        width: Number of outputs per image.
        device: Where the network is.
        precision: "fp32", or "bf16" autocast.
        tick: Called with the number of images done.

    Returns:
        (n, width) float32 in the order of the subset, whatever the batches were.
    """
    device = torch.device(device)
    out = np.empty((len(source.keys(subset)), width), dtype=np.float32)
    pixels = MAX_PIXELS * (16 if device.type == "cuda" else 1)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for positions, images in source.eval_batches(subset, pixels):
            batch = to_float(images.to(device, non_blocking=True))
            out[positions] = network(batch).float().cpu().numpy()
            if tick is not None:
                tick(len(positions))
    return out
