"""Main memory and that of a GPU: how the C library hands it back, and how to know that there is no more."""

from __future__ import annotations

import ctypes
import sys

# names and numbers of <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next allocation.

    By default every large tensor is a mapping of its own, returned to the system when freed; the next one of
    the same size then costs a page fault per 4 KB. On two virtual cores training S-CNN spent up to two thirds
    of its time there. The process keeps what it once needed, which is what its next mini-batch needs too.

    Returns:
        Whether the C library took it; False where it is not glibc, which is no harm.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


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
