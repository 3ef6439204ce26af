"""docs/avalanche_table.md: it has a row for every class of the installed Avalanche, and each row is so.

What a row promises is shown by a number that a plug-in which did nothing would not give.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import avalanche.training
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models.base_model import BaseModel
from avalanche.models.packnet import PackNetModel
from avalanche.training import plugins, supervised, templates
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import lamaml, lamaml_v2, naive_object_detection
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn

from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.learning import avalanche_plugins
from cliqa_bench.learning.avalanche_loggers import quality_evaluator
from cliqa_bench.learning.avalanche_plugins import AfterWarmUp, EarlyStoppingPlugin
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.refused_plugins import CANNOT, refuse_plugins
from cliqa_bench.strategies._avalanche import PLUGINS
from cliqa_bench.testing.tiny import TRAINING, new_model, tiny_sources

PAGE = Path(__file__).resolve().parents[1] / "docs" / "avalanche_table.md"
WRITTEN_FOR = "0.6."


@functools.cache
def table(heading: str) -> dict[str, tuple[str, str]]:
    """Returns name -> (verdict, what is said of it) of one of the page's tables."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|(.*)\|$", text, flags=re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}) > 20
    return {name: (verdict, said.strip()) for name, verdict, said in rows}


LEARNER, STREAMS = table("Plug-ins in the learner"), table("Templates on the streams")


pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Avalanche and PyTorch say much of what will change
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    """Two datasets that contradict each other: what is better in one is worse in the other."""
    with tiny_sources(2) as (one, two):
        yield [one, replace(two, ratings=[r._replace(score=20 - r.score) for r in two.ratings])]


# -- the page ------------------------------------------------------------------------------------------------


def classes(module: Any) -> set[str]:
    """Returns the names of a module that are classes, or were before Avalanche deprecated them."""
    return {name for name, value in vars(module).items() if name[0].isupper() and callable(value)}


def all_templates() -> set[str]:
    found = set()
    for info in pkgutil.walk_packages(avalanche.training.__path__, "avalanche.training."):
        module = importlib.import_module(info.name)
        own = [v for v in vars(module).values() if getattr(v, "__module__", None) == info.name]
        found |= {v.__name__ for v in own if inspect.isclass(v) and issubclass(v, BaseTemplate)}
    return found


@pytest.mark.skipif(
    not version("avalanche-lib").startswith(WRITTEN_FOR),
    reason=f"the page was written for avalanche-lib {WRITTEN_FOR}*",
)
def test_the_page_has_a_row_for_every_class() -> None:
    assert set(LEARNER) == classes(plugins)
    assert set(STREAMS) == {*classes(supervised), *classes(templates), *all_templates()}


def test_the_page_names_three_verdicts_and_what_is_on_the_command_line() -> None:
    verdicts = {verdict for verdict, _ in (*LEARNER.values(), *STREAMS.values())}
    assert verdicts == {"works", "with a change", "cannot"}
    assert {name for name, (_, said) in LEARNER.items() if "`--strategy`" in said} == set(PLUGINS)
    for name, (verdict, _) in LEARNER.items():
        ours = hasattr(avalanche_plugins, name) and name != "SupervisedPlugin"
        assert (name in CANNOT or name == "PPPloss") == (verdict != "works"), name
        assert ours == (verdict == "with a change"), name


# -- plug-ins in the learner ---------------------------------------------------------------------------------


class LastIsBest(Learner):
    """The last epoch counts as the best; on some processors an earlier one would, by chance."""

    def validate(self) -> float:
        return float(self.epoch)


class FirstIsBest(Learner):
    """None is better than the first."""

    def validate(self) -> float:
        return -float(self.epoch)


def learned(
    sources: list[DecodedDataset], *given: Any, kind: type[Learner] = LastIsBest, **options: Any
) -> tuple[Learner, list[Any]]:
    """Trains both datasets at the full rate; returns the learner, and the weights after each."""
    strategy = registry.load("strategies", "naive")(warmup_rate=1.0, main_rate=1.0)
    learner = kind(model=new_model(strategy), strategy=strategy, training=TRAINING, plugins=given, **options)
    states = []
    for experience in quality_benchmark(sources, TRAINING).train_stream:
        learner.train(experience, eval_streams=[])
        states.append(copy.deepcopy(learner.last_state))
    return learner, states


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def naive(sources: list[DecodedDataset]) -> list[Any]:
    return learned(sources)[1]


