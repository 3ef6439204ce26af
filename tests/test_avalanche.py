"""Avalanche's own plug-ins, templates and loggers on our streams and in our learner."""

import contextlib
import csv
import hashlib
import inspect
import itertools
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import oracles
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import plugins
from scipy.stats import norm, spearmanr

from cliqa_bench.benchmarks.splits import make_split
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.learning.avalanche_loggers import OfflineWandB, quality_evaluator
from cliqa_bench.learning.avalanche_plugins import AfterWarmUp, EarlyStoppingPlugin, project
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.refused_plugins import CANNOT, refuse_plugins
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.reports import load
from cliqa_bench.settings.resolve import resolve
from cliqa_bench.strategies._avalanche import PLUGINS, TEMPLATES, plain_type
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

NEEDED: dict[str, dict[str, Any]] = {
    "EWCPlugin": {"ewc_lambda": 1e4},
    "SynapticIntelligencePlugin": {"si_lambda": 1.0},
    "MASPlugin": {"lambda_reg": 10.0},
    "ReplayPlugin": {"mem_size": 8},
    "AGEMPlugin": {"patterns_per_experience": 6, "sample_size": 8},
    "GEMPlugin": {"patterns_per_experience": 6, "memory_strength": 0.5},
}
ONLINE = ("EWCPlugin", {"ewc_lambda": 1e4, "mode": "online", "decay_factor": 0.5})

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources():
    with tiny_sources() as made:
        yield made


def avalanche(name):
    return registry.load("strategies", f"avalanche:{name}")


def experiences(sources, training=TRAINING, first=0):
    """Returns one experience per source, labelled by their places in an order."""
    return list(quality_benchmark(sources, training, first_task=first).train_stream)


def new_learner(name, training=TRAINING, **params):
    """Returns a learner with one of Avalanche's plug-ins at the protocol's full rate, and the plug-in."""
    strategy = avalanche(name)(warmup_rate=1.0, main_rate=1.0, **(params or NEEDED[name]))
    learner = Learner(model=new_model(strategy), strategy=strategy, training=training)
    return learner, learner.plugins[0].plugin


# -- names and hyper-parameters ------------------------------------------------------------------------------


FIRST = ("SynapticIntelligencePlugin",)
"""One that keeps weights; plug-ins that keep images and templates are slow ones."""


@pytest.mark.parametrize(
    ("name", "params"),
    [
        pytest.param(name, params, marks=[] if name in FIRST else [pytest.mark.slow])
        for name, params in [*((n, NEEDED.get(n, {})) for n in (*TEMPLATES, *PLUGINS)), ONLINE]
    ],
)
def test_it_keeps_the_contract(name, params):
    check_strategy(avalanche(name), **params)


def test_hyper_parameters_are_the_constructor_s_arguments():
    for name in PLUGINS:
        arguments = inspect.signature(getattr(plugins, name)).parameters
        made = {f.name: f for f in fields(avalanche(name))}
        assert set(arguments) - set(made) <= {"storage_policy"}, (
            "an object cannot be written on a command line"
        )
        strategy = avalanche(name)(**NEEDED[name])
        plugin = strategy.new_plugin()
        assert isinstance(plugin, getattr(plugins, name)) and plugin is not strategy.new_plugin()
        plain = vars(getattr(plugins, name)(**NEEDED[name]))
        assert {k: v for k, v in vars(plugin).items() if k in arguments and k != "storage_policy"} == {
            k: v for k, v in plain.items() if k in arguments and k != "storage_policy"
        }


