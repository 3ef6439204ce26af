"""The doors of `Strategy`, each one alone, through the learner that `run` uses."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor, nn
from torch.nn import functional

from cliqa_bench.system.avalanche_import import importing_avalanche

with importing_avalanche():
    from avalanche.core import SupervisedPlugin

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pairs import batch_pairs, images_in_step_epoch
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.cli import parser
from cliqa_bench.config import Training
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.learning.checkpoints import Checkpoints
from cliqa_bench.learning.learner import Learner
from cliqa_bench.models.finished import RunNetworks
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.heads import LinearHead
from cliqa_bench.models.quality import QualityModel, load_tasks
from cliqa_bench.models.views import TaskView
from cliqa_bench.reports import load
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.ema import EMA
from cliqa_bench.strategies.naive import Naive
from cliqa_bench.strategies.ridge import SUBSETS, Ridge, Sums, added, sums_of
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1.9e-7
"""Three times the largest difference seen between scores of the folded and the plain network: 6.4e-8."""


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources() as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


class Watched(Learner):
    """Calls `look` after every forward pass."""

    look: Any = None

    def forward(self) -> Tensor:
        output = super().forward()
        type(self).look(self, output)
        return output


class LastEpoch(Learner):
    """Takes the last epoch for the best: the first may be, and then no weight but the head's has moved."""

    def validate(self) -> float:
        super().validate()
        return float(self.epoch)


def watched(look: Any) -> type[Watched]:
    return type("Watching", (Watched,), {"look": staticmethod(look)})


