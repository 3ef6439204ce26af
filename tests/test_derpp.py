"""DER++: its reservoir against Avalanche's, its losses against numpy, and what its memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from scipy.stats import norm
from torch.utils.data import TensorDataset

from cliqa_bench.system.avalanche_import import importing_avalanche

with importing_avalanche():
    from avalanche.benchmarks.utils import make_avalanche_dataset
    from avalanche.training.storage_policy import ReservoirSamplingBuffer

from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
from cliqa_bench.benchmarks.pairs import batch_pairs, pair_labels
from cliqa_bench.errors import UserError
from cliqa_bench.execution import work_size
from cliqa_bench.extensions import registry
from cliqa_bench.strategies._exemplars import look
from cliqa_bench.strategies.derpp import DERPP, reservoir
from cliqa_bench.strategies.replay import Replay
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources() as made:
        yield [replace(source, task=task) for task, source in enumerate(made)]


# -- the reservoir -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 30, 60])
def test_the_reservoir_keeps_what_avalanches_keeps(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """With the same random numbers: the same items, in the same order, after every dataset."""
    rng = np.random.default_rng(5)
    theirs = ReservoirSamplingBuffer(size)
    kept: list[Any] = []
    first = 0
    for n in (20, 3, 17):
        numbers = rng.random(n)
        monkeypatch.setattr(torch, "rand", lambda count, numbers=numbers: torch.from_numpy(numbers))
        items = torch.arange(first, first + n)
        theirs.update_from_dataset(make_avalanche_dataset(TensorDataset(items)))
        first += n
        kept.append((items.numpy(), numbers))
        places = reservoir([numbers for _, numbers in kept], size)
        kept = [(i[p], m[p]) for (i, m), p in zip(kept, places, strict=True)]
        ours = [(m, i) for items_, numbers_ in kept for i, m in zip(items_, numbers_, strict=True)]
        assert [i for _, i in sorted(ours, reverse=True)] == [int(row[0]) for row in theirs.buffer]
        assert len(ours) == min(size, first)


def test_every_image_of_the_stream_is_kept_with_the_same_probability() -> None:
    rng = np.random.default_rng(0)
    lengths, size, times = (30, 10, 60), 20, 4000
    counts = np.zeros(sum(lengths))
    for _ in range(times):
        parts = [rng.random(n) for n in lengths]
        starts = np.cumsum([0, *lengths])
        for start, kept in zip(starts, reservoir(parts, size), strict=False):
            counts[start + kept] += 1
    # a binomial count is off by five deviations once in two million times
    expected = times * size / sum(lengths)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - size / sum(lengths)))


def test_a_reservoir_without_a_stream_or_with_room_for_all() -> None:
    assert reservoir([], 5) == []
    found = reservoir([np.zeros(0), np.array([0.1, 0.3, 0.2])], 9)
    assert [kept.tolist() for kept in found] == [[], [1, 2, 0]]


# -- the memory ----------------------------------------------------------------------------------------------


def test_it_keeps_each_image_with_the_score_it_had_when_it_entered(sources: list[DecodedDataset]) -> None:
    strategy = DERPP(memory=10, warmup_rate=1.0, main_rate=1.0)
    model = new_model(strategy)
    then: dict[str, dict[int, float]] = {}
    for n, source in enumerate(sources):
        learner = learn(strategy, model, [source], seen=sources[:n])
        train = source.indices("train")
        then[source.name] = dict(zip(train.tolist(), look(learner, source).scores.tolist(), strict=True))
        state = strategy.state()
        images = {s.name: state[f"memory.{s.name}"].tolist() for s in sources[: n + 1]}
        assert sum(map(len, images.values())) == 10
        for name, kept in images.items():
            assert len(set(kept)) == len(kept) and set(kept) <= set(then[name]), "training images, each once"
            np.testing.assert_array_equal(
                state[f"score.{name}"].numpy(), np.array([then[name][i] for i in kept], np.float32)
            )
            chosen = state[f"priority.{name}"].numpy()
            assert (np.diff(chosen) < 0).all()
    learner.task = 0  # the scores of today are others
    first = sources[0]
    today = dict(zip(first.indices("train").tolist(), look(learner, first).scores.tolist(), strict=True))
    moved = max(abs(today[i] - then[first.name][i]) for i in images[first.name])
    assert moved > 1e-3


def test_what_is_kept_depends_on_the_seed_alone(sources: list[DecodedDataset]) -> None:
    def kept(seed: int) -> list[int]:
        strategy = DERPP(memory=6)
        learn(strategy, new_model(strategy, seed), sources[:1], replace(TRAINING, epochs=0), seed=seed)
        found: list[int] = strategy.state()["memory.tiny0"].tolist()
        return found

    assert kept(1) == kept(1) != kept(2)


# -- the losses ----------------------------------------------------------------------------------------------


def drawing(source: DecodedDataset, other: DecodedDataset, loss_on: Any) -> Any:
    """A learner of a second dataset, as far as `penalty` looks at one."""
    return SimpleNamespace(
        seen={source.name: source}, source=other, seed=3, training=replace(TRAINING, batch=5), loss_on=loss_on
    )


@pytest.mark.parametrize("slope", ["paper", "code"])
def test_the_losses_are_those_of_numpy(sources: list[DecodedDataset], slope: Any) -> None:
    """The model's scores of today are a number for each image; see `said`."""
    source, asked = sources[0], []
    train = source.indices("train")
    rng = np.random.default_rng(1)
    stored = rng.normal(size=len(train)).astype(np.float32)
    said = {int(i): float(s) for i, s in zip(train, rng.normal(size=len(train)), strict=True)}

    def loss_on(batch: Batch, task: int) -> torch.Tensor:
        images = batch.images.numpy()
        asked.append((task, images, batch.labels.numpy()))
        today = np.array([said[int(i)] for i in images])
        first, second = batch.first.numpy(), batch.second.numpy()
        p = norm.cdf((today[first] - today[second]) / (np.sqrt(2) if slope == "paper" else 1))
        return torch.tensor(np.mean(oracles.fidelity(p, batch.labels.numpy().astype(np.float64))))

    strategy = DERPP(memory=50, alpha=0.3, beta=2.0)
    strategy.load_state(
        {
            "memory.tiny0": torch.from_numpy(train),
            "score.tiny0": torch.from_numpy(stored),
            "priority.tiny0": torch.from_numpy(rng.random(len(train))),
        }
    )
    learner = drawing(source, sources[1], loss_on)
    learner.training = replace(learner.training, slope=slope)
    value = strategy.penalty(learner)
    assert value is not None
    by_name = {labels.tobytes(): images for _, images, labels in asked}
    assert len(asked) == 2 and len(by_name) == 2 and {task for task, _, _ in asked} == {0}
    expected = 0.0
    mos = source.mos
    old = dict(zip(train.tolist(), stored.astype(np.float64), strict=True))
    kinds = []
    for _, images, labels in asked:
        first, second = batch_pairs(len(images))
        assert len(set(images.tolist())) == 5
        before = np.array([old[int(i)] for i in images])
        dark = norm.cdf((before[first] - before[second]) / (np.sqrt(2) if slope == "paper" else 1))
        true = pair_labels(mos[images][first], mos[images][second], "paper")
        is_dark = bool(np.abs(labels - dark).max() < 1e-6)
        assert is_dark or np.array_equal(labels, true)
        kinds.append(is_dark)
        today = np.array([said[int(i)] for i in images])
        p = norm.cdf((today[first] - today[second]) / (np.sqrt(2) if slope == "paper" else 1))
        weight, target = (0.3, dark) if is_dark else (2.0, true.astype(np.float64))
        expected += weight * float(np.mean(oracles.fidelity(p, target)))
    assert sorted(kinds) == [False, True]
    assert not np.array_equal(asked[0][1], asked[1][1]), "drawn independently"
    assert float(value) == pytest.approx(expected, abs=2e-6)


