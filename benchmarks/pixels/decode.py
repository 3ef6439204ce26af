"""From an image file to pixels, by one stated rule for BMP, GIF, JPEG, JPEG 2000, PNG, TIFF and WebP files.

1. The file must hold one still picture, whole, of 8 pixels a side at least and 64 megapixels at most. In a
   dataset it must be in the format that its name says: a JPEG called .bmp is not a copy of a release but was
   compressed again. (Of the several pictures that some cameras put into one JPEG, "MPO", the first one is the
   photograph.) Text in a PNG file that takes too much memory is not read; it is not pixels.
2. The EXIF orientation is applied, once. An orientation that makes no sense counts as none.
3. Gray is repeated in the three channels; palettes are looked up; CMYK, YCbCr, LAB and HSV become RGB by
   Pillow's formulas. Colour profiles are not applied (neither does the published code) unless `Reading` says
   so.
4. Transparent pixels are laid over white, which is what a viewer shows. A BMP file whose alpha is 0
   everywhere is opaque.
5. 16-bit gray becomes round(v / 257), so that 65535 is 255, and 12-bit gray round(v * 255 / 4095); of 16-bit
   colour Pillow keeps the upper byte. Signed numbers, those of 32 bits and floating-point ones have no agreed
   range and are refused.

`docs/pictures.md` has the table of all kinds of pixels.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.pixels.png import PNG_START, without_text
from cliqa_bench.benchmarks.pixels.profiles import has_other_profile, to_srgb
from cliqa_bench.benchmarks.pixels.samples import (
    gray_of_16_bits,
    is_12_bit,
    is_16_bit,
    is_16_bit_colour,
    nearly_black,
    refuse_samples,
    without_empty_alpha,
)
from cliqa_bench.benchmarks.pixels.tiff import without_negative
from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

RULES = dict.fromkeys(
    (
        *(
            "avif",
            "bmp",
            "gif",
            "heif",
            "jpeg",
            "jpeg2000",
            "mpo",
            "png",
            "tiff",
            "webp",
        ),  # how it is decoded
        *("bilevel", "gray", "palette", "rgb", "cmyk", "ycbcr", "lab", "hsv"),  # how pixels become RGB
        *("16-bit gray", "16-bit colour", "transparent", "turned"),
    ),
    1,
) | dict.fromkeys(("12-bit gray", "BMP with alpha", "transparent 16-bit gray", "white is zero"), 2)
"""Version of each part of the rule above, see `rules_of`.

Raise a part's version when it gives other pixels than before: what was decoded is decoded again, and a
dataset with a picture under that part gets another fingerprint, so that its trainings and answers are made
again. All other datasets keep theirs.
"""

MIN_SIDE = 8
"""Shortest side of a picture that is accepted, in pixels; there is nothing to see on fewer."""

FORMATS = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Formats that are read, by Pillow's names -> their extensions; of the others, some start programs.

AVIF needs Pillow 11.3 or newer, HEIF the package pillow-heif.
"""

FORMAT_OF = {extension: name for name, extensions in FORMATS.items() for extension in extensions}
"""Extension -> format. Names that differ in extensions of one format may mean the same file."""

RAW = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw",
))  # fmt: skip
"""Extensions of cameras' raw files. Many are TIFF files by content, with a preview as their first picture."""

_DNG_VERSION = 50706
"""The TIFF tag that every DNG file has, whatever its name."""


class Reading(NamedTuple):
    """How a picture is read where there are two ways.

    Attributes:
        any_name: Whether the content alone says what format a file has; else the name must agree.
        srgb: Whether a picture with a colour profile is converted to sRGB; the published code does not look.
    """

    any_name: bool = False
    srgb: bool = False


RELEASED = Reading()
"""For the published datasets: as their code reads them."""

OWN = Reading(any_name=True, srgb=True)
"""For the user's own pictures: as a viewer shows them."""


def reading_changes(reading: Reading) -> dict[str, bool]:
    """Returns how a reading differs from that of the published datasets; it goes into names of pixels."""
    return {name: value for name, value in reading._asdict().items() if value != getattr(RELEASED, name)}


Noted = Callable[[str], object]
"""Told what a person should know of a picture that was read all the same, such as "is a JPEG file, not what
its name says"; the same words for the same kind."""

_ORIENTATION = 0x0112


def decode(
    path: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
    reading: Reading = RELEASED,
    noted: Noted | None = None,
) -> NDArray[np.uint8]:
    """Reads an image file as RGB by the rule of this module.

    Args:
        path: The file.
        max_megapixels: Largest picture that is decoded, in 10^6 pixels.
        reading: How it is read, where people differ.
        noted: Told what should be known of it.

    Returns:
        (H, W, 3) uint8, contiguous.

    Raises:
        UserError: If the file is missing, empty, truncated, animated, too large or too small, in another
            format than its name says, or no picture that has a rule; the message names the file.
    """
    return decode_bytes(read_bytes(path), path, max_megapixels, reading, noted)


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


