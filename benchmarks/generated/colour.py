"""Colour spaces for the distortions: CIELAB (D65), HSV saturation, luma. sRGB pictures (..., 3) in 0..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ByteImage = NDArray[np.uint8]
FloatImage = NDArray[np.float32]

_RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    np.float32,
)
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ).astype(np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)
_KNEE, _SLOPE = 0.008856, 7.787  # CIE 1976: where the cube root gives way to a line


def luma(x: FloatImage) -> FloatImage:
    """Returns ITU-R BT.601 luma (...,), 0..1."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    y: FloatImage = x @ weights
    return y


def to_lab(x: FloatImage) -> FloatImage:
    """Converts sRGB (..., 3) in 0..1 to CIELAB: L 0..100, a and b about -128..127."""
    x = np.clip(x, 0, 1)
    linear = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92).astype(np.float32)
    t = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(t > _KNEE, np.cbrt(t), _SLOPE * t + 16 / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    return np.asarray(lab, np.float32)


def from_lab(lab: FloatImage) -> FloatImage:
    """Converts CIELAB (..., 3) to sRGB, clipped to 0..1."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    t = np.where(f > np.cbrt(_KNEE), f**3, (f - 16 / 116) / _SLOPE) * _WHITE
    linear = np.clip(t @ _XYZ_TO_RGB.T, 0, 1)
    x = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.asarray(x, np.float32)


def hsv_saturation(x: FloatImage, factor: float) -> FloatImage:
    """Multiplies HSV saturation, at constant value; saturations above 1 are clipped.

    A colour is value * (1 - saturation * share) with a share of 0..1 that only the hue decides, so the
    conversion to HSV and back is not needed.
    """
    value = x.max(-1, keepdims=True)
    depth = value - x
    limit = value / np.maximum(depth.max(-1, keepdims=True), 1e-6)  # factor at which saturation reaches 1
    scaled: FloatImage = value - depth * np.minimum(np.float32(factor), limit)
    return np.clip(scaled, 0, 1).astype(np.float32)
