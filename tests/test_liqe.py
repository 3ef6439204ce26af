"""LIQE: losses and weights against the published code, what a step learns, what the options do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from cliqa_bench.aspects import COARSE, DISTORTIONS, SCENES
from cliqa_bench.benchmarks.aspect_labels import Aspects, distortion_targets, scene_targets
from cliqa_bench.benchmarks.decoded import DecodedDataset, open_source
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.splits import has_aspects
from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.cli import parser
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import UserError
from cliqa_bench.execution import run as execution
from cliqa_bench.execution.plan import Plan
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.metrics import distortion_accuracy, scene_accuracy, srcc
from cliqa_bench.models.text_head import TextHead
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.settings.resolve import paper_configs, resolve
from cliqa_bench.strategies import _liqe
from cliqa_bench.strategies._liqe import DynamicWeights, TextMultitask
from cliqa_bench.strategies.liqe import LIQE
from cliqa_bench.strategies.liqe_cl import LIQECL
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources
from cliqa_bench.types import Subset

pytestmark = pytest.mark.usefixtures("one_thread")

FULL: dict[str, Any] = {"warmup_rate": 1.0, "main_rate": 1.0}
"""In the few steps there are here, nothing would move at a fiftieth of the rate."""

AS_CODE: dict[str, Any] = {"ties": "half", "tasks": "q"}


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources() as made:
        yield made


@pytest.fixture(scope="module")
def golden(shared: Path) -> Callable[[str], Any]:
    return lambda name: np.load(shared / "golden" / "liqe" / f"{name}.npz", allow_pickle=False)


# -- the losses ----------------------------------------------------------------------------------------------


def pairs_of(strategy: TextMultitask, mos: np.ndarray, sizes: Any, **training: Any) -> _liqe.StepLabels:
    """Returns the labels of a mini-batch whose datasets have so many images each."""
    learner = SimpleNamespace(training=replace(TRAINING, **training), device="cpu")
    shown = [
        (SimpleNamespace(labels=part), torch.arange(len(part)))
        for part in np.split(mos, np.cumsum(sizes)[:-1])
    ]
    return strategy.step_labels(cast(Learner, learner), cast(Any, shown))


def test_the_quality_loss_is_the_published_code_s(golden: Callable[[str], Any]) -> None:
    data = golden("losses")
    labels = pairs_of(LIQE(**AS_CODE), data["quality_mos"], data["quality_per_dataset"])
    assert labels.pairs == [6, 6, 6, 6, 120, 120]
    scores = torch.tensor(data["quality_score"], requires_grad=True)
    loss = _liqe.quality_loss(scores, labels, "datasets", "code")
    loss.backward()
    # the code holds the root of two as a float32: 1.7e-8 of it
    np.testing.assert_allclose(loss.item(), data["quality_loss"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(cast(Tensor, scores.grad), data["quality_grad"], rtol=0, atol=1e-7)
    # over all pairs, a dataset counts as often as it has pairs
    pooled = _liqe.quality_loss(scores, labels, "pairs", "code").item()
    each = data["quality_loss_of_each_dataset"]
    np.testing.assert_allclose(pooled, np.average(each, weights=labels.pairs), rtol=0, atol=1e-7)
    assert abs(pooled - data["quality_loss"]) > 0.005


def test_scores_far_apart_have_the_published_gradient(golden: Callable[[str], Any]) -> None:
    data = golden("losses")
    labels = pairs_of(LIQE(**AS_CODE), data["far_mos"], [4])
    scores = torch.tensor(data["far_score"], requires_grad=True)
    loss = _liqe.quality_loss(scores, labels, "datasets", "code")
    loss.backward()
    np.testing.assert_allclose(loss.item(), data["far_loss"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(cast(Tensor, scores.grad), data["far_grad"], rtol=0, atol=1e-6)


def test_a_dataset_without_pairs_counts_and_teaches_nothing(golden: Callable[[str], Any]) -> None:
    data = golden("losses")
    scores = torch.tensor(data["empty_score"], requires_grad=True)
    labels = pairs_of(LIQE(**AS_CODE), data["empty_mos"], data["empty_per_dataset"])
    loss = _liqe.quality_loss(scores, labels, "datasets", "code")
    np.testing.assert_allclose(loss.item(), data["empty_loss"], rtol=0, atol=1e-7)
    assert math.isnan(data["single_loss"])  # the published code's, of a dataset with a single image
    strategy = LIQE(**AS_CODE)
    mos, sizes = data["empty_mos"][:5], data["single_per_dataset"]
    loss = _liqe.quality_loss(scores[:5], pairs_of(strategy, mos, sizes), "datasets", "code")
    alone = _liqe.quality_loss(scores[:4], pairs_of(strategy, mos[:4], [4]), "datasets", "code")
    assert loss.item() == pytest.approx(alone.item() / 2, abs=1e-12)
    assert strategy.state()["lonely"] == 1
    for pooling in (
        "datasets",
        "pairs",
    ):  # nothing but lonely images: a loss all the same, which moves nothing
        only = _liqe.quality_loss(scores[:2], pairs_of(strategy, mos[:2], [1, 1]), cast(Any, pooling), "code")
        (gradient,) = torch.autograd.grad(only, scores)
        assert only.item() == 0 and not gradient.any()
    assert strategy.state()["lonely"] == 5


def test_slope_and_ties_are_those_asked_for() -> None:
    scores = torch.tensor([1.5, 3.0, 2.0], dtype=torch.float64)
    mos = np.array([4.0, 2.0, 2.0])
    for ties, protocol, tie in (
        ("half", "paper", 0.5),
        ("protocol", "paper", 1.0),
        ("protocol", "code", 0.0),
    ):
        labels = pairs_of(LIQE(tasks="q", ties=cast(Any, ties)), mos, [3], ties=protocol)
        assert labels.better.tolist() == [1, 1, tie]
        for slope, scale in (("paper", math.sqrt(0.5)), ("code", 1.0)):
            g, p = np.array([1, 1, tie]), norm.cdf(np.array([-1.5, -0.5, 1.0]) * scale)
            expected = 1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8)
            loss = _liqe.quality_loss(scores, labels, "datasets", cast(Any, slope))
            assert loss.item() == pytest.approx(expected.mean(), abs=1e-12)


def test_the_losses_of_scene_and_distortion_are_the_published_code_s(golden: Callable[[str], Any]) -> None:
    data = golden("losses")
    for name, loss in (("scene", _liqe.scene_loss), ("distortion", _liqe.distortion_loss)):
        p = torch.tensor(data[f"{name}_p"], requires_grad=True)
        value = loss(p, torch.tensor(data[f"{name}_target"]))
        value.backward()
        np.testing.assert_allclose(value.item(), data[f"{name}_loss"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(cast(Tensor, p.grad), data[f"{name}_grad"], rtol=0, atol=1e-12)
    p, target = (torch.tensor(data[f"distortion_{part}"]) for part in ("p", "target"))
    binary = _liqe.scene_loss(p, target).item()
    np.testing.assert_allclose(binary, data["distortion_loss_by_binary"], rtol=0, atol=1e-12)


# -- the weights ---------------------------------------------------------------------------------------------


def of_given_losses(strategy: TextMultitask, losses: Tensor) -> Tensor:
    """Lets the strategy weigh losses (k,) that are given, as it does those of a step."""
    strategy.losses = lambda learner, said, shown: list(losses)  # type: ignore[method-assign]
    learner = SimpleNamespace(shown=[None], said=[None], task=0)
    return strategy.loss(cast(Learner, learner))


@pytest.mark.parametrize(("temperature", "name"), [(2.0, "t2"), (0.5, "t05")])
def test_the_weights_are_the_published_code_s(
    golden: Callable[[str], Any], temperature: float, name: str
) -> None:
    data = golden("dwa")
    strategy = LIQE(temperature=temperature)
    for epoch, steps in enumerate(data["losses"]):
        strategy.before_epoch(cast(Learner, None))
        weights = strategy._dwa.weights(3)
        np.testing.assert_allclose(weights, data[f"{name}_lambda"][:, epoch], rtol=0, atol=1e-6)
        assert weights.sum() == pytest.approx(3, abs=1e-12)
        for step, given in enumerate(steps):
            losses = torch.tensor(given, requires_grad=True)
            total = of_given_losses(strategy, losses)
            total.backward()
            # the published code adds its means up in float32
            np.testing.assert_allclose(total.item(), data[f"{name}_total"][epoch, step], rtol=0, atol=1e-6)
            np.testing.assert_allclose(
                cast(Tensor, losses.grad), data[f"{name}_grad"][epoch, step], rtol=0, atol=1e-6
            )
        np.testing.assert_allclose(
            strategy._dwa.with_current()[-1], data[f"{name}_avg_cost"][epoch], rtol=0, atol=1e-6
        )
    assert np.abs(data[f"{name}_lambda"] - 1).max() > 0.02


def test_equal_weights_are_one_whatever_the_losses_do() -> None:
    strategy = LIQE(weighting="equal")
    for losses in ([9.0, 1.0, 1.0], [1.0, 1.0, 1.0], [5.0, 1.0, 2.0]):
        strategy.before_epoch(cast(Learner, None))
        assert of_given_losses(strategy, torch.tensor(losses)).item() == sum(losses)


def test_weights_survive_an_interruption_and_start_anew_with_an_experience() -> None:
    def noted(weights: DynamicWeights, *epochs: list[float]) -> None:
        for losses in epochs:
            weights.next_epoch()
            weights.add(torch.tensor(losses))

    strategy, again = LIQE(), LIQE()
    noted(strategy._dwa, [9.0, 4.0, 1.0], [3.0, 2.0, 1.0], [2.0, 2.0, 0.5])
    progress = strategy.progress()
    assert progress is not None and len(progress) == 2
    again.load_progress(progress, cast(Learner, None))
    for one in (strategy, again):
        one.before_epoch(cast(Learner, None))
    expected = np.exp(np.array([2 / 3, 1.0, 0.5]) / 2)
    for one in (strategy, again):
        np.testing.assert_allclose(one._dwa.weights(3), 3 * expected / expected.sum(), rtol=0, atol=1e-12)
    model = new_model(strategy)
    strategy.prepare(model)
    strategy.before_epoch(cast(Learner, None))
    assert strategy._dwa.weights(3).tolist() == [1, 1, 1]


# -- a step --------------------------------------------------------------------------------------------------


class Noting(Learner):
    """Notes of each step what the head said, whose images it was, and the loss."""

    steps: list[dict[str, Any]]

    def _before_backward(self, **kwargs: Any) -> None:
        super()._before_backward(**kwargs)
        if not hasattr(self, "steps"):
            self.steps = []
        shown = [(source, images.clone()) for source, images in self.shown]
        self.steps.append(
            {
                "epoch": self.epoch,
                "said": self.said[self.task].detach().double().numpy(),
                "shown": shown,
                "loss": float(self.loss.detach()),
                "scores": self.mb_output.detach().numpy(),
            }
        )


def expected_losses(
    step: dict[str, Any], tasks: str, pooling: str = "datasets", tie: float = 1.0
) -> list[float]:
    """Returns the losses of a step as the paper's equations say, in numpy, from the joint probability."""
    joint = np.exp(step["said"])
    joint /= joint.sum((1, 2, 3), keepdims=True)  # rounded to float32, it may sum to more than 1
    quality, scene, distortion = (joint.sum(axis) for axis in ((2, 3), (1, 3), (1, 2)))
    q = quality @ np.arange(1, 6)
    each, start, scenes, distortions = [], 0, [], []
    for source, images in step["shown"]:
        y, own = source.labels[images], q[start : start + len(images)]
        start += len(images)
        p = norm.cdf((own[:, None] - own[None]) / math.sqrt(2))
        g = np.where(y[:, None] == y[None], tie, (y[:, None] > y[None]).astype(float))
        pair = 1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8)
        each.append(pair[np.triu_indices(len(y), 1)])
        for i in images.tolist():
            words = source.split.aspects[source.ratings[i].key].words
            distortions.append([COARSE[words[0]] == d for d in DISTORTIONS])
            scenes.append([s in words[1:] for s in SCENES])
    pooled = np.mean([x.mean() for x in each]) if pooling == "datasets" else np.concatenate(each).mean()
    found = [float(pooled)]
    if "d" in tasks:
        found.append(float((1 - np.sqrt(distortion * np.array(distortions) + 1e-8).sum(1)).mean()))
    if "s" in tasks:
        s, t = scene, np.array(scenes, float)
        found.append(float((1 - np.sqrt(s * t + 1e-8) - np.sqrt((1 - s) * (1 - t) + 1e-8)).mean()))
    return found


