"""The benchmark's rows that start commands or make data: what they make and count."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliqa_bench.bench import bench_rows, process
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups import first_batch, pair_kinds, startup
from cliqa_bench.bench.real_size import REAL, make_real_size
from cliqa_bench.benchmarks.decoded import open_source
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import UserError


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions("cpu", "fp32", 1, 1, tmp_path, scale=0.001)


@pytest.mark.parametrize("name", bench_rows.GROUPS)
def test_every_group_is_a_module(name: str) -> None:
    module = importlib.import_module(f"cliqa_bench.bench.groups.{bench_rows.GROUPS[name].module}")
    assert callable(module.measure)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bid", "csiq", "kadid10k"])
def test_real_size_data_are_as_large_as_the_real_ones(tmp_path: Path, name: str) -> None:
    n = make_real_size(tmp_path, [name], 0.001)
    (dataset,) = find_datasets(tmp_path, [name]).values()
    ratings = dataset.ratings()
    dataset.verify_files(ratings)
    assert dataset.generated is not None
    assert len(ratings) == n >= 10
    sizes = {Image.open(dataset.path(rating.key)).size for rating in ratings}
    assert sizes <= set(REAL[name][1])
    contents = {dataset.path(rating.key).read_bytes() for rating in ratings}
    assert len(contents) == n, "every file has bytes of its own"


def test_memory_is_that_of_the_whole_tree() -> None:
    held = (
        "x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096]); print('ready', flush=True); input()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    child = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    tree = list(process._tree(child.pid))
    found = sum(process._resident(pid) for pid in tree)
    child.communicate("\n")
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the memory of other processes")
    assert len(tree) == 2
    assert 200e6 < found < 300e6
    assert process._resident(child.pid) == 0


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run failed with 2: cliqa-bench: error: which strategy"):
        process.run(["run"], tmp_path)
    assert "usage" in process.run(["--help"], tmp_path).output


def test_start_up_is_measured_on_every_order(setting: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], cache: Path) -> process.Ran:
        asked.append(list(words))
        return process.Ran(1.0, math.nan, "")

    monkeypatch.setattr(startup, "run", run)
    found = list(startup.measure(replace(setting, repeats=3)))
    assert [(row.reach, len(row.ours)) for row in found] == [(0.3, 3), (5, 3)]
    orders = asked[-1][asked[-1].index("--orders") + 1].split(";")
    assert len(set(orders)) == 720
    assert all(len(set(order.split(","))) == 6 for order in orders)


@pytest.mark.slow
def test_the_first_batch_ends_a_real_run(setting: Conditions) -> None:
    cold, warm, step = first_batch.measure(setting)
    assert len(cold.ours) == len(warm.ours) == 1
    assert 0 < warm.value < step.value
    assert not list(setting.folder.glob("runs/train/*/done.json")), "it stops at the first step"


@pytest.mark.parametrize(("kind", "batch"), [("sampled", 10), ("batch", 4)])
def test_pieces_of_an_epoch_are_the_epoch(miniatures: Path, tmp_path: Path, kind: Any, batch: int) -> None:
    found = open_source(load_materials(["koniq10k"], miniatures)["koniq10k"], 0, tmp_path)
    training = replace(PRESETS["quick"], crop=32, resize=0, pairs=kind, n_pairs=50)
    sliced = replace(
        pair_kinds.Sliced(found.dataset, found.ratings, found.split, found.cache, pieces=2), task=3
    )
    each = found.n_batches(training, batch) // 2
    assert each > 1 and sliced.n_batches(training, batch) == each
    for epoch in range(4):
        whole = list(found._groups(training, epoch // 2, 7, batch))[epoch % 2 * each :]
        got = list(sliced._groups(training, epoch, 7, batch))
        assert len(got) == each
        for one, other in zip(got, whole, strict=False):
            np.testing.assert_array_equal(one[0], other[0])


def test_a_training_is_validated_after_every_piece(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_source(load_materials(["koniq10k"], miniatures)["koniq10k"], 0, tmp_path / "cache")
    monkeypatch.setattr(pair_kinds, "PAIRS", 64 * pair_kinds.IMAGES // len(found.ratings))
    cases: list[tuple[pair_kinds.Pairs, int, int]] = [
        ("sampled", 4, 32),
        ("batch", 1, len(found.keys("train"))),
    ]
    for name, parts, passes in cases:
        kind = pair_kinds.KINDS[name]._replace(pieces=parts, epochs=2, batch=16)
        monkeypatch.setitem(pair_kinds.KINDS, name, kind)
        curve = pair_kinds._train(Conditions("cpu", "fp32", 1, 1, tmp_path), found, name, 0)
        assert curve.passes == [passes, 2 * passes]
        assert len(curve.srcc) == 2 and -1 <= curve.test <= 1


def test_passes_are_counted_to_the_first_time_a_level_is_reached() -> None:
    curve = pair_kinds.Curve([64, 128, 192], [0.1, 0.6, 0.5], 0.4)
    assert pair_kinds._reaches(curve, 0.5) == 128
    assert pair_kinds._reaches(curve, 0.6) == 128
    assert pair_kinds._reaches(curve, 0.05) == 64
    assert math.isnan(pair_kinds._reaches(curve, 0.7))


def test_what_takes_long_is_measured_only_when_named() -> None:
    long = set(bench_rows.chosen_groups(["all"])) - set(bench_rows.chosen_groups([]))
    assert long == {"first-batch", "memory", "pairs"}
