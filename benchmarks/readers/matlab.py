"""Reads variables of MATLAB files (version 5 to 7), so that every fault is reported with file and entry."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError, read_all, refuse

MAX_BYTES = 1 << 26
"""Bytes of the largest file that is read, as a file and unpacked; the largest of the authors' has 50 KB."""

MAX_DEPTH = 4
"""How deep cells may be nested; CLIVE's names are two deep."""

# of the format's documentation: byte orders, types of elements, classes of variables, a flag
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_LETTERS = (1, 2, 4, 16, 17)
_CELL, _CHAR, _NUMERIC, _OPAQUE = 1, 4, range(6, 16), 17
_COMPLEX = 0x800

_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
"""Warnings that speak of code, never of the file that is read."""


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Reads variables of a MATLAB file: numbers, text, or cells of such.

    Args:
        path: The file.
        names: The variables.

    Returns:
        One array per name, in their order, shaped as in the file.

    Raises:
        UserError: If the file cannot be read, is of version 4 or 7.3, lacks a variable, or one of them holds
            anything else (structures, objects, sparse or complex matrices) or is not what its header says.
    """
    import scipy.io

    data = _content(path)
    try:
        there = _check_variables(data, names)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # scipy warns of what it could not read
            for category in _OF_CODE:
                warnings.simplefilter("ignore", category)
            source: Any = io.BytesIO(data)  # which scipy accepts, though its types do not say so
            content = scipy.io.loadmat(source, variable_names=list(names))
    except Exception as error:  # ours, and scipy's ValueError, TypeError, MatReadError, zlib.error ...
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is a broken MATLAB file ({said:.200}); download the file again") from error
    for name in names:
        if name not in there or name not in content:
            raise UserError(f"{path} has no variable {name!r}; it has: {', '.join(there) or 'nothing'}")
    return [np.asarray(content[name]) for name in names]


def _content(path: Path) -> bytes:
    """Returns the bytes of a file whose header says that it is of version 5 to 7.

    Version 4 has no signature: any bytes that begin with a zero pass for it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if data.startswith(b"MATLAB 7.3") or data[512:520] == b"\x89HDF\r\n\x1a\n":
        raise UserError(
            f"{path} is a MATLAB 7.3 file; the authors' file has an older format; download it again"
        )
    if not data.startswith(b"MATLAB 5.0") or data[124:128] not in _ORDERS:
        raise UserError(f"{path} is broken, or a MATLAB file of version 4; download the file again")
    if len(data) > MAX_BYTES:
        raise UserError(
            f"{path} has more than {MAX_BYTES >> 20} MB, which no label file has; download it again"
        )
    return data


# -- what the headers in a file say, held against what follows them: scipy believes them, up to a crash -----


def _check_variables(data: bytes, names: Sequence[str]) -> list[str]:
    """Checks the structure of the variables wanted; returns the names of all.

    Raises:
        ValueError: If a header is not true of what follows it.
        zlib.error: If a compressed variable is damaged.
    """
    order = _ORDERS[data[124:128]]
    there = []
    for kind, body in _elements(data[128:], order):
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            whole = unpack.decompress(body, MAX_BYTES)
            if not unpack.eof:
                raise ValueError("a compressed variable is cut off or too large")
            inner = list(_elements(whole, order))
            if len(inner) != 1:
                raise ValueError(f"{len(inner)} variables in the place of one")
            kind, body = inner[0]
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in the place of a variable")
        if not body:  # an empty matrix in a cell may be that short; a variable has at least a name
            raise ValueError("an empty element in the place of a variable")
        name = _check_matrix(body, order, names, depth=0)
        if name in there:
            raise ValueError(f"it has the variable {name} twice")
        there.append(name)
    return there


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Gives type and content of the elements that follow each other in data."""
    at = 0
    while at < len(data):
        word, size = struct.unpack(f"{order}II", data[at : at + 8].ljust(8, b"\0"))
        kind, start = word, at + 8
        if word >> 16:  # up to four bytes in the element's own header
            kind, size, start = word & 0xFFFF, word >> 16, at + 4
        if start + size > len(data) or (start == at + 4 and size > 4) or len(data) - at < 8:
            raise ValueError(f"an element of {size} bytes, of which {max(0, len(data) - start)} are there")
        yield kind, data[start : start + size]
        at = start + size
        if kind != _COMPRESSED:
            at += -at % 8


def _check_matrix(data: bytes, order: str, names: Sequence[str], depth: int) -> str:
    """Checks one variable or cell; of a variable that is not wanted, its name alone. Returns the name."""
    parts = _elements(data, order)
    if depth and not data:  # an empty cell
        return ""
    (flags_kind, flags), (dims_kind, dims), (_, name) = (next(parts, (0, b"")) for _ in range(3))
    word = struct.unpack(f"{order}I", flags[:4].ljust(4, b"\0"))[0]
    called = (dims if word & 0xFF == _OPAQUE else name).decode(
        "latin-1"
    )  # MATLAB's objects have no dimensions
    if depth == 0 and called not in names:
        return called
    if (flags_kind, len(flags), dims_kind) != (6, 8, 5) or len(dims) < 8 or len(dims) % 4:
        raise ValueError("a variable without flags and dimensions")
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    count = math.prod(shape)
    if min(shape) < 0 or count > MAX_BYTES or word & _COMPLEX:
        raise ValueError(f"{called or 'a cell'} has dimensions {shape} or complex numbers")
    contents = list(parts)
    _check_contents(called or "a cell", word & 0xFF, count, contents)
    if word & 0xFF == _CELL:
        if depth == MAX_DEPTH:
            raise ValueError(f"cells are nested more than {MAX_DEPTH} deep")
        for _, cell in contents:
            _check_matrix(cell, order, names, depth + 1)
    return called


def _check_contents(name: str, of: int, count: int, contents: Sequence[tuple[int, bytes]]) -> None:
    kinds = [kind for kind, _ in contents]
    if of == _CELL:
        fits = kinds == [_MATRIX] * count
    elif of == _CHAR:
        fits = len(kinds) == 1 and kinds[0] in _LETTERS and count <= len(contents[0][1]) <= 4 * count
    elif of in _NUMERIC:
        fits = len(kinds) == 1 and len(contents[0][1]) == count * _SIZES.get(kinds[0], -1)
    else:
        raise ValueError(f"{name} is of class {of}: neither numbers nor text nor cells")
    if not fits:
        raise ValueError(f"{name} does not hold the {count} values that its header states")


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
        raise UserError(
            f"{path}: {name} holds {values.dtype} values, expected numbers; download the file again"
        )
    flat = values.ravel().astype(np.float64)
    bad = np.flatnonzero(~((flat >= low) & (flat <= high)))  # nan compares to nothing
    refuse([
        UserError(
            f"{path}: {name} entry {i + 1} ({images[i]}) is {flat[i]:g}, expected a number from {low:g} to "
            f"{high:g}; download the file again"
        )
        for i in map(int, bad)
    ])  # fmt: skip
    return flat


def strings(path: Path, name: str, values: NDArray[Any], length: int) -> list[str]:
    """Turns a cell array of strings, nested to any depth, into a list.

    Raises:
        UserError: If it has another length or cells hold anything but one string; it reports all that do.
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
            raise UserError(
                f"{path}: {name} cell {number} holds no text, expected a file name; download it again"
            )
        return cell.strip()

    return read_all(enumerate(values.ravel(), start=1), text)


def _shape(values: NDArray[Any]) -> str:
    return "x".join(map(str, values.shape))
