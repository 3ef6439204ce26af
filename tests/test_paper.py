"""The runs behind the paper's tables: what they are, and what they share."""

from dataclasses import replace
from typing import Any

import pytest
from test_planner import NAMES, config, material

from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution import plan
from cliqa_bench.extensions import registry
from cliqa_bench.settings import paper_runs
from cliqa_bench.settings.choice import choose
from cliqa_bench.settings.resolve import paper_configs

STRATEGIES = [name for name in registry.names("strategies") if name != "prompt"]  # needs a transformer


def runs(tmp_path, backbones=("scnn",)) -> list[RunConfig]:
    base = replace(config(tmp_path), seeds=[0, 1, 2])
    orders = {label: list(order) for label, order in ORDERS.items()}
    return list(paper_runs.runs(base, STRATEGIES, orders, backbones))


def test_every_table_of_the_paper_has_its_run(tmp_path):
    asked = [
        (set(r.strategy), set(r.orders), r.backbone, len(r.seeds), str(r.params.get("tsn", {})))
        for r in runs(tmp_path, ("scnn", "resnet18", "vgg16"))
    ]
    everything = set(STRATEGIES)
    assert (everything, {"I"}, "scnn", 1, "{}") in asked, "Tables III and IV"
    assert ({"tsn", "lwf"}, {"I"}, "resnet18", 1, "{}") in asked, "Table III's second backbone"
    assert ({"tsn"}, {"I"}, "vgg16", 1, "{}") in asked, "Table VII's further backbones"
    assert ({"tsn", "lwf"}, set(ORDERS), "scnn", 1, "{}") in asked, "Tables V and VI"
    assert (set(paper_runs.SEVERAL_SEEDS), {"I"}, "scnn", 3, "{}") in asked, "Table XIII"
    for params in TABLE_VII:
        assert ({"tsn"}, {"I"}, "scnn", 1, str(params)) in asked, "Table VII"


# its rows, but for the backbones and for TSN-IQA itself, which reads stages 3 and 4
TABLE_VII: list[dict[str, Any]] = [
    {"norms": "shared"}, {"gate_bn": "imagenet"},
    {"stages": (4,)}, {"stages": (2, 3, 4)}, {"stages": (1, 2, 3, 4)},
]  # fmt: skip


def test_an_ablation_changes_one_thing_of_what_was_asked_for(tmp_path):
    asked: dict[str, dict[str, Any]] = {
        "tsn": {"tau": 8.0, "norms": "own", "stages": (3,)},
        "lwf": {"reg_weight": 3.0},
    }
    base = replace(config(tmp_path), seeds=[0], params=asked)
    all_runs = list(paper_runs.runs(base, ["tsn", "lwf"], {"I": list(ORDERS["I"])}, ("scnn",)))
    ablated = [run.params for run in all_runs if run.params != asked]
    assert ablated == [{**asked, "tsn": {**asked["tsn"], **one}} for one in TABLE_VII]


def test_what_runs_share_is_trained_once(tmp_path):
    materials = {name: material(name) for name in NAMES}
    nodes: set[str] = set()
    for cfg in runs(tmp_path):
        nodes |= plan.make_plan(choose(cfg), materials, {}).train.keys()
    prefix = [s for s in STRATEGIES if s not in ("tsn", "tta", "sl", "jl", "liqe")]
    order_one = 6 * len(prefix) + 6 + 6 + 1 + 1  # jl and liqe learn all at once
    assert len(nodes) == order_one + 6 + 37 + 2 * 6 * len(paper_runs.SEVERAL_SEEDS)


def test_the_command_s_settings(monkeypatch):
    configs = paper_configs({})
    assert {tuple(c.test_on) for c in configs} == {paper_runs.FURTHER}
    assert {c.preset for c in configs} == {"quick"} and {c.backbone for c in configs} == {"scnn"}
    assert max(len(c.seeds) for c in configs) == 2
    configs = paper_configs(
        {"backbones": "scnn,resnet18", "weights": "random", "test_on": "none", "seeds": "4"}
    )
    assert {(c.backbone, c.weights) for c in configs} == {("scnn", None), ("resnet18", "random")}
    assert {tuple(c.seeds) for c in configs} == {(4,)} and not configs[0].test_on
    with pytest.raises(UserError, match="unknown backbone"):
        paper_configs({"backbones": "resnet19"})
