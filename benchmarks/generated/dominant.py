"""What a generated picture shows and what is wrong with it most, in the words of LIQE's label files.

The words come from the same draws as the picture, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cliqa_bench.benchmarks.aspect_labels import MISLABELLED
from cliqa_bench.benchmarks.generated.camera import SHOTS, Shot
from cliqa_bench.benchmarks.generated.distortions import KADID_TYPES
from cliqa_bench.benchmarks.generated.references import photo_scene, scene_word
from cliqa_bench.benchmarks.generated.scenes import Scene, SceneFile
from cliqa_bench.seeds import rng_for

_KADID = (
    "gaussian blur", "lens", "motion", "diffusion", "shifting", "color quantization", "oversaturation",
    "desaturation", "jpeg2000 compression", "jpeg compression", "white noise", "white with color", "impulse",
    "multiplicative", "white noise with denoise", "brighten", "darken", "shifting the mean", "jitter",
    "noneccentricity patch", "pixelate", "quantization", "color blocking", "sharpness", "contrast",
)  # fmt: skip
"""LIQE's words for the types 01 to 25 of KADID-10k."""

FINE: dict[str, str] = {
    **dict(zip(KADID_TYPES, _KADID, strict=True)),
    "live:jp2k": "jpeg2000 compression",
    "live:jpeg": "jpeg compression",
    "live:wn": "white noise",
    "live:gblur": "gaussian blur",
    "live:fastfading": "fastfading",
    "csiq:awgn": "white noise",
    "csiq:jpeg": "jpeg compression",
    "csiq:jpeg2000": "jpeg2000 compression",
    "csiq:fnoise": "fnoise",
    "csiq:blur": "gaussian blur",
    "csiq:contrast": "contrast",
    "tid2013:gaussian_noise": "white noise",
    "tid2013:colour_noise": "white with color",
    "tid2013:correlated_noise": "white noise",
    "tid2013:masked_noise": "white noise",
    "tid2013:high_frequency_noise": "white noise",
    "tid2013:impulse_noise": "impulse",
    "tid2013:quantization": "quantization",
    "tid2013:gaussian_blur": "gaussian blur",
    "tid2013:denoising": "white noise with denoise",
    "tid2013:jpeg": "jpeg compression",
    "tid2013:jpeg2000": "jpeg2000 compression",
    "tid2013:jpeg_errors": "jpeg compression",
    "tid2013:jpeg2000_errors": "fastfading",
    "tid2013:pattern_noise": "noneccentricity patch",
    "tid2013:blocks": "color blocking",
    "tid2013:mean_shift": "shifting the mean",
    "tid2013:contrast": "contrast",
    "tid2013:saturation": "desaturation",
    "tid2013:multiplicative_noise": "multiplicative",
    "tid2013:comfort_noise": "white noise",
    "tid2013:noisy_jpeg": "jpeg compression",
    "tid2013:dither": "color quantization",
    "tid2013:chromatic_aberration": "shifting",
    "tid2013:sparse_sampling": "pixelate",
}
"""Distortion of a miniature -> the word of LIQE's label files for it, or for what looks most like it."""

OTHER = "other realistic"
"""What is none of the others: the faults of image generators, and of photographs compression and colour."""

_LEAST = 0.5
"""Below this share of what is clearly visible, no fault of a shot is called its dominant one."""


def dominant_fault(shot: Shot) -> str:
    """Returns the fault of a photograph that is the most visible, in LIQE's words for real photographs.

    Each fault counts in shares of a strength that is clearly visible in a picture of 128 x 96 pixels.
    """
    blur = max(shot.defocus / 1.5, shot.motion / 3.5, shot.shake / 3.5, shot.soft / 0.9)
    strengths = {
        "realistic blur": blur,
        "realistic noise": shot.noise / 0.09,
        "overexposure": shot.stops / 0.9,
        "underexposure": -shot.stops / 0.9,
        "realistic contrast change": max(abs(shot.contrast - 1) / 0.3, shot.haze / 0.3),
        OTHER: max(
            _LEAST,
            abs(shot.cast) / 0.3,
            abs(shot.colour - 1) / 0.6,
            shot.sharpening / 2,
            (92 - shot.quality) / 50,
        ),
    }
    return max(strengths, key=lambda word: strengths[word])


def _distortion(scene: Scene, picture: SceneFile) -> str:
    if picture.fault != "camera":
        return FINE.get(picture.fault, OTHER)
    # the shot is what the picture's own generator draws first, see `scenes._render`
    return dominant_fault(SHOTS[scene.dataset](rng_for("picture", scene.dataset, scene.seed, picture.path)))


def _shows(scene: Scene) -> str:
    return scene_word(scene.seed) if scene.photo is None else photo_scene(scene.dataset)


def dominant_aspects(scenes: Sequence[Scene]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Gives path, distortion and scene of every picture that is not a plain copy of its reference.

    LIVE's fast fading has the words of the white-noise picture of the same number, on purpose: this is the
    fault of LIQE's published files, and `labels` of the strategies corrects it.
    """
    found = {p.path: (_distortion(s, p), _shows(s)) for s in scenes for p in s.pictures if p.fault}
    wrong, right = MISLABELLED
    for path, words in found.items():
        of_noise = found.get(right + path.removeprefix(wrong)) if path.startswith(wrong) else None
        yield path, of_noise or words
