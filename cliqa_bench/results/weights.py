"""Weights as safetensors: anything else is refused in one line and never executed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.errors import UserError, run_again
from cliqa_bench.results.nodes import read_verified

if TYPE_CHECKING:
    from torch import Tensor


def write_weights(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file.

    Not by `save_file`: that writes under a name of its own first, which stays when the process is killed.

    Args:
        path: The file, under the temporary name that the caller chose.
        tensors: What it holds, on any device.
        facts: Texts for its header.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(plain, None if facts is None else dict(facts)))


def node_weights(folder: Path, name: str = "state.safetensors") -> dict[str, Tensor]:
    """Returns the weights that a finished node holds, once the file's hash has been checked.

    Args:
        folder: The node's folder.
        name: The file.

    Raises:
        UserError: If the node is not finished, or the file is missing, another one, or no safetensors file.
    """
    return parse_weights(read_verified(folder, name), folder / name, run_again("its folder"))


def parse_weights(data: bytes, path: Path, advice: str) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, on the CPU, by name.

    Sorted, because safetensors 0.8.0 gives tensors loaded from bytes in another order in every process, and
    a sum over all of them would have other last bits.

    Args:
        data: Its content.
        path: The file, for messages.
        advice: What to do where it is something else.

    Raises:
        UserError: If it is not a safetensors file, or its header is not true of what follows.
    """
    from safetensors.torch import load

    _refuse_pickle(data, path, advice)
    try:
        tensors: dict[str, Tensor] = load(data)
    except Exception as error:  # the library raises its own, and KeyError for a type it does not know
        raise _not_safetensors(path, error, advice) from error
    return dict(sorted(tensors.items()))


def read_tensors(path: Path, advice: str, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Returns some tensors of a safetensors file, on the CPU; the others are not read.

    Args:
        path: The file.
        advice: What to do where it is something else.
        wanted: Which tensors, by their names.

    Raises:
        UserError: If it is not a safetensors file.
    """
    from safetensors import safe_open

    with path.open("rb") as file:
        _refuse_pickle(file.read(16), path, advice)
    try:
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
    except Exception as error:
        raise _not_safetensors(path, error, advice) from error


def _refuse_pickle(data: bytes, path: Path, advice: str) -> None:
    if is_pickle(data):
        raise UserError(
            f"{path} is a pickle, which could run any program: it was not read, weights are kept as "
            f"safetensors; {advice}"
        )


def _not_safetensors(path: Path, error: Exception, advice: str) -> UserError:
    said = " ".join(f"{type(error).__name__} {error}".split())
    return UserError(f"{path} is not a safetensors file ({said:.200}); {advice}")


def is_pickle(data: bytes) -> bool:
    """Tells whether bytes begin like a pickle, or like torch's archive of one; runs nothing.

    A safetensors file begins with the length of its header, which may look like that, and with its brace.
    """
    protocol = data[:1] == pickle.PROTO and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return data.startswith(b"PK\x03\x04") or (protocol and data[8:9] != b"{")
