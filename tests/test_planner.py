"""The tree of work: what is shared, what a name depends on, what is missing."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from cliqa_bench.benchmarks.pairs import images_in_step_epoch
from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.config import PRESETS, RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution import plan as planner
from cliqa_bench.execution import work_size
from cliqa_bench.extensions import registry
from cliqa_bench.settings.choice import choose
from cliqa_bench.strategies.base import Strategy

NAMES = ORDERS["I"]


@dataclass
class OnPrefix(Strategy):
    rows: ClassVar = {"last": "P"}
    strength: float = 1.0


@dataclass
class OnSet(OnPrefix):
    depends_on = "set"


def material(name, fingerprint="f"):
    dataset = SimpleNamespace(
        name=name, title=name.upper(), generated={}, n_pairs_paper=100, n_pairs_files=None
    )
    split = SimpleNamespace(keys=lambda subset: [subset] * {"train": 70, "val": 10, "test": 20}[subset])
    return SimpleNamespace(
        name=name,
        dataset=dataset,
        split=split,
        fingerprint=name + fingerprint,
        generated=True,
        aspects_digest=name + "aspects",
    )


def config(tmp_path: Path, **more) -> RunConfig:
    base = RunConfig(
        strategy=["tsn"], orders={k: list(v) for k, v in ORDERS.items()}, data=None, backbone="scnn",
        weights="random", seeds=[0], split="1", preset="quick", training=PRESETS["quick"], out=tmp_path,
    )  # fmt: skip
    return replace(base, **more)


def lay_out(cfg, **fingerprints):
    return planner.make_plan(choose(cfg), {n: material(n, fingerprints.get(n, "f")) for n in NAMES}, {})


@pytest.fixture
def with_strategies(monkeypatch):
    load = registry.load
    own = {"onprefix": OnPrefix, "onset": OnSet}
    monkeypatch.setattr(registry, "load", lambda kind, name: own.get(name) or load(kind, name))


def test_eight_orders_of_tsn_are_six_trainings_six_gates_and_72_answers(tmp_path):
    plan = lay_out(config(tmp_path))
    assert (len(plan.train), len(plan.gates), len(plan.answers), len(plan.records)) == (6, 6, 72, 8)


def test_a_record_says_which_of_its_data_is_generated(tmp_path):
    materials = {name: material(name) for name in ("live", "bid", "csiq")}
    materials["bid"].generated = False
    settings = config(tmp_path, orders={"a": ["live", "bid"], "b": ["bid"]}, test_on=["csiq"])
    records = planner.make_plan(choose(settings), materials, {}).records
    assert [record.facts["generated"] for record in records] == [["live", "csiq"], ["csiq"]]
    assert all(record.generated for record in records)


def test_eight_orders_of_a_prefix_strategy_are_43_trainings(tmp_path, with_strategies):
    plan = lay_out(config(tmp_path, strategy=["onprefix"]))
    assert len(plan.train) == 43
    works = list(plan.train.values())
    for work in works:
        assert (work.previous is None) == (len(work.sequence) == 1)
        if work.previous is not None:
            assert work.previous.sequence == work.sequence[:-1]
            assert works.index(work.previous) < works.index(work), "a parent comes before its children"


def test_a_set_strategy_trains_each_distinct_set_of_an_order_once(tmp_path, with_strategies):
    plan = lay_out(config(tmp_path, strategy=["onset"]))
    assert len(plan.train) == 1, "eight orders of the same six datasets"
    (work,) = plan.train.values()
    assert work.datasets == tuple(sorted(NAMES))
    assert [len(record.steps) for record in plan.records] == [1] * 8
    orders = {"a": ["bid", "live"], "b": ["live", "bid"], "c": ["bid", "csiq"]}
    assert len(lay_out(config(tmp_path, strategy=["onset"], orders=orders)).train) == 2


@pytest.mark.parametrize(
    ("name", "trainings", "gates"),
    [("tsn", 6, 6), ("sl", 6, 0), ("jl", 1, 0), *((n, 43, 6) for n in ("lwf", "si", "mas", "ewc", "replay"))],
)
def test_trainings_and_gates_of_eight_orders(tmp_path, name, trainings, gates):
    plan = lay_out(config(tmp_path, strategy=[name]))
    assert (len(plan.train), len(plan.gates)) == (trainings, gates)


@pytest.mark.parametrize(
    ("name", "params", "widths"),
    [
        ("tsn", {}, [1, 2, 3]),
        ("lwf", {}, [1, 2, 3]),
        ("naive", {"heads": "single"}, [1, 1, 1]),
        ("sl", {}, [1, 1, 1]),
        ("jl", {}, [1]),
    ],
)
def test_a_record_names_the_heads_of_every_step(tmp_path, name, params, widths):
    cfg = config(tmp_path, strategy=[name], orders={"x": list(NAMES[:3])}, params={name: params})
    plan = lay_out(cfg)
    (record,) = plan.records
    assert [len(step.heads) for step in record.steps] == widths
    newest = [step.heads[-1][0] for step in record.steps]
    assert newest == [w.node.id for w in plan.train.values()], "the newest head is in the step's own node"
    assert record.rows == registry.load("strategies", name)(**params).table_rows()
    assert bool(record.gates) == ("gate" in record.rows)


def test_an_order_free_strategy_needs_six_trainings_for_any_order(tmp_path):
    cfg = config(tmp_path, orders={"bid,live": ["bid", "live"], "live,bid": ["live", "bid"]})
    plan = lay_out(cfg)
    assert len(plan.train) == 2
    steps = [step.heads for step in plan.records[0].steps]
    assert [len(heads) for heads in steps] == [1, 2]
    assert steps[1][0] == steps[0][0], "the first task's head is the same node in every step"


def test_heads_of_a_prefix_strategy_are_columns_of_the_newest_node(tmp_path, with_strategies):
    plan = lay_out(config(tmp_path, strategy=["onprefix"], orders={"I": list(NAMES)}))
    last = plan.records[0].steps[-1].heads
    assert len({node for node, _ in last}) == 1
    assert [column for _, column in last] == list(range(6))


@pytest.mark.parametrize(
    ("change", "new_train", "new_gates"),
    [
        ({}, 0, 0),
        ({"seeds": [1]}, 6, 6),
        ({"training": replace(PRESETS["quick"], lr=1.0)}, 6, 0),
        ({"training": replace(PRESETS["quick"], resize=256)}, 6, 6),
        ({"params": {"tsn": {"tau": 16.0}}}, 0, 0),
        ({"params": {"tsn": {"stages": (4,)}}}, 0, 0),
        ({"params": {"tsn": {"centroids": 64}}}, 0, 6),
        ({"backbone": "resnet18"}, 6, 6),
        ({"device": "cuda"}, 0, 0),
    ],
)
def test_a_node_is_named_by_exactly_what_it_depends_on(tmp_path, change, new_train, new_gates):
    before, after = lay_out(config(tmp_path)), lay_out(config(tmp_path, **change))
    assert len(after.train.keys() - before.train.keys()) == new_train
    assert len(after.gates.keys() - before.gates.keys()) == new_gates


def test_changed_data_touch_only_what_saw_them(tmp_path):
    before, after = lay_out(config(tmp_path)), lay_out(config(tmp_path), bid="changed")
    assert {k.split("-")[2] for k in after.train.keys() - before.train.keys()} == {"bid"}
    # six new answers about the changed test set, and one new node and gate with six answers each
    assert len(after.answers.keys() - before.answers.keys()) == 2 * (6 + 5)


def test_reading_choices_are_told_apart_in_the_records(tmp_path):
    record = lay_out(config(tmp_path, params={"tsn": {"tau": 16.0}})).records[0]
    assert record.variant == "tau=16.0"
    assert record.tau == 16.0
    assert record.id != lay_out(config(tmp_path)).records[0].id


@pytest.mark.parametrize(
    ("change", "stages"),
    [({}, [3, 4]), ({"backbone": "two_stream"}, [1]), ({"params": {"tsn": {"stages": (2, 4)}}}, [2, 4])],
)
def test_the_gate_reads_the_backbone_s_stages_unless_others_are_named(tmp_path, change, stages):
    assert lay_out(config(tmp_path, **change)).records[0].stages == stages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"tsn": {"stages": (5,)}}}, "stages 1 to 4"),
        ({"params": {"tsn": {"stages": (0,)}}}, "stages 1 to 4"),
        ({"params": {"tsn": {"centroids": 0}}}, "at least 1"),
        ({"params": {"tsn": {"tau": -5.0}}}, "0 .* or more"),
        ({"weights": "/no/such/file"}, "no such file"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        lay_out(config(tmp_path, **change))
    assert not list(tmp_path.iterdir())


def test_images_counts_training_and_validation_passes(tmp_path):
    plan = lay_out(config(tmp_path))
    epochs = PRESETS["quick"].warmup_epochs + PRESETS["quick"].epochs
    assert work_size.images_of(plan, next(iter(plan.train.values()))) == epochs * 80
    (joint,) = lay_out(config(tmp_path, strategy=["jl"])).train.values()
    assert work_size.images_of(plan, joint) == 6 * epochs * 80
    params = {"liqe": {"tasks": "q"}}
    (in_step,) = lay_out(config(tmp_path, strategy=["liqe"], params=params)).train.values()
    assert work_size.images_of(plan, in_step) == 6 * epochs * 80, "datasets of one size, each once an epoch"
    single = lay_out(config(tmp_path, strategy=["naive"], params={"naive": {"heads": "single"}}))
    counts = [work_size.images_of(single, work) for work in single.train.values()]
    assert counts[:2] == [epochs * 80, PRESETS["quick"].epochs * 80]


def test_in_steps_of_several_datasets_the_shorter_ones_pass_again():
    # 5, 2 and 3 mini-batches; a rest of one image is left out: 10, then 4 + 4 + 2, then 9 + 6
    assert images_in_step_epoch([11, 4, 10], [2, 2, 3]) == 10 + 10 + 15
    assert images_in_step_epoch([3, 1], [2, 2]) == 2


@pytest.mark.parametrize(
    ("name", "params", "added", "passes"),
    [
        # the paper's numbers: 9,600 gammas and betas, a head of 512; 128 centroids of 256 + 512 values
        ("tsn", {}, 10_112, {"gate": 7, "gate-hard": 2, "oracle": 1, "last": 1}),
        ("tsn", {"norms": "shared"}, 512, {"gate": 2, "gate-hard": 2, "oracle": 1, "last": 1}),
        ("lwf", {}, 512, {"gate": 2, "oracle": 1, "last": 1}),
        ("sl", {}, 11_176_512 + 512, {"last": 1}),
        ("jl", {}, 0, {"last": 1}),
    ],
)
def test_what_a_strategy_costs(name, params, added, passes):
    strategy = registry.load("strategies", name)(**params)
    cost = work_size.cost(registry.load("backbones", "resnet18"), strategy, tasks=6)
    assert (cost["task_parameters"], cost["passes"]) == (added, passes)
    assert cost["centroid_values"] == (98_304 if "gate" in passes else 0)
    assert (cost["backbone_parameters"], cost["gmacs_224"]) == (11_176_512, 1.81)


def test_the_first_experience_of_ssiqa_is_one_training_for_all_its_ablations(tmp_path):
    def ids(**params):
        more = {"strategy": ["ssiqa"], "orders": {"a": ["live", "csiq", "bid"]}, "params": {"ssiqa": params}}
        return list(lay_out(config(tmp_path, **more)).train)

    plain = ids()
    assert len(plain) == 3
    for params in ({"krr": False}, {"k1": 0}, {"k2": 7}, {"memory": "reselect"}, {"refit": "once"}):
        other = ids(**params)
        assert other[0] == plain[0]
        assert not set(other[1:]) & set(plain[1:])
    assert not set(ids(ridge=2.0)) & set(plain)
