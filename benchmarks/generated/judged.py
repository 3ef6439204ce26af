"""Pictures with a quality that full-reference measures judge: what the shipped model learned.

A scene is a pristine picture and five distorted ones: three levels of one distortion, two pictures with
others, of which one may have two at once. Pristine pictures are painted (`references`) or cut out of
photographs (`photo_sources`) at a random scale. In some a part is out of focus, as a photographer has it:
that is not a fault of a picture, as long as half of it is sharp.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used: most commands make no pictures
from PIL import Image as Pil

from cliqa_bench.benchmarks.generated import filters
from cliqa_bench.benchmarks.generated.colour import ByteImage, FloatImage, luma
from cliqa_bench.benchmarks.generated.distortions import Distortion
from cliqa_bench.benchmarks.generated.photo_sources import TRAINING_PHOTOS, training_photos
from cliqa_bench.benchmarks.generated.raters import Column, Panel, latent_quality, measure
from cliqa_bench.benchmarks.generated.references import reference
from cliqa_bench.seeds import Rng, rng_for, seed_for

SceneKind = Literal["drawn", "photographs"]
JudgedSubset = Literal["train", "validation", "test"]

SIDE = 192
"""Height and width of a judged picture."""
PER_SCENE = 6
_PANEL = Panel((1.0, 1.0, 1.0))
_HELD_OUT = 0.3
"""Share of a photograph's longer side that no training picture is cut from."""
_BLOCK = 16
_DETAIL = 0.006
"""Fine detail of a block, a deviation in 0..1, from which on it counts as sharp."""
_SHARP = 0.5
"""Share of a photograph's blocks that must be sharp."""
_TRIES = 12


def _resample(x: FloatImage, factor: float, unit: float, _: Rng) -> FloatImage:
    """Shrinks by a factor and enlarges again by cubic interpolation."""
    height, width = x.shape[:2]
    factor = 1 + (factor - 1) * unit
    picture = Pil.fromarray(filters.to_uint8(x))
    small = picture.resize(
        (max(8, round(width / factor)), max(8, round(height / factor))), Pil.Resampling.BOX
    )
    return filters.to_float(np.asarray(small.resize((width, height), Pil.Resampling.BICUBIC)))


DISTORTIONS_JUDGED: dict[str, tuple[Distortion, float]] = {
    "jpeg": (Distortion(filters.jpeg, (80, 45, 22, 11, 4)), 4.0),
    "jpeg2000": (Distortion(filters.jpeg2000, (6.0, 14.0, 28.0, 50.0, 90.0)), 2.0),
    "gaussian_blur": (Distortion(filters.gaussian_blur, (0.45, 0.8, 1.3, 2.1, 3.4)), 3.0),
    "lens_blur": (Distortion(filters.lens_blur, (0.7, 1.2, 2.0, 3.2, 5.0)), 1.5),
    "motion_blur": (Distortion(filters.motion_blur, (2.0, 3.2, 5.0, 8.0, 13.0)), 1.0),
    "resample": (Distortion(_resample, (1.4, 1.9, 2.6, 3.6, 5.0)), 1.5),
    "white_noise": (Distortion(filters.white_noise, (0.0003, 0.0012, 0.005, 0.02, 0.08)), 2.5),
    "colour_noise": (Distortion(filters.colour_noise, (0.0003, 0.001, 0.004, 0.014, 0.05)), 1.0),
    "impulse_noise": (Distortion(filters.impulse_noise, (0.003, 0.01, 0.03, 0.08, 0.2)), 0.7),
    "multiplicative_noise": (Distortion(filters.multiplicative_noise, (0.004, 0.012, 0.04, 0.1, 0.3)), 0.7),
    "pink_noise": (Distortion(filters.pink_noise, (0.02, 0.04, 0.07, 0.12, 0.2)), 0.5),
    "denoise": (Distortion(filters.denoise, (0.001, 0.004, 0.012, 0.032, 0.08)), 0.7),
    "pixelate": (Distortion(filters.pixelate, (1.25, 1.6, 2.2, 3.2, 5.0)), 0.7),
    "quantization": (Distortion(filters.quantization, (24, 14, 9, 6, 4)), 0.5),
    "dither": (Distortion(filters.dither_quantization, (64, 32, 16, 8, 4)), 0.4),
    "sharpen": (Distortion(filters.sharpen, (1.0, 2.0, 3.5, 6.0, 11.0)), 0.5),
    "jitter": (Distortion(filters.jitter, (0.3, 0.5, 0.85, 1.4, 2.4)), 0.5),
    "contrast": (Distortion(filters.contrast_loss, (0.2, 0.4, 0.6, 0.75, 0.88)), 0.4),
    "fast_fading": (Distortion(filters.fast_fading, (29.0, 24.5, 21.0, 18.0, 14.5)), 0.3),
}
"""Distortion at five levels, and how often it is drawn."""


class JudgedScene(NamedTuple):
    """Pictures of one content.

    Attributes:
        pictures: (6, 192, 192, 3) uint8, the pristine one first.
        quality: (6,) float64 in 0..1, 1 for the pristine one: `raters.latent_quality` of a panel that weighs
            HaarPSI, MDSI and VIFp alike.
    """

    pictures: ByteImage
    quality: Column


