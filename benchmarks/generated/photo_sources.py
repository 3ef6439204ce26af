"""Photographs that the libraries scikit-learn and scikit-image bring: what the shipped model learned from.

`tests/against_brisque.py` measures that model on other photographs; none of these is among them.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pil

from cliqa_bench.benchmarks.generated.colour import ByteImage
from cliqa_bench.errors import UserError


class PhotoSource(NamedTuple):
    """A photograph and where it comes from.

    Attributes:
        package: The library that brings it.
        file: Its file there.
        licence: The statement of its library on its licence.
        share: How often it is drawn: scenes in colour more often than textures.
    """

    package: str
    file: str
    licence: str
    share: float = 1.0


TRAINING_PHOTOS = (
    PhotoSource("sklearn", "datasets/images/china.jpg", "CC BY 2.0, danielbuechele", 3.0),
    PhotoSource("sklearn", "datasets/images/flower.jpg", "CC BY 2.0, vultilion", 3.0),
    PhotoSource("skimage", "data/coffee.png", "CC0, Rachel Michetti", 3.0),
    PhotoSource("skimage", "data/rocket.jpg", "public domain, SpaceX", 2.0),
    PhotoSource("skimage", "data/camera.png", "CC0, Lav Varshney", 2.0),
    PhotoSource("skimage", "data/brick.png", "CC0, CC0Textures"),
    PhotoSource("skimage", "data/grass.png", "CC0, linolafett"),
    PhotoSource("skimage", "data/gravel.png", "CC0, CC0Textures"),
    PhotoSource("skimage", "data/coins.png", "no known copyright restrictions, Brooklyn Museum"),
    PhotoSource("skimage", "data/hubble_deep_field.jpg", "public domain, NASA"),
)
"""All photographs with a stated licence in scikit-image 0.26 and scikit-learn 1.9, but the astronaut and the
cat, which are kept for measuring, and medical pictures."""


@lru_cache(maxsize=1)
def training_photos() -> tuple[ByteImage, ...]:
    """Returns `TRAINING_PHOTOS`, each (H, W, 3) uint8, sRGB.

    Raises:
        UserError: If scikit-image, which only this needs, is missing or brings other files.
    """
    photos = []
    for source in TRAINING_PHOTOS:
        found = importlib.util.find_spec(source.package)
        if found is None or found.origin is None:
            raise UserError(
                "training the shipped model again needs the photographs of scikit-image: "
                "pip install scikit-image"
            )
        path = Path(found.origin).parent / source.file
        if not path.is_file():
            raise UserError(
                f"{path} is missing; install scikit-image 0.26 and scikit-learn 1.9, which bring it"
            )
        with Pil.open(path) as image:
            photos.append(np.asarray(image.convert("RGB")))
    return tuple(photos)
