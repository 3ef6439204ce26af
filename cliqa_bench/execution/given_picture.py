"""Pictures that a program gives in place of files: Pillow's, arrays and tensors.

Nothing is guessed. What could be read in two ways is refused in one line:

- uint8 is 0 to 255. Floating-point numbers are 0 to 1, all of them; x becomes round(255 x), so that what was
  uint8 / 255 comes back to the bit. Other types of numbers have no agreed range.
- Arrays have channels last, as Pillow, OpenCV and scikit-image have them: (H, W), (H, W, 1) or (H, W, 3), or
  several pictures of one size, (N, H, W, 3). Tensors have channels first, as torchvision has them: (H, W),
  (1, H, W) or (3, H, W), or (N, 1 or 3, H, W). Colours are red, green, blue.
- A fourth channel is refused in both: whether it is to be laid over white, and whether colours are multiplied
  with it already, is not in the numbers. Pillow's pictures say so, and are read as files are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cliqa_bench.benchmarks.pixels.decode import OWN, Noted, pixels_of, refuse_size
from cliqa_bench.errors import UserError
from cliqa_bench.execution.find_pictures import find_pictures
from cliqa_bench.execution.own_picture import OwnPicture, shrunk_picture
from cliqa_bench.paths import user_path

if TYPE_CHECKING:
    Picture = str | os.PathLike[str] | Image.Image | NDArray[Any] | torch.Tensor

CHANNELS = (1, 3)
"""Of gray and of colour."""


@dataclass(frozen=True, eq=False)
class GivenPicture:
    """A picture that is not a file.

    Attributes:
        name: What it is called: "[3]", its place among those that were given.
        source: A picture of Pillow's, or an array (H, W, C) or (H, W) of any type.
    """

    name: str
    source: Image.Image | NDArray[Any]


def given_pictures(pictures: Picture | Sequence[Picture]) -> list[Path | GivenPicture]:
    """Returns one picture each: a folder stands for the pictures in it, an array of four axes for N.

    Raises:
        UserError: If something is not a picture, or an array has no shape of one.
    """
    several = isinstance(pictures, list | tuple)
    found: list[Path | GivenPicture] = []
    for one in pictures if several else (pictures,):  # type: ignore[union-attr]
        found += _single(one, len(found))
    return found


def _single(one: Any, place: int) -> Iterator[Path | GivenPicture]:
    if isinstance(one, str | os.PathLike):
        path = user_path(one)
        yield from find_pictures([path]).files if path.is_dir() else [path]
    elif isinstance(one, Image.Image):
        yield GivenPicture(f"[{place}]", one)
    elif isinstance(one, np.ndarray):
        yield from _arrays(one, place, "(H, W, 3)", channels_last=True)
    elif isinstance(one, torch.Tensor):
        array = one.detach().cpu()
        if array.dtype == torch.bfloat16:  # numpy has none
            array = array.float()
        yield from _arrays(array.numpy(), place, "(3, H, W)", channels_last=False)
    else:
        raise UserError(
            f"cannot score [{place}], of type {type(one).__name__}: give a path, a picture of "
            "Pillow's, an array (H, W, 3), a tensor (3, H, W), or a list of these"
        )


def _arrays(array: NDArray[Any], place: int, wanted: str, channels_last: bool) -> Iterator[GivenPicture]:
    axis = -1 if channels_last else -3
    good = array.ndim == 2 or (array.ndim in (3, 4) and array.shape[axis] in CHANNELS)
    if not good:
        other = 0 if channels_last else -1
        turned = array.ndim == 3 and array.shape[other] in CHANNELS
        four = array.ndim in (3, 4) and array.shape[axis] == 4
        advice = (
            "reorder the axes"
            if turned
            else "drop the alpha channel"
            if four
            else "give one picture, or a list"
        )
        kind = "an array" if channels_last else "a tensor"
        raise UserError(
            f"image [{place}] is {kind} of shape {tuple(array.shape)}, expected {wanted}, or "
            f"(H, W) for gray; {advice}"
        )
    for number, single in enumerate(array if array.ndim == 4 else array[None]):
        last = single if channels_last or single.ndim == 2 else np.moveaxis(single, 0, -1)
        yield GivenPicture(f"[{place + number}]", last)


def read_given(given: GivenPicture, resize: int, max_megapixels: float) -> OwnPicture:
    """As `read_picture`, for a picture that is not a file.

    Args:
        given: The picture.
        resize: As in `read_picture`.
        max_megapixels: As in `read_picture`.
    """
    name, source = Path(given.name), given.source

    def pixels(noted: Noted) -> NDArray[np.uint8]:
        if isinstance(source, Image.Image):
            return pixels_of(source, name, max_megapixels, OWN, noted)
        height, width = source.shape[:2]
        refuse_size(width, height, name, max_megapixels)
        return _rgb(_eight_bits(source, given.name))

    return shrunk_picture(pixels, name, resize)


def _eight_bits(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Returns pixels as uint8.

    Raises:
        UserError: If their range is not known.
    """
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"image {name} has pixels of type {array.dtype}, of unknown range; give uint8 from "
            "0 to 255, or floating-point numbers from 0 to 1"
        )
    least, most = float(array.min()), float(array.max())  # nan if any is
    if not (least >= 0 and most <= 1):
        raise UserError(
            f"image {name} has floating-point pixels from {least:g} to {most:g}, expected 0 to 1; "
            "divide by the largest value that is possible, undo a normalisation, or give uint8"
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns (H, W, 3), contiguous, of (H, W), (H, W, 1) or (H, W, 3)."""
    whole = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(np.broadcast_to(whole, (*whole.shape[:2], 3)))
