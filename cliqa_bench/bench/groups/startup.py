"""What must respond at once: help, and the plan of every order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.bench.process import run
from cliqa_bench.benchmarks.suites import ORDERS


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    cache = setting.folder / "cache"
    helps = tuple(run(["--help"], cache).seconds for _ in range(setting.repeats))
    yield Measurement("startup", "--help", helps, "s", reach=0.3, better="lower")
    run(["data", "make", str(setting.folder / "data")], cache)
    every = ";".join(",".join(order) for order in itertools.permutations(ORDERS["I"]))
    words = ["plan", "--strategy", "lwf", "--orders", every, "--data", str(setting.folder / "data")]
    run(words, cache)  # reads every image once, to know its hash
    plans = tuple(run(words, cache).seconds for _ in range(setting.repeats))
    yield Measurement("startup", "plan: lwf, 720 orders", plans, "s", reach=5, better="lower")
