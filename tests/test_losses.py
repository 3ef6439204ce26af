"""The losses against the published code's numbers and against scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cliqa_bench.learning.losses import fidelity, pair_probability


def test_golden_probability_and_loss(shared):
    golden = np.load(shared / "golden" / "fidelity.npz")
    first, second, label, soft = (
        torch.from_numpy(golden[k]) for k in ("score_1", "score_2", "label", "soft_label")
    )
    p = pair_probability(first, second, "code")
    np.testing.assert_allclose(p, golden["probability"], atol=1e-6)
    np.testing.assert_allclose(fidelity(p, label), golden["loss"], atol=1e-6)
    np.testing.assert_allclose(fidelity(p, soft), golden["soft_loss"], atol=1e-6)


def test_the_paper_s_slope_is_the_normal_distribution_of_the_difference_over_root_two():
    first, second = torch.randn(2, 50, dtype=torch.float64)
    expected = norm.cdf((first - second).numpy() / np.sqrt(2))
    np.testing.assert_allclose(pair_probability(first, second), expected, atol=1e-6)
    np.testing.assert_allclose(
        pair_probability(first, second, "code"), norm.cdf((first - second).numpy()), atol=1e-6
    )


@pytest.mark.parametrize(("p", "g", "expected"), [(1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.5, 1.0, 1 - 0.5**0.5)])
def test_fidelity_of_certain_and_of_even_pairs(p, g, expected):
    assert float(fidelity(torch.tensor([p]), torch.tensor([g]))) == pytest.approx(expected, abs=2.1e-4)


def test_the_gradient_is_finite_where_a_pair_is_certain():
    scores = torch.tensor([40.0, -40.0], requires_grad=True)
    fidelity(pair_probability(scores[:1], scores[1:]), torch.tensor([0.0])).backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_scores_in_bfloat16_are_compared_in_float32():
    first, second = torch.tensor([0.5, 0.25, -0.125]).bfloat16(), torch.tensor([0.375, 0.5, -0.25]).bfloat16()
    probability = pair_probability(first, second)
    assert probability.dtype == torch.float32
    expected = norm.cdf(np.array([0.125, -0.25, 0.125]) / np.sqrt(2))
    np.testing.assert_allclose(probability, expected, atol=1e-6)
