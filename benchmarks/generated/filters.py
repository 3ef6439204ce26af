"""What is done to a picture: the filters behind the named distortions and the faults of cameras.

All take and give (H, W, 3) float32, sRGB in 0..1, and have one signature: picture, strength, pixels per unit
of length, randomness. Rounding clips what leaves the range. JPEG and JPEG 2000 are real codecs.
"""

from __future__ import annotations

import io

import numpy as np
import scipy  # its parts are imported when they are used: most commands make no pictures
from numpy.typing import NDArray
from PIL import Image as Pil

from cliqa_bench.benchmarks.generated.colour import (
    ByteImage,
    FloatImage,
    from_lab,
    hsv_saturation,
    luma,
    to_lab,
)
from cliqa_bench.seeds import Rng


def to_float(image: ByteImage) -> FloatImage:
    """Returns a uint8 picture as float32 in 0..1."""
    return image.astype(np.float32) / np.float32(255)


def to_uint8(picture: FloatImage) -> ByteImage:
    """Rounds a picture in 0..1 to uint8."""
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def unit_of(image: ByteImage) -> float:
    """Returns the length of one unit in pixels: 1 for 128 x 96, growing with the picture, at least 0.75."""
    return float(max(0.75, np.sqrt(image.shape[0] * image.shape[1] / (128 * 96))))


# ------------------------------------------------------------------ blur


def gaussian_blur(x: FloatImage, sigma: float, unit: float, _: Rng) -> FloatImage:
    """Convolves with a Gaussian of deviation `sigma`."""
    out: FloatImage = scipy.ndimage.gaussian_filter(
        x, (sigma * unit, sigma * unit, 0), mode="nearest", truncate=3
    )
    return out


def convolve(x: FloatImage, kernel: NDArray[np.float64]) -> FloatImage:
    """Convolves every channel with a kernel that sums to one; borders are continued."""
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    out = scipy.signal.fftconvolve(padded, kernel[..., None].astype(np.float32), mode="valid", axes=(0, 1))
    return np.asarray(out, np.float32)


def lens_blur(x: FloatImage, radius: float, unit: float, _: Rng) -> FloatImage:
    """Convolves with an anti-aliased disc: a lens out of focus."""
    radius *= unit
    half = int(np.ceil(radius + 0.5))
    y, z = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(y, z), 0, 1)
    return convolve(x, kernel / kernel.sum())


def motion_blur(x: FloatImage, length: float, unit: float, rng: Rng) -> FloatImage:
    """Convolves with an anti-aliased straight line in a random direction."""
    length *= unit
    angle = rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2 + 1))
    y, z = np.mgrid[-half : half + 1, -half : half + 1]
    along, across = z * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - z * np.sin(angle)
    kernel = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return convolve(x, kernel / kernel.sum())


# ------------------------------------------------------------------ colour


def colour_diffusion(x: FloatImage, sigma: float, unit: float, _: Rng) -> FloatImage:
    """Blurs the two colour channels of CIELAB; lightness stays."""
    lab = to_lab(x)
    lab[..., 1:] = scipy.ndimage.gaussian_filter(
        lab[..., 1:], (sigma * unit, sigma * unit, 0), mode="nearest"
    )
    return from_lab(lab)


