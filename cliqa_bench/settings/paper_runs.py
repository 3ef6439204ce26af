"""Which runs fill every table and figure of the TSN-IQA paper, one after the other in one output folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cliqa_bench.config import PresetName, RunConfig

FURTHER = ("tid2013", "spaq", "agiqa3k")
"""Test sets of Tables X and XI, never trained on."""

ABLATIONS: tuple[dict[str, Any], ...] = (
    {"norms": "shared"},
    {"gate_bn": "imagenet"},
    {"stages": (4,)},
    {"stages": (2, 3, 4)},
    {"stages": (1, 2, 3, 4)},
)
"""Design choices of TSN-IQA in Table VII; other backbones are runs of their own."""

SEVERAL_SEEDS = ("sl", "si", "mas", "lwf", "tsn")
"""Strategies of Table XIII."""

BACKBONES: dict[PresetName, tuple[str, ...]] = {
    "paper": ("resnet18", "two_stream", "resnet50", "vgg16"),
    "quick": ("scnn",),
}
SEEDS: dict[PresetName, list[int]] = {"paper": [0, 1, 2, 3, 4], "quick": [0, 1]}
SECOND: dict[PresetName, tuple[str, ...]] = {"paper": (), "quick": ("tsn", "lwf")}
"""Strategies on the second backbone (Table III), none for all of them; on further ones TSN-IQA runs alone."""


def runs(
    base: RunConfig, strategies: Sequence[str], orders: Mapping[str, list[str]], backbones: Sequence[str]
) -> Iterator[RunConfig]:
    """Yields the runs; what several of them share is trained once.

    Args:
        base: Data, preset, device and the like; Table XIII uses all its seeds, the others the first.
        strategies: All there are.
        orders: The paper's eight.
        backbones: The first is that of Tables IV to X, XII and XIII.
    """
    first = replace(base, orders={"I": orders["I"]}, seeds=base.seeds[:1], backbone=backbones[0])
    yield replace(first, strategy=list(strategies))
    tsn = replace(first, strategy=["tsn"])
    for params in ABLATIONS:
        yield replace(tsn, params={**base.params, "tsn": {**base.params.get("tsn", {}), **params}})
    for backbone in backbones[1:2]:
        chosen = list(SECOND[base.preset] or strategies)
        yield replace(first, backbone=backbone, strategy=chosen)
    for backbone in backbones[2:]:
        yield replace(tsn, backbone=backbone)
    yield replace(first, strategy=list(SEVERAL_SEEDS), seeds=base.seeds)
    yield replace(first, strategy=["tsn", "lwf"], orders=dict(orders))
