"""Synthetic distortions by name and level: those of LIVE, CSIQ, KADID-10k and of DBCNN's pre-training.

Names are `<source>:<type>`, for instance `kadid:jitter` or `live:fastfading`. JPEG and JPEG 2000 are real
codecs. Types follow the authors' descriptions; **strengths are ours**: the miniatures are a quarter as wide
as the real pictures, so every length is given for a picture of 128 x 96 pixels and grows with the picture,
and the five levels run from just visible to severe at that size. Between two levels they are interpolated.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from scipy import ndimage, signal

from cliqa_bench.benchmarks.generated.colour import from_lab, hsv_saturation, luma, to_lab
from cliqa_bench.errors import unknown

Image = NDArray[np.uint8]
Float = NDArray[np.float32]
"""(H, W, 3) float32 in 0..1, sRGB."""
Rng = np.random.Generator
Levels = Sequence[float]
Filter = Callable[[Float, float, float, Rng], Float]
"""(picture, strength, pixels per unit of length, randomness) -> picture."""


@dataclass(frozen=True)
class Distortion:
    """A named distortion.

    Attributes:
        apply: What it does to a picture at a strength.
        strengths: The strength at levels 1 to 5 (fewer where the authors have fewer).
    """

    apply: Filter
    strengths: tuple[float, ...]

    def strength(self, level: float) -> float:
        """Returns the strength at a level, interpolated between whole levels."""
        return float(np.interp(level, np.arange(1, len(self.strengths) + 1), self.strengths))


def _float(image: Image) -> Float:
    return image.astype(np.float32) / np.float32(255)


def to_uint8(picture: Float) -> Image:
    """Rounds a picture in 0..1 to uint8."""
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------ blur


def gaussian_blur(x: Float, sigma: float, unit: float, _: Rng) -> Float:
    """Convolves with a Gaussian of deviation `sigma`."""
    out: Float = ndimage.gaussian_filter(x, (sigma * unit, sigma * unit, 0), mode="nearest", truncate=3)
    return out


def convolve(x: Float, kernel: NDArray[np.float64]) -> Float:
    """Convolves every channel with a kernel that sums to one; borders are continued."""
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    out = signal.fftconvolve(padded, kernel[..., None].astype(np.float32), mode="valid", axes=(0, 1))
    return np.asarray(out, np.float32)


def lens_blur(x: Float, radius: float, unit: float, _: Rng) -> Float:
    """Convolves with an anti-aliased disc: a lens out of focus."""
    radius *= unit
    half = int(np.ceil(radius + 0.5))
    y, z = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(y, z), 0, 1)
    return convolve(x, kernel / kernel.sum())


def motion_blur(x: Float, length: float, unit: float, rng: Rng) -> Float:
    """Convolves with an anti-aliased straight line in a random direction."""
    length *= unit
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2 + 1))
    y, z = np.mgrid[-half : half + 1, -half : half + 1]
    along, across = z * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - z * np.sin(angle)
    kernel = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return convolve(x, kernel / kernel.sum())


# ------------------------------------------------------------------ colour


def colour_diffusion(x: Float, sigma: float, unit: float, _: Rng) -> Float:
    """Blurs the two colour channels of CIELAB; lightness stays."""
    lab = to_lab(x)
    lab[..., 1:] = ndimage.gaussian_filter(lab[..., 1:], (sigma * unit, sigma * unit, 0), mode="nearest")
    return from_lab(lab)


def colour_shift(x: Float, pixels: float, unit: float, rng: Rng) -> Float:
    """Moves the green channel in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    offset = (pixels * unit * np.sin(angle), pixels * unit * np.cos(angle))
    out = x.copy()
    out[..., 1] = ndimage.shift(x[..., 1], offset, order=1, mode="nearest")
    return out


def colour_quantization(x: Float, colours: float, _unit: float, _: Rng) -> Float:
    """Keeps so many colours (median cut), without dither."""
    picture = Pil.fromarray(to_uint8(x)).quantize(
        round(colours), method=Pil.Quantize.MEDIANCUT, dither=Pil.Dither.NONE
    )
    return _float(np.asarray(picture.convert("RGB")))


def saturation_hsv(x: Float, factor: float, _unit: float, _: Rng) -> Float:
    """Multiplies the saturation of HSV; a negative factor also turns hues into their opposites."""
    return hsv_saturation(x, factor)