def colour_shift(x: FloatImage, pixels: float, unit: float, rng: Rng) -> FloatImage:
    """Moves the green channel in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    offset = (pixels * unit * np.sin(angle), pixels * unit * np.cos(angle))
    out = x.copy()
    out[..., 1] = scipy.ndimage.shift(x[..., 1], offset, order=1, mode="nearest")
    return out


def colour_quantization(x: FloatImage, colours: float, _unit: float, _: Rng) -> FloatImage:
    """Keeps so many colours (median cut), without dither."""
    picture = Pil.fromarray(to_uint8(x)).quantize(
        round(colours), method=Pil.Quantize.MEDIANCUT, dither=Pil.Dither.NONE
    )
    return to_float(np.asarray(picture.convert("RGB")))


def saturation_hsv(x: FloatImage, factor: float, _unit: float, _: Rng) -> FloatImage:
    """Multiplies the saturation of HSV; a negative factor also turns hues into their opposites."""
    return hsv_saturation(x, factor)


def saturation_lab(x: FloatImage, factor: float, _unit: float, _: Rng) -> FloatImage:
    """Multiplies the colour channels of CIELAB."""
    lab = to_lab(x)
    lab[..., 1:] *= np.float32(factor)
    return from_lab(lab)


# ------------------------------------------------------------------ codecs


def jpeg(x: FloatImage, quality: float, _unit: float, _: Rng) -> FloatImage:
    """Compresses with baseline JPEG (4:2:0) at a libjpeg quality."""
    buffer = io.BytesIO()
    Pil.fromarray(to_uint8(x)).save(buffer, "JPEG", quality=max(1, round(quality)))
    return to_float(np.asarray(Pil.open(buffer)))


def _jp2k_stream(x: FloatImage, ratio: float, block: int) -> bytes:
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


def jpeg2000(x: FloatImage, ratio: float, _unit: float, _: Rng) -> FloatImage:
    """Compresses with JPEG 2000 (9/7 wavelet) to one part in `ratio`."""
    return to_float(np.asarray(Pil.open(io.BytesIO(_jp2k_stream(x, ratio, 64))).convert("RGB")))


def fast_fading(x: FloatImage, psnr: float, _unit: float, rng: Rng) -> FloatImage:
    """Sends a JPEG 2000 stream over a channel that flips bits, until its error is about `psnr` dB.

    LIVE simulated a fast-fading Rayleigh channel. Here bits of the code-block data flip, more or fewer by
    what came of the last reception, and the reception whose PSNR is nearest to the wanted one is kept. A
    stream that no longer decodes is received again, as by a receiver with error-resilience tools.
    """
    clean = _jp2k_stream(x, 6.0, 16)
    start = clean.find(b"\xff\x93") + 2  # start of data: headers arrive safely
    best = to_float(np.asarray(Pil.open(io.BytesIO(clean)).convert("RGB")))
    nearest, flips = np.inf, 4.0
    for _ in range(12):
        stream = bytearray(clean)
        # the lowest resolutions come first in the stream and are the best protected
        first = start + int((len(stream) - start) * rng.uniform(0.04, 0.4))
        for place in rng.integers(first, len(stream) - 2, round(flips)):
            stream[place] ^= 1 << int(rng.integers(8))
        try:
            received = to_float(np.asarray(Pil.open(io.BytesIO(bytes(stream))).convert("RGB")))
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


def white_noise(x: FloatImage, variance: float, _unit: float, rng: Rng) -> FloatImage:
    """Adds independent Gaussian noise to R, G and B."""
    return x + rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance))


def colour_noise(x: FloatImage, variance: float, _unit: float, rng: Rng) -> FloatImage:
    """Adds independent Gaussian noise to Y, Cb and Cr (ITU-R BT.601)."""
    noise = rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance))
    y, cb, cr = noise[..., 0], noise[..., 1], noise[..., 2]
    return x + np.stack([y + 1.402 * cr, y - 0.344 * cb - 0.714 * cr, y + 1.772 * cb], -1).astype(np.float32)


def impulse_noise(x: FloatImage, density: float, _unit: float, rng: Rng) -> FloatImage:
    """Sets a share `density` of all samples to black or white."""
    draw = rng.random(x.shape, np.float32)
    return np.where(draw < density / 2, np.float32(0), np.where(draw < density, np.float32(1), x))


def multiplicative_noise(x: FloatImage, variance: float, _unit: float, rng: Rng) -> FloatImage:
    """Multiplies by 1 + Gaussian noise."""
    return x * (1 + rng.standard_normal(x.shape, np.float32) * np.float32(np.sqrt(variance)))


def denoise(x: FloatImage, variance: float, unit: float, rng: Rng) -> FloatImage:
    """Adds white noise and removes it by a Wiener filter (KADID-10k used DnCNN)."""
    noisy = np.clip(white_noise(x, variance, unit, rng), 0, 1)
    mean = scipy.ndimage.uniform_filter(noisy, (5, 5, 1), mode="nearest")
    power = scipy.ndimage.uniform_filter(noisy * noisy, (5, 5, 1), mode="nearest") - mean * mean
    gain = np.clip(1 - np.float32(1.6 * variance) / np.maximum(power, 1e-6), 0, 1)
    out: FloatImage = mean + gain * (noisy - mean)
    return out


def pink_noise(x: FloatImage, deviation: float, _unit: float, rng: Rng) -> FloatImage:
    """Adds Gaussian noise with a 1/f amplitude spectrum, independently to R, G and B."""
    height, width = x.shape[:2]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(x.shape, np.float32), axes=(0, 1)) / radius[..., None]
    noise = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.asarray(x + noise * (deviation / noise.std()), np.float32)


# ------------------------------------------------------------------ light


def brighten(x: FloatImage, strength: float, _unit: float, _: Rng) -> FloatImage:
    """Lifts CIELAB lightness by a curve that keeps black and white."""
    lab = to_lab(x)
    lab[..., 0] = 100 * (lab[..., 0] / 100) ** np.float32(1 / (1 + strength))
    return from_lab(lab)


def darken(x: FloatImage, strength: float, _unit: float, _: Rng) -> FloatImage:
    """Lowers CIELAB lightness by a curve that keeps black and white."""
    lab = to_lab(x)
    lab[..., 0] = 100 * (lab[..., 0] / 100) ** np.float32(1 + strength)
    return from_lab(lab)


def mean_shift(x: FloatImage, amount: float, _unit: float, rng: Rng) -> FloatImage:
    """Adds a constant, up or down, and clips."""
    return x + np.float32(amount * rng.choice((-1.0, 1.0)))


def exposure(x: FloatImage, amount: float, _unit: float, _: Rng) -> FloatImage:
    """Adds a constant of either sign and clips, as DBCNN's over- and under-exposure does."""
    return x + np.float32(amount)


