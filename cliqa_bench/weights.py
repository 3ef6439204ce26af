"""Reads weights (safetensors), so that a file that is something else is told in one line and never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench.errors import UserError
from cliqa_bench.store import whole_file

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "delete its folder and run again"


def node_weights(folder: Path, name: str = "state.safetensors") -> dict[str, Tensor]:
    """Returns the weights that a finished node holds, once the file's hash is seen to be right.

    Args:
        folder: The node's folder.
        name: The file.

    Raises:
        UserError: If the node is not finished, or the file is missing, another one, or no safetensors file.
    """
    return parse_weights(whole_file(folder, name), folder / name, _AGAIN)


def parse_weights(data: bytes, path: Path, advice: str) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, on the CPU.

    Args:
        data: Its content.
        path: The file, for messages.
        advice: What to do where it is something else.

    Raises:
        UserError: If it is no safetensors file, or its header is not true of what follows.
    """
    from safetensors.torch import load

    if is_pickle(data):
        raise UserError(
            f"{path} is a pickle, which could run any program: it was not read, weights are kept as "
            f"safetensors; {advice}"
        )
    try:
        tensors: dict[str, Tensor] = load(data)
    except Exception as error:  # the library raises its own, and KeyError for a type it does not know
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is no safetensors file ({said:.200}); {advice}") from error
    return tensors


def is_pickle(data: bytes) -> bool:
    """Tells whether bytes begin like a pickle, or like torch's archive of one; runs nothing.

    A safetensors file begins with the length of its header, which may look like that, and with its brace.
    """
    protocol = data[:1] == pickle.PROTO and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return data.startswith(b"PK\x03\x04") or (protocol and data[8:9] != b"{")