def weights_of(model: QualityModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- head, loss, optimiser, rate, protocol -------------------------------------------------------------------


@dataclass
class Absolute(Strategy):
    """Regresses the scores themselves, which a cosine cannot."""

    rows: ClassVar[dict[str, str]] = {"last": "Absolute"}

    def new_head(self, features: int) -> nn.Module:
        return LinearHead(features)

    def loss(self, learner: Learner) -> Tensor:
        return functional.smooth_l1_loss(learner.predicted, learner.mb_y / 10)

    def optimiser(self, parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, weight_decay=0.05)

    def rate(self, training: Training, epoch: int, warmup: bool) -> float:
        return 1e-3 / (epoch + 1) if warmup else 1e-4 / epoch

    def protocol(self, training: Training) -> Training:
        return replace(training, epochs=training.epochs + 1, warmup_batch=5)


def test_head_loss_optimiser_rate_and_protocol_are_the_strategys(sources: list[DecodedDataset]) -> None:
    check_strategy(Absolute)
    sizes: list[int] = []
    kind = watched(lambda learner, output: sizes.append(len(output)))
    strategy = Absolute()
    learner = learn(strategy, new_model(strategy), sources[:1], kind=kind)
    assert [h["lr"] for h in learner.history] == [1e-3, 1e-4, 5e-5, 1e-4 / 3]
    assert sizes[0] == 5  # its own batch in the warm-up
    assert max(sizes) == TRAINING.batch
    group = learner.optimizer.param_groups[0]
    assert (type(learner.optimizer), group["weight_decay"]) == (torch.optim.AdamW, 0.05)
    head = learner.model.heads[0]
    assert isinstance(head, LinearHead)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        by_hand = learner.model.features(images).final @ head.linear.weight[0] + head.linear.bias
        # nothing of it is normalised, not even by the folded network
        np.testing.assert_allclose(Scorer(learner.model)(images)[:, 0], by_hand, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(learner.model(images)[:, 0], by_hand, rtol=0, atol=ROUNDING)


def test_the_loss_is_what_the_strategy_says(sources: list[DecodedDataset]) -> None:
    losses: list[float] = []

    def look(learner: Watched, output: Tensor) -> None:
        away = np.abs(output[:, -1].detach().numpy() - learner.mb_y.numpy() / 10)
        losses.append(float(np.where(away < 1, away**2 / 2, away - 0.5).mean()))

    strategy = Absolute()
    learner = learn(strategy, new_model(strategy), sources[:1], kind=watched(look))
    epochs = [np.mean(losses[i : i + n]) for i, n in epoch_starts(losses, learner, sources[0])]
    # largest difference seen: 1.3e-7 (SSE4.1)
    np.testing.assert_allclose([h["loss"] for h in learner.history], epochs, rtol=3.8e-7)


def epoch_starts(losses: list[float], learner: Learner, source: DecodedDataset) -> list[tuple[int, int]]:
    t, found, start = learner.training, [], 0
    for epoch in range(t.warmup_epochs + t.epochs):
        n = source.n_batches(t, t.warmup_batch if epoch < t.warmup_epochs else t.batch)
        found.append((start, n))
        start += n
    assert start == len(losses)
    return found


# -- crops ---------------------------------------------------------------------------------------------------


@dataclass
class ThreeCrops(Strategy):
    """Looks at each image three times."""

    rows: ClassVar[dict[str, str]] = {"last": "Three"}
    crops = 3


@pytest.mark.slow
def test_the_score_of_an_image_is_the_mean_over_its_crops(sources: list[DecodedDataset]) -> None:
    check_strategy(ThreeCrops)
    found: list[tuple[int, int, float]] = []

    def look(learner: Watched, output: Tensor) -> None:
        with torch.no_grad():
            each = learner.model.head(0, learner.features).reshape(-1, 3).mean(1)
        apart = float((output[:, 0].detach() - each).abs().max())
        found.append((len(learner.mb_x), len(learner.mb_y), apart))

    strategy = ThreeCrops()
    learn(strategy, new_model(strategy), sources[:1], kind=watched(look))
    assert all(crops == 3 * images for crops, images, _ in found)
    assert max(apart for _, _, apart in found) < 1e-6


def test_crops_are_of_the_images_they_belong_to(sources: list[DecodedDataset]) -> None:
    source = sources[0]
    for batch in source.train_batches(TRAINING, 0, 0, 8, crops=3):
        assert len(batch.x) == 3 * len(batch.images) == 3 * len(batch.y)
        for place, crop in enumerate(batch.x):
            image = source.cache.image(int(batch.images[place // 3]))
            windows = np.lib.stride_tricks.sliding_window_view(image, (32, 32, 3)).reshape(-1, 32, 32, 3)
            wanted = crop.permute(1, 2, 0).numpy()
            assert any((windows == seen).all((1, 2, 3)).any() for seen in (wanted, wanted[:, ::-1]))
        assert len({batch.x[k].numpy().tobytes() for k in range(3)}) > 1  # not one crop three times


# -- a step over several datasets ----------------------------------------------------------------------------


@dataclass
class AllInStep(Strategy):
    """Sees images of every dataset in every step."""

    depends_on = "set"
    single_head = True
    rows: ClassVar[dict[str, str]] = {"last": "All"}

    def in_step(self, images: Any, batch: int) -> list[int]:
        return [2, 3, 6]


def test_a_step_sees_every_dataset(sources: list[DecodedDataset]) -> None:
    check_strategy(AllInStep)
    steps: list[list[tuple[str, list[int]]]] = []

    def look(learner: Watched, output: Tensor) -> None:
        steps.append([(source.name, images.tolist()) for source, images in learner.shown])
        of = [name for name, images in steps[-1] for _ in images]
        first, second, labels = (part.tolist() for part in learner.pairs)
        assert [source.task for source, images in learner.shown for _ in images] == [
            int(task) for task in learner.mb_task_id
        ]
        expected = sum(len(batch_pairs(len(images))[0]) for _, images in steps[-1])
        assert len(first) == expected
        y = learner.mb_y.tolist()
        for i, j, label in zip(first, second, labels, strict=True):
            assert (of[i] == of[j], label) == (True, float(y[i] > y[j]))

    strategy = AllInStep()
    learner = learn(strategy, new_model(strategy), sources, joint=True, kind=watched(look))
    train = set(sources[0].indices("train").tolist())
    per_epoch = max(s.n_batches(TRAINING, n) for s, n in zip(sources, (2, 3, 6), strict=True))
    assert len(steps) == 3 * per_epoch  # epochs
    for step in steps:
        assert [name for name, _ in step] == ["tiny0", "tiny1", "tiny2"]
    first_epoch = [images for step in steps[:per_epoch] for name, images in step if name == "tiny0"]
    passed = [i for images in first_epoch for i in images]
    assert (len(passed), len(set(passed)), set(passed) <= train) == (len(train) // 2 * 2,) * 2 + (True,)
    again = [images for step in steps[:per_epoch] for name, images in step if name == "tiny2"]
    rounds = sources[2].n_batches(TRAINING, 6)
    assert len(again) > rounds
    assert again[:rounds] != again[rounds : 2 * rounds]  # begun anew, in another order
    passed_in_all = sum(len(images) for step in steps for _, images in step)
    validated = 3 * sum(len(source.indices("val")) for source in sources)
    assert learner.images == passed_in_all + validated
    n_train = [len(source.keys("train")) for source in sources]
    assert passed_in_all == 3 * images_in_step_epoch(n_train, (2, 3, 6))  # what a plan counts


# -- features ------------------------------------------------------------------------------------------------


@dataclass
class Small(Strategy):
    """Draws the features of a step towards their mean."""

    rows: ClassVar[dict[str, str]] = {"last": "Small"}

    def penalty(self, learner: Learner) -> Tensor | None:
        return ((learner.features - learner.features.detach().mean(0)) ** 2).sum() if learner.seen else None

    def progress(self) -> dict[str, Tensor]:
        return {}


def test_the_features_of_a_step_are_there_with_their_graph(sources: list[DecodedDataset]) -> None:
    check_strategy(Small)

    def look(learner: Watched, output: Tensor) -> None:
        assert learner.features.shape == (len(learner.mb_x), 128)
        assert learner.features.requires_grad is not learner.warming_up
        again = learner.model.head(learner.task, learner.features.detach())
        torch.testing.assert_close(again, output[:, -1].detach(), rtol=0, atol=0)

    strategy = Small()
    learn(strategy, new_model(strategy), sources[:1], kind=watched(look))


# -- targets -------------------------------------------------------------------------------------------------


@dataclass
class ByNoise(Strategy):
    """Uses the standard deviation of an image's pixels as its quality if the image has no score."""

    rows: ClassVar[dict[str, str]] = {"last": "ByNoise"}

    def targets(self, learner: Learner, source: DecodedDataset) -> NDArray[np.float64] | None:
        if np.isfinite(source.mos).all():
            return None
        values = np.full(len(source.ratings), np.nan)
        for subset in SUBSETS:
            for i in source.indices(subset):
                values[i] = -source.cache.image(int(i)).std()
        return values


def unlabelled(source: DecodedDataset, value: Any = np.nan) -> DecodedDataset:
    """Replaces all scores but those of test images; the first one says that they are missing."""
    test = set(source.keys("test"))
    ratings = [
        r if r.key in test else replace_score(r, np.nan if i == 0 else value)
        for i, r in enumerate(source.ratings)
    ]
    return replace(source, ratings=ratings)


def replace_score(rating: Any, score: float) -> Any:
    return rating._replace(score=score)


def test_targets_stand_in_for_scores_which_are_not_looked_at(sources: list[DecodedDataset]) -> None:
    found = []
    for value in (np.nan, 5.0, -7.0):
        strategy = ByNoise()
        model = new_model(strategy)
        learn(strategy, model, [sources[0], unlabelled(sources[1], value)])
        found.append(weights_of(model))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    strategy = ByNoise()
    model = new_model(strategy)
    learn(strategy, model, sources[:2])  # noise is what the scores say: nearly all pairs are the same ones
    assert not same(found[0], weights_of(new_model(strategy)))


def test_what_has_no_scores_is_refused_by_who_needs_them(sources: list[DecodedDataset]) -> None:
    strategy = Naive()
    with pytest.raises(UserError) as caught:
        learn(strategy, new_model(strategy), [unlabelled(sources[1])])
    assert "tiny1: training image" in str(caught.value)
    assert "has no opinion score; use a strategy that learns from images without labels" in str(caught.value)


def test_without_validation_scores_the_last_epoch_is_taken(sources: list[DecodedDataset]) -> None:
    @dataclass
    class TrainingOnly(ByNoise):
        def targets(self, learner: Learner, source: DecodedDataset) -> NDArray[np.float64] | None:
            values = super().targets(learner, source)
            assert values is not None
            values[source.indices("val")] = np.nan
            return values

    strategy = TrainingOnly()
    learner = learn(strategy, new_model(strategy), [unlabelled(sources[0])])
    assert [h["val_srcc"] for h in learner.history] == [None] * 3
    assert (learner.best_epoch, len(learner.history)) == (3, 3)
    assert same(learner.last_state, learner.model.own_state())


# -- what is saved in the end --------------------------------------------------------------------------------


@dataclass
class Turned(Strategy):
    """Turns and halves the newest head's weights, or those of a layer that does not learn."""

    rows: ClassVar[dict[str, str]] = {"last": "Turned"}
    where: ClassVar[str] = "heads"

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        return list(model.heads[task].parameters())

    def finish(self, learner: Learner) -> None:
        newest = learner.model.heads[learner.task] if self.where == "heads" else learner.model.net
        with torch.no_grad():
            next(newest.parameters()).mul_(-0.5)


def test_what_finish_leaves_is_the_model(sources: list[DecodedDataset]) -> None:
    check_strategy(Turned)
    strategy = Turned()
    learner = learn(strategy, new_model(strategy), sources[:1])
    (weight,) = learner.model.heads[0].parameters()
    torch.testing.assert_close(weight.detach(), learner.best.weights["heads.0.weight"] / -2, rtol=0, atol=0)
    last = learner.history[-1]
    assert (last["stage"], last["loss"], last["epoch"]) == ("finish", None, 3)
    best = learner.history[learner.best_epoch - 1]["val_srcc"]
    assert best != 0
    assert last["val_srcc"] == pytest.approx(-best, abs=1e-12)  # a cosine has no length


def test_finish_may_move_what_learns_and_nothing_else() -> None:
    frozen: type[Strategy] = dataclass(type("Frozen", (Turned,), {"where": "net"}))
    with pytest.raises(AssertionError, match=r"changes, but is not trainable"):
        check_strategy(frozen)
    late: type[Strategy] = dataclass(
        type("Late", (Turned,), {"finish": Strategy.finish, "consolidate": Turned.finish})
    )
    with pytest.raises(AssertionError, match="consolidate changes weights"):
        check_strategy(late)


@pytest.mark.slow
def test_ema_is_the_average_along_the_sequence(sources: list[DecodedDataset]) -> None:
    check_strategy(EMA(decay=0.25))
    naive, ema, none = (
        two_experiences(strategy, sources) for strategy in (Naive(), EMA(decay=0.25), EMA(decay=0.0))
    )
    assert same(ema[0], naive[0])  # of one there is no average
    assert same(none[1], naive[1])
    moved = 0
    for name, learned in naive[1].items():
        if not name.startswith("net.") or not learned.is_floating_point():
            assert torch.equal(ema[1][name], learned)
            continue
        before = naive[0][name].double().numpy()
        moved += not np.array_equal(before, learned)
        now = learned.double().numpy()
        away = np.abs(ema[1][name].double().numpy() - (0.25 * before + 0.75 * now))
        assert (away <= 3 * 2.0**-24 * (np.abs(before) + np.abs(now))).all()  # three roundings of float32
    assert moved > 10


def two_experiences(strategy: Strategy, sources: list[DecodedDataset]) -> list[dict[str, Tensor]]:
    """Learns two datasets; both start the second one where the first one ended, and learn the same."""
    model, after = new_model(strategy), []
    for n, source in enumerate(sources[:2]):
        learn(strategy, model, [source], seen=sources[:n], kind=LastEpoch)
        after.append(weights_of(model))
    return after


@pytest.mark.parametrize(("decay", "text"), [(1.0, "must be below 1"), (-0.1, "must be at least 0")])
def test_a_decay_out_of_range_is_refused(decay: float, text: str) -> None:
    with pytest.raises(UserError, match=f"ema.decay {text}, not {decay}"):
        EMA(decay=decay)


# -- views ---------------------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """A layer with a shift of its channels for each task."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self.shifts = nn.ParameterList()
        self.active: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out if self.active is None else out + self.shifts[self.active][:, None, None]


class Shifts(TaskView):
    """Tasks own shifts of the first convolution."""

    def layer(self, net: FeatureNet) -> Shifted:
        return next(m for m in net.modules() if isinstance(m, Shifted))

    def install(self, net: FeatureNet) -> None:
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Conv2d):
                    setattr(parent, name, Shifted(child))
                    return

    def add_task(self, net: FeatureNet) -> None:
        layer = self.layer(net)
        layer.shifts.append(nn.Parameter(torch.zeros(layer.layer.out_channels)))

    def use(self, net: FeatureNet, task: int | None) -> None:
        self.layer(net).active = task

    def parameters(self, net: FeatureNet, task: int) -> list[nn.Parameter]:
        return [self.layer(net).shifts[task]]

    def owns(self, name: str) -> bool:
        return ".shifts." in name


@dataclass
class ByShifts(Strategy):
    """Learns a head and a shift for each task."""

    rows: ClassVar[dict[str, str]] = {"last": "Shifts"}
    depends_on = "nothing"
    own_features = True
    adapts_statistics = False

    def view(self) -> TaskView:
        return Shifts()

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        return list(model.heads[task].parameters()) if warmup else model.task_parameters(task)


def test_what_a_view_puts_before_a_normalisation_is_normalised_in_a_folded_copy_too() -> None:
    model = new_model(ByShifts())
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        model.add_task()
    with torch.no_grad():
        for shift in Shifts().layer(model.net).shifts:
            shift.copy_(torch.randn(shift.shape, generator=draw))
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm.running_var is not None
            norm.running_var.copy_(0.2 + torch.rand(norm.running_var.shape, generator=draw))
        images = torch.randn(2, 3, 40, 40, generator=draw)
        said = Scorer(model.eval())(images)  # before any task was switched on
        # largest difference seen: 3.0e-8 (SSE4.1); if the shift came after the normalisation: 0.014
        np.testing.assert_allclose(said, model(images), rtol=0, atol=8.9e-8)


def test_a_view_must_own_what_moves() -> None:
    drifting: type[Strategy] = dataclass(type("Drifting", (ByShifts,), {"adapts_statistics": True}))
    with pytest.raises(
        AssertionError, match=r"net\..*running_mean changes, but is not stored with the model"
    ):
        check_strategy(drifting)


def test_a_view_gives_each_task_features_of_its_own(sources: list[DecodedDataset]) -> None:
    check_strategy(ByShifts)
    strategy = ByShifts(main_rate=1.0)
    model = new_model(strategy)
    learner, after = None, []
    for n, source in enumerate(sources):
        learner = learn(strategy, model, [source], seen=sources[:n], learner=learner, kind=LastEpoch)
        after.append(weights_of(model))
    assert all(shift.detach().any() for shift in Shifts().layer(model.net).shifts)
    fresh = new_model(strategy)
    load_tasks(fresh, model.own_state(), Path("nowhere"))
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        said = Scorer(fresh.eval())(images)  # before any task was switched on
        scores = model(images)
        np.testing.assert_allclose(said, scores, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(Scorer(model)(images), scores, rtol=0, atol=ROUNDING)
        assert not torch.equal(scores[:, 0], scores[:, 1])
    names = {name for name in model.own_state() if not name.startswith("heads.")}
    assert len(names) == 3
    assert all(".shifts." in name for name in names)
    for name in after[0].keys() & after[2].keys():
        assert torch.equal(after[0][name], after[2][name])  # later tasks leave the first one alone


# -- extra columns -------------------------------------------------------------------------------------------

MERGED = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from cliqa_bench.strategies.base import Strategy


class Mean(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).mean(1, keepdim=True)


class Two(Mean):
    def forward(self, images):
        return torch.cat([self.model(images)[:, :1], torch.full((len(images), 1), 2.5)], dim=1)


@dataclass
class Merged(Strategy):
    rows: ClassVar[dict[str, str]] = {"merged": "Merged", "last": "Newest"}

    def extras(self, model):
        return {"merged": Mean(model), "two": Two(model)}
"""


@pytest.mark.slow
def test_extra_columns_are_answered_read_verified_and_scored(
    miniatures: Path, undrawn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "merged.py"
    file.write_text(MERGED, encoding="utf-8")
    out = tmp_path / "runs"
    words = [
        "run",
        "--strategy",
        str(file),
        "--orders",
        "bid,clive",
        "--data",
        str(miniatures),
        "--out",
        str(out),
    ]
    words += ["--set", "training.epochs=1", "--set", "training.warmup_epochs=1"]
    assert parser.main(words) == 0
    for path in (out / "answers").glob("*/answers.npz"):
        arrays = read_answers(path)
        scores = arrays["scores"]
        np.testing.assert_allclose(arrays["extra.merged"][:, 0], scores.mean(1), rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(arrays["extra.two"][:, 0], scores[:, 0], rtol=0, atol=ROUNDING)
        assert (arrays["extra.two"][:, 1] == 2.5).all()
    told = load(out)
    last = told[(told.metric == "SRCC") & (told.method == "Merged") & (told.length == 2)]
    by_test = {row.test_dataset: row.value for row in last.itertuples()}
    final = [read_answers(p) for p in (out / "answers").glob("*/answers.npz")]
    two_heads = [a for a in final if a["scores"].shape[1] == 2]
    expected = sorted(spearmanr(a["extra.merged"][:, 0], a["mos"]).statistic for a in two_heads)
    np.testing.assert_allclose(sorted(by_test.values()), expected, atol=1e-12)
    assert parser.main(["verify", str(out)]) == 0
    capsys.readouterr()
    names = {Path(str(key)).name for answers in two_heads for key in answers["keys"]}
    image = next(path for path in sorted(miniatures.rglob("*.*")) if path.name in names)
    assert parser.main(["score", str(image), "--runs", str(out)]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    answers = next(a for a in two_heads if image.name in {Path(key).name for key in a["keys"]})
    place = [Path(key).name for key in answers["keys"]].index(image.name)
    merged = answers["extra.merged"][place, 0]
    np.testing.assert_allclose(float(row["score"]), merged, rtol=0, atol=ROUNDING)


# -- ridge ---------------------------------------------------------------------------------------------------


def standardised(source: DecodedDataset, subset: str) -> NDArray[np.float64]:
    train = source.mos[source.indices("train")]
    return np.asarray((source.mos[source.indices(subset)] - train.mean()) / train.std())  # type: ignore[arg-type]


def test_the_random_layer_is_a_product_and_a_bend() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 8)).astype(np.float32)
    torch.manual_seed(0)
    head = LinearHead(8, 20)
    assert head.layer is not None
    product = features.astype(np.float64) @ head.layer.double().numpy()
    away = np.abs(head.lift_array(features) - np.maximum(product, 0))
    bound = np.abs(features) @ np.abs(head.layer.numpy())
    assert (away <= 8 * 2.0**-24 * bound).all()  # eight products and sums in float32
    np.testing.assert_array_equal(LinearHead(8).lift_array(features), features)


@pytest.mark.parametrize("projection", [0, 40])
def test_ridge_is_scikit_learns(sources: list[DecodedDataset], projection: int) -> None:
    strategy = Ridge(projection=projection)
    learner = learn(strategy, new_model(strategy), sources)
    head = learner.model.heads[0]
    assert isinstance(head, LinearHead)
    x, y = (
        {subset: np.concatenate([found(source, subset) for source in sources]) for subset in SUBSETS}
        for found in (lambda s, subset: head.lift_array(learner.describe(s, subset)), standardised)
    )
    variance = x["train"].var(axis=0).mean() * len(y["train"])
    errors, fits = [], []
    for penalty in strategy.penalties:
        fit = SklearnRidge(alpha=penalty * variance, solver="svd").fit(x["train"], y["train"])
        errors.append(((fit.predict(x["val"]) - y["val"]) ** 2).sum())
        fits.append(fit)
    best = fits[int(np.argmin(errors))]
    weights, intercept = strategy._solved()
    predicted = x["val"] @ weights + intercept
    np.testing.assert_allclose(predicted, best.predict(x["val"]), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(head.linear.weight[0].detach(), weights.astype(np.float32))
    assert learner.history == [
        {"epoch": 0, "stage": "finish", "lr": 0.0, "loss": None, "val_srcc": learner.history[0]["val_srcc"]}
    ]


def test_sums_are_added_in_the_order_of_their_names() -> None:
    ones = np.ones(1)
    parts = {
        name: Sums(np.asarray(1.0), value * ones, np.asarray(value), np.zeros((1, 1)), 0 * ones, np.zeros(()))
        for name, value in (("a", 1e16), ("b", 1.0), ("c", -1e16))
    }
    assert [(1e16 + 1.0) - 1e16, (1e16 - 1e16) + 1.0] == [0.0, 1.0]  # what two orders give
    for order in itertools.permutations(parts):
        found = added({name: parts[name] for name in order})
        assert found.y == 0 and found.x == 0


def test_ridge_takes_the_datasets_in_any_order(sources: list[DecodedDataset]) -> None:
    found = []
    for order in (sources, sources[::-1], [sources[1], sources[0], sources[2]]):
        strategy = Ridge()
        model = new_model(strategy)
        learn(strategy, model, [replace(source, task=task) for task, source in enumerate(order)])
        found.append(weights_of(model))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_ridge_lives_with_scores_that_are_all_alike(sources: list[DecodedDataset]) -> None:
    strategy = Ridge()
    flat = replace(sources[0], ratings=[replace_score(r, 3.0) for r in sources[0].ratings])
    learner = learn(strategy, new_model(strategy), [flat])
    head = learner.model.heads[0]
    assert isinstance(head, LinearHead)
    assert not head.linear.weight.any()
    assert learner.history[0]["val_srcc"] is None


def test_ridge_keeps_its_sums_in_a_file() -> None:
    check_strategy(Ridge(projection=16))
    with tiny_sources(1) as (source,):
        strategy = Ridge()
        learn(strategy, new_model(strategy), [source])
        state = strategy.state()
        assert {name: tuple(t.shape) for name, t in state.items() if name.startswith("train")} == {
            "train.tiny0.n": (), "train.tiny0.x": (128,), "train.tiny0.xx": (128, 128),
            "train.tiny0.xy": (128,), "train.tiny0.y": (), "train.tiny0.yy": (),
        }  # fmt: skip
        other = Ridge()
        other.load_state(state)
        assert json.dumps(other._solved()[1]) == json.dumps(strategy._solved()[1])


@pytest.mark.parametrize("penalties", [(), (0.0,), (1.0, -1.0), (float("nan"),)])
def test_penalties_out_of_range_are_refused(penalties: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"ridge\.penalties must be numbers above 0"):
        Ridge(penalties=penalties)


def test_ridge_leaves_out_validation_images_without_a_score(sources: list[DecodedDataset]) -> None:
    source = sources[0]
    first, *rest = source.keys("val")
    ratings = [replace_score(r, np.nan) if r.key == first else r for r in source.ratings]
    partly, whole = Ridge(), Ridge()
    learn(partly, new_model(partly), [replace(source, ratings=ratings)])
    learner = learn(whole, new_model(whole), [source])
    places = [source.keys("val").index(key) for key in rest]
    expected = sums_of(
        np.asarray(learner.describe(source, "val")[places], np.float64), standardised(source, "val")[places]
    )
    for found, wanted in zip(partly._sums["val"]["tiny0"], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    none = [replace_score(r, np.nan) if r.key in source.keys("val") else r for r in source.ratings]
    with pytest.raises(UserError, match="tiny0: no val image has a score, and ridge needs some"):
        learn(whole, new_model(whole), [replace(source, ratings=none)])


# -- what would go wrong at the edges ------------------------------------------------------------------------


def test_images_without_scores_are_not_replayed(sources: list[DecodedDataset]) -> None:
    source = unlabelled(sources[0])
    with pytest.raises(UserError, match=r"tiny0: image .* has no opinion score and cannot be paired"):
        source.batch_of(source.indices("train")[:4], TRAINING, np.random.default_rng(0))


def test_a_group_of_parameters_has_its_own_scale_of_the_rate(sources: list[DecodedDataset]) -> None:
    @dataclass
    class Scaled(Naive):
        def optimiser(self, parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
            groups: list[dict[str, Any]] = [
                {"params": parameters[:1]},
                {"params": parameters[1:], "scale": 10.0},
            ]
            return torch.optim.SGD(groups, 1.0)

    strategy = Scaled()
    learner = learn(strategy, new_model(strategy), sources[:1])
    one, ten = (group["lr"] for group in learner.optimizer.param_groups)
    assert (one, ten) == (TRAINING.lr * strategy.main_rate, 10 * TRAINING.lr * strategy.main_rate)


def test_an_optimiser_that_counts_in_plain_numbers_starts_its_experience_over(
    sources: list[DecodedDataset], tmp_path: Path
) -> None:
    class Counting(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            super().step(*args, **kwargs)
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["steps"] = 1

    @dataclass
    class Counts(Naive):
        def optimiser(self, parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
            return Counting(parameters, 1e-3)

    for cls, kept in ((Naive, True), (Counts, False)):
        file = tmp_path / f"{cls.__name__}.safetensors"
        strategy = cls()
        learn(
            strategy, new_model(strategy), sources[:1],
            plugins=[Checkpoints(file, {}, lambda text: None, pause=0)],
        )  # fmt: skip
        assert file.exists() is kept


def test_several_crops_are_for_training_alone(sources: list[DecodedDataset]) -> None:
    strategy = ThreeCrops()
    learner = learn(strategy, new_model(strategy), sources[:1])
    benchmark = quality_benchmark(sources[:1], TRAINING, 0)
    sizes: list[int] = []
    learner.plugins.append(SizeOfOutput(sizes))
    learner.eval(list(benchmark.test_stream))
    assert sum(sizes) == len(sources[0].indices("test"))


class SizeOfOutput(SupervisedPlugin):
    """Notes how many scores come out when Avalanche evaluates."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def after_eval_forward(self, strategy: Learner, **kwargs: Any) -> None:
        self.sizes.append(len(strategy.mb_output))


def test_a_strategy_must_not_contradict_itself_about_features_of_their_own() -> None:
    @dataclass
    class Contradicts(Naive):
        own_features = True

        def view(self) -> None:
            return None

    networks = RunNetworks(registry.load("backbones", "scnn"), "random", TRAINING)
    with pytest.raises(UserError, match=r"Contradicts.own_features is True, but its view\(\) gives None"):
        networks.untrained(Contradicts())


def test_a_protocol_leaves_alone_what_other_work_shares() -> None:
    @dataclass
    class Larger(Naive):
        def protocol(self, training: Training) -> Training:
            return replace(training, resize=512)

    with pytest.raises(
        UserError, match=r"protocol must not change resize or precision: other jobs share them"
    ):
        Larger().trained_under(TRAINING)
