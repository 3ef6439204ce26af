"""Photographs with the faults of cameras and photographers, in mixtures that differ from set to set.

Order of events as in a camera: focus and movement, exposure in linear light, noise of the sensor, white
balance, contrast and colour, sharpening, compression. Lengths are for a picture of 128 x 96 pixels and grow
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported when they are used: most commands make no pictures

from cliqa_bench.benchmarks.generated.colour import ByteImage, FloatImage, from_lab, luma, to_lab
from cliqa_bench.benchmarks.generated.filters import (
    convolve,
    gaussian_blur,
    lens_blur,
    motion_blur,
    sharpen,
    to_float,
    to_uint8,
    unit_of,
)
from cliqa_bench.seeds import Rng


@dataclass(frozen=True)
class Shot:
    """One press of the shutter.

    Attributes:
        defocus: Radius of the circle of confusion.
        motion: Length of a straight movement.
        shake: Extent of a curved movement.
        soft: Deviation of the blur of a cheap lens or of digital zoom.
        stops: Exposure error in stops of light.
        noise: Deviation of the sensor's noise in mid-tones, 0..1.
        cast: Error of the white balance: gain of red over blue, in logarithms.
        contrast: Factor of contrast around the mean.
        haze: Share of white veil.
        colour: Factor of saturation.
        sharpening: Amount of the camera's own sharpening.
        quality: JPEG quality of the file.
    """

    defocus: float = 0.0
    motion: float = 0.0
    shake: float = 0.0
    soft: float = 0.0
    stops: float = 0.0
    noise: float = 0.0
    cast: float = 0.0
    contrast: float = 1.0
    haze: float = 0.0
    colour: float = 1.0
    sharpening: float = 0.0
    quality: int = 95


def _shake(x: FloatImage, extent: float, unit: float, rng: Rng) -> FloatImage:
    """Convolves with the curved path of an unsteady hand."""
    steps = 60
    speed = np.cumsum(rng.normal(0, 1, (steps, 2)), 0)
    path = np.cumsum(speed - speed.mean(0), 0)
    path *= extent * unit / max(float(np.ptp(path, axis=0).max()), 1e-6)
    half = int(np.ceil(extent * unit / 2 + 2))
    middle = (path.max(0) + path.min(0)) / 2
    places = path - middle + half
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    low = np.floor(places).astype(int)
    part = places - low
    for dy in (0, 1):  # each point is shared among its four pixels
        for dx in (0, 1):
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            np.add.at(kernel, (low[:, 0] + dy, low[:, 1] + dx), share)
    return convolve(x, kernel / kernel.sum())


def _light(x: FloatImage, shot: Shot, unit: float, rng: Rng) -> FloatImage:
    """Exposure, noise of photons and of read-out, white balance; all in linear light."""
    linear = np.clip(x, 0, 1) ** np.float32(2.2) * np.float32(2.0**shot.stops)
    if shot.noise > 0:
        variance = np.float32(shot.noise**2) * (0.25 * linear + 0.05)
        grain = rng.standard_normal(x.shape, np.float32)
        # most samples of a colour filter array are interpolated: colour noise is coarse
        coarse = scipy.ndimage.gaussian_filter(grain, (0.7 * unit, 0.7 * unit, 0)) * np.float32(2.2 * unit)
        linear = linear + np.sqrt(np.maximum(variance, 0)) * (0.6 * grain + 0.8 * coarse)
    gains = np.exp(np.array([shot.cast, 0.0, -shot.cast], np.float32))
    return np.asarray(np.clip(linear * gains, 0, 1) ** np.float32(1 / 2.2), np.float32)


def shoot(scene: ByteImage, shot: Shot, rng: Rng) -> ByteImage:
    """Takes a photograph of a scene with the faults of a shot, up to its compression.

    Args:
        scene: (H, W, 3) uint8, pristine.
        shot: The faults; `quality` is left to the writer of the file.
        rng: Randomness of directions and noise.

    Returns:
        (H, W, 3) uint8.
    """
    unit = unit_of(scene)
    x = to_float(scene)
    if shot.defocus > 0:
        x = lens_blur(x, shot.defocus, unit, rng)
    if shot.motion > 0:
        x = motion_blur(x, shot.motion, unit, rng)
    if shot.shake > 0:
        x = _shake(x, shot.shake, unit, rng)
    if shot.soft > 0:
        x = gaussian_blur(x, shot.soft, unit, rng)
    if shot.stops or shot.noise or shot.cast:
        x = _light(x, shot, unit, rng)
    if shot.contrast != 1 or shot.haze > 0:
        mean = np.float32(luma(x).mean())
        x = np.clip(mean + np.float32(shot.contrast) * (x - mean), 0, 1)
        x = np.asarray(x * np.float32(1 - shot.haze) + np.float32(0.85 * shot.haze), np.float32)
    if shot.colour != 1:
        lab = to_lab(x)
        lab[..., 1:] *= np.float32(shot.colour)
        x = from_lab(lab)
    if shot.sharpening > 0:
        x = sharpen(x, shot.sharpening, unit, rng)
    return to_uint8(x)


def bid_shot(rng: Rng) -> Shot:
    """BID: good large photographs, nearly all blurred in one of four ways, some taken in the dark."""
    kind = rng.choice(("sharp", "defocus", "motion", "shake", "both"), p=(0.18, 0.32, 0.25, 0.15, 0.1))
    much = float(rng.beta(1.1, 1.5))
    shot = Shot(quality=int(rng.integers(86, 96)), stops=float(rng.normal(0, 0.15)))
    if kind in ("defocus", "both"):
        shot = replace(shot, defocus=0.6 + 4.5 * much)
    if kind in ("motion", "both"):
        shot = replace(shot, motion=1.5 + 11 * much)
    if kind == "shake":
        shot = replace(shot, shake=2 + 12 * much)
    if rng.random() < 0.2:
        shot = replace(shot, noise=float(rng.uniform(0.02, 0.12)))
    return shot


def clive_shot(rng: Rng) -> Shot:
    """LIVE Challenge: older phones; any faults together, exposure and noise above all."""
    much = float(rng.beta(1.1, 1.5))  # how bad the phone and the light are: faults come together

    def fault(chance: float, low: float, high: float) -> float:
        hit, size = rng.random() < chance, rng.uniform(0.3, 1.3)
        return low + (high - low) * min(1.0, much * size) if hit else 0.0

    return Shot(
        defocus=fault(0.25, 0.5, 3.5),
        motion=fault(0.2, 1.5, 9.0),
        soft=fault(0.35, 0.3, 1.4),
        stops=fault(0.55, 0.2, 2.2) * float(rng.choice((-1, -1, 1))),
        noise=fault(0.5, 0.02, 0.28),
        cast=fault(0.4, 0.05, 0.5) * float(rng.choice((-1, 1))),
        haze=fault(0.2, 0.1, 0.6),
        colour=1 - fault(0.25, 0.1, 0.7),
        sharpening=fault(0.2, 0.5, 3.0),
        quality=int(rng.integers(60, 96)),
    )


def koniq_shot(rng: Rng) -> Shot:
    """KonIQ-10k: what people put on the web: milder faults, much compression, colours of all degrees."""
    much = float(rng.beta(1.0, 1.6))

    def fault(chance: float, low: float, high: float) -> float:
        hit, size = rng.random() < chance, rng.uniform(0.4, 1.4)
        return low + (high - low) * min(1.0, much * size) if hit else 0.0

    return Shot(
        defocus=fault(0.2, 0.4, 2.2),
        motion=fault(0.1, 1.2, 5.0),
        soft=fault(0.4, 0.3, 1.1),
        stops=fault(0.3, 0.1, 1.0) * float(rng.choice((-1, 1))),
        noise=fault(0.25, 0.02, 0.16),
        contrast=float(np.exp(rng.normal(0, 0.12))) * (1 - fault(0.25, 0.05, 0.5)),
        colour=float(np.exp(rng.normal(0, 0.3))) * (1 - fault(0.2, 0.2, 0.9)),
        sharpening=fault(0.25, 0.3, 2.0),
        quality=max(7, round(92 - fault(0.8, 15, 88))),
    )


def spaq_shot(rng: Rng) -> Shot:
    """SPAQ: phones from poor to good, by day and by night: noise, soft lenses, wrong exposure."""
    phone = float(rng.beta(1.2, 1.4))  # how poor the phone is
    night = rng.random() < 0.3

    def fault(chance: float, low: float, high: float) -> float:
        hit, size = rng.random() < chance, rng.uniform(0.4, 1.3)
        return low + (high - low) * min(1.0, phone * size) if hit else 0.0

    return Shot(
        defocus=fault(0.25, 0.4, 3.0),
        motion=fault(0.35 if night else 0.12, 1.0, 8.0),
        soft=fault(0.6, 0.2, 1.3),
        stops=-fault(0.8, 0.4, 2.5) if night else fault(0.25, 0.2, 1.3),
        noise=fault(0.9 if night else 0.3, 0.02, 0.2),
        cast=fault(0.4, 0.05, 0.4) * float(rng.choice((-1, 1))),
        contrast=float(np.exp(rng.normal(0, 0.1))),
        colour=float(np.exp(rng.normal(0, 0.2))),
        sharpening=fault(0.4, 0.3, 2.5),
        quality=int(rng.integers(70, 97)),
    )


SHOTS: dict[str, Callable[[Rng], Shot]] = {
    "bid": bid_shot,
    "clive": clive_shot,
    "koniq10k": koniq_shot,
    "spaq": spaq_shot,
    "flive": koniq_shot,
}
"""How each realistic set is photographed."""