def test_arguments_come_from_flags_and_from_the_file():
    ewc = "avalanche:EWCPlugin"
    config = resolve(
        {
            "strategy": f"{ewc},avalanche:ReplayPlugin",
            "set": [f"{ewc}.ewc_lambda=0.4", f"{ewc}.mode=online"],
            "params": {ewc: {"decay_factor": 0.9}, "avalanche:ReplayPlugin": {"batch_size_mem": 4}},
        }
    )
    assert config.params[ewc] == {"ewc_lambda": 0.4, "mode": "online", "decay_factor": 0.9}
    assert config.params["avalanche:ReplayPlugin"] == {"batch_size_mem": 4}
    plugin = avalanche("EWCPlugin")(**config.params[ewc]).new_plugin()
    assert (plugin.ewc_lambda, plugin.mode, plugin.decay_factor) == (0.4, "online", 0.9)
    assert "ewc_lambda=0.4" in avalanche("EWCPlugin")(ewc_lambda=0.4).variant()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "avalanche:EWC"}, "unknown strategy of Avalanche 'EWC' .did you mean 'EWCPlugin'"),
        ({"strategy": "avalanche:EvaluationPlugin"}, "unknown strategy of Avalanche 'EvaluationPlugin'"),
        ({"strategy": "avalanche:LwFPlugin"}, "LwFPlugin cannot learn scores .* Use the strategy lwf"),
        (
            {"strategy": "avalanche:NCMOracle"},
            "NCMOracle cannot learn scores .* mean features of every class",
        ),
        ({"strategy": "avalanche:LFL"}, "LFLPlugin cannot learn scores .* method that Avalanche defines"),
        ({"strategy": "avalanche:RWalkPlugin"}, "RWalkPlugin cannot learn scores .* as our heads do"),
        ({"strategy": "avalanche:CWRStar"}, "CWRStarPlugin cannot learn scores .* our heads have none"),
        ({"strategy": "avalanche:AGEM"}, "unknown strategy of Avalanche 'AGEM' .did you mean 'AGEMPlugin'"),
        (
            {
                "strategy": "avalanche:GEMPlugin",
                "set": [
                    f"avalanche:GEMPlugin.{s}" for s in ("patterns_per_experience=1", "memory_strength=0")
                ],
            },
            "GEMPlugin: patterns_per_experience must be at least 2",
        ),
        ({"strategy": "avalanche:EWCPlugin"}, r"EWCPlugin.ewc_lambda has no default; give it: --set aval"),
        ({"set": ["avalanche:EWCPlugin.lambda=1"]}, "unknown key of avalanche:EWCPlugin 'lambda'"),
        ({"set": ["avalanche:EWCPlugin.ewc_lambda=much"]}, "ewc_lambda must be a number, not 'much'"),
        ({"set": ["avalanche:ReplayPlugin.mem_size=9"]}, "unknown target of --set"),
        (
            {"params": {"avalanche:EWCPlugin": {"ewc_lambda": 1, "mode": "both"}}},
            "EWCPlugin does not take its arguments: Mode must be separate or online",
        ),
        ({"strategy": "avalanche:ReplayPlugin", "set": ["avalanche:ReplayPlugin.mem_size=1"]}, "at least 2"),
    ],
)
def test_misuse_is_said_in_a_line(settings, message):
    with pytest.raises(UserError, match=message):
        resolve({"strategy": "avalanche:EWCPlugin"} | settings)


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (float, None, float),
        (Any, "separate", str),
        (Any, False, bool),
        (Any, None, float | None),
        (Optional[int], None, int | None),  # noqa: UP045 - as Avalanche writes it
        (float | Sequence[float], None, float | tuple[float, ...]),
        (Optional[Sequence[str]], None, tuple[str, ...] | None),  # noqa: UP045
        (SupervisedPlugin | None, None, None),
        (dict[str, int], None, None),
    ],
)
def test_types_of_hyper_parameters(annotation, default, expected):
    assert plain_type(annotation, default) == expected


def test_list_names_the_family(capsys):
    assert parser.main(["list"]) == 0
    assert "avalanche:NAME  Avalanche's own: Naive, Cumulative" in capsys.readouterr().out


# -- the learner with mini-batches of Avalanche's loaders ----------------------------------------------------


def fidelity_of(difference, label):
    return oracles.fidelity(norm.cdf(difference / np.sqrt(2)), label)


@pytest.mark.parametrize("ties", ["paper", "code"])
def test_pairs_of_a_plain_mini_batch_lie_within_a_task_and_under_its_head(sources, ties):
    learner, _ = new_learner("ReplayPlugin", replace(TRAINING, ties=ties))
    (learner.experience,) = experiences(sources[2:], first=2)
    learner.task = 2
    for _ in range(3):
        learner.model.add_task()
    mos = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0, 4.0, 7.0])
    task = torch.tensor([2, 0, 2, 2, 1, 0, 0])
    learner.mbatch = [torch.rand(7, 3, 32, 32), mos, task]
    learner._unpack_minibatch()
    learner.mb_output = torch.randn(7, 3)
    losses = [
        fidelity_of(
            float(learner.mb_output[i, task[i]] - learner.mb_output[j, task[j]]),
            float(mos[i] > mos[j] or (ties == "paper" and mos[i] == mos[j])),
        )
        for i in range(7)
        for j in range(i + 1, 7)
        if task[i] == task[j]
    ]
    assert len(losses) == 3 + 3
    assert float(learner.criterion()) == pytest.approx(np.mean(losses), abs=1e-6)


def test_a_mini_batch_without_a_pair_teaches_nothing(sources):
    learner, _ = new_learner("ReplayPlugin")
    learner.experience = experiences(sources[:1])[0]
    learner.task = learner.model.add_task()
    learner.mbatch = [torch.rand(2, 3, 32, 32), torch.ones(2), torch.tensor([0, 1])]
    learner._unpack_minibatch()
    learner.mb_output = torch.randn(2, 2, requires_grad=True)
    loss = learner.criterion()
    loss.backward()
    assert loss == 0 and not learner.mb_output.grad.any()


