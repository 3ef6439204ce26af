from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from colour_profiles import WIDE
from numpy.typing import NDArray
from PIL import Image
from tiny_dataset import make_tiny, pixels_of

from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset, prefetch
from cliqa_bench.benchmarks.pairs import count_pairs
from cliqa_bench.benchmarks.pixels.cache import ImageCache, to_float
from cliqa_bench.benchmarks.splits import seeded_split
from cliqa_bench.benchmarks.streams import CropAndFlip, iqa_benchmark, quality_benchmark
from cliqa_bench.benchmarks.targets import OpinionScores
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.errors import UserError
from cliqa_bench.types import SUBSETS

IN_BATCH = replace(PRESETS["quick"], crop=32, resize=0)
SAMPLED = replace(IN_BATCH, pairs="sampled", n_pairs=50)


def make_source(root: Path, name: str = "tiny", n: int = 40, **options: Any) -> DecodedDataset:
    dataset = make_tiny(root / name, n, **options)
    dataset.name = name  # type: ignore[misc]
    ratings = dataset.ratings()
    cache = ImageCache.open(dataset, [r.key for r in ratings], 0, root)
    return DecodedDataset(dataset, ratings, seeded_split(ratings, name, 1), cache)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DecodedDataset:
    return make_source(tmp_path_factory.mktemp("source"))


def epoch_of(
    source: DecodedDataset, training: Training, epoch: int = 0, seed: int = 0, batch: int = 8
) -> list[Batch]:
    return list(source.train_batches(training, epoch, seed, batch))


def occurs_in(patch: NDArray[np.uint8], image: NDArray[np.uint8]) -> bool:
    """Whether (h, w, 3) pixels are a part of an image, as they are or mirrored."""
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)[:, :, 0]
    return any((windows == p).all(axis=(2, 3, 4)).any() for p in (patch, patch[:, ::-1]))


def test_subsets_partition_the_images(source: DecodedDataset) -> None:
    indices = [source.indices(subset) for subset in SUBSETS]
    np.testing.assert_array_equal(np.sort(np.concatenate(indices)), np.arange(40))
    for subset, part in zip(SUBSETS, indices, strict=True):
        assert [source.ratings[i].key for i in part] == source.keys(subset)


def test_batches_hold_every_training_image_once_and_all_pairs(source: DecodedDataset) -> None:
    batches = epoch_of(source, IN_BATCH)
    assert len(batches) == source.n_batches(IN_BATCH, 8)
    train = source.indices("train")
    np.testing.assert_array_equal(np.sort(np.concatenate([b.images for b in batches])), train)
    for batch in batches:
        n = len(batch.images)
        assert batch.x.shape == (n, 3, 32, 32) and batch.x.dtype == torch.uint8
        assert len(batch.first) == count_pairs(n) and (batch.first < batch.second).all()
        np.testing.assert_array_equal(batch.y, source.mos[batch.images].astype(np.float32))
        better = source.mos[batch.images[batch.first]] >= source.mos[batch.images[batch.second]]
        np.testing.assert_array_equal(batch.labels, better.astype(np.float32))
        for row, image in enumerate(batch.images.tolist()):
            patch = batch.x[row].permute(1, 2, 0).numpy()
            assert occurs_in(patch, pixels_of(source.dataset, source.ratings[image].key))


def test_a_single_image_left_over_is_not_a_batch(source: DecodedDataset) -> None:
    n = len(source.indices("train"))
    sizes = [len(b.images) for b in epoch_of(source, IN_BATCH, batch=n - 1)]
    assert sizes == [n - 1] and source.n_batches(IN_BATCH, n - 1) == 1
    assert len(epoch_of(source, IN_BATCH, batch=n)) == source.n_batches(IN_BATCH, n) == 1
    assert len(epoch_of(source, IN_BATCH, batch=n - 2)) == source.n_batches(IN_BATCH, n - 2) == 2


def test_sampled_pairs_stay_and_their_order_changes(source: DecodedDataset) -> None:
    def pairs(epoch: int, seed: int = 0) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for batch in epoch_of(source, SAMPLED, epoch, seed):
            assert len(batch.x) == 2 * len(batch.first)
            found += zip(batch.images[batch.first].tolist(), batch.images[batch.second].tolist(), strict=True)
        return found

    first, second = pairs(0), pairs(1)
    assert len(first) == len(set(first)) == 50 and source.n_batches(SAMPLED, 8) == 7
    assert set(first) == set(second) and first != second
    assert set(pairs(0, seed=1)) != set(first)
    assert {i for pair in first for i in pair} <= set(source.indices("train").tolist())


