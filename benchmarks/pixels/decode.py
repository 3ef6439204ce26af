"""From an image file to pixels, by one stated rule for BMP, GIF, JPEG, JPEG 2000, PNG, TIFF and WebP files.

1. The file must hold one still picture, whole, of 8 pixels a side at least and 64 megapixels at most, in the
   format that its name says: a JPEG called .bmp is no copy of a release but was compressed again. (Of the
   several pictures that some cameras put into one JPEG, "MPO", the first one is the photograph.)
2. The EXIF orientation is applied, once. An orientation that makes no sense counts as none.
3. Gray is repeated in the three channels; palettes are looked up; CMYK, YCbCr, LAB and HSV become RGB by
   Pillow's formulas. Colour profiles are not applied (neither does the published code).
4. Transparent pixels are laid over white, which is what a viewer shows.
5. 16-bit gray becomes round(v / 257), so that 65535 is 255; of 16-bit colour Pillow keeps the upper byte.
   32-bit integers are taken for 16-bit ones and refused outside 0..65535; floating-point pictures have no
   agreed range and are refused.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

RULES = dict.fromkeys(
    (
        *("bmp", "gif", "jpeg", "jpeg2000", "mpo", "png", "tiff", "webp"),  # how a format is decoded
        *("bilevel", "gray", "palette", "rgb", "cmyk", "ycbcr", "lab", "hsv"),  # how pixels become RGB
        *("16-bit gray", "16-bit colour", "transparent", "turned"),
    ),
    1,
)
"""Version of each part of the rule above, see `rules_of`.

Raise a part's version when it gives other pixels than before: what was decoded is decoded again, and a
dataset with a picture under that part gets another fingerprint, so that its trainings and answers are made
again. All other datasets keep theirs.
"""

MIN_SIDE = 8
"""Shortest side of a picture that is accepted, in pixels; there is nothing to see on fewer."""

FORMATS = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Formats that are read, by Pillow's names -> their extensions; of the others, some start programs."""

_ORIENTATION = 0x0112


