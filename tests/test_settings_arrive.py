"""Every field of the protocol, of the strategies and of the command line reaches what it is for, as in `run`.

Changed alone it gives new names to what depends on it and to nothing else, and the learner gets the value.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cliqa_bench.benchmarks import labelled
from cliqa_bench.benchmarks.pixels.decode import RELEASED, Reading
from cliqa_bench.cli import parser
from cliqa_bench.config import RunConfig, Training
from cliqa_bench.execution import run, worker
from cliqa_bench.execution.jobs import jobs_of, processes
from cliqa_bench.execution.plan import Plan
from cliqa_bench.extensions import registry
from cliqa_bench.models import finished
from cliqa_bench.models.pretraining_config import DISTORTION_BN
from cliqa_bench.settings.resolve import resolve
from cliqa_bench.strategies.ssiqa import BLOCKS_ALONE
from cliqa_bench.strategies.tta import TTA

ORDER = ("live", "bid", "csiq")

TRAINING: dict[str, Any] = {
    "crop": 48, "resize": 160, "pairs": "sampled", "n_pairs": 9, "warmup_batch": 7, "batch": 5,
    "warmup_epochs": 3, "epochs": 2, "lr": 0.5, "decay_epochs": (1, 2), "weight_decay": 0.25, "ties": "code",
    "slope": "code", "bn_adapts": "first", "augment": "none", "precision": "bf16",
}  # fmt: skip
"""Another value of every field than the preset's."""
OF_IMAGES = {"resize", "precision"}
"""Fields on which the gate depends, too."""

FIELDS: dict[str, Any] = {
    "centroids": 5, "tau": 2.0, "stages": (2, 4), "gate_bn": "imagenet", "warmup_rate": 0.7, "main_rate": 0.3,
    "reg_weight": 3.5, "pairs": 6, "damping": 0.7, "gradient": "task", "clamp": True, "memory": 12,
    "heads": "single", "norms": "shared", "decay": 0.25, "projection": 16, "penalties": (0.5, 2.0),
    "choose": "quantile", "krr": False, "ridge": 2.0, "gamma": "code", "centre": True, "subset": "sdk",
    "refit": "once", "capacity": 7, "k1": 20, "k2": 0, "criterion": "fidelity", "block_rate": 0.5,
    "schedule": "code", "decoupled": True, "clip": 5.0, "select": "validation", "ssiqa.memory": "reselect",
    "decoder": 6,
    "tasks": 4, "preset": 2, "shares": (0.25,), "kept": 0.2, "dense": 0.5, "relevance_on": "train",
    "soft_share": 0.3, "soft": "code", "features": "plastic", "generator": "kept", "bins": 3, "draws": 7,
    "objective": "fidelity", "head_penalty": 0.5, "hold": "none",
    "liqe.tasks": "qs", "liqe_cl.tasks": "qs", "weighting": "equal", "temperature": 5.0, "freeze_text": True,
    "learn_scale": True, "pooling": "pairs", "labels": "repaired", "ties": "half", "distortion": "binary",
    "views": 2, "images": 3, "adapt_by": "rank", "batch": 5, "prior": 2.0, "side": 64,
    "distortions": ("kadid:jpeg",), "levels": (2.0, 4.0, 5.0), "steps": 4, "lr": 0.01,
    "derpp.alpha": 0.7, "beta": 0.9, "rule": "arithmetic", "scale": 0.6,
    "gate_features": "standard", "tau_from": "validation", "scores": "standard",
    "rank": 2, "alpha": 16.0, "where": "mlp", "prompts": 8, "length": 3, "top": 2, "pull": 0.1,
}  # fmt: skip
"""Another value of every hyper-parameter than its default; with its strategy's name where they differ."""
READING: dict[str, set[str]] = {
    "centroids": {"gates"}, "gate_bn": {"gates"}, "gate_features": {"gates"}, "tau": set(), "stages": set(),
    "tau_from": {"answers"}, "scores": {"answers"},
}  # fmt: skip
"""Hyper-parameters of reading, and what they name: on ResNet-18, whose gate has a normalisation to choose."""

