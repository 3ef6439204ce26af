"""One picture of your own, as `score` reads it, or the reason why it cannot be read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.pixels.decode import MIN_SIDE, OWN, Noted, adaptive_size, decode, resized
from cliqa_bench.errors import UserError

LONGEST_SHAPE = 3
"""How many times as long as wide a picture may be that keeps the size which the published rule gives it.

The rule shrinks a picture by its shorter side and never one that is narrow. Phones make pictures up to 20:9,
cinema 2.4:1; at 768 pixels a side 3:1 has 1.8 megapixels, 2.25 times those of an ordinary 4:3.
"""

ORDINARY_SIDE = 768
"""Shorter side that the bound is made for at least: that of the published rule."""


class OwnPicture(NamedTuple):
    """A picture, or why it could not be read.

    Attributes:
        pixels: (H, W, 3) uint8, shrunk by the rule; None where there is an error.
        error: Why it could not be read; "" where it could.
        notes: What should be known about it anyway.
    """

    pixels: NDArray[np.uint8] | None
    error: str
    notes: list[str]


def most_pixels(resize: int) -> int:
    """Returns how many pixels a picture is scored with at most; 0 for any number, where nothing is shrunk.

    Args:
        resize: As in `pixels.decode.adaptive_size`.
    """
    return LONGEST_SHAPE * max(resize, ORDINARY_SIDE) ** 2 if resize > 0 else 0


def scored_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """Returns the width and height at which a picture is scored: by the published rule, and bounded.

    Args:
        width: In pixels.
        height: In pixels.
        resize: As in `pixels.decode.adaptive_size`.
    """
    width, height = adaptive_size(width, height, resize)
    most = most_pixels(resize)
    if not most or width * height <= most:
        return width, height
    scale = math.sqrt(most / (width * height))
    return int(width * scale), int(height * scale)


def read_picture(path: Path, resize: int, max_megapixels: float) -> OwnPicture:
    """Reads a picture as a viewer shows it, at the size at which it is scored.

    Args:
        path: The file.
        resize: As in `pixels.decode.adaptive_size`.
        max_megapixels: As in `pixels.decode.decode`.
    """
    return shrunk_picture(lambda noted: decode(path, max_megapixels, OWN, noted), path, resize)


def shrunk_picture(pixels: Callable[[Noted], NDArray[np.uint8]], path: Path, resize: int) -> OwnPicture:
    """Returns a picture at the size at which it is scored.

    Args:
        pixels: Returns its pixels, (H, W, 3) uint8; called with a function that takes remarks about them. It
            may raise a UserError.
        path: What it is called in errors.
        resize: As in `pixels.decode.adaptive_size`.
    """
    notes: list[str] = []
    try:
        shrunk = _shrunk(pixels(notes.append), path, resize, notes)
    except UserError as error:
        return OwnPicture(None, str(error), notes)
    except MemoryError:
        return OwnPicture(None, str(UserError(f"image {path} does not fit into memory; shrink it")), notes)
    return OwnPicture(shrunk, "", list(dict.fromkeys(notes)))


def _shrunk(pixels: NDArray[np.uint8], path: Path, resize: int, notes: list[str]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    size = scored_size(width, height, resize)
    if size == (width, height):
        return pixels
    if min(size) < MIN_SIDE:
        raise UserError(f"image {path} has {width} x {height} pixels, too narrow to be shrunk; crop it")
    if size != adaptive_size(width, height, resize):
        notes.append(f"is narrow, and was shrunk to {most_pixels(resize) / 1e6:.1f} megapixels")
    return np.ascontiguousarray(resized(pixels, size))
