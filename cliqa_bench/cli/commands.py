"""What each command takes, and what it does.

A command imports what it works with when it is called, so that help, `list` and misuse answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jsonargparse import ActionYesNo, Namespace

from cliqa_bench.cli import (
    add_commands,
    data_commands,
    leaderboard_commands,
    model_commands,
    weights_commands,
)
from cliqa_bench.cli.data_commands import DATA, INCLUDE, MEGAPIXELS, PROGRESS, SPLIT, THREADS, Add
from cliqa_bench.cli.model_commands import WHICH_RUN
from cliqa_bench.config import SLURM, RunConfig
from cliqa_bench.errors import UserError, unknown
from cliqa_bench.paths import user_path

if TYPE_CHECKING:
    from cliqa_bench.benchmarks._csv import TableDataset

Handler = Callable[[Namespace, str], int]

_ORDERS = (
    "I..VIII, 'all', sequences such as bid,live,kadid10k, 'every', 'sample:24' or 'williams' (of some "
    "datasets: every:live,csiq,bid), parts of datasets (csiq:blur,csiq@1/3), 'distortions:csiq', "
    "'transfer:live,csiq'; put ';' between several (default: I)"
)
_PRESET = "training protocol: 'paper' (default on real data) or 'quick' (default on generated data)"
_SET = "one setting, repeatable: a strategy's (tsn.tau=16) or the protocol's (training.epochs=4)"
_PRECISION = (
    "fp32 (default), bf16, or auto: bf16 on a GPU and on a CPU with AMX or AVX512_BF16; "
    "changes scores slightly"
)
_SRGB = "convert colour profiles of the datasets to sRGB (default: ignore them, as the published code does)"
_TOLERANCE = (
    "largest error allowed in a score, to run fewer of TSN-IQA's heads; scores lie in [-1, 1] (default: 0)"
)
_ASPECTS = (
    "also give quality level, scene and distortion, each with its probability (runs of liqe and liqe_cl)"
)
_COMPARE = "a table of your own, instead of IMAGES: score its pictures and compare with its labels"
_MODEL = "a model file that 'export' wrote, a folder that holds one, or 'box', instead of --runs"
_EXPLAIN = "also show each head's score, and which test pictures are next to each picture on the scale"
_WORST = "also list the N pictures with the lowest scores"
_SCORED_WITH = "folder of the results (default: runs; without it, the model in the box)"
_EXECUTOR = "local (default), slurm, dask, or a Dask scheduler's tcp://HOST:PORT; see docs/clusters.md"
_SLURM = "with --executor slurm: options of sbatch, such as partition=gpu,gpus=1,time=4:00:00,array=16"
_NUMBERS = str | int | tuple[int, ...]
_PAGES = str | int | tuple[int | str, ...]
_SPLITS = (
    "several splits, such as 1-10 or 1,3,5-7, for mean, deviation and median; with --split DIR, those in it"
)
_WORDS = str | tuple[str, ...]
_RUNS = "folder of the results, or a bundle (default: runs)"


class Command(NamedTuple):
    """A command of the command line.

    Attributes:
        summary: What it does, in a few words.
        add_arguments: Adds its flags, given the parser's `add_argument`.
        call: Does it, given the arguments and the whole command line; returns the exit code.
    """

    summary: str
    add_arguments: Callable[[Add], None]
    call: Handler


def _where_and_how(add: Add) -> None:
    """Adds what all runs have in common: data, protocol, machine, output."""
    add("--data", type=str, metavar="DIR", help=DATA)
    add("--include", type=_WORDS, metavar="FILES", help=INCLUDE)
    add("--split", type=str | int, metavar="N|DIR", help=SPLIT)
    add("--splits", type=_PAGES, metavar="NUMBERS", help=_SPLITS)
    add("--preset", type=str, metavar="NAME", help=_PRESET)
    add("--device", type=str, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--precision", type=str, metavar="P", help=_PRECISION)
    add("--srgb", action="store_true", help=_SRGB)
    add("--max-megapixels", type=float, metavar="M", help=MEGAPIXELS)
    add("--jobs", type=int | str, metavar="N", help="processes; changes no result (default: auto)")
    add("--threads", type=int, metavar="N", help=f"{THREADS} (default on a CPU: 1)")
    add("--deterministic", action="store_true", help="the same bits each time even on a GPU; slower there")
    add(
        "--log",
        type=str,
        metavar="NAME",
        help="also log epochs to OUT/logs: tensorboard, csv or wandb (offline)",
    )
    add("--progress", type=str, metavar="HOW", help=PROGRESS)
    add("--executor", type=str, metavar="NAME", help=_EXECUTOR)
    add("--slurm", type=_WORDS, metavar="OPTIONS", help=_SLURM)
    add(
        "--wait",
        action="store_true",
        help="with --executor slurm: wait until all is done, and write the report",
    )
    add("--out", type=str, metavar="DIR", help="folder of the results (default: runs)")
    _report_form(add)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=_SET)


def _report_form(add: Add) -> None:
    """Adds what a report consists of."""
    add("--format", type=_WORDS, metavar="NAMES", help="what to write: csv,md,tex,html (default: all)")
    add("--figures", action=ActionYesNo(no_prefix="no-"), default=True, help="draw the figures (default)")


def _report_formats(args: Namespace) -> list[str]:
    """Returns the formats that were asked for, none for all.

    Raises:
        UserError: If one is unknown.
    """
    from cliqa_bench.reports.formats import check_formats
    from cliqa_bench.settings.resolve import words

    formats = words(args.format)
    check_formats(formats)
    return formats


def _run_arguments(add: Add) -> None:
    add("--config", action="config", metavar="FILE", help="YAML file, flags as keys; given flags override it")
    add("--strategy", type=_WORDS, metavar="NAMES", help="comma-separated names, see 'list'; or 'all'")
    add("--orders", type=_WORDS, metavar="ORDERS", help=_ORDERS)
    add(
        "--test-on",
        type=_WORDS,
        metavar="NAMES",
        help="further datasets to test on with all images: tid2013,spaq",
    )
    add("--backbone", type=str, metavar="NAME", help="see 'list' (default: the preset's)")
    add("--weights", type=str, metavar="FILE", help="the backbone's pre-trained weights, or 'random'")
    add("--seeds", type=_NUMBERS, metavar="SEEDS", help="seeds of the training: 0,1,2 (default: 0)")
    _where_and_how(add)
    # sections of a YAML file; on the command line --set does it
    add("--training", type=dict[str, Any], help=argparse.SUPPRESS)
    add("--params", type=dict[str, dict[str, Any]], help=argparse.SUPPRESS)
    add("--tables", type=tuple[str, ...], help=argparse.SUPPRESS)


def _run(args: Namespace, command: str) -> int:
    from cliqa_bench.extensions import registry
    from cliqa_bench.settings.resolve import resolve, words

    settings = args.as_dict()
    good, broken = registry.importable("strategies", words(settings["strategy"]))
    config = resolve({**settings, "strategy": good} if good else settings)
    formats = _report_formats(args)
    if _is_for_slurm(args, config):
        return _submit([config], args, command, formats, broken)
    from cliqa_bench.execution.run import run

    return run(config, command, broken, formats=formats, figures=args.figures)


def _is_for_slurm(args: Namespace, config: RunConfig) -> bool:
    """Tells whether Slurm does a run; otherwise refuses flags that are for Slurm only."""
    if config.executor == SLURM:
        return True
    for flag in ("slurm", "wait"):
        if args[flag]:
            raise UserError(f"--{flag} goes with --executor slurm, not {config.executor}")
    return False


def _submit(
    configs: Sequence[RunConfig],
    args: Namespace,
    command: str,
    formats: Sequence[str],
    failed: Sequence[str] = (),
) -> int:
    from cliqa_bench.settings.slurm_options import slurm_options

    options = slurm_options(args.slurm)
    from cliqa_bench.execution.slurm_array import SlurmArray

    return SlurmArray(configs, command, failed, formats, args.figures).submit(options, args.wait)


def _paper_arguments(add: Add) -> None:
    fills = "the first fills most tables (default: the preset's)"
    add("--backbones", type=_WORDS, metavar="NAMES", help=fills)
    add("--weights", type=str, metavar="W", help="'random': networks without pre-training, to try things out")
    add("--seeds", type=_NUMBERS, metavar="SEEDS", help="seeds of Table XIII (default: 0,1,2,...)")
    add("--test-on", type=_WORDS, metavar="NAMES", help="test sets of Tables X and XI, or 'none'")
    _where_and_how(add)


def _paper(args: Namespace, command: str) -> int:
    from cliqa_bench.settings.resolve import paper_configs

    configs = paper_configs(args.as_dict())
    formats = _report_formats(args)
    if _is_for_slurm(args, configs[0]):
        return _submit(configs, args, command, formats)
    from cliqa_bench.execution.run import run_all

    return run_all(configs, command, formats=formats, figures=args.figures)


def _plan(args: Namespace, command: str) -> int:
    from cliqa_bench.settings.resolve import resolve

    config = resolve(args.as_dict())
    from cliqa_bench.execution.run import plan

    print(plan(config))
    return 0


def _report_arguments(add: Add) -> None:
    add("--out", type=str, default="runs", metavar="DIR", help="folder of the results (default: runs)")
    _report_form(add)
    add("--published", action="store_true", help="put the paper's values beside ours")
    add("--published-only", action="store_true", help="write only the paper's tables; needs no runs")


def _report(args: Namespace, command: str) -> int:
    from cliqa_bench.reports import report
    from cliqa_bench.reports.formats import FORMATS, TABLE_FORMATS
    from cliqa_bench.settings.resolve import words

    out = user_path(args.out)
    formats = words(args.format)
    if args.published_only:
        made = report.write_published(out, formats or TABLE_FORMATS)
    else:
        made = report.write_report(out, formats or FORMATS, args.figures, args.published)
    print(made.summary)
    return 0


def _status_arguments(add: Add) -> None:
    folder = "folder of the results (default: runs)"
    add("out", type=str, nargs="?", default="runs", metavar="OUT", help=folder)
    add("--watch", action="store_true", help="show it again whenever it changes, until all is done")
    add("--json", action="store_true", help="as JSON, for programs")


def _status(args: Namespace, command: str) -> int:
    from cliqa_bench.execution.status import show

    show(user_path(args.out), args.watch, args.json)
    return 0


def _verify_arguments(add: Add) -> None:
    add("runs", type=str, nargs="?", default="runs", metavar="RUNS", help=_RUNS)
    add("--pack", type=str, metavar="FILE", help="also write a bundle: a zip file to verify elsewhere")


def _verify(args: Namespace, command: str) -> int:
    return leaderboard_commands.verify_and_pack(
        user_path(args.runs), user_path(args.pack) if args.pack else None
    )


def _clean_arguments(add: Add) -> None:
    folder = "folder of the results (default: runs)"
    add("out", type=str, nargs="?", default="runs", metavar="OUT", help=folder)
    add("--yes", action="store_true", help="remove it (default: list it, and remove nothing)")


def _clean(args: Namespace, command: str) -> int:
    from cliqa_bench.execution import clean

    out = user_path(args.out)
    found = clean.remove_unused(out) if args.yes else clean.find_unused(out)
    print(clean.render(found, removed=args.yes))
    return 0


def _score_arguments(add: Add) -> None:
    add("images", type=str, nargs="*", metavar="IMAGES", help="image files, or folders of them")
    add("--compare", type=str, metavar="TABLE", help=_COMPARE)
    add("--runs", type=str, metavar="DIR", help=_SCORED_WITH)
    add("--run", type=str, metavar="ID", help=WHICH_RUN)
    add("--model", type=str, metavar="FILE", help=_MODEL)
    add("--explain", action="store_true", help=_EXPLAIN)
    add("--worst", type=int, metavar="N", help=_WORST)
    add("--aspects", action="store_true", help=_ASPECTS)
    add("--tolerance", type=float, default=0.0, metavar="T", help=_TOLERANCE)
    add("--device", type=str, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--precision", type=str, metavar="P", help=_PRECISION)
    add("--max-megapixels", type=float, metavar="M", help=MEGAPIXELS)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)
    add(
        "--to",
        type=str,
        metavar="FILE",
        help="table to write (.csv or .jsonl), resumed if it exists (default: print to the terminal)",
    )


def _score(args: Namespace, command: str) -> int:
    from cliqa_bench.settings.resolve import chosen_precision, device_name, megapixels

    if bool(args.images) == bool(args.compare):
        what = "either IMAGES or --compare TABLE" if args.images else "IMAGES, or --compare TABLE"
        raise UserError(
            f"score takes {what}; a table names its pictures, and if they are not beside it, say where: "
            "--compare 'my.csv?images=FOLDER'"
        )
    if not 0 <= args.tolerance < 1:
        raise UserError(f"--tolerance must be at least 0 and below 1, not {args.tolerance}")
    if args.model and (args.runs or args.run):
        raise UserError("score takes either --model FILE, or --runs DIR and --run ID")
    if args.worst is not None and args.worst < 1:
        raise UserError(f"--worst must be at least 1, not {args.worst}")
    limit = megapixels(args.max_megapixels)
    precision = chosen_precision(args.precision or "fp32", device_name(args.device))
    from cliqa_bench.execution import score_files, score_table
    from cliqa_bench.execution.compare_labels import Comparison, Labels
    from cliqa_bench.execution.explain_scores import Explainer
    from cliqa_bench.execution.find_pictures import FoundFiles, find_pictures
    from cliqa_bench.execution.learned import facts_of
    from cliqa_bench.execution.run_scale import run_scale
    from cliqa_bench.execution.score_pictures import Scoring
    from cliqa_bench.progress import say, warn
    from cliqa_bench.results.records import AnswerReader
    from cliqa_bench.system.compute import resolve_device

    to = None if args.to is None else user_path(args.to)
    form = ".csv" if to is None else score_table.check_form(to)
    labels = Labels(_own_table(args.compare)) if args.compare else None
    found = FoundFiles(labels.files, {}) if labels else find_pictures([user_path(n) for n in args.images])
    device = resolve_device(device_name(args.device))
    if learned := model_commands.file_to_score_with(args):
        facts, file, scale = learned.facts, learned.digest, learned.reading_scale()
        scorer = learned.scorer(device, args.tolerance, args.aspects)
    else:
        out = user_path(args.runs or "runs")
        record = score_files.choose_run(out, args.run)
        facts, file = facts_of(record), ""
        say(f"scoring with run {record.id}")
        if record.transductive:
            say(f"{record.strategy} adapts only to test sets: pictures are scored by the model as trained")
        scorer = score_files.load_scorer(out, record, device, args.tolerance, args.aspects)
        scale = run_scale(AnswerReader(out), record, facts.readout)
    scoring = Scoring(scorer, facts.protocol.resize, device, precision, limit, scale)
    heads = facts.tasks if scorer.tasks > 1 else []
    lines = score_table.Lines(
        form,
        heads,
        labels.of_file if labels else None,
        scorer.aspects if args.aspects else (),
        scale.columns if scale else (),
    )
    prints = labels.fingerprint if labels else ""
    made = score_files.made_with(
        facts, found.files, device, args.tolerance, precision, limit, prints, args.aspects, file, scale
    )
    people = model_commands.ForPeople(args, Explainer(lines, heads, facts.titles, scale))
    tally = Comparison(labels, facts) if labels else score_files.Tally()
    with score_table.opened(to, lines.header, made, found.files) as table:
        score_files.score_files(scoring, found.files, table, lines, tally, people.seen)
    people.finish()
    for text in filter(None, (found.left_out_text(), *tally.told())):
        say(text)
    if tally.failed:
        warn(tally.summary())
    if isinstance(tally, Comparison):
        # on the terminal, the table uses standard output
        print(tally.text(), file=sys.stderr if to is None else sys.stdout)
        for remark in tally.remarks():
            warn(remark)
    return 1 if tally.failed else 0


def _own_table(text: str) -> TableDataset:
    """Opens a table of the user's: `my.csv?score=z`, with or without `csv:` in front."""
    from cliqa_bench.extensions import registry

    name = registry.check("datasets", text if text.startswith("csv:") else f"csv:{text}")
    cls = cast("type[TableDataset]", registry.load("datasets", name))
    assert cls.home is not None
    return cls(cls.home)


