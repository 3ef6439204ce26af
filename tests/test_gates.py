"""K-means and distances against ten lines of numpy."""

import numpy as np

from cliqa_bench.gates import fit_centroids, nearest_distance


def unit_rows(n, c, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, c)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_distance_is_the_root_of_the_least_squared_difference():
    x, centroids = unit_rows(20, 8), unit_rows(5, 8, 1)
    expected = np.sqrt(((x[:, None].astype(float) - centroids[None]) ** 2).sum(-1)).min(1)
    np.testing.assert_allclose(nearest_distance(x, centroids), expected, atol=1e-6)


def test_golden_distances_lead_to_the_published_weights(shared):
    golden = np.load(shared / "golden" / "gate.npz")
    d = np.stack(
        [
            np.stack(
                [nearest_distance(golden[f"features_stage{s}"], c) for c in golden[f"centroids_stage{s}"]], 1
            )
            for s in (3, 4)
        ],
        axis=2,
    )
    e = np.exp(-float(golden["temperature"]) * d)
    weights = (e / e.sum(1, keepdims=True)).mean(2)
    np.testing.assert_allclose(weights, golden["weights"], atol=1e-6)


def test_as_many_centroids_as_images_puts_one_on_each():
    x = unit_rows(6, 4)
    centroids = fit_centroids(x, 6, "live", 4, 0)
    np.testing.assert_allclose(nearest_distance(x, centroids), 0, atol=1e-6)


def test_fewer_images_than_centroids_lower_their_number():
    assert fit_centroids(unit_rows(6, 4), 128, "live", 4, 0).shape == (6, 4)


def test_centroids_depend_on_names_and_seed_alone():
    x = unit_rows(60, 4)
    first = fit_centroids(x, 4, "live", 3, 0)
    assert np.array_equal(first, fit_centroids(x, 4, "live", 3, 0))
    assert not np.array_equal(first, fit_centroids(x, 4, "live", 3, 1))
