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
    """Returns the versions that numbers can depend on."""
    found = {"cliqa_bench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    for extra in ("timm", "open_clip_torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[extra] = importlib.metadata.version(extra)
    return found
