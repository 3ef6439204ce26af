"""The order study of docs/orders.md: its runs, then the tables, with time and disk. Not part of the suite.

In the checkout's root: `python tests/order_study.py OUT [--seeds 0,1] [--minutes 30]`. It trains LwF in all
24 orders of four datasets (64 trainings), and TSN-IQA and SL, whose orders follow from one training per
dataset, on the generated miniatures with the preset `quick`. After so many minutes it stops; the same command
resumes.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

ORDERS = "every:live,csiq,bid,clive"
RUNS = ("tsn,sl", "lwf")
TABLES = ("orders", "order_ranks", "order_variance", "order_sampling")


def command(strategy: str, out: Path, seeds: str) -> list[str]:
    """Returns the command of one run."""
    return [
        sys.executable, "-m", "cliqa_bench", "run", "--strategy", strategy, "--orders", ORDERS, "--preset",
        "quick", "--seeds", seeds, "--progress", "plain", "--out", str(out),
    ]  # fmt: skip


def sit(words: list[str], seconds: float) -> int:
    """Runs a command for so long, and stops it cleanly then; returns its exit code."""
    process = subprocess.Popen(words)
    try:
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait()


def megabytes(folder: Path) -> float:
    """Returns the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> int:
    """Runs what is left of the study; returns 0 once all is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--seeds", default="0", help="of the training (default: 0)")
    parser.add_argument("--minutes", type=float, default=90.0, help="of this sitting (default: 90)")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    for strategy in RUNS:
        words = command(strategy, given.out, given.seeds)
        began = time.monotonic()
        code = sit(words, end - began)
        took = (time.monotonic() - began) / 60
        size = f"{megabytes(given.out):.0f} MB in {given.out}"
        print(f"{strategy}: exit code {code} after {took:.1f} min; {size}")
        if code:
            return code
    for name in TABLES:
        print((given.out / "report" / f"table_{name}.md").read_text(encoding="utf-8"))
    return subprocess.call([sys.executable, "-m", "cliqa_bench", "verify", str(given.out)])


if __name__ == "__main__":
    sys.exit(main())