class Noted(SupervisedPlugin):
    """Writes down what it is told, and how many random numbers it could draw."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith(("before_", "after_")):
            return lambda learner, **kwargs: self.calls.append((name, learner.epoch))
        return super().__getattribute__(name)


def test_a_plug_in_sees_what_comes_after_the_warm_up(sources):
    plugin = Noted()
    strategy = registry.load("strategies", "naive")()
    training = replace(TRAINING, warmup_epochs=2, epochs=2)
    learner = Learner(
        model=new_model(strategy), strategy=strategy, training=training, plugins=[AfterWarmUp(plugin)]
    )
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    told = [name for name, _ in plugin.calls]
    assert told.count("before_training_exp") == told.count("after_training_exp") == 1
    assert ("before_training_exp", 2) in plugin.calls, "epochs count from 0, two are the warm-up"
    batches = sources[0].n_batches(training, training.batch)
    assert told.count("before_backward") == told.count("after_training_iteration") == 2 * batches
    assert {epoch for name, epoch in plugin.calls if "iteration" in name} == {2, 3}
    plugin.calls.clear()
    learner.training = replace(training, epochs=0)
    learner.train(experiences(sources[1:2], first=1)[0], eval_streams=[])
    seen = [name for name, _ in plugin.calls if "exp" in name]
    assert seen == ["before_training_exp", "after_training_exp"], "also where there is nothing but a warm-up"


def test_a_plug_in_s_random_numbers_depend_on_names_alone(sources):
    drawn = []

    class Draws(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            drawn.append((float(torch.rand(1)), random.random(), float(np.random.rand())))

    for seed in (0, 0, 1):
        torch.rand(1)
        learner = learn(
            registry.load("strategies", "naive")(), new_model(avalanche("Naive")()), sources[:1], seed=seed
        )
        learner.plugins.insert(0, AfterWarmUp(Draws()))
        learner.train(experiences(sources[1:2], first=1)[0], eval_streams=[])
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


# -- each plug-in does its job -------------------------------------------------------------------------------


@contextlib.contextmanager
def penalties_of(learner, plugin):
    """Notes of every mini-batch what a plug-in adds to the loss, and the largest of its derivatives."""
    noted = []
    original = plugin.before_backward

    def before_backward(strategy, **kwargs):
        # not 0, of which MASPlugin says that it is not available; any penalty rounds it away
        loss, strategy.loss = strategy.loss, torch.tensor(1e-30)
        original(strategy, **kwargs)
        penalty = strategy.loss - 1e-30
        strategy.loss = loss + penalty
        learns = [p for p in strategy.model.parameters() if p.requires_grad]
        slopes = (
            torch.autograd.grad(penalty, learns, retain_graph=True, allow_unused=True)
            if penalty.requires_grad
            else ()
        )
        noted.append(
            (
                float(penalty.detach()),
                max((float(g.abs().max()) for g in slopes if g is not None), default=0.0),
            )
        )

    plugin.before_backward = before_backward
    yield noted
    plugin.before_backward = original


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("EWCPlugin", {"ewc_lambda": 10.0}),
        ONLINE,
        ("SynapticIntelligencePlugin", {"si_lambda": 1.0}),
        ("MASPlugin", {"lambda_reg": 1.0}),
    ],
)
def test_a_penalty_is_positive_and_has_a_gradient_on_the_second_experience(
    sources, monkeypatch, name, params
):
    """The last epoch is made the best: if chance chose the warm-up's, SI would have no path to measure."""
    monkeypatch.setattr(Learner, "validate", lambda learner: float(learner.epoch))
    learner, plugin = new_learner(name, **params)
    first, second, third = experiences(sources)
    with penalties_of(learner, plugin) as noted:
        learner.train(first, eval_streams=[])
        assert noted and all(value == 0 for value, _ in noted), "nothing to hold on to yet"
        for experience in (second, third):
            noted.clear()
            learner.train(experience, eval_streams=[])
            assert learner.best_epoch == TRAINING.warmup_epochs + TRAINING.epochs
            assert noted[0][0] == 0 or experience is third, "it starts at the anchor"
            # EWC's and MAS's are sums of squares; SI's largest was 0.156 or more on each processor, its slope
            # 0.023
            assert max(value for value, _ in noted) > 0
            assert max(slope for _, slope in noted) > 0


def test_ewc_holds_weights_near_the_last_task_s(sources, monkeypatch):
    """The last epoch counts as the best; on some processors an earlier one would, by chance."""
    monkeypatch.setattr(Learner, "validate", lambda learner: float(learner.epoch))
    moved = []
    for ewc_lambda in (0.0, 1e12):  # importances of squared mean gradients are tiny
        learner, plugin = new_learner("EWCPlugin", ewc_lambda=ewc_lambda)
        first, second, _ = experiences(sources)
        learner.train(first, eval_streams=[])
        important = {n: w.data.clone() for n, w in plugin.importances[0].items() if n.startswith("net.")}
        before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
        learner.train(second, eval_streams=[])
        last = learner.last_state
        moved.append(float(sum((w * (last[n] - before[n]) ** 2).sum() for n, w in important.items())))
    assert moved[1] < 0.33 * moved[0]  # at most 0.112 of it, on every processor tried


def test_ewc_s_importances_are_those_of_our_loss(sources):
    """An independent loop: squared gradients of the mean fidelity loss over all pairs of each mini-batch."""
    training = replace(TRAINING, augment="none")  # the plug-in draws crops of its own
    learner, plugin = new_learner("EWCPlugin", training)
    learner.train(experiences(sources[:1], training)[0], eval_streams=[])
    source, model = sources[0], learner.model.eval()
    train = source.indices("train")
    total = {n: np.zeros(tuple(p.shape)) for n, p in model.named_parameters()}
    batches = [train[i : i + training.batch] for i in range(0, len(train), training.batch)]
    for images in batches:
        x = source.batch_of(images, training, np.random.default_rng(0)).x.float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        s = model((x - mean[:, None, None]) / std[:, None, None])[:, 0]
        mos, terms = source.mos[images], []
        for i in range(len(images)):
            for j in range(i + 1, len(images)):
                p = torch.special.ndtr((s[i] - s[j]) / 2**0.5)
                better = float(mos[i] >= mos[j])
                terms.append(1 - (p * better + 1e-8).sqrt() - ((1 - p) * (1 - better) + 1e-8).sqrt())
        if not terms:  # a single image is left; it counts as a mini-batch all the same
            continue
        model.zero_grad()
        torch.stack(terms).mean().backward()
        for n, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[n] += parameter.grad.numpy() ** 2
    for n, expected in total.items():
        got = plugin.importances[0][n].data.numpy()
        np.testing.assert_allclose(got, expected / len(batches), rtol=1e-3, atol=1e-9, err_msg=n)
    assert total["heads.0.weight"].any() and sum(x.any() for x in total.values()) > 5


