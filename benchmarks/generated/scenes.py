"""Makes the picture files of one scene, and measures them: the unit of work of a miniature."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageOps

from cliqa_bench.benchmarks.generated.camera import SHOTS, shoot
from cliqa_bench.benchmarks.generated.colour import ByteImage
from cliqa_bench.benchmarks.generated.distortions import distort
from cliqa_bench.benchmarks.generated.raters import measure
from cliqa_bench.benchmarks.generated.references import photo_crops, reference
from cliqa_bench.seeds import rng_for


@dataclass(frozen=True)
class SceneFile:
    """One file.

    Attributes:
        path: Relative to the dataset's folder; the suffix decides the format.
        fault: A name in `DISTORTIONS`, "camera" for a photograph, "" for a plain copy of the reference.
        level: Level of the distortion.
        turned: Whether the pixels are on their side, with an EXIF orientation that says so.
    """

    path: str
    fault: str
    level: float = 0.0
    turned: bool = False


@dataclass(frozen=True)
class Scene:
    """One content and all pictures of it.

    Attributes:
        dataset: Name of the dataset.
        seed: Seed of the content and of its faults.
        size: Width and height.
        photo: Number of the photograph's crop; None for a procedural scene.
        reference: Path of the file of the pristine picture; None where the dataset has none.
        pictures: The pictures.
    """

    dataset: str
    seed: int
    size: tuple[int, int]
    photo: int | None
    reference: str | None
    pictures: tuple[SceneFile, ...]


def pristine(scene: Scene) -> ByteImage:
    """Returns the pristine picture (H, W, 3) of a scene."""
    if scene.photo is not None:
        return photo_crops(scene.dataset, scene.size)[scene.photo]
    return reference(scene.seed, scene.size)


def photo_of(dataset: str, index: int, size: tuple[int, int]) -> int | None:
    """Gives the first scenes of a dataset the crops of photographs that there are for their size."""
    return index if index < len(photo_crops(dataset, size)) else None


def _encode(image: ByteImage, path: str, quality: int, turned: bool) -> bytes:
    buffer = io.BytesIO()
    suffix = Path(path).suffix.lower()
    if suffix == ".jpg":
        exif = Pil.Exif()
        if turned:
            image, exif[0x0112] = np.ascontiguousarray(np.rot90(image)), 6  # 6: turn clockwise to look at it
        Pil.fromarray(image).save(buffer, "JPEG", quality=quality, exif=exif.tobytes() if turned else b"")
    elif suffix == ".png":
        Pil.fromarray(image).save(buffer, "PNG", compress_level=4)
    else:
        Pil.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def _decode(data: bytes) -> ByteImage:
    return np.asarray(ImageOps.exif_transpose(Pil.open(io.BytesIO(data))).convert("RGB"))


def _render(scene: Scene, picture: SceneFile, clean: ByteImage) -> bytes:
    """Returns the bytes of a picture's file."""
    rng = rng_for("picture", scene.dataset, scene.seed, picture.path)
    if picture.fault == "":
        return _encode(clean, picture.path, 95, False)
    if picture.fault != "camera":
        return _encode(distort(clean, picture.fault, picture.level, rng), picture.path, 95, False)
    shot = SHOTS[scene.dataset](rng)
    image = shoot(clean, shot, rng)
    if not picture.path.lower().endswith(
        ".jpg"
    ):  # a phone's JPEG, kept as a bitmap by those who collected it
        image = _decode(_encode(image, "phone.jpg", shot.quality, False))
    return _encode(image, picture.path, shot.quality, picture.turned)


def make_scene(folder: Path, scene: Scene) -> NDArray[np.float64]:
    """Writes the files of a scene and measures its pictures as they will be decoded.

    Args:
        folder: The dataset's folder.
        scene: What to make.

    Returns:
        (len(scene.pictures), len(MEASURES)); a plain copy has the measures of a perfect picture.
    """
    clean = pristine(scene)
    if scene.reference:
        _write(folder / scene.reference, _encode(clean, scene.reference, 95, False))
    images = []
    for picture in scene.pictures:
        data = _render(scene, picture, clean)
        _write(folder / picture.path, data)
        images.append(_decode(data))
    return measure(np.broadcast_to(clean, (len(images), *clean.shape)).copy(), np.stack(images))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
