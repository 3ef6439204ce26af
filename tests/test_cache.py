from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_dataset import Tiny, make_tiny, pixels_of

from cliqa_bench.benchmarks.decoded import batches_by_shape
from cliqa_bench.benchmarks.pixels.cache import MEAN, STD, ImageCache, to_float
from cliqa_bench.benchmarks.pixels.decode import RULES, decode_bytes
from cliqa_bench.benchmarks.pixels.hashes import content_hashes, is_known
from cliqa_bench.errors import UserError
from cliqa_bench.paths import cache_root

MODULE = "cliqa_bench.benchmarks.pixels.cache"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path / "tiny")


def keys_of(dataset: Tiny) -> list[str]:
    return [rating.key for rating in dataset.ratings()]


def open_cache(dataset: Tiny, folder: Path, resize: int = 0, keys: list[str] | None = None) -> ImageCache:
    return ImageCache.open(dataset, keys or keys_of(dataset), resize, folder)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def counting(data: bytes, path: Path, *rest: Any) -> NDArray[np.uint8]:
        seen.append(path.name)
        return decode_bytes(data, path, *rest)

    monkeypatch.setattr(f"{MODULE}.decode_bytes", counting)
    return seen


def test_cache_holds_the_pixels_of_the_files(tiny: Tiny, tmp_path: Path) -> None:
    cache = open_cache(tiny, tmp_path)
    assert cache.keys == keys_of(tiny) and len(cache) == 24
    for place, key in enumerate(cache.keys):
        expected = pixels_of(tiny, key)
        assert tuple(cache.shapes[place]) == expected.shape[:2]
        np.testing.assert_array_equal(cache.image(place), expected)
    assert not cache.image(0).flags.writeable


def test_the_lock_of_one_who_was_killed_after_decoding_goes(tiny: Tiny, tmp_path: Path) -> None:
    with mock.patch.object(Path, "unlink"):  # the lock's file stays, as after SIGKILL
        path = open_cache(tiny, tmp_path).path
    assert path.with_suffix(".lock").exists()
    open_cache(tiny, tmp_path)
    assert not path.with_suffix(".lock").exists()