@pytest.mark.parametrize("best", [2, 3])
def test_si_s_importances_follow_the_path_of_the_weights_that_stay(sources, monkeypatch, best):
    """An independent sum: gradient times step, from the end of the warm-up to the best epoch."""
    monkeypatch.setattr(Learner, "validate", lambda learner: float(learner.epoch + 1 == best))
    learner, plugin = new_learner("SynapticIntelligencePlugin", si_lambda=1.0)
    path: dict[str, float | torch.Tensor] = {}
    steps: dict[str, torch.Tensor] = {}

    class Looks(SupervisedPlugin):
        def before_update(self, strategy, **kwargs):
            steps.update({n: p.detach().clone() for n, p in strategy.model.named_parameters()})
            if not path and not strategy.warming_up:
                path.update(dict.fromkeys(steps, 0.0) | {f"start {n}": p for n, p in steps.items()})

        def after_update(self, strategy, **kwargs):
            for n, p in strategy.model.named_parameters():
                if not strategy.warming_up and strategy.epoch < best and p.grad is not None:
                    path[n] = path[n] + p.grad * (p.detach() - steps[n])

    learner.plugins.insert(0, Looks())
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    assert learner.best_epoch == best
    state = dict(learner.model.named_parameters())
    found = plugin.ewc_data[1]
    assert len(found) > 5
    for n, importance in found.items():
        moved = state[n].detach() - path[f"start {n}"]
        expected = np.minimum(-(path[n] / (moved**2 + 1e-7)).numpy().reshape(-1), 0.001)
        np.testing.assert_allclose(importance.data.numpy(), expected, rtol=1e-3, atol=1e-7, err_msg=n)
    assert max(float(w.data.abs().max()) for w in found.values()) > 0


@pytest.mark.parametrize("name", PLUGINS)
def test_consolidating_moves_no_weight_and_leaves_the_model_in_evaluation_mode(sources, name):
    learner, plugin = new_learner(name)
    original, states = plugin.after_training_exp, []

    def after_training_exp(strategy, **kwargs):
        states.append({k: v.clone() for k, v in strategy.model.state_dict().items()})
        original(strategy, **kwargs)

    plugin.after_training_exp = after_training_exp
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    assert all(torch.equal(v, states[0][k]) for k, v in learner.model.state_dict().items())
    assert not any(module.training for module in learner.model.modules())


def scheduler():
    return torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), 1)


MADE: dict[str, dict[str, Any]] = {
    "AGEMPlugin": {"patterns_per_experience": 4, "sample_size": 4},
    "BiCPlugin": {"mem_size": 8},
    "CWRStarPlugin": {"model": torch.nn.Sequential(torch.nn.Linear(2, 2))},
    "EarlyStoppingPlugin": {"patience": 1, "val_stream_name": "val_stream"},
    "GEMPlugin": {"patterns_per_experience": 4, "memory_strength": 0.5},
    "LFLPlugin": {"lambda_e": 1.0},
    "LRSchedulerPlugin": {"scheduler": scheduler()},
    "MIRPlugin": {"batch_size_mem": 4},
    "RARPlugin": {"batch_size_mem": 4},
    "SynapticIntelligencePlugin": {"si_lambda": 1.0},
}
"""Plug-ins that cannot do their job -> what their constructors must be given."""


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", CANNOT)
def test_plug_ins_that_cannot_do_their_job_are_refused_by_name(name, wrapped):
    strategy = registry.load("strategies", "naive")()
    plugin = getattr(plugins, name)(**MADE.get(name, {}))
    plugin = AfterWarmUp(plugin) if wrapped else plugin
    with pytest.raises(UserError, match=f"Avalanche's {name} cannot learn scores of images: "):
        Learner(model=new_model(strategy), strategy=strategy, training=TRAINING, plugins=[plugin])


def test_a_plug_in_of_ones_own_is_not_refused_for_its_name():
    class LwFPlugin(SupervisedPlugin):
        pass

    refuse_plugins([LwFPlugin(), AfterWarmUp(LwFPlugin()), plugins.EWCPlugin(1.0)])


def validated_again(learner, source):
    """Returns the validation SRCC of the model that is left."""
    scores = score_images(lambda x: learner.model.score(x, 0)[:, None], source, "val", 1, "cpu")
    return spearmanr(scores[:, 0], source.mos[source.indices("val")]).statistic


