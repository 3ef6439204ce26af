"""A changed rule of decoding: a dataset with a picture under it gets another fingerprint, others do not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tiny_dataset import Tiny, make_tiny

from cliqa_bench.benchmarks.labelled import LabelledDataset
from cliqa_bench.benchmarks.pixels import hashes as content
from cliqa_bench.benchmarks.pixels.decode import RULES, decode, decoder_version, rules_of
from cliqa_bench.benchmarks.splits import whole
from cliqa_bench.config import PRESETS, RunConfig
from cliqa_bench.execution.plan import make_plan
from cliqa_bench.results.nodes import digest
from cliqa_bench.settings.choice import choose


def picture(mode: str) -> Image.Image:
    """Returns a gradient of 24 x 16 pixels."""
    ramp = Image.fromarray(np.arange(24 * 16, dtype=np.uint8).reshape(16, 24))
    if mode == "I;16":
        return Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100)
    if mode == "LAB":
        return Image.merge("LAB", [ramp] * 3)
    return ramp.convert("RGB").convert(mode)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def late_exif(path: Path) -> None:
    """Writes a PNG file whose EXIF notes follow its pixels."""
    picture("RGB").save(path, exif=turned(6))
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    tail = data.index(b"IEND") - 4
    assert end < tail
    path.write_bytes(data[:start] + data[end:tail] + data[start:end] + data[tail:])


@pytest.mark.parametrize(
    ("name", "mode", "more", "expected"),
    [
        ("a.png", "RGB", {}, ["png", "rgb"]),
        ("a.bmp", "RGB", {}, ["bmp", "rgb"]),
        ("a.bmp", "1", {}, ["bilevel", "bmp"]),
        ("a.gif", "P", {}, ["gif", "palette"]),
        ("a.jpg", "L", {}, ["gray", "jpeg"]),
        ("a.jpg", "CMYK", {}, ["cmyk", "jpeg"]),
        ("a.jpg", "RGB", {"exif": turned(6)}, ["jpeg", "rgb", "turned"]),
        ("a.jpg", "RGB", {"exif": turned(1)}, ["jpeg", "rgb"]),
        ("a.png", "RGB", {"exif": turned(3)}, ["png", "rgb", "turned"]),
        ("a.tif", "RGB", {"exif": turned(8)}, ["rgb", "tiff", "turned"]),
        ("a.tif", "LAB", {}, ["lab", "tiff"]),
        ("a.png", "I;16", {}, ["16-bit gray", "png"]),
        ("a.tif", "I;16", {}, ["16-bit gray", "tiff"]),
        ("a.png", "RGBA", {}, ["png", "rgb", "transparent"]),
        ("a.png", "LA", {}, ["gray", "png", "transparent"]),
        ("a.png", "P", {"transparency": 3}, ["palette", "png", "transparent"]),
        ("a.webp", "RGB", {}, ["rgb", "webp"]),
        ("a.jp2", "RGB", {}, ["jpeg2000", "rgb"]),
    ],
)
def test_the_header_tells_the_rules(
    tmp_path: Path, name: str, mode: str, more: dict[str, Any], expected: list[str]
) -> None:
    picture(mode).save(tmp_path / name, **more)

    decode(tmp_path / name)  # it is one of the pictures that have a rule
    assert rules_of(tmp_path / name) == expected
    assert set(expected) <= RULES.keys()


def test_no_pixel_of_a_png_file_without_notes_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("RGB").save(tmp_path / "a.png")
    loaded: list[object] = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: loaded.append(self))
    assert rules_of(tmp_path / "a.png") == ["png", "rgb"]
    assert loaded == []


def test_notes_after_the_pixels_of_a_png_file_count(tmp_path: Path) -> None:
    late_exif(tmp_path / "late.png")
    assert decode(tmp_path / "late.png").shape == (24, 16, 3)
    assert rules_of(tmp_path / "late.png") == ["png", "rgb", "turned"]


def test_a_png_file_that_xmp_turns_is_turned(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><r tiff:Orientation="6"/></x:xmpmeta>')
    picture("RGB").save(tmp_path / "xmp.png", pnginfo=info)
    assert decode(tmp_path / "xmp.png").shape == (24, 16, 3)
    assert rules_of(tmp_path / "xmp.png") == ["png", "rgb", "turned"]


def test_sixteen_bits_of_colour_are_told_from_eight(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0)  # 16 bits, RGB
    rows = zlib.compress(16 * (b"\0" + 24 * 3 * b"\3\xe8"))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(data)
    assert (decode(tmp_path / "deep.png") == 3).all()
    assert rules_of(tmp_path / "deep.png") == ["16-bit colour", "png"]


def test_what_is_no_picture_falls_under_no_rule(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert rules_of(tmp_path / "a.png") == rules_of(tmp_path / "b.png") == []


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Tiny]:
    """Returns two datasets of random pictures, the second with one that has transparent pixels."""
    plain, mixed = (make_tiny(tmp_path / name, n=12) for name in ("plain", "mixed"))
    picture("RGBA").resize((48, 64)).save(mixed.path("004.png"))
    return {"plain": plain, "mixed": mixed}


def material(dataset: Tiny) -> LabelledDataset:
    again = Tiny(dataset.root)
    return LabelledDataset(again, again.ratings(), whole(again.ratings()))


def trainings(dataset: Tiny) -> list[str]:
    config = RunConfig(
        strategy=["sl"], orders={"x": ["tiny"]}, data=None, backbone="scnn", weights="random", seeds=[0],
        split="1", preset="quick", training=PRESETS["quick"],
    )  # fmt: skip
    return list(make_plan(choose(config), {"tiny": material(dataset)}, {}).train)


def test_a_raised_rule_renames_what_saw_such_a_picture_and_nothing_else(
    two: dict[str, Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliqa_bench.extensions.registry.origin", lambda kind, name: None)
    before = {name: (material(data).fingerprint, trainings(data)) for name, data in two.items()}
    monkeypatch.setitem(RULES, "transparent", 2)
    after = {name: (material(data).fingerprint, trainings(data)) for name, data in two.items()}
    assert after["plain"] == before["plain"]
    assert after["mixed"][0] != before["mixed"][0]
    assert after["mixed"][1] != before["mixed"][1]
    monkeypatch.setitem(RULES, "transparent", 3)
    assert material(two["mixed"]).fingerprint not in (before["mixed"][0], after["mixed"][0])
    monkeypatch.setitem(RULES, "transparent", 2)
    monkeypatch.setitem(RULES, "cmyk", 5)  # no picture falls under it
    assert material(two["mixed"]).fingerprint == after["mixed"][0]


def test_a_fingerprint_says_nothing_of_rules_that_no_picture_falls_under(two: dict[str, Tiny]) -> None:
    raised = {rule for rule, version in RULES.items() if version > 1}
    assert raised == {"12-bit gray", "BMP with alpha", "transparent 16-bit gray", "white is zero"}
    assert decoder_version() == 1 + len(raised)
    made = material(two["mixed"])
    hashes = content.content_hashes(made.dataset.root, made.paths, "Tiny")
    images = sorted((r.key, h) for r, h in zip(made.ratings, hashes, strict=True))
    assert made.fingerprint == digest(["tiny", made.split.fingerprint, images], length=64)  # as 0.1.0 had it


def test_headers_are_read_once_and_only_when_a_rule_has_changed(
    two: dict[str, Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def looking(path: Path) -> list[str]:
        looked.append(path.name)
        return rules_of(path)

    monkeypatch.setattr(content, "rules_of", looking)
    for rule in RULES:
        monkeypatch.setitem(RULES, rule, 1)
    before = material(two["mixed"]).fingerprint
    assert looked == []
    monkeypatch.setitem(RULES, "transparent", 2)
    material(two["mixed"])  # a fingerprint is computed when it is asked for
    changed = material(two["mixed"]).fingerprint
    assert sorted(looked) == sorted(path.name for path in material(two["mixed"]).paths)
    looked.clear()
    assert material(two["mixed"]).fingerprint == changed != before
    assert looked == []
    picture("RGB").resize((48, 64)).save(two["mixed"].path("004.png"))
    monkeypatch.setattr(content, "_hash", lambda path: "h")
    material(two["mixed"]).fingerprint  # noqa: B018 - a property that works
    assert looked == ["004.png"]
