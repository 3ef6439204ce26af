"""Decoded images on a GPU: crops and batches are cut there, and no pixel is sent twice.

A mini-batch of crops is a gather from one flat tensor: what a GPU works through in a few milliseconds a CPU
could not cut and send in as many. Which crops are cut is still drawn on the CPU: the pixels are the
same as `ImageCache` gives.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.benchmarks.pixels.cache import ImageCache, check_inside

SHARE = 0.4
"""Largest part of the GPU's free memory that the images of a dataset may take."""

_CHUNK = 1 << 26
"""Bytes sent at once."""

_GATHERED = 64
"""Crops that are cut at once; while they are, the place of every byte takes eight."""


class ResidentImages(ImageCache):
    """A cache whose pixels are on a device, from when they are first asked for; else on the disk as before.

    They stay on the disk where they would take more than `SHARE` of the free memory, and from `release` on.

    Args:
        cache: The images.
        device: Where to hold them.
    """

    def __init__(self, cache: ImageCache, device: torch.device) -> None:
        vars(self).update(vars(cache))
        self.device = device
        self._pixels: Tensor | None = None
        self._stays_on_disk = False

    @property
    def made_ahead(self) -> bool:
        """Whether batches are worth making in a thread of their own: not where the device cuts them."""
        return self._on_device() is None

    def release(self) -> bool:
        """Frees the device's memory for good; tells whether any was taken."""
        taken, self._pixels, self._stays_on_disk = self._pixels is not None, None, True
        return taken

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """See `ImageCache`; on the device."""
        pixels = self._on_device()
        if pixels is None:
            return super().images(indices)
        height, width = self.shapes[indices[0]].tolist()
        parts = [pixels[e.offset : e.offset + e.n_bytes] for e in (self._entries[i] for i in indices)]
        return torch.cat(parts).view(len(parts), height, width, 3).permute(0, 3, 1, 2)

    def crops(
        self,
        indices: NDArray[np.int64],
        tops: NDArray[np.int64],
        lefts: NDArray[np.int64],
        size: int,
        flips: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """See `ImageCache`; on the device."""
        pixels = self._on_device()
        if pixels is None:
            return super().crops(indices, tops, lefts, size, flips)
        check_inside(self.shapes[indices], tops, lefts, size)
        strides = 3 * self.shapes[indices, 1]
        offsets = np.array([self._entries[i].offset for i in indices], np.int64)
        mirrored = np.zeros(len(indices), bool) if flips is None else flips
        drawn = np.stack([offsets + tops * strides + 3 * lefts, strides, mirrored.astype(np.int64)])
        there = torch.from_numpy(drawn).to(self.device, non_blocking=True)
        out = torch.empty((len(indices), size, 3 * size), dtype=torch.uint8, device=self.device)
        for few, squares in zip(there.split(_GATHERED, dim=1), out.split(_GATHERED), strict=True):
            torch.take(pixels, _places(few, size), out=squares)
        return out.view(len(indices), size, size, 3).permute(0, 3, 1, 2)

    def _on_device(self) -> Tensor | None:
        """Returns all pixels, uint8, sending them first; None where they stay on the disk."""
        if self._pixels is None and not self._stays_on_disk:
            if self.n_bytes > SHARE * _free_bytes(self.device):
                self._stays_on_disk = True
            else:
                self._pixels = self._send()
        return self._pixels

    def _send(self) -> Tensor:
        there = torch.empty(self.n_bytes, dtype=torch.uint8, device=self.device)
        for start in range(0, self.n_bytes, _CHUNK):
            part = self.read(start, min(start + _CHUNK, self.n_bytes))
            there[start : start + len(part)].copy_(torch.from_numpy(part))
        return there


def _places(squares: Tensor, size: int) -> Tensor:
    """Returns (B, size, 3 * size) int64: where the bytes of squares are.

    Args:
        squares: (3, B) int64: where the first byte of each lies, how many bytes a row of its image has, and 1
            where it is to be mirrored left to right, else 0.
        size: Their side.
    """
    starts, strides, mirrored = squares
    along = torch.arange(size, device=starts.device)
    columns = torch.where(mirrored[:, None] > 0, along.flip(0), along)
    bytes_of = 3 * columns[:, :, None] + torch.arange(3, device=starts.device)  # (B, size, 3)
    rows = starts[:, None] + strides[:, None] * along
    places: Tensor = rows[:, :, None] + bytes_of.flatten(1)[:, None]
    return places


def _free_bytes(device: torch.device) -> float:
    """Returns the free memory of a CUDA device, with what PyTorch has reserved; elsewhere no limit."""
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
