"""Synthetic distortions by name and level: those of LIVE, CSIQ, KADID-10k, TID2013 and DBCNN's pre-training.

Names are `<source>:<type>`, for instance `kadid:jitter` or `live:fastfading`. JPEG and JPEG 2000 are real
codecs. Types follow the authors' descriptions; **strengths are ours**: the miniatures are a quarter as wide
as the real pictures, so every length is given for a picture of 128 x 96 pixels and grows with the picture,
and the five levels run from just visible to severe at that size. Between two levels they are interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliqa_bench.benchmarks.generated import filters, generator_filters, tid_filters
from cliqa_bench.benchmarks.generated.colour import ByteImage, FloatImage
from cliqa_bench.errors import unknown
from cliqa_bench.seeds import Rng

Filter = Callable[[FloatImage, float, float, Rng], FloatImage]
"""(picture (H, W, 3) in 0..1, strength, pixels per unit of length, randomness) -> picture."""


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


KADID: dict[str, Distortion] = {
    "gaussian_blur": Distortion(filters.gaussian_blur, (0.45, 0.75, 1.2, 2.0, 3.4)),
    "lens_blur": Distortion(filters.lens_blur, (0.8, 1.3, 2.0, 3.2, 5.0)),
    "motion_blur": Distortion(filters.motion_blur, (2.0, 3.2, 5.0, 8.0, 13.0)),
    "color_diffusion": Distortion(filters.colour_diffusion, (2.0, 4.5, 9.0, 15.0, 24.0)),
    "color_shift": Distortion(filters.colour_shift, (0.4, 0.9, 1.6, 2.6, 4.0)),
    "color_quantization": Distortion(filters.colour_quantization, (64, 40, 24, 14, 8)),
    "color_saturation_1": Distortion(filters.saturation_hsv, (0.7, 0.45, 0.25, 0.1, 0.0)),
    "color_saturation_2": Distortion(filters.saturation_lab, (1.4, 1.9, 2.7, 4.0, 6.0)),
    "jpeg2000": Distortion(filters.jpeg2000, (4.0, 7.0, 12.0, 24.0, 50.0)),
    "jpeg": Distortion(filters.jpeg, (45, 28, 16, 9, 4)),
    "white_noise": Distortion(filters.white_noise, (0.0008, 0.0018, 0.0035, 0.007, 0.015)),
    "white_noise_color": Distortion(filters.colour_noise, (0.0004, 0.001, 0.0022, 0.005, 0.011)),
    "impulse_noise": Distortion(filters.impulse_noise, (0.003, 0.008, 0.018, 0.04, 0.08)),
    "multiplicative_noise": Distortion(filters.multiplicative_noise, (0.004, 0.009, 0.02, 0.045, 0.1)),
    "denoise": Distortion(filters.denoise, (0.002, 0.006, 0.014, 0.032, 0.07)),
    "brighten": Distortion(filters.brighten, (0.15, 0.35, 0.65, 1.1, 2.0)),
    "darken": Distortion(filters.darken, (0.12, 0.28, 0.55, 0.95, 1.8)),
    "mean_shift": Distortion(filters.mean_shift, (0.03, 0.07, 0.11, 0.17, 0.25)),
    "jitter": Distortion(filters.jitter, (0.3, 0.5, 0.85, 1.4, 2.4)),
    "non_eccentricity_patch": Distortion(filters.patches, (4, 9, 16, 28, 48)),
    "pixelate": Distortion(filters.pixelate, (1.25, 1.6, 2.2, 3.2, 5.0)),
    "quantization": Distortion(filters.quantization, (20, 14, 10, 7, 5)),
    "color_block": Distortion(filters.colour_blocks, (1, 3, 6, 11, 20)),
    "high_sharpen": Distortion(filters.sharpen, (1.0, 2.0, 3.5, 6.0, 11.0)),
    "contrast_change": Distortion(filters.contrast, (0.08, 0.18, 0.3, 0.45, 0.65)),
}
KADID_TYPES: tuple[str, ...] = tuple(f"kadid:{name}" for name in KADID)
"""The 25 types of KADID-10k in the order of the numbers 01 to 25 in its file names."""

LIVE: dict[str, Distortion] = {
    "jp2k": Distortion(filters.jpeg2000, (4.0, 8.0, 15.0, 28.0, 55.0)),
    "jpeg": Distortion(filters.jpeg, (60, 30, 15, 8, 3)),
    "wn": Distortion(filters.white_noise, (0.0006, 0.003, 0.014, 0.06, 0.3)),
    "gblur": Distortion(filters.gaussian_blur, (0.4, 0.8, 1.4, 2.4, 4.5)),
    "fastfading": Distortion(filters.fast_fading, (29.0, 24.5, 21.0, 18.0, 14.5)),
}
CSIQ: dict[str, Distortion] = {
    "awgn": Distortion(filters.white_noise, (0.0005, 0.002, 0.006, 0.02, 0.06)),
    "jpeg": Distortion(filters.jpeg, (55, 30, 15, 8, 3)),
    "jpeg2000": Distortion(filters.jpeg2000, (4.0, 8.0, 16.0, 30.0, 55.0)),
    "fnoise": Distortion(filters.pink_noise, (0.02, 0.04, 0.065, 0.1, 0.155)),
    "blur": Distortion(filters.gaussian_blur, (0.45, 0.8, 1.3, 2.2, 3.8)),
    "contrast": Distortion(filters.contrast_loss, (0.2, 0.4, 0.62, 0.82)),
}
TID2013: dict[str, Distortion] = {
    "gaussian_noise": Distortion(filters.white_noise, (0.0008, 0.002, 0.0045, 0.01, 0.022)),
    "colour_noise": Distortion(filters.colour_noise, (0.0006, 0.0015, 0.0035, 0.008, 0.018)),
    "correlated_noise": Distortion(tid_filters.correlated_noise, (0.02, 0.035, 0.055, 0.085, 0.13)),
    "masked_noise": Distortion(tid_filters.masked_noise, (0.02, 0.035, 0.055, 0.085, 0.13)),
    "high_frequency_noise": Distortion(tid_filters.high_frequency_noise, (0.03, 0.05, 0.08, 0.12, 0.18)),
    "impulse_noise": Distortion(filters.impulse_noise, (0.004, 0.01, 0.022, 0.045, 0.09)),
    "quantization": Distortion(filters.quantization, (20, 14, 10, 7, 5)),
    "gaussian_blur": Distortion(filters.gaussian_blur, (0.45, 0.75, 1.2, 2.0, 3.4)),
    "denoising": Distortion(filters.denoise, (0.003, 0.008, 0.018, 0.036, 0.07)),
    "jpeg": Distortion(filters.jpeg, (45, 28, 16, 9, 4)),
    "jpeg2000": Distortion(filters.jpeg2000, (4.0, 8.0, 15.0, 28.0, 55.0)),
    "jpeg_errors": Distortion(tid_filters.transmission_errors, (1, 2, 4, 8, 14)),
    "jpeg2000_errors": Distortion(filters.fast_fading, (30.0, 26.0, 22.0, 19.0, 16.0)),
    "pattern_noise": Distortion(filters.patches, (4, 9, 16, 28, 48)),
    "blocks": Distortion(filters.colour_blocks, (1, 3, 6, 11, 20)),
    "mean_shift": Distortion(filters.mean_shift, (0.03, 0.07, 0.11, 0.17, 0.25)),
    "contrast": Distortion(filters.contrast, (0.08, 0.18, 0.3, 0.45, 0.65)),
    "saturation": Distortion(filters.saturation_hsv, (0.75, 0.5, 0.3, 0.12, 0.0)),
    "multiplicative_noise": Distortion(filters.multiplicative_noise, (0.004, 0.009, 0.02, 0.045, 0.1)),
    "comfort_noise": Distortion(tid_filters.comfort_noise, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "noisy_jpeg": Distortion(tid_filters.noisy_jpeg, (60, 40, 25, 14, 7)),
    "dither": Distortion(filters.dither_quantization, (64, 32, 16, 8, 4)),
    "chromatic_aberration": Distortion(tid_filters.chromatic_aberration, (0.4, 0.8, 1.4, 2.3, 3.6)),
    "sparse_sampling": Distortion(tid_filters.sparse_sampling, (0.6, 0.4, 0.25, 0.14, 0.07)),
}
TID2013_TYPES: tuple[str, ...] = tuple(f"tid2013:{name}" for name in TID2013)
"""The 24 types of TID2013 in the order of the numbers 01 to 24 in its file names."""

GENERATOR: dict[str, Distortion] = {
    "melt": Distortion(generator_filters.melt, (0.3, 0.9, 1.8, 3.0, 4.5)),
    "smear": Distortion(generator_filters.smear, (0.8, 1.8, 3.5, 8.0, 20.0)),
    "geometry": Distortion(generator_filters.break_geometry, (0.3, 0.7, 1.4, 2.6, 4.5)),
    "scribble": Distortion(generator_filters.scribble, (1, 2, 5, 10, 18)),
    "few_steps": Distortion(generator_filters.stop_early, (0.08, 0.18, 0.35, 0.6, 1.0)),
    "overdone": Distortion(generator_filters.overdo, (0.15, 0.35, 0.7, 1.3, 2.4)),
}
"""What image generators get wrong (AGIQA-3K)."""

# The types and numbers of levels are DBCNN's; lengths and rates are made smaller with the pictures.
PRETRAIN: dict[str, Distortion] = {
    "blur": Distortion(filters.gaussian_blur, (0.6, 1.1, 2.0, 3.6, 6.5)),
    "white_noise": Distortion(filters.white_noise, (0.001, 0.0055, 0.022, 0.09, 0.5)),
    "jpeg": Distortion(filters.jpeg, (43, 20, 10, 5, 1)),
    "jpeg2000": Distortion(filters.jpeg2000, (6.0, 13.0, 25.0, 45.0, 80.0)),
    "contrast": Distortion(filters.contrast_stretch, (0.2, 0.3, 0.4, 0.45, 0.49)),
    "pink_noise": Distortion(filters.pink_noise, (0.03, 0.07, 0.12, 0.2, 0.4)),
    "dither": Distortion(filters.dither_quantization, (64, 32, 16, 8, 4)),
    "overexposure": Distortion(filters.exposure, (0.15, 0.45)),
    "underexposure": Distortion(filters.exposure, (-0.15, -0.45)),
}
PRETRAIN_CLASSES: list[tuple[str, int]] = [
    (f"pretrain:{name}", level)
    for name, distortion in PRETRAIN.items()
    for level in range(1, len(distortion.strengths) + 1)
]
"""The 39 classes (type, level) on which S-CNN is pre-trained: 7 types at 5 levels, both exposures at 2."""

DISTORTIONS: dict[str, Distortion] = {
    f"{source}:{name}": distortion
    for source, table in (
        ("kadid", KADID),
        ("live", LIVE),
        ("csiq", CSIQ),
        ("tid2013", TID2013),
        ("generator", GENERATOR),
        ("pretrain", PRETRAIN),
    )
    for name, distortion in table.items()
}


def distort(image: ByteImage, name: str, level: float, rng: Rng) -> ByteImage:
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
    return filters.to_uint8(
        distortion.apply(filters.to_float(image), distortion.strength(level), filters.unit_of(image), rng)
    )
