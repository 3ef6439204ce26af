"""Averaged backbones, and the door behind it: models that are built from finished ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from test_planner import config, lay_out

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution import plan as planner
from cliqa_bench.execution.clean import find_unused
from cliqa_bench.execution.jobs import jobs_of
from cliqa_bench.extensions import registry
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.results.records import read_records, write_record
from cliqa_bench.strategies.average import Average, arithmetic, mean
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.lwf import LwF
from cliqa_bench.strategies.sl import SL
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import new_model

pytestmark = pytest.mark.usefixtures("one_thread")
THREE = ["live", "bid", "csiq"]


# -- the rules -----------------------------------------------------------------------------------------------


def parts_of(n: int) -> list[QualityModel]:
    """Makes models whose weights, heads and statistics differ."""
    made = []
    for i in range(n):
        model = new_model(SL())
        model.add_task()
        rng = torch.Generator().manual_seed(i)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=rng))
            else:
                tensor.fill_(i + 5)
        made.append(model)
    return made


@pytest.mark.parametrize(("rule", "scale"), [("mean", 0.4), ("arithmetic", 0.4), ("arithmetic", 1.0)])
@pytest.mark.parametrize("n", [1, 3])
def test_weights_are_those_of_numpy(rule: Any, scale: float, n: int) -> None:
    strategy = Average(rule=rule, scale=scale)
    parts, model, start = parts_of(n), new_model(strategy), new_model(strategy)
    strategy.build(model, parts)
    weights = {name for name, _ in model.net.named_parameters()}
    statistics = 0
    for name, tensor in model.net.state_dict().items():
        begun: NDArray[Any] = start.net.state_dict()[name].numpy()
        found = np.stack([part.net.state_dict()[name].numpy() for part in parts]).astype(np.float64)
        if not tensor.is_floating_point():
            expected = begun
        elif rule == "mean" or name not in weights:
            statistics += "running" in name
            expected = (found.sum(axis=0) / n).astype(np.float32)
        else:
            expected = (begun + scale * (found - begun).sum(axis=0)).astype(np.float32)
        np.testing.assert_allclose(
            tensor.numpy(), expected, rtol=0, atol=1e-7 * max(1, np.abs(expected).max())
        )
    assert statistics, "the statistics of the normalisation are averaged under both rules"
    for part, head in zip(parts, model.heads, strict=True):
        assert torch.equal(part.heads[0].weight, head.weight)  # type: ignore[arg-type]


def test_a_scale_of_one_part_each_is_the_mean_and_none_changes_what_all_share() -> None:
    rng = np.random.default_rng(0)
    start, *found = (torch.from_numpy(rng.normal(size=1000).astype(np.float32)) for _ in range(6))
    torch.testing.assert_close(arithmetic(start, found, 1 / 5), mean(found), rtol=0, atol=1e-14)
    assert torch.equal(mean([start] * 5).float(), start) and torch.equal(mean([start]).float(), start)
    assert torch.equal(arithmetic(start, [start] * 5, 0.4).float(), start)


def test_no_order_changes_a_bit() -> None:
    rng = np.random.default_rng(0)
    found = [torch.from_numpy(rng.normal(size=2000) * 10.0 ** rng.integers(-9, 9)) for _ in range(6)]
    turned = [found[i] for i in (3, 5, 0, 1, 4, 2)]
    start = torch.zeros(2000, dtype=torch.float64)
    assert torch.equal(mean(found), mean(turned))
    assert torch.equal(arithmetic(start, found, 0.4), arithmetic(start, turned, 0.4))
    plain = [sum(some[1:], start=some[0]) for some in (found, turned)]
    assert not torch.equal(plain[0], plain[1]), "a plain sum does depend on it here"


def test_rows_are_named_after_the_rule() -> None:
    assert Average().table_rows() == {"last": "Average", "gate": "Average-KG", "oracle": "Average-O"}
    named = Average(rule="arithmetic").table_rows()
    assert named == {"last": "Task arithmetic", "gate": "Task arithmetic-KG", "oracle": "Task arithmetic-O"}
    with pytest.raises(UserError, match=r"average\.scale must be above 0"):
        Average(scale=0.0)


# -- the contract --------------------------------------------------------------------------------------------


@dataclass
class Careless(Average):
    """Does what follows wrong, one thing each."""


@dataclass
class Spoils(Careless):
    def build(self, model: QualityModel, parts: Any) -> None:
        super().build(model, parts)
        parts[0].net.state_dict().popitem()[1].add_(1)


@dataclass
class TakesTheFirst(Careless):
    def build(self, model: QualityModel, parts: Any) -> None:
        super().build(model, parts)
        model.net.load_state_dict(parts[0].net.state_dict())


@dataclass
class OneHead(Careless):
    def build(self, model: QualityModel, parts: Any) -> None:
        super().build(model, parts[:1])


@dataclass
class FromWhatDepends(Careless):
    @property
    def built_from(self) -> Strategy:
        return LwF()


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (Spoils, "changes what it is built from"),
        (TakesTheFirst, "the order of the datasets changes"),
        (OneHead, "1 heads for 3 datasets"),
        (FromWhatDepends, "does not learn every dataset on its own"),
    ],
)
def test_the_contract_notices(cls: type[Strategy], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cliqa_bench.testing import contract

    made = iter(parts_of(3))
    if cls is not FromWhatDepends:  # training would take longer than what is tested
        monkeypatch.setattr(contract._Watch, "_part", lambda self, group: next(made))
    with pytest.raises(AssertionError, match=complaint):
        check_strategy(cls)


# -- the plan ------------------------------------------------------------------------------------------------


def test_its_parts_are_the_nodes_of_a_run_of_sl_and_sets_are_shared(tmp_path: Path) -> None:
    orders = {"a": THREE, "b": ["bid", "live", "csiq"], "c": ["csiq", "bid", "live"]}
    alone = lay_out(config(tmp_path, strategy=["sl"], orders=orders))
    plan = lay_out(config(tmp_path, strategy=["average"], orders=orders))
    built = {id_: work for id_, work in plan.train.items() if work.parts}
    assert plan.train.keys() - built.keys() == alone.train.keys()
    # {live} {bid} {csiq}, {live, bid} twice, {csiq, bid}, and all three three times
    assert sorted(work.sequence for work in built.values()) == sorted(
        [("live",), ("bid",), ("csiq",), ("bid", "live"), ("bid", "csiq"), ("bid", "csiq", "live")]
    )
    seen: set[str] = set()
    for id_, work in plan.train.items():
        assert {part.node.id for part in work.parts} <= seen, "parents come before their children"
        assert [part.dataset for part in work.parts] == (list(work.sequence) if work.parts else [])
        seen.add(id_)
    for record in plan.records:
        for t, step in enumerate(record.steps):
            names = [built[node].sequence[column] for node, column in step.heads]
            assert names == record.sequence[: t + 1] and step.dataset == record.sequence[t]
    assert set(plan.missing()._replace(gates=[], answers=[], pictures=[]).used()) == set(THREE)


def test_jobs_wait_for_the_parts_and_read_no_image(tmp_path: Path) -> None:
    plan = lay_out(config(tmp_path, strategy=["average"], orders={"a": THREE}))
    by_key = {job.key: job for job in jobs_of(plan)}
    for work in plan.train.values():
        job = by_key[f"train  {work.node.id}"]
        if work.parts:
            assert {needed.about for needed in job.after} == {part.node.id for part in work.parts}
            assert job.images == 0 and job.title.startswith("build average on ")
        else:
            assert [needed.kind for needed in job.after] == ["check"]
    (record,) = plan.records
    assert record.facts["built_from"] == [w.node.id for w in list(plan.train.values())[-1].parts]


def test_another_rate_is_another_separate_learning(tmp_path: Path) -> None:
    usual, other, scaled = (
        lay_out(config(tmp_path, strategy=["average"], orders={"a": THREE}, params={"average": params}))
        for params in ({}, {"main_rate": 0.5}, {"rule": "arithmetic"})
    )
    assert not usual.train.keys() & other.train.keys()
    assert {usual.train[i].strategy.name for i in usual.train.keys() & scaled.train.keys()} == {"sl"}
    assert {w.strategy.main_rate for w in other.train.values()} == {0.5}


@dataclass
class Faster(Average):
    @property
    def built_from(self) -> Strategy:
        return SL(main_rate=0.9)


def test_what_it_is_built_from_is_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own hyper-parameters are the same, those of the separate learning are not."""
    load, asked = registry.load, config(tmp_path, strategy=["average"], orders={"a": THREE})
    usual = lay_out(asked)
    monkeypatch.setattr(Faster, "name", "average")
    monkeypatch.setattr(
        registry, "load", lambda kind, name: Faster if name == "average" else load(kind, name)
    )
    assert not lay_out(asked).train.keys() & usual.train.keys()


