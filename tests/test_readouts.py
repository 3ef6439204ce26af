"""Readouts against the published code's outputs and against the equations, image by image."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cliqa_bench.errors import UserError
from cliqa_bench.results.readouts import gate_weights, needed_heads, read
from cliqa_bench.types import Answers


def answers(scores: np.ndarray, distances: np.ndarray | None = None) -> Answers:
    n = len(scores)
    keys = np.array([f"{i}.png" for i in range(n)])
    return Answers(keys, np.arange(float(n)), scores.astype(np.float32), distances)


def random_answers(n: int = 30, tasks: int = 6, stages: int = 2, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)
    distances = rng.uniform(0.3, 0.9, (n, tasks, stages)).astype(np.float32)
    return answers(rng.normal(size=(n, tasks)), distances)


def test_gate_equals_the_published_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "gate.npz")
    distances = np.stack(
        [
            np.linalg.norm(
                golden[f"features_stage{s}"][:, None, None].astype(np.float64)
                - golden[f"centroids_stage{s}"],
                axis=-1,
            ).min(axis=2)
            for s in (3, 4)
        ],
        axis=2,
    )
    tau = float(golden["temperature"])
    np.testing.assert_allclose(gate_weights(distances, tau), golden["weights"], rtol=0, atol=1e-6)
    told = answers(golden["head_scores"], distances)
    for readout, expected in (("gate", "quality"), ("gate-hard", "hard_quality")):
        scores = read(told, readout, tau=tau)
        assert scores is not None
        np.testing.assert_allclose(scores, golden[expected], rtol=0, atol=1e-6)


def test_weights_are_the_equations_image_by_image() -> None:
    told = random_answers(stages=3)
    assert told.distances is not None
    weights = gate_weights(told.distances, 5.0)
    for image, row in zip(told.distances.astype(float), weights, strict=True):
        per_stage = [np.exp(-5 * image[:, s]) / np.exp(-5 * image[:, s]).sum() for s in range(3)]
        np.testing.assert_allclose(row, np.mean(per_stage, axis=0), atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    one = gate_weights(told.distances, 5.0, stages=[2])
    np.testing.assert_allclose(one, gate_weights(told.distances[:, :, 2:], 5.0), atol=0)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_of_the_tasks_changes_no_bit(order: list[int], seed: int) -> None:
    told = random_answers(seed=seed)
    assert told.distances is not None
    other = Answers(told.keys, told.mos, told.scores[:, order], told.distances[:, order])
    for readout in ("gate", "gate-hard"):
        one, two = read(told, readout), read(other, readout)
        assert one is not None and two is not None
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_large_distances_neither_overflow_nor_vanish(far: float) -> None:
    distances = np.array([[[far], [far + 0.1]]])
    weights = gate_weights(distances, 32.0)
    expected = 1 / (1 + np.exp(-32 * (distances[0, 1, 0] - far)))
    np.testing.assert_allclose(weights, [[expected, 1 - expected]], atol=1e-9)


def test_a_readout_has_the_temperature_that_was_asked_for() -> None:
    told = random_answers(stages=1)
    assert told.distances is not None
    far = told.distances[:, :, 0].astype(float)
    for tau in (2.0, 32.0):
        weights = np.exp(-tau * far) / np.exp(-tau * far).sum(axis=1, keepdims=True)
        expected = (weights * told.scores).sum(axis=1)
        scores = read(told, "gate", tau=tau)
        assert scores is not None
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    usual = read(told, "gate")
    assert usual is not None and scores is not None and np.array_equal(usual, scores), "32 is the default"


def test_hard_gate_is_the_argmax_of_the_averaged_soft_weights() -> None:
    # stage 1 is almost sure of task 0, stage 2 a little in favour of task 1: the mean decides, not the stages
    distances = np.array([[[0.1, 0.50], [0.9, 0.49]]])
    told = answers(np.array([[3.0, 7.0]]), distances.astype(np.float32))
    assert read(told, "gate-hard") == pytest.approx([3.0])
    soft = read(told, "gate")
    assert soft is not None and 3 < soft[0] < 7


def test_oracle_reads_the_own_head_and_is_undefined_for_what_was_not_learned() -> None:
    told = random_answers(tasks=3)
    for task in range(3):
        np.testing.assert_array_equal(read(told, "oracle", task=task), told.scores[:, task].astype(float))
    assert read(told, "oracle", task=3) is None
    assert read(told, "oracle", task=None) is None


def test_last_reads_the_newest_head() -> None:
    told = random_answers(tasks=4)
    np.testing.assert_array_equal(read(told, "last"), told.scores[:, 3].astype(float))


@pytest.mark.parametrize("readout", ["gate", "gate-hard", "last"])
def test_one_head_is_read_without_a_gate(readout: str) -> None:
    told = answers(np.array([[0.25], [0.5]]))
    np.testing.assert_array_equal(read(told, readout), [0.25, 0.5])


def test_gate_without_distances_is_undefined() -> None:
    told = random_answers()
    assert read(Answers(told.keys, told.mos, told.scores, None), "gate") is None


@pytest.mark.parametrize("readout", ["gate", "gate-hard"])
def test_distances_that_are_not_finite_give_nan_for_their_image_only(readout: str) -> None:
    told = random_answers(n=3)
    assert told.distances is not None
    told.distances[1, 2, 0] = np.nan
    scores = read(told, readout)
    assert scores is not None
    assert np.isnan(scores).tolist() == [False, True, False]


def test_misuse() -> None:
    with pytest.raises(UserError, match="did you mean 'gate-hard'"):
        read(random_answers(), "gate-hart")
    told = random_answers(tasks=3)
    assert told.distances is not None
    with pytest.raises(ValueError, match="distances"):
        read(Answers(told.keys, told.mos, told.scores, told.distances[:, :2]), "gate")


# -- heads left out ------------------------------------------------------------------------------------------


@given(
    st.integers(1, 7).flatmap(
        lambda tasks: st.tuples(
            arrays(np.float64, (5, tasks), elements=st.floats(0.0, 1.0)),
            arrays(np.float64, (5, tasks), elements=st.floats(-1.0, 1.0)),
        )
    ),
    st.floats(0, 0.99),
)
def test_the_bound_of_heads_left_out_holds_and_no_more_could_be(
    drawn: tuple[np.ndarray, np.ndarray], tolerance: float
) -> None:
    raw, scores = drawn
    weights = (raw + 1e-3) / (raw + 1e-3).sum(axis=1, keepdims=True)
    needed = needed_heads(weights, tolerance)
    assert needed.any(axis=1).all()
    left_out = np.where(needed, 0, weights).sum(axis=1)
    assert (left_out <= tolerance + 1e-12).all()
    error = np.abs((np.where(needed, weights, 0) * scores).sum(axis=1) - (weights * scores).sum(axis=1))
    assert (error <= left_out + 1e-12).all()
    for row, kept, rest in zip(weights, needed, left_out, strict=True):
        # without the smallest of those kept, too much would be gone
        assert kept.sum() == 1 or rest + row[kept].min() > tolerance - 1e-12


def test_heads_left_out_at_the_edges() -> None:
    weights = np.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0], [0.2, 0.1, 0.7]])
    assert needed_heads(weights, 0).tolist() == [[True, False, True], [True, False, False], [True] * 3]
    assert needed_heads(weights, 0.31).sum(axis=1).tolist() == [2, 1, 1]
    assert needed_heads(np.array([[1.0]]), 0.5).tolist() == [[True]]
    assert needed_heads(np.full((1, 3), np.nan), 0.5).all()
    assert needed_heads(np.array([[0.1, 0.3, 0.2]]), 0.9).tolist() == [[False, True, False]], "one stays"
    for tolerance in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match="tolerance"):
            needed_heads(weights, tolerance)
