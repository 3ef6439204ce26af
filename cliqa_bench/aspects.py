"""What LIQE predicts for a picture: quality, scene and distortion, in the words of the published code.

The order of the words is that of the published texts and label files; whatever holds a number for each word
(a joint distribution, a marginal, a column of labels) follows it.
"""

from __future__ import annotations

from typing import Literal

Tasks = Literal["qsd", "qs", "qd", "q"]
"""Which aspects a text names: quality, scene, distortion."""

QUALITIES = ("bad", "poor", "fair", "good", "perfect")
"""Grades 1 to 5."""

SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")

DISTORTIONS = (
    "jpeg2000 compression", "jpeg compression", "noise", "blur", "color", "contrast", "overexposure",
    "underexposure", "spatial", "quantization", "other",
)  # fmt: skip

WORDS = {"quality": QUALITIES, "scene": SCENES, "distortion": DISTORTIONS}
"""Aspect -> its words."""

COARSE = {
    "jpeg2000 compression": "jpeg2000 compression",
    "jpeg compression": "jpeg compression",
    "white noise": "noise",
    "gaussian blur": "blur",
    "fastfading": "jpeg2000 compression",
    "fnoise": "noise",
    "contrast": "contrast",
    "lens": "blur",
    "motion": "blur",
    "diffusion": "color",
    "shifting": "blur",
    "color quantization": "quantization",
    "oversaturation": "color",
    "desaturation": "color",
    "white with color": "noise",
    "impulse": "noise",
    "multiplicative": "noise",
    "white noise with denoise": "noise",
    "brighten": "overexposure",
    "darken": "underexposure",
    "shifting the mean": "other",
    "jitter": "spatial",
    "noneccentricity patch": "spatial",
    "pixelate": "spatial",
    "quantization": "quantization",
    "color blocking": "spatial",
    "sharpness": "contrast",
    "realistic blur": "blur",
    "realistic noise": "noise",
    "underexposure": "underexposure",
    "overexposure": "overexposure",
    "realistic contrast change": "contrast",
    "other realistic": "other",
}
"""The word of a label file -> the distortion that it is."""