def saturation_lab(x: Float, factor: float, _unit: float, _: Rng) -> Float:
    """Multiplies the colour channels of CIELAB."""
    lab = to_lab(x)
    lab[..., 1:] *= np.float32(factor)
    return from_lab(lab)


# ------------------------------------------------------------------ codecs


def jpeg(x: Float, quality: float, _unit: float, _: Rng) -> Float:
    """Compresses with baseline JPEG (4:2:0) at a libjpeg quality."""
    buffer = io.BytesIO()
    Pil.fromarray(to_uint8(x)).save(buffer, "JPEG", quality=max(1, round(quality)))
    return _float(np.asarray(Pil.open(buffer)))


def _jp2k_stream(x: Float, ratio: float, block: int) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(to_uint8(x)).save(
        buffer,
        "JPEG2000",
        irreversible=True,
        quality_mode="rates",
        quality_layers=[ratio],
        codeblock_size=(block, block),
    )
    return buffer.getvalue()


def jpeg2000(x: Float, ratio: float, _unit: float, _: Rng) -> Float:
    """Compresses with JPEG 2000 (9/7 wavelet) to one part in `ratio`."""
    return _float(np.asarray(Pil.open(io.BytesIO(_jp2k_stream(x, ratio, 64))).convert("RGB")))


def fast_fading(x: Float, psnr: float, _unit: float, rng: Rng) -> Float:
    """Sends a JPEG 2000 stream over a channel that flips bits, until its error is about `psnr` dB.

    LIVE simulated a fast-fading Rayleigh channel. Here bits of the code-block data flip, more or fewer by
    what came of the last reception, and the reception whose PSNR is nearest to the wanted one is kept. A
    stream that no longer decodes is received again, as by a receiver with error-resilience tools.
    """
    clean = _jp2k_stream(x, 6.0, 16)
    start = clean.find(b"\xff\x93") + 2  # start of data: headers arrive safely
    best = _float(np.asarray(Pil.open(io.BytesIO(clean)).convert("RGB")))
    nearest, flips = np.inf, 4.0
    for _ in range(12):
        stream = bytearray(clean)
        # the lowest resolutions come first in the stream and are the best protected
        first = start + int((len(stream) - start) * rng.uniform(0.04, 0.4))
        for place in rng.integers(first, len(stream) - 2, round(flips)):
            stream[place] ^= 1 << int(rng.integers(8))
        try:
            received = _float(np.asarray(Pil.open(io.BytesIO(bytes(stream))).convert("RGB")))
        except (OSError, SyntaxError, ValueError):
            flips = max(1.0, flips * 0.7)
            continue
        reached = -10 * np.log10(max(float(np.mean(np.square(received - x))), 1e-9))
        if abs(reached - psnr) < nearest and received.shape == x.shape:
            best, nearest = received, abs(reached - psnr)
        if nearest < 1.2:
            break
        flips = float(np.clip(flips * (1.8 if reached > psnr else 0.6), 1, 60))
    return best


# ------------------------------------------------------------------ noise


def white_noise(x: Float, variance: float, _unit: float, rng: Rng) -> Float:
    """Adds independent Gaussian noise to R, G and B."""
    return x + rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance))


def colour_noise(x: Float, variance: float, _unit: float, rng: Rng) -> Float:
    """Adds independent Gaussian noise to Y, Cb and Cr (ITU-R BT.601)."""
    noise = rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance))
    y, cb, cr = noise[..., 0], noise[..., 1], noise[..., 2]
    return x + np.stack([y + 1.402 * cr, y - 0.344 * cb - 0.714 * cr, y + 1.772 * cb], -1).astype(np.float32)


def impulse_noise(x: Float, density: float, _unit: float, rng: Rng) -> Float:
    """Sets a share `density` of all samples to black or white."""
    draw = rng.random(x.shape, np.float32)
    return np.where(draw < density / 2, np.float32(0), np.where(draw < density, np.float32(1), x))


def multiplicative_noise(x: Float, variance: float, _unit: float, rng: Rng) -> Float:
    """Multiplies by 1 + Gaussian noise."""
    return x * (1 + rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance)))