NEEDED: dict[str, dict[str, Any]] = {
    "AGEMPlugin": {"patterns_per_experience": 6, "sample_size": 6},
    "EWCPlugin": {"ewc_lambda": 1e4},
    "EarlyStoppingPlugin": {"patience": 1},
    "GEMPlugin": {"patterns_per_experience": 6, "memory_strength": 0.5},
    "MASPlugin": {"lambda_reg": 10.0},
    "ReplayPlugin": {"mem_size": 6},
    "SynapticIntelligencePlugin": {"si_lambda": 1e3},
}


def acts_from_the_second_experience_on(name: str, sources: Any, naive: list[Any]) -> None:
    """Nothing else separates it from naive training: the first experience has the same bits."""
    _, (first, second) = learned(sources, AfterWarmUp(avalanche_plugins.plugin_class(name)(**NEEDED[name])))
    assert same(first, naive[0])
    assert not same(second, naive[1])


def stops(name: str, sources: Any, naive: list[Any]) -> None:
    """Of three epochs, the first is the warm-up."""
    rising, _ = learned(sources, EarlyStoppingPlugin(**NEEDED[name]))
    falling, _ = learned(sources, EarlyStoppingPlugin(**NEEDED[name]), kind=FirstIsBest)
    assert (len(rising.history), len(falling.history)) == (3, 2)


def starts_from_scratch(name: str, sources: Any, naive: list[Any]) -> None:
    begun = []

    class Looks(SupervisedPlugin):
        def before_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
            if strategy.epoch == 0:
                named = strategy.model.net.named_parameters()
                begun.append({n: p.detach().clone() for n, p in named})

    _, (first, second) = learned(sources, plugins.FromScratchTrainingPlugin(), Looks())
    assert same(begun[0], begun[1]), "the second experience begins as the first did"
    assert same(first, naive[0]) and not same(second, naive[1])


def measures(name: str, sources: Any, naive: list[Any]) -> None:
    learner, (_, second) = learned(sources, evaluator=quality_evaluator())
    values = [v for k, v in learner.evaluator.get_last_metrics().items() if k.startswith("SRCC_Val_Epoch")]
    assert learner.history[-1]["val_srcc"] in values and same(second, naive[1])


def is_called(name: str, sources: Any, naive: list[Any]) -> None:
    class Doubles(SupervisedPlugin):
        def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
            strategy.loss = 2 * strategy.loss

    _, (first, _) = learned(sources, Doubles())
    assert not same(first, naive[0])


def is_refused(name: str, sources: Any, naive: list[Any]) -> None:
    plugin = object.__new__(getattr(plugins, name))
    with pytest.raises(UserError, match=f"^Avalanche's {name} cannot learn scores of images: [^\n]+$"):
        refuse_plugins([plugin])


def is_a_loss_of_classes(name: str, sources: Any, naive: list[Any]) -> None:
    assert not issubclass(plugins.PPPloss, SupervisedPlugin)
    with pytest.raises(TypeError, match="index"):  # a score is none
        plugins.PPPloss({0: torch.ones(1, 2)})(torch.rand(2, 2), torch.tensor([2.5, 3.5]))


SHOWN_IN_LEARNER: dict[str, Callable[[str, Any, list[Any]], None]] = {
    "EarlyStoppingPlugin": stops,
    "EvaluationPlugin": measures,
    "FromScratchTrainingPlugin": starts_from_scratch,
    "PPPloss": is_a_loss_of_classes,
    "SupervisedPlugin": is_called,
} | dict.fromkeys(PLUGINS, acts_from_the_second_experience_on)


@pytest.mark.parametrize("name", LEARNER)
def test_a_plug_in_does_in_the_learner_what_its_row_says(
    sources: list[DecodedDataset], naive: list[Any], name: str
) -> None:
    verdict, _ = LEARNER[name]
    assert verdict == "cannot" or name in SHOWN_IN_LEARNER
    if verdict != "works" and name != "PPPloss":
        is_refused(name, sources, naive)
    if show := SHOWN_IN_LEARNER.get(name):
        show(name, sources, naive)


# -- templates on the streams --------------------------------------------------------------------------------


class Net(BaseModel, nn.Module):
    """A small network with normalisation; (B,) scores, or (B, 1)."""

    def __init__(self, flat: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
        )
        self.last = nn.Linear(4, 1)
        self.flat = flat

    def get_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.body(x))
        return scores.squeeze(1) if self.flat else scores


