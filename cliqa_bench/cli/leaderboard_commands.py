"""The commands of a leaderboard: pack a bundle, train a node of one again, build the page."""

from __future__ import annotations

import shlex
from pathlib import Path

from jsonargparse import Namespace

from cliqa_bench.cli.data_commands import DATA, INCLUDE, PROGRESS, THREADS, Add
from cliqa_bench.errors import UserError
from cliqa_bench.paths import user_path
from cliqa_bench.terminal import plural


def bundle_arguments(add: Add) -> None:
    """Adds the flags of `bundle`."""
    add("runs", type=str, nargs="?", default="runs", metavar="RUNS", help="folder of the results")
    add("--to", type=str, default="bundle.zip", metavar="FILE", help="the bundle (default: bundle.zip)")


def bundle(args: Namespace, command: str) -> int:
    """Packs a bundle, if `verify` finds nothing wrong."""
    runs = user_path(args.runs)
    if not runs.is_dir():
        raise UserError(f"no folder {runs}; give the --out folder of a run")
    return verify_and_pack(runs, user_path(args.to))


def verify_and_pack(runs: Path, to: Path | None) -> int:
    """Verifies runs and, if nothing is wrong, packs them into a bundle; returns the exit code.

    Args:
        runs: Folder of the results, or a bundle.
        to: The bundle; None to pack nothing.
    """
    from cliqa_bench.reports.audit.verify import verify

    verified = verify(runs)
    print(verified.render())
    if not verified.ok:
        return 2
    if to is not None:
        from cliqa_bench.reports.audit.bundle import pack

        size = pack(runs, to)
        print(f"{to}: a bundle of {size:,} bytes; anybody can check it with: verify {shlex.quote(to.name)}")
    return 0


def prove_arguments(add: Add) -> None:
    """Adds the flags of `prove`."""
    add("bundle", type=str, metavar="FILE", help="a bundle, made by 'bundle' or 'verify --pack'")
    add("--data", type=str, metavar="DIR", help=DATA)
    add("--nodes", type=int, default=1, metavar="N", help="how many nodes to train again (default: 1)")
    add("--seed", type=int, default=0, metavar="N", help="seed for drawing the nodes (default: 0)")
    add("--who", type=str, default="unnamed", metavar="NAME", help="your name, for the proof")
    add(
        "--tolerance", type=float, metavar="T",
        help="how far a head's score may be off; similar hardware gives the same bits (default: 1e-3)",
    )  # fmt: skip
    add(
        "--gate-tolerance", type=float, metavar="T",
        help="how far a gate's distances may be off, relative to their size (default: 6e-6)",
    )  # fmt: skip
    add("--weights", type=str, metavar="FILE", help="the backbone's pre-trained weights, or 'random'")
    add("--device", type=str, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--threads", type=int, metavar="N", help=f"{THREADS} (default: those of the run)")
    add("--include", type=str | tuple[str, ...], metavar="FILES", help=INCLUDE)
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def prove(args: Namespace, command: str) -> int:
    """Trains nodes of a bundle again; the exit code is 1 if one is not proved."""
    from cliqa_bench.execution.prove import Request, prove_bundle
    from cliqa_bench.reports.leaderboard.proofs import proofs_file

    bundle = user_path(args.bundle)
    known = {name: value for name, value in args.as_dict().items() if name not in ("bundle", "progress")}
    asked = {name: value for name, value in known.items() if value is not None}
    proofs = prove_bundle(Request(bundle, **asked))
    for proof in proofs:
        same = "the same bits" if proof.scores == 0 else f"scores differ by up to {proof.scores:.2g}"
        gate = (
            "" if proof.distances != proof.distances else f", its gate's distances by {proof.distances:.2g}"
        )
        verdict = "proved" if proof.holds else f"NOT proved ({proof.wrong})"
        print(f"{proof.node}: {same}{gate}: {verdict}")
    print(f"added to {proofs_file(bundle)}")
    return 0 if all(proof.holds for proof in proofs) else 1


def build_arguments(add: Add) -> None:
    """Adds the flags of `leaderboard build`."""
    add("folder", type=str, metavar="FOLDER", help="holds the bundles (*.zip), and their proofs beside them")
    add("--to", type=str, default="site", metavar="DIR", help="folder of the page (default: site)")
    add("--jobs", type=int, metavar="N", help="processes that check bundles (default: as many as cores)")
    add("--strict", action="store_true", help="end with exit code 1 if a bundle is refused")
    add("--progress", type=str, metavar="HOW", help=PROGRESS)


def build(args: Namespace, command: str) -> int:
    """Builds a leaderboard; bundles that are refused are listed, and with --strict the exit code is 1."""
    from cliqa_bench.reports.leaderboard.site import build_site

    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {args.jobs}")
    built = build_site(user_path(args.folder), user_path(args.to), args.jobs)
    for entry in built.refused:
        print(f"refused: {entry.name}: {entry.refused}")
    rows = sum(len(entry.rows) for entry in built.entries)
    kept = len(built.entries) - len(built.refused)
    print(f"{built.page}: {plural(rows, 'row')} of {plural(kept, 'bundle')}")
    return int(args.strict and bool(built.refused))
