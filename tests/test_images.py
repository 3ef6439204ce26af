from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cliqa_bench.benchmarks.pixels.decode import FORMATS, adaptive_resize, adaptive_size, decode, image_size
from cliqa_bench.errors import UserError

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (8, 11, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_rgb_is_given_as_it_is(tmp_path: Path) -> None:
    pixels = decode(save(tmp_path / "a.png", Image.fromarray(RGB)))
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, RGB)
    assert image_size(tmp_path / "a.png") == (11, 8)


@pytest.mark.parametrize("suffix", ["bmp", "tif", "webp", "png"])
def test_lossless_formats_agree(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    np.testing.assert_array_equal(
        decode(save(tmp_path / f"a.{suffix}", Image.fromarray(RGB), **options)), RGB
    )


def test_gray_and_bilevel_are_repeated(tmp_path: Path) -> None:
    gray = RGB[:, :, 0]
    np.testing.assert_array_equal(
        decode(save(tmp_path / "g.png", Image.fromarray(gray))), np.stack([gray] * 3, 2)
    )
    bits = decode(save(tmp_path / "b.png", Image.fromarray(gray > 100)))
    np.testing.assert_array_equal(bits, np.stack([(gray > 100) * 255] * 3, 2))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.array([[0, 1], [2, 1]], np.uint8), (4, 4)), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = np.tile([[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]], (4, 4, 1))
    np.testing.assert_array_equal(decode(save(tmp_path / "p.png", image)), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    channels = 2 if mode == "LA" else 4
    pixels = RNG.integers(0, 256, (9, 12, channels), dtype=np.uint8)
    pixels[0, :3, -1] = [0, 255, 128]
    got = decode(save(tmp_path / "t.png", Image.fromarray(pixels, mode=mode)))
    alpha = pixels[:, :, -1:] / 255.0
    colour = pixels[:, :, :1].repeat(3, 2) if mode == "LA" else pixels[:, :, :3]
    np.testing.assert_allclose(got, colour * alpha + 255 * (1 - alpha), atol=1)
    assert (got[0, 0] == 255).all() and (got[0, 1] == colour[0, 1]).all()


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.array([[0, 1]], np.uint8), (8, 4)), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    got = decode(save(tmp_path / "p.png", image, transparency=0))
    np.testing.assert_array_equal(got, np.tile([[[255, 255, 255], [40, 50, 60]]], (8, 4, 1)))


def test_sixteen_bit_gray_is_scaled(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 128, 129, 257, 65535, 65406, 65407, 40000], np.uint16), (8, 1))
    got = decode(save(tmp_path / "h.png", Image.fromarray(values)))
    np.testing.assert_array_equal(got[0, :, 0], np.round(values[0] / 257.0))
    assert (got == got[:, :, :1]).all() and got.max() == 255
    np.testing.assert_array_equal(decode(save(tmp_path / "h.tif", Image.fromarray(values))), got)


def test_integers_beyond_sixteen_bits_and_floats_are_refused(tmp_path: Path) -> None:
    for high in (5, 255, 65535, 70000):  # it could be 8 bits, or 16, or more
        wide = Image.fromarray(np.tile(np.array([0, high], np.int32), (8, 4)))
        with pytest.raises(UserError, match=r"wide\.tif has signed pixels of 32 bits, of unknown range"):
            decode(save(tmp_path / "wide.tif", wide))
    with pytest.raises(UserError, match=r"float\.tif has floating-point"):
        decode(save(tmp_path / "float.tif", Image.fromarray(np.ones((8, 8), np.float32))))


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).resize((32, 32)).convert("CMYK")
    got = decode(save(tmp_path / "c.jpg", image, quality=100, subsampling=0))
    np.testing.assert_allclose(got.astype(int), np.asarray(image.convert("RGB")), atol=12)
    tiff = decode(save(tmp_path / "c.tif", image))
    np.testing.assert_array_equal(tiff, np.asarray(image.convert("RGB")))


# EXIF orientation -> what numpy does to a picture to set it upright
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
    99: lambda p: p,
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"o.{suffix}", Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(decode(path), UPRIGHT[orientation](RGB))


def test_damaged_exif_counts_as_none(tmp_path: Path) -> None:
    path = save(tmp_path / "e.jpg", Image.fromarray(RGB), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(path).shape == (8, 11, 3)


def test_first_picture_of_a_cameras_mpo_is_taken(tmp_path: Path) -> None:
    photo, other = (Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    pixels = decode(save(tmp_path / "m.jpg", photo, format="MPO", save_all=True, append_images=[other]))
    assert pixels.shape == (8, 16, 3) and pixels[0, 0, 0] > 240 and pixels[0, 0, 2] < 20


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), v) for v in (0, 200)]
    for suffix in ("gif", "tif"):
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match=rf"moving\.{suffix} is animated or has 2 pages"):
            decode(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", Image.fromarray(pixels))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cut\.{suffix} is (damaged|in none)") as error:
        decode(path)
    assert "\n" not in str(error.value)


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.bmp").write_bytes(b"")
    with pytest.raises(UserError, match=r"zero\.bmp is empty"):
        decode(tmp_path / "zero.bmp")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"text\.png is in none of the formats AVIF, BMP"):
        decode(tmp_path / "text.png")
    with pytest.raises(UserError, match=r"cannot read image .*none\.png: No such file"):
        decode(tmp_path / "none.png")


