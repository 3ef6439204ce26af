"""Reads variables of MATLAB files (version 5 to 7), so that every fault is told by file and entry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError, read_all, refuse

MAX_BYTES = 1 << 26
"""Size of the largest file that is read, 64 MB; the largest of the authors' has 50 KB."""


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Reads variables of a MATLAB file.

    Args:
        path: The file.
        names: The variables.

    Returns:
        One array per name, in their order, shaped as in the file.

    Raises:
        UserError: If the file cannot be read, is of version 4 or 7.3, or lacks a variable.
    """
    import scipy.io

    _require_version(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # scipy warns of variables that are there twice or unreadable
            content = scipy.io.loadmat(str(path), appendmat=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # scipy raises ValueError, TypeError, MatReadError, zlib.error ...
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is a broken MATLAB file ({said:.200}); get the file anew") from error
    there = [name for name in content if not name.startswith("__")]
    for name in names:
        if name not in there:
            raise UserError(f"{path} has no variable {name!r}; it has: {', '.join(there) or 'nothing'}")
    return [np.asarray(content[name]) for name in names]


def _require_version(path: Path) -> None:
    """Refuses what the header says is no MATLAB file of version 5 to 7, before anything is parsed.

    Version 4 has no signature: any bytes that begin with a zero pass for it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(520)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if header.startswith(b"MATLAB 7.3") or header[512:520] == b"\x89HDF\r\n\x1a\n":
        raise UserError(f"{path} is a MATLAB 7.3 file; the authors' file is older: get it anew")
    if not header.startswith(b"MATLAB 5.0") or header[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise UserError(f"{path} is a broken MATLAB file or one of version 4; get the file anew")
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size} bytes, a label file at most {MAX_BYTES}; get the file anew")


def vector(
    path: Path, name: str, values: NDArray[Any], images: Sequence[str], low: float, high: float
) -> NDArray[np.float64]:
    """Turns a (1, n) or (n, 1) variable of a MATLAB file into (n,) float64.

    Args:
        path: The file, for messages.
        name: The variable.
        values: Its content.
        images: Of which images it must hold numbers, in their order.
        low: The least that a number may be.
        high: The most.

    Raises:
        UserError: If it has another shape or length, is not real numbers, or any is NaN or out of range; it
            tells of all that are.
    """
    if values.ndim != 2 or 1 not in values.shape or values.size != len(images):
        raise UserError(
            f"{path}: {name} has shape {_shape(values)}, expected 1x{len(images)}; get the authors' file"
        )
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} holds {values.dtype} values, expected numbers; get the file anew")
    flat = values.ravel().astype(np.float64)
    bad = np.flatnonzero(~((flat >= low) & (flat <= high)))  # nan compares to nothing
    refuse([
        UserError(
            f"{path}: {name} entry {i + 1} ({images[i]}) is {flat[i]:g}, expected a number from {low:g} to "
            f"{high:g}; get the file anew"
        )
        for i in map(int, bad)
    ])  # fmt: skip
    return flat


def strings(path: Path, name: str, values: NDArray[Any], length: int) -> list[str]:
    """Turns a cell array of strings, nested to any depth, into a list.

    Raises:
        UserError: If it has another length or cells hold anything but one string; it tells of all that do.
    """
    if values.size != length:
        raise UserError(
            f"{path}: {name} has shape {_shape(values)}, expected {length} cells; it is not the authors' file"
        )

    def text(numbered: tuple[int, object]) -> str:
        number, cell = numbered
        while isinstance(cell, np.ndarray) and cell.size == 1:
            cell = cell.ravel()[0]
        if not isinstance(cell, str) or not cell.strip():
            raise UserError(f"{path}: {name} cell {number} holds no text, expected a file name; get it anew")
        return cell.strip()

    return read_all(enumerate(values.ravel(), start=1), text)


def _shape(values: NDArray[Any]) -> str:
    return "x".join(map(str, values.shape))
