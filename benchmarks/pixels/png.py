"""PNG files without their text: it is not pixels, and may take any amount of memory once it is unpacked."""

from __future__ import annotations

import struct

PNG_START = b"\x89PNG\r\n\x1a\n"

_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def without_text(data: bytes) -> bytes:
    """Returns a PNG file without its chunks of text; what is damaged stays as it is."""
    kept, place = [data[: len(PNG_START)]], len(PNG_START)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind not in _TEXT:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)