@pytest.mark.parametrize(
    "tasks", ["qsd", *(pytest.param(tasks, marks=pytest.mark.slow) for tasks in ("qs", "qd")), "q"]
)
def test_a_step_learns_what_the_equations_say(sources: list[DecodedDataset], tasks: Any) -> None:
    strategy = LIQE(tasks=tasks, views=2, weighting="equal", images=3, **FULL)
    learner = learn(strategy, new_model(strategy), sources, joint=True, kind=Noting)
    steps = cast(Noting, learner).steps
    assert {tuple(len(images) for _, images in step["shown"]) for step in steps} == {(3, 3, 3), (2, 2, 2)}
    for step in steps:
        assert step["said"].shape == (
            len(step["scores"]),
            5,
            9 if "s" in tasks else 1,
            11 if "d" in tasks else 1,
        )
        np.testing.assert_allclose(np.exp(step["said"]).sum((1, 2, 3)), 1, rtol=0, atol=1e-6)
        # largest difference seen: 5.2e-6; near 0 a root's slope is up to 5,000
        assert step["loss"] == pytest.approx(sum(expected_losses(step, tasks)), abs=1.5e-5)
        quality = np.exp(step["said"]).sum((2, 3)) @ np.arange(1, 6)
        np.testing.assert_allclose(step["scores"][:, 0], quality, rtol=0, atol=1e-5)


