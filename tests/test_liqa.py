"""LIQA-style: its generators, its merge in closed form, what stays as it was, and what it is good for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from safetensors.torch import load, save
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from cliqa_bench.benchmarks.base import Entry
from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.splits import seeded_split
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.metrics import srcc
from cliqa_bench.reports import load as load_results
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.seeds import rng_for
from cliqa_bench.strategies import liqa
from cliqa_bench.strategies._generator import Gaussians, Kept, Network
from cliqa_bench.strategies._linear import Lesson, lesson, regress
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.strategies.liqa import LIQA, MERGE_PENALTY
from cliqa_bench.strategies.naive import Naive
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import TRAINING, _Pictures, learn, new_model, tiny_sources
from cliqa_bench.types import Rating

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = NDArray[np.float64]


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources() as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


def features_of(n: int = 120, d: int = 5, seed: int = 0) -> tuple[F64, F64]:
    """Makes features that bend with the score, and whose noise grows with it."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    mix = rng.normal(size=(d, d))
    x = np.outer(y, np.arange(1, d + 1)) + (1 + np.exp(y))[:, None] * (rng.normal(size=(n, d)) @ mix)
    return x, y


def standardised(source: DecodedDataset) -> F64:
    y = source.mos[source.indices("train")]
    return np.asarray((y - y.mean()) / y.std(), np.float64)


def described(learner: Learner, source: DecodedDataset) -> F64:
    return learner.describe(source, "train").astype(np.float64)


# -- generators ----------------------------------------------------------------------------------------------