def _list_arguments(add: Add) -> None:
    add("--include", type=str, metavar="FILES", help=INCLUDE)


def _list(args: Namespace, command: str) -> int:
    from cliqa_bench.settings.resolve import include

    include(args.include)
    from cliqa_bench.cli.listing import listing

    print(listing())
    return 0


def _cite_arguments(add: Add) -> None:
    add("out", type=str, nargs="?", metavar="OUT", help="folder of results (default: the suite alone)")


def _cite(args: Namespace, command: str) -> int:
    from cliqa_bench.cli.citing import citing

    print(citing(None if args.out is None else user_path(args.out)))
    return 0


def _test_arguments(add: Add) -> None:
    add("strategy", type=str, metavar="STRATEGY", help="a name from 'list', or a Python file of your own")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a hyper-parameter (tau=16), repeatable",
    )


def _test(args: Namespace, command: str) -> int:
    from cliqa_bench.extensions import registry
    from cliqa_bench.settings.resolve import typed_fields

    name = registry.check("strategies", args.strategy)
    cls = registry.load("strategies", name)
    given = dict(text.removeprefix(f"{name}.").partition("=")[::2] for text in args.set)
    chosen = typed_fields(cls, given, name)
    from cliqa_bench.testing.contract import check_strategy

    try:
        check_strategy(cls, **chosen)
    except AssertionError as error:
        print(f"{name} does not meet the contract of a strategy: {error}")
        return 1
    print(f"{name} meets the contract of a strategy")
    return 0


