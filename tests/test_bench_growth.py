"""Growth and precision: the fit against scipy, and rows from end to end; no test looks at a clock."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups import growth, precision
from cliqa_bench.bench.groups.growth import power_law, row
from cliqa_bench.errors import UserError
from cliqa_bench.settings.resolve import resolve

SIZES = [1, 2, 4]


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions(device="cpu", precision="fp32", threads=1, repeats=1, folder=tmp_path)


def noisy(exponent: float, scatter: float, repeats: int = 5) -> list[list[float]]:
    rng = np.random.default_rng(3)
    return [[7 * s**exponent * float(np.exp(rng.normal(0, scatter))) for _ in range(repeats)] for s in SIZES]


def test_fit_is_least_squares_with_its_95_percent_interval() -> None:
    times = noisy(1.1, 0.1)
    x = np.repeat(np.log(SIZES), 5)
    y = np.log(np.array(times).reshape(-1))
    (slope, _), covariance = optimize.curve_fit(lambda x, a, b: a * x + b, x, y)
    half = stats.t(len(x) - 2).interval(0.95)[1] * math.sqrt(covariance[0, 0])
    assert power_law(SIZES, times) == pytest.approx((slope, slope - half, slope + half), rel=1e-5)


@pytest.mark.parametrize(
    ("exponent", "scatter", "verdict"),
    [
        (1.0, 0.01, "linear"),
        (1.1, 0.01, "linear"),
        (1.2, 0.01, "not linear"),
        (2.0, 0.05, "not linear"),
        (0.5, 0.05, "not linear"),
        (1.0, 0.5, "open"),
        (1.15, 0.02, "open"),
    ],
)
def test_verdict_is_by_the_whole_interval(exponent: float, scatter: float, verdict: str) -> None:
    assert power_law(SIZES, noisy(exponent, scatter)).verdict == verdict


def test_two_points_have_no_interval() -> None:
    fit = power_law([1, 2], [[1.0], [2.0]])
    assert fit.exponent == pytest.approx(1)
    assert math.isnan(fit.low)
    assert fit.verdict == "open"


def test_row_has_an_exponent_for_every_repeat_and_keeps_the_times() -> None:
    found = row("w", SIZES, [lambda: 3.0, lambda: 12.0, lambda: 48.0], repeats=2)
    assert found.ours == pytest.approx((2, 2))
    assert found.raw == {"1": (3, 3), "2": (12, 12), "4": (48, 48)}
    assert found.note.startswith("not linear: all repeats together 2.000")


@pytest.mark.slow
def test_growth_from_end_to_end(setting: Conditions) -> None:
    pixels = growth.scoring_pixels(setting, 1)
    for found in (pixels, growth.scoring_images(setting, (2, 3)), growth.scoring_tasks(setting, 2)):
        assert len(found.ours) == 1
        assert math.isfinite(found.value)
    assert list(pixels.raw) == ["49152", "98304", "196608"]
    assert list(found.raw) == ["2", "6", "12"]
    assert growth.training_images(setting, (16, 32)).raw.keys() == {"16", "32"}


@pytest.mark.slow
def test_precision_of_finished_runs(miniatures: Path, setting: Conditions, tmp_path: Path) -> None:
    flags = {"strategy": "tsn", "orders": "bid,live", "data": str(miniatures), "out": str(tmp_path / "runs")}
    short = ["training.epochs=1", "training.warmup_epochs=0"]
    config = resolve({**flags, "preset": "quick", "device": "cpu", "set": short})
    worker = precision.train_missing(config)
    works = list(worker.plan.train.values())
    assert all(work.node.done for work in works)
    mean, of_srcc, of_scores = precision.against_float32(worker, works, "cpu")
    assert len(of_srcc.raw["fp32"]) == len(of_srcc.raw["bf16"]) == 4  # two models, two test sets
    assert mean.value == pytest.approx(np.mean(of_srcc.raw["bf16"]))
    assert mean.reference_value == pytest.approx(np.mean(of_srcc.raw["fp32"]))
    apart = np.abs(np.subtract(of_srcc.raw["fp32"], of_srcc.raw["bf16"]))
    assert of_srcc.value == apart.max()
    assert 0 < of_scores.value < 0.2
    alone = precision.batch_dependence(worker, works[0], "cpu", "fp32")
    assert alone.reached is True
    assert precision.batch_dependence(worker, works[0], "cpu", "bf16").value < 0.05


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no .*config\.yaml; --runs takes a folder"):
        precision.finished(tmp_path, "cpu")


def test_runs_without_trainings_are_refused(miniatures: Path, tmp_path: Path) -> None:
    text = f"strategy: tsn\norders: bid,live\ndata: {miniatures}\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="holds no training that its config"):
        precision.finished(tmp_path, "cpu")