def test_each_image_of_the_memory_is_as_likely_as_any_other(sources: list[DecodedDataset]) -> None:
    """Of two datasets with 9 and 3 images in the memory, the first is drawn three times as often."""
    strategy = DERPP(memory=12)
    strategy._kept = {"tiny0": sources[0].indices("train")[:9], "tiny1": sources[1].indices("train")[:3]}
    learner = drawing(sources[0], sources[2], None)
    learner.seen["tiny1"] = sources[1]
    drawn = [strategy.draw(learner) for _ in range(2000)]
    tasks = [found.task for found in drawn if found is not None]
    assert len(tasks) == 2000
    assert abs(tasks.count(0) - 1500) < 5 * np.sqrt(2000 * 0.75 * 0.25)


def test_a_single_image_of_a_dataset_is_not_drawn(sources: list[DecodedDataset]) -> None:
    strategy = DERPP(memory=2)
    strategy._kept = {"tiny0": sources[0].indices("train")[:1]}
    learner = drawing(sources[0], sources[1], None)
    assert strategy.draw(learner) is None and strategy.penalty(learner) is None


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"derpp\.{name} must be at least 0"):
        registry.load("strategies", "derpp")(**{name: -0.1})


# -- what it costs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "each"), [("replay", 1), ("derpp", 3), ("lwf", 0), ("ssiqa", None)])
def test_the_record_counts_images_and_what_is_kept_with_them(name: str, each: int | None) -> None:
    strategy = registry.load("strategies", name)()
    split = SimpleNamespace(keys=lambda subset: ["image"] * 30)
    plan: Any = SimpleNamespace(materials={"live": SimpleNamespace(split=split)})
    found = work_size.memory_cost(plan, strategy, ["live"])
    images = 30 if strategy.memory_size else 0
    assert found == {"memory_images": images} | ({} if each is None else {"memory_values": each * images})
    if each and strategy.memory_size:  # what the state holds
        assert Replay(memory=9).values_per_image == 1 and DERPP(memory=9).values_per_image == 3


def test_the_state_holds_as_many_numbers_as_are_counted(sources: list[DecodedDataset]) -> None:
    for strategy in (Replay(memory=7), DERPP(memory=7)):
        learn(strategy, new_model(strategy), sources[:1], replace(TRAINING, epochs=0))
        kept = sum(tensor.numel() for tensor in strategy.state().values())
        assert kept == 7 * strategy.values_per_image
