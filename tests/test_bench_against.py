"""`bench --against`: CPU time of all processes, answers compared, and ratios that count only with both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import cliqa_bench
from cliqa_bench.bench import cpu_time
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups import against
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.bench.other_version import (
    AnswerDifference,
    Installation,
    Took,
    compare_answers,
    installations,
    timed,
)
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.results.nodes import write_answers

BUSY = "import time\nwhile time.process_time() < {}: pass"
OURS = Installation("us", "0.2.0", "/ours", {"torch": "2", "numpy": "1"})
THEIRS = Installation("them", "0.1.0", "/theirs", {"torch": "2", "numpy": "3"})


def test_cpu_time_is_that_of_a_process_left_behind_too(tmp_path: Path) -> None:
    leave = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True)"
    left = leave.format(BUSY.format(0.4))
    command = [sys.executable, str(cpu_time.__file__), str(tmp_path / "cpu"), sys.executable, "-c"]
    subprocess.run([*command, left], check=True)
    assert float((tmp_path / "cpu").read_text()) >= 0.4
    subprocess.run([*command, "pass"], check=True)
    assert float((tmp_path / "cpu").read_text()) < 0.4
    assert subprocess.run([*command, "raise SystemExit(7)"], check=False).returncode == 7


def answers(
    out: Path, name: str, scores: Sequence[float], distances: Sequence[float], mos: float = 1.0
) -> None:
    folder = out / "answers" / name
    folder.mkdir(parents=True)
    n = len(scores)
    write_answers(
        folder / "answers.npz",
        np.array([f"{i}.png" for i in range(n)]),
        np.full(n, mos),
        np.array(scores, np.float32)[:, None],
        np.array(distances, np.float32)[:, None],
    )


def test_the_largest_difference_is_named_and_what_is_alone(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    answers(a, "same", [1, np.nan, 3], [0, 2, 4])
    answers(b, "same", [1, np.nan, 3], [0, 2, 4])
    answers(a, "near", [1, 2, 3], [1, 2, 4])
    answers(b, "near", [1, 2.5, 2.75], [1, 2, 5])
    answers(a, "mine", [9], [9])
    assert compare_answers(a, b) == AnswerDifference(2, 1, 0.5, 0.2)
    assert compare_answers(b, a) == AnswerDifference(2, 1, 0.5, 0.2)
    assert compare_answers(a, a) == AnswerDifference(3, 0, 0, 0)
    assert compare_answers(a, tmp_path).files == 0


def test_a_score_that_is_missing_or_endless_is_an_endless_difference(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    answers(a, "x", [1, 2], [1, 2])
    answers(b, "x", [1, np.nan], [1, np.inf])
    assert compare_answers(a, b) == AnswerDifference(1, 0, np.inf, np.inf)


def test_answers_about_other_labels_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    answers(a, "x", [1, 2], [1, 2])
    answers(b, "x", [1, 2], [1, 2], mos=3)
    with pytest.raises(UserError, match="other images, or other labels"):
        compare_answers(a, b)


@pytest.fixture
def same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a Python whose suite is the one under test, be it installed or a checkout."""
    python = tmp_path / "same-python"
    package = Path(cliqa_bench.__file__).resolve().parent
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(tmp_path)
    return python


def test_another_python_must_have_another_version(tmp_path: Path, same: Path) -> None:
    with pytest.raises(UserError, match="is the one running here"):
        installations(same, tmp_path)
    with pytest.raises(UserError, match="cannot be started"):
        installations(tmp_path / "python", tmp_path)
    plain = tmp_path / "plain"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(plain)], check=True)
    with pytest.raises(UserError, match=r"no cliqa_bench can be imported there \(ModuleNotFoundError"):
        installations(plain / "bin" / "python", tmp_path)