ANSWERING = [f.name for f in dataclasses.fields(TTA) if f.metadata.get("answering")]
"""Hyper-parameters of a transductive strategy that name answers alone."""
ON_A_VIT = {
    ("lora", "where"),
    ("ssiqa", "decoder"),
    *(("prompt", f.name) for f in dataclasses.fields(registry.load("strategies", "prompt"))),
}
"""Fields that need another backbone than ResNet-18, which has neither attention nor tokens."""

STRATEGY_FIELDS = [
    (name, field.name)
    for name in registry.names("strategies")
    for field in dataclasses.fields(registry.load("strategies", name))
    if (name, field.name) != ("tta", "scores")  # which it refuses
]


def laid_out(data: Path, out: Path, *words: str, strategy: str = "tsn") -> Plan:
    """Lays out what a command line asks for, by the path of `run`."""
    given = [
        "run", "--strategy", strategy, "--orders", ",".join(ORDER), "--data", str(data), "--out", str(out),
        "--backbone", "resnet18", "--weights", "random", "--device", "cpu", *words,
    ]  # fmt: skip
    _, args = parser.parse(given)
    return run.prepare(resolve(args.as_dict()), "")


@pytest.fixture(scope="module")
def usual(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """Returns what lays out a strategy as it is; once for all tests."""
    return functools.cache(
        lambda strategy, *words: laid_out(
            miniatures, tmp_path_factory.mktemp("usual"), *words, strategy=strategy
        )
    )


def new_names(before: Plan, after: Plan) -> set[str]:
    """Returns the kinds of nodes of which the second plan has any that the first has not."""
    kinds = ("train", "gates", "answers", "pictures")
    return {kind for kind in kinds if getattr(after, kind).keys() - getattr(before, kind).keys()}


def with_answers(kinds: set[str]) -> set[str]:
    return kinds | ({"answers"} if kinds else set())


class Arrived(Exception):
    """Ends a training before it starts."""


def arrived(plan: Plan, monkeypatch: pytest.MonkeyPatch, node: int = 0) -> dict[str, Any]:
    """Returns what the learner of one training is made with."""
    made: dict[str, Any] = {}

    def noted(**given: Any) -> None:
        made.update(given, threads=torch.get_num_threads())
        made["deterministic"] = torch.are_deterministic_algorithms_enabled()
        raise Arrived

    work = list(plan.train.values())[node]
    (job,) = [job for job in jobs_of(plan) if (job.kind, job.about) == ("train", work.node.id)]
    with monkeypatch.context() as patch, pytest.raises(Arrived):
        patch.setattr(worker, "Learner", noted)
        worker.Worker(plan, {}, lambda images, text, part: None, lambda text: None).do(job)
    return made


def test_every_field_has_another_value_here() -> None:
    assert TRAINING.keys() == {field.name for field in dataclasses.fields(Training)}
    assert {name for _, name in STRATEGY_FIELDS} == {name.rpartition(".")[2] for name in FIELDS}


@pytest.mark.parametrize("name", TRAINING)
def test_a_field_of_training_names_what_depends_on_it_and_reaches_the_learner(
    miniatures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usual: Callable[..., Plan],
    name: str,
) -> None:
    value = TRAINING[name]
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    before = usual("tsn")
    after = laid_out(miniatures, tmp_path, "--backbone", "scnn", "--set", f"training.{name}={text}")
    expected = dataclasses.replace(before.config.training, **{name: value})
    assert after.config.training == expected != before.config.training
    assert arrived(after, monkeypatch)["training"] == expected
    named = laid_out(miniatures, tmp_path, "--set", f"training.{name}={text}")
    kinds = {"train", "gates"} if name in OF_IMAGES else {"train"}
    assert new_names(before, named) == with_answers(kinds)
    assert not named.train.keys() & before.train.keys()


@pytest.mark.parametrize(("strategy", "name"), STRATEGY_FIELDS)
def test_a_strategy_s_field_gives_new_names_to_what_depends_on_it(
    miniatures: Path, tmp_path: Path, usual: Callable[..., Plan], strategy: str, name: str
) -> None:
    value = FIELDS.get(f"{strategy}.{name}", FIELDS.get(name))
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    words = ["--backbone", "vit_mini"] if (strategy, name) in ON_A_VIT else []
    before = usual(strategy, *words)
    if name in ANSWERING:  # by default half of them do not matter
        words = ["--set", "tta.adapt_by=both"]
        before = laid_out(miniatures, tmp_path, *words, strategy=strategy)
    after = laid_out(miniatures, tmp_path, *words, "--set", f"{strategy}.{name}={text}", strategy=strategy)
    if name in ANSWERING:
        assert new_names(before, after) == {"answers"}
        assert {getattr(made, name) for made in after.choice.strategies} == {value}
        return
    gated = bool(before.gates)
    kinds = READING.get(name, {"train"})
    if words and name == "gate_bn":  # it is the backbone's own
        kinds = set()
    assert new_names(before, after) == with_answers(kinds if gated or kinds == {"train"} else set())
    if kinds == {"train"}:  # SS-IQA's first experience does not depend on what matters in later ones
        shared = list(before.train)[:1] if strategy == "ssiqa" and name in BLOCKS_ALONE else []
        if strategy == "average" and name in ("rule", "scale"):  # what it is built from stays
            shared = [node for node, work in before.train.items() if not work.parts]
        assert sorted(after.train.keys() & before.train.keys()) == sorted(shared)
    trained_as = {made.trained_as().name for made in after.choice.strategies}
    asked = [work.strategy for work in after.train.values() if work.strategy.name in trained_as]
    assert {getattr(one, name) for one in asked} == {value}
    assert all(record.variant for record in after.records)
    if name == "tau":
        assert {record.tau for record in after.records} == {value}
    if name == "stages":
        assert {tuple(record.stages) for record in after.records} == {value}
    if (strategy, name) == ("tsn", "norms"):
        assert [work.previous is None for work in after.train.values()] == [True, False, False]


FLAGS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "strategy": (("--strategy", "lwf"), {"train"}),
    "orders": (("--orders", "live,clive"), {"train", "gates", "pictures"}),
    "backbone": (("--backbone", "resnet50"), {"train", "gates"}),
    "seeds": (("--seeds", "1"), {"train", "gates"}),
    "split": (("--split", "2"), {"train", "gates", "pictures"}),
    "splits": (("--splits", "1,3"), set()),  # the first of them, as it is alone
    "preset": (("--preset", "paper"), {"train", "gates"}),
    "test_on": (("--test-on", "clive"), {"answers", "pictures"}),
    "training": (("--set", "training.lr=0.5"), {"train"}),
    "params": (("--set", "tsn.norms=shared"), {"train"}),
    "device": (("--device", "auto"), set()),
    "jobs": (("--jobs", "3"), set()),
    "executor": (("--executor", "dask"), set()),
    "threads": (("--threads", "3"), set()),
    "deterministic": (("--deterministic",), set()),
    "log": (("--log", "csv"), set()),
    "srgb": (("--srgb",), set()),  # no miniature has a profile
    "max_megapixels": (("--max-megapixels", "7.5"), set()),
}
ELSEWHERE = {"data", "weights", "include", "tables", "out", "orders_as"}
"""Paths: what lies there is named by its content, which the tests of planner, backbones and addons show.
`orders_as` repeats `orders` in fewer words (test_order_designs)."""


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_names_what_depends_on_it(miniatures: Path, tmp_path: Path, name: str) -> None:
    words, kinds = FLAGS[name]
    before, after = laid_out(miniatures, tmp_path), laid_out(miniatures, tmp_path, *words)
    changed = {f.name for f in dataclasses.fields(RunConfig)
               if getattr(before.config, f.name) != getattr(after.config, f.name)}  # fmt: skip
    assert changed - {"training"} == {name} - {"training"}
    assert new_names(before, after) == with_answers(kinds)