def decode_bytes(
    data: bytes,
    path: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
    reading: Reading = RELEASED,
    noted: Noted | None = None,
) -> NDArray[np.uint8]:
    """As `decode`, with the bytes of the file given; `path` is only named in errors."""
    noted = noted or (lambda text: None)
    with _errors_of(path):
        data, negative = without_negative(data)
        with _opened_bytes(data, path, reading, noted) as image:
            if image.format == "PNG":  # decoding does not look at the checksums of the pixels
                _opened_bytes(data, path, reading).verify()
            return _pixels(image, path, max_megapixels, reading, noted, negative)


def pixels_of(
    image: Image.Image,
    name: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
    reading: Reading = RELEASED,
    noted: Noted | None = None,
) -> NDArray[np.uint8]:
    """As `decode`, of an open Pillow image, which stays as it is.

    What only the bytes of a file tell is not checked: checksums of a PNG file, and whether 0 is white in a
    TIFF file of 16 bits.

    Args:
        image: The picture.
        name: What it is called in errors.
        max_megapixels: As in `decode`.
        reading: As in `decode`.
        noted: As in `decode`.

    Raises:
        UserError: As `decode`.
    """
    with _errors_of(name):
        return _pixels(image, name, max_megapixels, reading, noted or (lambda text: None), negative=False)


