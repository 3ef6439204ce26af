"""What the numbers of a picture mean: written here byte by byte, and with the right value beside them."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from colour_profiles import LINEAR, WIDE
from numpy.typing import NDArray
from PIL import Image, ImageCms
from tiny_dataset import Tiny, make_tiny, pixels_of

from cliqa_bench.benchmarks import labelled
from cliqa_bench.benchmarks.decoded import open_source
from cliqa_bench.benchmarks.labelled import LabelledDataset, load_materials
from cliqa_bench.benchmarks.pixels.decode import (
    OWN,
    RELEASED,
    _initialised,
    decode,
    format_of,
    rules_of,
)
from cliqa_bench.errors import UserError

RAMP = np.linspace(0, 1, 16 * 24).reshape(16, 24)
"""What is painted, from black to white."""

COLOUR = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


# -- writers -------------------------------------------------------------------------------------------------


def tiff(
    path: Path,
    values: NDArray[np.integer] | NDArray[np.floating],
    *,
    order: str = "<",
    photometric: int = 1,
    bits: int | None = None,
    sample_format: int | None = None,
) -> Path:
    """Writes gray (H, W), or colour (H, W, 3), as an uncompressed TIFF file of one strip."""
    height, width, *channels = values.shape
    samples = channels[0] if channels else 1
    bits = bits or 8 * values.dtype.itemsize
    swapped = values.astype(values.dtype.newbyteorder("<" if order == "<" else ">"))
    body = packed(values) if bits == 12 else swapped.tobytes()
    entries = [
        (256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * samples), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [0]), (277, 3, [samples]), (278, 3, [height]),
        (279, 4, [len(body)]),
    ]  # fmt: skip
    if sample_format is not None:
        entries.append((339, 3, [sample_format] * samples))
    path.write_bytes(_assembled(entries, body, order))
    return path


def _assembled(entries: Sequence[tuple[int, int, list[int]]], body: bytes, order: str) -> bytes:
    table = 8 + 2 + 12 * len(entries) + 4
    longer = b""
    fields = b""
    for tag, kind, values in entries:
        found = (
            [table + sum(4 * (len(v) > 2) + 4 for *_, v in entries if len(v) > 2)] if tag == 273 else values
        )
        raw = struct.pack(f"{order}{len(found)}{'H' if kind == 3 else 'I'}", *found)
        if len(raw) > 4:
            place = table + len(longer)
            longer += raw + b"\0" * (-len(raw) % 8)
            raw = struct.pack(f"{order}I", place)
        fields += struct.pack(f"{order}HHI", tag, kind, len(found)) + raw.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    start = head + struct.pack(f"{order}H", len(entries)) + fields + struct.pack(f"{order}I", 0)
    return start + longer + body


def packed(values: NDArray[np.integer] | NDArray[np.floating]) -> bytes:
    """Packs 12-bit numbers, most significant bits first, as TIFF has them in either byte order."""
    numbers = values.astype(np.uint16).reshape(-1, 2).astype(int).tolist()
    return b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in numbers)


def bmp(path: Path, pixels: NDArray[np.uint8], header: int, masks: tuple[int, int, int, int] | None) -> Path:
    """Writes (H, W, 4) BGRA as a BMP file with a header of so many bytes, and masks where there are any."""
    height, width, _ = pixels.shape
    compression = 0 if masks is None else 3
    info = struct.pack(
        "<IiiHHIIiiII", header, width, height, 1, 32, compression, 4 * width * height, 0, 0, 0, 0
    )
    if masks is not None:
        info += struct.pack("<4I", *masks)
    info = info[:header].ljust(header, b"\0") if header > 40 or masks is None else info[:52]
    body = pixels[::-1].tobytes()
    path.write_bytes(
        b"BM" + struct.pack("<IHHI", 14 + len(info) + len(body), 0, 0, 14 + len(info)) + info + body
    )
    return path


def png(path: Path, kind: int, rows: NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> Path:
    """Writes 16-bit gray (kind 0) or colour (kind 2) as PNG, with more chunks before the pixels."""
    height, width = rows.shape[:2]
    lines = rows.astype(">u2").reshape(height, -1)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def gray(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Returns the right pixels of a painted ramp, (H, W, 3) uint8."""
    return np.repeat(np.rint(255 * values).astype(np.uint8)[:, :, None], 3, axis=2)


