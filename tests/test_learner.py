"""The learner on a handful of small pictures: schedule, what moves, selection, repetition."""

import copy
from dataclasses import replace
from itertools import combinations

import numpy as np
import oracles
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from tiny_dataset import make_tiny

from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.splits import seeded_split
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.config import PRESETS
from cliqa_bench.extensions import registry
from cliqa_bench.learning.learner import Learner
from cliqa_bench.learning.losses import fidelity, pair_probability
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.metrics import srcc
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.strategies.tsn import TSN

TRAINING = replace(
    PRESETS["quick"],
    crop=32,
    resize=0,
    batch=8,
    warmup_batch=8,
    warmup_epochs=1,
    epochs=2,
    decay_epochs=(2,),
    lr=0.01,
)


def open_source(dataset, folder):
    ratings = dataset.ratings()
    cache = ImageCache.open(dataset, [r.key for r in ratings], 0, folder / "images")
    return DecodedDataset(dataset, ratings, seeded_split(ratings, "tiny", 1), cache)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner")
    return open_source(make_tiny(folder / "tiny", 30), folder)


def new_model(seed=0):
    scnn = registry.load("backbones", "scnn")
    return QualityModel(scnn.build("random", 3), scnn.feature_size, view=TaskNorms(), seed=seed)


class Noted:
    """Notes, epoch by epoch, what every image was cut to, and the losses."""

    def __init__(self):
        self.cuts, self.batches, self.losses = [], [], []

    def before_training_epoch(self, learner, **kwargs):
        for noted in (self.cuts, self.batches, self.losses):
            noted.append({} if noted is self.cuts else [])

    def before_update(self, learner, **kwargs):
        images = learner.shown[0][1].tolist()
        self.cuts[-1] |= dict(zip(images, learner.mb_x.clone(), strict=True))
        self.batches[-1].append(images)
        self.losses[-1].append(float(learner.loss.detach()))

    def sizes(self):
        return [[len(images) for images in epoch] for epoch in self.batches]


def learn(source, training=TRAINING, seed=0, model=None, strategy=None, plugins=()):
    model = model or new_model(seed)
    learner = Learner(model=model, strategy=strategy or TSN(), training=training, seed=seed, plugins=plugins)
    learner.train(quality_benchmark([source], training).train_stream[0], eval_streams=[])
    return learner


def test_convolutions_stay_and_task_parameters_move(source):
    model = new_model()
    before = copy.deepcopy(model.state_dict())
    learner = learn(source, model=model)
    after = model.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), f"{name} was frozen and moved"
    fresh = new_model()
    fresh.add_task()
    still = [k for k, v in fresh.own_state().items() if torch.equal(v, learner.last_state[k])]
    assert not still, "every gamma, beta, statistic and head learns"


def test_two_stages_learning_rates_and_history(source):
    history = learn(source).history
    assert [h["stage"] for h in history] == ["warm-up", "main", "main"]
    assert [h["lr"] for h in history] == pytest.approx([0.01, 0.01, 0.001])
    assert all(np.isfinite(h["loss"]) for h in history)