def test_what_it_is_built_from_learns_every_dataset_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: FromWhatDepends if name == "average" else load(kind, name)
    )
    with pytest.raises(UserError, match=r"is built from lwf: lwf\.depends_on must be 'nothing'"):
        lay_out(config(tmp_path, strategy=["average"]))


# -- a run ---------------------------------------------------------------------------------------------------

SHORT = ["--set", "training.warmup_epochs=0", "--set", "training.epochs=1", "--weights", "random"]


def ran(data: Path, out: Path, *words: str) -> int:
    given = ["run", "--data", str(data), "--out", str(out), "--preset", "quick", "--no-figures", *SHORT]
    return parser.main([*given, *words])


def contents(out: Path) -> dict[str, bytes]:
    paths = [path for kind in ("train", "answers") for path in (out / kind).rglob("*") if path.is_file()]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths if p.name != "done.json"}


@pytest.mark.slow
def test_a_run_shares_builds_resumes_and_is_verified(miniatures: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert ran(miniatures, one, "--strategy", "sl,average", "--orders", "live,bid") == 0
    separate = sorted((one / "train").glob("sl-*"))
    assert len(separate) == 2 and len(list((one / "train").glob("average-*"))) == 2
    assert ran(miniatures, two, "--strategy", "average", "--orders", "live,bid", "--jobs", "2") == 0
    theirs = contents(two)
    assert theirs.items() <= contents(one).items(), "one process or two, with sl or alone"
    set2 = next((one / "train").glob("average-scnn-set2-*"))
    weights = [load_file(node / "state.safetensors") for node in separate]  # bid, live: as the heads
    built = load_file(set2 / "state.safetensors")
    for name, tensor in built.items():
        if name.startswith("net.") and tensor.dtype == np.float32:
            expected = (weights[0][name].astype(np.float64) + weights[1][name]) / 2
            np.testing.assert_array_equal(tensor, expected.astype(np.float32))
    for i, learned in enumerate(weights):
        np.testing.assert_array_equal(built[f"heads.{i}.weight"], learned["heads.0.weight"])
    before = contents(one)
    for path in sorted(set2.glob("*"), reverse=True):
        path.unlink()
    set2.rmdir()
    assert ran(miniatures, one, "--strategy", "average", "--orders", "live,bid") == 0
    assert contents(one) == before, "what was lost is built again, to the byte"
    assert verify(one).ok and verify(two).ok
    assert not find_unused(two).unused, "a run of average alone keeps its parts"
    # another order: one set more, no training
    assert ran(miniatures, two, "--strategy", "average", "--orders", "bid,live") == 0
    more = {Path(name).parts[1] for name in contents(two).keys() - theirs.keys() if name.startswith("train")}
    assert len(more) == 1 and more.pop().startswith("average-scnn-set1-")


def test_parts_are_used(tmp_path: Path) -> None:
    """`clean` leaves what the record of an average alone is built from."""
    plan = lay_out(config(tmp_path, strategy=["average"], orders={"a": THREE}))
    (record,) = plan.records
    write_record(tmp_path, record)
    for work in plan.train.values():
        with work.node.building({}) as folder:
            (folder / "state.safetensors").write_bytes(b"")
    assert all(work.node.done for work in plan.train.values())
    assert not [item for item in find_unused(tmp_path).unused if item.kind == "node"]
    (back,) = read_records(tmp_path)
    json_facts = json.loads(json.dumps(record.facts["built_from"]))
    assert back.facts["built_from"] == json_facts and planner.Plan.missing(plan).train == []


class Unbuilt(Strategy):
    rows: ClassVar[dict[str, str]] = {"last": "unbuilt"}


def test_what_learns_is_built_from_nothing() -> None:
    assert Unbuilt().built_from is None
    with pytest.raises(NotImplementedError):
        Unbuilt().build(new_model(SL()), [])
