"""The commands that begin with `weights`."""

from __future__ import annotations

import shlex

from jsonargparse import Namespace

from cliqa_bench.cli.data_commands import Add
from cliqa_bench.paths import user_path


def convert_arguments(add: Add) -> None:
    """Adds the flags of `weights convert`."""
    add("file", type=str, metavar="FILE", help="a state dictionary or a TorchScript archive, saved by torch")
    add("to", type=str, nargs="?", metavar="OUT", help="new file (default: FILE with suffix .safetensors)")


def convert(args: Namespace, command: str) -> int:
    """Turns an archive into a safetensors file."""
    from cliqa_bench.models import archives

    file = user_path(args.file)
    to = user_path(args.to) if args.to else file.with_suffix(".safetensors")
    tensors = archives.convert(file, to)
    values = sum(tensor.numel() for tensor in tensors.values())
    print(f"{to}: {len(tensors)} tensors, {values:,} numbers; use it with --weights {shlex.quote(str(to))}")
    return 0
