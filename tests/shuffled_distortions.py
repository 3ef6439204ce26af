"""Copies generated datasets with shuffled distortions, of which LIQE can only learn how often each comes.

In the checkout's root: `PYTHONPATH=. python tests/shuffled_distortions.py DATA TO [--seed N]`, where
`cliqa-bench data make DATA` made DATA; then `cliqa-bench run --data TO --strategy liqe`. The distortions of
the training and validation pictures of each dataset change places; scenes, scores and test pictures stay as
they are. It is not part of the test suite.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.aspect_labels import FILE, aspects_csv, own_rows
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.labelled import open_datasets
from cliqa_bench.benchmarks.splits import resolve_split
from cliqa_bench.order_designs import ORDERS


def shuffle(dataset: Dataset, split: str, seed: int) -> int:
    """Shuffles the distortions of a dataset that are learned; returns how many have changed."""
    subset = resolve_split(split, dataset, dataset.ratings()).subset
    rows = {key: list(row.words) for key, row in own_rows(dataset).items()}  # the distortion comes first
    # a picture without a score is in no subset
    learned = [words for key, words in rows.items() if subset.get(key, "test") != "test"]
    before = [words[0] for words in learned]
    order = np.random.default_rng([seed, len(learned)]).permutation(len(learned))
    for words, other in zip(learned, order, strict=True):
        words[0] = before[other]
    (dataset.root / FILE).write_text(aspects_csv(rows.items()), encoding="utf-8", newline="\n")
    return sum(words[0] != word for words, word in zip(learned, before, strict=True))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with generated datasets")
    parser.add_argument("to", type=Path, help="folder for the copy")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling (default: 0)")
    parser.add_argument("--split", default="1", help="as in run (default: 1)")
    args = parser.parse_args()
    shutil.copytree(args.data, args.to)
    for name, dataset in open_datasets(ORDERS["I"], args.to).items():
        print(f"{name}: {shuffle(dataset, args.split, args.seed)} distortions are others")


if __name__ == "__main__":
    main()