class Noted(SupervisedPlugin):
    """Notes the tasks of every mini-batch, and how an experience begins."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[set[int]] = []
        self.begun: list[dict[str, Tensor]] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_epochs == 0:
            self.tasks.append(set())
            self.begun.append({n: p.detach().clone() for n, p in strategy.model.named_parameters()})

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.tasks[-1] |= set(strategy.mb_task_id.tolist())


class Trained:
    """One of Avalanche's templates, trained on both datasets.

    Attributes:
        states: The parameters after each experience.
        tasks: The tasks in the mini-batches of each.
        begun: The parameters with which each begins.
        strategy: The template.
    """

    def __init__(
        self,
        sources: list[DecodedDataset],
        name: str | type[Any],
        model: nn.Module | None = None,
        given: Callable[[Any], None] | None = None,
        without: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        model, noted, self.states = model or Net(), Noted(), []
        cls = getattr(supervised, name) if isinstance(name, str) else name
        options: dict[str, Any] = {
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
            "criterion": nn.MSELoss(),
            "train_mb_size": 8,
            "train_epochs": 2,
            "evaluator": EvaluationPlugin(),
        } | more
        torch.manual_seed(1)
        self.strategy = cls(**{key: value for key, value in options.items() if key not in without})
        self.strategy.plugins.insert(0, noted)
        if given is not None:
            given(self.strategy)
        stream = quality_benchmark(sources, TRAINING).train_stream
        for experiences in [stream] if name == "JointTraining" else stream:
            torch.manual_seed(1)  # an earlier experience of one may have drawn more than that of another
            self.strategy.train(experiences, eval_streams=[])
            named = self.strategy.model.named_parameters()
            self.states.append({n: p.detach().clone() for n, p in named})
        self.tasks, self.begun = noted.tasks, noted.begun


Check = Callable[[list[DecodedDataset], Trained], None]


@pytest.fixture(scope="module")
def plain(sources: list[DecodedDataset]) -> Trained:
    """Avalanche's Naive."""
    return Trained(sources, "Naive")


def learns(sources: Any, plain: Trained) -> None:
    losses = []

    class Looks(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            losses.append(float(strategy.loss))

    trained = Trained(sources[:1], "Naive", train_epochs=20, plugins=[Looks()])
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2]) and trained.tasks == [{0}]


def equals_naive(name: str | type[Any], **more: Any) -> Check:
    def check(sources: Any, plain: Trained) -> None:
        trained = Trained(sources, name, **more)
        assert all(map(same, trained.states, plain.states))
        assert not same(trained.states[0], plain.begun[0]), "it learns"

    return check


def sees_all(name: str, **more: Any) -> Check:
    """Later mini-batches hold images of the first dataset, too."""

    def check(sources: Any, plain: Trained) -> None:
        trained = Trained(sources, name, **more)
        assert plain.tasks == [{0}, {1}]
        assert trained.tasks[-1] == {0, 1}
        assert not same(trained.states[-1], plain.states[-1])

    return check


def holds(name: str, strength: str, value: float, model: Callable[[], nn.Module] = Net, **more: Any) -> Check:
    """Its strength alone changes what is learned second, and not what is learned first."""

    def check(sources: Any, plain: Trained) -> None:
        options: list[dict[str, Any]] = [more | {strength: s} for s in (0.0, value)]
        off, on = (Trained(sources, name, model(), **chosen) for chosen in options)
        assert same(off.states[0], on.states[0]) and same(off.states[0], plain.states[0])
        assert not same(off.states[1], on.states[1])

    return check


def gradients_changed(sources: Any, name: str, **more: Any) -> list[int]:
    """Returns of each experience how many steps have another gradient after a template's plug-in."""
    changed = [0, 0]

    def watch(strategy: Any) -> None:
        plugin = next(p for p in strategy.plugins if type(p).__name__ == f"{name}Plugin")
        original = plugin.after_backward

        def after_backward(strategy: Any, **kwargs: Any) -> None:
            before = [p.grad.clone() for p in strategy.model.parameters()]
            original(strategy, **kwargs)
            after = [p.grad for p in strategy.model.parameters()]
            changed[strategy.clock.train_exp_counter] += not all(map(torch.equal, before, after))

        plugin.after_backward = after_backward

    Trained(sources, name, given=watch, **more)
    return changed


def agem_projects(sources: Any, plain: Trained) -> None:
    first, second = gradients_changed(sources, "AGEM", patterns_per_exp=6, sample_size=6)
    assert first == 0 < second