class Mover(SupervisedPlugin):
    """Moves something after the experience, as Avalanche's MASPlugin does by passing data through."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def after_training_exp(self, strategy, **kwargs):
        if self.what == "statistics":
            strategy.model.train()
            strategy.model(torch.randn(4, 3, 32, 32))
        elif self.what == "weights":
            next(strategy.model.parameters()).data += 1


@pytest.mark.parametrize(
    ("what", "wrapped"), [("statistics", False), ("statistics", True), ("weights", False)]
)
def test_what_a_plug_in_moves_after_the_best_epoch_is_put_back_and_said(sources, capfd, what, wrapped):
    mover = AfterWarmUp(Mover(what)) if wrapped else Mover(what)
    strategy = registry.load("strategies", "naive")()
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING, plugins=[mover])
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    said = capfd.readouterr().err
    assert "Mover changed " in said and "tensors of the model after its best epoch was chosen" in said
    assert not any(module.training for module in learner.model.modules())
    left = learner.model.own_state()
    assert all(torch.equal(tensor, learner.best.weights[name]) for name, tensor in left.items())
    assert validated_again(learner, sources[0]) == pytest.approx(learner.best.srcc, abs=1e-12)


def test_what_moves_nothing_is_not_named(sources, capfd):
    strategy = registry.load("strategies", "naive")()
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING, plugins=[Mover("")])
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    assert "changed" not in capfd.readouterr().err


def test_avalanche_s_own_mas_leaves_what_was_validated(sources, capfd):
    strategy = registry.load("strategies", "naive")()
    mas = AfterWarmUp(plugins.MASPlugin(lambda_reg=1.0, alpha=0.5))
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING, plugins=[mas])
    learner.train(experiences(sources[:1])[0], eval_streams=[])
    assert "MASPlugin changed " in capfd.readouterr().err
    assert validated_again(learner, sources[0]) == pytest.approx(learner.best.srcc, abs=1e-12)


def test_replay_replays(sources):
    learner, plugin = new_learner("ReplayPlugin", mem_size=6, batch_size_mem=4)
    first, second, third = experiences(sources)
    learner.train(first, eval_streams=[])
    assert len(plugin.storage_policy.buffer) == 6
    labels: list[torch.Tensor] = []

    class Looks(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            labels.append(strategy.mb_task_id.clone())

    learner.plugins.insert(0, Looks())
    old = [p.detach().clone() for p in learner.model.heads[0].parameters()]
    learner.train(second, eval_streams=[])
    warm_up, rest = labels[:2], labels[2:]
    assert all(set(t.tolist()) == {1} for t in warm_up) and rest
    assert {int((t == 0).sum()) for t in rest} <= {4, 2}, "the memory's six images come as four and two"
    assert sum(int((t == 1).sum()) for t in rest) == 2 * len(sources[1].keys("train"))
    state = learner.last_state
    assert not torch.equal(old[0], state["heads.0.weight"]), "the old head learns from them"
    assert len(plugin.storage_policy.buffer) == 6, "and the memory is shared"
    memory_labels = [int(item[2]) for item in plugin.storage_policy.buffer]
    assert sorted(memory_labels) == [0, 0, 0, 1, 1, 1]
    labels.clear()
    learner.train(third, eval_streams=[])
    assert {label for t in labels for label in t.tolist()} == {0, 1, 2}


def test_a_memory_s_loss_is_of_pairs_within_a_dataset_under_its_head(sources):
    learner, _ = new_learner("GEMPlugin")
    learner.experience = experiences(sources[:1])[0]
    for _ in range(3):
        learner.task = learner.model.add_task()
    torch.manual_seed(0)
    for head in learner.model.heads:  # they start alike
        head.weight.data.normal_()
    learner.model.eval()
    x, mos, task = torch.rand(5, 3, 32, 32), torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), [0, 1, 0, 1, 0]
    with torch.no_grad():
        found = learner.memory_loss([x, mos, torch.tensor(task)])
        scores = learner.model(x).double()
    losses = [
        fidelity_of(float(scores[i, task[i]] - scores[j, task[j]]), float(mos[i] >= mos[j]))
        for i in range(5)
        for j in range(i + 1, 5)
        if task[i] == task[j]
    ]
    assert len(losses) == 4
    assert float(found) == pytest.approx(np.mean(losses), abs=1e-6)


class Gradients(SupervisedPlugin):
    """Notes the gradient before a plug-in's `after_backward` and after it, and those of its memory."""

    def __init__(self, plugin, references):
        super().__init__()
        self.plugin, self.references = plugin, references
        self.steps: list[tuple[Any, ...]] = []
        self.original, plugin.after_backward = plugin.after_backward, self.noting

    def noting(self, strategy, **kwargs):
        before = self.of(strategy)
        self.original(strategy, **kwargs)
        self.steps.append((self.references(self.plugin).double().numpy(), before, self.of(strategy)))

    @staticmethod
    def of(strategy):
        parts = [torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1)
                 for p in strategy.model.parameters()]  # fmt: skip
        return torch.cat(parts).double().numpy()


def turned(source):
    """Returns a dataset in which what was better is worse: what is learned from it contradicts the other."""
    return replace(source, ratings=[r._replace(score=-r.score) for r in source.ratings])


def test_agem_projects_a_gradient_that_goes_against_its_memory(sources):
    """An independent formula, on a dataset that contradicts the one in the memory."""
    learner, plugin = new_learner("AGEMPlugin", patterns_per_experience=6, sample_size=6)
    noted = Gradients(plugin, lambda plugin: plugin.reference_gradients[None])
    first, second = experiences([sources[0], turned(sources[0])])
    learner.train(first, eval_streams=[])
    assert all(np.array_equal(before, after) for _, before, after in noted.steps), "there is no memory yet"
    assert len(plugin.buffers) == 1 and len(plugin.buffers[0]) == 6
    noted.steps.clear()
    learner.train(second, eval_streams=[])
    projected = 0
    for (reference,), before, after in noted.steps:
        if before @ reference < 0:
            projected += 1
            expected = before - (before @ reference) / (reference @ reference) * reference
            learns = after != 0
            off = np.abs(after - expected)[learns].max() / np.abs(reference).max()
            assert off < 1e-5  # sums in float32; the largest seen is 3.6e-6
        else:
            np.testing.assert_array_equal(after, before)
    assert projected


