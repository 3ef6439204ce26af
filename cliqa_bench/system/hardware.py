"""What this machine has, found out without importing PyTorch where that can be."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal

Precision = Literal["fp32", "bf16"]


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> int:
    """Counts the NVIDIA GPUs that this process may use."""
    return len(gpu_names())


def gpu_names() -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES calls the NVIDIA GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    folder = "/dev"
    found = [n for n in os.listdir(folder) if n.startswith("nvidia") and n[6:].isdigit()]  # noqa: PTH208
    return [str(number) for number in range(len(found))]


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the name of the CPU, as well as the system knows it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def memory_bytes() -> int:
    """Returns the size of the main memory, 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


_BFLOAT16 = {"amx_bf16", "avx512_bf16"}
"""Flags of Linux for instructions that multiply bfloat16; those without are slower than with float32."""


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the CPU multiplies bfloat16 numbers itself (AMX or AVX-512); False if nothing says so."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(_BFLOAT16 & set(line.split()) for line in lines if line.startswith("flags"))


def quickest_precision(device: str) -> Precision:
    """Returns what `--precision auto` stands for.

    Args:
        device: As on the command line.

    Returns:
        "bf16" on a GPU and on a CPU that compute in it, where it is twice as fast or more; else "fp32".
    """
    if device == "mps":
        return "fp32"
    if device != "cpu" and visible_gpus():
        import torch

        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if has_bfloat16() else "fp32"
