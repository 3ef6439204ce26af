"""The command `export`: a finished run as a file or folder of its own."""

from __future__ import annotations

from jsonargparse import Namespace

from cliqa_bench.cli.data_commands import Add
from cliqa_bench.errors import UserError
from cliqa_bench.paths import user_path

WHICH_RUN = "which run, or the beginning of its id (default: the newest)"
_SOURCE = "folder of the results, a model file, or a folder of one (default: runs)"
_TO = "model.safetensors, model.onnx, model.pt2, or a folder as model hubs want it"


def export_arguments(add: Add) -> None:
    """Adds the flags of `export`."""
    add("source", type=str, nargs="?", default="runs", metavar="SOURCE", help=_SOURCE)
    add("--run", type=str, metavar="ID", help=WHICH_RUN)
    add("--to", type=str, metavar="FILE|DIR", help=_TO)


def export(args: Namespace, command: str) -> int:
    """Writes a model file, a graph for other programs, or a folder for a hub."""
    if not args.to:
        raise UserError(f"export needs --to: {_TO}")
    to = user_path(args.to)
    form = "" if to.is_dir() else to.suffix.lower()
    if form not in ("", ".safetensors", ".onnx", ".pt2"):
        raise UserError(f"--to {to} must end in .safetensors, .onnx or .pt2, or name a folder")
    from cliqa_bench.execution import export_model, hub_folder, model_file
    from cliqa_bench.execution.loaded_model import open_learned
    from cliqa_bench.progress import say

    learned = open_learned(user_path(args.source), args.run)
    say(f"exporting {learned.name}")
    if form in (".onnx", ".pt2"):
        write = export_model.export_onnx if form == ".onnx" else export_model.export_program
        worst = write(learned, to)
        print(
            f"{to}: {to.stat().st_size:,} bytes; on pictures of {len(export_model.SIZES)} sizes, scores "
            f"differ from ours by {worst:.1e} at most"
        )
    elif form:
        model_file.write_model(learned, to)
        print(f"{to}: {to.stat().st_size:,} bytes; use it with score --model, or cliqa_bench.load")
    else:
        hub_folder.write_folder(learned, to)
        print(f"{to}: a model file, its configuration and a model card, which you may edit")
    return 0
