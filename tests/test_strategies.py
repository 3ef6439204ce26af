"""Every strategy: the contract, its formulas against numpy and the published code, and what it says."""

import importlib
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import oracles
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import norm
from torch import nn

from cliqa_bench.benchmarks.decoded import Batch, open_source
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.pairs import batch_pairs, true_probability
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.cli import parser
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.learning.minibatches import mixed_evenly
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.metrics import srcc
from cliqa_bench.models.gates import fit_centroids
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.seeds import seed_for
from cliqa_bench.strategies import _quadratic
from cliqa_bench.strategies._quadratic import fixed, quadratic_penalty, sum_over_pairs
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.ewc import EWC
from cliqa_bench.strategies.jl import JL
from cliqa_bench.strategies.lwf import LwF, distillation
from cliqa_bench.strategies.mas import MAS
from cliqa_bench.strategies.naive import Naive
from cliqa_bench.strategies.replay import Replay
from cliqa_bench.strategies.si import SI
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

VARIANTS = [
    ("tsn", {"norms": "shared"}),
    ("naive", {"heads": "single"}),
    ("si", {"gradient": "task", "clamp": True}),
    ("mas", {"pairs": 10}),
    ("replay", {"memory": 5}),
    ("rr", {"tasks": 3, "kept": 0.1, "shares": (0.67, 0.5), "relevance_on": "train", "dense": 0.7}),
    ("liqe", {"tasks": "q", "learn_scale": True, "views": 2}),
    ("liqe_cl", {"tasks": "qd", "memory": 5, "views": 2}),
    ("tta", {"norms": "shared", "adapt_by": "both", "steps": 1}),
    ("silf", {"preset": 2, "kept": 0.0, "shares": (0.7,), "soft_share": 0.4, "soft": "code"}),
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources():
    with tiny_sources() as made:
        yield made


def load(shared, name):
    return np.load(shared / "golden" / f"{name}.npz", allow_pickle=False)


# -- the contract --------------------------------------------------------------------------------------------


RELATED = (
    "derpp", "ema", "ewc", "jl", "liqe", "liqe_cl", "lora", "mas", "naive", "prompt", "rr", "silf", "sl",
    "ssiqa", "tta",
)  # fmt: skip
"""Strategies that share most of their code with another, or are run in a file of their own."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in RELATED else [])
        for name in registry.names("strategies")
    ],
)
def test_it_keeps_the_contract(name):
    check_strategy(registry.load("strategies", name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_it_keeps_the_contract_otherwise_set(name, params):
    check_strategy(registry.load("strategies", name), **params)


@dataclass
class Careless(Strategy):
    """Trains like naive; what follows does one thing wrong each."""

    rows: ClassVar = {"last": "careless"}


@dataclass
class MovesWeights(Careless):
    def consolidate(self, learner):
        with torch.no_grad():
            learner.model.heads[0].weight += 1


@dataclass
class Forgetful(Careless):
    """Its penalty hangs on something that `state` does not hand on."""

    def penalty(self, learner):
        return None if not vars(self).get("past") else 9 * (learner.model.heads[0].weight ** 2).sum()

    def trainable(self, model, task, warmup):
        return list(model.heads.parameters())

    def consolidate(self, learner):
        self.past = True


@dataclass
class Hoarder(Careless):
    def penalty(self, learner):
        rng = np.random.default_rng(0)
        batches = [s.batch_of(s.indices("train"), learner.training, rng) for s in learner.seen.values()]
        return sum(learner.loss_on(b, t) for t, b in enumerate(batches)) if batches else None


@dataclass
class Photographer(Careless):
    def state(self):
        return {"crops": torch.zeros(2, 3, 32, 32)}


@dataclass
class Detached(Careless):
    def penalty(self, learner):
        return torch.tensor(1.0)


@dataclass
class Pointless(Careless):
    def penalty(self, learner):
        return 0 * learner.model.heads[0].weight.sum()


@dataclass
class Restless(Careless):
    def after_step(self, learner):
        with torch.no_grad():
            learner.model.heads[0].weight += 1


@dataclass
class Dicer(Careless):
    def after_step(self, learner):
        with torch.no_grad():
            learner.model.heads[learner.task].weight += 0.1 * np.random.randn()


@dataclass
class Absent(Careless):
    def __post_init__(self):
        super().__post_init__()
        self.steps = 0

    def after_step(self, learner):
        self.steps += 1
        with torch.no_grad():
            learner.model.heads[learner.task].weight += 0.01 * self.steps

    def consolidate(self, learner):
        self.steps = 0

    def progress(self):
        return {}


@dataclass
class Hasty(Careless):
    def trainable(self, model, task, warmup):
        return list(model.parameters())


@dataclass
class Unnamed(Careless):
    rows: ClassVar = {}


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (MovesWeights, "consolidate changes weights"),
        (Forgetful, "resuming from files"),
        (Hoarder, "images of earlier datasets"),
        (Photographer, "looks like images"),
        (Detached, "no gradient"),
        (Pointless, "never positive"),
        (Restless, "is not trainable"),
        (Dicer, "resuming from files"),
        pytest.param(Absent, "resuming an interrupted epoch", marks=pytest.mark.slow),
        pytest.param(Hasty, "changes in the warm-up", marks=pytest.mark.slow),
        (Unnamed, "has no row"),
    ],
)
def test_the_contract_notices(cls, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_strategy(cls)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("si", {"damping": 0.0}, "si.damping must be above 0"),
        ("lwf", {"reg_weight": -1.0}, "lwf.reg_weight must be at least 0"),
        ("ewc", {"reg_weight": float("nan")}, "ewc.reg_weight must be at least 0"),
        ("mas", {"pairs": -1}, "mas.pairs must be at least 0"),
        ("replay", {"memory": 1}, "replay.memory must be at least 2"),
        ("sl", {"main_rate": 0.0}, "sl.main_rate must be above 0"),
    ],
)
def test_nonsense_is_refused(name, params, message):
    with pytest.raises(UserError, match=message):
        registry.load("strategies", name)(**params)


def test_published_constants_are_the_defaults():
    weights = {n: registry.load("strategies", n)().reg_weight for n in ("lwf", "si", "mas", "ewc")}
    assert weights == {"lwf": 10, "si": 1000, "mas": 10, "ewc": 10000}
    assert (SI().damping, SI().gradient, SI().clamp) == (0.1, "total", False)


def test_what_trains_the_whole_network_has_the_rates_of_the_published_code(sources):
    training = replace(TRAINING, lr=1e-3, warmup_epochs=1, epochs=2, decay_epochs=(2,))
    rates = {"sl": [2e-4, 2e-5, 2e-6], "lwf": [2e-4, 2e-5, 2e-6], "tsn": [1e-3, 1e-3, 1e-4]}
    for name, expected in rates.items():
        strategy = registry.load("strategies", name)()
        history = learn(strategy, new_model(strategy), sources[:1], training).history
        assert [h["lr"] for h in history] == pytest.approx(expected)


# -- LwF -----------------------------------------------------------------------------------------------------


def as_rows(pairs):
    """(p, 2, heads) scores as (2 p, heads), with the rows of the pairs."""
    rows = torch.from_numpy(pairs).transpose(0, 1).flatten(0, 1)
    return rows, torch.arange(len(pairs)), torch.arange(len(pairs)) + len(pairs)


def test_distillation_is_that_of_the_published_code(shared):
    golden = load(shared, "lwf")
    new, first, second = as_rows(golden["new_scores"][:, :, :3])
    old, _, _ = as_rows(golden["old_scores"])
    got = float(golden["weight"]) * distillation(new, old, first, second, "code")
    assert float(got) == pytest.approx(float(golden["penalty"]), rel=1e-6)


def test_distillation_in_numpy():
    rng = np.random.default_rng(1)
    new, old = rng.normal(size=(2, 9, 4))
    first, second = batch_pairs(9)
    expected = 0.0
    for head in range(4):
        p, g = (norm.cdf((s[first, head] - s[second, head]) / np.sqrt(2)) for s in (new, old))
        expected += float(np.mean(oracles.fidelity(p, g)))
    rows = torch.from_numpy(first), torch.from_numpy(second)
    assert float(distillation(torch.tensor(new), torch.tensor(old), *rows)) == pytest.approx(
        expected, abs=1e-6
    )


def test_the_teacher_is_the_model_after_the_warm_up_and_its_statistics_stand_still(sources):
    seen: dict[str, Any] = {}

    class Noted(LwF):
        def after_warmup(self, learner):
            super().after_warmup(learner)
            if self._teacher is not None:
                seen["teacher"], seen["then"] = self._teacher, fixed(learner.model.state_dict())

        def penalty(self, learner):
            value = super().penalty(learner)
            if value is not None:
                steps.append((float(value.detach()), self._expected(learner)))
            return value

        def _expected(self, learner):
            twin = new_model(LwF())
            twin.add_task()
            twin.add_task()
            twin.load_state_dict(seen["then"])
            with torch.no_grad():
                old = twin.eval()(learner.mb_x)[:, 0].double().numpy()
            new = learner.mb_output[:, 0].detach().double().numpy()
            first, second = (part.numpy() for part in learner.pairs[:2])
            p, g = (norm.cdf((s[first] - s[second]) / np.sqrt(2)) for s in (new, old))
            return self.reg_weight * np.mean(oracles.fidelity(p, g))

    steps: list[tuple[float, float]] = []
    start = new_model(LwF())
    start.add_task()
    start.add_task()
    strategy = Noted(reg_weight=1.0, warmup_rate=1.0, main_rate=1.0)
    learner = learn(strategy, new_model(LwF()), sources[:2], replace(TRAINING, lr=0.02))
    then, now = seen["then"], seen["teacher"].state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in then.items())
    assert not torch.equal(then["heads.1.weight"], start.state_dict()["heads.1.weight"])
    statistics = [name for name in then if "running_" in name and "tasks" not in name]
    last = learner.last_state
    moved = [name for name in statistics if name in last and not torch.equal(last[name], then[name])]
    assert moved, "the student's normalisation adapts, the teacher's does not"
    told, expected = np.array(steps).T
    assert len(told) > 3 and expected.min() > 1e-5
    # the largest difference seen is 2.4e-6: the teacher's normalisation is folded into its convolutions
    np.testing.assert_allclose(told, expected, rtol=0, atol=7e-6)


@pytest.mark.parametrize("slope", ["paper", "code"])
@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_the_penalty_of_lwf_on_a_third_task_is_that_of_numpy(sources, slope, weight):
    """Of the first step after the warm-up, where the teacher's weights are the student's."""
    seen: dict[str, Any] = {}

    class Noted(LwF):
        def penalty(self, learner):
            value = super().penalty(learner)
            if value is not None and learner.task == 2 and not seen:
                model = learner.model
                x = learner.mb_x
                net = QualityModel(registry.load("backbones", "scnn").build("random", 3), 128).net
                net.load_state_dict(model.net.state_dict() | statistics)
                old = net.eval()(x).final.detach().double().numpy()
                heads = [head.weight[0].detach().double().numpy() for head in model.heads[:2]]
                seen["old"] = np.stack([old @ head for head in heads], axis=1)
                seen["new"] = learner.mb_output[:, :2].detach().double().numpy()
                seen["pairs"] = [part.numpy() for part in learner.pairs[:2]]
                seen["penalty"] = float(value.detach())
            return value

        def after_warmup(self, learner):
            super().after_warmup(learner)
            net = learner.model.net.state_dict()
            statistics.update({k: v.clone() for k, v in net.items() if "running_" in k})

    statistics: dict[str, torch.Tensor] = {}
    training = replace(TRAINING, slope=slope, epochs=1, lr=0.02)
    strategy = Noted(reg_weight=weight, warmup_rate=1.0, main_rate=1.0)
    learn(strategy, new_model(LwF()), sources, training)
    first, second = seen["pairs"]
    scale = np.sqrt(2) if slope == "paper" else 1.0
    expected = 0.0
    for head in range(2):
        p, g = (norm.cdf((s[first, head] - s[second, head]) / scale) for s in (seen["new"], seen["old"]))
        expected += weight * float(np.mean(oracles.fidelity(p, g)))
    assert expected > 1e-5 or not weight, "teacher and student differ: the student's normalisation adapts"
    # the largest difference seen is 5.4e-8, of sums in float32
    assert seen["penalty"] == pytest.approx(expected, abs=1.6e-7)


# -- SI, MAS, EWC --------------------------------------------------------------------------------------------


def golden_net(golden):
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 1, bias=False))
    net.load_state_dict(
        {"0.weight": torch.from_numpy(golden["W1"]), "2.weight": torch.from_numpy(golden["w2"])}
    )
    return net


def fake_learner(net):
    return SimpleNamespace(model=SimpleNamespace(net=net))


def test_si_follows_the_published_code_through_two_tasks(shared):
    golden = load(shared, "si")
    net = golden_net(golden)
    learner, si = fake_learner(net), SI(reg_weight=float(golden["weight"]), damping=float(golden["damping"]))
    optimizer = torch.optim.SGD(net.parameters(), float(golden["lr"]))
    step = int(golden["batch"])
    for task in range(2):
        si.after_warmup(learner)
        for start in range(0, 30, step):
            x, y = (torch.from_numpy(golden[k][task, start : start + step]) for k in ("X", "Y"))
            s = net(x)[..., 0]
            loss = fidelity(pair_probability(s[:, 0], s[:, 1], "code"), y[:, 0])
            penalty = si.penalty(learner)
            assert (penalty is None) == (task == 0)
            optimizer.zero_grad()
            total = loss if penalty is None else loss + penalty
            total.backward()
            optimizer.step()
            si.after_step(learner)
        si.consolidate(learner)
        for name, weight in net.named_parameters():
            np.testing.assert_allclose(weight.detach(), golden[f"theta_{task + 1}/{name}"], atol=1e-6)
            np.testing.assert_allclose(si.omega[name], golden[f"omega_{task + 1}/{name}"], atol=1e-6)


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("gradient", ["task", "total"])
def test_si_in_numpy(gradient, clamp):
    """Two tasks after one whose importances are given, on long ways, with importances of both signs."""
    rng = np.random.default_rng(3)
    net = nn.Linear(4, 1, bias=False).double()
    learner, si = fake_learner(net), SI(reg_weight=2.0, damping=0.5, gradient=gradient, clamp=clamp)
    si.omega = {"weight": torch.tensor(rng.random((1, 4)))}
    si.anchor = {"weight": torch.tensor(rng.normal(size=(1, 4), scale=20.0))}
    omega, anchor = si.omega["weight"].numpy(), si.anchor["weight"].numpy()
    net.weight.data = torch.tensor(rng.normal(size=(1, 4), scale=3.0))
    rate, negative = 0.1, 0
    for _ in range(2):
        theta = start = net.weight.detach().numpy().copy()
        w = np.zeros((1, 4))
        si.after_warmup(learner)
        for pull in rng.normal(size=(5, 4), scale=3.0):
            net.zero_grad()
            penalty = si.penalty(learner)
            assert penalty is not None
            loss = (net.weight * torch.tensor(pull)).sum() + penalty
            loss.backward()
            whole = pull + 4 * omega * (theta - anchor)
            new = theta - rate * whole
            w -= (pull if gradient == "task" else whole) * (new - theta)
            with torch.no_grad():
                assert net.weight.grad is not None
                net.weight -= rate * net.weight.grad
            si.after_step(learner)
            theta = new
        importance = w / ((theta - start) ** 2 + 0.5)
        negative += (importance < 0).sum()
        omega = omega + (np.maximum(importance, 0) if clamp else importance)
        anchor = theta
        si.consolidate(learner)
        np.testing.assert_allclose(si.omega["weight"], omega, rtol=1e-12)
        np.testing.assert_allclose(si.anchor["weight"], anchor, rtol=1e-12)
    assert bool(negative) == (gradient == "task"), "the clamp is needed where the penalty is left out"


def test_si_has_no_importance_where_the_best_epoch_lies_in_the_warm_up(sources, monkeypatch):
    values = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(Learner, "validate", lambda learner: next(values))
    si = SI()
    learner = learn(si, new_model(si), sources[:1])
    assert [h["stage"] for h in learner.history] == ["warm-up", "main", "main"]
    assert si.omega
    assert not any(o.any() for o in si.omega.values())
    assert si.state().keys() == {f"{g}.{n}" for g in ("omega", "anchor") for n in si.omega}


def test_the_w_of_si_is_that_of_the_best_epoch(sources):
    states = []

    class Noted(SI):
        def state(self):
            states.append(super().state())
            return states[-1]

        def load_state(self, state):
            states.append(state)
            super().load_state(state)

    training = replace(TRAINING, epochs=4)
    learner = learn(Noted(), new_model(SI()), sources[:1], training)
    values = [h["val_srcc"] for h in learner.history]
    records = sum(v > max(values[:i], default=-2) for i, v in enumerate(values))
    assert len(states) == records + 1, "one snapshot for every epoch that is the best so far"
    assert states[-1] is states[-2]


def test_mas_is_that_of_the_published_code(shared):
    golden = load(shared, "mas")
    net = golden_net(golden)
    total = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    for x in torch.from_numpy(golden["X"]):
        new = importance_of(net, x.flatten(0, 1), None, lambda d, b: squared(d, "code"), 1, alternating(30))
        total = {name: total[name] + new[name] for name in total}
    for name, value in total.items():
        np.testing.assert_allclose(value, golden[f"importance/{name}"], atol=1e-6)


def squared(difference, slope="paper"):
    return (pair_probability(difference, torch.zeros(()), slope) ** 2).sum()


def alternating(n):
    return torch.arange(n) * 2, torch.arange(n) * 2 + 1


def importance_of(net, images, labels, value, power, rows, pairs=0):
    labels = torch.zeros(len(rows[0])) if labels is None else labels
    batch = Batch(images, torch.zeros(len(images)), rows[0], rows[1], torch.arange(len(images)), labels)

    def score(weights, image):
        return torch.func.functional_call(net, weights, (image[None],))[0, 0]

    return sum_over_pairs(score, fixed(dict(net.named_parameters())), [(images, batch)], value, power, pairs)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("at_once", [1, 40, 1 << 17])
def test_importances_by_differences_in_numpy(power, at_once, monkeypatch):
    monkeypatch.setattr(_quadratic, "numbers_at_once", lambda device: at_once)
    rng = np.random.default_rng(5)
    x, true = rng.normal(size=(6, 3)), rng.random(15)
    w1, w2 = rng.normal(size=(4, 3)), rng.normal(size=(1, 4))
    first, second = batch_pairs(6)

    def values(flat):  # what is differentiated, one number a pair
        s = np.tanh(x @ flat[:12].reshape(4, 3).T) @ flat[12:]
        p = norm.cdf((s[first] - s[second]) / np.sqrt(2))
        if power == 1:
            return p**2
        return oracles.fidelity(p, true)

    flat = np.concatenate([w1.ravel(), w2.ravel()])
    steps = 1e-6 * np.eye(16)
    slopes = np.array([(values(flat + e) - values(flat - e)) / 2e-6 for e in steps])
    expected = np.mean(np.abs(slopes) ** power, axis=1)

    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False)).double()
    net.load_state_dict({"0.weight": torch.tensor(w1), "2.weight": torch.tensor(w2)})
    rows = torch.from_numpy(first), torch.from_numpy(second)

    def value(difference, batch):
        if power == 1:
            return squared(difference)
        return fidelity(pair_probability(difference, torch.zeros(())), batch.labels) * len(difference)

    got = importance_of(net, torch.tensor(x), torch.tensor(true), value, power, rows)
    np.testing.assert_allclose(torch.cat([g.flatten() for g in got.values()]), expected, rtol=1e-5, atol=1e-7)
    some = importance_of(net, torch.tensor(x), torch.tensor(true), value, power, rows, pairs=4)
    expected = np.mean(np.abs(slopes[:, :4]) ** power, axis=1)
    np.testing.assert_allclose(
        torch.cat([g.flatten() for g in some.values()]), expected, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("slope", ["paper", "code"])
@pytest.mark.parametrize("cls", [MAS, EWC])
def test_importances_of_a_network_pair_by_pair(sources, cls, slope):
    """The long way: one pair after the other through autograd, with the true probability by scipy.

    Of a second task, whose opinions deviate differently; the seed is not 0.
    """
    ratings = [rating._replace(std=0.5 + i % 5) for i, rating in enumerate(sources[1].ratings)]
    source, strategy = replace(sources[1], ratings=ratings), cls(pairs=6)
    training = replace(TRAINING, slope=slope, epochs=1)
    learner = learn(strategy, new_model(strategy), sources[:1], training, seed=3)
    (experience,) = quality_benchmark([source], training, 3).train_stream
    learner.train(experience, eval_streams=[])
    learner.experience = experience  # Avalanche forgets it after training
    model, head = learner.model, learner.model.heads[1].weight[0]
    with torch.no_grad():  # a long head: near 1/2, the square of a probability has the slope of itself
        head *= 2000 / head.norm()
    got, certain = strategy.importance(learner), []
    batch = next(source.train_batches(training, learner.epoch, 3, 8))
    x = (batch.x / 255.0 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    weights = dict(model.net.named_parameters())
    expected = {name: torch.zeros_like(w) for name, w in weights.items()}
    for i, j in zip(batch.first[:6], batch.second[:6], strict=True):
        s = model.net(x[torch.stack([i, j])]).final @ head
        p = 0.5 * (1 + torch.erf((s[0] - s[1]) / (2 if slope == "paper" else 2**0.5)))
        certain.append(abs(float(p.detach()) - 0.5))
        a, b = (source.ratings[int(batch.images[k])] for k in (i, j))
        g = float(norm.cdf((a.score - b.score) / np.hypot(a.std, b.std)))
        out = p**2 if cls is MAS else 1 - (p * g + 1e-8).sqrt() - ((1 - p) * (1 - g) + 1e-8).sqrt()
        for name, d in zip(weights, torch.autograd.grad(out, list(weights.values())), strict=True):
            expected[name] += (d.abs() if cls is MAS else d**2) / 6
    assert max(certain) > 0.1
    for name, value in expected.items():
        scale = float(value.abs().max())
        # the largest difference seen is 6.8e-4 of the greatest: of a bias before a normalisation
        np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-3 * scale, err_msg=name)


def test_the_penalty_in_numpy_and_its_pull():
    rng = np.random.default_rng(2)
    net = nn.Linear(3, 2).double()
    strategy = EWC(reg_weight=7.0)
    names = ("weight", "bias")
    strategy.omega = {n: torch.tensor(rng.random(getattr(net, n).shape)) for n in names}
    strategy.anchor = {n: torch.tensor(rng.normal(size=getattr(net, n).shape)) for n in names}
    penalty = strategy.penalty(fake_learner(net))
    assert penalty is not None
    penalty.backward()
    expected = 0.0
    for n in names:
        omega, apart = (
            strategy.omega[n].numpy(),
            getattr(net, n).detach().numpy() - strategy.anchor[n].numpy(),
        )
        expected += 7 * np.sum(omega * apart**2)
        np.testing.assert_allclose(getattr(net, n).grad, 14 * omega * apart)
    assert float(penalty.detach()) == pytest.approx(expected)


def test_three_tasks_in_numpy():
    """Importances add up, and weights are held where the latest task left them."""
    rng = np.random.default_rng(4)
    net = nn.Linear(3, 1, bias=False).double()
    learner = fake_learner(net)
    measured = rng.random((3, 1, 3))

    class Given(EWC):
        def importance(self, learner):
            return {"weight": torch.tensor(measured[task])}

    strategy, left = Given(reg_weight=7.0), rng.normal(size=(4, 1, 3))
    for task in range(3):
        net.weight.data = torch.tensor(left[task])
        strategy.consolidate(learner)
        net.weight.data = torch.tensor(left[task + 1])
        omega = measured[: task + 1].sum(axis=0)
        expected = 7 * np.sum(omega * (left[task + 1] - left[task]) ** 2)
        penalty = strategy.penalty(learner)
        assert penalty is not None
        assert float(penalty.detach()) == pytest.approx(expected, rel=1e-12)
        again = Given(reg_weight=7.0)
        again.load_state(strategy.state())  # as the next experience finds it in a file
        handed_on = again.penalty(learner)
        assert handed_on is not None
        assert float(handed_on.detach()) == pytest.approx(expected, rel=1e-12)


def test_the_number_of_pairs_is_counted_over_mini_batches():
    """Four mini-batches of two pairs, of which three pairs are asked for."""
    rng = np.random.default_rng(6)
    x = torch.tensor(rng.normal(size=(4, 4, 3)))
    net = nn.Linear(3, 1, bias=False).double()
    rows, labels = (torch.tensor([0, 2]), torch.tensor([1, 3])), torch.zeros(2)
    batches = [(part, Batch(part, torch.zeros(4), *rows, torch.arange(4), labels)) for part in x]

    def score(weights, image):
        return torch.func.functional_call(net, weights, (image[None],))[0, 0]

    found = sum_over_pairs(
        score, fixed(dict(net.named_parameters())), batches, lambda d, b: d.sum(), 1, pairs=3
    )
    apart = (x[:, [0, 2]] - x[:, [1, 3]]).abs().flatten(0, 1)
    np.testing.assert_allclose(found["weight"][0], apart[:3].mean(0), rtol=1e-12)


def test_importances_add_up_over_tasks_and_leave_heads_out(sources):
    strategy = MAS(pairs=5)
    learner = learn(strategy, new_model(strategy), sources[:1])
    first = dict(strategy.omega)
    learner.train(quality_benchmark(sources[1:2], TRAINING).train_stream[0], eval_streams=[])
    assert first.keys() == {n for n, _ in learner.model.net.named_parameters()}
    assert all((strategy.omega[n] >= o).all() for n, o in first.items())
    assert any((strategy.omega[n] > o).any() for n, o in first.items())
    weights = dict(learner.model.net.named_parameters())
    assert all(torch.equal(strategy.anchor[n], w) for n, w in weights.items()), (
        "the best weights of the latest"
    )


def test_true_probabilities_are_those_of_the_published_lists(shared):
    lists = sorted((shared / "data" / "splits").rglob("*_train.txt"))
    if not lists:
        pytest.skip(f"no published pair lists in {shared / 'data' / 'splits'}")
    checked = 0
    for path in lists:
        scores = path.with_name(path.name.replace("_train", "_train_score"))
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        if not scores.is_file() or len(rows[0]) != 6:
            continue
        mos = {r[0]: float(r[1]) for r in (line.split("\t") for line in scores.read_text().splitlines())}
        m1, m2 = (np.array([mos[r[k]] for r in rows]) for k in (0, 1))
        p, s1, s2 = (np.array([float(r[k]) for r in rows]) for k in (2, 3, 4))
        np.testing.assert_allclose(true_probability(m1, m2, s1, s2), p, atol=2e-6)
        checked += len(rows)
    assert checked


def test_true_probabilities_at_the_edges():
    nan = float("nan")
    m1, m2 = np.array([1.0, 2.0, 1.0, 1.0]), np.array([1.0, 1.0, 2.0, 2.0])
    s1, s2 = np.array([0.0, 0.0, nan, nan]), np.array([0.0, 0.0, nan, 1.0])
    expected = [0.5, 1.0, 0.0, norm.cdf(-1)]
    np.testing.assert_allclose(true_probability(m1, m2, s1, s2), expected, atol=1e-6)


# -- naive, joint, replay ------------------------------------------------------------------------------------


def test_one_head_learns_on_without_a_warm_up_and_has_one_row(sources):
    strategy = Naive(heads="single")
    learner = learn(strategy, new_model(strategy), sources[:1])
    assert [h["stage"] for h in learner.history] == ["warm-up", "main", "main"]
    learner.train(quality_benchmark(sources[1:2], TRAINING).train_stream[0], eval_streams=[])
    assert [(h["epoch"], h["stage"]) for h in learner.history] == [(2, "main"), (3, "main")]
    assert learner.model.n_tasks == 1
    assert strategy.table_rows() == {"last": "SH-CL"}
    assert Naive().table_rows() == {"last": "MH-CL", "gate": "MH-CL-KG", "oracle": "MH-CL-O"}


def test_old_heads_stay_without_a_loss_of_their_own_and_move_with_one(sources):
    for cls, stays in ((Naive, True), (SI, True), (LwF, False), (Replay, False)):
        learner = learn(cls(), new_model(cls()), sources[:1])
        head = learner.model.heads[0].weight.detach().clone()
        learner.train(quality_benchmark(sources[1:2], TRAINING).train_stream[0], eval_streams=[])
        moved_backbone = learner.history[-1]["val_srcc"] is not None
        assert moved_backbone
        assert torch.equal(head, learner.last_state["heads.0.weight"]) == stays, cls.__name__


@pytest.mark.parametrize("counts", [(4, 2), (1, 1, 1), (10, 1, 5), (7,)])
def test_mixing_is_complete_and_even(counts):
    order = mixed_evenly(counts)
    assert sorted(order) == [i for i, n in enumerate(counts) for _ in range(n)]
    for i, n in enumerate(counts):
        seen = np.cumsum(np.array(order) == i)
        expected = n * np.arange(1, len(order) + 1) / len(order)
        assert np.abs(seen - expected).max() <= len(counts) / 2 + 0.5


def test_joint_learning_mixes_mini_batches_of_one_dataset_and_validates_on_all(sources):
    batches = []

    class Noted(JL):
        def penalty(self, learner):  # the pictures of dataset i have a mean brightness of 100 + 20 i
            brightness = 255 * (learner.mb_x.mean(dim=(1, 2, 3)) * 0.226 + 0.449)
            batches.append(set(((brightness - 100) / 20).round().int().tolist()))

    learner = learn(Noted(), new_model(JL()), sources, replace(TRAINING, epochs=1), joint=True)
    assert learner.model.n_tasks == 1
    n = sources[0].n_batches(TRAINING, TRAINING.batch)
    assert batches == [{0}, {1}, {2}] * n
    learner.model.load_own_state(learner.last_state)
    model, values = learner.model.eval(), []
    for source in sources:
        scores = score_images(model, source, "val", 1, "cpu")[:, 0].astype(np.float64)
        values.append(srcc(scores, source.mos[source.indices("val")]))
    assert learner.history[-1]["val_srcc"] == pytest.approx(np.mean(values))


def test_the_memory_is_shared_equally_and_shrinks_to_a_part_of_itself(sources):
    strategy, kept = Replay(memory=10), []
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING)
    for experience in quality_benchmark(sources, TRAINING).train_stream:
        learner.train(experience, eval_streams=[])
        kept.append({n.removeprefix("memory."): set(k.tolist()) for n, k in strategy.state().items()})
    assert [[len(k) for k in now.values()] for now in kept] == [[10], [5, 5], [4, 3, 3]]
    for before, after in itertools.pairwise(kept):
        assert all(after[name] <= chosen for name, chosen in before.items())
    for source in sources:
        assert kept[-1][source.name] <= set(source.indices("train").tolist()), "training images only"
    assert kept[-1]["tiny0"] != kept[-1]["tiny1"], "chosen for each dataset anew"


def test_what_is_replayed_is_one_dataset_under_its_own_head(sources):
    strategy, asked = Replay(memory=9), []
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING)
    loss_on = learner.loss_on

    def noted(batch, task):
        asked.append((task, set(batch.images.tolist()), len(batch.first)))
        return loss_on(batch, task)

    learner.loss_on = noted  # type: ignore[method-assign]
    stream = quality_benchmark(sources, TRAINING).train_stream
    kept: dict[str, set[int]] = {}
    for experience in stream:
        learner.train(experience, eval_streams=[])
        for task, images, pairs in asked:
            name = sources[task].name
            assert images <= kept[name]
            assert pairs == len(images) * (len(images) - 1) // 2
        tasks, asked[:] = {task for task, _, _ in asked}, []
        assert tasks == set(range(learner.task)), "every earlier dataset has its turn, and no other"
        kept = {n.removeprefix("memory."): set(k.tolist()) for n, k in strategy.state().items()}


def replayed(sources, seed, training=TRAINING, **params):
    """Trains ER on three datasets; returns its memory, what was replayed, and loss and penalty of each."""
    strategy, asked = Replay(**params), []
    learner = Learner(model=new_model(strategy), strategy=strategy, training=training, seed=seed)
    loss_on, penalty = learner.loss_on, strategy.penalty

    def noted(batch, task):
        loss = loss_on(batch, task)
        asked.append([batch.images.tolist(), float(loss.detach())])
        return loss

    def weighed(learner):
        value = penalty(learner)
        if value is not None:
            asked[-1].append(float(value.detach()))
        return value

    learner.loss_on = noted  # type: ignore[method-assign]
    strategy.penalty = weighed  # type: ignore[method-assign]
    for experience in quality_benchmark(sources, training, seed).train_stream:
        learner.train(experience, eval_streams=[])
    return {name: kept.tolist() for name, kept in strategy.state().items()}, asked


def test_the_memory_depends_on_the_seed(sources):
    training = replace(TRAINING, epochs=1)
    (memory, _), (other, _) = (replayed(sources, seed, training, memory=9) for seed in (1, 2))
    assert memory != other
    for name, kept in memory.items():
        train = next(s for s in sources if name.endswith(s.name)).indices("train").tolist()
        assert kept != train[: len(kept)], "not the first ones"


def test_what_is_drawn_from_a_memory_depends_on_seed_and_step(sources):
    def drawn(seed):
        strategy, images = Replay(), []

        def loss_on(batch, task):
            images.append(batch.images.tolist())
            return torch.zeros(())

        strategy.load_state({"memory.tiny0": torch.from_numpy(sources[0].indices("train"))})
        learner: Any = SimpleNamespace(
            seen={"tiny0": sources[0]}, source=sources[1], seed=seed, training=replace(TRAINING, batch=4),
            loss_on=loss_on,
        )  # fmt: skip
        for _ in range(3):
            strategy.penalty(learner)
        return images

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again != other
    assert len({tuple(images) for images in first}) == 3


def test_what_is_replayed_has_its_weight_and_is_as_large_as_a_mini_batch(sources):
    _, asked = replayed(sources, 1, replace(TRAINING, epochs=1, batch=4), memory=30, reg_weight=2.5)
    assert asked
    for images, loss, penalty in asked:
        assert len(images) == len(set(images)) == 4, "different images, as many as of the new dataset"
        assert penalty == pytest.approx(2.5 * loss, rel=1e-6)


def test_tsn_trains_one_task_s_normalisation_and_head_alone():
    strategy = registry.load("strategies", "tsn")()
    model = new_model(strategy)
    for task in range(3):
        strategy.prepare(model)
        names = {id(p): n for n, p in model.named_parameters()}
        chosen = {names[id(p)] for p in strategy.trainable(model, task, warmup=False)}
        of_task = {n for n in names.values() if f".tasks.{task}." in n}
        assert len(of_task) == 2 * 9, "gamma and beta of nine layers"
        assert chosen == of_task | {f"heads.{task}.weight"}
        warm = {names[id(p)] for p in strategy.trainable(model, task, warmup=True)}
        assert warm == {f"heads.{task}.weight"}


@pytest.mark.parametrize("name", ["naive", "sl", "jl", "si", "mas", "ewc", "lwf", "replay"])
def test_nothing_but_the_head_learns_in_the_warm_up_and_the_backbone_after_it(name):
    strategy = registry.load("strategies", name)()
    model = new_model(strategy)
    task = strategy.prepare(model)
    warm, main = (strategy.trainable(model, task, warmup) for warmup in (True, False))
    head = {id(p) for p in model.heads[task].parameters()}
    assert {id(p) for p in warm} == head
    assert {id(p) for p in main} == head | {id(p) for p in model.net.parameters()}


# -- through the runner --------------------------------------------------------------------------------------


def test_the_penalty_and_its_gradient_are_those_of_autograd():
    torch.manual_seed(0)
    shapes = [(3, 2, 3, 3), (5,), ()]
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
    omegas, anchors = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    value = quadratic_penalty(1000.0, weights, omegas, anchors)
    (3 * value).backward()
    found = [w.grad for w in weights]
    copies = [w.detach().clone().requires_grad_() for w in weights]
    parts = [(o * (w - a) ** 2).sum() for w, o, a in zip(copies, omegas, anchors, strict=True)]
    torch.autograd.backward(3 * (1000.0 * torch.stack(parts).sum()))
    assert float(value.detach()) == pytest.approx(1000.0 * sum(float(p.detach()) for p in parts), rel=1e-6)
    for one, copy_ in zip(found, copies, strict=True):
        torch.testing.assert_close(one, copy_.grad, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_nodes_of_a_run_hold_what_a_straight_training_gives(miniatures, undrawn, tmp_path):
    """With seed 1: the bits of weights and importances, the history, and the gates of the training images."""
    order, out = ["live", "bid", "csiq"], tmp_path / "runs"
    command = [
        "run", "--strategy", "si,jl,sl", "--orders", ",".join(order), "--data", str(miniatures),
        "--out", str(out), "--set", "training.epochs=1", "--set", "training.warmup_epochs=1",
        "--set", "training.crop=48", "--weights", "random", "--device", "cpu", "--seeds", "1",
        "--set", "si.centroids=4",
    ]  # fmt: skip
    assert parser.main(command) == 0
    training = replace(PRESETS["quick"], epochs=1, warmup_epochs=1, crop=48)
    materials = load_materials(order, miniatures)
    sources = [open_source(materials[name], training.resize) for name in order]
    scnn = registry.load("backbones", "scnn")

    def new_learner(seed):
        net = scnn.build("random", seed_for("backbone") % 2**32)
        model = QualityModel(net, scnn.feature_size, seed=seed).to(memory_format=torch.channels_last)
        return Learner(model=model, strategy=SI(), training=training, seed=seed)

    learner = new_learner(1)
    model, strategy = learner.model, learner.strategy
    slugs = ("si-scnn-live", "si-scnn-2bid", "si-scnn-3csiq")
    for experience, slug in zip(quality_benchmark(sources, training, 1).train_stream, slugs, strict=True):
        learner.train(experience, eval_streams=[])
        (node,) = (out / "train").glob(f"{slug}-*")
        assert json.loads((node / "history.json").read_text()) == learner.history
        for straight, file in ((model.own_state(), "state"), (strategy.state(), "strategy")):
            saved = load_file(node / f"{file}.safetensors")
            assert saved.keys() == straight.keys()
            assert all(torch.equal(saved[k], straight[k]) for k in saved), (slug, file)
    other = new_learner(0)
    other.train(quality_benchmark(sources[:1], training, 0).train_stream[0], eval_streams=[])
    (node,) = (out / "train").glob("si-scnn-live-*")
    assert json.loads((node / "history.json").read_text()) != other.history, (
        "another seed is another training"
    )
    plain = scnn.build("random", seed_for("backbone") % 2**32).eval()
    for source in sources:
        (gate,) = (out / "gate").glob(f"scnn-{source.name}-*")
        stored = load_file(gate / "state.safetensors")

        def described(images):
            return torch.cat(plain.gate_features(images), dim=1)

        features = score_images(described, source, "train", sum(scnn.stage_sizes), "cpu")
        stages = np.split(features, np.cumsum(scnn.stage_sizes)[:-1], axis=1)
        for number, stage in enumerate(stages, 1):
            expected = fit_centroids(stage, 4, source.name, number, 1)
            got = stored[f"stage{number}"].numpy()
            # the largest difference seen is 6e-8: the run folds the normalisation into the convolutions
            np.testing.assert_allclose(got, expected, rtol=0, atol=1.8e-7)
    names = sorted(p.name.rpartition("-")[0] for p in (out / "train").iterdir())
    assert names == sorted([*slugs, "jl-scnn-joint3", *(f"sl-scnn-{name}" for name in order)])
    results = (out / "report" / "results.csv").read_text()
    assert all(f",{method}," in results for method in ("SI", "SI-KG", "SI-O", "SL", "JL"))


def test_the_strategy_built_in_the_documentation_works(tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[1] / "docs" / "adding_a_strategy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "l2sp.py").write_text(blocks[0])
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("l2sp")
    assert module.L2SP.name == "l2sp"
    exec(blocks[1], vars(module))  # the check of the contract
    net = nn.Linear(2, 1).double()
    strategy = module.L2SP(reg_weight=3.0)
    strategy.load_state({"weight": torch.zeros(1, 2)})
    expected = 3 * np.sum(net.weight.detach().numpy() ** 2)
    assert float(strategy.penalty(fake_learner(net)).detach()) == pytest.approx(expected)
