"""Other people's files of weights, converted to safetensors once, by a separate command and never in a run.

torch's archives hold a pickle, which could run any program. A state dictionary is therefore read with
`weights_only=True`, which builds tensors and plain values alone. A TorchScript archive also holds code: only
the tensors in it are read, by a reader that knows nothing else, and its code is left where it is.
"""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cliqa_bench.errors import UserError
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.results.weights import write_weights

WRAPPERS = ("model_state_dict", "state_dict", "model", "net", "params")
"""Under which names a dictionary of a training holds the weights."""

MOST_GROWTH = 4
"""How many times its size an archive may unpack to; weights hardly compress."""

_DATA_PARALLEL = "module."

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def convert(path: Path, to: Path) -> dict[str, Tensor]:
    """Writes the tensors of an archive of torch's to a safetensors file, and returns them.

    Args:
        path: A state dictionary, bare or in a dictionary of a training, or a TorchScript archive.
        to: The new file; its folder is there.

    Raises:
        UserError: If the archive is something else, is broken or holds no tensors; if `to` exists already.
    """
    if to.exists():
        raise UserError(f"{to} already exists; give another output file: weights convert {path} OUT")
    tensors = read_archive(path)
    with atomic_path(to) as temporary:
        write_weights(temporary, {name: tensor.clone() for name, tensor in tensors.items()})
    return tensors


def _plain(found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Returns tensors without the prefix that several GPUs leave.

    Raises:
        UserError: If one is of a kind that safetensors does not hold, or claims more numbers than it has.
    """
    for name, tensor in found.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.dtype not in _DTYPES.values():
            raise UserError(
                f"{path}: {name} is not a plain tensor of numbers ({tensor.dtype}, {tensor.layout})"
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} claims {tensor.numel():,} numbers, which are not in the file")
    if all(name.startswith(_DATA_PARALLEL) for name in found):
        return {name.removeprefix(_DATA_PARALLEL): tensor for name, tensor in found.items()}
    return dict(found)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a state dictionary or a TorchScript archive, by name; runs nothing of it.

    Raises:
        UserError: If it is something else, or broken.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is not an archive written by torch 1.6 or later, the only kind that can be converted; "
            "it was not read"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(archive, path)
            scripted = any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())
            found = _scripted(archive) if scripted else _state(path)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # zipfile, torch and pickle raise many kinds of errors for what is broken or refused
        reason = shorten(_reason(error), 200)
        raise UserError(f"{path} does not hold tensors and plain values alone: {reason}") from error
    if not found:
        raise UserError(f"{path} holds no weights: no dictionary from names to tensors, no modules")
    return _plain(found, path)


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuses an archive that grows when it is unpacked: torch compresses nothing.

    Raises:
        UserError: If it does.
    """
    unpacked, packed = sum(part.file_size for part in archive.infolist()), path.stat().st_size
    if unpacked > MOST_GROWTH * packed:
        raise UserError(
            f"{path} has {packed:,} bytes and would unpack to {unpacked:,}; torch writes no such archive; it "
            "was not read"
        )


def _reason(error: Exception) -> str:
    """Returns what torch refused, without its advice to read the file anyway."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition("WeightsUnpickler error: ")[2].partition(". Please use")[0] or text


# -- state dictionaries --------------------------------------------------------------------------------------


def _state(path: Path) -> dict[str, Tensor]:
    with _numbers_of_numpy():
        whole = torch.load(path, map_location="cpu", weights_only=True)
    inner = [whole[name] for name in WRAPPERS if isinstance(whole, Mapping) and name in whole]
    for candidate in (*inner, whole):  # what is beside the weights may be tensors, too
        if isinstance(candidate, Mapping):
            tensors = {n: t.detach() for n, t in candidate.items() if isinstance(t, Tensor)}
            if tensors and all(isinstance(name, str) for name in tensors):
                return tensors
    return {}


@contextlib.contextmanager
def _numbers_of_numpy() -> Iterator[None]:
    """Lets torch read numpy's numbers and arrays: the results that a training keeps with its weights."""
    import _codecs

    core: Any = np.core if np.__version__.startswith("1.") else np._core  # type: ignore[attr-defined]
    allowed: list[Any] = [np.ndarray, np.dtype, _codecs.encode]
    allowed += {type(np.dtype(code)) for code in ("f8", "f4", "f2", "i8", "i4", "u1", "?")}
    for name in ("scalar", "_reconstruct"):
        function = getattr(core.multiarray, name)
        allowed += [_called(function, f"numpy.{room}.multiarray", name) for room in ("core", "_core")]
    context = getattr(torch.serialization, "safe_globals", None)  # PyTorch has it from 2.5 on
    with context(allowed) if context else contextlib.nullcontext():
        yield


def _called(function: Callable[..., Any], module: str, name: str) -> Callable[..., Any]:
    """Returns a function under a name of numpy 1's or numpy 2's, whichever of them wrote the file."""

    def named(*args: Any) -> Any:
        return function(*args)

    named.__module__, named.__qualname__, named.__name__ = module, name, name
    return named


# -- TorchScript ---------------------------------------------------------------------------------------------


class _Module:
    """A stand-in for a module of a TorchScript archive: its attributes, but no code."""

    parts: Mapping[str, Any] = {}

    def __setstate__(self, parts: Any) -> None:
        self.parts = parts if isinstance(parts, dict) else {}


class _Storage(NamedTuple):
    """The numbers of one or several tensors, one after the other."""

    values: Tensor


class _Reader(pickle.Unpickler):
    """Reads the pickle of a TorchScript archive: tensors, plain values and modules; refuses all else.

    Args:
        archive: The archive.
        root: The folder in it that holds everything.
    """

    def __init__(self, archive: zipfile.ZipFile, root: PurePosixPath) -> None:
        super().__init__(io.BytesIO(archive.read(str(root / "data.pkl"))))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name in the pickle stands for; it is imported for none.

        Raises:
            UnpicklingError: If it stands for nothing that holds weights.
        """
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_")):
            return _as_it_is
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns a storage, which is beside the pickle."""
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for {kind}")
        content = self._archive.read(str(self._root / "data" / key))
        if len(content) != size * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(content)} bytes")
        return _Storage(
            torch.frombuffer(bytearray(content), dtype=dtype) if size else torch.empty(0, dtype=dtype)
        )


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Returns a tensor of a storage; torch checks that it fits inside."""
    return storage.values.as_strided(size, stride, offset)


def _as_it_is(value: Any, *_: Any) -> Any:
    """Stands for functions that only say of which type a list is."""
    return value


def _scripted(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """Returns the tensors of a TorchScript archive's modules, as `state_dict` names them."""
    (pickled,) = (PurePosixPath(n) for n in archive.namelist() if PurePosixPath(n).name == "data.pkl")
    root = pickled.parent
    order = str(root / "byteorder")
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("its numbers are big-endian")
    return dict(_tensors_in(_Reader(archive, root).load(), ""))


def _tensors_in(part: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, _Module):
        for attribute, value in part.parts.items():
            yield from _tensors_in(value, f"{name}.{attribute}" if name else attribute)