def judged_scene(kind: SceneKind, part: JudgedSubset, number: int, seed: int = 0) -> JudgedScene:
    """Makes a scene; the same names give the same pictures.

    Args:
        kind: "drawn" or "photographs".
        part: "train", "validation" or "test"; the last two share no painted scene and no part of a
            photograph with the first, and no painted scene with each other.
        number: Number of the scene.
        seed: Seed of all of them.

    Raises:
        UserError: If scikit-image is missing.
    """
    rng = rng_for("judged", kind, part, seed, number)
    clean = _drawn(part, number, seed) if kind == "drawn" else _cut(part, rng)
    if rng.random() < 0.4:
        clean = _partly_out_of_focus(clean, rng)
    names = list(DISTORTIONS_JUDGED)
    weights = np.array([weight for _, weight in DISTORTIONS_JUDGED.values()])
    drawn = [names[i] for i in rng.choice(len(names), 3, replace=False, p=weights / weights.sum())]
    unit = float(np.exp(rng.uniform(np.log(0.8), np.log(2.2))))
    ladder = 1 + 4 * np.sort(rng.random(3))
    seeds = rng_for("judged faults", kind, part, seed, number)
    pictures = [clean, *(_distorted(clean, drawn[0], level, unit, seeds) for level in ladder)]
    pictures.append(_distorted(clean, drawn[1], rng.uniform(0.7, 5), unit, seeds))
    last = _distorted(clean, drawn[2], rng.uniform(0.7, 5), unit, seeds)
    if rng.random() < 0.5:
        last = _distorted(last, drawn[1], rng.uniform(0.7, 4), unit, seeds)
    stacked = np.stack([*pictures, last])
    measures = measure(np.broadcast_to(clean, stacked.shape).copy(), stacked)
    return JudgedScene(stacked, latent_quality(measures, _PANEL))


def _distorted(image: ByteImage, name: str, level: float, unit: float, rng: Rng) -> ByteImage:
    distortion, _ = DISTORTIONS_JUDGED[name]
    distorted = distortion.apply(filters.to_float(image), distortion.strength(level), unit, rng)
    return filters.to_uint8(distorted)


def _drawn(part: JudgedSubset, number: int, seed: int) -> ByteImage:
    return reference(seed_for("judged", part, seed, number), (SIDE, SIDE))


def _cut(part: JudgedSubset, rng: Rng) -> ByteImage:
    """Draws squares of photographs until one is sharp; the sharpest of `_TRIES` where none is."""
    squares = []
    for _ in range(_TRIES):
        image = _square(part, rng)
        squares.append((_sharp_share(image), image))
        if squares[-1][0] >= _SHARP:
            return image
    return max(squares, key=lambda square: square[0])[1]


def _sharp_share(image: ByteImage) -> float:
    """Returns the share of blocks with fine detail: what a small blur takes away."""
    x = luma(filters.to_float(image))
    fine = x - scipy.ndimage.gaussian_filter(x, 1.0, mode="nearest")
    side = SIDE // _BLOCK
    detail = fine.reshape(side, _BLOCK, side, _BLOCK).std((1, 3))
    return float((detail > _DETAIL).mean())


def _square(part: JudgedSubset, rng: Rng) -> ByteImage:
    """Cuts a square out of a photograph, shrinks it, turns it and changes its colours a little."""
    photos = training_photos()
    shares = np.array([source.share for source in TRAINING_PHOTOS])
    photo = photos[rng.choice(len(photos), p=shares / shares.sum())]
    photo = photo if photo.shape[1] >= photo.shape[0] else photo.transpose(1, 0, 2)
    edge = round(photo.shape[1] * (1 - _HELD_OUT))
    photo = photo[:, :edge] if part == "train" else photo[:, edge:]
    # at 1 a photograph shows the faults of its camera and of its own compression
    side = round(min(*photo.shape[:2], SIDE * np.exp(rng.uniform(np.log(1.15), np.log(2.2)))))
    top, left = rng.integers(0, np.array(photo.shape[:2]) - side, endpoint=True)
    square = Pil.fromarray(np.ascontiguousarray(photo[top : top + side, left : left + side]))
    image = np.asarray(square.resize((SIDE, SIDE), Pil.Resampling.LANCZOS))
    image = np.rot90(image, int(rng.integers(4)))[:, :: rng.choice((-1, 1))]
    mixed = filters.to_float(image)[..., rng.permutation(3)] ** np.float32(np.exp(rng.normal(0, 0.2)))
    return filters.to_uint8(mixed)


def _partly_out_of_focus(image: ByteImage, rng: Rng) -> ByteImage:
    """Blurs a part of a picture, with a soft border, and leaves the rest as it is."""
    x = filters.to_float(image)
    y, z = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.6)
    near = y * np.sin(angle) + z * np.cos(angle) - place
    if rng.random() < 0.5:
        near = np.hypot(y - rng.uniform(-0.3, 0.3), z - rng.uniform(-0.3, 0.3)) - rng.uniform(0.5, 0.9)
    near -= max(0.0, float(np.median(near)))  # at least half of it stays sharp
    share = np.clip(near * 4 + 0.5, 0, 1)[..., None].astype(np.float32)
    sigma = rng.uniform(1.5, 6)
    blurred = scipy.ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")
    return filters.to_uint8(x + share * (blurred - x))
