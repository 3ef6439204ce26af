"""The jackknife over contents and what is made of it: against scipy, loops and textbook formulas."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from coverage_of_intervals import MODELS, SETS, agreement, bootstrap, draw, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from cliqa_bench.reports.audit.recomputed_intervals import student_quantile
from cliqa_bench.reports.tables import jackknife
from cliqa_bench.reports.tables.jackknife import (
    Estimate,
    MeasuredSrcc,
    Part,
    difference,
    mean_estimate,
    over_contents,
    over_seeds,
    over_splits,
    seeds_needed,
    smallest_difference,
    t_quantile,
    without_each,
)


@pytest.mark.parametrize("p", [0.5, 0.6, 0.8, 0.975, 0.9995])
@pytest.mark.parametrize("find", [t_quantile, student_quantile])
def test_quantiles_are_those_of_the_closed_forms_with_any_scipy(find: Callable[..., float], p: float) -> None:
    inner = 4 * p * (1 - p)
    fourth = math.cos(math.acos(math.sqrt(inner)) / 3) / math.sqrt(inner)
    closed = {
        1: math.tan(math.pi * (p - 0.5)),
        2: (2 * p - 1) * math.sqrt(2 / inner),
        4: 2 * math.sqrt(max(fourth - 1, 0.0)),
    }
    for df, right in closed.items():
        assert find(p, df) == pytest.approx(right, rel=1e-12, abs=1e-14)
    assert find(p, 1e9) == pytest.approx(statistics.NormalDist().inv_cdf(p), rel=1e-8, abs=1e-14)
    assert math.isnan(find(p, math.nan))


def test_quantiles_do_not_depend_on_the_digits_that_scipy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [t_quantile(p, df) for p in (0.6, 0.8, 0.975) for df in (1.5, 3, 5, 17.3, 200)]
    real = special.stdtrit
    monkeypatch.setattr(special, "stdtrit", lambda df, p: real(df, p) * (1 + 1e-6))  # 2e-8 with scipy 1.11
    found = [t_quantile(p, df) for p in (0.6, 0.8, 0.975) for df in (1.5, 3, 5, 17.3, 200)]
    assert found == pytest.approx(exact, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_each_content_is_left_out_with_all_its_images(n: int, levels: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)  # few levels: many ties, and constants
    scores, mos = rng.integers(0, levels, n) / 1.0, rng.integers(0, 2 * levels, n) / 1.0
    contents = rng.integers(0, most, n)
    found = without_each(scores, mos, contents)
    codes = sorted(set(contents.tolist()))
    assert len(found) == len(codes)
    for value, code in zip(found, codes, strict=True):
        x, y = scores[contents != code], mos[contents != code]
        if len(codes) == 1 or len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_many_images_are_left_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    mos = rng.uniform(size=70)
    scores = mos + rng.normal(size=70)
    whole = without_each(scores, mos, np.arange(70))
    monkeypatch.setattr(jackknife, "_CELLS", 170)  # two images at a time
    np.testing.assert_array_equal(without_each(scores, mos, np.arange(70)), whole)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_correlation(bad: float) -> None:
    scores, mos = np.array([0.0, 1, bad, 3, 5]), np.arange(5.0)
    for x, y in ((scores, mos), (mos, scores)):
        assert np.isnan(without_each(x, y, np.arange(5))).all()


def test_the_jackknife_of_a_mean_is_the_textbook_s() -> None:
    values = np.random.default_rng(3).normal(size=9)
    left = (values.sum() - values) / 8
    part = over_contents(left, halved=False)
    assert part.variance == pytest.approx(values.var(ddof=1) / 9, rel=1e-12)
    assert (part.df, over_contents(left, halved=True).df) == (8, 4)
    assert math.isnan(over_contents(left[:3], halved=False).variance)  # too few


def test_seeds_are_a_sample() -> None:
    assert over_seeds([0.5]) == ()
    (part,) = over_seeds([0.1, 0.5, 0.3])
    assert part.variance == pytest.approx(0.04 / 3) and part.df == 2


def test_splits_share_images() -> None:
    part = over_splits([0.1, 0.5, 0.3])
    assert part.variance == pytest.approx(0.04 * (1 / 3 + 2 / 7)) and part.df == 2
    assert math.isnan(over_splits([0.5]).variance)
    one = MeasuredSrcc([0.1, 0.5, 0.3], np.zeros((3, 0)), 20, splits=True)
    other = MeasuredSrcc([0.2, 0.3, 0.3], np.zeros((3, 0)), 20, splits=True)
    assert one.estimate().parts == (part,)
    (whole,) = mean_estimate([one, one]).parts
    assert whole == pytest.approx(part)
    apart = difference([one], [other], paired=True)
    assert apart.value == pytest.approx(1 / 30)
    (share,) = apart.parts
    assert share == pytest.approx(over_splits([-0.1, 0.2, 0.0]))
    assert all(map(math.isnan, difference([one], [other], paired=False).interval))


def test_degrees_of_freedom_are_welch_s() -> None:
    rng = np.random.default_rng(4)
    x, y = 0.1 * rng.normal(size=5), 0.3 * rng.normal(size=11)
    parts = (Part(x.var(ddof=1) / 5, 4), Part(y.var(ddof=1) / 11, 10))
    welch = stats.ttest_ind(x, y, equal_var=False)
    apart = Estimate(x.mean() - y.mean(), parts)
    assert apart.df == pytest.approx(welch.df, rel=1e-12)
    theirs = welch.confidence_interval(0.95)
    assert apart.interval == pytest.approx((theirs.low, theirs.high), rel=6e-8)  # 2e-8 seen, scipy 1.11


def told(rng: np.random.Generator, seeds: int, contents: int = 6, images: int = 4) -> MeasuredSrcc:
    """Draws one method on a test set."""
    mos = rng.normal(size=contents * images)
    shown = np.repeat(np.arange(contents), images)
    scores = [mos + rng.normal(size=len(mos)) for _ in range(seeds)]
    values = [float(stats.spearmanr(s, mos).statistic) for s in scores]
    return MeasuredSrcc(values, np.stack([without_each(s, mos, shown) for s in scores]), len(mos))


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_an_interval_by_hand(seeds: int) -> None:
    one = told(np.random.default_rng(seeds), seeds)
    low, high = one.estimate().interval
    r = np.mean(one.values)
    left = one.left.mean(axis=0)
    images = 5 / 6 * ((left - left.mean()) ** 2).sum()
    chance = np.var(one.values, ddof=1) / seeds if seeds > 1 else 0
    df = (images + chance) ** 2 / (images**2 / 2.5 + chance**2 / max(seeds - 1, 1))
    half = stats.t.ppf(0.975, df) * math.sqrt(images + chance) / (1 - r**2)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    assert low < r < high


def test_a_mean_over_test_sets_by_hand() -> None:
    rng = np.random.default_rng(8)
    sets = [told(rng, 3, contents, 3) for contents in (5, 9, 30)]
    found = mean_estimate(sets)
    assert found.value == pytest.approx(np.mean([s.values for s in sets]))
    variances = [(len(s.left[0]) - 1) * s.left.mean(axis=0).var() / 9 for s in sets]
    chance = np.mean([s.values for s in sets], axis=0).var(ddof=1) / 3
    assert found.variance == pytest.approx(sum(variances) + chance)
    dfs = [2, 4, 14.5, 2]
    shares = [*variances, chance]
    assert found.df == pytest.approx(
        sum(shares) ** 2 / sum(v**2 / d for v, d in zip(shares, dfs, strict=True))
    )


def test_a_difference_pairs_contents_and_seeds() -> None:
    rng = np.random.default_rng(9)
    mos, shown = rng.normal(size=24), np.repeat(np.arange(6), 4)
    common = 0.7 * rng.normal(size=24)  # both err alike
    methods = []
    for _ in range(2):
        scores = [mos + common + 0.3 * rng.normal(size=24) for _ in range(4)]
        values = [float(stats.spearmanr(s, mos).statistic) for s in scores]
        methods.append(MeasuredSrcc(values, np.stack([without_each(s, mos, shown) for s in scores]), 24))
    one, other = methods
    found = difference([one], [other], paired=True)
    left = (one.left - other.left).mean(axis=0)
    seeds = np.array(one.values) - other.values
    assert found.value == pytest.approx(seeds.mean())
    assert [p.variance for p in found.parts] == pytest.approx([5 * left.var(), seeds.var(ddof=1) / 4])
    assert [p.df for p in found.parts] == [5, 3]
    apart = difference([one], [other], paired=False)
    assert [p.df for p in apart.parts] == [5, 3, 3]
    assert sum(p.variance for p in apart.parts[1:]) == pytest.approx(
        (np.var(one.values, ddof=1) + np.var(other.values, ddof=1)) / 4
    )
    low, high = found.interval
    assert found.value - low == pytest.approx(high - found.value)
    assert difference([one], [one], paired=True).interval == (0, 0)


def test_where_only_seeds_differ_it_is_the_paired_t_test() -> None:
    a, b = [0.8, 0.7, 0.75], [0.6, 0.65, 0.5]
    flat = np.full((3, 6), 0.7)
    found = difference([MeasuredSrcc(a, flat, 60)], [MeasuredSrcc(b, flat, 60)], paired=True)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.interval == pytest.approx((theirs.low, theirs.high), rel=6e-8)  # 2e-8 seen, scipy 1.11


def test_no_difference_is_beyond_two() -> None:
    left = np.linspace(-0.3, 0.3, 4)[None]
    one, other = MeasuredSrcc([0.9], left, 4), MeasuredSrcc([-0.9], -left, 4)
    above, below = difference([one], [other], paired=True), difference([other], [one], paired=True)
    half = stats.t.ppf(0.975, 3) * np.sqrt(above.variance)
    assert 0.2 < half < 3.8  # it reaches across one end of the range
    assert above.interval == pytest.approx((1.8 - half, 2.0)) and above.interval[1] == 2
    assert below.interval == pytest.approx((-2.0, half - 1.8)) and below.interval[0] == -2


@pytest.mark.parametrize("n", [4, 5, 12])
def test_perfect_ranks_are_not_certain(n: int) -> None:
    mos = np.arange(float(n))
    for sign in (1, -1):
        one = MeasuredSrcc([sign * 1.0], without_each(sign * mos, mos, np.arange(n))[None], n)
        low, high = one.estimate().interval
        assert (high if sign > 0 else low) == sign
        assert -1 <= low < high <= 1
        # Bonett and Wright's variance at half a step below 1
        r = 1 - 6 / (n * (n * n - 1))
        half = stats.t.ppf(0.975, (n - 1) / 2) * math.sqrt((1 + r * r / 2) / (n - 3))
        assert (low if sign > 0 else -high) == pytest.approx(math.tanh(math.atanh(r) - half))
        whole = mean_estimate([one, one])
        assert whole.value == sign and math.isfinite(whole.interval[0])


@pytest.mark.parametrize("n", [2, 3])
def test_of_three_images_nothing_can_be_said(n: int) -> None:
    mos = np.arange(float(n))
    one = MeasuredSrcc([1.0], without_each(mos, mos, np.arange(n))[None], n)
    assert all(map(math.isnan, one.estimate().interval))
    assert all(map(math.isnan, mean_estimate([one]).interval))


def test_one_content_or_a_constant_have_no_interval() -> None:
    mos = np.random.default_rng(0).normal(size=12)
    scores = mos + np.random.default_rng(1).normal(size=12)
    alone = MeasuredSrcc([0.5], without_each(scores, mos, np.zeros(12, int))[None], 12)
    flat = MeasuredSrcc([math.nan], without_each(np.zeros(12), mos, np.arange(12))[None], 12)
    for one in (alone, flat):
        assert all(map(math.isnan, one.estimate().interval))
        assert math.isnan(smallest_difference(difference([one], [one], paired=True).parts))


def test_the_smallest_difference_would_be_shown_four_times_in_five() -> None:
    """Drawn: so large a true difference leaves 0 outside of its interval with probability .8."""
    rng, n = np.random.default_rng(5), 8
    parts = (Part(1 / n, n - 1.0),)
    wanted = smallest_difference(parts)
    shown = 0
    for sample in rng.normal(wanted, 1, (4000, n)):
        half = stats.t.ppf(0.975, n - 1) * sample.std(ddof=1) / math.sqrt(n)
        shown += sample.mean() - half > 0
    assert shown / 4000 == pytest.approx(0.8, abs=0.03)  # three standard errors of the count are .019
    assert smallest_difference((Part(0.0, 5.0),)) == 0


@pytest.mark.parametrize(("spread", "wanted"), [(1e-4, 0.02), (1e-4, 0.05), (4e-3, 0.03), (4e-3, 0.3)])
def test_seeds_are_counted_up(spread: float, wanted: float) -> None:
    images = (Part(1e-5, 5.0), Part(4e-6, 40.0))
    found = seeds_needed(images, spread, wanted)

    def shown(n: int) -> bool:
        return smallest_difference((*images, Part(spread / n, n - 1.0))) <= wanted

    assert found == next(n for n in range(2, 1000) if shown(n))


def test_no_number_of_seeds_shows_what_the_images_hide() -> None:
    images = (Part(1e-2, 5.0),)
    assert math.isnan(seeds_needed(images, 1e-6, 0.01))
    assert math.isnan(seeds_needed(images, math.nan, 1.0))
    assert math.isnan(seeds_needed((Part(math.nan, 1.0),), 1e-6, 1.0))
    assert math.isnan(seeds_needed((), 1e-6, 0.0))


def test_few_contents_are_covered_where_resampled_images_are_not() -> None:
    """LIVE's test set and a model that likes some contents; the whole table is in docs/statistics.md."""
    size, model, rng = SETS["LIVE"], MODELS[1], np.random.default_rng(6)
    right, draws, ours, theirs = truth(size, model), 150, 0, 0
    for _ in range(draws):
        quality, (scores,) = draw(size, model, rng)
        low, high = mean_estimate([agreement(quality, scores)]).interval
        ours += low <= right <= high
        low, high = bootstrap(scores.reshape(-1, 1), quality.reshape(-1, 1), rng)
        theirs += low <= right <= high
    assert ours / draws > 0.88  # .945 of 1000
    assert theirs / draws < 0.8  # .69 of 1000