def _pixels(
    image: Image.Image, path: Path, max_megapixels: float, reading: Reading, noted: Noted, negative: bool
) -> NDArray[np.uint8]:
    refuse_samples(image, path)
    _refuse(image, path, max_megapixels)
    gray, colour = is_16_bit(image), is_16_bit_colour(image)
    image.load()
    # read after loading: Pillow rotates TIFF files itself and then removes the tag
    pixels = _to_rgb(image, reading, noted, negative)
    if (gray or colour) and nearly_black(pixels, rounded=gray):
        noted("has 16 bits but uses only the lowest 12: it was read as nearly black")
    return pixels


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turns whatever exception a damaged picture causes into one line."""
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"image {path} does not fit into memory; shrink it or leave it out") from error
    except Exception as error:  # on damaged bytes Pillow's plugins raise all kinds of exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image {path} is damaged ({reason}); copy or unpack it again") from error


def _opened_bytes(
    data: bytes, path: Path, reading: Reading = RELEASED, noted: Noted | None = None
) -> ImageFile.ImageFile:
    """Opens a picture; of a PNG file whose text takes too much memory, without its text."""
    try:
        return _opened(io.BytesIO(data), path, reading, noted)
    except ValueError:
        if not data.startswith(PNG_START):
            raise
        return _opened(io.BytesIO(without_text(data)), path, reading)


def _opened(
    file: BinaryIO, path: Path, reading: Reading = RELEASED, noted: Noted | None = None
) -> ImageFile.ImageFile:
    """Opens a picture in one of `FORMATS`.

    Unlike `Image.open`, which asks every format that Pillow knows, and warns of large pictures (or refuses
    them) by a limit of its own before ours is asked.
    """
    from PIL import Image

    if path.suffix.lower() in RAW:
        raise _raw(path)
    start = file.read(16)
    file.seek(0)
    name = _format(start)
    if not name:
        raise UserError(f"image {path} is in none of the formats {', '.join(FORMATS)}; {_advice(start)}")
    suffix = path.suffix.lower()
    if FORMAT_OF.get(suffix, name) != name:
        if not reading.any_name:
            raise UserError(f"image {path} is a {name} file, not what its name says; copy or unpack it again")
        if noted is not None:
            noted(f"is a {name} file, not what its name says")
    try:
        image = Image.OPEN[name][0](file, str(path))
        if name == "TIFF" and _DNG_VERSION in getattr(image, "tag_v2", ()):
            raise _raw(path)
        return image
    except SyntaxError as error:
        if name != "TIFF":
            raise
        raise UserError(
            f"image {path} has pixels of a kind that cannot be read ({error}); save it with 8 or "
            "unsigned 16 bits per channel"
        ) from error


def _raw(path: Path) -> UserError:
    return UserError(
        f"image {path} is a camera's raw file, of which at best a preview would be read; export it as JPEG, "
        "PNG or TIFF"
    )


def _format(start: bytes) -> str:
    """Returns the name in `FORMATS` of a file that starts like this; "" if none can be read here."""
    from PIL import Image

    _initialised()
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is not None and accept(start) is True:
            return name
    return ""


@functools.cache
def _initialised() -> None:
    """Asks Pillow, and pillow-heif if it is installed, what they can read.

    Pillow warns, with a line of its own source, of damaged notes beside the pixels, which is of no use to the
    user. What is wrong with pixels is an error.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    Image.init()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def format_of(path: Path) -> str:
    """Returns the name in `FORMATS` of a file, by its content; "" where it is none, or none to be read here.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return _format(file.read(16))


def _advice(start: bytes) -> str:
    """Says what to do about a file that is not read."""
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        if brand in (b"avif", b"avis"):
            return "this AVIF file needs Pillow 11.3 or newer"
        if brand[:3] in (b"hei", b"hev", b"mif", b"msf"):
            return 'for HEIC files, install the extra: pip install "cliqa_bench[heif]"'
    return "copy or unpack it again, or save it in one of them"


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
    height, width = pixels.shape[:2]
    return resized(pixels, adaptive_size(width, height, side))


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes an image (H, W, 3) uint8 to (width, height); the argument itself if it has that size."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def image_size(path: Path, reading: Reading = RELEASED) -> tuple[int, int]:
    """Returns an image's width and height as its header states them: nothing is decoded or turned.

    Args:
        path: The file.
        reading: How it is read, where people differ.

    Raises:
        UserError: If there is no header to read.
    """
    try:
        with path.open("rb") as file, _opened(file, path, reading) as image:
            return image.size
    except UserError:
        raise
    except Exception as error:  # as in decode_bytes
        raise UserError(f"cannot read the size of image {path}: {error}") from error


def _refuse(image: Image.Image, path: Path, max_megapixels: float) -> None:
    """Refuses pictures that are never decoded, before any pixel is."""
    refuse_size(*image.size, path, max_megapixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UserError(
            f"image {path} is animated or has {frames} pages; save one of them as a file of its own"
        )


def refuse_size(width: int, height: int, path: Path, max_megapixels: float) -> None:
    """Refuses a picture that is too small or too large.

    Args:
        width: In pixels.
        height: In pixels.
        path: What it is called in the error.
        max_megapixels: As in `decode`.

    Raises:
        UserError: Says so.
    """
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"image {path} has {width} x {height} pixels, expected {MIN_SIDE} a side or more; leave it out"
        )
    if width * height > max_megapixels * 1e6:
        raise UserError(
            f"image {path} has {width} x {height} pixels, more than {max_megapixels:g} megapixels; "
            "shrink it, leave it out, or allow more with --max-megapixels"
        )


def decoder_version() -> int:
    """Returns the version of all rules together; pixels that another version decoded are decoded again."""
    return 1 + sum(version - 1 for version in RULES.values())


def raised_rules() -> dict[str, int]:
    """Returns the rules that have changed since 0.1.0, with their versions."""
    return {rule: version for rule, version in RULES.items() if version > 1}


def rules_of(path: Path) -> list[str]:
    """Returns the names in `RULES` under which a picture falls, sorted; none where it cannot be opened.

    The header has them; no pixel is decoded, but those of a PNG file that has EXIF or XMP notes.
    """
    try:
        data, negative = without_negative(path.read_bytes())
        with _opened_bytes(data, path, Reading(any_name=True)) as image:
            rules = {(image.format or "").lower(), _mode_rule(image), *_narrow_rules(image)}
            if negative:
                rules.add("white is zero")
            if _has_alpha(image):
                rules.add("transparent")
            # Pillow decodes a PNG file to see whether notes follow its pixels
            noted = image.format != "PNG" or any(note in data for note in _PNG_NOTES)
            if noted and _turn(image) is not None:
                rules.add("turned")
            return sorted(rules & RULES.keys())
    except Exception:  # as in decode_bytes, which has a better message
        return []


def is_converted(path: Path) -> bool:
    """Tells, by a picture's header, whether reading it with `Reading.srgb` changes its pixels."""
    try:
        data, _ = without_negative(path.read_bytes())
        with _opened_bytes(data, path, Reading(any_name=True)) as image:
            return has_other_profile(image)
    except Exception:  # as in decode_bytes, which has a better message
        return False


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
    if is_16_bit(image):
        return "16-bit gray"
    return "16-bit colour" if is_16_bit_colour(image) else _MODE_RULES.get(image.mode, "rgb")


def _narrow_rules(image: ImageFile.ImageFile) -> set[str]:
    """Returns the rules of few pictures that a picture falls under."""
    deep = is_16_bit(image)
    found = {
        "12-bit gray": is_12_bit(image),
        "BMP with alpha": image.format == "BMP" and image.mode == "RGBA",
        "transparent 16-bit gray": deep and "transparency" in image.info,
    }
    return {rule for rule, falls in found.items() if falls}


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _to_rgb(image: Image.Image, reading: Reading, noted: Noted, negative: bool) -> NDArray[np.uint8]:
    from PIL import Image

    image = _upright(without_empty_alpha(image))
    if is_16_bit(image):
        return np.repeat(gray_of_16_bits(image, negative)[:, :, None], 3, axis=2)
    if reading.srgb:
        image = to_srgb(image, noted)
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    method = _turn(image)
    return image if method is None else image.transpose(method)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns how to turn a picture upright; None if nothing has to be done."""
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