def test_gem_s_gradient_goes_against_no_memory(sources):
    learner, plugin = new_learner("GEMPlugin", patterns_per_experience=6, memory_strength=0.0)
    noted = Gradients(plugin, lambda plugin: plugin.G)
    learner.train(experiences([sources[0], sources[1], turned(sources[0])]), eval_streams=[])
    assert [len(plugin.memory_y[t]) for t in range(3)] == [6, 6, 6]
    steps = [step for step in noted.steps if len(step[0]) == 2]
    projected = [(G, before, after) for G, before, after in steps if (G @ before < 0).any()]
    assert projected
    assert not all(np.array_equal(before, after) for _, before, after in projected)
    for G, before, after in projected:
        expected = project(before, G, 0.0)
        weights = np.linalg.lstsq(G.T, expected - before, rcond=None)[0]
        # the problem has 0.001 on its diagonal: so much of a memory's weight may still go against it
        assert (G @ expected).min() > -1.01e-3 * weights.max()
        learns = after != 0
        # the same numbers, rounded once to float32
        np.testing.assert_allclose(after[learns], expected[learns], rtol=6e-8, atol=1e-30)


def tried_one_by_one(P, c, margin):
    """Minimises v' P v / 2 + c' v for v >= margin: of all choices of what lies at the margin, the best."""
    best = (np.inf, np.empty(0))
    for free in itertools.product([False, True], repeat=len(c)):
        chosen, v = np.array(free), np.full(len(c), margin)
        if chosen.any():
            held = P[np.ix_(chosen, ~chosen)] @ v[~chosen]
            v[chosen] = np.linalg.solve(P[np.ix_(chosen, chosen)], -c[chosen] - held)
        if (v >= margin).all():
            best = min(best, (v @ P @ v / 2 + c @ v, v), key=lambda found: found[0])
    return best[1]


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("memories", [1, 2, 4])
def test_gem_s_projection_solves_its_problem(margin, memories):
    rng = np.random.default_rng(memories)
    G = rng.normal(size=(memories, 30))
    g = rng.normal(size=30) - 2 * G[0]  # against the first
    v = tried_one_by_one(G @ G.T + 1e-3 * np.eye(memories), G @ g, margin)
    assert v[0] > margin
    assert memories < 4 or (v == margin).any(), "the projection has a corner"
    # the largest difference seen, of 600 such problems, is 1.8e-15
    np.testing.assert_allclose(project(g, G, margin), g + v @ G, rtol=0, atol=5e-15)


def test_a_gradient_that_does_not_lie_in_rows_is_projected(sources):
    """As on a GPU, where a convolution's may lie with channels last."""
    learner, plugin = new_learner("AGEMPlugin")

    class Turns(SupervisedPlugin):
        def after_backward(self, strategy, **kwargs):
            for p in strategy.model.parameters():
                if p.grad is not None and p.grad.ndim == 4:
                    p.grad = p.grad.to(memory_format=torch.channels_last)

    learner.plugins.insert(0, Turns())
    learner.train(experiences(sources[:2]), eval_streams=[])
    assert len(plugin.buffers) == 2


@pytest.mark.parametrize("name", ["AGEMPlugin", "GEMPlugin"])
def test_a_memory_moves_no_statistics(sources, name):
    """Nor the mode of a network that is training."""
    learner, plugin = new_learner(name)
    looked = []

    class Looks(SupervisedPlugin):
        def before_training_iteration(self, strategy, **kwargs):
            net = strategy.model.net
            before = {n: b.clone() for n, b in net.named_buffers()}
            modes = [m.training for m in net.modules()]
            plugin.before_training_iteration(strategy)
            assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())
            assert [m.training for m in net.modules()] == modes
            looked.append(any(modes) and strategy.task > 0)

    learner.plugins.insert(0, Looks())
    learner.train(experiences(sources[:2]), eval_streams=[])
    assert any(looked)


def test_agem_needs_a_pair_of_each_dataset(sources):
    learner, _ = new_learner("AGEMPlugin", patterns_per_experience=4, sample_size=3)
    first, second, _ = experiences(sources)
    learner.train(first, eval_streams=[])
    with pytest.raises(
        UserError, match="sample_size of 3 has no pair of each of 2 datasets; set it to at least 4"
    ):
        learner.train(second, eval_streams=[])


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4)])
def test_early_stopping_stops(sources, monkeypatch, patience, epochs):
    """The second of six epochs is the best, and the first after the warm-up."""
    monkeypatch.setattr(Learner, "validate", lambda learner: -abs(learner.epoch - 1.0))
    strategy = registry.load("strategies", "naive")()
    training = replace(TRAINING, epochs=5)
    stopping = [EarlyStoppingPlugin(patience)]
    learner = Learner(model=new_model(strategy), strategy=strategy, training=training, plugins=stopping)
    for first, experience in enumerate(experiences(sources[:2], training)):
        learner.train(experience, eval_streams=[])
        assert [h["epoch"] for h in learner.history] == list(range(1, epochs + 1)), first
        assert learner.best_epoch == 2
    left = learner.model.own_state()
    assert all(torch.equal(tensor, learner.best.weights[name]) for name, tensor in left.items())


