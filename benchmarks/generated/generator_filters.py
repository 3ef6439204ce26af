"""What image generators get wrong, as filters with the signature of those in `filters`."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used: most commands make no pictures
from numpy.typing import NDArray

from cliqa_bench.benchmarks.generated import filters
from cliqa_bench.benchmarks.generated.colour import FloatImage, luma
from cliqa_bench.seeds import Rng


def _sample(x: FloatImage, places: NDArray[np.float32]) -> FloatImage:
    """Takes every pixel from its place (2, H, W), between pixels by interpolation."""
    channels = [scipy.ndimage.map_coordinates(x[..., c], places, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, -1)


def _grid(x: FloatImage) -> NDArray[np.float32]:
    return np.mgrid[: x.shape[0], : x.shape[1]].astype(np.float32)


def melt(x: FloatImage, amount: float, unit: float, rng: Rng) -> FloatImage:
    """Shapes bend and run together, and detail is painted over."""
    sigma = 5.0 * unit
    field = scipy.ndimage.gaussian_filter(
        rng.standard_normal((2, *x.shape[:2]), np.float32), (0, sigma, sigma)
    )
    field *= np.float32(amount * 1.6 * unit / field.std())
    bent = _sample(x, _grid(x) + field)
    painted = filters.denoise(bent, 0.0012 * amount**2, unit, rng)
    return filters.saturation_hsv(np.clip(painted, 0, 1), 1 + 0.08 * amount, unit, rng)


def smear(x: FloatImage, length: float, unit: float, _: Rng) -> FloatImage:
    """Detail is missing: every pixel is averaged along the edges near it, as a brush would paint."""
    y = scipy.ndimage.gaussian_filter(luma(x), 1.5 * unit, mode="nearest")
    down, right = np.gradient(y)
    # the structure tensor's minor axis: along an edge, whatever its sign
    a, b, c = (scipy.ndimage.gaussian_filter(v, 2 * unit) for v in (down * down, down * right, right * right))
    angle = 0.5 * np.arctan2(2 * b, a - c)
    along = np.stack([-np.sin(angle), np.cos(angle)]).astype(np.float32)
    steps = np.linspace(-1, 1, 9, dtype=np.float32) * np.float32(length * unit)
    total = sum((_sample(x, _grid(x) + step * along) for step in steps), np.zeros_like(x))
    return np.asarray(total / np.float32(len(steps)), np.float32)


def break_geometry(x: FloatImage, amount: float, unit: float, rng: Rng) -> FloatImage:
    """Parts do not fit: the picture falls into pieces, each a little displaced and turned."""
    count = 14
    size = np.array(x.shape[:2], np.float32)[:, None]
    middles = rng.random((2, count), np.float32) * size
    shifts = rng.standard_normal((2, count), np.float32) * np.float32(amount * unit)
    turns = rng.standard_normal(count, np.float32) * np.float32(0.05 * amount)
    places = _grid(x)
    away = places[:, None] - middles[:, :, None, None]
    piece = np.argmin((away * away).sum(0), axis=0)
    own = np.take_along_axis(away, piece[None, None], axis=1)[:, 0]
    turned = np.stack([own[0] - turns[piece] * own[1], own[1] + turns[piece] * own[0]])
    return _sample(x, middles[:, piece] + turned + shifts[:, piece])


def scribble(x: FloatImage, lines: float, unit: float, rng: Rng) -> FloatImage:
    """Writes lines of signs that look like letters but are not; a part of a line fades it in."""
    out = x.copy()
    stroke = max(1, round(unit))
    for line in range(int(np.ceil(lines))):
        letters = int(rng.integers(5, 11))
        signs = rng.random((5, 4 * letters)) < 0.55
        signs[:, 3::4] = False  # the space between letters
        mask = np.kron(signs, np.ones((stroke, stroke)))[: x.shape[0], : x.shape[1]]
        top = int(rng.integers(x.shape[0] - mask.shape[0] + 1))
        left = int(rng.integers(x.shape[1] - mask.shape[1] + 1))
        area = out[top : top + mask.shape[0], left : left + mask.shape[1]]
        ink = np.float32(0.05 if area.mean() > 0.5 else 0.95)
        cover = (0.9 * min(1.0, lines - line) * mask[..., None]).astype(np.float32)
        area[:] = area * (1 - cover) + ink * cover
    return out


def stop_early(x: FloatImage, share: float, unit: float, rng: Rng) -> FloatImage:
    """Ends with too few steps of denoising: coarse coloured noise stays in a soft picture."""
    coarse = max(2, round(3 * unit))
    shape = (-(-x.shape[0] // coarse) + 1, -(-x.shape[1] // coarse) + 1, 3)
    noise = scipy.ndimage.zoom(rng.standard_normal(shape, np.float32), (coarse, coarse, 1), order=1)
    noise = noise[: x.shape[0], : x.shape[1]] - noise.mean()
    soft = filters.gaussian_blur(x, 2.2 * share, unit, rng)
    return np.asarray(soft + np.float32(0.22 * share) * noise / noise.std(), np.float32)


def overdo(x: FloatImage, amount: float, unit: float, rng: Rng) -> FloatImage:
    """Follows the prompt too closely: contrast, colour and edges are exaggerated until they burn out."""
    mean = np.float32(luma(x).mean())
    strong = np.clip(mean + np.float32(1 + 0.6 * amount) * (x - mean), 0, 1)
    vivid = filters.saturation_hsv(strong, 1 + 0.8 * amount, unit, rng)
    return filters.sharpen(vivid, 1.5 * amount, unit, rng)