def test_the_third_epoch_is_weighted_by_the_two_before(sources: list[DecodedDataset]) -> None:
    strategy = LIQE(temperature=0.2, **FULL)
    learner = learn(strategy, new_model(strategy), sources, joint=True, kind=Noting)
    steps = cast(Noting, learner).steps
    losses = {e: [expected_losses(s, "qsd") for s in steps if s["epoch"] == e] for e in (0, 1, 2)}
    first, second = (np.mean(losses[e], axis=0) for e in (0, 1))
    raised = np.exp(second / first / 0.2)
    weights = 3 * raised / raised.sum()
    assert np.abs(weights - 1).max() > 0.02
    for epoch, factor in ((0, np.ones(3)), (1, np.ones(3)), (2, weights)):
        said = [s["loss"] for s in steps if s["epoch"] == epoch]
        np.testing.assert_allclose(said, np.array(losses[epoch]) @ factor, rtol=0, atol=3e-6)


def test_cosines_of_crops_are_averaged_before_the_softmax(sources: list[DecodedDataset]) -> None:
    strategy = LIQE(views=3, **TWO)
    noted: list[tuple[Tensor, Tensor]] = []

    class Looking(Noting):
        def _before_backward(self, **kwargs: Any) -> None:
            head = cast(TextHead, self.model.heads[0])
            with torch.no_grad():
                cosines = self.features.view(-1, 3, self.features.shape[1]) @ head.text_features().T
                joint = (cosines * head.logit_scale.exp()).mean(dim=1).log_softmax(dim=1)
            noted.append((joint.view(-1, 5, 1, 11), self.said[0].detach()))
            super()._before_backward(**kwargs)

    learn(strategy, new_model(strategy), sources[:2], joint=True, kind=Looking)
    for ours, said in noted:
        torch.testing.assert_close(said, ours, rtol=0, atol=3e-5)  # 1.0e-5 seen, of logarithms down to -30


