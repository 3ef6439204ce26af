"""Designs of orders: every, samples and Williams squares; what they are balanced for, and what they train."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from cliqa_bench.benchmarks import suites
from cliqa_bench.errors import UserError
from cliqa_bench.execution.run import prepare
from cliqa_bench.order_designs import (
    design_orders,
    is_design,
    sample_orders,
    split_design,
    williams,
)
from cliqa_bench.settings.resolve import config_dict, resolve

FOUR = ["live", "csiq", "bid", "clive"]
SIX = list(suites.ORDERS["I"])


@pytest.mark.parametrize("n", range(2, 9))
def test_a_williams_square_is_balanced(n: int) -> None:
    rows = williams(n)
    assert len(rows) == len(set(rows)) == (n if n % 2 == 0 else 2 * n)
    assert all(sorted(row) == list(range(n)) for row in rows)
    places = Counter((place, item) for row in rows for place, item in enumerate(row))
    assert len(places) == n * n and len(set(places.values())) == 1
    neighbours = Counter(pair for row in rows for pair in itertools.pairwise(row))
    assert set(neighbours) == set(itertools.permutations(range(n), 2))
    assert set(neighbours.values()) == {1 if n % 2 == 0 else 2}


def test_every_order_is_there_once_beginning_with_the_one_that_is_named() -> None:
    orders = suites.parse_orders("every:live, CSIQ,bid,clive")
    assert next(iter(orders)) == "live,csiq,bid,clive"
    assert set(map(tuple, orders.values())) == set(itertools.permutations(FOUR)) and len(orders) == 24
    assert all(label == ",".join(order) for label, order in orders.items())


def test_all_720_orders_of_the_six_contain_the_papers_eight_under_their_numbers() -> None:
    orders = suites.parse_orders("every")
    assert len(orders) == len(set(map(tuple, orders.values()))) == 720
    assert {label: tuple(orders[label]) for label in suites.ORDERS} == suites.ORDERS
    assert sum("," in label for label in orders) == 712


def test_a_larger_sample_goes_on_where_a_smaller_one_ends() -> None:
    small, large = sample_orders(SIX, 24), sample_orders(SIX, 48)
    assert large[:24] == small and len(set(large)) == 48
    assert all(sorted(order) == sorted(SIX) for order in large)
    assert sample_orders(SIX[::-1], 24) == small, "their order does not count"
    assert sample_orders(SIX, 24, draw=2) != small
    assert design_orders("sample:24#2", SIX) == sample_orders(SIX, 24, draw=2)
    # so that no sample changes with a release
    assert [",".join(order) for order in sample_orders(FOUR, 3)] == PINNED


PINNED = ["csiq,clive,live,bid", "clive,bid,live,csiq", "clive,live,csiq,bid"]


def test_a_sample_of_all_is_all_and_every_order_is_as_likely() -> None:
    assert set(sample_orders(FOUR, 24)) == set(itertools.permutations(FOUR))
    first = Counter(sample_orders(FOUR, 1, draw)[0] for draw in range(1, 2401))
    assert len(first) == 24
    # the draws are fixed: p = 0.94 was seen
    assert stats.chisquare(list(first.values())).pvalue > 0.01


@pytest.mark.parametrize(
    ("text", "design", "named"),
    [
        ("every", "every", ""),
        (" Every:live,csiq ", "every", "live,csiq"),
        ("sample:24", "sample:24", ""),
        ("sample:24#2:live,csiq", "sample:24#2", "live,csiq"),
        ("williams:csv:my.csv,live", "williams", "csv:my.csv,live"),
    ],
)
def test_what_a_design_says(text: str, design: str, named: str) -> None:
    assert is_design(text) and split_design(text) == (design, named)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample", "say how many orders"),
        ("sample:0", "say how many orders"),
        ("sample:x:live,csiq", "say how many orders"),
        ("sample:25:live,csiq,bid,clive", "at most 24 orders"),
        ("every:live", "two datasets at least"),
        ("every:live,csiq,live", "names live twice"),
        ("every:live,cisq", "did you mean 'csiq'"),
        ("every:live,csiq,bid,clive,koniq10k,kadid10k,tid2013,spaq", "40,320 orders"),
        ("evry", "did you mean 'every'"),
    ],
)
def test_what_is_no_design_gets_a_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        suites.parse_orders(text)


def make(**more: Any) -> Any:
    return resolve({"strategy": "lwf", "preset": "quick", **more})


def test_a_stored_configuration_names_the_design_and_repeats_it() -> None:
    config = make(orders="every;live,bid")
    stored = config_dict(config)
    assert stored["orders"] == [f"every:{','.join(SIX)}", "live,bid"]
    assert resolve(stored) == config and len(config.orders) == 721
    assert "orders_as" not in stored
    assert make(orders="I;live,bid").orders_as == []


@pytest.mark.parametrize(
    ("text", "orders", "trainings"), [("every", 720, 1956), ("every:live,csiq,bid,clive", 24, 64)]
)
def test_the_tree_of_a_prefix_strategy(
    miniatures: Path, tmp_path: Path, text: str, orders: int, trainings: int
) -> None:
    """N + n(n-1) + ... + n! nodes: 1,956 instead of 4,320; each has one parent and answers every test set."""
    config = make(orders=text, data=str(miniatures), out=str(tmp_path))
    plan = prepare(config, "")
    assert (len(plan.records), len(plan.train)) == (orders, trainings)
    n = len(next(iter(config.orders.values())))
    assert trainings == sum(math.perm(n, k) for k in range(1, n + 1))
    assert len({work.sequence for work in plan.train.values()}) == trainings
    assert len(plan.answers) == n * (trainings + n), "of each training and of each gate, on each test set"
    assert all(len(record.facts["config"]["orders"]) == 1 for record in plan.records)
