"""Colour profiles: what a picture's numbers look like on a screen that shows sRGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image, ImageCms

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def has_other_profile(image: Image.Image) -> bool:
    """Tells whether `to_srgb` changes a picture: whether it has colours and a profile of another space.

    Args:
        image: The picture; its header is enough.
    """
    from PIL import ImageCms

    try:
        return _other_profile(image) is not None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False


def _other_profile(image: Image.Image) -> tuple[ImageCms.ImageCmsProfile, str] | None:
    """Returns a picture's profile and its name; None for gray, for none, and for that of sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode in ("1", "L", "LA", "La"):
        return None
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    name = ImageCms.getProfileDescription(source).strip()
    return None if "srgb" in name.lower() else (source, name)


def to_srgb(image: Image.Image, noted: Callable[[str], object]) -> Image.Image:
    """Converts colour with a profile to sRGB, by Pillow's colour management (relative colorimetric).

    Gray stays as it is, and so does what says to be sRGB: numbers would move by rounding alone.

    Args:
        image: The picture, loaded.
        noted: Told what was done, or why not.
    """
    from PIL import ImageCms

    try:
        found = _other_profile(image)
        if found is None:
            return image
        source, name = found
        converted = _converted(image, source)
    except (ImageCms.PyCMSError, OSError, ValueError):
        noted("has a colour profile that cannot be read; it was treated as sRGB")
        return image
    noted(f"has the colour profile {name or 'without a name'}; it was converted to sRGB")
    return converted


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    from PIL import ImageCms

    alpha = None
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    mode = "CMYK" if image.mode == "CMYK" else "RGB"
    converted = ImageCms.profileToProfile(
        image.convert(mode), source, ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
    )  # fmt: skip
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    converted.info.pop("icc_profile", None)
    return converted