def test_early_stopping_waits_for_an_epoch_after_the_warm_up(sources, monkeypatch):
    """The first of two warm-up epochs is the best, and stays the best."""
    monkeypatch.setattr(Learner, "validate", lambda learner: -float(learner.epoch))
    strategy = registry.load("strategies", "naive")()
    training = replace(TRAINING, warmup_epochs=2, epochs=3)
    stopping = [EarlyStoppingPlugin(1)]
    learner = Learner(model=new_model(strategy), strategy=strategy, training=training, plugins=stopping)
    learner.train(experiences(sources[:1], training)[0], eval_streams=[])
    assert [h["stage"] for h in learner.history] == ["warm-up", "warm-up", "main"]


def test_early_stopping_s_patience_is_an_epoch_at_least():
    with pytest.raises(UserError, match="patience must be at least 1, not 0"):
        EarlyStoppingPlugin(0)


def test_cumulative_learns_every_head():
    strategy = avalanche("Cumulative")()
    model = new_model(strategy)
    for _ in range(3):
        task = strategy.prepare(model)
    learned = {id(p) for p in strategy.trainable(model, task, warmup=False)}
    assert all(id(head.weight) in learned for head in model.heads)


def more_validated(source):
    """Returns a dataset with all test images but one for validation, too: of two, any SRCC is 1 or -1."""
    subset = source.split.subset | dict.fromkeys(source.keys("test")[1:], "val")
    return replace(source, split=make_split("more", source.ratings, subset))