def test_a_sum_of_probabilities_above_one_gives_a_number() -> None:
    """Rounding makes such sums: the root of what is left to 1 would be that of a number below 0."""
    joint = torch.zeros(2, 5, 9, 11)
    joint[:, 0, 0, 0] = 1 + 3e-7
    strategy = LIQE(distortion="binary")
    strategy.step_labels = lambda learner, shown: _liqe.StepLabels(  # type: ignore[method-assign]
        torch.tensor([0]),
        torch.tensor([1]),
        torch.tensor([1.0]),
        [1],
        torch.eye(9)[[1, 2]],
        torch.eye(11)[[1, 2]],
    )
    head = TextHead(8)
    model = SimpleNamespace(heads=[head])
    learner = cast(Learner, SimpleNamespace(model=model, task=0, training=TRAINING))
    losses = strategy.losses(learner, joint.log(), [])
    assert len(losses) == 3 and all(loss.isfinite() for loss in losses)


def test_mini_batches_of_a_plug_in_are_refused(sources: list[DecodedDataset]) -> None:
    learner = SimpleNamespace(shown=[], said=[None], task=0)
    with pytest.raises(UserError, match="liqe cannot learn from a plug-in's mini-batches"):
        LIQE().loss(cast(Learner, learner))


# -- the options ---------------------------------------------------------------------------------------------


def trained(strategy: TextMultitask, sources: list[DecodedDataset]) -> dict[str, Tensor]:
    learner = learn(strategy, new_model(strategy), sources, joint=True)
    return {name: tensor.clone() for name, tensor in learner.last_state.items()}


