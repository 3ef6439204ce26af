"""The bound on how far one more task moves a score: against plain loops, and the bound that is false."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cliqa_bench.reports.certificate.bound import SLACK, score_bound
from cliqa_bench.results.readouts import read
from cliqa_bench.types import Answers

CASES = 20_000


def softmin(distances: list[float], tau: float) -> list[float]:
    """Returns the weights of one stage, with nothing of ours."""
    least = min(distances)
    terms = [math.exp(-tau * (far - least)) for far in distances]
    return [term / math.fsum(terms) for term in terms]


def plain_score(distances: NDArray[np.float64], heads: NDArray[np.float64], tau: float) -> float:
    """Returns a score: in each stage a softmax over the tasks, then the mean over the stages."""
    stages = [softmin(of_stage.tolist(), tau) for of_stage in distances.T]
    return math.fsum(w * h for ws in stages for w, h in zip(ws, heads, strict=True)) / len(stages)


def plain_bound(distances: NDArray[np.float64], heads: NDArray[np.float64], tau: float) -> float:
    """Returns the bound of one picture, stage by stage."""
    found = []
    for of_stage in distances.T:
        *_, new = softmin(of_stage.tolist(), tau)
        old = math.fsum(w * h for w, h in zip(softmin(of_stage[:-1].tolist(), tau), heads[:-1], strict=True))
        found.append(new * abs(heads[-1] - old))
    return math.fsum(found) / len(found)


def cases(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns distances (n, tasks, stages), some of them extreme, and heads in [-1, 1]."""
    rng = np.random.default_rng(seed)
    distances = rng.random((n, 4, 2)) * 10.0 ** rng.integers(-3, 1, (n, 1, 1))
    return distances, rng.uniform(-1, 1, (n, 4))


@pytest.mark.parametrize("tau", [0.0, 1.0, 32.0, 1448.0])
def test_the_bound_is_that_of_plain_loops_and_holds(tau: float) -> None:
    distances, heads = cases(300)
    found = score_bound(distances, heads, tau)
    for i in range(len(heads)):
        old, new = (
            plain_score(distances[i, :-1], heads[i, :-1], tau),
            plain_score(distances[i], heads[i], tau),
        )
        assert found.bound[i] == pytest.approx(plain_bound(distances[i], heads[i], tau), abs=1e-12)
        assert abs(new - old) <= found.bound[i] + 1e-12
        assert 0 <= found.weight[i] <= 1 + 1e-12


def scores(distances: NDArray[np.float64], heads: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    keys = np.array([str(i) for i in range(len(heads))])
    answers = Answers(keys, np.zeros(len(heads)), heads.astype(np.float32), distances.astype(np.float32))
    found = read(answers, "gate", None, tau)
    assert found is not None
    return found


@pytest.mark.parametrize("tau", [1.0, 32.0])
def test_it_holds_where_the_averaged_bound_is_false(tau: float) -> None:
    distances, heads = (part.astype(np.float32).astype(np.float64) for part in cases(CASES, 3))
    change = np.abs(scores(distances, heads, tau) - scores(distances[:, :-1], heads[:, :-1], tau))
    found = score_bound(distances, heads, tau)
    assert (change <= found.bound + found.slack).all()
    old = scores(distances[:, :-1], heads[:, :-1], tau)
    averaged = found.weight * np.abs(heads[:, -1] - old)
    assert (change > averaged + SLACK).mean() > 0.2  # why the stages are not averaged first


def test_one_stage_and_one_old_task_reach_the_bound() -> None:
    distances, heads = cases(200)
    for d, h in ((distances[:, :, :1], heads), (distances[:, 2:], heads[:, 2:])):
        change = [
            plain_score(new, of, 32.0) - plain_score(new[:-1], of[:-1], 32.0)
            for new, of in zip(d, h, strict=True)
        ]
        np.testing.assert_allclose(np.abs(change), score_bound(d, h, 32.0).bound, atol=1e-12)


def test_a_head_without_weight_moves_nothing() -> None:
    distances = np.array([[[0.1, 0.1], [0.2, 0.3], [9.0, 9.0]], [[9.0, 9.0], [0.2, 0.3], [0.1, 0.1]]])
    heads = np.array([[0.5, 0.1, np.nan], [np.nan, 0.1, 0.7]])
    found = score_bound(distances, heads, 1000.0)
    assert found.bound[0] == 0 and found.weight[0] == 0
    assert found.bound[1] == pytest.approx(0.6) and np.isfinite(found.slack).all()


def test_slack_grows_with_the_heads() -> None:
    distances, heads = cases(10)
    one, ten = (score_bound(distances, scale * heads, 32.0).slack for scale in (1.0, 10.0))
    assert (one == SLACK).all() and 2e-7 < SLACK < 2e-6
    np.testing.assert_allclose(ten, SLACK * np.maximum(1, 10 * np.abs(heads).max(axis=1)))
