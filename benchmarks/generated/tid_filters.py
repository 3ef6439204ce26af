"""Filters that TID2013 needs beyond those of `filters`; same signature."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used: most commands make no pictures

from cliqa_bench.benchmarks.generated import filters
from cliqa_bench.benchmarks.generated.colour import FloatImage, luma
from cliqa_bench.seeds import Rng


def _noise(x: FloatImage, rng: Rng) -> FloatImage:
    return rng.standard_normal(x.shape, np.float32)


def correlated_noise(x: FloatImage, deviation: float, unit: float, rng: Rng) -> FloatImage:
    """Adds Gaussian noise that neighbouring pixels share."""
    sigma = 1.1 * unit
    noise = scipy.ndimage.gaussian_filter(_noise(x, rng), (sigma, sigma, 0), mode="wrap")
    return x + np.asarray(noise / noise.std() * deviation, np.float32)


def masked_noise(x: FloatImage, deviation: float, unit: float, rng: Rng) -> FloatImage:
    """Adds Gaussian noise where the picture is busy, which hides it in part."""
    y = luma(x)
    busy = scipy.ndimage.gaussian_filter(scipy.ndimage.gaussian_gradient_magnitude(y, unit), 2 * unit)
    return x + _noise(x, rng) * np.asarray(deviation * busy / (busy.mean() + 1e-6), np.float32)[..., None]


def high_frequency_noise(x: FloatImage, deviation: float, unit: float, rng: Rng) -> FloatImage:
    """Adds Gaussian noise without its low frequencies."""
    noise = _noise(x, rng)
    noise -= scipy.ndimage.gaussian_filter(noise, (unit, unit, 0), mode="wrap")
    return x + np.asarray(noise / noise.std() * deviation, np.float32)


def noisy_jpeg(x: FloatImage, quality: float, unit: float, rng: Rng) -> FloatImage:
    """Compresses a noisy picture."""
    return filters.jpeg(np.clip(filters.white_noise(x, 0.002, unit, rng), 0, 1), quality, unit, rng)


def transmission_errors(x: FloatImage, errors: float, unit: float, rng: Rng) -> FloatImage:
    """Loses the place in a JPEG stream: from an error to the end of its row blocks are shifted and tinted."""
    out = filters.jpeg(x, 60, unit, rng)
    side = 8
    rows, columns = max(1, x.shape[0] // side), max(1, x.shape[1] // side)
    for _ in range(round(errors)):
        row, column = int(rng.integers(rows)), int(rng.integers(columns))
        band = out[row * side : (row + 1) * side, column * side :]
        tint = rng.normal(0, 0.12, 3).astype(np.float32)
        band[:] = np.roll(band, side * int(rng.integers(1, 4)), axis=1) + tint
    return out


def comfort_noise(x: FloatImage, deviation: float, unit: float, rng: Rng) -> FloatImage:
    """Replaces fine detail by noise of the same strength, as a decoder does."""
    smooth = scipy.ndimage.gaussian_filter(x, (unit, unit, 0), mode="nearest")
    detail = np.abs(x - smooth).mean(-1, keepdims=True)
    share = min(1.0, deviation)
    made = _noise(x, rng) * scipy.ndimage.gaussian_filter(detail, (2 * unit, 2 * unit, 0)) * np.float32(1.25)
    return np.asarray(smooth + (1 - share) * (x - smooth) + share * made, np.float32)


def chromatic_aberration(x: FloatImage, pixels: float, unit: float, rng: Rng) -> FloatImage:
    """Blurs a little, and shifts red and blue against green."""
    moved = x.copy()
    for channel, sign in ((0, 1), (2, -1)):
        moved[..., channel] = scipy.ndimage.shift(
            x[..., channel], (0.3 * pixels * unit, sign * pixels * unit), order=1, mode="nearest"
        )
    return filters.gaussian_blur(moved, 0.25 * pixels, unit, rng)


def sparse_sampling(x: FloatImage, share: float, unit: float, rng: Rng) -> FloatImage:
    """Keeps a random share of the pixels and fills in the others from their neighbours."""
    kept = (rng.random(x.shape[:2], np.float32) < share).astype(np.float32)[..., None]
    sigma = 0.45 / np.sqrt(share)
    weight = scipy.ndimage.gaussian_filter(kept, (sigma, sigma, 0), mode="nearest")
    filled = scipy.ndimage.gaussian_filter(x * kept, (sigma, sigma, 0), mode="nearest") / np.maximum(
        weight, 1e-4
    )
    return np.asarray(kept * x + (1 - kept) * filled, np.float32)
