"""Weights with owners: the masks against numpy and Avalanche's PackNet; R&R-Net and SILF on top."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save
from scipy.stats import spearmanr
from torch import Tensor, nn

from cliqa_bench.system.avalanche_import import importing_avalanche

with importing_avalanche():
    from avalanche.core import SupervisedPlugin
    from avalanche.models.packnet import PackNetModel

from cliqa_bench.backbones.staged import FeatureNet, Features
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.cli import parser
from cliqa_bench.config import Training
from cliqa_bench.errors import UserError
from cliqa_bench.execution.estimate import _node_bytes
from cliqa_bench.extensions import registry
from cliqa_bench.learning.checkpoints import Checkpoints
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.owned_weights import (
    FIRST,
    FREE,
    PRETRAINED,
    SOFT,
    CoreAndSoft,
    OwnedWeights,
    owned_layers,
    sharing_of,
    smallest,
)
from cliqa_bench.models.quality import QualityModel, load_tasks, model_for
from cliqa_bench.reports import load
from cliqa_bench.strategies._owners import Owners, freed_share
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.naive import Naive
from cliqa_bench.strategies.rr import RR
from cliqa_bench.strategies.silf import SILF
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1.9e-7
"""Three times the largest difference seen between scores of the folded and the plain network: 6.0e-8."""

LONG = replace(TRAINING, epochs=4)
"""Epochs enough for SILF's core and soft part to learn in turn."""


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources(4) as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


def stream(
    strategy: Strategy,
    sources: Sequence[DecodedDataset],
    training: Training = LONG,
    after: Callable[[QualityModel, Learner], Any] = lambda model, learner: None,
) -> tuple[QualityModel, list[Any]]:
    """Learns datasets one after the other; returns the model, and what `after` says after each."""
    model, said = new_model(strategy), []
    for n, source in enumerate(sources):
        learner = learn(strategy, model, [source], training, seen=sources[:n])
        said.append(after(model, learner))
    return model, said


def quick_to_move(**more: Any) -> dict[str, Any]:
    return {"warmup_rate": 1.0, "main_rate": 0.1, **more}


def shares_of(model: QualityModel, *owners: int) -> list[float]:
    """Returns which share of all weights each of several owners has."""
    everything = torch.cat([o.flatten() for o in (layer.owned.owners for layer in owned_layers(model.net))])
    return [float((everything == owner).double().mean()) for owner in owners]


def images(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 40, 40, generator=torch.Generator().manual_seed(1))


def answers(model: QualityModel) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model.eval()(images())
        return scores


@dataclass
class Told:
    """What is known of a model after a task.

    Attributes:
        shares: Of all weights, by owner.
        used: By task, the weights that it uses.
        whole: (images, tasks) answers.
        core: The same of the tasks' cores.
        folded: As `whole`, of a folded copy.
        soft: Sum of the absolute soft weights.
    """

    shares: dict[int, float]
    used: list[list[Tensor]]
    whole: Tensor
    core: Tensor
    folded: Tensor
    soft: float


def told(model: QualityModel, learner: Learner) -> Told:
    used = []
    for task in range(model.n_tasks):
        assert model.view is not None
        model.view.use(model.net, task)
        used.append([cast(Tensor, x.layer.weight).detach().clone() for x in owned_layers(model.net)])
    whole, sharing = answers(model), sharing_of(model.net)
    sharing.part = "core"
    core = answers(model)
    sharing.part = "whole"
    with torch.inference_mode():
        folded = Scorer(model)(images())
    every = {owner: shares_of(model, owner)[0] for owner in (*range(8), *range(SOFT, SOFT + 4))}
    soft = [x.weight[x.owned.owners >= SOFT].detach() for x in owned_layers(model.net)]
    return Told(every, used, whole, core, folded, float(sum(w.abs().sum() for w in soft)))


@pytest.fixture(scope="module")
def rr(sources: list[DecodedDataset]) -> tuple[QualityModel, list[Told]]:
    """Learns four tiny datasets with R&R-Net."""
    return stream(RR(tasks=4, **quick_to_move()), sources, after=told)


