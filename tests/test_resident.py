"""Images that lie on a device are cut as those on the disk are, byte for byte. The device here is the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cliqa_bench.bench.fixtures import RESIZE, pictures_source
from cliqa_bench.benchmarks.decoded import Batch, DecodedDataset
from cliqa_bench.benchmarks.pixels import resident
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.pixels.resident import ResidentImages
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import OutOfMemory
from cliqa_bench.execution.jobs import Job, jobs_of
from cliqa_bench.execution.run import prepare
from cliqa_bench.execution.worker import Worker
from cliqa_bench.learning.minibatches import together
from cliqa_bench.settings.resolve import resolve

SHAPES = [(40, 60), (50, 33), (60, 40)] * 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DecodedDataset:
    return pictures_source(tmp_path_factory.mktemp("resident") / "pictures", SHAPES, "train")


@pytest.mark.parametrize(("size", "mirrored"), [(20, True), (20, False), (33, True), (1, True)])
def test_crops_have_the_bytes_of_the_disk(source: DecodedDataset, size: int, mirrored: bool) -> None:
    rng = np.random.default_rng(size)
    indices = rng.integers(0, len(SHAPES), 150)  # more than are cut at once
    room = source.cache.shapes[indices] - size
    tops, lefts = rng.integers(0, room, endpoint=True).T
    tops[:2], lefts[:2] = room[:2].T  # the last place there is, and the first
    tops[2:4] = lefts[2:4] = 0
    flips = rng.random(150) < 0.5 if mirrored else None
    wanted = source.cache.crops(indices, tops, lefts, size, flips)
    found = ResidentImages(source.cache, CPU).crops(indices, tops, lefts, size, flips)
    assert torch.equal(found, wanted)
    assert found.stride() == wanted.stride()


def test_whole_images_have_the_bytes_of_the_disk(source: DecodedDataset) -> None:
    alike = np.flatnonzero((source.cache.shapes == [50, 33]).all(axis=1))[::-1]
    wanted = source.cache.images(alike)
    found = ResidentImages(source.cache, CPU).images(alike)
    assert torch.equal(found, wanted)
    assert found.stride() == wanted.stride()


def test_a_crop_outside_its_image_is_refused(source: DecodedDataset) -> None:
    one = np.array([0])
    with pytest.raises(ValueError, match="is not inside"):
        ResidentImages(source.cache, CPU).crops(one, np.array([21]), np.array([0]), 20)


def test_an_epoch_is_the_same_from_both(source: DecodedDataset) -> None:
    training = replace(PRESETS["quick"], crop=24, batch=5)
    there = replace(source, cache=ResidentImages(source.cache, CPU))
    wanted = list(source.train_batches(training, 3, 7, 5))
    found = list(there.train_batches(training, 3, 7, 5))
    assert len(found) == len(wanted) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        assert all(map(torch.equal, ours, theirs))
    assert not there.cache.made_ahead
    assert source.cache.made_ahead


def test_where_there_is_no_room_they_stay_on_the_disk(
    source: DecodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = source.cache.n_bytes
    assert needed == sum(3 * h * w for h, w in source.cache.shapes.tolist())
    for free, stays in ((needed / resident.SHARE - 1, True), (needed / resident.SHARE + 1, False)):
        monkeypatch.setattr(resident, "_free_bytes", lambda device, free=free: free)
        images = ResidentImages(source.cache, CPU)
        assert images.made_ahead == stays
        assert torch.equal(images.images(np.array([0])), source.cache.images(np.array([0])))
        monkeypatch.setattr(resident, "_free_bytes", lambda device: 1e12)
        assert images.made_ahead == stays, "once for all: batches may be under way"


@pytest.mark.parametrize("chunk", [999, 1000, 1 << 20])
def test_what_is_sent_in_parts_arrives_whole(
    source: DecodedDataset, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(resident, "_CHUNK", chunk)
    images = ResidentImages(source.cache, CPU)
    for i in range(len(source.cache)):
        assert torch.equal(images.images(np.array([i])), source.cache.images(np.array([i])))


def test_images_of_a_larger_file_are_found_in_it(source: DecodedDataset) -> None:
    keys = source.cache.keys[7:5:-1]
    few = ImageCache.open(source.dataset, keys, RESIZE, source.cache.path.parent)
    assert few.path == source.cache.path
    assert few.n_bytes > sum(3 * h * w for h, w in few.shapes.tolist())
    images = ResidentImages(few, CPU)
    for i in range(len(keys)):
        assert torch.equal(images.images(np.array([i])), few.images(np.array([i])))
        assert torch.equal(few.images(np.array([i])), source.cache.images(np.array([7 - i])))


def test_room_is_what_nobody_takes_and_what_pytorch_keeps_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 250)
    assert resident._free_bytes(torch.device("cuda")) == 1350
    assert resident._free_bytes(CPU) == float("inf")


def test_memory_given_back_is_not_taken_again(source: DecodedDataset) -> None:
    images = ResidentImages(source.cache, CPU)
    assert not images.release(), "nothing was taken yet"
    images = ResidentImages(source.cache, CPU)
    images.images(np.array([0]))
    assert images.release()
    assert not images.release()
    assert images.made_ahead
    assert torch.equal(images.images(np.array([0])), source.cache.images(np.array([0])))


def test_on_a_cpu_a_dataset_stays_as_it_is(source: DecodedDataset) -> None:
    assert source.on(CPU) is source
    there = source.on(torch.device("cuda"))  # nothing is sent before it is asked for
    assert isinstance(there.cache, ResidentImages)
    assert there.cache.digest == source.cache.digest


def test_a_mini_batch_of_two_datasets_gathers_where_one_of_them_lies(source: DecodedDataset) -> None:
    training = replace(PRESETS["quick"], crop=24)
    first, second = (next(iter(source.train_batches(training, epoch, 0, 5))) for epoch in (0, 1))
    elsewhere = second._replace(x=second.x.to("meta"))

    def crops_of(*batches: Batch) -> torch.Tensor:
        return together([(source, batch) for batch in batches])[0]

    assert crops_of(first, elsewhere).device.type == "meta"
    assert torch.equal(crops_of(first, second), torch.cat([first.x, second.x]))


def on_a_device(miniatures: Path, tmp_path: Path, said: list[str]) -> Worker:
    """Returns a worker whose images of BID lie on its device."""
    flags = {
        "strategy": "jl",
        "orders": "bid",
        "data": str(miniatures),
        "device": "cpu",
        "out": str(tmp_path),
    }
    worker = Worker(prepare(resolve(flags), ""), {}, lambda images, text, part: None, said.append)
    source = worker.source("bid")
    worker._sources["bid"] = replace(source, cache=ResidentImages(source.cache, CPU))
    return worker


def test_a_job_that_finds_no_memory_begins_anew_without_the_images(
    miniatures: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    worker = on_a_device(miniatures, tmp_path, said)
    cache = worker.source("bid").cache
    other = replace(worker.source("bid"), cache=ResidentImages(worker.source("bid").cache, CPU))
    worker._sources["other"] = other
    tried = []

    def hungry(job: Job) -> None:
        tried.append((cache.made_ahead, other.cache.made_ahead))
        if not cache.made_ahead:
            raise OutOfMemory("memory is used up")

    monkeypatch.setattr(worker, "_do", hungry)
    worker.do(jobs_of(worker.plan)[0])
    assert tried == [(False, False), (True, True)], "all datasets give back what they have"
    assert said == ["cpu is out of memory: starting the job again without keeping images on it"]


def test_a_job_that_finds_no_memory_without_them_fails(
    miniatures: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    worker = on_a_device(miniatures, tmp_path, said)
    assert worker.source("bid").cache.made_ahead is False

    def hungry(job: Job) -> None:
        raise OutOfMemory("memory is used up")

    monkeypatch.setattr(worker, "_do", hungry)
    for times in (1, 1):  # the second time there is nothing to give back
        with pytest.raises(OutOfMemory):
            worker.do(jobs_of(worker.plan)[0])
        assert len(said) == times
