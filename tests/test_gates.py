"""K-means and distances against ten lines of numpy."""

import numpy as np
import torch
from sklearn.cluster import KMeans

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models import gates
from cliqa_bench.models.gated import Gate, GatedScorer
from cliqa_bench.models.gates import fit_centroids, nearest_distance
from cliqa_bench.results.readouts import gate_weights

ATOL = 1e-6


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
    for dataset, stage, seed in (("bid", 3, 0), ("live", 4, 0), ("live", 3, 1)):
        assert not np.allclose(first, fit_centroids(x, 4, dataset, stage, seed), atol=1e-3)


def test_k_means_is_the_published_one(monkeypatch):
    """The published code's restarts and iterations; and what it is fitted on keeps its digits."""
    fitted = []

    class Noted(KMeans):
        def fit(self, x):
            fitted.append((self.get_params(), x))
            return super().fit(x)

    monkeypatch.setattr(gates, "KMeans", Noted)
    x = unit_rows(30, 4)
    centroids = fit_centroids(x, 5, "live", 3, 0)
    ((params, given),) = fitted
    published = {"n_clusters": 5, "n_init": 20, "max_iter": 1000, "init": "k-means++", "algorithm": "lloyd"}
    assert published.items() <= params.items()
    assert given.dtype == np.float64 and np.array_equal(given, x)
    nearest = ((x[:, None].astype(float) - centroids[None]) ** 2).sum(-1).argmin(1)
    for k in range(5):  # each is the mean of what is nearest to it
        np.testing.assert_allclose(centroids[k], x[nearest == k].mean(axis=0), atol=1e-6)


class Described(FeatureNet):
    """Says of an image what was written down for it, by the number in its first pixel."""

    def __init__(self, stages):
        super().__init__()
        self.written = [torch.from_numpy(stage) for stage in stages]

    def gate_features(self, images):
        rows = images[:, 0, 0, 0].long()
        return tuple(stage[rows] for stage in self.written)


def test_the_gate_weighs_as_published(shared):
    """As it scores files: one image at a time and several, in float64, over the stages in use alone."""
    golden = np.load(shared / "golden" / "gate.npz")
    stages = [unit_rows(20, 8), unit_rows(20, 8, 1), golden["features_stage3"], golden["features_stage4"]]
    centroids = [
        [torch.from_numpy(c) for c in (unit_rows(3, 8, task), unit_rows(3, 8, 9 + task), third, fourth)]
        for task, (third, fourth) in enumerate(
            zip(golden["centroids_stage3"], golden["centroids_stage4"], strict=True)
        )
    ]
    gate = Gate(Described(stages), centroids, [2, 3], float(golden["temperature"]))
    images = torch.arange(20.0)[:, None, None, None].expand(20, 3, 2, 2)
    weights = gate.weights(images)
    assert weights.dtype == torch.float64
    np.testing.assert_allclose(weights, golden["weights"], atol=ATOL)
    np.testing.assert_allclose(gate.weights(images[7:8]), golden["weights"][7:8], atol=ATOL)
    assert np.ptp(golden["weights"], axis=0).max() > 100 * ATOL  # a wrong gate would show


def test_distances_are_those_to_the_nearest_centroid_of_each_task_and_stage():
    stages = [unit_rows(6, 8), unit_rows(6, 5, 1), unit_rows(6, 7, 2)]
    centroids = [[torch.from_numpy(unit_rows(4, c, 9 * task + c)) for c in (8, 5, 7)] for task in range(3)]
    gate = Gate(Described(stages), centroids, [2, 0], 5.0)
    found = gate.distances(torch.arange(6.0)[:, None, None, None].expand(6, 3, 2, 2))
    assert found.shape == (6, 3, 2) and found.dtype == torch.float64
    for task in range(3):
        for place, stage in enumerate((2, 0)):
            apart = stages[stage][:, None].astype(float) - centroids[task][stage].numpy()[None]
            expected = np.sqrt((apart**2).sum(-1)).min(1)
            np.testing.assert_allclose(found[:, task, place], expected, rtol=0, atol=1e-12)  # 2e-16 seen
    weights = gate.weights(torch.arange(6.0)[:, None, None, None].expand(6, 3, 2, 2))
    np.testing.assert_allclose(weights, gate_weights(found.numpy(), 5.0), rtol=0, atol=1e-12)  # 3e-16 seen


SCORES = torch.tensor([[0.25, -0.5, 0.75], [0.5, 1.0, -0.25]])


class Heads(torch.nn.Module):
    """Three heads on one network, with the same scores for any two images."""

    heads = SCORES[0]

    def forward(self, images, fixed=None):
        return SCORES


def test_of_heads_without_a_gate_the_newest_is_read():
    found = GatedScorer([Heads()], None)(torch.zeros(2, 3, 4, 4))  # type: ignore[list-item]
    assert found.scores.tolist() == [0.75, -0.25]
    assert found.weights.tolist() == [[0, 0, 1]] * 2
    assert np.array_equal(found.heads, SCORES)


def test_heads_on_one_network_are_weighted_by_the_gate(monkeypatch):
    given = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.0, 0.875]], dtype=torch.float64)
    monkeypatch.setattr(Gate, "distances", lambda self, images: torch.zeros(2, 3, 1))
    monkeypatch.setattr(Gate, "weights_at", lambda self, distances: given)
    gate = Gate(Described([]), [], [], 32.0)
    found = GatedScorer([Heads()], gate, tolerance=0.3)(torch.zeros(2, 3, 4, 4))  # type: ignore[list-item]
    assert found.scores.tolist() == [0.125 - 0.125 + 0.1875, 0.0625 - 0.21875]
    assert np.array_equal(found.heads, SCORES), "all of them are known, whatever the tolerance"
