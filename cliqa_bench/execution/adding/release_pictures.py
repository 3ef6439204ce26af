"""Small pictures for the report of a release."""

from __future__ import annotations

import io
from pathlib import Path

from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.execution.own_picture import read_picture

SIDE = 220
"""Longest side, in pixels."""


def small_picture(path: Path) -> bytes:
    """Returns a picture as a small JPEG file; b"" if it cannot be read any more."""
    from PIL import Image

    pixels = read_picture(path, 0, MAX_MEGAPIXELS).pixels
    if pixels is None:
        return b""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
