"""The ids of all work that some configurations lay out, and which settings release 0.1.0 had.

`PYTHONPATH=. python tests/recorded_names.py` prints them. `tests/names_0_1_0.json` is what it printed at
commit 90f68ba, before names learned to survive new settings; it is never written anew.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cliqa_bench.config import PRESETS, RunConfig, Training
from cliqa_bench.execution import plan as planner
from cliqa_bench.extensions import registry
from cliqa_bench.models.pretraining_config import PretrainConfig
from cliqa_bench.results.nodes import digest
from cliqa_bench.settings.choice import choose

STRATEGIES = ("ewc", "jl", "lwf", "mas", "naive", "replay", "si", "sl", "tsn")
OURS = (*STRATEGIES, "avalanche:Naive", "avalanche:Cumulative", "avalanche:JointTraining")

CASES: dict[str, dict[str, Any]] = {
    "quick, S-CNN": {},
    "quick, ResNet-18": {"backbone": "resnet18"},
    "quick, ResNet-18, ImageNet's gate": {
        "backbone": "resnet18",
        "params": {name: {"gate_bn": "imagenet"} for name in OURS},
    },
    "paper, two-stream": {"backbone": "two_stream", "preset": "paper", "training": PRESETS["paper"]},
    "settings changed": {
        "seeds": [1],
        "training": replace(PRESETS["quick"], decay_epochs=(2, 4), n_pairs=70, precision="bf16"),
        "params": {"tsn": {"norms": "shared", "centroids": 16, "stages": (4,)}, "lwf": {"reg_weight": 3.0}},
    },
}


def material(name: str) -> Any:
    """Returns a dataset with a fingerprint of its own, and no images."""
    dataset = SimpleNamespace(
        name=name, title=name.upper(), generated={}, n_pairs_paper=100, n_pairs_files=None
    )
    split = SimpleNamespace(keys=lambda subset: [subset] * {"train": 70, "val": 10, "test": 20}[subset])
    return SimpleNamespace(
        name=name, dataset=dataset, split=split, fingerprint=f"pixels of {name}", generated=True
    )


def plan_of(case: str, **changed: Any) -> planner.Plan:
    """Lays out one of `CASES`, with all strategies of our own on BID and LIVE."""
    config = RunConfig(
        strategy=list(OURS), orders={"bid,live": ["bid", "live"]}, data=None, backbone="scnn",
        weights="random", seeds=[0], split="1", preset="quick", training=PRESETS["quick"], out=Path("runs"),
    )  # fmt: skip
    config = replace(config, **{**CASES[case], **changed})
    return planner.make_plan(choose(config), {name: material(name) for name in ("bid", "live")}, {})


def ids_of(plan: planner.Plan) -> dict[str, list[str]]:
    """Returns the ids of a plan's nodes and records, by kind; of the many answers a digest."""
    return {
        "train": sorted(plan.train),
        "gates": sorted(plan.gates),
        "answers of trainings": [
            digest(sorted(a for a, w in plan.answers.items() if w.of.node.kind == "train"))
        ],
        "answers of gates": [digest(sorted(a for a, w in plan.answers.items() if w.of.node.kind == "gate"))],
        "pictures": sorted(plan.pictures),
        "records": sorted(record.id for record in plan.records),
    }


def settings_of(cls: type[Any]) -> list[str]:
    """Returns the fields of a dataclass that names of work hash, whatever their values."""
    marks = {"reading", "since"}
    return [f.name for f in fields(cls) if not marks & f.metadata.keys()]


def recorded() -> dict[str, Any]:
    """Returns everything that is kept: settings, ids, and two whole specs, to see what has changed in one."""
    plans = {case: plan_of(case) for case in CASES}
    first = next(iter(plans.values()))
    classes = {"training": Training, "pre-training": PretrainConfig}
    classes |= {name: registry.load("strategies", name) for name in OURS}
    return {
        "settings": {name: settings_of(cls) for name, cls in classes.items()},
        "ids": {case: ids_of(plan) for case, plan in plans.items()},
        "specs": [next(iter(first.train.values())).node.spec, next(iter(first.gates.values())).node.spec],
    }


if __name__ == "__main__":
    print(json.dumps(recorded(), indent=0))
