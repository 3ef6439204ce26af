from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_dataset import make_tiny

from cliqa_bench.benchmarks.pairs import (
    batch_pairs,
    count_pairs,
    n_pairs_for,
    pair_labels,
    pairs_within,
    sample_pairs,
    true_probability,
    unrank_pairs,
)


def test_unranking_lists_every_pair_once() -> None:
    expected = [(i, j) for j in range(60) for i in range(j)]
    np.testing.assert_array_equal(unrank_pairs(np.arange(count_pairs(60))), expected)


@given(st.integers(0, 2**52 - 1))
def test_unranking_is_exact_for_large_ranks(rank: int) -> None:
    ((first, second),) = unrank_pairs(np.array([rank], np.int64)).tolist()
    assert 0 <= first < second and math.comb(second, 2) + first == rank


def test_ranks_at_the_edge_of_a_column() -> None:
    second = np.array([3, 10_125, 94_906_265], np.int64)
    edge = second * (second - 1) // 2
    np.testing.assert_array_equal(unrank_pairs(edge), np.stack([0 * second, second], 1))
    np.testing.assert_array_equal(unrank_pairs(edge - 1), np.stack([second - 2, second - 1], 1))


@given(st.integers(0, 40), st.integers(0, 1000), st.integers(0, 5))
def test_samples_are_different_pairs_of_different_images(n_images: int, n_pairs: int, seed: int) -> None:
    pairs = sample_pairs(n_images, n_pairs, np.random.default_rng(seed))
    assert pairs.dtype == np.int64 and pairs.shape == (min(n_pairs, count_pairs(n_images)), 2)
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    assert (pairs[:, 0] < pairs[:, 1]).all() and (pairs >= 0).all() and (pairs < n_images).all()


def test_sampling_is_uniform() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 6), int)
    for _ in range(3000):
        np.add.at(counts, tuple(sample_pairs(6, 4, rng).T), 1)
    assert stats.chisquare(counts[np.triu_indices(6, 1)]).pvalue > 1e-3
    assert counts[np.tril_indices(6)].sum() == 0


def test_images_appear_as_often_as_in_the_published_list() -> None:
    # LIVE's list: 7,000 pairs of 538 images, each in 10 to 41 of them, 26.0 in the mean
    often = np.bincount(sample_pairs(538, 7000, np.random.default_rng(0)).reshape(-1), minlength=538)
    assert often.mean() == pytest.approx(26.02, abs=0.01)
    assert 6 <= often.min() <= 14 and 38 <= often.max() <= 48


def test_published_lists_are_of_this_kind(shared: Path) -> None:
    folder = shared / "data" / "splits"
    lists = sorted(folder.rglob("*_train.txt"))
    if not lists:
        pytest.skip("no published pair lists")
    for path in lists:
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        scores = [
            line.split("\t")[0] for line in path.with_name(f"{path.stem}_score.txt").read_text().splitlines()
        ]
        place = {key: index for index, key in enumerate(scores)}
        pairs = np.array([(place[row[0]], place[row[1]]) for row in rows])
        assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
        ours = sample_pairs(len(place), len(pairs), np.random.default_rng(1))
        for column in (0, 1):
            assert stats.ks_2samp(ours[:, column], pairs[:, column]).pvalue > 1e-4


def test_large_sets_need_no_list_of_all_pairs() -> None:
    import tracemalloc

    tracemalloc.start()
    pairs = sample_pairs(10_073, 139_274, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 139_274 and peak < 50e6  # all 50,727,628 pairs would take 400 MB and more


@pytest.mark.parametrize("n", [0, 1, 2, 3, 32])
def test_batch_pairs_are_all_pairs(n: int) -> None:
    pairs = batch_pairs(n)
    assert pairs.dtype == np.int64 and pairs.shape == (2, count_pairs(n))
    assert set(zip(*pairs.tolist(), strict=True)) == {(i, j) for i in range(n) for j in range(i + 1, n)}


@given(st.lists(st.integers(0, 3), max_size=9))
def test_pairs_within_groups_are_all_pairs_of_equals(groups: list[int]) -> None:
    found = [tuple(pair) for pair in pairs_within(np.array(groups, np.int64)).T.tolist()]
    n = len(groups)
    assert found == [(i, j) for i in range(n) for j in range(i + 1, n) if groups[i] == groups[j]]


def test_labels_differ_on_ties_alone() -> None:
    first, second = np.array([1.0, 2.0, 2.0]), np.array([2.0, 1.0, 2.0])
    assert pair_labels(first, second).tolist() == [0, 1, 1]
    assert pair_labels(first, second, "code").tolist() == [0, 1, 0]
    assert pair_labels(first, second).dtype == np.float32


def test_number_of_pairs(tmp_path: Path) -> None:
    real = make_tiny(tmp_path / "real", 10)
    assert n_pairs_for(real, "paper", 100) == 40
    assert n_pairs_for(real, "files", 100) == 30
    assert n_pairs_for(real, 17, 100) == 17
    assert n_pairs_for(real, "paper", 5) == 10
    real.n_pairs_files = None  # type: ignore[misc, assignment]
    assert n_pairs_for(real, "files", 100) == 40


def test_generated_sets_have_as_many_pairs_an_image_as_real_ones(tmp_path: Path) -> None:
    made = make_tiny(tmp_path / "made", 10)
    (made.root / "generated.json").write_text('{"n_images": 10}')
    made.n_images = 200  # type: ignore[misc]
    assert n_pairs_for(made, "paper", 70) == 20
    assert n_pairs_for(made, 17, 70) == 17


def test_two_standard_deviations_make_the_root_of_their_squares() -> None:
    better = true_probability(np.array([10.0]), np.array([5.0]), np.array([3.0]), np.array([4.0]))
    np.testing.assert_allclose(better, stats.norm.cdf(1.0), atol=1e-7)  # 5 / 5