def test_images_of_a_pair_are_cut_independently(source: DecodedDataset) -> None:
    batches = epoch_of(source, replace(SAMPLED, n_pairs=300))
    cuts: dict[int, set[bytes]] = {}
    for batch in batches:
        for row, image in enumerate(batch.images.tolist()):
            cuts.setdefault(image, set()).add(batch.x[row].numpy().tobytes())
    assert np.mean([len(c) for c in cuts.values()]) > 10


@pytest.mark.parametrize("training", [IN_BATCH, SAMPLED])
def test_an_epoch_depends_on_seed_and_number_alone(source: DecodedDataset, training: Training) -> None:
    placed_elsewhere = replace(source, task=4)
    base, same = epoch_of(source, training, 2, 3), epoch_of(placed_elsewhere, training, 2, 3)
    for ours, theirs in zip(base, same, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for epoch, seed in ((1, 3), (2, 4)):
        other = epoch_of(source, training, epoch, seed)
        # image by image: the shuffle alone makes mini-batches differ
        one, two = cuts_of(base), cuts_of(other)
        images = one.keys() & two.keys()
        assert len(images) > 15 and sum(one[i] == two[i] for i in images) < len(images) / 3
        assert not torch.equal(base[0].images, other[0].images)


def cuts_of(batches: list[Batch]) -> dict[int, bytes]:
    """Returns what each image was cut to, the last time that it was."""
    return {i: x.numpy().tobytes() for b in batches for i, x in zip(b.images.tolist(), b.x, strict=True)}


def test_ties_have_the_label_that_was_asked_for(tmp_path: Path) -> None:
    source = make_source(tmp_path, n=12)
    tied = replace(source, ratings=[r._replace(score=1.0) for r in source.ratings])
    for ties, label in (("paper", 1.0), ("code", 0.0)):
        for training in (IN_BATCH, SAMPLED):
            for batch in epoch_of(tied, replace(training, ties=ties)):  # type: ignore[arg-type]
                assert len(batch.labels) and (batch.labels == label).all()


def test_corners_and_flips_depend_on_epoch_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares the rows of mini-batches, whichever images they hold."""
    source = make_source(tmp_path, n=30, shapes=((64, 64),))
    cut, noted = DecodedDataset._cuts, []

    def noting(self: DecodedDataset, *arguments: Any) -> Any:
        noted.append(np.stack(cut(self, *arguments)))
        return cut(self, *arguments)

    monkeypatch.setattr(DecodedDataset, "_cuts", noting)
    for epoch, seed in ((0, 0), (1, 0), (0, 1)):
        epoch_of(source, IN_BATCH, epoch, seed, batch=30)
    first, later, other = noted
    for different in (later, other):
        assert (first == different).all(axis=0).sum() < 3


def test_crops_are_uniform_and_half_of_them_mirrored(tmp_path: Path) -> None:
    source = make_source(tmp_path, n=10, shapes=((34, 36),))
    rng = np.random.default_rng(0)
    tops, lefts, flips = source._cuts(np.zeros(9000, np.int64), IN_BATCH, rng)
    counts = np.histogram2d(tops, lefts, bins=(3, 5))[0]
    assert counts.min() > 450 and counts.max() < 750
    assert abs(flips.mean() - 0.5) < 0.03


def test_centre_crops_without_augmentation(source: DecodedDataset) -> None:
    for batch in epoch_of(source, replace(IN_BATCH, augment="none")):
        for row, image in enumerate(batch.images.tolist()):
            pixels = pixels_of(source.dataset, source.ratings[image].key)
            top, left = (pixels.shape[0] - 32) // 2, (pixels.shape[1] - 32) // 2
            expected = pixels[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(batch.x[row].permute(1, 2, 0), expected)


def test_evaluation_gives_every_whole_image_once(source: DecodedDataset) -> None:
    seen: list[str] = []
    for places, x in source.eval_batches("train", max_pixels=10_000):
        keys = [source.keys("train")[place] for place in places]
        seen += keys
        for pixels, key in zip(x, keys, strict=True):
            np.testing.assert_array_equal(pixels.permute(1, 2, 0), pixels_of(source.dataset, key))
    assert sorted(seen) == sorted(source.keys("train"))


def test_an_image_smaller_than_the_crop_is_named(source: DecodedDataset) -> None:
    training = replace(IN_BATCH, crop=49)
    with pytest.raises(UserError, match=r"Tiny: training image \d+\.png has .* smaller than the crop of 49"):
        source.train_batches(training, 0, 0, 8)
    with pytest.raises(UserError, match="crop of 49"):
        quality_benchmark([source], training)


def test_a_mini_batch_without_a_pair_is_refused(source: DecodedDataset) -> None:
    with pytest.raises(UserError, match="mini-batch of 1 "):
        source.train_batches(IN_BATCH, 0, 0, 1)


def test_prefetching_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetch(iter(range(50)))) == list(range(50))
    assert list(prefetch(iter([]))) == []

    def failing() -> Iterator[int]:
        yield 1
        raise UserError("from the thread")

    items = prefetch(failing())
    assert next(items) == 1
    with pytest.raises(UserError, match="from the thread"):
        next(items)


def test_prefetching_stops_with_its_reader() -> None:
    made = []

    def counting() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    for _ in prefetch(counting()):
        break
    assert len(made) <= 3


def test_training_transform_draws_anew_and_is_seeded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    one, two, other = (CropAndFlip(32, "crop-flip", "tiny", seed) for seed in (0, 0, 1))
    first = [one(pixels) for _ in range(5)]
    assert all(torch.equal(a, two(pixels)) for a in first)
    assert not torch.equal(first[0], first[1])
    assert not all(torch.equal(a, other(pixels)) for a in first)


def test_training_transform_mirrors_from_left_to_right_and_cuts_everywhere() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (34, 33, 3), dtype=np.uint8)
    windows = {
        (top, left, flip): pixels[top : top + 32, left : left + 32][:, :: -1 if flip else 1]
        for top in range(3)
        for left in range(2)
        for flip in (False, True)
    }
    wanted = {
        key: to_float(torch.from_numpy(cut.copy()).permute(2, 0, 1)[None])[0] for key, cut in windows.items()
    }
    transform, seen = CropAndFlip(32, "crop-flip", "tiny", 0), []
    for _ in range(200):
        cut = transform(pixels)
        seen += [key for key, window in wanted.items() if torch.equal(cut, window)]
    assert len(seen) == 200 and set(seen) == wanted.keys()
    centre = CropAndFlip(32, "none", "tiny", 0)(pixels)
    assert torch.equal(centre, wanted[1, 0, False])


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("avalanche")
    root = tmp_path_factory.mktemp("benchmark")
    sources = [make_source(root, name, 20 + 4 * i) for i, name in enumerate(("one", "two", "three"))]
    return quality_benchmark(sources, IN_BATCH)


def test_streams_follow_the_order(benchmark: Any) -> None:
    for subset in SUBSETS:
        stream = getattr(benchmark, f"{subset}_stream")
        assert [e.dataset_name for e in stream] == ["one", "two", "three"]
        assert [e.current_experience for e in stream] == [e.task_label for e in stream] == [0, 1, 2]
        for experience in stream:
            source = experience.source
            assert source.task == experience.task_label
            targets = list(experience.dataset.targets)
            assert targets == source.mos[source.indices(subset)].tolist()


def test_training_items_are_crops_and_test_items_whole_images(benchmark: Any) -> None:
    experience = benchmark.train_stream[1]
    x, y, task = experience.dataset[3]
    assert x.shape == (3, 32, 32) and x.dtype == torch.float32
    assert y.dtype == torch.float32 and y.shape == () and task == 1
    source = benchmark.test_stream[1].source
    for subset, stream in (("val", benchmark.val_stream), ("test", benchmark.test_stream)):
        for place, key in enumerate(source.keys(subset)):
            whole, score, _ = stream[1].dataset[place]
            pixels = torch.from_numpy(pixels_of(source.dataset, key).copy()).permute(2, 0, 1)
            torch.testing.assert_close(whole, to_float(pixels[None])[0])
            (rating,) = (r for r in source.ratings if r.key == key)
            assert float(score) == np.float32(rating.score)
    again, _, _ = experience.dataset.eval()[3]
    assert tuple(again.shape[1:]) == tuple(source.cache.shapes[source.indices("train")[3]])


def test_loaders_stack_equal_sizes_and_refuse_mixed_ones(benchmark: Any) -> None:
    data = benchmark.train_stream[0].dataset
    x, y, task = next(iter(torch.utils.data.DataLoader(data, 8, collate_fn=data.collate_fn)))
    assert x.shape == (8, 3, 32, 32) and y.dtype == torch.float32 and task.tolist() == [0] * 8
    with pytest.raises(UserError, match="eval_mb_size=1"):
        data.collate_fn([data.eval()[i] for i in range(8)])


class Mean(torch.nn.Module):
    """Predicts a score from the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores.squeeze(1)


@pytest.mark.parametrize("name", ["Naive", "Cumulative", "JointTraining", "ReplayPlugin", "EWCPlugin", "SI"])
def test_avalanches_own_strategies_train_on_the_streams(benchmark: Any, name: str) -> None:
    from avalanche.training import plugins, supervised
    from avalanche.training.plugins import EvaluationPlugin

    torch.manual_seed(0)
    model = Mean()
    before = model.head.weight.detach().clone()
    extra = {
        "ReplayPlugin": lambda: plugins.ReplayPlugin(mem_size=10),
        "EWCPlugin": lambda: plugins.EWCPlugin(ewc_lambda=1.0),
        "SI": lambda: plugins.SynapticIntelligencePlugin(si_lambda=1.0),
    }.get(name)
    strategy = getattr(supervised, name if extra is None else "Naive")(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=torch.nn.MSELoss(),
        train_mb_size=8,
        train_epochs=1,
        eval_mb_size=1,
        evaluator=EvaluationPlugin(),
        plugins=[extra()] if extra else [],
    )
    if name == "JointTraining":
        strategy.train(benchmark.train_stream)
    else:
        for experience in benchmark.train_stream:
            strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    assert torch.isfinite(model.head.weight).all() and not torch.equal(before, model.head.weight)


def test_benchmark_of_generated_data(miniatures: Path) -> None:
    made = iqa_benchmark("bid,live", miniatures, split="2")
    assert [e.dataset_name for e in made.train_stream] == ["bid", "live"]
    x, y, task = made.train_stream[1].dataset[0]
    assert x.shape == (3, 96, 96) and torch.isfinite(y) and task == 1
    assert made.val_stream[0].source.split.name == "seeded-2"
    with pytest.raises(UserError, match="one order, not 8"):
        iqa_benchmark("all", miniatures)
    with pytest.raises(UserError, match="did you mean 'quick'"):
        iqa_benchmark(["live"], miniatures, preset="quik")  # type: ignore[arg-type]


def test_profiles_are_applied_where_asked(miniatures: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(miniatures / "BID", tmp_path / "BID"))
    source = iqa_benchmark("bid", tmp_path, preset="quick").train_stream[0].source
    path = source.dataset.path(source.ratings[0].key)
    with Image.open(path) as image:
        image.copy().save(root / path.relative_to(root), icc_profile=WIDE, quality=95)
    ignored, applied = (
        iqa_benchmark("bid", tmp_path, preset="quick", srgb=srgb).train_stream[0].source.cache.image(0)
        for srgb in (False, True)
    )
    assert ignored.shape == applied.shape
    assert np.abs(ignored.astype(int) - applied).max() > 50, "255 was seen"


@pytest.mark.slow
def test_importing_the_streams_does_not_import_avalanche() -> None:
    code = "import cliqa_bench.benchmarks.streams, sys; sys.exit('avalanche' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- targets that cannot be broadcast ------------------------------------------------------------------------

COMPARED: dict[str, Any] = {
    "MSELoss": torch.nn.MSELoss(),
    "L1Loss": torch.nn.L1Loss(),
    "HuberLoss": torch.nn.HuberLoss(),
    "SmoothL1Loss": torch.nn.SmoothL1Loss(),
    "difference": lambda out, y: ((out - y) ** 2).mean(),
    "difference, turned": lambda out, y: ((y - out) ** 2).mean(),
    "converted": lambda out, y: (out - y.double().clone().view(-1)).abs().mean(),
    "by name": lambda out, y: torch.nn.functional.mse_loss(input=out, target=y),
}


def scores_of(n: int = 6) -> OpinionScores:
    return torch.arange(float(n)).as_subclass(OpinionScores)


@pytest.mark.parametrize("name", COMPARED)
def test_scores_are_compared_one_by_one_or_not_at_all(name: str) -> None:
    compare, y = COMPARED[name], scores_of()
    plain = y.as_subclass(torch.Tensor)
    right = torch.linspace(0, 2, 6, requires_grad=True)
    assert compare(right, y) == compare(right, plain) and type(compare(right, y)) is torch.Tensor
    assert compare(right[:1, None], y[:1]) == compare(right[:1], plain[:1]), "one image: there is no other"
    for out in (right[:, None], right.expand(6, 6)) if name.endswith("Loss") else (right[:, None],):
        with pytest.raises(
            UserError, match=r"predictions of shape \(6, .\) .* put torch.nn.Flatten\(0\) after"
        ):
            compare(out, y)
    if name != "converted":  # which flattens them
        with pytest.raises(UserError, match=r"opinion scores of shape \(6, 1\)"):
            compare(right, y[:, None])


def test_what_is_right_with_scores_stays_right() -> None:
    y, out = scores_of(), torch.linspace(0, 1, 6)[:, None]
    assert (y[:, None] - y).shape == (6, 6)
    assert torch.equal(out[y.argsort(descending=True)], out.flip(0)), "an order is not a score"
    assert len(out[y > 2]) == 3
    assert (out - y[:, None]).shape == (6, 1)
    assert torch.equal(out.squeeze(1) @ y, out.squeeze(1) @ y.as_subclass(torch.Tensor))


def test_scores_stay_scores_wherever_they_go() -> None:
    y = scores_of()
    kept = {
        "moved": y.to("meta", non_blocking=True),
        "cut": y[2:5],
        "joined": torch.cat([y, y[:2]]),
        "stacked": torch.stack([y[0], y[1]]),
        "collated": torch.utils.data.default_collate([y[0], y[1]]),
        "copied": copy.deepcopy([y])[0],
        "pickled": pickle.loads(pickle.dumps(y)),
        "detached": y.detach().clone().float(),
    }
    assert {name: type(value) for name, value in kept.items()} == dict.fromkeys(kept, OpinionScores)
    assert torch.equal(kept["copied"], y) and kept["copied"].data_ptr() != y.data_ptr()


def template(name: str, model: torch.nn.Module, **more: Any) -> Any:
    """Returns one of Avalanche's strategies for a plain network and squared errors."""
    from avalanche.training import supervised

    return getattr(supervised, name)(
        **{
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
            "criterion": torch.nn.MSELoss(),
            "train_mb_size": 8,
            "eval_mb_size": 1,
            "evaluator": EvaluationPlugin(),
            **more,
        }
    )


MORE: dict[str, dict[str, Any]] = {"Replay": {"mem_size": 10}, "EWC": {"ewc_lambda": 1.0}}


@pytest.mark.parametrize(
    ("name", "workers"),
    [("Naive", 0), ("Cumulative", 0), ("JointTraining", 0), ("Replay", 0), ("EWC", 0), ("Replay", 1)],
)
def test_a_template_refuses_a_network_whose_scores_would_spread(
    benchmark: Any, name: str, workers: int
) -> None:
    """A plain `Linear(..., 1)` is told what to do; with what it is told, every experience is learned."""
    layers = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(1), torch.nn.Linear(3, 1))
    experiences = benchmark.train_stream[:2]
    kinds = []

    class Looks(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            kinds.append(type(strategy.mb_y))

    with pytest.raises(UserError, match=r"Flatten\(0\)"):
        template(name, torch.nn.Sequential(*layers), **MORE.get(name, {})).train(
            experiences, num_workers=workers, eval_streams=[]
        )
    right = template(name, torch.nn.Sequential(*layers, torch.nn.Flatten(0)), **MORE.get(name, {}))
    right.plugins.insert(0, Looks())
    right.train(experiences, num_workers=workers, eval_streams=[])
    assert set(kinds) == {OpinionScores}, "what a memory gives, and a worker, is guarded, too"
