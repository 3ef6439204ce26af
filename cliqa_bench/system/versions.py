"""Versions of what is installed here."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

from cliqa_bench._version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "avalanche-lib",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Returns the versions that numbers can depend on; what is not installed is left out.

    Extras may be missing, and where results are only read so may PyTorch.
    """
    found = {"cliqa_bench": __version__, "python": platform.python_version()}
    for package in (*PACKAGES, "timm", "open_clip_torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
