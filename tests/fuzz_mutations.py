"""How the fuzzer damages files: every mutation is a function of bytes and a seeded random generator."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    "nan", "inf", "-inf", "1e999", "-1e999", "", " ", "-0", "1e-400", "99999999999999999999999", "1_0",
    "0x10", "1,5", "1.5.1", "+-1", "٣", "１", "1e5", "-1", "0", "0.5", "5", "5.0000001", "100", "3", "NaN",
    "None", "true", "#REF!", "=1+1", "'5", "9" * 400,
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "\x0b", "\u2028", "\x85", "\ufeff", "é", "\U0001f4a5", '"', '""', "'", "\t", ",", ";",
    "\r", "\n", "\r\n", "../", "/etc/passwd", "..\\", "<script>", "\\input{x}", "=cmd()", "%s%n",
    "x" * 5000, "!!python/", "&a", "*a", "{", "[", "- ", ": ",
)  # fmt: skip
WORDS = (0, 1, 2, 5, 7, 8, 14, 127, 128, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def place(data: bytes, rng: random.Random) -> int:
    """Draws a position; the beginning and the end of a file, where headers are, come more often."""
    near = rng.randrange(min(len(data), 256)) if data else 0
    return rng.choice((near, len(data) - 1 - near, rng.randrange(len(data)))) if data else 0


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = place(data, rng)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 32, 200, 2000)))


# -- any bytes -----------------------------------------------------------------------------------------------


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flips one to eight bits."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if data else 0):
        out[place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_bytes(data: bytes, rng: random.Random) -> bytes:
    """Sets one to four bytes to something that formats treat in a way of its own."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        out[place(data, rng)] = rng.choice(
            (0, 1, 10, 13, 32, 34, 44, 48, 57, 127, 128, 255, rng.randrange(256))
        )
    return bytes(out)


