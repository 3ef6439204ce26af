"""The order studies of docs/orders.md: their runs, then the tables, with time and disk; no part of the suite.

In the checkout's root: `python tests/order_study.py OUT [--study six] [--seeds 0,1] [--minutes 30]`. A study
trains LwF in all orders, and TSN-IQA and SL, whose orders follow from one training per dataset, on generated
miniatures: `four`, all 24 orders of four datasets with the preset `quick` (64 trainings of LwF); `six`, all
720 of six (1,956 trainings), with half of the pictures and a shorter protocol. After so many minutes it
stops; the same command resumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

RUNS = ("tsn,sl", "lwf")
TABLES = ("orders", "order_ranks", "order_variance", "order_sampling")


@dataclass(frozen=True)
class Study:
    """Which orders are run, and how.

    Attributes:
        orders: What `--orders` is given.
        scale: Number of pictures, relative to the default.
        protocol: What differs from the preset `quick`, as `--set` is given it.
    """

    orders: str
    scale: float = 1.0
    protocol: tuple[str, ...] = ()


SHORT = ("crop=64", "resize=96", "warmup_epochs=1", "epochs=2", "decay_epochs=[2]")
STUDIES = {"four": Study("every:live,csiq,bid,clive"), "six": Study("every", 0.5, SHORT)}


def suite(*words: str) -> list[str]:
    """Returns a command of the suite."""
    return [sys.executable, "-m", "cliqa_bench", *words]


def pictures(study: Study, out: Path) -> list[str]:
    """Makes a study's pictures beside its results, if they are not the default ones; returns the flags."""
    if study.scale == 1:
        return []
    folder = out.resolve().with_name(f"{out.resolve().name}-pictures")
    subprocess.run(suite("data", "make", str(folder), "--scale", str(study.scale)), check=True)
    return ["--data", str(folder)]


def command(study: Study, strategy: str, out: Path, seeds: str) -> list[str]:
    """Returns the command of one run."""
    return suite(
        "run", "--strategy", strategy, "--orders", study.orders, "--preset", "quick", "--seeds", seeds,
        "--progress", "plain", "--out", str(out),
        *(word for setting in study.protocol for word in ("--set", f"training.{setting}")),
    )  # fmt: skip


def sit(words: list[str], seconds: float) -> int:
    """Runs a command for so long, and stops it cleanly then; returns its exit code."""
    process = subprocess.Popen(words)
    try:
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.terminate()  # a shell lets what runs in the background ignore SIGINT
        return process.wait()


def megabytes(folder: Path) -> float:
    """Returns the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> int:
    """Runs what is left of the study; returns 0 once all is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument(
        "--study", choices=list(STUDIES), default="four", help="four datasets, or all six (default: four)"
    )
    parser.add_argument("--seeds", default="0", help="of the training (default: 0)")
    parser.add_argument("--minutes", type=float, default=90.0, help="of this sitting (default: 90)")
    given = parser.parse_args()
    study, end = STUDIES[given.study], time.monotonic() + 60 * given.minutes
    data = pictures(study, given.out)
    for strategy in RUNS:
        words = command(study, strategy, given.out, given.seeds) + data
        began = time.monotonic()
        code = sit(words, end - began)
        took = (time.monotonic() - began) / 60
        size = f"{megabytes(given.out):.0f} MB in {given.out}"
        print(f"{strategy}: exit code {code} after {took:.1f} min; {size}")
        if code:
            return code
    for name in TABLES:
        print((given.out / "report" / f"table_{name}.md").read_text(encoding="utf-8"))
    return subprocess.call(suite("verify", str(given.out)))


if __name__ == "__main__":
    sys.exit(main())