def test_too_many_pixels_are_refused_unread(tmp_path: Path) -> None:
    path = save(tmp_path / "big.png", Image.new("L", (300, 200)))
    with pytest.raises(UserError, match=r"big\.png has 300 x 200 pixels, more than 0\.05 megapixels"):
        decode(path, max_megapixels=0.05)
    assert decode(path, max_megapixels=0.06).shape == (200, 300, 3)


@pytest.mark.filterwarnings("error")  # Pillow would warn, and refuse, by a limit of its own
def test_a_bomb_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "BMP")
    header = bytearray(buffer.getvalue())
    header[18:26] = (50000).to_bytes(4, "little") * 2
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(UserError, match=r"bomb\.bmp has 50000 x 50000 pixels, more than 64 mega.*--max-mega"):
        decode(tmp_path / "bomb.bmp")
    with pytest.raises(UserError, match="damaged"):  # allowed, it is told that the pixels are not there
        decode(tmp_path / "bomb.bmp", max_megapixels=2500)


@pytest.mark.parametrize(("shape", "ok"), [((1, 1), False), ((7, 9), False), ((9, 7), False), ((8, 8), True)])
def test_too_few_pixels_are_refused(tmp_path: Path, shape: tuple[int, int], ok: bool) -> None:
    path = save(tmp_path / "dot.png", Image.new("RGB", shape))
    if ok:
        assert decode(path).shape == (*shape, 3)
        return
    with pytest.raises(
        UserError, match=rf"dot\.png has {shape[0]} x {shape[1]} pixels, expected 8 a side or more"
    ):
        decode(path)


@pytest.mark.parametrize("name", ["a.bmp", "a.jpg", "a.tif", "a.webp", "a.JP2"])
def test_another_format_than_the_name_says_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, Image.fromarray(RGB), format="PNG")
    with pytest.raises(UserError, match=rf"{name} is a PNG file, not what its name says"):
        decode(path)
    np.testing.assert_array_equal(decode(path.rename(tmp_path / "nameless")), RGB)


def test_formats_that_start_programs_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\n")
    with pytest.raises(UserError, match="is in none of the formats"):
        decode(tmp_path / "a.png")


def test_no_flipped_bit_of_a_png_changes_a_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    data = path.read_bytes()
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            np.testing.assert_array_equal(decode(path), RGB)
            assert place >= len(data) - 12, "but for the last chunk, which is empty, all is checked"
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged tags
def test_any_cut_of_any_format_is_a_picture_or_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "fuzz"
    image = Image.fromarray(RGB)
    Image.init()
    for suffix in FORMATS.keys() & Image.SAVE.keys():
        buffer = io.BytesIO()
        image.save(buffer, suffix)
        data = bytearray(buffer.getvalue())
        for _ in range(60):
            broken = bytearray(data)
            for place in RNG.integers(0, len(data), 4):
                broken[place] = RNG.integers(0, 256)
            path.write_bytes(broken[: RNG.integers(1, len(data) + 1)])
            try:
                pixels = decode(path, max_megapixels=1)
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_size_rule_is_the_published_one(shared: Path) -> None:
    golden = np.load(shared / "golden" / "adaptive_resize.npz")
    got = [adaptive_size(int(w), int(h), 768) for w, h in golden["size_wh"]]
    np.testing.assert_array_equal(got, golden["resized_wh"])


def test_size_rule_at_its_edges() -> None:
    assert adaptive_size(4000, 3000, 0) == (4000, 3000)
    assert adaptive_size(192, 5000, 192) == (192, 5000)
    assert adaptive_size(193, 193, 192) == (192, 192)
    assert adaptive_size(1001, 770, 768) == (int(768 * 1001 / 770), 768)
    assert adaptive_size(1, 1, 768) == (1, 1)
    assert adaptive_size(1000, 769, 768) == (998, 768), "998.7 is cut, not rounded"


def test_resizing_is_torchvisions(tmp_path: Path) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    for shape in ((230, 301, 3), (301, 230, 3)):
        pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
        expected = np.asarray(functional.resize(Image.fromarray(pixels), 192))
        np.testing.assert_array_equal(adaptive_resize(pixels, 192), expected)
    assert adaptive_resize(pixels, 301) is pixels