def lie(data: bytes, rng: random.Random) -> bytes:
    """Overwrites a number of 2, 4 or 8 bytes: lengths and offsets lie."""
    kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    value = rng.choice(WORDS) % (1 << 8 * struct.calcsize(kind))
    start = place(data, rng) // rng.choice((1, 4, 8)) * rng.choice((1, 4, 8))
    return data[:start] + struct.pack(kind, value) + data[start + struct.calcsize(kind) :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cuts the end off."""
    return data[: rng.choice((place(data, rng), len(data) - rng.randint(1, 8) if len(data) > 8 else 0))]


def delete(data: bytes, rng: random.Random) -> bytes:
    """Takes a span out."""
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    """Puts a span in a second time."""
    start, end = _span(data, rng)
    return data[:end] + data[start:]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Copies a span over another place."""
    start, end = _span(data, rng)
    to = place(data, rng)
    return data[:to] + data[start:end] + data[to + end - start :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Puts random bytes in."""
    at = rng.choice((0, place(data, rng), len(data)))
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 64, 1000))) + data[at:]


def become(data: bytes, rng: random.Random) -> bytes:
    """Becomes something else altogether."""
    starts = (b"", b"\x00" * 600, b"\x80\x04\x95" + data, b"PK\x03\x04" + data,
              b"\x89PNG\r\n\x1a\n" + data[8:], b"MATLAB 5.0" + data[10:],
              b"<html><body>404</body></html>", rng.randbytes(300))  # fmt: skip
    return rng.choice(starts)


BYTES: tuple[Mutation, ...] = (
    flip_bits, flip_bits, flip_bits, set_bytes, set_bytes, lie, lie, truncate, delete, duplicate, splice,
    insert, become,
)  # fmt: skip


# -- text ----------------------------------------------------------------------------------------------------


def _lines(data: bytes) -> list[bytes]:
    return re.split(rb"(?<=\n)|(?<=\r)(?!\n)", data)


def edit_lines(data: bytes, rng: random.Random) -> bytes:
    """Swaps, doubles, drops, moves or shuffles lines."""
    lines = _lines(data)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.randrange(5)
    if action == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif action == 1:
        lines.insert(j, lines[i])
    elif action == 2:
        del lines[i]
    elif action == 3:
        lines.insert(j, lines.pop(i))
    else:
        rng.shuffle(lines)
    return b"".join(lines)


def edit_fields(data: bytes, rng: random.Random) -> bytes:
    """Swaps, doubles, drops or replaces a field, of one line or of all."""
    separator = rng.choice([s for s in (b",", b"\t", b" ", b":") if s in data] or [b","])
    lines = _lines(data)
    chosen = range(len(lines)) if rng.random() < 0.25 else [rng.randrange(len(lines))]
    action, a, b = rng.randrange(4), rng.randrange(12), rng.randrange(12)
    bad = rng.choice(NUMBERS + TEXTS).encode()
    for i in chosen:
        body = lines[i].rstrip(b"\r\n")
        fields = body.split(separator)
        x, y = a % len(fields), b % len(fields)
        if action == 0:
            fields[x], fields[y] = fields[y], fields[x]
        elif action == 1:
            fields.insert(y, fields[x])
        elif action == 2:
            del fields[x]
        else:
            fields[x] = bad
        lines[i] = separator.join(fields) + lines[i][len(body) :]
    return b"".join(lines)


def swap_between_lines(data: bytes, rng: random.Random) -> bytes:
    """Gives two lines each other's field."""
    lines = _lines(data)
    separator = rng.choice([s for s in (b",", b"\t", b" ") if s in data] or [b","])
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    one, two = lines[i].split(separator), lines[j].split(separator)
    k = rng.randrange(min(len(one), len(two)))
    one[k], two[k] = two[k], one[k]
    lines[i], lines[j] = separator.join(one), separator.join(two)
    return b"".join(lines)


def replace_number(data: bytes, rng: random.Random) -> bytes:
    """Puts something else in the place of a number."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS).encode() + data[match.end() :]


def put_text(data: bytes, rng: random.Random) -> bytes:
    """Puts a piece of text in that some reader might trip over."""
    at = place(data, rng)
    return data[:at] + rng.choice(TEXTS).encode() + data[at:]


def reencode(data: bytes, rng: random.Random) -> bytes:
    """Changes line ends, byte-order mark, encoding, or the case of letters."""
    text = data.decode("utf-8", "replace")
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    versions = (
        plain.encode(), plain.replace("\n", "\r\n").encode(), plain.replace("\n", "\r").encode(),
        plain.replace("\n", "\x0b").encode(), plain.replace("\n", "\x85").encode(),
        plain.replace("\n", "\n\n").encode(),
        b"\xef\xbb\xbf" + data, b"\xef\xbb\xbf" * 2 + data, text.encode("utf-16"), text.encode("utf-32"),
        text.encode("latin-1", "replace"), text.upper().encode(), text.lower().encode(), data + b"\x1a",
        text.translate({ord("0") + i: ord("０") + i for i in range(10)}).encode(), f'"{text}"'.encode(),
    )  # fmt: skip
    return rng.choice(versions)


TEXT: tuple[Mutation, ...] = (
    edit_lines, edit_lines, edit_fields, edit_fields, swap_between_lines, replace_number, replace_number,
    put_text, reencode, flip_bits, set_bytes, truncate, delete, insert, become,
)  # fmt: skip


# -- JSON and zip --------------------------------------------------------------------------------------------


def edit_json(data: bytes, rng: random.Random) -> bytes:
    """Puts another value, or none, or one more, somewhere into a JSON text."""
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return put_text(data, rng)
    spots: list[tuple[Any, Any]] = []
    todo = [root] if isinstance(root, dict | list) else []
    while todo:
        node = todo.pop()
        inside = list(node.items() if isinstance(node, dict) else enumerate(node))
        spots += [(node, key) for key, _ in inside]
        todo += [child for _, child in inside if isinstance(child, dict | list)]
    if not spots:
        return b"[]"
    node, key = rng.choice(spots)
    bad: tuple[Any, ...] = (
        None, -1, 0, 1, 2**70, 1e308, float("nan"), "", "..", "../../x", "a/b", [], {}, [[]], True,
        "x" * 999, {"a": {"b": 1}}, rng.choice(rng.choice(spots)[0:1]),
    )  # fmt: skip
    if rng.random() < 0.25:
        del node[key]
    else:
        node[key] = rng.choice(bad)
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # it holds itself by now
        return b"[" * rng.choice((10, 100_000))


def _members(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def edit_zip(data: bytes, rng: random.Random) -> bytes:
    """Rewrites an archive, checksums right: a member is changed, lost, doubled, renamed or swapped."""
    try:
        members = _members(data)
    except Exception:  # an earlier mutation broke it
        return flip_bits(data, rng)
    i = rng.randrange(len(members)) if members else 0
    buffer = io.BytesIO()
    action = rng.choice(("inside",) * 6 + ("lose", "double", "rename", "swap", "link", "bomb"))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for k, (info, content) in enumerate(members):
            name = info.filename
            if k == i and action == "lose":
                continue
            if k == i and action == "rename":
                name = rng.choice(
                    ("../" + name, "/" + name, name.upper(), name + "\x00", "x" * 70_000, "", "a/" + name)
                )
            if k == i and action == "inside":
                is_text = b"<" in content[:100] or content[:1] in b"{["
                content = rng.choice(TEXT if is_text else BYTES)(content, rng)
            if k == i and action == "swap":
                content = rng.choice(members)[1]
            if k == i and action == "bomb":
                content = bytes(1 << 25)
            made = zipfile.ZipInfo(name[:65_000], info.date_time)
            made.external_attr = 0o120777 << 16 if k == i and action == "link" else info.external_attr
            archive.writestr(made, content, zipfile.ZIP_DEFLATED)
            if k == i and action == "double":
                archive.writestr(made, content)
    return buffer.getvalue()


def lie_in_directory(data: bytes, rng: random.Random) -> bytes:
    """Changes sizes, offsets, methods or names in the directory at the end of an archive."""
    at = data.rfind(b"PK\x01\x02")
    entries = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x05\x06", data)] or [max(at, 0)]
    start = rng.choice(entries) + rng.choice((4, 6, 8, 10, 16, 20, 24, 28, 30, 32, 36, 42, 46))
    value = rng.choice(WORDS) & 0xFFFFFFFF
    return data[:start] + struct.pack("<I", value) + data[start + 4 :]


ZIP: tuple[Mutation, ...] = (*(edit_zip,) * 8, *(lie_in_directory,) * 3, *BYTES)
JSON: tuple[Mutation, ...] = (*(edit_json,) * 8, *TEXT)


def mutate(data: bytes, mutations: Sequence[Mutation], rng: random.Random) -> bytes:
    """Applies one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(mutations)(data, rng)[: 1 << 22]
    return data
