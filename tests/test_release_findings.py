"""What a certificate says of two runs of scoring: against scipy and plain loops, and what it lets pass."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cliqa_bench.reports.certificate.evidence import ModelSeen, ReleaseEvidence, SetEvidence, UnscoredSet
from cliqa_bench.reports.certificate.findings import findings_of
from cliqa_bench.reports.certificate.points_chart import PointSeries, points_chart, ticks
from cliqa_bench.reports.certificate.verdict import ReleaseCheck, ReleaseLimits, checks_of
from cliqa_bench.reports.certificate.writing import write_certificate
from cliqa_bench.results.readouts import gate_weights

TAU = 8.0


def evidence(seed: int = 0, n: int = 24, added: bool = False, beyond: float = 0.0) -> SetEvidence:
    """Returns two old heads and a new one on some pictures, two of each content.

    Args:
        seed: Of all numbers.
        n: Pictures.
        added: Whether it is the new set.
        beyond: How much more the first score moves than the gate can make it.
    """
    rng = np.random.default_rng(seed)
    mos = rng.permutation(n) / 10
    heads = (np.tanh(mos - mos.mean())[:, None] + rng.normal(0, 0.4, (n, 3))).astype(np.float32)
    distances = rng.random((n, 3, 2))
    before = (gate_weights(distances[:, :2], TAU) * heads[:, :2]).sum(axis=1)
    after = (gate_weights(distances, TAU) * heads).sum(axis=1)
    after[0] += beyond
    return SetEvidence(
        name=f"s{seed}",
        title=f"Set {seed}",
        added=added,
        keys=np.array([f"p{i}.png" for i in range(n)]),
        mos=mos,
        contents=np.arange(n, dtype=np.int64) // 2,
        paths=[Path(f"p{i}.png") for i in range(n)],
        before=before,
        after=after,
        old_heads=heads[:, :2],
        heads=heads,
        distances=distances,
    )


def release(*sets: SetEvidence, **changed: Any) -> ReleaseEvidence:
    seen = ModelSeen("m.safetensors", "0" * 64, 1)
    body: dict[str, Any] = {"released": ("1" * 64, True), "same_parts": (5, 5), "unscored": []}
    body |= {"learned": ["A", "B"], "tau": TAU, "stages": [3, 4], "facts": {}, "command": "add"}
    return ReleaseEvidence(seen, seen, sets=list(sets), **body | changed)


def checks(limits: ReleaseLimits, *sets: SetEvidence, **changed: Any) -> list[ReleaseCheck]:
    given = release(*sets, **changed)
    return checks_of(given, [findings_of(one, TAU) for one in given.sets], limits)


def test_numbers_are_those_of_scipy_and_plain_loops() -> None:
    seen = evidence()
    found = findings_of(seen, TAU)
    whole = [stats.spearmanr(scores, seen.mos).statistic for scores in (seen.before, seen.after)]
    assert (found.before.value, found.after.value) == pytest.approx(whole)
    left = []
    for content in range(12):
        kept = seen.contents != content
        pair = [
            stats.spearmanr(scores[kept], seen.mos[kept]).statistic for scores in (seen.before, seen.after)
        ]
        left.append(pair[1] - pair[0])
    half = stats.t.ppf(0.975, 11) * math.sqrt(11 * np.var(left))
    change = whole[1] - whole[0]
    assert tuple(found.change) == pytest.approx((change, change - half, change + half))
    assert found.broken == 0 and 0 < found.tightness <= 1 and found.heads_apart == 0


def test_ranks_count_from_the_best() -> None:
    seen = evidence()
    found = findings_of(seen, TAU)
    far = [abs(one.rank_after - one.rank_before) for one in found.moved]
    assert far == sorted(far, reverse=True) and far[0] > 0 and len(far) == 6
    for one in found.moved:
        assert one.rank_before == 1 + sum(seen.before > seen.before[one.place])
        assert one.rank_after == 1 + sum(seen.after > seen.after[one.place])
        assert one.key == f"p{one.place}.png" and one.before == seen.before[one.place]


def test_a_score_beyond_its_bound_fails() -> None:
    first, *_ = checks(ReleaseLimits(), evidence(), evidence(1, added=True))
    assert first.holds and first.found == "48 of 48 pictures"
    first, *_ = checks(ReleaseLimits(), evidence(beyond=0.9), evidence(1, added=True))
    assert not first.holds and first.found == "47 of 48 pictures"
    first, *_ = checks(ReleaseLimits(), evidence(beyond=math.nan), evidence(1, added=True))
    assert not first.holds


def test_tensors_that_changed_fail() -> None:
    sets = (evidence(), evidence(1, added=True))
    assert [one.holds for one in checks(ReleaseLimits(), *sets, same_parts=(5, 4))] == [True, False, True]
    assert [one.holds for one in checks(ReleaseLimits(), *sets, released=("", False))] == [True, True, False]


def test_limits_of_the_users() -> None:
    old, new = evidence(), evidence(1, added=True)
    drop = -findings_of(old, TAU).change.value
    move = float(np.abs(old.after - old.before).max())
    srcc = findings_of(new, TAU).after.value
    for limit, at in (("max_drop", drop), ("max_change", move), ("min_srcc", srcc)):
        for more, holds in ((1e-9, True), (-1e-9, False)):
            wanted = at - more if limit == "min_srcc" else at + more
            *_, last = checks(ReleaseLimits(**{limit: wanted}), old, new)
            assert last.holds is holds, limit
    assert drop != 0


def test_a_limit_that_cannot_be_judged_fails() -> None:
    absent = [UnscoredSet("CSIQ", 0.8, "it is not here")]
    for limits in (ReleaseLimits(max_drop=2.0), ReleaseLimits(max_change=2.0)):
        *_, last = checks(limits, evidence(), evidence(1, added=True), unscored=absent)
        assert not last.holds and "not known without the pictures of CSIQ" in last.found
        *_, last = checks(limits, evidence(1, added=True))
        assert not last.holds
    flat = evidence()
    flat.mos[:] = 1.0
    *_, last = checks(ReleaseLimits(max_drop=2.0), flat, evidence(1, added=True))
    assert not last.holds and last.found == "undefined on Set 0"


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    odd = evidence(1, added=True)
    object.__setattr__(odd, "title", "<script>x|y")
    odd.keys[:] = "<b>"
    absent = [UnscoredSet("CSIQ", None, "it is not here")]
    made = write_certificate(
        release(evidence(), odd, unscored=absent), ReleaseLimits(), tmp_path, lambda p: b""
    )
    page, text = made.page.read_text(), (tmp_path / "report.md").read_text()
    assert "\n## Agreement with opinions\n" in text and ">Agreement with opinions</h2>" in page
    assert made.passed and "<script>x" not in page and "&lt;script&gt;x|y" in page and "<b>" not in page
    assert "\\<script\\>x\\|y" in text and "CSIQ was not scored: it is not here." in page
    body = json.loads((tmp_path / "report.json").read_text())
    assert len(body["test_sets"][0]["pictures"]) == 24 and body["passed"] is True


def test_charts_have_a_mark_for_each_finite_point() -> None:
    points = PointSeries("a", np.array([0.0, 1.0, math.nan]), np.array([2.0, 2.0, 2.0]), 0, True)
    drawn = str(points_chart([points, points._replace(label="<b>", filled=False)], "x", "y"))
    assert drawn.count("<circle") == 4 and "<b>" not in drawn and "nan" not in drawn
    nothing = PointSeries("a", np.zeros(0), np.zeros(0), 0, True)
    assert "<circle" not in str(points_chart([nothing], "x", "y", diagonal=True))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.45), (20, 91), (0, 3e-9), (1, 5)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