@pytest.fixture(scope="module")
def silf(sources: list[DecodedDataset]) -> tuple[QualityModel, list[Told]]:
    """Learns four tiny datasets with SILF, two of them preset."""
    return stream(SILF(preset=2, **quick_to_move()), sources, after=told)


# -- masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.67, 1.0])
def test_the_smallest_are_those_of_numpy(share: float) -> None:
    rng = np.random.default_rng(0)
    weights, among = rng.normal(size=(8, 5, 3, 3)), rng.random((8, 5, 3, 3)) < 0.7
    count = int(among.sum() * share)
    away = np.where(among, np.abs(weights), np.inf).ravel()
    expected = np.zeros(away.size, bool)
    expected[np.argpartition(away, count)[:count]] = True
    for layout in (torch.contiguous_format, torch.channels_last):
        w, which = (torch.tensor(a).to(memory_format=layout) for a in (weights, among))
        marked = smallest(w, which, share)
        np.testing.assert_array_equal(marked.numpy().ravel(), expected)
        assert marked.stride() == which.stride()


def test_of_equal_weights_the_first_are_marked() -> None:
    weights = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    among = torch.tensor([[True, True, True], [True, False, True]])
    assert smallest(weights, among, 0.4).tolist() == [[True, False, True], [False, False, False]]
    assert smallest(weights, among, 0.8).tolist() == [[True, True, True], [False, False, True]]


