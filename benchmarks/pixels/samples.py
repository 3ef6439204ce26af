"""What the numbers of a decoded picture mean: their range, which end is white, whether alpha counts.

Pillow returns numbers as the file has them. What its header says of them is looked up here, and what is
not understood is refused: a picture that is read wrong gets a wrong score without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_BITS, _SAMPLE_FORMAT = 258, 339
"""Tags of TIFF."""

_SIGNED, _FLOAT = 2, 3
"""Values of the tag SampleFormat."""

FEW = 4095
"""Largest value of 12 bits; a picture of 16 bits that stays below is nearly black, or scaled otherwise."""


def refuse_samples(image: Image.Image, path: Path) -> None:
    """Refuses pictures whose numbers have no agreed range, by what the header says.

    Raises:
        UserError: Names file and format.
    """
    formats = _tag(image, _SAMPLE_FORMAT)
    bits = max(_tag(image, _BITS), default=0)
    mend = "8 or unsigned 16 bits per channel"
    if image.mode == "F" or _FLOAT in formats:
        what = "floating-point pixels of unknown range"
    elif _SIGNED in formats:
        what = f"signed pixels of {bits} bits, of unknown range"
    elif image.mode == "I" and image.format != "PNG":
        what = "pixels of 32 bits, of unknown range"
    elif image.format == "PNG" and is_16_bit_colour(image) and "transparency" in image.info:
        # Pillow keeps the upper byte of a pixel and compares it with both bytes of the transparent colour
        what = "16-bit colour with a transparent colour, which is ambiguous once reduced to 8 bits"
        mend = "8 bits per channel, or without the transparent colour"
    else:
        return
    raise UserError(f"image {path} has {what}; save it with {mend}")


def is_16_bit(image: Image.Image) -> bool:
    """Tells whether a picture is gray with more than 8 bits a pixel."""
    return image.mode == "I" or image.mode.startswith("I;16")


def is_16_bit_colour(image: Image.Image) -> bool:
    """Tells whether a file holds colour of 16 bits, of which Pillow keeps the upper 8."""
    tile = getattr(image, "tile", None)
    raw = tile[0][3] if tile else ""
    return not is_16_bit(image) and "16" in str(raw[0] if isinstance(raw, tuple) else raw)


def is_12_bit(image: Image.Image) -> bool:
    """Tells whether a picture is gray with more than 8 and fewer than 16 bits a pixel."""
    return is_16_bit(image) and most(image) < 65535


def most(image: Image.Image) -> int:
    """Returns the largest number that a gray picture of more than 8 bits can hold."""
    bits = max(_tag(image, _BITS), default=16)
    return int(2 ** min(bits, 16) - 1)


def gray_of_16_bits(image: Image.Image, negative: bool = False) -> NDArray[np.uint8]:
    """Returns gray of more than 8 bits as (H, W) uint8, rounded, its transparent value as white.

    Args:
        image: The picture, loaded.
        negative: Whether 0 is white.
    """
    values, top = np.asarray(image).astype(np.int64), most(image)
    shown = top - values if negative else values
    gray = (2 * 255 * shown + top) // (2 * top)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return gray.astype(np.uint8)


def nearly_black(pixels: NDArray[np.uint8], rounded: bool) -> bool:
    """Tells whether a picture of 16 bits uses the lowest 12 alone, as cameras and scanners write it.

    Args:
        pixels: What became of it, uint8.
        rounded: Whether by rounding, as gray; else by the upper byte, as colour.
    """
    return 0 < int(pixels.max()) <= (round(FEW / 257) if rounded else FEW >> 8)


def without_empty_alpha(image: Image.Image) -> Image.Image:
    """Returns a BMP picture opaque whose alpha is 0 everywhere.

    Photoshop and programs that grab the screen write an alpha mask and leave its bytes empty; no viewer shows
    such a picture as transparent throughout.
    """
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _tag(image: Image.Image, number: int) -> tuple[int, ...]:
    """Returns the values of a TIFF tag, () for none."""
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(number)
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple) else (value,)
