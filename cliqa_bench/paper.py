"""Which runs fill every table and figure of the TSN-IQA paper, one after the other in one output folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cliqa_bench.config import RunConfig

FURTHER = ("tid2013", "spaq", "agiqa3k")
"""Test sets of Tables X and XI, never trained on."""

ABLATIONS: tuple[dict[str, Any], ...] = (
    {"norms": "shared"},
    {"gate_bn": "imagenet"},
    {"stages": (4,)},
    {"stages": (2, 3, 4)},
    {"stages": (1, 2, 3, 4)},
)
"""Design choices of TSN-IQA in Table VII; the backbones are runs of their own."""

SEVERAL_SEEDS = ("sl", "si", "mas", "lwf", "tsn")
"""Strategies of Table XIII."""


def runs(
    base: RunConfig, strategies: Sequence[str], orders: dict[str, list[str]], backbones: Sequence[str], all_on: int
) -> Iterator[RunConfig]:
    """Yields the runs; what several share is trained once.

    Args:
        base: Data, preset, device and the like; its seeds are those of Table XIII, the first that of the others.
        strategies: All there are.
        orders: The paper's eight.
        backbones: The first is that of Tables V to X, XII and XIII.
        all_on: On how many of the backbones all strategies run (Table III); on the others TSN-IQA and LwF.
    """
    main = {"I": orders["I"]}
    first = replace(base, orders=main, seeds=base.seeds[:1])
    for i, backbone in enumerate(backbones):
        chosen = list(strategies) if i < all_on else ["tsn", "lwf"]
        yield replace(first, backbone=backbone, strategy=chosen)
    here = replace(first, backbone=backbones[0], strategy=["tsn"])
    for params in ABLATIONS:
        yield replace(here, params={**base.params, "tsn": {**base.params.get("tsn", {}), **params}})
    yield replace(here, strategy=["tsn", "lwf"], orders=orders)
    yield replace(here, strategy=list(SEVERAL_SEEDS), seeds=base.seeds)
