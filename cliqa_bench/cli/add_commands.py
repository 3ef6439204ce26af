"""The commands `add` and `remove`: one more dataset in a finished model, or one fewer."""

from __future__ import annotations

import math
from pathlib import Path

from jsonargparse import Namespace

from cliqa_bench.cli.data_commands import DATA, INCLUDE, MEGAPIXELS, PROGRESS, Add
from cliqa_bench.cli.model_commands import MODEL, WHICH_RUN
from cliqa_bench.errors import UserError
from cliqa_bench.paths import user_path

FAILED = 3
"""Exit code of a release that does not pass."""

_TABLES = "your own tables (csv:FILE) that the model has learned before, to test on them again"


def add_arguments(add: Add) -> None:
    """Adds the flags of `add`."""
    add("dataset", type=str, metavar="DATASET", help="what to learn: csv:FILE, or a name from 'list'")
    add("--to", type=str, metavar="MODEL", help=MODEL)
    add("--run", type=str, metavar="ID", help=WHICH_RUN)
    add("--out", type=str, metavar="FILE", help="the new model file, .safetensors")
    add("--report", type=str, metavar="DIR", help="folder of the release report (default: beside --out)")
    add(
        "--max-drop", type=float, metavar="D", help="fail if the SRCC on an old test set falls by more than D"
    )
    add("--min-srcc", type=float, metavar="S", help="fail if the SRCC on the new test set is below S")
    add(
        "--max-change",
        type=float,
        metavar="C",
        help="fail if the score of any old test picture changes by more than C",
    )
    add("--data", type=str, metavar="DIR", help=DATA)
    add("--tables", type=str | tuple[str, ...], metavar="TABLES", help=_TABLES)
    add("--include", type=str | tuple[str, ...], metavar="FILES", help=INCLUDE)
    add("--device", type=str, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--threads", type=int, metavar="N", help="training threads; changes last digits of results")
    add("--max-megapixels", type=float, metavar="M", help=MEGAPIXELS)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def add_dataset(args: Namespace, command: str) -> int:
    """Learns one more dataset; the exit code is 3 if the release does not pass."""
    source, out = user_path(args.to or "runs"), _new_file("add", args.out)
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"--out {out} is the model itself; name another file")
    for flag in ("max_drop", "min_srcc", "max_change"):
        value = args[flag]
        if value is not None and not math.isfinite(value):
            raise UserError(f"--{flag.replace('_', '-')} must be a number, not {value}")
    from cliqa_bench.execution.adding.add_task import AddRequest
    from cliqa_bench.execution.adding.add_task import add_dataset as work
    from cliqa_bench.execution.adding.train_task import TrainingRequest
    from cliqa_bench.reports.certificate.verdict import ReleaseLimits
    from cliqa_bench.settings.resolve import words

    training = TrainingRequest(
        args.dataset, args.data, args.device, args.threads, args.max_megapixels, args.include
    )
    request = AddRequest(
        training=training,
        source=source,
        run=args.run,
        out=out,
        report=user_path(args.report) if args.report else None,
        tables=words(args.tables),
        limits=ReleaseLimits(args.max_drop, args.min_srcc, args.max_change),
        command=command,
    )
    certificate = work(request)
    for check in certificate.checks:
        print(f"{'pass' if check.holds else 'FAIL'}: {check.asked}: {check.found}")
    print(f"report: {certificate.page}")
    if certificate.passed:
        print(f"{out}: {out.stat().st_size:,} bytes; use it with score --model, or cliqa_bench.load")
        return 0
    print(f"FAIL: not released as {out}; the model is kept in {request.work}")
    return FAILED


def remove_arguments(add: Add) -> None:
    """Adds the flags of `remove`."""
    add("dataset", type=str, metavar="DATASET", help="which dataset to remove")
    add("--from", type=str, metavar="MODEL", help=MODEL)
    add("--run", type=str, metavar="ID", help=WHICH_RUN)
    add("--out", type=str, metavar="FILE", help="the new model file, .safetensors")


def remove_dataset(args: Namespace, command: str) -> int:
    """Takes a dataset out of a model."""
    out = _new_file("remove", args.out)
    import tempfile

    from cliqa_bench.execution.adding.shrunk import remove_task
    from cliqa_bench.execution.loaded_model import open_learned
    from cliqa_bench.execution.model_file import as_file

    learned = open_learned(user_path(args["from"] or "runs"), args.run)
    with tempfile.TemporaryDirectory(prefix="cliqa-remove-") as folder:
        file = as_file(learned, Path(folder) / "model.safetensors")
        removed = remove_task(file, args.dataset, out)
    print(f"{out}: {out.stat().st_size:,} bytes, SHA-256 {removed.file}")
    if removed.expected:
        same = removed.file == removed.expected
        print(
            f"it has {'the same bytes as' if same else 'different bytes from'} the file to which "
            f"{args.dataset} was added"
        )
    return 0


def _new_file(command: str, out: str | None) -> Path:
    if not out:
        raise UserError(f"{command} needs --out: the new model file, such as new.safetensors")
    path = user_path(out)
    if path.suffix != ".safetensors" or path.is_dir():
        raise UserError(f"--out {path} must be a file that ends in .safetensors")
    return path