def test_each_stage_has_a_rate_of_its_strategy_and_a_batch_of_its_own(source):
    training = replace(TRAINING, warmup_batch=5)
    noted = Noted()
    history = learn(source, training, strategy=TSN(warmup_rate=0.5, main_rate=0.1), plugins=[noted]).history
    assert [h["lr"] for h in history] == pytest.approx([0.005, 0.001, 0.0001])
    n = len(source.keys("train"))
    for sizes, batch in zip(noted.sizes(), (5, 8, 8), strict=True):
        assert sizes == [batch] * (n // batch) + [n % batch] * (n % batch > 1)


def test_no_epoch_and_no_seed_cuts_as_another_does(source):
    """Image by image, since the shuffle alone makes mini-batches differ."""
    training = replace(TRAINING, epochs=3)
    epochs = []
    for seed in (0, 1):
        noted = Noted()
        learn(source, training, seed, plugins=[noted])
        epochs += noted.cuts
    for one, other in combinations(epochs, 2):
        images = one.keys() & other.keys()
        alike = sum(torch.equal(one[image], other[image]) for image in images)
        assert len(images) > 15 and alike < len(images) / 3


def test_the_history_s_loss_is_the_mean_over_the_steps(source):
    noted = Noted()

    class Growing(TSN):
        def penalty(self, learner):
            return torch.tensor(float(len(noted.losses[-1])))

    history = learn(source, strategy=Growing(), plugins=[noted]).history
    for epoch, losses in zip(history, noted.losses, strict=True):
        assert epoch["loss"] == pytest.approx(np.mean(losses), abs=1e-6)  # rounded to float32
        assert epoch["stage"] == "warm-up" or np.ptp(losses) > 1


def test_what_an_epoch_draws_depends_on_its_number_and_seed_alone(source):
    """As dropout draws it, from torch's own generator."""

    class Drawing(TSN):
        def penalty(self, learner):
            drawn.append((learner.seed, learner.epoch, float(torch.rand(()))))

    class Spendthrift:
        def after_training_epoch(self, learner, **kwargs):
            torch.rand(5)

    drawn: list[tuple[int, int, float]] = []
    for seed in (0, 1):
        learn(source, seed=seed, strategy=Drawing())
    n = len(drawn)
    learn(source, seed=1, strategy=Drawing(), plugins=[Spendthrift()])
    assert drawn[n:] == drawn[n // 2 : n]
    assert len({value for *_, value in drawn[:n]}) == n


def test_in_the_warm_up_only_the_head_learns(source):
    learner = learn(source, replace(TRAINING, warmup_epochs=2, epochs=0))
    fresh = new_model()
    fresh.add_task()
    state = learner.model.own_state()
    for name, tensor in fresh.own_state().items():
        assert torch.equal(tensor, state[name]) != name.startswith("heads."), name


@pytest.mark.parametrize(("bn_adapts", "batches"), [("all", 6), ("first", 3)])
def test_statistics_adapt_in_all_epochs_or_only_in_the_first(source, bn_adapts, batches):
    learner = learn(source, replace(TRAINING, bn_adapts=bn_adapts, lr=1e-12))
    # with a rate of next to nothing every epoch scores alike and the first is kept: look at the end
    counts = {v.item() for k, v in learner.last_state.items() if k.endswith("num_batches_tracked")}
    assert counts == {batches}


def test_the_best_epoch_is_what_stays(source):
    learner = learn(source, replace(TRAINING, epochs=5, lr=0.05))
    best = max(h["val_srcc"] for h in learner.history if h["val_srcc"] is not None)
    model = learner.model.eval()
    scores = score_images(model, source, "val", 1, "cpu")
    assert srcc(source.mos[source.indices("val")], scores[:, 0].astype(float)) == pytest.approx(best)


def test_it_learns_which_pictures_are_brighter(tmp_path):
    dataset = make_tiny(tmp_path / "tiny", 30)
    for i, rating in enumerate(dataset.ratings()):
        Image.new("RGB", (40, 40), (round(20 + 200 * rating.score / 3),) * 3).save(
            tmp_path / "tiny" / f"{i:03}.png"
        )
    history = learn(open_source(dataset, tmp_path), replace(TRAINING, epochs=8, decay_epochs=())).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]  # at most 0.464 of it, on every processor tried


def test_the_same_seed_gives_the_same_bits_and_another_does_not(source):
    first, again, other = (learn(source, seed=s).model.own_state() for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_task_trains_alike_wherever_it_stands_in_an_order(source):
    alone = learn(source)
    second = new_model()
    learner = learn(source, replace(TRAINING, lr=0.03), model=second)
    first_task = {k: v.clone() for k, v in second.own_state().items()}
    learner = Learner(model=second, strategy=TSN(), training=TRAINING)
    learner.train(quality_benchmark([source], TRAINING).train_stream[0], eval_streams=[])
    assert all(torch.equal(v, second.own_state()[k]) for k, v in first_task.items()), "task 0 moved"
    images = torch.randn(3, 3, 40, 40)
    assert torch.equal(second.eval().score(images, 1), alone.model.eval().score(images, 0))


def test_the_loss_is_the_mean_over_all_pairs_of_the_batch(source):
    learner = learn(source, replace(TRAINING, warmup_epochs=1, epochs=0))
    batch = next(source.train_batches(TRAINING, 0, 0, 8))
    learner.mbatch = [batch.x, batch.y, batch.first, batch.second, batch.labels, torch.zeros(8)]
    learner.mb_output = torch.randn(8, 1)
    s, y = learner.mb_output[:, 0], batch.y
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    expected = torch.stack(
        [fidelity(pair_probability(s[i], s[j]), (y[i] >= y[j]).float()) for i, j in pairs]
    ).mean()
    assert float(learner.criterion()) == pytest.approx(float(expected), abs=1e-6)


def test_sampled_pairs_train_too(source):
    """Each epoch learns all the pairs that were drawn, with their labels and loss, in another order."""
    told = []

    class Noting:
        def before_update(self, learner, **kwargs):
            images = learner.shown[0][1].tolist()
            first, second, labels = (part.tolist() for part in learner.pairs)
            pairs = [(images[i], images[j], g) for i, j, g in zip(first, second, labels, strict=True)]
            s = learner.mb_output.detach()[:, 0].double().numpy()
            p = norm.cdf((s[first] - s[second]) / np.sqrt(2))
            loss = np.mean(oracles.fidelity(p, np.array(labels)))
            told.append((pairs, float(learner.loss.detach()), loss))

    training = replace(TRAINING, pairs="sampled", n_pairs=20)
    learner = learn(source, training, plugins=[Noting()])
    start = new_model()
    start.add_task()
    assert not torch.equal(learner.last_state["heads.0.weight"], start.heads[0].weight)
    steps = len(told) // 3
    epochs = [[pair for pairs, *_ in told[n * steps :][:steps] for pair in pairs] for n in range(3)]
    assert len(epochs[0]) == 20 and len({frozenset(pair[:2]) for pair in epochs[0]}) == 20
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2]) and epochs[0] != epochs[1]
    trained_on = set(source.indices("train").tolist())
    for i, j, label in epochs[0]:
        assert {i, j} <= trained_on and label == (source.mos[i] >= source.mos[j])
    # the largest difference seen is 3.8e-8, of sums in float32
    np.testing.assert_allclose([t[1] for t in told], [t[2] for t in told], rtol=0, atol=1.1e-7)


