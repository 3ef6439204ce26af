"""What do the intervals of `table_order_variance` cover? Simulates order studies, and counts.

In the checkout's root: `PYTHONPATH=. python tests/coverage_of_shares.py [--draws N]`. It takes a minute on
one core. The table of docs/orders.md is a part of what it prints. It is not part of the test suite.

A strategy's value in an order is an effect of the first dataset, one of the last, one of each pair of
neighbours, one of the order itself, and the chance of a seed. The effects are scaled so that, without chance,
each explains a stated share. Two things an interval might cover: the share **with this chance** (the mean of
the estimates over many draws of the seeds), and the share **without it** (what endless seeds would give).
"""

from __future__ import annotations

import argparse
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.tables.order_study import design_of, variance_shares

Float = NDArray[np.float64]
FACTORS = ("first", "last", "neighbour", "rest of the order")


class Model(NamedTuple):
    """What explains a value, as shares of the variance without chance; chance in units of its deviation."""

    name: str
    shares: tuple[float, float, float, float]
    chance: float


MODELS = (
    Model("first .6, last .2", (0.6, 0.2, 0.1, 0.1), 0.2),
    Model("first .6, last .2, much chance", (0.6, 0.2, 0.1, 0.1), 1.0),
    Model("all alike", (0.25, 0.25, 0.25, 0.25), 0.5),
    Model("chance alone", (0.0, 0.0, 0.0, 0.0), 1.0),
)


def effects(tasks: int, model: Model, rng: np.random.Generator) -> Float:
    """Returns the (T!,) values of the orders without chance."""
    permutations = np.array(list(itertools.permutations(range(tasks))))
    total, before = np.zeros(len(permutations)), np.ones((len(permutations), 1))
    for factor, share in zip(("first", "last", "neighbour", ""), model.shares, strict=True):
        design = design_of(permutations, factor) if factor else np.eye(len(permutations))
        drawn = design @ rng.standard_normal(design.shape[1])
        drawn -= before @ np.linalg.lstsq(before, drawn, rcond=None)[0]  # what those before do not explain
        total += np.sqrt(share / np.mean(drawn**2)) * drawn
        before = np.hstack([before, design])
    return total


def coverage(
    tasks: int, seeds: int, model: Model, draws: int
) -> dict[str, tuple[float, float, float, float]]:
    """Returns factor -> mean share, how often the interval holds each of the two shares, median length."""
    rng = np.random.default_rng([tasks, seeds, round(10 * model.chance), round(10 * model.shares[0])])
    found: dict[str, list[tuple[float, float, float]]] = {factor: [] for factor in FACTORS}
    for _ in range(draws):
        still = effects(tasks, model, rng)
        truth = (
            variance_shares(np.stack([still] * 2))
            if any(model.shares)
            else dict.fromkeys(FACTORS, (0.0, 0.0))
        )
        told = variance_shares(still + model.chance * rng.standard_normal((seeds, len(still))))
        for factor in FACTORS:
            found[factor].append((*told[factor], truth[factor][0]))
    out = {}
    for factor, rows in found.items():
        share, half, right = np.array(rows).T
        # effects are scaled alike in every draw, so the mean over draws is the share with chance
        of_chance = np.mean(np.abs(share - share.mean()) <= half)
        out[factor] = (share.mean(), of_chance, np.mean(np.abs(share - right) <= half), np.median(2 * half))
    return {factor: (float(a), float(b), float(c), float(d)) for factor, (a, b, c, d) in out.items()}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--draws", type=int, default=1000, help="how many studies of each kind")
    args = parser.parse_args()
    print(
        "| orders | seeds | model | factor | mean share | covers it with chance | without chance | length |"
    )
    print("|---|---:|---|---|---:|---:|---:|---:|")
    for tasks, seeds, model in itertools.product((4, 5), (1, 3), MODELS):
        draws = args.draws if tasks == 4 else max(1, args.draws // 5)
        orders = len(list(itertools.permutations(range(tasks))))
        for factor, found in coverage(tasks, seeds, model, draws).items():
            cells = " | ".join(f"{value:.3f}" for value in found)
            print(f"| {orders} | {seeds} | {model.name} | {factor} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