def _bench_arguments(add: Add) -> None:
    add(
        "--rows",
        type=str,
        metavar="NAMES",
        help="groups, see --list, or 'all' (default: all but those that take long)",
    )
    add("--list", action="store_true", help="show the groups of rows, and measure nothing")
    add("--device", type=str, default="auto", metavar="DEVICE", help="auto, cpu, cuda, ... (default: auto)")
    add(
        "--precision",
        type=str,
        default="auto",
        metavar="P",
        help="precision of scoring: fp32, bf16, auto (default)",
    )
    add("--repeats", type=int, default=5, metavar="N", help="how often each side is measured (default: 5)")
    add("--threads", type=int, metavar="N", help="threads on a CPU (default: one for each core)")
    add("--runs", type=str, metavar="DIR", help="finished runs to take models from, for 'precision'")
    add(
        "--against",
        type=str,
        metavar="PYTHON",
        help="Python of an environment with another version, to compare with",
    )
    add("--scale", type=float, default=1.0, metavar="S", help="size of large generated data (default: 1.0)")
    add("--progress", type=str, metavar="HOW", help=PROGRESS)
    add("--out", type=str, default="bench", metavar="DIR", help="folder of the results (default: bench)")


def _bench(args: Namespace, command: str) -> int:
    from cliqa_bench.bench import bench_rows

    if args.list:
        print(bench_rows.listing())
        return 0
    from cliqa_bench.settings.resolve import words

    groups = bench_rows.chosen_groups(words(args.rows) or (["against"] if args.against else []))
    from cliqa_bench.bench.suite import bench, settled

    with settled(args.as_dict()) as setting:
        return bench(groups, setting, user_path(args.out), command)