def gem_projects_or_names_its_solver(sources: Any, plain: Trained) -> None:
    options = {"patterns_per_exp": 6, "memory_strength": 0.5}
    if importlib.util.find_spec("quadprog"):
        first, second = gradients_changed(sources, "GEM", **options)
        assert first == 0 < second
    else:
        with pytest.raises(Exception, match="'quadprog' does not seem to be installed") as raised:
            gradients_changed(sources, "GEM", **options)
        assert type(raised.value).__name__ == "SolverNotFound"


def starts_anew(sources: Any, plain: Trained) -> None:
    trained = Trained(sources, "FromScratchTraining")
    assert same(trained.begun[0], trained.begun[1]) and not same(plain.begun[0], plain.begun[1])
    assert same(trained.states[0], plain.states[0])
    norm = trained.strategy.model.body[1]
    counted = plain.strategy.model.body[1].num_batches_tracked
    assert norm.num_batches_tracked == counted > 0, "of both experiences: statistics stay"


def gdumb_learns_its_memory(sources: Any, plain: Trained) -> None:
    trained = Trained(sources, "GDumb", mem_size=8)
    assert trained.tasks == [{0}, {0, 1}]
    assert same(trained.begun[0], trained.begun[1])
    groups = trained.strategy.plugins[1].storage_policy.buffer_groups
    whole = {int(s.ratings[i].score) for s in sources for i in s.indices("train")}
    assert set(groups) == whole, "a group for each whole number"


def mir_adds_the_loss_of_its_memory(sources: Any, plain: Trained) -> None:
    added: list[list[float]] = [[], []]

    def watch(strategy: Any) -> None:
        plugin = next(p for p in strategy.plugins if type(p).__name__ == "MIRPlugin")
        original = plugin.before_backward

        def before_backward(strategy: Any, **kwargs: Any) -> None:
            before = float(strategy.loss)
            original(strategy, **kwargs)
            added[strategy.clock.train_exp_counter].append(float(strategy.loss) - before)

        plugin.before_backward = before_backward

    Trained(sources, "MIR", given=watch, mem_size=20, subsample=6, batch_size_mem=3)
    assert set(added[0]) == {0.0} and min(added[1]) > 0


def lamaml_learns_or_names_higher(sources: Any, plain: Trained) -> None:
    if importlib.util.find_spec("higher"):
        trained = Trained(sources, lamaml.LaMAML)
        assert not same(trained.states[0], trained.begun[0])
    else:
        with pytest.raises(NameError, match="higher"):
            Trained(sources, lamaml.LaMAML)
    with pytest.raises(TypeError):
        Trained(sources, lamaml_v2.LaMAML)


def takes_scores_for_classes(sources: Any, plain: Trained) -> None:
    """DER, with images one by one: those of the tiny datasets have two sizes."""
    seen = []

    class Seen(Exception):
        pass

    def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        raise Seen

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Seen):
        patch.setattr("avalanche.training.supervised.der.F.cross_entropy", cross_entropy)
        Trained(sources, "DER", mem_size=6, batch_size_mem=2, train_mb_size=1, train_epochs=1)
    assert seen[0].is_floating_point()


def brings_its_own_network(name: str) -> Check:
    def check(sources: Any, plain: Trained) -> None:
        assert "model" not in inspect.signature(getattr(supervised, name)).parameters

    return check


Errors = type[Exception] | tuple[type[Exception], ...]


def fails(name: str | type[Any], errors: Errors, text: str = "", **more: Any) -> Check:
    """Its own error, as the row names it."""

    def check(sources: Any, plain: Trained) -> None:
        made = {key: value() if callable(value) else value for key, value in more.items()}
        with pytest.raises(errors, match=text) as raised:
            Trained(sources, name, **made)
        assert any("avalanche" in Path(entry.path).parts for entry in raised.traceback), "its own"

    listed = errors if isinstance(errors, tuple) else (errors,)
    check.errors = [error.__name__ for error in listed]  # type: ignore[attr-defined]
    return check


