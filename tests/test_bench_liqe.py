"""LIQE's bare loops compute what the suite computes; no test looks at a clock."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import pictures_source
from cliqa_bench.bench.groups.liqe_speed import LIQELimit, LIQEScoring, LIQETraining

pytestmark = pytest.mark.usefixtures("one_thread")
needs_clip = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="the extra [clip] is not installed"
)


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions(device="cpu", precision="fp32", threads=1, repeats=1, folder=tmp_path)


def test_the_bare_loop_learns_what_the_learner_learns(setting: Conditions) -> None:
    ours = LIQETraining(setting, images=8)
    assert [len(step.x) for step in ours.steps] == [24, 24]
    bare = ours.bare()
    start = torch.cat([w.detach().flatten() for w in bare.weights])
    bare.epoch()
    found = torch.cat([w.detach().flatten() for w in bare.weights])
    learner = ours.epoch()[1]
    learned = learner.strategy.trainable(learner.model, 0, warmup=False)
    state = learner.last_state
    names = {id(p): n for n, p in learner.model.named_parameters()}
    expected = torch.cat([state[names[id(p)]].flatten() for p in learned])
    # 0 seen; Adam's first steps go by a gradient's sign: near 0, last bits may decide it
    assert float((found - expected).norm() / (expected - start).norm()) < 0.02


@needs_clip
@pytest.mark.slow
def test_the_limit_s_scores_are_ours(setting: Conditions) -> None:
    shapes = [(384, 512), (256, 480), (500, 500)]
    ours = LIQEScoring(pictures_source(setting.folder / "p", shapes, "test"), setting)
    limit = LIQELimit(ours, 15)
    order = [i for positions, _ in ours.source.eval_batches("test", 1) for i in positions]
    found = np.empty(len(shapes), np.float32)
    found[order] = limit.score()
    # 7.2e-7 seen
    np.testing.assert_allclose(found, ours.score()[:, 0], rtol=0, atol=1e-5)
    assert np.ptp(found) > 1e-4
