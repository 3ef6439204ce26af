"""Names of work stay what they are: finished trainings of release 0.1.0 are found again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recorded_names import CASES, OURS, ids_of, plan_of, recorded, settings_of

from cliqa_bench.config import PRESETS, Training, later, named
from cliqa_bench.execution import plan as planner
from cliqa_bench.extensions import registry
from cliqa_bench.models import pretraining_config
from cliqa_bench.models.pretraining_config import SCNN, distortion_bn_file
from cliqa_bench.reports.rows import group_records
from cliqa_bench.strategies.base import Strategy

KEPT = json.loads((Path(__file__).parent / "names_0_1_0.json").read_text(encoding="utf-8"))
PRETRAINED_HERE = "quick, ResNet-18"
"""The case whose gates have a network that we pre-trained: its pictures' version came into their names."""


def test_specs_are_those_of_0_1_0() -> None:
    assert recorded()["specs"] == KEPT["specs"]


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_0_1_0(case: str) -> None:
    now, then = ids_of(plan_of(case)), KEPT["ids"][case]
    for kind in ("train", "answers of trainings", "pictures"):
        assert now[kind] == then[kind], kind
    for kind in ("gates", "answers of gates"):
        same = set(now[kind]) & set(then[kind])
        assert same == (set() if case == PRETRAINED_HERE else set(then[kind])), kind
    gated = {r for r in then["records"] if not r.startswith(("jl-", "sl-", "avalanche-JointTraining-"))}
    changed = set(then["records"]) - set(now["records"])
    assert changed == (gated if case == PRETRAINED_HERE else set())


@pytest.mark.parametrize("name", KEPT["settings"])
def test_a_setting_that_was_added_says_so(name: str) -> None:
    cls: Any = {"training": Training, "pre-training": pretraining_config.PretrainConfig}.get(name)
    unmarked = set(settings_of(cls or registry.load("strategies", name))) - set(KEPT["settings"][name])
    assert not unmarked, (
        f"{name} has a setting that 0.1.0 had not ({', '.join(unmarked)}), and renames all finished work; "
        'declare it with cliqa_bench.config.later(DEFAULT, since="RELEASE")'
    )


@dataclass(frozen=True)
class GrownTraining(Training):
    clip: float = later(0.0, since="0.2.0")
    blocks: tuple[int, ...] = later((), since="0.2.0")


def grown(name: str) -> type[Strategy]:
    """Returns one of our strategies with a setting more, under its own name."""
    cls = registry.load("strategies", name)
    more = [("extra", float, later(0.5, since="0.2.0")), ("kinds", tuple, later((1,), since="0.2.0"))]
    made: Any = make_dataclass(cls.__name__, more, bases=(cls,))
    made.name = cls.name
    found: type[Strategy] = made
    return found


@pytest.fixture
def grown_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load
    classes = {name: grown(name) for name in OURS}
    monkeypatch.setattr(
        registry,
        "load",
        lambda kind, name: classes[name] if kind == "strategies" and name in classes else load(kind, name),
    )


def trained(plan: planner.Plan) -> set[str]:
    return set(plan.train)


def test_a_new_setting_of_the_protocol_renames_nothing_at_its_default() -> None:
    values = vars(PRESETS["quick"])
    before = ids_of(plan_of("quick, S-CNN"))
    assert ids_of(plan_of("quick, S-CNN", training=GrownTraining(**values))) == before
    for changed in ({"clip": 1.0}, {"blocks": (2,)}):
        after = plan_of("quick, S-CNN", training=GrownTraining(**values, **changed))
        assert not trained(after) & set(before["train"])
        assert ids_of(after)["gates"] == before["gates"]


@pytest.mark.usefixtures("grown_strategies")
def test_a_new_setting_of_a_strategy_renames_nothing_at_its_default() -> None:
    assert ids_of(plan_of("quick, S-CNN")) == KEPT["ids"]["quick, S-CNN"]
    for changed in ({"extra": 0.75}, {"kinds": (1, 2)}):
        after = plan_of("quick, S-CNN", params={"lwf": changed})
        new = trained(after) - set(KEPT["ids"]["quick, S-CNN"]["train"])
        assert len(new) == 2 and all(node.startswith("lwf-") for node in new)


def test_a_default_that_changes_later_says_what_was_done_before() -> None:
    @dataclass
    class Two:
        old: int = 1
        new: float = later(0.2, since="0.2.0", before=0.0)

    assert named(Two, vars(Two(new=0.0))) == {"old": 1}
    assert named(Two, vars(Two())) == {"old": 1, "new": 0.2}


def test_a_setting_of_a_user_s_own_strategy_needs_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Own(Strategy):
        rows: ClassVar[dict[str, str]] = {"last": "Own"}
        strength: float = field(default=1.0)

    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Own if name == "own" else load(kind, name))
    (spec, _) = (work.node.spec for work in plan_of("quick, S-CNN", strategy=["own"]).train.values())
    assert spec["params"] == {"warmup_rate": 0.2, "main_rate": 0.02, "strength": 1.0}


def test_runs_from_before_and_after_a_new_setting_stand_in_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliqa_bench.reports.rows.Training", GrownTraining)
    protocols = [{"crop": 96}, {"crop": 96, "clip": 0.0, "blocks": []}, {"crop": 96, "clip": 1.0}]
    records = []
    for training in protocols:
        (record,) = plan_of("quick, S-CNN", strategy=["tsn"]).records
        record.facts["config"] = {"training": training}
        records.append(record)
    assert sorted(len(group.records) for group in group_records(records)) == [1, 2]


def test_other_pictures_make_another_gate_network_and_other_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> tuple[Path, set[str], dict[str, list[str]], dict[str, list[str]]]:
        ids = {case: ids_of(plan_of(case)) for case in CASES}
        own = {case: found["gates"] for case, found in ids.items() if case != PRETRAINED_HERE}
        trainings = {case: found["train"] for case, found in ids.items()}
        return distortion_bn_file("net", "w", SCNN), set(ids[PRETRAINED_HERE]["gates"]), own, trainings

    before = look()
    monkeypatch.setattr(pretraining_config, "PICTURES", pretraining_config.PICTURES + 1)
    after = look()
    assert before[0] != after[0]
    assert not before[1] & after[1]
    assert before[2:] == after[2:]
