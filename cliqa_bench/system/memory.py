"""Main memory and that of a GPU: how to make the C library return it, and how to tell that it has run out."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

# names and numbers of <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def tune_malloc() -> bool:
    """Tells glibc to keep freed memory for the next allocation.

    By default every large tensor is a mapping of its own, returned to the system when freed; the next one of
    the same size then costs a page fault per 4 KB. On two virtual cores training S-CNN spent up to two thirds
    of its time there. The process keeps what it once needed, which is what its next mini-batch needs too.

    Returns:
        Whether the C library took it; False where it is not glibc, which is no harm.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


_SLACK = 256 << 20
_STATM = Path("/proc/self/statm")

_usual = 0.0
"""Bytes that this process had after the first mini-batch since it gave memory back; 0 before that."""


def trim_memory() -> None:
    """Returns freed memory once more has accumulated than a mini-batch uses; called after each.

    glibc before 2.38 does not find an aligned block again that it has split (its bug 14581), and PyTorch
    takes no others. So free memory may grow by 10 MB with every step of a training, whatever is kept. What a
    process has after a mini-batch when nothing can have gathered is taken as usual; a quarter more, and
    256 MB, is too much. It is usual for the process, not for a training or a dataset: each would start with
    what the one before has left. Does nothing without glibc.
    """
    global _usual
    trim = _trimmer()
    if trim is None:
        return
    now = own_bytes()
    if not _usual:
        _usual = now
    elif now > _usual + max(_SLACK, _usual // 4):
        trim(0)
        _usual = 0.0  # what the next mini-batch takes again is measured after it


@cache
def _trimmer() -> Callable[..., int] | None:
    return _glibc("malloc_trim") if _STATM.exists() else None


def _glibc(name: str) -> Callable[..., int] | None:
    """Returns a function of glibc; None without glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return found


def own_bytes() -> float:
    """Returns the resident memory of this process without that of files, such as decoded images.

    nan where the system does not tell.
    """
    try:
        _, resident, shared, *_ = _STATM.read_text().split()
    except OSError:
        return math.nan
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


_SAID = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # PyTorch's allocator on a CPU
    "not enough memory",  # the same on Windows
    "ALLOC_FAILED",  # cuBLAS, cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an exception says that memory, of the machine or of the GPU, is used up.

    PyTorch has a class for it on a GPU only; on a CPU its allocator raises a plain RuntimeError.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