def test_every_flag_is_tried() -> None:
    assert FLAGS.keys() | ELSEWHERE == {field.name for field in dataclasses.fields(RunConfig)}


def test_the_data_are_read_as_configured(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def any_converted(root: Path, paths: list[Path], what: str) -> bool:
        asked.append(what)
        return True

    monkeypatch.setattr(labelled, "any_converted", any_converted)
    plain = {name: m.dataset.reading for name, m in laid_out(miniatures, tmp_path).materials.items()}
    assert not asked and set(plain.values()) == {RELEASED}
    converted = laid_out(miniatures, tmp_path, "--srgb").materials.values()
    assert len(asked) == len(ORDER) and {m.dataset.reading for m in converted} == {Reading(srgb=True)}


def test_flags_reach_the_worker(miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--backbone", "scnn", "--seeds", "4", "--threads", "2", "--deterministic", "--jobs", "3")
    plan = laid_out(miniatures, tmp_path, *words)
    made = arrived(plan, monkeypatch)
    assert (made["seed"], made["threads"], made["deterministic"]) == (4, 2, True)
    assert made["device"] == torch.device("cpu")
    assert processes(plan, jobs_of(plan)) == 3
    assert arrived(laid_out(miniatures, tmp_path, "--backbone", "scnn"), monkeypatch)["threads"] == 1


def test_images_are_opened_as_configured(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = laid_out(miniatures, tmp_path, "--set", "training.resize=160", "--max-megapixels", "7.5")
    opened = []

    class Opened:
        cache = SimpleNamespace(keys=[])

        def __init__(self, *args: Any, **more: Any) -> None:
            opened.append((args, more))

        def on(self, device: torch.device) -> Any:
            return self, device

    monkeypatch.setattr(worker, "open_source", Opened)
    does = worker.Worker(plan, {}, lambda images, text, part: None, lambda text: None)
    found: Any = does.source("bid")
    assert found[1] == torch.device("cpu")
    assert opened == [((plan.materials["bid"], 160), {"max_megapixels": 7.5})]


@pytest.mark.parametrize("kind", ["gate", "distances"])
def test_the_gate_describes_training_images_and_is_asked_about_test_images(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By the network, precision, number of centroids and seed of the configuration."""
    words = ("--backbone", "scnn", "--seeds", "4", "--set", "tsn.centroids=5", "--precision", "bf16")
    plan = laid_out(miniatures, tmp_path, *words)
    (job,) = [job for job in jobs_of(plan) if (job.kind, job.about) == (kind, "bid")]
    asked, fitted = [], []

    def score(
        network: Any, source: Any, subset: str, width: int, device: Any, precision: str, *more: Any
    ) -> Any:
        asked.append((source.name, subset, precision))
        rows = np.random.default_rng(0).normal(size=(len(source.keys(subset)), width))
        return rows.astype(np.float32)

    def fit(features: Any, *names: Any) -> Any:
        fitted.append((len(features), names))
        return features[:5]

    monkeypatch.setattr(worker, "score_images", score)
    monkeypatch.setattr(worker, "fit_centroids", fit)
    does = worker.Worker(plan, {}, lambda images, text, part: None, lambda text: None)
    for needed in (*job.after, job) if kind == "distances" else (job,):
        does.do(needed)
    train = len(plan.materials["bid"].split.keys("train"))
    assert ("bid", "train", "bf16") in asked
    assert [f for f in fitted if f[1][1] == "bid"] == [(train, (5, "bid", s, 4)) for s in (1, 2, 3, 4)]
    if kind == "distances":
        assert asked[-1] == ("bid", "test", "bf16")


@pytest.mark.parametrize("gate_bn", ["distortion", "imagenet"])
def test_the_gate_s_network_has_the_normalisation_that_is_named(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate_bn: str
) -> None:
    plan = laid_out(miniatures, tmp_path, "--preset", "paper", "--set", f"tsn.gate_bn={gate_bn}")
    made = []
    monkeypatch.setattr(finished, "distortion_aware", lambda *args: made.append(args[4]))
    (job,) = [job for job in jobs_of(plan) if job.kind == "gate-net"]
    worker.Worker(plan, {}, lambda images, text, part: None, lambda text: None).do(job)
    assert made == ([DISTORTION_BN["paper"]] if gate_bn == "distortion" else [])


@pytest.mark.parametrize(
    ("strategy", "datasets"),
    [("jl", [3]), ("sl", [1, 1, 1]), ("lwf", [1, 1, 1]), ("avalanche:Cumulative", [1, 2, 3])],
)
def test_joint_and_cumulative_experiences_hold_all_their_datasets(
    miniatures: Path, tmp_path: Path, strategy: str, datasets: list[int]
) -> None:
    plan = laid_out(miniatures, tmp_path, strategy=strategy)
    works = list(plan.train.values())
    assert [len(work.datasets) for work in works] == datasets
    assert Counter(name for work in works[-1:] for name in work.datasets) == Counter(
        ORDER if datasets[-1] == 3 else ORDER[-1:]
    )
    first = 0 if datasets[-1] == 3 else len(works[-1].sequence) - 1
    assert works[-1].first_task == first