def test_cumulative_learns_all_datasets_so_far_each_with_its_head(sources):
    """Its loss in numpy, image by image under its head; the old head's slope; its validation on both."""
    sources = [more_validated(source) for source in sources[:2]]
    strategy = avalanche("Cumulative")(warmup_rate=1.0, main_rate=1.0)
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING)
    seen: list[tuple[bool, int]] = []

    class Looks(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            assert len(set(strategy.mb_task_id.tolist())) == 1
            seen.append((strategy.warming_up, int(strategy.mb_task_id[0])))

        def after_backward(self, strategy, **kwargs):
            task, output = seen[-1][1], strategy.mb_output.detach().double().numpy()
            first, second, g = (part.numpy() for part in strategy.pairs)
            expected = np.mean(fidelity_of(output[first, task] - output[second, task], g))
            # the largest difference seen is 4.0e-8, of sums in float32
            assert float(strategy.loss.detach()) == pytest.approx(expected, abs=1.2e-7)
            for head, layer in enumerate(strategy.model.heads):
                slope = layer.weight.grad
                assert (slope is not None and bool(slope.abs().max() > 0)) == (head == task)

    learner.plugins.append(Looks())
    for n in (1, 2):
        old = [p.detach().clone() for p in learner.model.heads.parameters()]
        stream = quality_benchmark(sources[:n], TRAINING, joint=True).train_stream
        seen.clear()
        learner.train(stream[0], eval_streams=[])
    assert {task for warm, task in seen if warm} == {1}
    assert {task for warm, task in seen if not warm} == {0, 1}
    assert not torch.equal(old[0], learner.last_state["heads.0.weight"]), "the first head learns on"
    values = [
        spearmanr(score_images(learner.model, s, "val", 2, "cpu")[:, t], s.mos[s.indices("val")]).statistic
        for t, s in enumerate(sources)
    ]
    assert max(h["val_srcc"] for h in learner.history) == pytest.approx(np.mean(values))
    assert min(len(s.indices("val")) for s in sources) > 5


@pytest.mark.parametrize(("theirs", "ours"), [("Naive", "naive"), ("JointTraining", "jl")])
def test_templates_without_a_plug_in_are_our_own_strategies(sources, theirs, ours):
    states = []
    for strategy in (avalanche(theirs)(), registry.load("strategies", ours)()):
        model = new_model(strategy)
        learn(strategy, model, sources[:2], joint=ours == "jl")
        states.append(model.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


# -- runs ----------------------------------------------------------------------------------------------------

NAMES = ("EWCPlugin", "ReplayPlugin", "AGEMPlugin", "Cumulative")
ORDERS = "bid,live,csiq;bid,csiq"
NODES = 4  # bid; live and csiq after it; csiq after both


def run(miniatures, out, orders, *more):
    names = ",".join(f"avalanche:{name}" for name in NAMES)
    return parser.main(
        [
            "run", "--strategy", names, "--orders", orders, "--data", str(miniatures),
            "--out", str(out),
            "--set", "training.epochs=1", "--set", "training.warmup_epochs=1", "--set", "training.crop=32",
            "--set", "training.resize=64", "--set", "avalanche:EWCPlugin.ewc_lambda=10",
            "--jobs", "1",
            "--set", "avalanche:ReplayPlugin.mem_size=10",
            "--set", "avalanche:AGEMPlugin.patterns_per_experience=6",
            "--set", "avalanche:AGEMPlugin.sample_size=6", *more,
        ]
    )  # fmt: skip


def trained(out: Path) -> dict[str, str]:
    """Returns a hash of what every training left; times, in done.json, are not result."""
    files = (p for p in sorted(out.glob("train/*/*")) if p.name != "done.json")
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def finished(miniatures, undrawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("avalanche") / "runs"
    assert run(miniatures, out, ORDERS, "--log", "csv") == 0
    return out


@pytest.mark.slow
def test_runs_end_in_rows_of_the_report(finished):
    frame = load(finished)
    for name in NAMES:
        for suffix in ("", "-KG", "-O"):
            rows = frame[(frame.method == f"{name}{suffix} (Avalanche)") & (frame.metric == "SRCC")]
            values = rows.value.astype(float)
            assert len(values) and values.notna().any() and values.dropna().abs().max() <= 1, name + suffix
    assert "ewc_lambda=10" in " ".join(frame.variant.astype(str))
    assert not [p for p in finished.rglob("*") if ":" in p.name], "no file has a colon in its name"


@pytest.mark.slow
def test_a_run_resumed_at_every_node_gives_the_same_bits(finished, miniatures, tmp_path, capfd):
    out = tmp_path / "runs"
    for orders in ("bid", "bid,live", "bid,live,csiq", ORDERS):
        assert run(miniatures, out, orders) == 0
    said = capfd.readouterr()
    assert (
        "avalanche:EWCPlugin: learning bid, live again, because no file holds what it has learned"
        in said.out + said.err
    )
    assert trained(out) == trained(finished)
    assert len(list((out / "train").iterdir())) == len(NAMES) * NODES


@pytest.mark.slow
def test_a_log_has_the_numbers_of_the_history(finished):
    nodes = list((finished / "train").iterdir())
    assert len(nodes) == len(NAMES) * NODES
    for node in nodes:
        history = json.loads((node / "history.json").read_text())
        with (finished / "logs" / node.name / "series.csv").open() as file:
            rows = list(csv.DictReader(file))
        losses = [float(r["value"]) for r in rows if r["metric"].startswith("Loss_Epoch/train_phase")]
        values = [float(r["value"]) for r in rows if r["metric"].startswith("SRCC_Val_Epoch")]
        assert values == [h["val_srcc"] for h in history if h["val_srcc"] is not None]
        assert len(losses) == len(history) and np.isfinite(losses).all()
        assert [int(r["iteration"]) for r in rows] == sorted(int(r["iteration"]) for r in rows)


# -- loggers -------------------------------------------------------------------------------------------------


def test_the_srcc_of_eval_is_that_of_the_newest_head(sources):
    learner, _ = new_learner("EWCPlugin")
    with pytest.warns(UserWarning, match="No loggers specified"):
        learner.log_to(quality_evaluator())
    benchmark = quality_benchmark(sources, TRAINING)
    for experience in benchmark.train_stream[:2]:
        learner.train(experience, eval_streams=[])
    said = learner.eval(benchmark.test_stream)
    for task, source in enumerate(sources):
        scores = score_images(learner.model, source, "test", 2, "cpu")[:, 1]
        expected = spearmanr(scores, source.mos[source.indices("test")]).statistic
        assert said[f"SRCC_Exp/eval_phase/test_stream/Task{task:03}/Exp{task:03}"] == pytest.approx(expected)


@pytest.mark.slow
def test_the_code_of_the_documentation_logs(miniatures, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    text = (Path(__file__).resolve().parents[1] / "docs" / "avalanche.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIQA_DATA", str(miniatures))
    names: dict[str, Any] = {}
    exec(code, names)
    learner = names["learner"]
    for logger in learner.evaluator.loggers:
        getattr(logger, "close", lambda: None)()
        getattr(getattr(logger, "writer", None), "close", lambda: None)()
    board = EventAccumulator("logs").Reload()
    tag = "SRCC_Val_Epoch/train_phase/train_stream/Task001"
    n = len(learner.history)
    expected = [h["val_srcc"] for h in learner.history if h["val_srcc"] is not None]
    assert [e.value for e in board.Scalars(tag)] == pytest.approx(expected, abs=1e-6)
    assert any(t.startswith("SRCC_Exp/eval_phase/test_stream") for t in board.Tags()["scalars"])
    rows = list(csv.DictReader(Path("logs/training_results.csv").read_text().splitlines()))
    assert [r["training_exp"] for r in rows] == ["0"] * n + ["1"] * n
    board_losses = [e.value for e in board.Scalars("Loss_Epoch/train_phase/train_stream/Task001")]
    assert [float(r["training_loss"]) for r in rows[n:]] == pytest.approx(board_losses, abs=1e-4)
    assert "SRCC_Val_Epoch" in Path("logs/series.csv").read_text()


def test_weights_and_biases_writes_to_disk_only(tmp_path):
    logger = OfflineWandB(tmp_path)
    logger.log_single_metric("SRCC_Val_Epoch", 0.25, 3)
    logger.close()
    (written,) = tmp_path.rglob("*.wandb")
    assert written.parent.name.startswith("offline-run-")
    deadline = time.monotonic() + 60  # a service of wandb's own writes it, some time after
    while b"SRCC_Val_Epoch" not in written.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_logger_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"unknown logger .--log. 'tensorbord' .did you mean 'tensorboard'"):
        resolve({"strategy": "tsn", "log": "tensorbord"})