@pytest.fixture(scope="module")
def uneven(sources: list[DecodedDataset]) -> list[DecodedDataset]:
    """Two datasets, the second with six training images: its mini-batches are of four and two."""
    one, other = sources[:2]
    less = dict.fromkeys(other.keys("train")[6:], "test")
    subset = cast(dict[str, Subset], other.split.subset | less)
    return [one, replace(other, split=replace(other.split, subset=subset))]


TWO: dict[str, Any] = {"tasks": "qd", **FULL}
"""Fewer texts, for the sake of time."""


@pytest.fixture(scope="module")
def as_published(uneven: list[DecodedDataset]) -> dict[str, Tensor]:
    return trained(LIQE(**TWO), uneven)


@pytest.mark.parametrize(
    "changed",
    [
        {"tasks": "q"}, {"weighting": "equal"}, {"temperature": 0.5}, {"freeze_text": True},
        {"learn_scale": True}, {"pooling": "pairs"}, {"distortion": "binary"}, {"views": 2},
        {"schedule": "code"}, {"schedule": "paper"}, {"images": 3},
    ],
)  # fmt: skip
def test_every_option_changes_what_is_learned(
    uneven: list[DecodedDataset], as_published: dict[str, Tensor], changed: dict[str, Any]
) -> None:
    state = trained(LIQE(**{**TWO, **changed}), uneven)
    convolutions = [name for name in as_published if name.startswith("net.") and as_published[name].ndim == 4]
    assert any(not torch.equal(state[name], as_published[name]) for name in convolutions)


def test_frozen_texts_and_the_scale_keep_their_bits(
    sources: list[DecodedDataset], as_published: dict[str, Tensor]
) -> None:
    fresh = new_model(LIQE(tasks="qd"))
    LIQE(tasks="qd").prepare(fresh)
    first = {name: tensor for name, tensor in fresh.state_dict().items() if name.startswith("heads.0.")}
    tower = [name for name in first if "tower" in name]
    scale = "heads.0.logit_scale"
    assert torch.equal(as_published[scale], first[scale])
    assert all(not torch.equal(as_published[name], first[name]) for name in tower if "token" in name)
    frozen = trained(LIQE(freeze_text=True, **TWO), sources[:2])
    assert all(torch.equal(frozen[name], first[name]) for name in first)
    both = trained(LIQE(freeze_text=True, learn_scale=True, **TWO), sources[:2])
    assert all(torch.equal(both[name], first[name]) for name in tower) and both[scale] != first[scale]


def test_without_texts_to_learn_there_is_no_warm_up() -> None:
    t = PRESETS["quick"]
    assert LIQE(freeze_text=True).protocol(t) == replace(t, warmup_epochs=0)
    assert LIQE().protocol(t) == LIQE(freeze_text=True, learn_scale=True).protocol(t) == t
    assert LIQE().protocol(PRESETS["paper"]).pairs == "batch"


def test_labels_are_those_asked_for(miniatures: Path) -> None:
    (material,) = load_materials(["live"], miniatures).values()
    source = open_source(material, 192)
    published, repaired = LIQE(), LIQE(labels="repaired")
    fading = [r.key for r in source.ratings if r.key.startswith("fastfading/")]
    for strategy, word in ((published, "noise"), (repaired, "jpeg2000 compression")):
        assert {strategy.aspects_of(source)[key].distortion for key in fading} == {word}
        _, distortions = strategy._targets_of(source)
        assert {int(distortions[[r.key for r in source.ratings].index(key)].argmax()) for key in fading} == {
            DISTORTIONS.index(word)
        }
        truth = strategy.truths(source)["true_aspects"]
        test = [strategy.aspects_of(source)[key] for key in source.keys("test")]
        np.testing.assert_array_equal(truth, np.hstack([scene_targets(test), distortion_targets(test)]))


def test_rates_are_the_published_ones(golden: Callable[[str], Any]) -> None:
    used = golden("texts")["lr_used_in_epoch"]
    np.testing.assert_allclose([_liqe.published_rate(e) for e in range(80)], used, rtol=1e-9, atol=0)
    t = replace(PRESETS["paper"], warmup_epochs=0, epochs=80)
    code, paper, suite = (LIQE(schedule=cast(Any, name)) for name in ("code", "paper", "suite"))
    assert [code.rate(t, e, False) for e in (0, 9)] == [5e-6, 5e-6] and code.rate(t, 4, False) < 5e-7
    assert paper.rate(t, 0, False) == 5e-6 and paper.rate(t, 40, False) == pytest.approx(2.5e-6)
    assert suite.rate(t, 0, False) == t.lr * suite.main_rate
    weight = [torch.nn.Parameter(torch.zeros(2))]
    for strategy, kind, decay in (
        (code, "AdamW", 1e-3),
        (paper, "AdamW", 1e-3),
        (suite, "Adam", t.weight_decay),
    ):
        made = strategy.optimiser(weight, t)
        assert (type(made).__name__, made.defaults["weight_decay"]) == (kind, decay)


