"""What the rest of a plan takes: guessed while nothing is there, measured on what is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cliqa_bench.execution import estimate
from cliqa_bench.execution.estimate import time_text
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.run import prepare
from cliqa_bench.execution.work_size import images_of
from cliqa_bench.results.nodes import Node, node_facts
from cliqa_bench.settings.resolve import resolve


def laid_out(data: Path, out: Path, strategy: str = "lwf", **more: object) -> Plan:
    settings = {"strategy": strategy, "orders": "every:live,bid,csiq", "preset": "quick", "jobs": 1}
    return prepare(resolve({**settings, "data": str(data), "out": str(out), **more}), "")


def left_to_do(plans: list[Plan]) -> str:
    return estimate.left_to_do(plans, [plan.missing() for plan in plans])


def finish(node: Node, n_bytes: int, **facts: float) -> None:
    with node.building(facts) as folder:
        (folder / "weights").write_bytes(bytes(n_bytes))


def seconds_and_megabytes(line: str) -> tuple[float, float]:
    found = re.search(r"roughly ([0-9.]+) (s|min|h) .*, ([0-9.]+) MB in", line)
    assert found, line
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]], float(found[3])


def test_nothing_there_is_a_guess_with_whole_networks(miniatures: Path, tmp_path: Path) -> None:
    line = left_to_do([laid_out(miniatures, tmp_path)])
    assert line.startswith("left to do: 15 trainings, 3 gates, 54 answer files; roughly ")
    assert "(a guess from multiply-adds)" in line
    # S-CNN has 531,120 values of four bytes; TSN-IQA keeps a task's normalisation and head
    assert seconds_and_megabytes(line)[1] == pytest.approx(15 * 4 * 0.53112 + 54 * 0.02, abs=0.1)
    assert seconds_and_megabytes(left_to_do([laid_out(miniatures, tmp_path, "tsn")]))[1] < 2.5


def test_what_is_there_is_measured(miniatures: Path, tmp_path: Path) -> None:
    plan = laid_out(miniatures, tmp_path)
    works = list(plan.train.values())
    for work in works[:3]:
        finish(work.node, 5_000_000, seconds=0.5 * images_of(plan, work))
    line = left_to_do([plan])
    assert "12 trainings" in line and "at the pace so far" in line
    seconds, megabytes = seconds_and_megabytes(line)
    train = 0.5 * sum(images_of(plan, work) for work in works[3:])
    assert seconds == pytest.approx(train, rel=0.1), "the answers and gates, guessed, are little"
    assert megabytes == pytest.approx(12 * 5 + 54 * 0.02, abs=0.1)


def test_processes_share_the_time(miniatures: Path, tmp_path: Path) -> None:
    one, four = (laid_out(miniatures, tmp_path, jobs=n) for n in (1, 4))
    for work in one.train.values():
        finish(work.node, 10, seconds=images_of(one, work))
    answer = next(iter(one.answers.values()))
    finish(answer.node, 10, score_seconds=36_000.0)
    slow, fast = (seconds_and_megabytes(left_to_do([plan]))[0] for plan in (one, four))
    assert slow == pytest.approx(4 * fast, rel=0.02)


def test_several_splits_add_up(miniatures: Path, tmp_path: Path) -> None:
    one, other = (laid_out(miniatures, tmp_path, split=n) for n in (1, 2))
    for work in list(one.train.values())[:3]:
        finish(work.node, 5_000_000, seconds=2.0 * images_of(one, work))
    alone, both = left_to_do([one]), left_to_do([one, other])
    assert alone.startswith("left to do: 12 trainings, 3 gates, 54 answer files; ")
    assert both.startswith("left to do: 27 trainings, 6 gates, 108 answer files; ")
    assert "at the pace so far" in both, "what is there of one split is measured for the other"
    seconds, megabytes = seconds_and_megabytes(both)
    train = 2.0 * sum(images_of(other, work) for work in other.train.values())
    assert seconds - seconds_and_megabytes(alone)[0] == pytest.approx(train, rel=0.1)
    assert megabytes == pytest.approx(27 * 5 + 108 * 0.02, abs=0.1)


def test_what_is_made_once_is_estimated_once(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "has_gate_net", lambda plan: False)
    plans = [laid_out(miniatures, tmp_path, split=n) for n in (1, 2, 3)]
    lines = estimate.estimate(plans, [plan.missing() for plan in plans])
    assert sum("distortion-aware BN" in line for line in lines) == 1
    assert sum("decoded images" in line for line in lines) <= 1 and "45 trainings" in lines[-1]
    monkeypatch.setattr(estimate, "_gate_net_seconds", lambda plan: 36_000.0)
    assert seconds_and_megabytes(left_to_do(plans))[0] == pytest.approx(36_000, rel=0.02)


def test_a_node_that_says_no_time_is_not_measured(miniatures: Path, tmp_path: Path) -> None:
    plan = laid_out(miniatures, tmp_path)
    finish(next(iter(plan.train.values())).node, 10)
    folder = next((tmp_path / "train").iterdir())
    text = re.sub(r'\n *"seconds": [0-9.]+', "", (folder / "done.json").read_text())
    (folder / "done.json").write_text(text)
    assert "(a guess from multiply-adds)" in left_to_do([plan])


@pytest.mark.parametrize("text", ["", "[]", '{"facts": []}', '{"facts": {"seconds": "long"}}'])
def test_a_damaged_node_stops_no_estimate(miniatures: Path, tmp_path: Path, text: str) -> None:
    plan = laid_out(miniatures, tmp_path)
    works = list(plan.train.values())[:2]
    for work in works:
        finish(work.node, 10, seconds=1.0)
    (works[0].node.folder / "done.json").write_text(text)
    line = left_to_do([plan])
    assert "13 trainings" in line and "at the pace so far" in line


def test_not_all_of_many_nodes_are_looked_at(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = laid_out(miniatures, tmp_path)
    for work in plan.train.values():
        finish(work.node, 10, seconds=1.0)
    monkeypatch.setattr(estimate, "MOST_LOOKED_AT", 3)
    looked: list[Path] = []

    def watched(path: Path) -> Any:
        looked.append(path)
        return node_facts(path)

    monkeypatch.setattr(estimate, "node_facts", watched)
    left_to_do([plan])
    assert len(looked) == 3


@pytest.mark.parametrize(("seconds", "text"), [(89, "89 s"), (90, "2 min"), (5400, "1.5 h")])
def test_times_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