def test_another_version_runs_without_what_leads_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "cliqa_bench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, sys; open(sys.argv[1], 'w').write(repr([os.getcwd(), os.environ.get('PYTHONPATH')]))"
    )
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    other = Installation(sys.executable, "0.1.0", "", {}, tmp_path / "site")
    took = timed(other, [str(tmp_path / "said")], tmp_path / "cache")
    assert (tmp_path / "said").read_text() == repr([str(tmp_path / "site"), None])
    assert took.cpu_seconds > 0
    with pytest.raises(UserError, match=r"cliqa-bench 0\.1\.0: .* failed with 1"):
        timed(other, [str(tmp_path / "no" / "folder")], tmp_path / "cache")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Measurement | Failed]]:
    """Returns the sides in the order in which they ran, and the rows, with commands that take no time."""
    return measured(tmp_path, monkeypatch, AnswerDifference(4, 1, 0.25, 0.5))


def measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, difference: AnswerDifference | None
) -> tuple[list[str], list[Measurement | Failed]]:
    ran: list[str] = []

    def took(side: Installation, words: list[str], cache: Path) -> Took:
        ran.append(f"{side.python} {words[0]}")
        return Took(8.0, 2.0, 100.0) if side is OURS else Took(10.0, 4.0, 50.0)

    monkeypatch.setattr(against, "installations", lambda other, elsewhere: (OURS, THEIRS))
    monkeypatch.setattr(against, "timed", took)
    if difference is not None:
        monkeypatch.setattr(against, "compare_answers", lambda one, other: difference)
    setting = Conditions("cpu", "fp32", 1, 2, folder, against=Path("them"))
    return ran, list(against.measure(setting))


def test_sides_run_in_turn_and_the_first_one_changes(rows: tuple[list[str], list[Measurement]]) -> None:
    assert rows[0][:8] == [
        "us run", "them run", "them run", "us run", "us run", "them run", "them run", "us run",
    ]  # fmt: skip


def test_ratios_are_ours_to_theirs_and_stand_beside_the_answers(
    rows: tuple[list[str], list[Measurement]],
) -> None:
    cpu, wall, memory, *others = rows[1]
    assert (cpu.ratio, wall.ratio, memory.ratio) == (0.5, 0.8, 2.0)
    assert cpu.against == "cliqa-bench 0.1.0"
    for row in (cpu, wall):
        assert "4 answer files compared: scores differ by 0.25 at most" in row.note
        assert "by 0.5 of their size; 1 files are of one side alone" in row.note
    assert "numpy 3 instead of 1" in cpu.note
    assert "torch" not in cpu.note
    assert [row.what for row in others] == [
        "the main job, everything done", "report: its tables", "data make", "list", "--help",
    ]  # fmt: skip
    assert all(row.ratio == 0.5 for row in others)


def test_the_worst_round_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([AnswerDifference(4, 0, 0.25, 0.75), AnswerDifference(4, 1, 0.5, 0.125)])
    monkeypatch.setattr(against, "compare_answers", lambda one, other: next(rounds))
    _, (cpu, *_) = measured(tmp_path, monkeypatch, None)
    assert isinstance(cpu, Measurement)
    assert "scores differ by 0.5 at most, distances of the gate by 0.75 of" in cpu.note


def test_without_answers_in_common_the_main_job_has_no_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (first, *others) = measured(tmp_path, monkeypatch, AnswerDifference(0, 9, 0.0, 0.0))
    assert isinstance(first, Failed)
    assert "no answer file in common" in first.reason
    assert all("main job" not in row.what or "everything done" in row.what for row in others)


def test_with_the_flag_this_group_is_measured_and_without_it_says_what_is_missing(
    tmp_path: Path, same: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--device", "cpu", "--out", str(tmp_path / "bench"), "--progress", "none"]
    assert main(["bench", "--against", str(same), *out]) == 1
    assert f"against failed: --against {same}: its cliqa_bench is the one running" in capsys.readouterr().err
    assert main(["bench", "--rows", "against", *out]) == 1
    assert (
        "against failed: there is nothing to compare with; give --against PYTHON" in capsys.readouterr().err
    )
