"""Measures how far answers are off on other processors: where the tolerances of `prove` come from.

`PYTHONPATH=. python tests/prove_tolerances.py` in the checkout's root: a small run as usual, and the same run
under each processor setting of `tests/matrix.py` and three more, each in a process of its own, some minutes
each. For each setting it prints the largest difference of a head's score, of a gate's distance (relative), of
every readout's score, and of every readout's SRCC. `--list` names the settings, `--only NAMES` chooses, and
`--work FOLDER` keeps the runs, so that the same command resumes. A setting that this processor does not know
gives the same bits, and counts as none.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import matrix
import numpy as np

from cliqa_bench.metrics import srcc
from cliqa_bench.results.answer_difference import most_apart
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, read_records
from cliqa_bench.terminal import text_table

LEAST = 5
"""Settings with other bits that it takes to set a tolerance."""

USUAL = "usual"
FURTHER = {
    "onednn-avx": {"ONEDNN_MAX_CPU_ISA": "AVX"},
    "mkl-plain": {"MKL_CBWR": "COMPATIBLE"},
    # a processor without AVX: every library with its plainest instructions
    "no-avx": {
        "NPY_DISABLE_CPU_FEATURES": f"{matrix.AVX512} X86_V3 AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}
SETTINGS = {run.name: run.variables for run in matrix.RUNS if run.variables} | FURTHER

Differences = dict[str, float]
"""What was compared -> the largest difference."""


def command(out: Path, setting: str, options: argparse.Namespace) -> list[str]:
    """Returns the command of a run; a run sets its own number of threads, whatever OMP_NUM_THREADS says."""
    words = ["--strategy", options.strategy, "--orders", options.orders, "--preset", "quick", "--jobs", "1"]
    words += ["--out", str(out), "--no-figures", "--progress", "none"]
    words += ["--data", options.data] if options.data else []
    words += ["--threads", "2"] if setting == "two-threads" else []
    return [sys.executable, "-m", "cliqa_bench", "run", *words]


def heads_and_gates(usual: Path, other: Path) -> Iterator[tuple[str, float]]:
    """Compares what every node said, as `prove` does."""
    for path in sorted((usual / "answers").glob("[!.]*/answers.npz")):
        ours, theirs = read_answers(path), read_answers(other / path.relative_to(usual))
        if "scores" in ours:
            yield "head", most_apart(ours["scores"], theirs["scores"])
        if "distances" in ours:
            size = np.abs(ours["distances"])
            yield "distance", most_apart(ours["distances"], theirs["distances"], size)


def readouts(usual: Path, other: Path) -> Iterator[tuple[str, float]]:
    """Compares what every readout makes of the answers, and its SRCC, after every experience."""
    ours, theirs = AnswerReader(usual), AnswerReader(other)
    for record in read_records(usual):
        for step, test in ((step, test) for step in range(len(record.steps)) for test in record.tests):
            pair = [reader.answers(record, step, test) for reader in (ours, theirs)]
            task = record.sequence.index(test) if test in record.sequence else None
            for readout in record.rows:
                scores = [None if a is None else read(a, readout, task, record.tau) for a in pair]
                if pair[0] is None or scores[0] is None or scores[1] is None:
                    continue
                yield readout, most_apart(scores[0], scores[1])
                rank = [srcc(score, pair[0].mos) for score in scores if score is not None]
                yield f"SRCC of {readout}", abs(rank[0] - rank[1])


def differences(usual: Path, other: Path) -> Differences:
    """Returns the largest difference of each kind."""
    found: Differences = {}
    for kind, apart in (*heads_and_gates(usual, other), *readouts(usual, other)):
        found[kind] = max(found.get(kind, 0.0), apart)
    return found


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategy", default="tsn,lwf", help="strategies (default: tsn,lwf)")
    parser.add_argument("--orders", default="live,csiq,bid", help="a short order (default: live,csiq,bid)")
    parser.add_argument("--data", help="folder of the datasets (default: generated miniatures)")
    parser.add_argument("--only", help="names of settings, separated by commas")
    parser.add_argument("--list", action="store_true", help="name the settings and end")
    parser.add_argument("--work", type=Path, help="folder of the runs (default: a temporary one)")
    options = parser.parse_args(words)
    names = options.only.split(",") if options.only else list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"unknown setting {unknown[0]!r}; choose from {', '.join(SETTINGS)}")
    options.settings = names
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Runs, compares and prints; returns 1 if a run failed or too few settings have other bits."""
    options = parse(words)
    if options.list:
        print("\n".join(f"{name:<14} {SETTINGS[name]}" for name in options.settings))
        return 0
    work = options.work or Path(tempfile.mkdtemp(prefix="prove-tolerances-"))
    found: dict[str, Differences] = {}
    for name in (USUAL, *options.settings):
        environment = os.environ | SETTINGS.get(name, {})
        if subprocess.run(command(work / name, name, options), env=environment, check=False).returncode:
            print(f"{name}: the run failed")
            return 1
        if name != USUAL:
            found[name] = differences(work / USUAL, work / name)
            print(name, {kind: float(f"{apart:.3g}") for kind, apart in found[name].items()}, flush=True)
    kinds = list(dict.fromkeys(kind for each in found.values() for kind in each))
    rows = [[name, *(f"{each.get(kind, math.nan):.3g}" for kind in kinds)] for name, each in found.items()]
    rows.append(["largest", *(f"{max(each.get(k, 0.0) for each in found.values()):.3g}" for k in kinds)])
    print(text_table(rows, ["setting", *kinds], right=range(1, len(kinds) + 1)))
    other = [name for name, each in found.items() if any(each.values())]
    print(f"other bits under {len(other)} of {len(found)} settings: {', '.join(other)}")
    return int(len(other) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
