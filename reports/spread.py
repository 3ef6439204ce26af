"""One number from several runs of the same thing: over seeds of the training, or over splits of the data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from cliqa_bench.results.records import RunRecord

T = TypeVar("T")


class Replicate(NamedTuple):
    """What distinguishes runs of the same thing.

    Attributes:
        split: Number of the split, 0 for a single one.
        seed: Seed of the training.
    """

    split: int
    seed: int


class Spread(NamedTuple):
    """The summary of several runs' numbers, nan if one of them is.

    Attributes:
        mean: Their mean.
        std: Their standard deviation (ddof=1); nan of one number.
        median: Their median, of several splits; None otherwise.
        note: What they are of: "n=3 splits"; "" for one run.
    """

    mean: float
    std: float
    median: float | None
    note: str


SPLITS, SEEDS = "splits", "seeds"
ONCE = Replicate(0, 0)
"""Of a number that is the same in every run."""


def replicate_of(record: RunRecord) -> Replicate:
    """Returns what distinguishes a run from others of the same thing."""
    return Replicate(record.split_number, record.seed)


def over_splits(runs: Iterable[Replicate]) -> bool:
    """Tells whether runs are on several splits."""
    return len({run.split for run in runs}) > 1


def units(values: Mapping[Replicate, T]) -> dict[int, list[T]]:
    """Sorts what runs have by what counts as one: the split where there are several, else the seed.

    Runs with other seeds on one split share its test images. They are not further splits.

    Returns:
        Number of the split, or seed -> what its runs have; in ascending order.
    """
    several = over_splits(values)
    found: dict[int, list[T]] = {}
    for run in sorted(values):
        found.setdefault(run.split if several else run.seed, []).append(values[run])
    return found


def kind_of_units(runs: Iterable[Replicate]) -> str:
    """Returns the word for what `units` counts: "splits" or "seeds"."""
    return SPLITS if over_splits(runs) else SEEDS


def counted(runs: Iterable[Replicate]) -> str:
    """Counts splits or seeds in words: "n=3 splits", "n=3 splits of 2 seeds", "n=2 seeds"; "" for one run."""
    known = dict.fromkeys(runs)
    sizes = [len(same) for same in units(known).values()]
    if len(sizes) < 2:
        return ""
    several = max(sizes) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"n={len(sizes)} {kind_of_units(known)}" + (f" of {several} seeds" if several != 1 else "")


def spread(values: Mapping[Replicate, float]) -> Spread:
    """Returns mean, standard deviation and, of several splits, median.

    Of several seeds on each of several splits, the mean over the seeds is the number of the split. A run
    without a number makes all of them nan, and is not left out.
    """
    note, several = counted(values), over_splits(values)
    if not values or not all(map(math.isfinite, values.values())):
        return Spread(math.nan, math.nan, math.nan if several else None, note)
    each = [statistics.fmean(same) for same in units(values).values()]
    std = statistics.stdev(each) if len(each) > 1 else math.nan
    return Spread(statistics.fmean(each), std, statistics.median(each) if several else None, note)


def ranges(numbers: Iterable[int]) -> str:
    """Returns whole numbers as `--splits` takes them: "1-3, 5"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
