"""Builds a leaderboard of 10, 50 and 100 bundles: seconds, CPU time and peak memory.

In the checkout's root: `PYTHONPATH=. python tests/many_bundles.py --runs runs`, where `runs` holds a finished
run; some minutes, most of them to make the bundles. Each holds the run's answers with one of each moved, so
that it has numbers of its own. The exit code is 1 if the last page takes more CPU time than two cores have in
60 s, if its peak memory is more than a quarter above that of the first one, or if a bundle is refused. It is
not part of the suite.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recorded_runs import sign

from cliqa_bench.bench.process import Ran, run
from cliqa_bench.reports.audit.bundle import pack
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.nodes import read_answers, write_arrays

SIZES = (10, 50, 100)
SECONDS = 2 * 60
"""Of CPU time: of two cores."""
GROWTH = 1.25
"""Memory for the last page, relative to that for the first; in proportion to the bundles it would be ten."""


def vary(runs: Path, number: int, bundle: Path) -> None:
    """Packs a copy of runs in which each model's first score is another."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        shutil.copytree(runs, out, ignore=shutil.ignore_patterns("*.safetensors", "*.png", "report"))
        for path in sorted((out / "answers").glob("[!.]*/answers.npz")):
            arrays = read_answers(path)
            if "scores" in arrays:
                arrays["scores"][0] += number / 1000
                write_arrays(path, arrays, compress=True)
                sign(path.parent)
        write_report(out, formats=["csv"], figures=False)
        pack(out, bundle)


def children() -> float:
    """Returns the CPU time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(bundles: Sequence[Path], work: Path) -> tuple[Ran, float]:
    """Builds a page of some bundles; returns also the CPU time, whatever else the machine does."""
    before = children()
    folder = work / f"{len(bundles)}"
    folder.mkdir()
    for bundle in bundles:
        (folder / bundle.name).hardlink_to(bundle)
    ran = run(["leaderboard", "build", str(folder), "--to", str(folder / "site")], work / "cache")
    return ran, children() - before


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if it is too slow, takes too much memory or refuses a bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="a finished run (default: runs)")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bundles = [work / f"{number:03}.zip" for number in range(max(SIZES))]
        for number, bundle in enumerate(bundles):
            vary(args.runs, number, bundle)
        print(f"{len(bundles)} bundles of {bundles[0].stat().st_size:,} bytes", flush=True)
        ran = {size: measure(bundles[:size], work) for size in SIZES}
    for size, (one, cpu) in ran.items():
        last = one.output.splitlines()[-1].rpartition(": ")[2]
        took = f"{one.seconds:.1f} s ({cpu:.1f} s of CPU time), {one.peak_bytes / 2**20:.0f} MiB"
        print(f"{size:4} bundles: {took}; {last}")
    (first, _), (most, cpu) = ran[min(SIZES)], ran[max(SIZES)]
    refused = any("refused: " in one.output for one, _ in ran.values())
    return int(refused or cpu > SECONDS or most.peak_bytes > GROWTH * first.peak_bytes)


if __name__ == "__main__":
    sys.exit(main())
