"""The bare loops compute what the learner computes; no test looks at a clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cliqa_bench.bench.bare import BareLoop, BareSI
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups.training import OurTraining, TrainingCase, against_bare, make_job
from cliqa_bench.learning.learner import Learner
from cliqa_bench.strategies.lwf import LwF
from cliqa_bench.strategies.si import SI


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions(device="cpu", precision="fp32", threads=1, repeats=1, folder=tmp_path)


@pytest.fixture
def job(setting: Conditions) -> TrainingCase:
    """Two steps: in the first, the old model and the new one agree, and nothing pulls."""
    return make_job(setting, "fp32", 32)


def error(loop: BareLoop, learner: Learner) -> float:
    """Trains an epoch; returns how far from the learner's weights it ends, relative to their way."""
    start = torch.cat([w.detach().flatten() for w in loop.weights])
    loop.epoch()
    end = torch.cat([w.detach().flatten() for w in loop.weights])
    expected = torch.cat([w.flatten() for w in learned(learner)])
    return float((end - expected).norm() / (expected - start).norm())


def learned(learner: Learner) -> list[Tensor]:
    """Returns what the strategy let learn, as it was after the last epoch."""
    state, name = learner.last_state, learner.strategy.name
    parameters = [n for n, _ in learner.model.net.named_parameters(prefix="net") if n in state]
    heads = [state[f"heads.{task}.weight"] for task in range(learner.model.n_tasks)]
    return [*(state[n] for n in parameters), *(heads if name == "lwf" else heads[-1:])]


def test_tsn_learns_what_the_learner_learns(job: TrainingCase) -> None:
    ours = OurTraining("tsn", job)
    assert error(ours.bare(), ours.epoch()[1]) < 1e-3


@pytest.mark.slow
def test_lwf_learns_what_the_learner_learns(job: TrainingCase) -> None:
    ours = OurTraining("lwf", job)
    loop = ours.bare()
    assert error(loop, ours.epoch()[1]) < 0.02
    assert len(loop.heads) == 2
    forgetful = ours.bare()
    assert isinstance(forgetful.strategy, LwF)
    forgetful.strategy = replace(forgetful.strategy, reg_weight=0.0)
    assert error(forgetful, ours.epoch()[1]) > 0.1  # the old model's word counts


@pytest.mark.slow
def test_si_learns_what_the_learner_learns(job: TrainingCase) -> None:
    ours = OurTraining("si", job)
    assert isinstance(ours.strategy, SI)
    ours.strategy.reg_weight = 1e6  # or two steps are too few to feel it
    loop, free = ours.bare(), ours.bare()
    assert isinstance(loop, BareSI)
    assert isinstance(free, BareSI)
    start = [w.detach().clone() for w in loop.held]
    learner = ours.epoch()[1]
    assert error(loop, learner) < 0.02
    torch._foreach_zero_(free.pull)
    assert error(free, learner) > 0.1
    # w, by the importances that the learner makes of it
    assert isinstance(learner.strategy, SI)
    new = [learner.strategy.omega[n] - ours.strategy.omega[n] for n in learner.strategy.omega]
    bare = [p / ((w - s) ** 2 + 0.1) for p, w, s in zip(loop.path, loop.held, start, strict=True)]
    off = torch.cat([(a - b).flatten() for a, b in zip(new, bare, strict=True)])
    assert off.norm() < 0.02 * torch.cat([a.flatten() for a in new]).norm()


def test_a_row_from_end_to_end(setting: Conditions, job: TrainingCase) -> None:
    row = against_bare(setting, "tsn", job)
    assert row.what == "tsn, S-CNN, crops of 96, fp32"
    assert len(row.ours) == len(row.reference) == 1
    assert min(*row.ours, *row.reference) > 0