def _pretrain_arguments(add: Add) -> None:
    names = "scnn or vit_mini; with --box, scnn or lite0 (default: scnn)"
    add("--backbone", type=str, default="scnn", metavar="NAME", help=names)
    add(
        "--box",
        action="store_true",
        help="instead, train the model in the box, which 'score' uses without runs",
    )
    add(
        "--to",
        type=str,
        metavar="FILE",
        help="file to write the weights to (default: NAME.safetensors; with --box, box.safetensors or "
        "box_lite0.safetensors)",
    )
    add("--device", type=str, default="auto", metavar="DEVICE", help="auto, cpu, cuda, ... (default: auto)")
    add("--seed", type=int, default=0, metavar="N", help="seed of pictures and training (default: 0)")
    add("--steps", type=int, metavar="N", help="optimiser steps (default: what the shipped weights had)")
    add("--precision", type=str, default="fp32", metavar="P", help="fp32, or bf16 autocast (default: fp32)")
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def _pretrain(args: Namespace, command: str) -> int:
    from cliqa_bench.extensions import registry
    from cliqa_bench.models.pretraining_config import SHIPPED_PRETRAINING

    if not args.box and args.backbone not in SHIPPED_PRETRAINING:
        raise unknown("backbone to pre-train", args.backbone, SHIPPED_PRETRAINING)
    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}")
    if args.precision not in ("fp32", "bf16"):
        raise unknown("precision", args.precision, ("fp32", "bf16"))
    if args.box:
        return model_commands.make_box(args, command)
    shipped = SHIPPED_PRETRAINING[args.backbone]
    config = replace(shipped, seed=args.seed, steps=args.steps or shipped.steps, precision=args.precision)
    backbone = registry.load("backbones", args.backbone)
    from cliqa_bench.models.pretraining import pretrain
    from cliqa_bench.system.compute import resolve_device

    to = user_path(args.to or f"{args.backbone}.safetensors")
    accuracy = pretrain(backbone, to, resolve_device(args.device), config, command)
    print(f"{to}: tells distortions apart with an accuracy of {accuracy:.3f}; use it with --weights")
    return 0


