"""Designs of task orders: the paper's eight, every order, a seeded sample, and Williams squares.

A Williams square (Williams, 1949) of n datasets is the smallest set of orders in which each dataset has
each place, and comes right after each other one, equally often: n orders for an even n, 2n for an odd one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from cliqa_bench.errors import UserError
from cliqa_bench.seeds import rng_for

_FORWARD = {
    "I": ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k"),
    "II": ("live", "bid", "csiq", "clive", "kadid10k", "koniq10k"),
    "III": ("live", "csiq", "kadid10k", "bid", "clive", "koniq10k"),
    "IV": ("bid", "clive", "koniq10k", "live", "csiq", "kadid10k"),
}

ORDERS: dict[str, tuple[str, ...]] = {
    **_FORWARD,
    **{
        label: tuple(reversed(order))
        for label, order in zip(("V", "VI", "VII", "VIII"), _FORWARD.values(), strict=True)
    },
}
"""Label -> datasets in the order of learning (TSN-IQA, Table V; V to VIII are I to IV reversed)."""

MOST_EVERY = 7
"""Eight datasets have 40,320 orders: too many to train."""

MOST_ORDERS = 5040
"""Most orders of a sample: every order of seven datasets."""

WORDS = ("every", "sample:N", "williams")
"""What `--orders` knows beside labels and sequences."""

_DESIGN = re.compile(r"(every|williams|sample)(?::(.*))?", re.IGNORECASE | re.DOTALL)
_SAMPLE = re.compile(r"([1-9][0-9]{0,5})(?:#([1-9][0-9]{0,8}))?")


def is_design(text: str) -> bool:
    """Tells whether a part of `--orders` names a design."""
    return _DESIGN.fullmatch(text.strip()) is not None


def split_design(text: str) -> tuple[str, str]:
    """Splits "sample:24:live,csiq" into the design ("sample:24") and its datasets ("live,csiq", "" for none).

    Raises:
        UserError: If a sample does not say how large it is.
    """
    found = _DESIGN.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{text!r} is not a design of orders; choose from: {', '.join(WORDS)}")
    word, rest = found[1].lower(), (found[2] or "").strip()
    if word != "sample":
        return word, rest
    size, _, datasets = rest.partition(":")
    if not _SAMPLE.fullmatch(size.strip()):
        raise UserError(
            f"--orders {text}: say how many orders, such as sample:24 (sample:24#2 for a second draw)"
        )
    return f"sample:{size.strip()}", datasets.strip()


def design_orders(design: str, datasets: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the orders of a design.

    Args:
        design: "every", "williams", "sample:24", or "sample:24#2" for the second draw.
        datasets: The datasets, each once.

    Raises:
        UserError: If there are too few or too many orders.
    """
    n = len(datasets)
    if n < 2:
        raise UserError(f"--orders {design}: an order needs two datasets at least, not {n}")
    if design == "every":
        if n > MOST_EVERY:
            raise UserError(
                f"--orders every: {n} datasets have {math.factorial(n):,} orders; "
                f"at most {MOST_EVERY} datasets, or use sample:24"
            )
        return list(itertools.permutations(datasets))
    if design == "williams":
        return [tuple(datasets[i] for i in row) for row in williams(n)]
    size, _, draw = design.removeprefix("sample:").partition("#")
    return sample_orders(datasets, int(size), int(draw or 1))


def williams(n: int) -> list[tuple[int, ...]]:
    """Returns a Williams square of 0 ... n - 1: the rows of a design balanced for places and neighbours.

    The first row is 0, 1, n-1, 2, n-2, ...: the steps between its neighbours are all different, so that its
    n rotations have each pair of neighbours once. Of an odd n they have half of the pairs twice, and the
    reversed rows have the other half.
    """
    first = [0]
    for step in range(1, n):
        first.append((step + 1) // 2 if step % 2 else n - step // 2)
    rows = [tuple((item + shift) % n for item in first) for shift in range(n)]
    return rows if n % 2 == 0 else rows + [row[::-1] for row in rows]


def sample_orders(datasets: Sequence[str], size: int, draw: int = 1) -> list[tuple[str, ...]]:
    """Draws different orders, each as likely as any other; a larger sample begins with the smaller ones.

    The draw depends on which datasets there are, and not on the order in which they are named.

    Raises:
        UserError: If there are not so many orders.
    """
    names = sorted(datasets)
    most = min(math.factorial(len(names)), MOST_ORDERS)
    if size > most:
        raise UserError(
            f"--orders sample:{size}: {len(names)} datasets give at most {most:,} orders here; "
            "choose a smaller sample, or every"
        )
    return list(itertools.islice(_distinct(names, draw), size))


def _distinct(names: Sequence[str], draw: int) -> Iterator[tuple[str, ...]]:
    rng, seen = rng_for("orders", draw, *names), set()
    while True:
        order = tuple(names[i] for i in rng.permutation(len(names)))
        if order not in seen:
            seen.add(order)
            yield order
