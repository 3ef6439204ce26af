"""Gray TIFF files of more than 8 bits in which 0 is white.

Pillow turns those of 8 bits itself, returns those of 16 as they are in the file (13.0.0), and knows them in
one byte order only. So such a file is opened as if 0 were black, whatever Pillow does, and turned afterwards.
"""

from __future__ import annotations

import struct

_BITS, _PHOTOMETRIC = 258, 262
_SHORT = 3


def without_negative(data: bytes) -> tuple[bytes, bool]:
    """Returns a TIFF file in which 0 is black, and whether it was white before.

    Args:
        data: Any file; one that is not a TIFF file, or is damaged, is returned as it is.
    """
    try:
        places = _entries(data)
        bits, photometric = places[_BITS], places[_PHOTOMETRIC]
        order = _order(data)
        (depth,) = struct.unpack_from(f"{order}H", data, bits)
        (meaning,) = struct.unpack_from(f"{order}H", data, photometric)
    except (KeyError, ValueError, struct.error):
        return data, False
    if meaning != 0 or depth <= 8:
        return data, False
    return data[:photometric] + struct.pack(f"{order}H", 1) + data[photometric + 2 :], True


def _order(data: bytes) -> str:
    return {b"II": "<", b"MM": ">"}[data[:2]]


def _entries(data: bytes) -> dict[int, int]:
    """Returns where the values of single short tags of the first picture are, in a TIFF or BigTIFF file."""
    order = _order(data)
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 42:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        count_kind, entry, head, size = "H", "HHI", 2, 12
    elif version == 43:
        (start,) = struct.unpack_from(f"{order}Q", data, 8)
        count_kind, entry, head, size = "Q", "HHQ", 8, 20
    else:
        raise ValueError(f"TIFF version {version}")
    (count,) = struct.unpack_from(f"{order}{count_kind}", data, start)
    places = {}
    for number in range(min(count, 4096)):
        place = start + head + size * number
        tag, kind, values = struct.unpack_from(f"{order}{entry}", data, place)
        if kind == _SHORT and values == 1:
            places[tag] = place + struct.calcsize(f"{order}{entry}")
    return places