COMMANDS: dict[str, Command] = {
    "run": Command("train what is missing, then write tables and figures", _run_arguments, _run),
    "paper": Command("do all runs behind the paper's tables and figures", _paper_arguments, _paper),
    "plan": Command("show what 'run' would train, and start nothing", _run_arguments, _plan),
    "status": Command("show what is done, running, failed and left", _status_arguments, _status),
    "report": Command("write tables and figures from finished runs", _report_arguments, _report),
    "verify": Command("check hashes, and compute every number of a report again", _verify_arguments, _verify),
    "bundle": Command(
        "pack all that the numbers are computed from into one file",
        leaderboard_commands.bundle_arguments,
        leaderboard_commands.bundle,
    ),
    "prove": Command(
        "train randomly drawn nodes of a bundle again, and compare",
        leaderboard_commands.prove_arguments,
        leaderboard_commands.prove,
    ),
    "leaderboard build": Command(
        "build a page from bundles, computing every number again",
        leaderboard_commands.build_arguments,
        leaderboard_commands.build,
    ),
    "clean": Command(
        "list, or remove, what is no longer used in a folder of results", _clean_arguments, _clean
    ),
    "score": Command(
        "score images of your own, with a finished run or the model in the box", _score_arguments, _score
    ),
    "export": Command(
        "write a finished run as a model file, as ONNX or for a hub",
        model_commands.export_arguments,
        model_commands.export,
    ),
    "add": Command(
        "learn one more dataset into a finished model, with a release report",
        add_commands.add_arguments,
        add_commands.add_dataset,
    ),
    "remove": Command(
        "remove a dataset from a model", add_commands.remove_arguments, add_commands.remove_dataset
    ),
    "data make": Command("write the generated miniatures", data_commands.make_arguments, data_commands.make),
    "data check": Command("check datasets file by file", data_commands.check_arguments, data_commands.check),
    "data ratings": Command(
        "print a dataset's ratings as CSV", data_commands.ratings_arguments, data_commands.ratings
    ),
    "data sheet": Command(
        "draw pictures of each dataset, ordered by label", data_commands.sheet_arguments, data_commands.sheet
    ),
    "weights convert": Command(
        "turn an archive of weights into a safetensors file",
        weights_commands.convert_arguments,
        weights_commands.convert,
    ),
    "list": Command("show strategies, datasets, backbones, orders and readouts", _list_arguments, _list),
    "cite": Command("print what to cite for runs, as BibTeX", _cite_arguments, _cite),
    "test": Command("check that a strategy meets the contract of one", _test_arguments, _test),
    "bench": Command("measure speed and memory against what can be reached", _bench_arguments, _bench),
    "pretrain": Command(
        "pre-train a small backbone on generated distortions", _pretrain_arguments, _pretrain
    ),
}
GROUPS = {
    "data": "make, check and print datasets",
    "leaderboard": "build a page from bundles",
    "weights": "convert files of weights",
}