def denoise(x: Float, variance: float, unit: float, rng: Rng) -> Float:
    """Adds white noise and removes it by a Wiener filter (KADID-10k used DnCNN)."""
    noisy = np.clip(white_noise(x, variance, unit, rng), 0, 1)
    mean = ndimage.uniform_filter(noisy, (5, 5, 1), mode="nearest")
    power = ndimage.uniform_filter(noisy * noisy, (5, 5, 1), mode="nearest") - mean * mean
    gain = np.clip(1 - np.float32(1.6 * variance) / np.maximum(power, 1e-6), 0, 1)
    out: Float = mean + gain * (noisy - mean)
    return out


def pink_noise(x: Float, deviation: float, _unit: float, rng: Rng) -> Float:
    """Adds Gaussian noise with a 1/f amplitude spectrum, independently to R, G and B."""
    height, width = x.shape[:2]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(x.shape, np.float32), axes=(0, 1)) / radius[..., None]
    noise = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.asarray(x + noise * (deviation / noise.std()), np.float32)


# ------------------------------------------------------------------ light


def brighten(x: Float, strength: float, _unit: float, _: Rng) -> Float:
    """Lifts CIELAB lightness by a curve that keeps black and white."""
    lab = to_lab(x)
    lab[..., 0] = 100 * (lab[..., 0] / 100) ** np.float32(1 / (1 + strength))
    return from_lab(lab)


def darken(x: Float, strength: float, _unit: float, _: Rng) -> Float:
    """Lowers CIELAB lightness by a curve that keeps black and white."""
    lab = to_lab(x)
    lab[..., 0] = 100 * (lab[..., 0] / 100) ** np.float32(1 + strength)
    return from_lab(lab)


def mean_shift(x: Float, amount: float, _unit: float, rng: Rng) -> Float:
    """Adds a constant, up or down, and clips."""
    return x + np.float32(amount * rng.choice((-1.0, 1.0)))


def exposure(x: Float, amount: float, _unit: float, _: Rng) -> Float:
    """Adds a constant of either sign and clips, as DBCNN's over- and under-exposure does."""
    return x + np.float32(amount)


def contrast(x: Float, amount: float, _unit: float, rng: Rng) -> Float:
    """Lowers (towards the mean) or raises (by a steep curve around it) the contrast."""
    mean = np.float32(luma(x).mean())
    if rng.random() < 0.5:
        return mean + np.float32(1 - amount) * (x - mean)
    return mean + np.float32(1 + 3 * amount) * (x - mean)


def contrast_loss(x: Float, amount: float, _unit: float, _: Rng) -> Float:
    """Lowers the contrast towards the mean (CSIQ's global contrast decrements)."""
    mean = np.float32(luma(x).mean())
    return mean + np.float32(1 - amount) * (x - mean)


def contrast_stretch(x: Float, margin: float, _unit: float, _: Rng) -> Float:
    """Maps `margin`..1-`margin` to 0..1 and clips, as MATLAB's imadjust does in DBCNN's generator."""
    return (x - np.float32(margin)) / np.float32(1 - 2 * margin)


def sharpen(x: Float, amount: float, unit: float, _: Rng) -> Float:
    """Adds `amount` times what a small Gaussian blur takes away."""
    clipped: Float = x + np.float32(amount) * (x - gaussian_blur(x, 0.9, unit, _))
    return clipped


# ------------------------------------------------------------------ space


def jitter(x: Float, pixels: float, unit: float, rng: Rng) -> Float:
    """Takes every pixel from a place a random distance away."""
    height, width = x.shape[:2]
    y, z = np.mgrid[:height, :width].astype(np.float32)
    offsets = rng.standard_normal((2, height, width), np.float32) * np.float32(pixels * unit)
    places = np.stack([y + offsets[0], z + offsets[1]])
    return np.stack(
        [ndimage.map_coordinates(x[..., c], places, order=1, mode="nearest") for c in range(3)], -1
    )


def _corners(rng: Rng, shape: tuple[int, ...], side: int, count: int) -> NDArray[np.int64]:
    return rng.integers((0, 0), (max(1, shape[0] - side), max(1, shape[1] - side)), (count, 2))


def patches(x: Float, count: float, unit: float, rng: Rng) -> Float:
    """Replaces patches by others from nearby (KADID-10k's non-eccentricity patch)."""
    out, side = x.copy(), max(4, round(8 * unit))
    for top, left in _corners(rng, x.shape, side, round(count)):
        shift = rng.integers(-side, side + 1, 2)
        row = int(np.clip(top + shift[0], 0, max(0, x.shape[0] - side)))
        column = int(np.clip(left + shift[1], 0, max(0, x.shape[1] - side)))
        out[top : top + side, left : left + side] = x[row : row + side, column : column + side]
    return out


