"""Metrics against scipy, plain numpy, the published code's outputs and the published tables."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from cliqa_bench import metrics

Array = NDArray[Any]

PAIRWISE = (
    metrics.srcc,
    metrics.plcc,
    metrics.krcc,
    metrics.plcc_logistic,
    metrics.rmse,
)


def test_srcc_equals_the_published_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "srcc.npz")
    assert metrics.srcc(golden["x"], golden["y"]) == pytest.approx(float(golden["srcc"]), abs=1e-12)


def test_indices_equal_the_published_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "metrics.npz")
    agreement, stability = golden["srcc_matrix"], golden["stability_matrix"]
    np.testing.assert_allclose(metrics.pi_t(agreement), golden["PI_t"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.si_t(stability), golden["SI_t"], rtol=0, atol=1e-12)
    result = metrics.summary(agreement, stability)
    for name in ("mSRCC", "mPI", "mSI", "mPSI"):
        assert getattr(result, name) == pytest.approx(float(golden[name]), abs=1e-12), name
    assert metrics.mpsi_by_length(agreement, stability)[-1] == pytest.approx(float(golden["mPSI"]), abs=1e-12)


RECOMPUTED = {
    # the means of the published Table IV, to four digits
    "SL": (0.6658, 0.8508),
    "SI": (0.7618, 0.8583),
    "SI-KG": (0.7783, 0.8557),
    "MAS": (0.7167, 0.8535),
    "MAS-KG": (0.7692, 0.8538),
    "LwF": (0.6912, 0.8412),
    "LwF-KG": (0.8010, 0.8377),
    "TSN-IQA": (0.8450, 0.8527),
}


@pytest.mark.parametrize("method", sorted(RECOMPUTED))
def test_published_table_iv_gives_the_published_summaries(shared: Path, method: str) -> None:
    names = ["LIVE", "CSIQ", "BID", "CLIVE", "KonIQ-10K", "KADID-10K"]
    matrix = np.full((6, 6), np.nan)
    with (shared / "data" / "paper_tables" / "table_IV.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["method"] == method:
                cell = names.index(row["train_dataset"]), names.index(row["test_dataset"])
                matrix[cell] = float(row["value"])
    result = metrics.summary(matrix, np.ones((6, 6)))
    assert (result.mSRCC, result.mPI) == pytest.approx(RECOMPUTED[method], abs=6e-5)
    assert result.mSI == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_rank_correlations_with_ties_equal_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(metrics.srcc(x, y)) and np.isnan(metrics.krcc(x, y)) and np.isnan(metrics.plcc(x, y))
        return
    assert metrics.srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    tied = [np.sum(np.sign(v[:, None] - v) ** 2) for v in (x, y)]
    assert metrics.krcc(x, y) == pytest.approx(signs.sum() / np.sqrt(tied[0] * tied[1]), abs=1e-12)


def test_srcc_without_ties_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.permutation(50), rng.permutation(50)
    expected = 1 - 6 * np.sum((x - y) ** 2) / (50 * (50**2 - 1))
    assert metrics.srcc(x, y) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("metric", PAIRWISE)
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 1, 1, 1, 1, 1], [1.0, 2, 3, 4, 5, 6]),
        ([1.0, 2, 3, 4, 5, 6], [2.0, 2, 2, 2, 2, 2]),
        ([1.0, 2, np.nan, 4, 5, 6], [1.0, 2, 3, 4, 5, 6]),
        ([1.0, 2, 3, 4, 5, 6], [1.0, 2, 3, 4, 5, np.inf]),
        ([1.0], [1.0]),
        ([], []),
    ],
    ids=["constant scores", "constant mos", "nan", "inf", "one image", "none"],
)
def test_what_is_not_defined_is_nan(metric: object, x: list[float], y: list[float]) -> None:
    assert callable(metric)
    assert np.isnan(metric(np.array(x), np.array(y)))


@pytest.mark.parametrize("metric", PAIRWISE)
def test_lengths_must_agree(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match="one length"):
        metric(np.arange(6.0), np.arange(5.0))


def test_ranking_the_wrong_way_is_negative() -> None:
    x = np.arange(20.0)
    assert metrics.srcc(x, -x) == -1
    assert metrics.krcc(x, -x) == pytest.approx(-1)
    assert metrics.plcc(x, -(x**2)) < -0.9
    assert np.isnan(metrics.plcc_logistic(x, -x)) and np.isnan(metrics.rmse(x, -x))


def test_equal_rankings_give_exactly_one() -> None:
    x = np.random.default_rng(0).normal(size=(1, 1013)).astype(np.float32)
    assert (metrics.spearman(np.vstack([x, x, np.exp(x)])) == 1).all()


def test_spearman_marks_only_the_undefined_rows() -> None:
    x = np.array([[1.0, 2, 3, 5], [2, 2, 2, 2], [4, 3, 2, np.nan], [1, 3, 2, 4]])
    result = metrics.spearman(x)
    assert np.isnan(result[[1, 2]]).all() and np.isnan(result[:, [1, 2]]).all()
    assert result[0, 3] == pytest.approx(0.8)
    assert metrics.spearman(np.zeros((3, 0))).shape == (3, 3)


def test_logistic_is_the_vqeg_formula_and_is_found_again() -> None:
    x = np.linspace(-2, 3, 400)
    true = (70.0, 20.0, 0.4, -0.6)
    y = (true[0] - true[1]) / (1 + np.exp(-(x - true[2]) / abs(true[3]))) + true[1]
    np.testing.assert_allclose(metrics.logistic(x, *true), y, rtol=1e-12)
    noise = np.random.default_rng(1).normal(size=400)
    curve = metrics.fit_logistic(x, y + noise)
    assert curve is not None
    np.testing.assert_allclose(curve(x), y, atol=0.6)
    # the errors left are those of the noise; four parameters take a little of it
    assert metrics.rmse(x, y + noise) == pytest.approx(float(np.sqrt(np.mean(noise**2))), rel=0.02)
    assert metrics.plcc_logistic(x, y) == pytest.approx(1, abs=1e-9) and metrics.rmse(x, y) < 1e-5


@pytest.mark.parametrize("n", [120, 1500])
def test_logistic_fit_equals_scipy_curve_fit_on_raw_data(n: int) -> None:
    from scipy.optimize import curve_fit

    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = 3 + 2 * np.tanh(x) + 0.4 * rng.normal(size=n)

    def formula(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
        return np.asarray((b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2)

    best, _ = curve_fit(formula, x, y, p0=[y.max(), y.min(), x.mean(), x.std() / 4], maxfev=10000)
    mapped = formula(x, *best)
    assert metrics.plcc_logistic(x, y) == pytest.approx(np.corrcoef(mapped, y)[0, 1], abs=1e-6)
    assert metrics.rmse(x, y) == pytest.approx(np.sqrt(np.mean((mapped - y) ** 2)), rel=1e-6)


def test_logistic_fit_does_not_depend_on_scales() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=200)
    y = np.tanh(x) + 0.3 * rng.normal(size=200)
    once, again = metrics.fitted(x, y), metrics.fitted(1e-4 * x + 7, 1e3 * y - 50)
    assert again.plcc == pytest.approx(once.plcc, abs=1e-7)
    assert again.rmse == pytest.approx(1e3 * once.rmse, rel=1e-6)


@pytest.mark.parametrize("shape", ["line", "exponential", "step", "two values"])
def test_logistic_fit_at_the_limits_of_the_family(shape: str) -> None:
    x = np.linspace(0, 1, 300)
    y = {"line": x, "exponential": np.exp(5 * x), "step": (x > 0.5) * 1.0, "two values": np.round(x)}[shape]
    fit = metrics.fitted(x, y)
    assert fit.steep == (shape in ("step", "two values"))
    assert fit.plcc > (0.95 if fit.steep else 0.999)


def test_a_gap_between_two_clusters_is_no_step() -> None:
    """Eight images in two clusters, the order within each wrong: a free fit would be a step."""
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    y = np.array([4.0, 3, 2, 1, 9, 8, 7, 6])
    curve = metrics.fit_logistic(x, y)
    assert curve is not None and curve.steep
    assert np.diff(curve(np.linspace(0, 1, 50))).min() > 0
    # the nearest curve of the allowed width, by another search
    from scipy.optimize import least_squares

    u = (x - x.mean()) / x.std()

    def errors(b: Array) -> Array:
        return np.asarray((b[0] - b[1]) / (1 + np.exp(-(u - b[2]) / b[3])) + b[1] - y)

    bounds = ([-np.inf, -np.inf, -np.inf, metrics.STEEPEST], np.inf)
    best = least_squares(errors, [9, 1, 0, 1], bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    assert best.x[3] == pytest.approx(metrics.STEEPEST, rel=1e-3)
    assert metrics.rmse(x, y) == pytest.approx(float(np.sqrt(np.mean(best.fun**2))), rel=1e-6)
    step = np.where(x < 0.5, 2.5, 7.5)
    assert metrics.plcc(x, y) < metrics.plcc_logistic(x, y) < metrics.plcc(step, y) - 0.002


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_the_best_of_the_allowed_widths(seed: int) -> None:
    from scipy.optimize import least_squares

    rng = np.random.default_rng(seed)
    x = rng.normal(size=12)
    y = np.tanh(x) + 0.5 * rng.normal(size=12)
    curve = metrics.fit_logistic(x, y)
    assert curve is not None
    u, v = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()

    def errors(b: Array) -> Array:
        return np.asarray((b[0] - b[1]) / (1 + np.exp(-(u - b[2]) / b[3])) + b[1] - v)

    bounds = ([-np.inf, -np.inf, -np.inf, metrics.STEEPEST], np.inf)
    start = [v.max(), v.min(), float(np.median(u)), 1.0]
    best = least_squares(errors, start, bounds=bounds, max_nfev=5000)
    ours = np.sqrt(np.mean((curve(x) - y) ** 2)) / y.std()
    assert ours <= np.sqrt(np.mean(best.fun**2)) + 1e-3


def test_too_few_images_have_no_logistic_fit() -> None:
    assert metrics.fit_logistic(np.arange(4.0), np.arange(4.0)) is None
    assert metrics.plcc_logistic(np.arange(5.0), np.arange(5.0)) > 0.999


def loops(predictions: list[Array], mos: list[Array]) -> tuple[Array, Array]:
    """The definitions of SRCC_tk and S_tk, cell by cell."""
    steps = len(predictions[0])
    agreement, stability = np.zeros((steps, len(mos))), np.zeros((steps, steps))
    for t in range(steps):
        for k, (told, opinions) in enumerate(zip(predictions, mos, strict=True)):
            agreement[t, k] = stats.spearmanr(told[t], opinions).statistic
            if k < steps:
                stability[t, k] = stats.spearmanr(told[t], told[k]).statistic
    return agreement, stability


def test_matrices_equal_their_definitions_cell_by_cell() -> None:
    rng = np.random.default_rng(2)
    predictions: list[Array] = [rng.integers(0, 9, (3, n)).astype(np.float32) for n in (20, 31, 12, 25)]
    mos: list[Array] = [rng.normal(size=p.shape[1:]) for p in predictions]
    agreement, stability = loops(predictions, mos)
    np.testing.assert_allclose(metrics.srcc_matrix(predictions, mos), agreement, atol=1e-12)
    np.testing.assert_allclose(metrics.stability_matrix(predictions, mos), stability, atol=1e-12)
    si: Array = np.array([1, stability[1, 0], (stability[2, 0] + stability[2, 1]) / 2])
    np.testing.assert_allclose(metrics.si_t(stability), si, atol=1e-15)
    psi = (np.diag(agreement) + si) / 2
    np.testing.assert_allclose(metrics.psi_t(agreement, stability), psi, atol=1e-15)
    lengths = np.array([psi[:1].mean(), psi[:2].mean(), psi.mean()])
    np.testing.assert_allclose(metrics.mpsi_by_length(agreement, stability), lengths, atol=1e-15)


def test_a_missing_cell_makes_the_means_that_need_it_nan() -> None:
    full = np.full((3, 3), 0.5)
    for cell, lost in [((2, 0), {"mSRCC"}), ((1, 1), {"mPI", "mPSI"}), ((0, 2), set())]:
        agreement = full.copy()
        agreement[cell] = np.nan
        result = metrics.summary(agreement, full)
        assert {n for n, v in result._asdict().items() if np.isnan(v)} == lost
    stability = full.copy()
    stability[2, 1] = np.nan
    result = metrics.summary(full, stability)
    assert np.isnan([result.mSI, result.mPSI]).all() and result.mSRCC == 0.5
    assert np.isnan(metrics.mpsi_by_length(full, stability)).tolist() == [False, False, True]


def test_one_experience() -> None:
    result = metrics.summary(np.array([[0.8, 0.1]]), np.array([[1.0]]))
    assert result == pytest.approx((0.8, 0.8, 1.0, 0.9))


def test_the_ordinal_srcc_ranks_ties_by_their_place():
    x, y = [1.0, 1.0, 2.0], [1.0, 2.0, 2.0]
    assert metrics.srcc_ordinal(x, y) == 1  # ranks 1, 2, 3 in both; with average ranks it would be 0.5
    assert metrics.srcc_ordinal(x, y[::-1]) == pytest.approx(-0.5, abs=1e-12)  # 1, 2, 3 and 2, 3, 1
