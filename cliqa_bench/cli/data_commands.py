"""The commands that begin with `data`: what each takes, and what it does."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cliqa_bench.paths import user_path
from cliqa_bench.progress import say

Add = Callable[..., Any]

DATA = "folder of the datasets in their authors' layouts (default: $CLIQA_DATA, else generated miniatures)"
SPLIT = "number of a seeded split, folder of published split files, or 'official' (default: 1)"
MEGAPIXELS = "refuse images of more than M million pixels (default: 64)"
INCLUDE = "Python files with strategies, datasets or backbones of your own"
THREADS = "threads per process; changes last digits of results"
PROGRESS = "auto (a bar on a terminal, else lines: the default), plain (lines), json (events) or none"


def make_arguments(add: Add) -> None:
    """Adds the flags of `data make`."""
    add("dir", type=str, metavar="DIR", help="folder to write the datasets' folders to")
    add(
        "--scale",
        type=float,
        default=1.0,
        metavar="S",
        help="number of pictures relative to the default (1.0)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed gives the same bytes on one machine (default: 0)",
    )
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def make(args: Namespace, command: str) -> int:
    """Writes the generated miniatures."""
    from cliqa_bench.benchmarks.generated.make import make_miniatures

    root = user_path(args.dir)
    make_miniatures(root, args.scale, args.seed)
    print(f"generated miniatures are in {root}; use them with --data {shlex.quote(str(root))}")
    return 0


def check_arguments(add: Add) -> None:
    """Adds the flags of `data check`."""
    add("dir", type=str, nargs="?", metavar="DIR", help=f"{DATA}; or a table of your own: csv:FILE")
    add(
        "--datasets",
        type=str,
        metavar="NAMES",
        help="only these, comma-separated (default: the six, and others found)",
    )
    add("--split", type=str, default="1", metavar="N|DIR", help=SPLIT)
    add("--include", type=str, metavar="FILES", help=INCLUDE)
    add("--max-megapixels", type=float, metavar="M", help=MEGAPIXELS)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def check(args: Namespace, command: str) -> int:
    """Checks datasets file by file; 2 if something is wrong."""
    from cliqa_bench.extensions import registry
    from cliqa_bench.settings.resolve import include, megapixels, words

    include(args.include)
    limit = megapixels(args.max_megapixels)
    chosen = [registry.check("datasets", name) for name in words(args.datasets)]
    from cliqa_bench.benchmarks.check import check_data
    from cliqa_bench.benchmarks.labelled import without_home
    from cliqa_bench.benchmarks.suites import dataset_class

    if registry.in_family("datasets", args.dir or ""):
        chosen.append(registry.check("datasets", args.dir))
        args.dir = None
    elif args.dir and user_path(args.dir).is_file():
        registry.check("datasets", args.dir)  # refuses it, and shows how a table is written
    # a user's table says where its pictures are
    home = dataset_class(chosen[0]).home if chosen and not without_home(chosen) else None
    root = home or _data(args.dir)

    report = check_data(root, chosen or None, args.split, limit)
    print(report.render())
    return 0 if report.ok else 2


def ratings_arguments(add: Add) -> None:
    """Adds the flags of `data ratings`."""
    add("name", type=str, metavar="NAME", help="a dataset (see 'list'), or a table of your own: csv:FILE")
    add("--data", type=str, metavar="DIR", help=DATA)
    add("--split", type=str, metavar="N|DIR", help="also fill the column 'subset': " + SPLIT.split(" (")[0])
    add("--to", type=str, metavar="FILE", help="write NAME.csv, and NAME.croissant.json, instead of printing")
    add("--include", type=str, metavar="FILES", help=INCLUDE)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def ratings(args: Namespace, command: str) -> int:
    """Prints a dataset's ratings as CSV, or writes them with Croissant metadata."""
    from cliqa_bench.extensions import registry
    from cliqa_bench.settings.resolve import include

    include(args.include)
    name = registry.check("datasets", args.name)
    from cliqa_bench.benchmarks.describe_ratings import write_ratings
    from cliqa_bench.benchmarks.parts import in_part, split_of
    from cliqa_bench.benchmarks.splits import ratings_csv
    from cliqa_bench.benchmarks.suites import find_datasets

    dataset = find_datasets(_data(args.data, [name]), [name])[name]
    dataset.may_lack_scores = not dataset.labelled
    ratings = dataset.ratings()
    split = split_of(args.split, dataset, ratings) if args.split else None
    ratings = in_part(dataset, ratings, split)
    for note in filter(None, [*dataset.notes(), split.note if split else ""]):
        say(f"{dataset.title}: {note}")
    if args.to is None:
        print(ratings_csv(dataset, ratings, split), end="")
    else:
        print(*write_ratings(user_path(args.to), dataset, ratings, split), sep="\n")
    return 0


def sheet_arguments(add: Add) -> None:
    """Adds the flags of `data sheet`."""
    add("dir", type=str, nargs="?", metavar="DIR", help=DATA)
    add("--out", type=str, default="sheets", metavar="DIR", help="folder of the sheets (default: sheets)")
    add("--include", type=str, metavar="FILES", help=INCLUDE)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def sheet(args: Namespace, command: str) -> int:
    """Draws contact sheets."""
    from cliqa_bench.settings.resolve import include

    include(args.include)
    from cliqa_bench.benchmarks.generated.contact import contact_sheet

    out = user_path(args.out)
    for path, dataset in contact_sheet(_data(args.dir), out).items():
        kind = "real data" if dataset.generated is None else "a generated miniature"
        print(f"{path}: {dataset.title}, {kind}")
    return 0


def _data(given: str | None, names: list[str] | None = None) -> Path:
    """Returns the folder of the real datasets, or that of the miniatures, made if need be (all, or some)."""
    from cliqa_bench.settings.resolve import data_root

    root = data_root(given)
    if root is None:
        from cliqa_bench.benchmarks.labelled import miniatures, without_home

        root = miniatures(None if names is None else without_home(names))
    return root