def colour_blocks(x: Float, count: float, unit: float, rng: Rng) -> Float:
    """Covers random squares by random plain colours."""
    out, side = x.copy(), max(4, round(9 * unit))
    for top, left in _corners(rng, x.shape, side, round(count)):
        out[top : top + side, left : left + side] = rng.random(3)
    return out


def pixelate(x: Float, block: float, unit: float, _: Rng) -> Float:
    """Shrinks by `block` and enlarges again with plain squares."""
    height, width = x.shape[:2]
    size = (max(1, round(width / (block * unit))), max(1, round(height / (block * unit))))
    small = Pil.fromarray(to_uint8(x)).resize(size, Pil.Resampling.BOX)
    return _float(np.asarray(small.resize((width, height), Pil.Resampling.NEAREST)))


def quantization(x: Float, levels: float, _unit: float, _: Rng) -> Float:
    """Rounds every channel to so many values."""
    steps = np.float32(round(levels) - 1)
    return np.asarray(np.rint(np.clip(x, 0, 1) * steps) / steps, np.float32)


def dither_quantization(x: Float, colours: float, _unit: float, _: Rng) -> Float:
    """Keeps so many colours, with Floyd-Steinberg dither (MATLAB's rgb2ind in DBCNN's generator)."""
    picture = Pil.fromarray(to_uint8(x))
    palette = picture.quantize(round(colours), method=Pil.Quantize.MEDIANCUT)
    dithered = picture.quantize(palette=palette, dither=Pil.Dither.FLOYDSTEINBERG)
    return _float(np.asarray(dithered.convert("RGB")))


# ------------------------------------------------------------------ names

KADID: dict[str, Distortion] = {
    "gaussian_blur": Distortion(gaussian_blur, (0.45, 0.75, 1.2, 2.0, 3.4)),
    "lens_blur": Distortion(lens_blur, (0.8, 1.3, 2.0, 3.2, 5.0)),
    "motion_blur": Distortion(motion_blur, (2.0, 3.2, 5.0, 8.0, 13.0)),
    "color_diffusion": Distortion(colour_diffusion, (2.0, 4.5, 9.0, 15.0, 24.0)),
    "color_shift": Distortion(colour_shift, (0.4, 0.9, 1.6, 2.6, 4.0)),
    "color_quantization": Distortion(colour_quantization, (64, 40, 24, 14, 8)),
    "color_saturation_1": Distortion(saturation_hsv, (0.7, 0.45, 0.25, 0.1, 0.0)),
    "color_saturation_2": Distortion(saturation_lab, (1.4, 1.9, 2.7, 4.0, 6.0)),
    "jpeg2000": Distortion(jpeg2000, (4.0, 7.0, 12.0, 24.0, 50.0)),
    "jpeg": Distortion(jpeg, (45, 28, 16, 9, 4)),
    "white_noise": Distortion(white_noise, (0.0008, 0.0018, 0.0035, 0.007, 0.015)),
    "white_noise_color": Distortion(colour_noise, (0.0004, 0.001, 0.0022, 0.005, 0.011)),
    "impulse_noise": Distortion(impulse_noise, (0.003, 0.008, 0.018, 0.04, 0.08)),
    "multiplicative_noise": Distortion(multiplicative_noise, (0.004, 0.009, 0.02, 0.045, 0.1)),
    "denoise": Distortion(denoise, (0.002, 0.006, 0.014, 0.032, 0.07)),
    "brighten": Distortion(brighten, (0.15, 0.35, 0.65, 1.1, 2.0)),
    "darken": Distortion(darken, (0.12, 0.28, 0.55, 0.95, 1.8)),
    "mean_shift": Distortion(mean_shift, (0.03, 0.07, 0.11, 0.17, 0.25)),
    "jitter": Distortion(jitter, (0.3, 0.5, 0.85, 1.4, 2.4)),
    "non_eccentricity_patch": Distortion(patches, (4, 9, 16, 28, 48)),
    "pixelate": Distortion(pixelate, (1.25, 1.6, 2.2, 3.2, 5.0)),
    "quantization": Distortion(quantization, (20, 14, 10, 7, 5)),
    "color_block": Distortion(colour_blocks, (1, 3, 6, 11, 20)),
    "high_sharpen": Distortion(sharpen, (1.0, 2.0, 3.5, 6.0, 11.0)),
    "contrast_change": Distortion(contrast, (0.08, 0.18, 0.3, 0.45, 0.65)),
}
KADID_TYPES: tuple[str, ...] = tuple(f"kadid:{name}" for name in KADID)
"""The 25 types of KADID-10k in the order of the numbers 01 to 25 in its file names."""