def test_a_hundred_thousand_draws_have_the_moments_of_the_fit() -> None:
    x, y = features_of()
    n, fitted = 100_000, Gaussians.fit(x, y, 4)
    z = fitted.draw(n, np.random.default_rng(1))
    ranks = y.argsort().argsort()
    fits = [LedoitWolf().fit(x[ranks // 30 == k]) for k in range(4)]
    mean = np.mean([f.location_ for f in fits], axis=0)
    second = np.mean([f.covariance_ + np.outer(f.location_, f.location_) for f in fits], axis=0)
    covariance = second - np.outer(mean, mean)
    # of a mean, the standard error is that of the draws; of a covariance, that of the products
    assert (np.abs(z.mean(0) - mean) < 5 * z.std(0) / np.sqrt(n)).all()
    away = z - mean
    products = away[:, :, None] * away[:, None, :]
    assert (np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(n)).all()


def test_each_range_of_scores_has_its_own_mean_and_covariance() -> None:
    x, y = features_of()
    fitted = Gaussians.fit(x, y, 4)
    np.testing.assert_array_equal(fitted.share, np.float32(0.25))
    for k, root in enumerate(fitted.roots()):
        own = LedoitWolf().fit(x[y.argsort().argsort() // 30 == k])
        np.testing.assert_allclose(fitted.mean[k], own.location_, rtol=1e-6)
        scale = np.abs(own.covariance_).max()
        # float32: the largest difference seen is 5e-8 of the largest covariance
        np.testing.assert_allclose(root @ root.T, own.covariance_, rtol=0, atol=1.5e-7 * scale)
    # ten ranges of three images would have five covariances of rank two: as many ranges as pairs at most
    assert len(Gaussians.fit(x[:7], y[:7], 4).share) == 3


def test_features_that_are_all_alike_are_drawn_as_they_are() -> None:
    z = Gaussians.fit(np.full((8, 3), 0.5), np.arange(8.0), 4).draw(20, np.random.default_rng(0))
    np.testing.assert_allclose(z, 0.5, atol=6e-6)  # six deviations of 1e-6


def test_a_network_draws_what_depends_on_the_score_as_the_features_do() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    x = np.stack([2 * y, 1 - y, rng.normal(size=200)], axis=1) + 0.3 * rng.normal(size=(200, 3))
    fitted = Network.fit(x, y, rng_for("net", 0))
    z = fitted.draw(20_000, np.random.default_rng(1))
    # how good a network is, not how exact: 0.26 and 0.42 were seen, where variances are 1.1 to 4
    np.testing.assert_allclose(z.mean(0), x.mean(0), rtol=0, atol=0.5)
    np.testing.assert_allclose(np.cov(z.T), np.cov(x.T), rtol=0, atol=0.8)
    scores = np.random.default_rng(1).choice(fitted.scores, 20_000)  # those that were drawn
    found = [np.corrcoef(scores, column)[0, 1] for column in z.T]
    np.testing.assert_allclose(found, [2 / 4.09**0.5, -1 / 1.09**0.5, 0], rtol=0, atol=0.15)  # seen: 0.05


def test_a_network_hangs_on_its_seed_alone() -> None:
    x, y = features_of()
    one, same, other = (Network.fit(x, y, rng_for("net", seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.weights, same.weights)
    assert not np.array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.draw(9, rng_for("a")), Network(*one).draw(9, rng_for("a")))


def test_generators_have_the_sizes_that_the_table_of_costs_says() -> None:
    x, y = features_of(n=40)
    for generator, strategy in (
        (Gaussians.fit(x, y, 4), LIQA()),
        (Network.fit(x, y, rng_for("net")), LIQA(generator="network")),
    ):
        backbone: Any = SimpleNamespace(feature_size=5)
        numbers = sum(array.size for array in generator._asdict().values())
        assert strategy.added_parameters(backbone) == 6 + numbers
    backbone = SimpleNamespace(feature_size=128)
    assert LIQA().added_parameters(backbone) == 129 + 4 * (1 + 128 + 128 * 129 // 2)
    assert LIQA(objective="fidelity").added_parameters(backbone) == 128 + 4 * (1 + 128 + 128 * 129 // 2)


# -- heads ---------------------------------------------------------------------------------------------------


def test_least_squares_over_several_lessons_is_scikit_learns() -> None:
    lessons = [lesson(*features_of(seed=seed), rng_for("pairs")) for seed in range(3)]
    x, y = (np.concatenate([getattr(each, name) for each in lessons]) for name in ("x", "y"))
    fit = SklearnRidge(alpha=0.3 * x.var(axis=0).mean() * len(y), solver="svd").fit(x, y)
    found = regress(lessons, "squared", 0.3)
    np.testing.assert_allclose(found.weights, fit.coef_, rtol=0, atol=1e-12)
    assert found.intercept == pytest.approx(fit.intercept_, abs=1e-12)


@pytest.mark.parametrize("objective", ["smooth-l1", "fidelity"])
def test_other_losses_are_least_where_scipy_finds_them_least(objective: Any) -> None:
    lessons = [lesson(*features_of(n=30, d=3, seed=seed), rng_for("pairs"), "paper") for seed in range(2)]
    x = np.concatenate([each.x for each in lessons])
    unit = x.var(axis=0).mean()

    def loss(parameters: F64) -> float:
        weights, intercept = parameters[:3], parameters[3]
        if objective == "smooth-l1":
            away = np.abs(x @ weights + intercept - np.concatenate([each.y for each in lessons]))
            value = np.where(away < 1, away**2 / 2, away - 0.5).mean()
        else:
            parts = []
            for each in lessons:
                s = each.x @ weights
                p = norm.cdf((s[each.first] - s[each.second]) / np.sqrt(2))
                agree = np.sqrt(p * each.wanted + 1e-8) + np.sqrt((1 - p) * (1 - each.wanted) + 1e-8)
                parts.append(1 - agree)
            value = np.concatenate(parts).mean()
        return float(value + 0.05 / 2 * unit * weights @ weights)

    found = regress(lessons, objective, 0.05)
    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    own = loss(np.array([*found.weights, found.intercept]))
    assert (
        own <= best.fun + 3e-10
    )  # the largest difference seen is 9.8e-11; scipy's gradients are differences
    scores, wanted = x @ found.weights, x @ best.x[:3]
    np.testing.assert_allclose(
        scores - scores.mean(), wanted - wanted.mean(), rtol=0, atol=3.4e-4
    )  # largest seen: 1.1e-4


def test_pairs_lie_inside_a_lesson_and_are_labelled_by_scores_or_softly_by_a_head() -> None:
    x, y = features_of(n=30)
    y[:10] = 0.5
    hard, soft = lesson(x, y, rng_for("p"), "code"), lesson(x, y, rng_for("p"))
    assert len(hard.first) == 30 * 29 // 2
    np.testing.assert_array_equal(hard.wanted, y[hard.first] > y[hard.second])
    np.testing.assert_array_equal(lesson(x, y, rng_for("p"), "paper").wanted, y[hard.first] >= y[hard.second])
    np.testing.assert_allclose(soft.wanted, norm.cdf((y[soft.first] - y[soft.second]) / np.sqrt(2)))
    assert len(lesson(*features_of(n=50), rng_for("p")).first) == 1000


# -- merge ---------------------------------------------------------------------------------------------------


def test_with_exact_features_the_merge_is_joint_regression() -> None:
    """Least squares on what least squares says is least squares on the scores."""
    tasks = [features_of(seed=seed) for seed in range(3)]
    pairs = rng_for("pairs")
    heads = [regress([lesson(x, y, pairs)], "squared", 1e-12) for x, y in tasks]
    kept = [Kept(np.asarray(x, np.float32)) for x, _ in tasks]
    drawn = [each.draw(120, pairs) for each in kept]
    taught = [lesson(z, head(z), pairs) for z, head in zip(drawn, heads, strict=True)]
    merged = regress(taught, "squared", 1e-12)
    x, y = (np.concatenate(parts) for parts in zip(*tasks, strict=True))
    joint = SklearnRidge(alpha=1e-12, solver="svd").fit(x, y)
    # features are kept in float32: the largest difference seen is 4.0e-8
    np.testing.assert_allclose(merged(x), joint.predict(x), rtol=0, atol=1.2e-7)


def test_a_run_with_kept_features_is_joint_regression(sources: list[DecodedDataset]) -> None:
    """With fewer images than features each head says the scores themselves, and so the merge learns them."""
    strategy = LIQA(generator="kept", head_penalty=1e-9)
    learner = learn(strategy, new_model(strategy), sources)
    x, y = [described(learner, source) for source in sources], [standardised(s) for s in sources]
    counts = {len(each) for each in y}
    assert len(counts) == 1
    times = -(-512 // counts.pop())
    rows, scores = np.concatenate(x), np.concatenate(y)
    alpha = MERGE_PENALTY * rows.var(axis=0).mean() * len(rows)
    joint = SklearnRidge(alpha=alpha, solver="svd").fit(rows, scores)
    assert times > 1
    assert strategy._merged is not None
    said = strategy._merged(rows)
    np.testing.assert_allclose(said, joint.predict(rows), rtol=0, atol=2.8e-5)  # largest seen: 9.6e-6
    assert np.abs(said - scores).max() < np.abs(said - scores.mean()).max()


def test_a_merge_learns_what_scikit_learn_says_of_what_is_drawn(
    sources: list[DecodedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Lesson]] = []

    def noted(lessons: list[Lesson], *more: Any) -> Any:
        seen.append(lessons)
        return regress(lessons, *more)

    monkeypatch.setattr(liqa, "regress", noted)
    strategy = LIQA(draws=50)
    learner = learn(strategy, new_model(strategy), sources)
    heads, merges = seen[::2], seen[1::2]
    assert [len(each) for each in heads] == [1, 1, 1]
    assert [len(each) for each in merges] == [1, 2, 3]
    real = [described(learner, source) for source in sources]
    fits = []
    for source, x, (each,) in zip(sources, real, heads, strict=True):
        np.testing.assert_array_equal(each.x, x)
        np.testing.assert_allclose(each.y, standardised(source), rtol=1e-12)
        alpha = 0.1 * x.var(axis=0).mean() * len(x)
        fits.append(SklearnRidge(alpha=alpha, solver="svd").fit(x, standardised(source)))
    n = len(real[-1])
    times = -(-50 // n)
    np.testing.assert_array_equal(merges[-1][-1].x, np.concatenate([real[-1]] * times))
    for each, fit in zip(merges[-1], fits, strict=True):
        assert len(each.x) == times * n
        # heads are kept in float32: weights and intercept are rounded, each by half a unit in the last place
        rounding = 2.0**-24 * (np.abs(each.x) @ np.abs(fit.coef_) + abs(fit.intercept_))
        assert (np.abs(each.y - fit.predict(each.x)) <= rounding).all()
    drawn = [each.x for lessons in merges for each in lessons[:-1]]
    assert not any(np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_the_single_head_answers_from_the_first_task_on(sources: list[DecodedDataset]) -> None:
    strategy = LIQA()
    learner = learn(strategy, new_model(strategy), sources[:1])
    model = learner.model.eval()
    images = torch.randn(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        merged, own = strategy.extras(model)["merged"].eval()(images), model(images)
        assert strategy._merged is not None
        x = model.features(images).final.double().numpy()
    assert merged.shape == (6, 1)
    np.testing.assert_allclose(merged[:, 0], strategy._merged(x), rtol=0, atol=2.6e-5)  # seen: 8.8e-6
    assert own.shape == (6, 1)
    seen = described(learner, sources[0])
    said = model.head(0, torch.from_numpy(seen).float()).detach().numpy()
    np.testing.assert_allclose(strategy._merged(seen), said, rtol=0, atol=5.2e-5)  # largest seen: 1.8e-5


def test_a_frozen_backbone_describes_a_dataset_once(
    sources: list[DecodedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []
    describe = Learner.describe

    def noted(self: Learner, source: DecodedDataset, subset: Any) -> Any:
        described.append(source.name)
        return describe(self, source, subset)

    monkeypatch.setattr(Learner, "describe", noted)
    strategy = LIQA()
    learn(strategy, new_model(strategy), sources)
    assert described == [source.name for source in sources]


# -- what stays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["frozen", "plastic"])
def test_old_heads_and_generators_keep_every_bit(sources: list[DecodedDataset], features: Any) -> None:
    strategy = LIQA(features=features, main_rate=1.0)
    learner = Learner(model=new_model(strategy), strategy=strategy, training=TRAINING)
    backbone = {name: t.clone() for name, t in learner.model.net.state_dict().items()}
    old: dict[str, Tensor] = {}
    for experience in quality_benchmark(sources, TRAINING).train_stream:
        learner.train(experience, eval_streams=[])
        now = dict(learner.model.heads.state_dict()) | strategy.state()
        for name, tensor in old.items():
            assert torch.equal(tensor, now[name]), name
        old = {n: t.clone() for n, t in now.items() if not n.startswith("merged")}
    assert len(old) == 3 * 2 + 3 * 3 + 3
    moved = any(not torch.equal(t, backbone[n]) for n, t in learner.model.net.state_dict().items())
    assert moved == (features == "plastic")


def test_it_resumes_byte_for_byte(sources: list[DecodedDataset]) -> None:
    straight = LIQA()
    model = new_model(straight)
    kept = b""
    for number, source in enumerate(sources):
        learn(straight, model, [source], seen=sources[:number])
        resumed = LIQA()
        if kept:
            resumed.load_state(load(kept))
        again = new_model(resumed)
        for task in range(number):
            resumed.prepare(again)
            again.heads[task].load_state_dict(model.heads[task].state_dict())
        learn(resumed, again, [source], seen=sources[:number])
        kept = save(resumed.state())
        assert kept == save(straight.state())
        reloaded = LIQA()
        reloaded.load_state(load(kept))
        assert save(reloaded.state()) == kept


def test_generators_come_back_in_the_order_of_the_tasks() -> None:
    """The eleventh comes after the third, although its name does not."""
    state = {f"generator.{task}.x": torch.full((1, 2), float(task)) for task in range(12)}
    strategy = LIQA(generator="kept")
    strategy.load_state(dict(sorted(state.items())))
    drawn = [float(each.draw(1, rng_for("x"))[0, 0]) for each in strategy._generators]
    assert drawn == list(range(12))


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {"generator": "network", "objective": "smooth-l1"},
        {"features": "plastic", "hold": "features", "objective": "fidelity"},
    ],
)
def test_variants_keep_the_contract(params: dict[str, Any]) -> None:
    check_strategy(LIQA, **params)


def test_parts_of_a_dataset_share_the_scale_of_the_first(sources: list[DecodedDataset]) -> None:
    def named(source: DecodedDataset, name: str, factor: float) -> DecodedDataset:
        kind: Any = type("Part", (type(source.dataset),), {})
        kind.name = name
        dataset = kind(source.dataset.root)
        ratings = [r._replace(score=factor * r.score) for r in source.ratings]
        return replace(source, dataset=dataset, ratings=ratings)

    parts = [
        named(source, name, factor)
        for source, name, factor in zip(sources, ("a:noise", "a:blur@1/2", "b"), (1.0, 3.0, 5.0), strict=True)
    ]
    strategy = LIQA()
    learn(strategy, new_model(strategy), parts)
    labels = [part.mos[part.indices("train")] for part in parts]
    scales = {name.removeprefix("scale."): t for name, t in strategy.state().items() if "scale" in name}
    assert scales.keys() == {"a", "b"}
    np.testing.assert_allclose(scales["a"], [labels[0].mean(), labels[0].std()], rtol=1e-12)
    np.testing.assert_allclose(scales["b"], [labels[2].mean(), labels[2].std()], rtol=1e-12)
    expected = (labels[1] - labels[0].mean()) / labels[0].std()
    np.testing.assert_allclose(strategy._standardised(parts[1]), expected, rtol=1e-12)


# -- plastic features ----------------------------------------------------------------------------------------


class _Noted(Learner):
    """Notes what is learned, and what the features have moved by, in each step."""

    def _before_backward(self, **kwargs: Any) -> None:
        strategy: Any = self.strategy
        without = float(self.loss.detach())
        super()._before_backward(**kwargs)
        teacher = strategy._teacher
        moved = np.nan
        if teacher is not None:
            with torch.no_grad():
                before = teacher.features(self.mb_x).final.double().numpy()
            moved = ((self.features.detach().double().numpy() - before) ** 2).sum(1).mean()
        mb = (self.mb_output[:, -1].detach().double().numpy(), self.mb_y.double().numpy())
        self.noted = [*getattr(self, "noted", []), (without, float(self.loss.detach()), moved, mb)]


def test_what_holds_the_features_is_what_they_move_by(sources: list[DecodedDataset]) -> None:
    strategy = LIQA(features="plastic", hold="features", reg_weight=7.0, main_rate=1.0)
    learner: Any = learn(strategy, new_model(strategy), sources[:2], kind=_Noted)
    rows = [row for row in learner.noted if np.isfinite(row[2])]
    assert rows
    assert max(row[2] for row in rows) > 1e-6
    for without, loss, moved, _ in rows:
        assert loss - without == pytest.approx(7 * moved, rel=1e-4, abs=1e-6)
    free = LIQA(features="plastic", hold="none", main_rate=1.0)
    learner = learn(free, new_model(free), sources[:2], kind=_Noted)
    assert all(loss == without and np.isnan(moved) for without, loss, moved, _ in learner.noted)


@pytest.mark.parametrize("objective", ["squared", "smooth-l1"])
def test_plastic_heads_learn_standardised_scores(sources: list[DecodedDataset], objective: Any) -> None:
    strategy = LIQA(features="plastic", objective=objective)
    learner: Any = learn(strategy, new_model(strategy), sources[:1], kind=_Noted)
    labels = sources[0].mos[sources[0].indices("train")]
    for without, _, _, (said, y) in learner.noted:
        away = np.abs(said - (y - labels.mean()) / labels.std())
        each = away**2 if objective == "squared" else np.where(away < 1, away**2 / 2, away - 0.5)
        assert without == pytest.approx(each.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bins": 0}, "liqa.bins must be at least 1"),
        ({"draws": 0}, "liqa.draws must be at least 1"),
        ({"head_penalty": 0.0}, "liqa.head_penalty must be above 0"),
    ],
)
def test_nonsense_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LIQA(**params)


def test_a_backbone_with_too_many_features_is_refused() -> None:
    with pytest.raises(UserError, match="liqa: the backbone has 65536 features, too many"):
        LIQA(generator="network").new_head(65536)
    with pytest.raises(UserError, match="use another backbone"):
        LIQA(objective="fidelity").new_head(65536)
    assert LIQA(generator="network", objective="fidelity").new_head(65536) is None


# -- what it is good for -------------------------------------------------------------------------------------


def picture(number: int, kind: str, strength: int) -> Image.Image:
    """Makes a grainy picture of soft colours, and spoils it."""
    rng = np.random.default_rng(100 + number)
    colours = Image.fromarray(rng.integers(0, 256, (10, 10, 3)).astype(np.uint8))
    pixels = np.asarray(colours.resize((48, 48), Image.Resampling.BICUBIC), np.float64)
    pixels = pixels + 20 * rng.normal(size=pixels.shape)
    if kind == "noise":
        pixels = pixels + rng.normal(0, 1 + 4 * strength, pixels.shape)
    elif kind == "contrast":
        pixels = 127 + (pixels - 127) * (1 - strength / 16)
    made = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return made.filter(ImageFilter.GaussianBlur(0.15 * strength)) if kind == "blur" else made


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> list[DecodedDataset]:
    """Three distortions, each of 24 pictures in twelve strengths."""
    made = []
    for task, kind in enumerate(("noise", "blur", "contrast")):
        root = tmp_path_factory.mktemp(kind)
        for number in range(24):
            picture(number, kind, number % 12).save(root / f"{number:02}.png")
        ratings = [Rating(f"{i:02}.png", -float(i % 12), 1.0, None, kind) for i in range(24)]
        entries = [Entry(f"picture {rating.key}", rating) for rating in ratings]
        facts = {"entries": lambda self, entries=entries: entries, "title": kind}
        cls: Any = type("Spoilt", (_Pictures,), facts)
        cls.name = f"tiny:{kind}"
        cache = ImageCache.open(cls(root), [rating.key for rating in ratings], 0, root / "cache")
        made.append(DecodedDataset(cls(root), ratings, seeded_split(ratings, kind, 1), cache, task))
    return made


def pooled(strategy: Strategy, parts: list[DecodedDataset]) -> float:
    """Returns the SRCC over the test images of all parts, once all are learned."""
    model = new_model(strategy)
    learn(strategy, model, [replace(part, task=task) for task, part in enumerate(parts)])
    network = strategy.extras(model.eval()).get("merged", model).eval()
    scores = [score_images(network, part, "test", None, "cpu")[:, -1] for part in parts]
    truth = [part.mos[part.indices("test")] for part in parts]
    return srcc(np.concatenate(scores).astype(np.float64), np.concatenate(truth))


@pytest.mark.parametrize("step", [1, -1])
def test_it_remembers_distortions_that_naive_forgets(stream: list[DecodedDataset], step: int) -> None:
    ours = pooled(LIQA(), stream[::step])
    naive = pooled(Naive(warmup_rate=1.0, main_rate=1.0), stream[::step])
    assert ours - naive > 0.1


STREAM = "live:white-noise,live:gaussian-blur"


@pytest.mark.slow
def test_a_run_shows_verifies_and_scores_with_the_single_head(
    miniatures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs"
    words = ["--strategy", "liqa", "--orders", STREAM, "--data", str(miniatures), "--out", str(out)]
    assert parser.main(["run", *words, "--no-figures"]) == 0
    told = load_results(out)
    assert set(told.method) >= {"LIQA-style", "LIQA-style-O", "LIQA-style-KG"}
    assert parser.main(["verify", str(out)]) == 0
    paths = (out / "answers").glob("liqa*/answers.npz")
    final = [a for a in map(read_answers, paths) if a.get("scores", np.empty((0, 0))).shape[1] == 2]
    merged = {str(key): a["extra.merged"][i, 0] for a in final for i, key in enumerate(a["keys"])}
    key = next(iter(merged))
    image = next(path for path in miniatures.rglob(Path(key).name) if path.as_posix().endswith(key))
    scores = np.concatenate([answers["extra.merged"][:, 0] for answers in final])
    value = srcc(scores.astype(np.float64), np.concatenate([answers["mos"] for answers in final]))
    pooled = told[(told.table == "pooled") & (told.method == "LIQA-style")]
    assert pooled.value.tolist() == [pytest.approx(value, abs=1e-12)]
    capsys.readouterr()
    assert parser.main(["score", str(image), "--runs", str(out)]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    # none was seen: float32, printed in full
    np.testing.assert_allclose(float(row["score"]), merged[key], rtol=0, atol=1e-6)
    file = tmp_path / "model.safetensors"
    assert parser.main(["export", str(out), "--to", str(file)]) == 0
    capsys.readouterr()
    assert parser.main(["score", str(image), "--model", str(file)]) == 0
    assert [*csv.DictReader(io.StringIO(capsys.readouterr().out))] == [row]