def close(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> bool:
    """Tells whether pixels are right but for rounding twice."""
    return int(np.abs(found.astype(int) - wanted).max()) <= 1


# -- gray of more than eight bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("negative", [False, True])
def test_sixteen_bits_of_either_byte_order_and_either_end(tmp_path: Path, order: str, negative: bool) -> None:
    values = np.rint(65535 * RAMP).astype(np.uint16)
    shown = 65535 - values if negative else values
    path = tiff(tmp_path / "g.tif", shown, order=order, photometric=0 if negative else 1)
    np.testing.assert_array_equal(decode(path), gray(RAMP))
    assert ("white is zero" in rules_of(path)) == negative


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_negative_is_its_eight_bit_sibling(tmp_path: Path, order: str) -> None:
    eight = np.rint(255 * RAMP).astype(np.uint8)
    sibling = decode(tiff(tmp_path / "8.tif", eight, photometric=0, order=order))
    found = decode(tiff(tmp_path / "16.tif", eight.astype(np.uint16) * 257, photometric=0, order=order))
    np.testing.assert_array_equal(found, sibling)
    np.testing.assert_array_equal(sibling[:, :, 0], 255 - eight)


@pytest.mark.parametrize("order", ["<", ">"])
def test_twelve_bits_have_a_range_of_their_own(tmp_path: Path, order: str) -> None:
    values = np.rint(4095 * RAMP).astype(np.uint16)
    path = tiff(tmp_path / "g.tif", values, order=order, bits=12)
    try:
        found = decode(path)
    except UserError as error:  # Pillow reads them in one byte order only
        assert order == ">" and "has pixels of a kind that cannot be read" in str(error)
        return
    np.testing.assert_array_equal(
        found, np.repeat(((2 * 255 * values.astype(int) + 4095) // 8190)[..., None], 3, 2)
    )
    assert found.max() == 255
    assert "12-bit gray" in rules_of(path)


@pytest.mark.parametrize(
    ("values", "sample_format", "said"),
    [
        (np.rint(32767 * RAMP).astype(np.int16), 2, "signed pixels of 16 bits"),
        (np.rint(100 * RAMP).astype(np.int8), 2, "signed pixels of 8 bits"),
        (np.rint(65535 * RAMP).astype(np.int32), 2, "signed pixels of 32 bits"),
        (np.rint(255 * RAMP).astype(np.uint32), None, "pixels of 32 bits"),
        (RAMP.astype(np.float32), 3, "floating-point pixels"),
    ],
    ids=["int16", "int8", "int32", "uint32", "float32"],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_without_an_agreed_range_are_refused(
    tmp_path: Path, values: NDArray[np.int16], sample_format: int | None, said: str, order: str
) -> None:
    path = tiff(tmp_path / "g.tif", values, order=order, sample_format=sample_format)
    with pytest.raises(
        UserError, match=rf"g\.tif has (pixels of a kind that cannot be read|{said}).*save it with 8 or"
    ):
        decode(path)


def test_colour_of_floats_is_refused_as_what_it_is(tmp_path: Path) -> None:
    path = tiff(tmp_path / "c.tif", (COLOUR / 255).astype(np.float32), photometric=2, sample_format=3)
    with pytest.raises(UserError, match="has pixels of a kind that cannot be read"):
        decode(path)


def test_a_gray_that_is_transparent_becomes_white(tmp_path: Path) -> None:
    values = np.rint(65535 * RAMP).astype(np.uint16)
    hidden = int(values[3, 4])
    values[0, 0] = hidden
    wanted = gray(values / 65535)
    wanted[values == hidden] = 255
    path = png(tmp_path / "t.png", 0, values, (b"tRNS", struct.pack(">H", hidden)))
    np.testing.assert_array_equal(decode(path), wanted)
    assert "transparent 16-bit gray" in rules_of(path)
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    eight.save(tmp_path / "8.png", transparency=hidden >> 8)
    hidden_8 = (values >> 8) == hidden >> 8
    assert (decode(tmp_path / "8.png")[hidden_8] == 255).all()
    assert (decode(path)[0, 0] == 255).all()


def test_colour_of_sixteen_bits_with_a_transparent_one_is_refused(tmp_path: Path) -> None:
    values = COLOUR.astype(np.uint16) * 257
    path = png(tmp_path / "t.png", 2, values, (b"tRNS", struct.pack(">3H", *values[0, 0])))
    with pytest.raises(UserError, match=r"16-bit colour with a transparent colour.*save it with 8 bits"):
        decode(path)
    np.testing.assert_array_equal(decode(png(tmp_path / "plain.png", 2, values)), COLOUR)


@pytest.mark.parametrize("kind", [0, 2])
@pytest.mark.parametrize(("top", "told"), [(4095, True), (1023, True), (65535, False), (6000, False)])
def test_twelve_bits_in_sixteen_are_told(tmp_path: Path, kind: int, top: int, told: bool) -> None:
    values = np.rint(top * RAMP).astype(np.uint16)
    rows = values if kind == 0 else np.stack([values] * 3, axis=2)
    said: list[str] = []
    decode(png(tmp_path / "g.png", kind, rows), noted=said.append)
    assert said == (["has 16 bits but uses only the lowest 12: it was read as nearly black"] if told else [])


def test_a_black_picture_is_no_news(tmp_path: Path) -> None:
    said: list[str] = []
    decode(png(tmp_path / "g.png", 0, np.zeros((16, 24), np.uint16)), noted=said.append)
    Image.fromarray(np.full((16, 24), 9, np.uint8)).save(tmp_path / "dark.png")
    decode(tmp_path / "dark.png", noted=said.append)
    assert not said


# -- alpha of BMP --------------------------------------------------------------------------------------------

BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def opens(path: Path) -> bool:
    """Tells whether Pillow knows a header (10.1 not that of 56 bytes); one that it does not is refused."""
    try:
        Image.open(path).close()
    except OSError:
        with pytest.raises(UserError, match="Unsupported BMP header type"):
            decode(path)
        return False
    return True


@pytest.mark.parametrize("header", [56, 108, 124])
def test_an_alpha_that_is_empty_throughout_is_none(tmp_path: Path, header: int) -> None:
    pixels = np.dstack([COLOUR[:, :, ::-1], np.zeros((16, 24), np.uint8)])
    path = bmp(tmp_path / "a.bmp", pixels, header, BGRA)
    if not opens(path):
        return
    with Image.open(path) as image:
        assert image.mode == "RGBA", "Pillow takes the mask for one"
    np.testing.assert_array_equal(decode(path), COLOUR)
    assert "BMP with alpha" in rules_of(path)


@pytest.mark.parametrize("header", [40, 108])
def test_a_bmp_without_a_mask_is_opaque(tmp_path: Path, header: int) -> None:
    pixels = np.dstack([COLOUR[:, :, ::-1], np.zeros((16, 24), np.uint8)])
    path = bmp(tmp_path / "a.bmp", pixels, header, None)
    np.testing.assert_array_equal(decode(path), COLOUR)
    assert "BMP with alpha" not in rules_of(path)


@pytest.mark.parametrize("header", [56, 108, 124])
def test_an_alpha_that_says_something_is_heard(tmp_path: Path, header: int) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[4:] = 255
    path = bmp(tmp_path / "a.bmp", np.dstack([COLOUR[:, :, ::-1], alpha]), header, BGRA)
    if not opens(path):
        return
    found = decode(path)
    assert (found[:4] == 255).all()
    np.testing.assert_array_equal(found[4:], COLOUR[4:])


def test_a_png_that_is_transparent_throughout_stays_white(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOUR, np.zeros((16, 24), np.uint8)])).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png") == 255).all()


# -- names, text, profiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_among_ones_own_pictures_the_content_says_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path, "JPEG")
    with pytest.raises(UserError, match=f"a\\{suffix} is a JPEG file, not what its name says"):
        decode(path, reading=RELEASED)
    said: list[str] = []
    assert decode(path, reading=OWN, noted=said.append).shape == COLOUR.shape
    assert said == ["is a JPEG file, not what its name says"]
    assert format_of(path) == "JPEG"
    assert rules_of(path) == ["jpeg", "rgb"]
    path.write_bytes(b"no picture at all")
    assert format_of(path) == ""
    with pytest.raises(UserError, match="in none of the formats"):
        decode(path, reading=OWN)


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".JPG"])
def test_every_name_of_a_jpeg_is_one(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / f"a{suffix}", "JPEG")
    assert decode(tmp_path / f"a{suffix}").shape == COLOUR.shape


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt"])
def test_a_long_text_is_no_damage(tmp_path: Path, kind: bytes) -> None:
    text = zlib.compress(b"workflow " * 500_000)
    chunk = {
        b"zTXt": b"prompt\0\0" + text,
        b"iTXt": b"prompt\0\1\0\0\0" + text,
        b"tEXt": b"prompt\0" + b"workflow " * 500_000,
    }[kind]
    values = np.rint(65535 * RAMP).astype(np.uint16)
    path = png(tmp_path / "t.png", 0, values, (kind, chunk))
    np.testing.assert_array_equal(decode(path), gray(RAMP))
    assert "16-bit gray" in rules_of(path)
    damaged = bytearray(path.read_bytes())
    damaged[-30] ^= 1  # in the pixels
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged"):
        decode(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_profile_is_applied_to_pictures_of_ones_own_alone(tmp_path: Path, suffix: str) -> None:
    flat = np.full((16, 24, 3), 55, np.uint8)
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(flat).save(path, icc_profile=LINEAR)
    np.testing.assert_array_equal(decode(path, reading=RELEASED), flat)
    said: list[str] = []
    found = decode(path, reading=OWN, noted=said.append)
    # sRGB's curve: 55 of 255 is linear light that sRGB writes as 128
    linear = 55 / 255
    wanted = round(255 * (1.055 * linear ** (1 / 2.4) - 0.055))
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert said == ["has the colour profile Linear; it was converted to sRGB"]


def test_published_datasets_are_converted_where_a_setting_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting gives another fingerprint, other pixels and another cache to what has a profile alone."""
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path / "cache"))
    wide, plain = make_tiny(tmp_path / "wide", 12), make_tiny(tmp_path / "plain", 12)
    name = "005.png"
    numbers = pixels_of(wide, name)
    Image.fromarray(numbers).save(wide.path(name), icc_profile=WIDE)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels_of(plain, name)).save(plain.path(name), icc_profile=srgb)

    def load(root: Path, srgb: bool = False) -> LabelledDataset:
        monkeypatch.setattr(labelled, "open_datasets", lambda *given: {"tiny": Tiny(root)})
        return load_materials(["tiny"], srgb=srgb)["tiny"]

    assert load(plain.root).fingerprint == load(plain.root, srgb=True).fingerprint
    before, after = load(wide.root), load(wide.root, srgb=True)
    assert before.fingerprint != after.fingerprint
    assert load(wide.root).fingerprint == before.fingerprint
    found = [open_source(material, 0).cache for material in (before, after)]
    at = [rating.key for rating in before.ratings].index(name)
    read, converted = (cache.images(np.array([at]))[0].permute(1, 2, 0).numpy() for cache in found)
    np.testing.assert_array_equal(read, numbers)
    # linear light of P3's primaries in those of sRGB, and sRGB's curve; what is out of its range is cut
    light = np.clip((numbers / 255) @ P3_TO_SRGB.T, 0, 1)
    wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(converted - 255 * wanted).max() < 2.5, "0.84 was seen"
    assert np.abs(converted.astype(int) - numbers).max() > 60, "87 was seen"


P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
"""Linear Display P3 to linear sRGB, of which both have the white D65."""


def test_transparency_outlives_a_profile(tmp_path: Path) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[8:] = 255
    Image.fromarray(np.dstack([np.full((16, 24, 3), 55, np.uint8), alpha])).save(
        tmp_path / "p.png", icc_profile=LINEAR
    )
    found = decode(tmp_path / "p.png", reading=OWN)
    assert (found[:8] == 255).all()
    assert np.abs(found[8:].astype(int) - 128).max() <= 1


def test_srgb_itself_and_gray_stay_as_they_are(tmp_path: Path) -> None:
    said: list[str] = []
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOUR).save(tmp_path / "s.png", icc_profile=srgb)
    np.testing.assert_array_equal(decode(tmp_path / "s.png", reading=OWN, noted=said.append), COLOUR)
    Image.fromarray(COLOUR[:, :, 0]).save(tmp_path / "g.png", icc_profile=LINEAR)
    np.testing.assert_array_equal(
        decode(tmp_path / "g.png", reading=OWN, noted=said.append)[:, :, 0], COLOUR[:, :, 0]
    )
    assert not said


def test_a_profile_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    Image.fromarray(COLOUR).save(tmp_path / "b.png", icc_profile=b"no profile" * 20)
    np.testing.assert_array_equal(decode(tmp_path / "b.png", reading=OWN, noted=said.append), COLOUR)
    assert said == ["has a colour profile that cannot be read; it was treated as sRGB"]


def test_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    try:
        Image.fromarray(np.full((16, 24, 3), 100, np.uint8)).save(path, quality=100)
    except (KeyError, ValueError, OSError):
        path.write_bytes(b"\0\0\0\x1cftypavif" + bytes(32))
        with pytest.raises(UserError, match=r"needs Pillow 11\.3"):
            decode(path)
        return
    assert close(decode(path), np.full((16, 24, 3), 100, np.uint8))


def test_heic_names_the_extra(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(32))
    with pytest.raises(UserError, match=r'cliqa_bench\[heif\]"|is damaged'):
        decode(path)


def test_a_picture_in_memory_is_the_one_in_the_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    np.testing.assert_array_equal(decode(tmp_path / "a.png", reading=OWN), COLOUR)


# -- every mode and format -----------------------------------------------------------------------------------

READ = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "La",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I;16B",
)
REFUSED = ("I", "F")


def painted(mode: str) -> Image.Image:
    """Returns a picture of a mode."""
    if mode.startswith("I;16"):
        values = np.rint(65535 * RAMP).astype(">u2" if mode.endswith("B") else "<u2")
        return Image.frombytes(mode, (24, 16), values.tobytes())
    return Image.fromarray(np.repeat(np.rint(255 * RAMP).astype(np.uint8)[..., None], 3, 2)).convert(mode)


def written() -> list[tuple[str, str]]:
    """Returns mode and suffix of what Pillow writes here; of 16 bits, what it writes right."""
    found = []
    for mode in (*READ, *REFUSED):
        for suffix in (".avif", ".bmp", ".gif", ".jpg", ".jp2", ".png", ".tif", ".webp"):
            right = (".png", ".tif") if mode.startswith("I;") else (".tif",)
            if mode.startswith("I") and suffix not in right:
                continue
            if (mode, suffix) == ("YCbCr", ".jp2"):  # Pillow 10.1 writes it without saying what it is
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):
                file = io.BytesIO()
                painted(mode).save(file, Image.registered_extensions()[suffix])
                Image.open(file).load()  # 10.1 does not read its own YCbCr in TIFF
                found.append((mode, suffix))
    return found


@pytest.mark.parametrize(("mode", "suffix"), written())
def test_every_mode_that_a_format_holds_is_read_right_or_refused(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    image = painted(mode)
    image.save(path)
    if mode in REFUSED and suffix == ".tif":
        with pytest.raises(UserError, match="of unknown range; save it with 8 or unsigned 16 bits"):
            decode(path)
        return
    lossy = suffix in (".avif", ".jpg", ".webp", ".jp2", ".gif")
    wanted = gray(RAMP) if mode.startswith("I;16") else np.asarray(image.convert("RGB"))
    apart = np.abs(decode(path, reading=OWN).astype(int) - wanted)
    # the largest mean seen is 4.0 (RGBA as GIF); a wrong range, end or palette moves it by tens
    assert apart.mean() <= 12 if lossy else not apart.any()


def test_more_samples_than_a_colour_needs_are_refused_or_left_out(tmp_path: Path) -> None:
    five = np.dstack([COLOUR, COLOUR[:, :, :2]])
    path = tiff(tmp_path / "five.tif", five, photometric=2)
    with pytest.raises(UserError, match=r"five\.tif (has pixels of a kind that cannot be read|is damaged)"):
        decode(path)


def test_pillow_does_not_warn_of_damaged_notes_beside_the_pixels(tmp_path: Path) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "a name" * 10
    Image.new("RGB", (16, 12), "red").save(file, "JPEG", exif=exif)
    data = bytearray(file.getvalue())
    count = data.find(b"Exif\0\0") + 6 + 8
    data[count : count + 2] = b"\xff\xff"  # so many notes
    path = tmp_path / "damaged.jpg"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        Image.open(path).getexif().get(0x0112)
        assert warned, "else this tests nothing"
        del warned[:]
        _initialised.cache_clear()
        assert decode(path).shape == (12, 16, 3)
    assert not warned