def decode(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Reads an image file as RGB by the rule of this module.

    Args:
        path: The file.
        max_megapixels: Largest picture that is decoded, in 10^6 pixels.

    Returns:
        (H, W, 3) uint8, contiguous.

    Raises:
        UserError: If the file is missing, empty, truncated, animated, too large or too small, in another
            format than its name says, or no picture that has a rule; the message names the file.
    """
    return decode_bytes(read_bytes(path), path, max_megapixels)


def read_bytes(path: Path) -> bytes:
    """Returns the content of an image file.

    Raises:
        UserError: If it cannot be read or is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from error
    if not data:
        raise UserError(f"image {path} is empty (0 bytes); copy or unpack it again")
    return data


def decode_bytes(data: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Does what `decode` does with a file's bytes at hand; `path` is only named in errors."""
    try:
        with _opened(io.BytesIO(data), path) as image:
            _refuse(image, path, max_megapixels)
            if image.format == "PNG":  # decoding does not look at the checksums of the pixels
                _opened(io.BytesIO(data), path).verify()
            image.load()
            # read after loading: Pillow turns TIFF files itself and then takes the tag away
            return _to_rgb(image, path)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"image {path} does not fit into memory; shrink it or leave it out") from error
    except Exception as error:  # on damaged bytes Pillow's plugins raise whatever comes to hand
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image {path} is damaged ({reason}); copy or unpack it again") from error


def _opened(file: BinaryIO, path: Path) -> ImageFile.ImageFile:
    """Opens a picture in one of `FORMATS`.

    Unlike `Image.open`, which asks every format that Pillow knows, and warns of large pictures (or refuses
    them) by a limit of its own before ours is asked.
    """
    from PIL import Image

    Image.init()
    start = file.read(16)
    file.seek(0)
    for name, extensions in FORMATS.items():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(start) is True:
            suffix = path.suffix.lower()
            known = {e for es in FORMATS.values() for e in es}
            if suffix in known and suffix not in extensions:
                raise UserError(
                    f"image {path} is a {name} file, not what its name says; copy or unpack it again"
                )
            return factory(file, str(path))
    raise UserError(f"image {path} is in none of the formats {', '.join(FORMATS)}; copy or unpack it again")


def adaptive_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Returns the size at which an image is trained and tested (the published code's AdaptiveResize).

    An image with both sides longer than `side` is shrunk until the shorter one has that length; the longer
    one is rounded down. Any other image stays as it is: nothing is ever enlarged.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        side: 768 in the published code; 0 leaves every image as it is (the paper's IV-A).

    Returns:
        Width and height in pixels.
    """
    short, long = sorted((width, height))
    if side <= 0 or short <= side:
        return width, height
    longer = int(side * long / short)
    return (side, longer) if width <= height else (longer, side)


def adaptive_resize(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrinks an image to its `adaptive_size`, by Pillow's bilinear filter (which does not alias).

    Args:
        pixels: (H, W, 3) uint8.
        side: As in `adaptive_size`.

    Returns:
        (H', W', 3) uint8; the argument itself where nothing is to be done.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    size = adaptive_size(width, height, side)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def image_size(path: Path) -> tuple[int, int]:
    """Returns an image's width and height as its header states them: nothing is decoded or turned.

    Raises:
        UserError: If there is no header to read.
    """
    try:
        with path.open("rb") as file, _opened(file, path) as image:
            return image.size
    except UserError:
        raise
    except Exception as error:  # as in decode_bytes
        raise UserError(f"cannot read the size of image {path}: {error}") from error


def _refuse(image: Image.Image, path: Path, max_megapixels: float) -> None:
    """Raises for pictures that are not decoded at all, before any pixel is."""
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"image {path} has {width} x {height} pixels, expected {MIN_SIDE} a side or more; copy or unpack "
            "it again"
        )
    if width * height > max_megapixels * 1e6:
        raise UserError(
            f"image {path} has {width} x {height} pixels, more than {max_megapixels:g} megapixels; "
            "shrink it, leave it out, or allow more with --max-megapixels"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UserError(
            f"image {path} is animated or has {frames} pages; save one of them as a file of its own"
        )


def decoder_version() -> int:
    """Returns the version of all rules together; pixels that another version decoded are decoded again."""
    return 1 + sum(version - 1 for version in RULES.values())


def raised_rules() -> dict[str, int]:
    """Returns the rules that have changed since 0.1.0, with their versions."""
    return {rule: version for rule, version in RULES.items() if version > 1}


def rules_of(path: Path) -> list[str]:
    """Returns the names in `RULES` under which a picture falls, sorted; none where it cannot be opened.

    The header tells them; no pixel is decoded, but those of a PNG file that has EXIF or XMP notes.
    """
    try:
        data = path.read_bytes()
        with _opened(io.BytesIO(data), path) as image:
            rules = {(image.format or "").lower(), _mode_rule(image)}
            if _has_alpha(image):
                rules.add("transparent")
            # Pillow decodes a PNG file to see whether notes follow its pixels
            noted = image.format != "PNG" or any(note in data for note in _PNG_NOTES)
            if noted and _turn(image) is not None:
                rules.add("turned")
            return sorted(rules & RULES.keys())
    except Exception:  # as in decode_bytes, which will say it better
        return []


_PNG_NOTES = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What a PNG file holds if it says somewhere how it is turned."""

_MODE_RULES = {
    "1": "bilevel",
    "L": "gray",
    "LA": "gray",
    "La": "gray",
    "P": "palette",
    "PA": "palette",
    "CMYK": "cmyk",
    "YCbCr": "ycbcr",
    "LAB": "lab",
    "HSV": "hsv",
}


def _mode_rule(image: ImageFile.ImageFile) -> str:
    if _is_16_bit(image):
        return "16-bit gray"
    raw = image.tile[0][3] if image.tile else ""
    if "16" in str(raw[0] if isinstance(raw, tuple) else raw):
        return "16-bit colour"
    return _MODE_RULES.get(image.mode, "rgb")


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    image = _upright(image)
    if _is_16_bit(image):
        return _from_16_bit(image, path)
    if image.mode == "F":
        raise UserError(f"image {path} has floating-point pixels of unknown range; save it with 8 or 16 bits")
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    method = _turn(image)
    return image if method is None else image.transpose(method)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns what sets a picture upright; None where nothing is to be done."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # an unreadable note beside the pixels is no reason to refuse the pixels
        return None
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _from_16_bit(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(f"image {path} has values from {low} to {high}; 16-bit gray needs 0 to 65535")
    gray = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