def test_what_was_pre_trained_with_texts_is_trained_as_published() -> None:
    for pretrained, schedule, crops in ((False, "suite", 1), (True, "code", 3)):
        strategy = LIQE()
        model = new_model(strategy)
        model.add_task()
        cast(TextHead, model.heads[0]).pretrained = pretrained
        strategy.prepare(model)
        assert (strategy._schedule, strategy.crops) == (schedule, crops)
        assert LIQE(views=2).crops == 2
    assert LIQE().windows(replace(TRAINING, crop=224)) is not None
    assert LIQE().windows(TRAINING) is None


def test_a_step_holds_four_times_as_many_images_of_a_large_dataset() -> None:
    sizes = (538, 607, 410, 813, 7051, 7125)  # split 1 of LIVE, CSIQ, BID, CLIVE, KonIQ-10k, KADID-10k
    assert LIQE().in_step(sizes, 999) == [4, 4, 4, 4, 16, 16]
    assert LIQE(images=2).in_step(sizes, 999) == [2, 2, 2, 2, 8, 8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIQE(temperature=0.0), "liqe.temperature must be above 0"),
        (lambda: LIQE(views=-1), "liqe.views must be at least 0"),
        (lambda: LIQE(images=1), "liqe.images must be at least 2"),
        (lambda: LIQECL(memory=1), r"liqe_cl.memory must be at least 2 \(a pair\), or 0"),
        (lambda: LIQECL(reg_weight=-1.0), "liqe_cl.reg_weight must be at least 0"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# -- one dataset after the other -----------------------------------------------------------------------------


def test_the_memory_teaches_quality_distortion_and_scene(sources: list[DecodedDataset]) -> None:
    strategy = LIQECL(memory=6, reg_weight=2.0, views=2, **FULL)
    model = new_model(strategy)
    assert strategy.memory_size == 6 and LIQECL().memory_size == 0
    learn(strategy, model, [sources[0]])
    kept = strategy.state()["memory.tiny0"].tolist()
    assert len(kept) == 6 and set(kept) <= set(sources[0].indices("train").tolist())
    noted: list[tuple[float, np.ndarray, dict[str, Any]]] = []
    losses, penalty = strategy.losses, strategy.penalty
    steps: list[dict[str, Any]] = []

    def noting_losses(learner: Learner, said: Tensor, shown: Any) -> list[Tensor]:
        steps.append({"said": said.detach().double().numpy(), "shown": shown})
        return losses(learner, said, shown)

    def noting_penalty(learner: Learner) -> Tensor | None:
        value = penalty(learner)
        assert value is not None
        noted.append((float(value.detach()), strategy._dwa.weights(3), steps[-1]))
        return value

    strategy.losses = noting_losses  # type: ignore[method-assign]
    strategy.penalty = noting_penalty  # type: ignore[method-assign]
    learn(strategy, model, [sources[1]], replace(TRAINING, epochs=3), seen=[sources[0]])
    assert len(noted) > 3
    for value, weights, step in noted:
        ((source, images),) = step["shown"]
        assert source.name == "tiny0" and set(images.tolist()) <= set(kept)
        assert value == pytest.approx(2 * float(expected_losses(step, "qsd") @ weights), abs=6e-6)
    assert np.ptp([weights for _, weights, _ in noted]) > 1e-3
    state = strategy.state()
    assert sorted(len(state[f"memory.tiny{i}"]) for i in (0, 1)) == [3, 3]


def test_the_memory_counts_by_its_factor_and_without_one_nothing_is_seen_again(
    sources: list[DecodedDataset],
) -> None:
    found: dict[float, list[float]] = {}
    for factor, memory in ((1.0, 6), (2.0, 6), (1.0, 0)):
        strategy = LIQECL(tasks="qd", memory=memory, reg_weight=factor, weighting="equal", **FULL)
        model = new_model(strategy)
        learn(strategy, model, [sources[0]])
        penalty, noted = strategy.penalty, found.setdefault(factor * (memory > 0), [])

        def noting(learner: Learner, penalty: Any = penalty, noted: Any = noted) -> Tensor | None:
            value: Tensor | None = penalty(learner)
            noted.append(math.nan if value is None else float(value.detach()))
            return value

        strategy.penalty = noting  # type: ignore[method-assign]
        learn(strategy, model, [sources[1]], seen=[sources[0]])
    assert found[2.0][0] == pytest.approx(2 * found[1.0][0], rel=1e-6) and found[1.0][0] > 0
    assert len(found[0.0]) == len(found[1.0]) and all(map(math.isnan, found[0.0]))


# -- answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "width"), [("qsd", 20), ("qs", 9), ("qd", 11), ("q", 0)])
def test_answers_hold_the_marginals_and_what_is_true(
    sources: list[DecodedDataset], tasks: Any, width: int
) -> None:
    strategy = LIQE(tasks=tasks)
    model = new_model(strategy)
    model.add_task()
    images = torch.randn(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    extras, truths = strategy.extras(model.eval()), strategy.truths(sources[0])
    if not width:
        assert (extras, truths) == ({}, {})
        return
    with torch.no_grad():
        columns = extras["aspects"].eval()(images)
        joint = cast(TextHead, model.heads[0])(model.features(images).final).exp()
    scene, distortion = joint.sum(dim=(1, 3)), joint.sum(dim=(1, 2))
    expected = torch.cat([part for part in (scene, distortion) if part.shape[1] > 1], dim=1)
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-6)
    every = [sources[0].aspects[key] for key in sources[0].keys("test")]
    parts = {"s": scene_targets(every), "d": distortion_targets(every)}
    np.testing.assert_array_equal(truths["true_aspects"], np.hstack([parts[t] for t in tasks if t in parts]))
    assert columns.shape[1] == truths["true_aspects"].shape[1] == width


def test_accuracies_are_the_published_training_script_s(golden: Callable[[str], Any]) -> None:
    data = golden("readings")
    joint = torch.tensor(data["joint"]).view(-1, 5, 9, 11)
    head = TextHead(8)
    found = head.marginals(joint.log())
    words = zip(data["distortion"].tolist(), data["scenes"].tolist(), strict=True)
    true = [Aspects(COARSE.get(d, d), tuple(s for s in scenes if s != "invalid")) for d, scenes in words]
    scene = scene_accuracy(found.scene, scene_targets(true))
    assert scene == pytest.approx(float(data["train_script_scene_accuracy"]), abs=1e-12)
    distortion = distortion_accuracy(found.distortion, distortion_targets(true))
    assert distortion == pytest.approx(float(data["train_script_distortion_accuracy"]), abs=1e-12)
    scores = head.score(joint.log()).double().numpy()
    assert srcc(scores, data["mos"]) == pytest.approx(float(data["srcc"]), abs=1e-9)
    assert scene != pytest.approx(float(data["benchmark_scene_accuracy"]), abs=0.01)


def test_accuracies_by_hand() -> None:
    truth = np.array([[1, 1, 0], [0, 0, 1]])
    said = np.array([[0.5, 0.1, 0.4], [0.2, 0.3, 0.5]])
    assert scene_accuracy(said, truth) == pytest.approx(2 / 3)  # of two scenes one, of one scene that one
    assert scene_accuracy(said, np.zeros((2, 3))) != scene_accuracy(said, np.zeros((2, 3)))  # nan
    assert distortion_accuracy(said, [[0, 1, 0], [0, 0, 1]]) == 0.5
    assert math.isnan(distortion_accuracy(np.zeros((0, 3)), np.zeros((0, 3))))


# -- plans and runs ------------------------------------------------------------------------------------------


def laid_out(data: Path, out: Path, strategy: str, *words: str) -> Plan:
    given = ["plan", "--strategy", strategy, "--orders", "csiq,live", "--data", str(data), "--out", str(out)]
    _, args = parser.parse([*given, *words])
    return execution.prepare(resolve(args.as_dict()), "")


def test_what_pictures_show_is_in_the_names_of_what_learns_it(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliqa_bench.benchmarks import aspect_labels

    strategies = "jl,liqe,liqe_cl"
    before = laid_out(miniatures, tmp_path, strategies)
    own_rows = aspect_labels.own_rows

    def turned(dataset: Any) -> Any:
        rows = own_rows(dataset)
        return {key: row._replace(words=("lens", "night")) for key, row in rows.items()}

    monkeypatch.setattr(aspect_labels, "own_rows", turned)
    after = laid_out(miniatures, tmp_path, strategies)

    def named(plan: Plan, strategy: str) -> set[str]:
        works = [w for w in plan.train.values() if w.strategy.name == strategy]
        return {w.node.id for w in works} | {
            a.node.id for a in plan.answers.values() if any(a.of is w for w in works)
        }

    assert named(before, "jl") == named(after, "jl")
    for strategy in ("liqe", "liqe_cl"):
        assert named(before, strategy) and not named(before, strategy) & named(after, strategy)
    quality = [laid_out(miniatures, tmp_path, "liqe", "--set", "liqe.tasks=q")]
    monkeypatch.setattr(aspect_labels, "own_rows", own_rows)
    quality.append(laid_out(miniatures, tmp_path, "liqe", "--set", "liqe.tasks=q"))
    assert quality[0].train.keys() == quality[1].train.keys()


def test_data_of_which_nothing_is_known_are_refused_but_for_quality_alone(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliqa_bench.benchmarks import aspect_labels

    monkeypatch.setattr(aspect_labels, "own_rows", lambda dataset: {})
    with pytest.raises(
        UserError, match=r"liqe learns scenes and distortions, but those of \w+ are not known"
    ) as told:
        laid_out(miniatures, tmp_path, "liqe")
    assert "--split PATH" in str(told.value) and "liqe.tasks=q" in str(told.value)
    assert "\n" not in str(told.value)
    assert laid_out(miniatures, tmp_path, "liqe", "--set", "liqe.tasks=q").train
    strategy = LIQE()
    (material,) = load_materials(["live"], miniatures).values()
    with pytest.raises(UserError, match="those of LIVE are not known"):
        strategy._targets_of(open_source(material, 192))


def test_all_strategies_are_those_that_the_data_can_teach(
    shared: Path, miniatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shared / "data"
    kadid = find_datasets(data / "original_labels", ["kadid10k"])["kadid10k"]
    csiq = find_datasets(data / "original_labels", ["csiq"])["csiq"]
    liqe = str(data / "splits" / "kadid10k_liqe")
    assert has_aspects(liqe, kadid) and has_aspects(f"{liqe}#2", kadid) and has_aspects(f"{liqe}/1", kadid)
    assert (
        not has_aspects("1", kadid)
        and not has_aspects("official", kadid)
        and not has_aspects("nowhere", kadid)
    )
    assert not has_aspects(str(data / "splits/csiq_tsn"), csiq) and not has_aspects(liqe, csiq)
    assert has_aspects("1", find_datasets(miniatures, ["csiq"])["csiq"])
    asked: dict[str, Any] = {"strategy": "all", "orders": "kadid10k", "data": str(data / "original_labels")}
    everything = set(registry.names("strategies")) - {"prompt"}  # needs a transformer
    for split, lacking in (("1", {"liqe", "liqe_cl"}), (liqe, set())):
        assert everything - set(resolve({**asked, "split": split}).strategy) == lacking
    more = {**asked, "set": ["liqe.tasks=q"]}
    assert "liqe" in resolve(more).strategy and "liqe_cl" not in resolve(more).strategy
    assert {"liqe", "liqe_cl"} <= set(paper_configs({"data": str(miniatures)})[0].strategy)


@pytest.mark.slow
def test_a_run_is_answered_and_verified(miniatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = ["run", "--strategy", "liqe,liqe_cl", "--orders", "csiq,live", "--data", str(miniatures)]
    words += ["--set", "training.epochs=1", "--set", "training.warmup_epochs=1", "--set", "liqe_cl.memory=8"]
    assert parser.main([*words, "--out", str(out)]) == 0
    found = [read_answers(path) for path in (out / "answers").glob("liqe*/answers.npz")]
    assert len(found) == 6
    for answers in found:
        said, true = answers["extra.aspects"], answers["extra.true_aspects"]
        assert said.shape == true.shape == (len(answers["mos"]), 20)
        np.testing.assert_allclose(said[:, :9].sum(1), 1, rtol=0, atol=1e-5)
        np.testing.assert_allclose(said[:, 9:].sum(1), 1, rtol=0, atol=1e-5)
        assert (true[:, 9:].sum(1) == 1).all() and (true[:, :9].sum(1) >= 1).all()
        assert ((answers["scores"] >= 1) & (answers["scores"] <= 5)).all()
    assert parser.main(["verify", str(out)]) == 0