def flat_loss(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.mse_loss(out.squeeze(1), y)


def without_normalisation() -> nn.Module:
    net: nn.Module = PackNetModel(nn.Sequential(*pooled(), nn.Linear(3, 1), nn.Flatten(0)))
    return net


def pooled() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


SHOWN_ON_STREAMS: dict[str, dict[str, Check]] = {
    "works": {
        "AGEM": agem_projects,
        "Cumulative": sees_all("Cumulative"),
        "EWC": holds("EWC", "ewc_lambda", 1e-2),
        "FromScratchTraining": starts_anew,
        "GDumb": gdumb_learns_its_memory,
        "JointTraining": sees_all("JointTraining"),
        "MIR": mir_adds_the_loss_of_its_memory,
        "Naive": learns,
        "OnlineNaive": equals_naive("OnlineNaive", without=("train_epochs",), train_passes=2),
        "Replay": sees_all("Replay", mem_size=8),
        "SupervisedTemplate": equals_naive(templates.SupervisedTemplate),
    },
    "with a change": {
        "GEM": gem_projects_or_names_its_solver,
        "LFL": holds("LFL", "lambda_e", 1e-2),
        "LaMAML": lamaml_learns_or_names_higher,
        "MAS": holds("MAS", "lambda_reg", 1e-2, lambda: Net(flat=False), alpha=0.5, criterion=flat_loss),
    },
    "cannot": {
        "AETraining": fails("AETraining", AttributeError, "feature_module", device="cpu"),
        "AR1": brings_its_own_network("AR1"),
        "BaseSGDTemplate": fails(templates.BaseSGDTemplate, NotImplementedError),
        "BaseTemplate": fails(templates.BaseTemplate, NotImplementedError),
        "BiC": fails("BiC", AttributeError, "property 'dataset'.* has no setter", mem_size=8),
        "CWRStar": fails("CWRStar", IndexError, "out of bounds", cwr_layer_name=None),
        "CoPE": fails("CoPE", TypeError, mem_size=8, n_classes=2, p_size=1),
        "DER": takes_scores_for_classes,
        "ER_ACE": fails("ER_ACE", IndexError, mem_size=8, batch_size_mem=4),
        "ER_AML": fails(
            "ER_AML", ValueError, "num_samples", feature_extractor=nn.Flatten, mem_size=8, batch_size_mem=4
        ),
        "ExpertGateStrategy": fails("ExpertGateStrategy", AssertionError, "ExpertGate model"),
        "FeatureReplay": fails("FeatureReplay", AttributeError, "classifier"),
        "GSS_greedy": fails(
            "GSS_greedy",
            (ValueError, RuntimeError),
            "empty|dtype Long",
            mem_size=8,
            mem_strength=2,
            input_size=[3, 32, 32],
        ),
        "GenerativeReplay": fails("GenerativeReplay", RuntimeError, "784"),
        "ICaRL": fails(
            "ICaRL",
            AttributeError,
            "benchmark",
            feature_extractor=nn.Flatten,
            classifier=nn.Identity,
            without=("model", "criterion"),
            memory_size=8,
            buffer_transform=None,
            fixed_memory=True,
        ),
        "LearningToPrompt": brings_its_own_network("LearningToPrompt"),
        "LwF": fails("LwF", AttributeError, "task_set", alpha=1.0, temperature=2.0),
        "MER": fails("MER", TypeError, mem_size=8, batch_size_mem=4, n_inner_steps=1),
        "ObjectDetectionTemplate": fails(
            naive_object_detection.ObjectDetectionTemplate, TypeError, "criterion"
        ),
        "PNNStrategy": fails("PNNStrategy", AssertionError, "PNN model"),
        "PackNet": fails(
            "PackNet",
            AttributeError,
            "classes_in_this_experience",
            model=without_normalisation,
            post_prune_epochs=1,
            prune_proportion=0.5,
        ),
        "SCR": fails("SCR", ValueError, "SCRModel", without=("criterion",)),
        "StreamingLDA": fails(
            "StreamingLDA",
            IndexError,
            "indices",
            without=("model", "optimizer"),
            slda_model=pooled,
            criterion=lambda: lambda out, y: out.sum(),
            input_size=3,
            num_classes=2,
        ),
        "SupervisedMetaLearningTemplate": fails(
            templates.SupervisedMetaLearningTemplate, NotImplementedError
        ),
        "SynapticIntelligence": equals_naive("SynapticIntelligence", si_lambda=1e6),
        "VAETraining": fails("VAETraining", RuntimeError, "size of tensor"),
    },
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_template_does_on_the_streams_what_its_row_says(
    sources: list[DecodedDataset], plain: Trained, name: str
) -> None:
    verdict, said = STREAMS[name]
    check = SHOWN_ON_STREAMS[verdict][name]
    check(sources, plain)
    for error in getattr(check, "errors", ()):
        assert f"`{error}`" in said