LIVE: dict[str, Distortion] = {
    "jp2k": Distortion(jpeg2000, (4.0, 8.0, 15.0, 28.0, 55.0)),
    "jpeg": Distortion(jpeg, (60, 30, 15, 8, 3)),
    "wn": Distortion(white_noise, (0.0006, 0.003, 0.014, 0.06, 0.3)),
    "gblur": Distortion(gaussian_blur, (0.4, 0.8, 1.4, 2.4, 4.5)),
    "fastfading": Distortion(fast_fading, (29.0, 24.5, 21.0, 18.0, 14.5)),
}
CSIQ: dict[str, Distortion] = {
    "awgn": Distortion(white_noise, (0.0005, 0.002, 0.006, 0.02, 0.06)),
    "jpeg": Distortion(jpeg, (55, 30, 15, 8, 3)),
    "jpeg2000": Distortion(jpeg2000, (4.0, 8.0, 16.0, 30.0, 55.0)),
    "fnoise": Distortion(pink_noise, (0.02, 0.04, 0.065, 0.1, 0.155)),
    "blur": Distortion(gaussian_blur, (0.45, 0.8, 1.3, 2.2, 3.8)),
    "contrast": Distortion(contrast_loss, (0.2, 0.4, 0.62, 0.82)),
}
# The types and numbers of levels are DBCNN's; lengths and rates are made smaller with the pictures.
PRETRAIN: dict[str, Distortion] = {
    "blur": Distortion(gaussian_blur, (0.6, 1.1, 2.0, 3.6, 6.5)),
    "white_noise": Distortion(white_noise, (0.001, 0.0055, 0.022, 0.09, 0.5)),
    "jpeg": Distortion(jpeg, (43, 20, 10, 5, 1)),
    "jpeg2000": Distortion(jpeg2000, (6.0, 13.0, 25.0, 45.0, 80.0)),
    "contrast": Distortion(contrast_stretch, (0.2, 0.3, 0.4, 0.45, 0.49)),
    "pink_noise": Distortion(pink_noise, (0.03, 0.07, 0.12, 0.2, 0.4)),
    "dither": Distortion(dither_quantization, (64, 32, 16, 8, 4)),
    "overexposure": Distortion(exposure, (0.15, 0.45)),
    "underexposure": Distortion(exposure, (-0.15, -0.45)),
}
PRETRAIN_CLASSES: list[tuple[str, int]] = [
    (f"pretrain:{name}", level)
    for name, distortion in PRETRAIN.items()
    for level in range(1, len(distortion.strengths) + 1)
]
"""The 39 classes (type, level) on which S-CNN is pre-trained: 7 types at 5 levels, both exposures at 2."""

DISTORTIONS: dict[str, Distortion] = {
    f"{source}:{name}": distortion
    for source, table in (("kadid", KADID), ("live", LIVE), ("csiq", CSIQ), ("pretrain", PRETRAIN))
    for name, distortion in table.items()
}


def unit_of(image: Image) -> float:
    """Returns the length of one unit in pixels: 1 for 128 x 96, growing with the picture, at least 0.75."""
    return float(max(0.75, np.sqrt(image.shape[0] * image.shape[1] / (128 * 96))))


def distort(image: Image, name: str, level: float, rng: Rng) -> Image:
    """Distorts a picture.

    Args:
        image: (H, W, 3) uint8.
        name: A name in `DISTORTIONS`.
        level: 1 (just visible) to 5 (severe); between whole levels the strength is interpolated, outside it
            stays at the nearest.
        rng: Randomness of noises, places and signs.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: If there is no such distortion.
    """
    if name not in DISTORTIONS:
        raise unknown("distortion", name, DISTORTIONS)
    distortion = DISTORTIONS[name]
    return to_uint8(distortion.apply(_float(image), distortion.strength(level), unit_of(image), rng))