class Layers(FeatureNet):
    """A convolution and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(28, 11), nn.ReLU(), nn.Linear(11, 5),
        )  # fmt: skip

    def pooled(self, images: Tensor, fixed: Tensor | None) -> Features:
        out = self.layers(images)
        return Features(out, (out,))


def test_pruning_frees_what_packnet_of_avalanche_frees() -> None:
    torch.manual_seed(0)
    net, view = Layers(), OwnedWeights(3)
    packnet = PackNetModel(Layers().layers)
    wrapped: list[Any] = [m for m in packnet.modules() if hasattr(m, "task_index")]
    plain = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for module, start in zip(wrapped, plain, strict=True):
        module.wrappee.load_state_dict(start.state_dict())
    view.install(net)
    for task, share in enumerate((0.67, 0.5)):
        view.add_task(net)
        with torch.no_grad():  # what a task learns
            for module, layer in zip(wrapped, owned_layers(net), strict=True):
                learned = torch.randn(layer.weight.shape)
                own = layer.owned.owners == FIRST + task
                layer.weight.copy_(torch.where(own, learned, layer.weight))
                module.wrappee.weight.copy_(
                    torch.where(module.task_index == task, learned, module.wrappee.weight)
                )
        packnet.prune(share)
        view.free(net, task, share)
        for module, layer in zip(wrapped, owned_layers(net), strict=True):
            freed = layer.owned.owners == FREE
            assert torch.equal(freed, module.pruned_mask)
            assert 0 < freed.double().mean() < 1
            assert not layer.weight[freed].any()
        packnet.freeze_pruned()
        packnet.activate_task(task + 1)


def test_a_task_uses_its_own_and_earlier_weights_and_mutes_the_smallest() -> None:
    view, net = OwnedWeights(3, kept=0.2), Layers()
    before = [w.detach().clone() for name, w in net.named_parameters() if "weight" in name]
    view.install(net)
    for task in range(3):
        view.add_task(net)
        view.free(net, task, 0.5)
    with torch.no_grad():
        for _, weight, _ in owned_layers(net):  # what was freed is 0 and would not show
            weight.copy_(torch.where(weight == 0, torch.rand(weight.shape) + 0.1, weight))
    view.mute(net, 2, 0, 0.25)
    for task in (2, 0, 1):
        view.use(net, task)
        for (layer, weight, owned), start in zip(owned_layers(net), before, strict=True):
            w, o = weight.detach().numpy(), owned.owners.numpy()
            used = (o == PRETRAINED) | ((o >= FIRST) & (o <= FIRST + task))
            if task == 2:
                of_first = np.flatnonzero(o.ravel() == FIRST)
                order = of_first[np.argsort(np.abs(w.ravel()[of_first]))]
                used.ravel()[order[: len(of_first) // 4]] = False
            shown = cast(Tensor, layer.weight).detach().numpy()
            np.testing.assert_array_equal(shown, np.where(used, w, 0))
            kept = np.sort(np.abs(start.numpy()).ravel())[int(start.numel() * 0.8) :]
            np.testing.assert_array_equal(np.sort(np.abs(start.numpy()[o == PRETRAINED])), kept)


def test_gradients_reach_what_learns_and_nothing_else() -> None:
    view, net = CoreAndSoft(2, "restore"), Layers()
    view.install(net)
    view.add_task(net)
    view.free(net, 0, 0.4)
    view.soften(net, 0, 0.5)
    for part, wanted in (("core", FIRST), ("soft", SOFT), ("whole", FIRST)):
        view.learn_part(net, part)  # type: ignore[arg-type]
        view.use(net, 0)
        net.zero_grad()
        net(images()).final.sum().backward()
        for _, weight, owned in owned_layers(net):
            assert weight.grad is not None
            assert not weight.grad[owned.owners != wanted].any()
            assert weight.grad[owned.owners == wanted].any()


def test_a_layer_without_weights_to_share_and_no_task_are_refused() -> None:
    class Nothing(FeatureNet):
        pass

    with pytest.raises(UserError, match="Nothing has no convolution and no linear layer"):
        OwnedWeights(2).install(Nothing())
    net, view = Layers(), OwnedWeights(1)
    view.install(net)
    with pytest.raises(ValueError, match="name a task"):
        view.use(net, None)
    view.add_task(net)
    with pytest.raises(UserError, match="there is room for 1 tasks, and all are taken"):
        view.add_task(net)


# -- shares and relevance ------------------------------------------------------------------------------------


def test_reuse_is_that_of_the_papers() -> None:
    found = [RR().reuse(s) for s in (1.0, 0.0, -0.5, -1.0)]
    assert [round(share, 3) for share in found] == [0.998, 0.769, 0.215, 0.022]
    assert [SILF().reuse(s) for s in (1.0, 0.3, 0.0, -0.5, -1.0)] == [1.0, 1.0, 1.0, 0.75, 0.5]


def left_by(shares: tuple[float, ...], tasks: int) -> list[float]:
    """Returns what each task owns in the end, of all weights."""
    rest, found = 1.0, []
    for task in range(tasks):
        freed = freed_share(task, tasks, shares)
        found.append(rest * (1 - freed))
        rest *= freed
    return found


def test_shares_are_equal_or_those_of_the_papers() -> None:
    np.testing.assert_allclose(left_by((), 6), [1 / 6] * 6, rtol=1e-12)
    np.testing.assert_allclose(left_by((0.7, 0.5), 3), [0.3, 0.35, 0.35], rtol=1e-12)
    np.testing.assert_allclose(left_by((0.67, 0.5), 3), [0.33, 0.335, 0.335], rtol=1e-12)
    np.testing.assert_allclose(left_by((0.5,), 5), [0.5, *[0.125] * 4], rtol=1e-12)


def test_what_tasks_own_in_the_end(
    sources: list[DecodedDataset], rr: tuple[QualityModel, list[Told]]
) -> None:
    """Of each layer a share is rounded down; S-CNN has nine layers and 528,912 weights."""
    kept = RR().kept
    last = rr[1][-1].shares
    assert [last[owner] for owner in range(6)] == pytest.approx([0, kept, *[(1 - kept) / 4] * 4], abs=1e-4)
    paper = SILF(kept=0.0, preset=3, shares=(0.7, 0.5), soft_share=0.4, **quick_to_move())
    few = replace(TRAINING, epochs=1)
    _, said = stream(paper, sources, few, lambda model, _: told(model, _).shares)
    assert [said[0][owner] for owner in (FIRST, SOFT, FREE)] == pytest.approx([0.18, 0.12, 0.7], abs=1e-4)
    core, soft = range(FIRST, FIRST + 3), range(SOFT, SOFT + 3)
    assert [said[2][owner] for owner in (*core, *soft, FREE)] == pytest.approx(
        [0.18, 0.21, 0.21, 0.12, 0.14, 0.14, 0], abs=1e-4
    )
    assert [said[3][owner] for owner in (*core, *soft, FIRST + 3)] == pytest.approx(
        [0.18, 0.21, 0.21, 0, 0.14, 0.14, 0.12], abs=1e-4
    )


class Watched:
    """An image cache that notes which images are read."""

    def __init__(self, cache: Any) -> None:
        self._cache, self.read = cache, set[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def images(self, indices: Any) -> Tensor:
        self.read.update(int(i) for i in indices)
        return cast(Tensor, self._cache.images(indices))


@pytest.mark.parametrize("subset", ["val", "train"])
@pytest.mark.parametrize("strategy", [RR, SILF])
def test_relevance_is_an_srcc_on_images_that_are_not_test_images(
    sources: list[DecodedDataset], strategy: type[Owners], subset: Any
) -> None:
    made = strategy(relevance_on=subset, **quick_to_move())
    model, _ = stream(made, sources[:1])
    cache = Watched(sources[1].cache)
    source = replace(sources[1], cache=cast(Any, cache))
    expected = []
    with torch.no_grad():
        for i in source.indices(subset):
            x = source.cache.images(np.array([i])).float()
            mean, std = (
                torch.tensor(v)[:, None, None] * 255 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            )
            expected.append(float(model.eval().score((x - mean) / std, 0)))
    relevance = spearmanr(expected, source.mos[source.indices(subset)]).statistic
    cache.read.clear()
    learner = Learner(model=model, strategy=made, training=LONG, seen=sources[:1])
    made.prepare(model)
    learner.task, learner.epoch = 1, 0
    learner.experience = type("Experience", (), {"sources": [source]})()
    made._relate(learner)
    assert cache.read == set(source.indices(subset).tolist())
    muted = sharing_of(model.net).muted[1]
    assert muted.tolist() == pytest.approx([1 - made.reuse(relevance), *[0.0] * 5], abs=1e-6)
    assert relevance != 0


# -- what is promised ----------------------------------------------------------------------------------------


def test_nothing_that_a_task_of_rr_uses_ever_changes(rr: tuple[QualityModel, list[Told]]) -> None:
    """Weights and answers, byte for byte, although the optimiser decays weights."""
    assert LONG.weight_decay > 0
    for earlier, first in enumerate(rr[1]):
        for later in rr[1][earlier:]:
            for task in range(earlier + 1):
                assert all(map(torch.equal, first.used[task], later.used[task]))
                assert first.whole[:, task].numpy().tobytes() == later.whole[:, task].numpy().tobytes()
                assert first.folded[:, task].numpy().tobytes() == later.folded[:, task].numpy().tobytes()
    last = rr[1][-1]
    assert not any(map(torch.equal, last.used[0], last.used[1]))
    assert len(set(last.whole[0].tolist())) == 4


@pytest.mark.parametrize("name", ["rr", pytest.param("silf", marks=pytest.mark.slow)])
def test_answers_do_not_depend_on_which_task_was_asked_before(
    name: str, request: pytest.FixtureRequest
) -> None:
    model, _ = request.getfixturevalue(name)
    everything = answers(model)
    for task in (3, 0, 2, 2, 1, 3):
        with torch.no_grad():
            assert torch.equal(model.score(images(), task), everything[:, task])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scorer = Scorer(model)
    with torch.no_grad():
        np.testing.assert_allclose(scorer(images()), everything, rtol=0, atol=ROUNDING)
        assert torch.equal(scorer(images()), Scorer(model)(images()))
        assert torch.equal(answers(model), everything)  # the copies that were folded left it alone
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    fresh = new_model(RR(tasks=4) if name == "rr" else SILF(preset=2))
    for _ in range(4):
        fresh.add_task()
    assert not torch.equal(answers(fresh), everything)
    with torch.no_grad():
        fresh.score(images(), 0)  # makes masks of the first task, which loading puts out of date
        fresh.load_own_state(model.own_state())
        assert torch.equal(fresh.score(images(), 0), everything[:, 0])
    assert torch.equal(answers(fresh), everything)


def test_the_model_of_six_tasks_is_one_network_and_a_byte_for_each_weight() -> None:
    for strategy in (RR(), SILF()):
        model = new_model(strategy)
        for _ in range(6):
            model.add_task()
        n = sum(layer.weight.numel() for layer in owned_layers(model.net))
        assert n == 528_912
        state = model.own_state()
        heads, ratios = 6 * 128 * 4, 6 * 6 * 4
        assert sum(t.nbytes for t in state.values()) == 5 * n + heads + ratios
        header = len(save(state)) - 5 * n - heads - ratios
        assert 0 < header < 10_000  # names and shapes
        with pytest.raises(UserError, match="there is room for 6 tasks"):
            model.add_task()


def test_what_silf_forgets_is_known_when_a_task_has_been_learned(
    silf: tuple[QualityModel, list[Told]],
) -> None:
    """A preset task answers with all it has until its soft weights are taken, then with its core."""
    first, second, third, fourth = silf[1]
    assert not torch.equal(first.whole[:, 0], first.core[:, 0])
    assert not torch.equal(second.whole[:, 1], second.core[:, 1])
    assert torch.equal(second.whole[:, 0], first.whole[:, 0])
    assert torch.equal(third.whole[:, 0], first.core[:, 0])  # the third took from the first
    assert torch.equal(third.whole[:, 1], second.whole[:, 1])
    assert torch.equal(fourth.whole[:, 1], second.core[:, 1])  # the fourth took from the second
    assert torch.equal(fourth.whole[:, 2], third.whole[:, 2])  # additional tasks forget nothing
    assert 0 < third.soft < second.soft


def test_the_published_code_of_silf_leaves_all_preset_tasks_their_cores(
    sources: list[DecodedDataset],
) -> None:
    _, said = stream(SILF(preset=2, soft="code", **quick_to_move()), sources[:3], after=told)
    first, second, third = said
    assert not torch.equal(second.whole[:, 1], second.core[:, 1])
    assert torch.equal(third.whole[:, 0], first.core[:, 0])
    assert torch.equal(third.whole[:, 1], second.core[:, 1])
    assert (second.soft > 0, third.soft) == (True, 0)


def test_a_second_preset_task_uses_the_first_one_s_soft_weights_in_the_published_code_only() -> None:
    for soft, wanted in (("restore", [SOFT + 1]), ("code", [SOFT, SOFT + 1])):
        view = CoreAndSoft(2, soft)  # type: ignore[arg-type]
        core = [PRETRAINED, FIRST, FIRST + 1]
        assert view.used_by(Layers(), 1, "whole") == [*core, *wanted]
        assert view.used_by(Layers(), 1, "soft") == [*core, *wanted]
        assert view.used_by(Layers(), 1, "core") == core
        assert view.used_by(Layers(), 2, "whole") == [*core, FIRST + 2]


class Stopped(BaseException):
    """The epoch is over, and so is the process."""


class Stop(SupervisedPlugin):
    """Ends a training after every epoch."""

    def after_training_epoch(self, strategy: Learner, **kwargs: Any) -> None:
        raise Stopped


@pytest.mark.parametrize(
    "strategy",
    [RR(**quick_to_move()), pytest.param(SILF(preset=1, **quick_to_move()), marks=pytest.mark.slow)],
)
def test_it_resumes_from_every_epoch_byte_for_byte(
    sources: list[DecodedDataset], tmp_path: Path, strategy: Owners
) -> None:
    straight, states = stream(strategy, sources[:2], after=lambda m, _: save(m.own_state()))
    saved: dict[str, Tensor] | None = None
    for n, source in enumerate(sources[:2]):
        file = tmp_path / f"{n}.safetensors"
        for _ in range(LONG.warmup_epochs + LONG.epochs + 2):
            model = new_model(strategy)
            if saved is not None:
                load_tasks(model, saved, file)
            plugins = [Checkpoints(file, {}, lambda text: None, pause=0), Stop()]
            with suppress(Stopped):
                learn(replace(strategy), model, [source], LONG, seen=sources[:n], plugins=plugins)
                break
        else:
            pytest.fail("it never ends")
        saved = {name: t.clone() for name, t in model.own_state().items()}
        assert save(saved) == states[n]
    assert torch.equal(answers(model), answers(straight))


# -- when what happens ---------------------------------------------------------------------------------------


def test_epochs_before_the_weights_are_settled_do_not_stay(sources: list[DecodedDataset]) -> None:
    parts: list[tuple[int, str, float]] = []

    class Noted(Learner):
        def validate(self) -> float:
            super().validate()
            parts.append((self.epoch, sharing_of(self.model.net).part, shares_of(self.model, FREE)[0]))
            return -float(self.epoch)  # the first one that may stay does

    once = RR(**quick_to_move())
    learner = learn(once, new_model(once), sources[:1], replace(TRAINING, epochs=6), kind=Noted)
    assert [round(free, 2) for _, _, free in parts] == [0, 0] + [0.58] * 6
    assert learner.best_epoch == 1 + 1 + 1
    parts.clear()
    in_turn = SILF(**quick_to_move())
    learner = learn(in_turn, new_model(in_turn), sources[:1], replace(TRAINING, epochs=8), kind=Noted)
    assert [part for _, part, _ in parts] == ["whole"] * 3 + ["core", "soft"] * 3 + ["whole"]
    assert learner.best_epoch == 1 + 2 + 2


@pytest.mark.parametrize("strategy", [RR(**quick_to_move()), SILF(**quick_to_move())])
def test_one_epoch_is_enough_to_share_the_weights_out(
    sources: list[DecodedDataset], strategy: Owners
) -> None:
    _, said = stream(
        strategy, sources[:1], replace(TRAINING, epochs=1), lambda m, _: shares_of(m, FREE, SOFT)
    )
    assert said[0] == pytest.approx(
        [0.7 * 5 / 6, 0.0] if isinstance(strategy, RR) else [0.7 * 2 / 3, 0.7 / 6], abs=1e-4
    )


@dataclass
class Noting(Naive):
    """Lets every second epoch stay, and notes when it is called."""

    calls: ClassVar[list[tuple[str, int, bool]]] = []

    def before_epoch(self, learner: Learner) -> None:
        self.calls.append(("before", learner.epoch, learner.warming_up))

    def may_stay(self, learner: Learner) -> bool:
        self.calls.append(("after", learner.epoch, learner.warming_up))
        return learner.epoch == 1


def test_a_strategy_says_which_epochs_may_stay(sources: list[DecodedDataset], tmp_path: Path) -> None:
    class Rising(Learner):
        def validate(self) -> float:
            super().validate()
            return float(self.epoch)

    strategy = Noting()
    learner = learn(strategy, new_model(strategy), sources[:1], kind=Rising)
    assert strategy.calls == [(word, n, n < 1) for n in range(3) for word in ("before", "after")]
    assert learner.best_epoch == 2
    never: type[Naive] = dataclass(type("Never", (Noting,), {"may_stay": lambda self, learner: False}))
    learner = learn(never(), new_model(never()), sources[:1], kind=Rising)
    assert learner.best_epoch == 0
    last = learner.last_state
    assert all(torch.equal(t, last[name]) for name, t in learner.model.own_state().items())
    assert Noting().progress() is None  # who knows what it remembers


# -- what a user sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RR(tasks=0), "rr.tasks must be at least 1"),
        (lambda: RR(tasks=127), "rr.tasks must be below 127"),
        (lambda: RR(kept=1.0), "rr.kept must be below 1"),
        (lambda: RR(dense=1.0), "rr.dense must be below 1"),
        (lambda: SILF(dense=-0.1), "silf.dense must be at least 0"),
        (lambda: RR(tasks=2, shares=(0.67, 0.5)), "rr.shares must be fewer than rr.tasks = 2, not 2"),
        (lambda: RR(tasks=2, shares=(1.0,)), r"rr.shares must be between 0 and 1"),
        (lambda: SILF(preset=0), "silf.preset must be at least 1"),
        (lambda: SILF(soft_share=0.0), "silf.soft_share must be above 0"),
        (lambda: SILF(shares=(0.5,) * 3), "silf.shares must be fewer than silf.preset = 3, not 3"),
        (lambda: RR().check_length(7), "rr has room for 6 datasets, and an order has 7: set rr.tasks=7"),
        (
            lambda: SILF().check_length(7),
            "silf has room for 6 datasets, and an order has 7: set silf.preset=4",
        ),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_an_order_that_is_too_long_is_refused_before_anything_is_learned(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--strategy", "rr", "--orders", "bid,clive", "--data", str(miniatures)]
    assert parser.main([*words, "--out", str(tmp_path), "--set", "rr.tasks=1"]) == 2
    assert "rr has room for 1 datasets, and an order has 2: set rr.tasks=2" in capsys.readouterr().err
    assert parser.main([*words, "--out", str(tmp_path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "timm:vit_tiny_patch16_224"])
def test_other_backbones_share_their_weights(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    backbone = registry.load("backbones", name)
    strategy = RR(tasks=2)
    model = model_for(strategy, backbone.build("random", 3), backbone.feature_size, TRAINING)
    strategy.prepare(model)
    said = capsys.readouterr().err
    view = cast(OwnedWeights, model.view)
    view.free(model.net, 0, 0.5)
    strategy.prepare(model)
    n = sum(layer.weight.numel() for layer in owned_layers(model.net))
    assert n > 0.97 * sum(p.numel() for p in model.net.parameters())
    side = 224 if name.startswith("timm:") else 64
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = model.eval()(x)
        largest = float((Scorer(model)(x) - scores).abs().max())
    assert scores[0, 0] == scores[0, 1]  # the second task's weights are 0 yet
    assert largest < ROUNDING
    if name == "resnet18":
        assert said == ""
    else:
        assert said.count("\n") == 1
        assert "rr: model.cls_token, model.pos_embed cannot be masked and stay as pre-trained" in said


@pytest.mark.slow
def test_on_miniatures_rr_with_the_oracle_forgets_nothing(miniatures: Path, tmp_path: Path) -> None:
    words = ["run", "--strategy", "rr,silf", "--orders", "bid,clive", "--data", str(miniatures), "--out"]
    few = ["--set", "training.epochs=2", "--set", "training.warmup_epochs=1", "--no-figures"]
    assert parser.main([*words, str(tmp_path), *few, "--set", "silf.preset=1"]) == 0
    table = load(tmp_path)
    rows = table[(table.metric == "mSI") & (table.method == "R&R-Net-O") & (table.table == "III")]
    assert rows.value.tolist() == [1.0]
    agnostic = {"R&R-Net-KG", "R&R-Net", "SILF-KG", "SILF"}
    assert set(table[table.table == "III"].method) == {*agnostic, "R&R-Net-O", "SILF-O"}
    for number in ("IV", "V", "VI"):  # as of TSN-IQA: rows with the oracle are in Table III only
        assert set(table[table.table == number].method) == agnostic, number
    assert parser.main(["verify", str(tmp_path)]) == 0


def test_the_size_of_a_node_is_guessed_from_the_whole_network() -> None:
    plan = cast(Any, SimpleNamespace(backbone=registry.load("backbones", "scnn")))
    strategy = RR()
    guess = _node_bytes(plan, cast(Any, SimpleNamespace(strategy=strategy)), None)
    model = new_model(strategy)
    model.add_task()
    assert 0.75 < guess / len(save(model.own_state())) < 1.25