def test_a_penalty_and_the_verbs_are_called_after_the_warm_up_only(source):
    calls = []

    class Noted(TSN):
        def penalty(self, learner):
            calls.append("penalty")
            return 0 * learner.model.heads[0].weight.sum()

        def after_step(self, learner):
            calls.append("step")

        def consolidate(self, learner):
            calls.append("consolidate")

    learn(source, strategy=Noted())
    batches = len(list(source.train_batches(TRAINING, 0, 0, 8)))
    assert calls == ["penalty", "step"] * (2 * batches) + ["consolidate"]


def test_a_loss_that_is_not_a_number_stops_the_training(source):
    class Broken(TSN):
        def penalty(self, learner):
            return torch.tensor(float("nan"))

    with pytest.raises(FloatingPointError, match=r"Tiny, epoch 2"):
        learn(source, strategy=Broken())


def test_scores_do_not_depend_on_the_batches(source):
    model = learn(source).model.eval()
    together = score_images(model, source, "test", 1, "cpu")
    alone = [model(_normalised(source, i))[0].detach().numpy() for i in source.indices("test")]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def _normalised(source, index):
    pixels = torch.from_numpy(source.cache.image(int(index)).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def test_an_epoch_without_a_validation_srcc_replaces_no_other(source, monkeypatch):
    values = iter([0.5, float("nan"), 0.3])
    monkeypatch.setattr(Learner, "validate", lambda learner: next(values))
    learner = learn(source)
    assert (learner.best_epoch, learner.best.srcc) == (1, 0.5)
    assert [h["val_srcc"] for h in learner.history] == [0.5, None, 0.3]


@pytest.mark.parametrize("slope", ["paper", "code"])
def test_the_slope_reaches_the_loss(slope):
    learner = Learner(model=new_model(), strategy=TSN(), training=replace(TRAINING, slope=slope))
    scores = torch.tensor([0.9, -0.4, 0.2])
    first, second, labels = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), torch.tensor([1.0, 0.0, 1.0])
    z = (scores[first] - scores[second]).double().numpy() / (np.sqrt(2) if slope == "paper" else 1)
    p = norm.cdf(z)
    g = labels.numpy()
    expected = np.mean(1 - np.sqrt(p * g) - np.sqrt((1 - p) * (1 - g)))
    # 1.0e-4 off, which is what the loss adds below its roots; the other slope is 0.02 and more away
    assert float(learner.loss_of_pairs(scores, first, second, labels)) == pytest.approx(expected, abs=2e-4)


def test_weight_decay_pulls_at_what_no_loss_holds(source):
    """With a decay much larger than the loss's slope, Adam takes all of a head towards 0, a rate a step."""

    def head(decay):
        training = replace(TRAINING, weight_decay=decay, warmup_epochs=1, epochs=0, lr=1e-3)
        return learn(source, training).last_state["heads.0.weight"]

    model = new_model()
    model.add_task()
    start = model.heads[0].weight.detach()
    steps = source.n_batches(TRAINING, TRAINING.warmup_batch)
    far = start.abs() > 2e-3 * steps  # the others may cross it
    moved = (start - head(1000.0)) * start.sign()
    np.testing.assert_allclose(moved[far], 1e-3 * steps, rtol=0.05)
    plain = (start - head(0.0)) * start.sign()
    assert (plain[far] < 0).any()


def test_several_datasets_are_validated_by_their_mean(source, monkeypatch):
    learner = learn(source)
    other = replace(source, task=1)
    values = {0: 0.5, 1: -0.25}
    monkeypatch.setattr(Learner, "_validate", lambda learner, one: values[one.task])
    monkeypatch.setattr(Learner, "sources", (source, other))
    assert learner.validate() == 0.125


def test_validation_moves_nothing(source, monkeypatch):
    validate = Learner.validate

    def watched(learner):
        before = {name: tensor.clone() for name, tensor in learner.model.own_state().items()}
        value = validate(learner)
        assert all(torch.equal(before[k], v) for k, v in learner.model.own_state().items())
        assert not learner.model.training
        return value

    monkeypatch.setattr(Learner, "validate", watched)
    assert len(learn(source).history) == 3
