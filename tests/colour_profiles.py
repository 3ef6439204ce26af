"""Colour profiles made byte by byte, for pictures that have one other than sRGB."""

from __future__ import annotations

import struct

Primary = tuple[float, float, float]
SRGB: tuple[Primary, Primary, Primary] = (
    (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
)  # fmt: skip
P3: tuple[Primary, Primary, Primary] = (
    (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)
)  # fmt: skip
"""Primaries of sRGB and of Display P3, as XYZ adapted to D50."""


def profile(gamma: float, name: str, primaries: tuple[Primary, Primary, Primary] = SRGB) -> bytes:
    """Returns an RGB profile with primaries and a gamma."""
    red, green, blue = primaries

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    said = name.encode() + b"\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(said)) + said + bytes(78)
    parts = {
        b"desc": desc + bytes(-len(desc) % 4), b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"rXYZ": xyz(red),
        b"gXYZ": xyz(green), b"bXYZ": xyz(blue), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }  # fmt: skip
    place = 128 + 4 + 12 * len(parts)
    table, body = struct.pack(">I", len(parts)), b""
    for key, data in parts.items():
        table += key + struct.pack(">II", place + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return head.ljust(128, b"\0") + table + body


LINEAR = profile(1.0, "Linear")
WIDE = profile(1.0, "Wide", P3)
