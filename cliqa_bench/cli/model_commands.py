"""Models as files: the command `export`, the model in the box, and what `score` explains to people."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from cliqa_bench.cli.data_commands import Add
from cliqa_bench.errors import UserError, unknown
from cliqa_bench.paths import user_path

if TYPE_CHECKING:
    from cliqa_bench.execution.explain_scores import Explainer
    from cliqa_bench.execution.learned import Learned
    from cliqa_bench.execution.model_file import LearnedFile
    from cliqa_bench.execution.score_table import FileRow

WHICH_RUN = "which run, or the beginning of its id (default: the newest)"
MODEL = "folder of the results, a model file, or a folder that holds one (default: runs)"
_TO = "model.safetensors, model.onnx, model.pt2, or a folder as model hubs want it"
_INT8 = "with --to model.onnx: convolutions in 8 bits, quicker; a folder of pictures gives their ranges"


def export_arguments(add: Add) -> None:
    """Adds the flags of `export`."""
    add("source", type=str, nargs="?", default="runs", metavar="SOURCE", help=MODEL)
    add("--run", type=str, metavar="ID", help=WHICH_RUN)
    add("--to", type=str, metavar="FILE|DIR", help=_TO)
    add("--int8", type=str, metavar="PICTURES", help=_INT8)


def export(args: Namespace, command: str) -> int:
    """Writes a model file, a graph for other programs, or a folder for a hub."""
    if not args.to:
        raise UserError(f"export needs --to: {_TO}")
    to = user_path(args.to)
    form = "" if to.is_dir() else to.suffix.lower()
    if form not in ("", ".safetensors", ".onnx", ".pt2"):
        raise UserError(f"--to {to} must end in .safetensors, .onnx or .pt2, or name a folder")
    if args.int8 and form != ".onnx":
        raise UserError(f"--int8 goes with --to model.onnx, not {to}")
    from cliqa_bench.execution import export_model, hub_folder, model_file
    from cliqa_bench.execution.loaded_model import open_learned
    from cliqa_bench.progress import say

    learned = open_learned(user_path(args.source), args.run)
    say(f"exporting {learned.name}")
    if args.int8:
        _export_int8(learned, to, user_path(args.int8))
    elif form in (".onnx", ".pt2"):
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


def _export_int8(learned: Learned, to: Path, pictures: Path) -> None:
    from cliqa_bench.execution.export_int8 import export_int8

    found = export_int8(learned, to, pictures)
    print(
        f"{to}: {to.stat().st_size:,} bytes; on {found.pictures} pictures of {pictures} that gave no ranges, "
        f"SRCC with our scores {found.srcc:.4f}, largest difference {found.largest:.2g}"
    )


def file_to_score_with(args: Namespace) -> LearnedFile | None:
    """Returns the model file that `score` is to use, and says so; None to use a run.

    That is the one that --model names ("box" for the one in the package), and without a word about runs the
    one in the package if there is no folder `runs` here.
    """
    from cliqa_bench.execution.box_model import SAID, open_box
    from cliqa_bench.execution.model_file import LearnedFile, model_path
    from cliqa_bench.progress import say

    asked_for = args.model == "box" and not Path("box").exists()
    if asked_for or not (args.model or args.runs or args.run or user_path("runs").exists()):
        say(SAID)
        return open_box()
    if not args.model:
        return None
    learned = LearnedFile(model_path(user_path(args.model)))
    say(f"scoring with {learned.name}")
    return learned


class ForPeople:
    """What `score` prints for --explain and --worst; on standard error if standard output has the table.

    Args:
        args: The flags of `score`.
        explainer: Explains rows.
    """

    def __init__(self, args: Namespace, explainer: Explainer) -> None:
        from cliqa_bench.execution.explain_scores import Worst

        self._explain = explainer.text if args.explain else None
        self._worst = Worst(args.worst) if args.worst else None
        self._to = sys.stderr if args.to is None else sys.stdout

    def seen(self, row: FileRow) -> None:
        """Takes note of a row of the table."""
        if self._worst:
            self._worst.add(row)
        elif self._explain:
            print(self._explain(row), file=self._to)

    def finish(self) -> None:
        """Prints what is known at the end."""
        if self._worst:
            print(self._worst.text(self._explain), file=self._to)


def make_box(args: Namespace, command: str) -> int:
    """Trains the model that the package ships, or the same on another backbone.

    Raises:
        UserError: If there is no training for the backbone, or its weights are missing.
    """
    from cliqa_bench.models.box_config import BOX_TRAININGS

    if args.backbone not in BOX_TRAININGS:
        raise unknown("backbone of a model in the box", args.backbone, BOX_TRAININGS)
    from cliqa_bench.execution import make_box as making
    from cliqa_bench.extensions import registry
    from cliqa_bench.system.compute import resolve_device

    config = replace(BOX_TRAININGS[args.backbone], seed=args.seed)
    if args.steps is not None:
        config = replace(config, steps=args.steps, own_steps=max(1, args.steps // 10))
    usual = "box.safetensors" if args.backbone == "scnn" else f"box_{args.backbone}.safetensors"
    to = user_path(args.to or usual)
    backbone = registry.load("backbones", args.backbone)
    srcc = making.make_box(to, resolve_device(args.device), config, command, backbone)
    told = ", ".join(f"{value:.3f} ({kind})" for kind, value in srcc.items())
    print(f"{to}: {to.stat().st_size:,} bytes; SRCC with the judged quality of held-out pictures: {told}")
    return 0