def contrast(x: FloatImage, amount: float, _unit: float, rng: Rng) -> FloatImage:
    """Lowers (towards the mean) or raises (by a steep curve around it) the contrast."""
    mean = np.float32(luma(x).mean())
    if rng.random() < 0.5:
        return mean + np.float32(1 - amount) * (x - mean)
    return mean + np.float32(1 + 3 * amount) * (x - mean)


def contrast_loss(x: FloatImage, amount: float, _unit: float, _: Rng) -> FloatImage:
    """Lowers the contrast towards the mean (CSIQ's global contrast decrements)."""
    mean = np.float32(luma(x).mean())
    return mean + np.float32(1 - amount) * (x - mean)


def contrast_stretch(x: FloatImage, margin: float, _unit: float, _: Rng) -> FloatImage:
    """Maps `margin`..1-`margin` to 0..1 and clips, as MATLAB's imadjust does in DBCNN's generator."""
    return (x - np.float32(margin)) / np.float32(1 - 2 * margin)


def sharpen(x: FloatImage, amount: float, unit: float, _: Rng) -> FloatImage:
    """Adds `amount` times what a small Gaussian blur takes away."""
    clipped: FloatImage = x + np.float32(amount) * (x - gaussian_blur(x, 0.9, unit, _))
    return clipped


# ------------------------------------------------------------------ space


def jitter(x: FloatImage, pixels: float, unit: float, rng: Rng) -> FloatImage:
    """Takes every pixel from a place a random distance away."""
    height, width = x.shape[:2]
    y, z = np.mgrid[:height, :width].astype(np.float32)
    offsets = rng.standard_normal((2, height, width), np.float32) * np.float32(pixels * unit)
    places = np.stack([y + offsets[0], z + offsets[1]])
    return np.stack(
        [scipy.ndimage.map_coordinates(x[..., c], places, order=1, mode="nearest") for c in range(3)], -1
    )


def _corners(rng: Rng, shape: tuple[int, ...], side: int, count: int) -> NDArray[np.int64]:
    return rng.integers((0, 0), (max(1, shape[0] - side), max(1, shape[1] - side)), (count, 2))


def patches(x: FloatImage, count: float, unit: float, rng: Rng) -> FloatImage:
    """Replaces patches by others from nearby (KADID-10k's non-eccentricity patch)."""
    out, side = x.copy(), max(4, round(8 * unit))
    for top, left in _corners(rng, x.shape, side, round(count)):
        shift = rng.integers(-side, side + 1, 2)
        row = int(np.clip(top + shift[0], 0, max(0, x.shape[0] - side)))
        column = int(np.clip(left + shift[1], 0, max(0, x.shape[1] - side)))
        out[top : top + side, left : left + side] = x[row : row + side, column : column + side]
    return out


def colour_blocks(x: FloatImage, count: float, unit: float, rng: Rng) -> FloatImage:
    """Covers random squares by random plain colours."""
    out, side = x.copy(), max(4, round(9 * unit))
    for top, left in _corners(rng, x.shape, side, round(count)):
        out[top : top + side, left : left + side] = rng.random(3)
    return out


def pixelate(x: FloatImage, block: float, unit: float, _: Rng) -> FloatImage:
    """Shrinks by `block` and enlarges again with plain squares."""
    height, width = x.shape[:2]
    size = (max(1, round(width / (block * unit))), max(1, round(height / (block * unit))))
    small = Pil.fromarray(to_uint8(x)).resize(size, Pil.Resampling.BOX)
    return to_float(np.asarray(small.resize((width, height), Pil.Resampling.NEAREST)))


def quantization(x: FloatImage, levels: float, _unit: float, _: Rng) -> FloatImage:
    """Rounds every channel to so many values."""
    steps = np.float32(round(levels) - 1)
    return np.asarray(np.rint(np.clip(x, 0, 1) * steps) / steps, np.float32)


def dither_quantization(x: FloatImage, colours: float, _unit: float, _: Rng) -> FloatImage:
    """Keeps so many colours, with Floyd-Steinberg dither (MATLAB's rgb2ind in DBCNN's generator)."""
    picture = Pil.fromarray(to_uint8(x))
    palette = picture.quantize(round(colours), method=Pil.Quantize.MEDIANCUT)
    dithered = picture.quantize(palette=palette, dither=Pil.Dither.FLOYDSTEINBERG)
    return to_float(np.asarray(dithered.convert("RGB")))