def test_images_are_resized_by_the_rule(tiny: Tiny, tmp_path: Path) -> None:
    cache = open_cache(tiny, tmp_path, resize=40)
    expected = Image.open(tiny.path("000.png")).resize((53, 40), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(cache.image(0), np.asarray(expected))
    assert open_cache(tiny, tmp_path).shapes[0].tolist() == [48, 64]
    assert len(list(tmp_path.glob("*.images"))) == 2


def test_second_opening_decodes_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_cache(tiny, tmp_path)
    decoded = count_decoded(monkeypatch)
    second = open_cache(tiny, tmp_path)
    assert decoded == [] and second.digest == first.digest
    np.testing.assert_array_equal(second.shapes, first.shapes)


def test_decoding_leaves_the_hashes_so_that_files_are_read_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(tiny)
    paths = [tiny.path(key) for key in keys]
    expected = [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in paths]
    assert not is_known(tiny.root, paths)
    open_cache(tiny, tmp_path, keys=keys[:2])
    assert not is_known(tiny.root, paths)
    open_cache(tiny, tmp_path)
    assert is_known(tiny.root, paths)
    monkeypatch.setattr("cliqa_bench.benchmarks.pixels.hashes._hash", None)
    assert content_hashes(tiny.root, paths, "Tiny") == expected


def test_only_a_changed_file_is_decoded_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_cache(tiny, tmp_path)
    Image.new("RGB", (70, 60), (1, 2, 3)).save(tiny.path("005.png"))
    decoded = count_decoded(monkeypatch)
    after = open_cache(tiny, tmp_path)
    assert decoded == ["005.png"] and after.digest != before.digest
    assert after.shapes[5].tolist() == [60, 70] and (after.image(5) == [1, 2, 3]).all()
    for place in (0, 4, 6, 23):
        np.testing.assert_array_equal(after.image(place), pixels_of(tiny, after.keys[place]))
    # the mapping opened before still shows what it was opened on
    assert before.shapes[5].tolist() == [100, 50] and before.image(5).shape == (100, 50, 3)


def test_a_new_time_alone_is_noticed_and_the_digest_stays(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_cache(tiny, tmp_path)
    os.utime(tiny.path("003.png"), ns=(1, 1))
    decoded = count_decoded(monkeypatch)
    assert open_cache(tiny, tmp_path).digest == before.digest
    assert decoded == ["003.png"]


def test_digest_depends_on_contents_order_and_size_but_not_on_the_place(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "copy")
    keys = keys_of(tiny)
    digest = open_cache(tiny, tmp_path).digest
    assert open_cache(Tiny(tmp_path / "copy"), tmp_path).digest == digest
    assert open_cache(tiny, tmp_path, keys=keys[::-1]).digest != digest
    assert open_cache(tiny, tmp_path, resize=40).digest != digest


def test_any_selection_and_order_of_keys(tiny: Tiny, tmp_path: Path) -> None:
    open_cache(tiny, tmp_path)
    cache = open_cache(tiny, tmp_path, keys=["007.png", "002.png"])
    np.testing.assert_array_equal(cache.image(1), pixels_of(tiny, "002.png"))


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "short"])
def test_a_half_written_or_foreign_file_does_not_count(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = open_cache(tiny, tmp_path).path
    content = path.read_bytes()
    damaged = {"cut": content[:-1], "empty": b"", "foreign": b"x" * 1000, "short": b"x"}[damage]
    path.write_bytes(damaged)
    decoded = count_decoded(monkeypatch)
    np.testing.assert_array_equal(open_cache(tiny, tmp_path).image(0), pixels_of(tiny, "000.png"))
    assert len(decoded) == 24 and path.read_bytes() == content


def test_another_decoder_version_decodes_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(tiny, tmp_path)
    monkeypatch.setitem(RULES, "rgb", 2)
    decoded = count_decoded(monkeypatch)
    open_cache(tiny, tmp_path)
    assert len(decoded) == 24


def test_a_failed_build_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.path("020.png")
    path.write_bytes(path.read_bytes()[:100])
    folder = tmp_path / "folder"
    with pytest.raises(UserError, match=r"020\.png is damaged"):
        open_cache(tiny, folder)
    assert not list(folder.iterdir())


def test_leftovers_of_a_killed_builder_are_removed(tiny: Tiny, tmp_path: Path) -> None:
    path = open_cache(tiny, tmp_path).path
    leftover = tmp_path / f".{path.stem}~host~1~abc123.images"
    leftover.write_bytes(b"half")
    path.unlink()
    open_cache(tiny, tmp_path)
    assert path.is_file() and not leftover.exists()


def test_a_cache_deleted_in_the_middle_is_read_on_and_made_again(tiny: Tiny, tmp_path: Path) -> None:
    cache = open_cache(tiny, tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder")
    assert (cache.image(0) == pixels_of(tiny, cache.keys[0])).all()
    assert open_cache(tiny, tmp_path / "folder").digest == cache.digest


def test_a_missing_image_is_named(tiny: Tiny, tmp_path: Path) -> None:
    open_cache(tiny, tmp_path)
    tiny.path("011.png").unlink()
    with pytest.raises(UserError, match=r"011\.png"):
        open_cache(tiny, tmp_path)
    with pytest.raises(UserError, match=r"011\.png is missing"):
        open_cache(Tiny(tiny.root), tmp_path)


def test_too_little_space_is_told_before_anything_is_written(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(f"{MODULE}.shutil.disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(UserError, match=r"Tiny need .* GB, but only 0\.0 GB are free; .*CLIQA_CACHE"):
        open_cache(tiny, tmp_path / "folder")


def test_a_folder_that_cannot_be_written_is_told(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        open_cache(tiny, tmp_path / "file" / "folder")


def _digest_in_process(root: Path, folder: Path, queue: Any) -> None:
    queue.put(open_cache(Tiny(root), folder).digest)


def test_two_processes_at_once(tiny: Tiny, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    folder = tmp_path / "folder"
    workers = [context.Process(target=_digest_in_process, args=(tiny.root, folder, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    digests = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert digests == {open_cache(tiny, folder).digest}
    assert len(list(folder.glob("*.images"))) == 1 and not list(folder.glob(".*"))


def test_crops_are_slices_mirrored_where_asked(tiny: Tiny, tmp_path: Path) -> None:
    cache = open_cache(tiny, tmp_path)
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 24, 40)
    room = cache.shapes[indices] - 32
    tops, lefts = rng.integers(0, room[:, 0] + 1), rng.integers(0, room[:, 1] + 1)
    flips = rng.random(40) < 0.5
    got = cache.crops(indices, tops, lefts, 32, flips)
    assert got.shape == (40, 3, 32, 32) and got.dtype == torch.uint8
    assert got.is_contiguous(memory_format=torch.channels_last)
    for row, (index, top, left, flip) in enumerate(zip(indices, tops, lefts, flips, strict=True)):
        expected = pixels_of(tiny, cache.keys[index])[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(got[row].permute(1, 2, 0), expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (17, 0), (0, 33)])
def test_a_crop_outside_its_image_is_refused(tiny: Tiny, tmp_path: Path, top: int, left: int) -> None:
    cache = open_cache(tiny, tmp_path)
    with pytest.raises(ValueError, match="inside its image"):
        cache.crops(np.array([0]), np.array([top]), np.array([left]), 32)


def test_reading_survives_the_release_of_pages(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tiny, tmp_path)
    monkeypatch.setattr(f"{MODULE}._RELEASE_BYTES", 20_000)
    view = cache.image(0)
    for place in range(24):
        np.testing.assert_array_equal(cache.image(place), pixels_of(tiny, cache.keys[place]))
    np.testing.assert_array_equal(view, pixels_of(tiny, "000.png"))


def test_batches_by_shape_cover_everything_once_within_the_budget() -> None:
    rng = np.random.default_rng(1)
    shapes = rng.choice([10, 20, 30], (200, 2)).astype(np.int64)
    shapes[0] = (1000, 1000)
    batches = batches_by_shape(shapes, 3000)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(200))
    for batch in batches:
        assert len(np.unique(shapes[batch], axis=0)) == 1 and (np.diff(batch) > 0).all()
        assert len(batch) == 1 or shapes[batch].prod(axis=1).sum() <= 3000
    assert len(batches) < 200 / 3
    assert batches_by_shape(np.empty((0, 2), np.int64), 100) == []


def test_to_float_is_torchvisions_normalisation() -> None:
    x = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    for batch in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, 1:, ::2]):
        got = to_float(batch)
        mean, std = (np.array(v)[None, :, None, None] for v in (MEAN, STD))
        np.testing.assert_allclose(got.numpy(), (batch.numpy() / 255.0 - mean) / std, atol=1e-6)
        assert got.dtype == torch.float32 and got.is_contiguous(memory_format=torch.channels_last)


def test_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("CLIQA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "cliqa_bench"
