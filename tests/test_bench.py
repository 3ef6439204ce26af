"""The benchmark: its statistics, its table, and what happens when a group fails. No test looks at a clock."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import pytest

from cliqa_bench.bench import bench_rows, process, table
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement, interleaved
from cliqa_bench.cli.parser import main
from cliqa_bench.system.signals import Terminated

OURS, THEIRS = (3.0, 1.0, 2.0, 8.0), (2.0, 4.0, 4.0, 2.0)


def test_ratio_is_the_median_of_the_ratios_repeat_by_repeat() -> None:
    row = Measurement("r", "w", OURS, "image/s", THEIRS, "the limit", reach=0.9)
    ratios = np.array(OURS) / np.array(THEIRS)
    assert row.value == np.median(OURS)
    assert row.reference_value == np.median(THEIRS)
    assert row.ratios == tuple(ratios)
    assert row.ratio == np.median(ratios) != row.value / row.reference_value


@pytest.mark.parametrize(
    ("reach", "better", "reached"),
    [(1.0, "higher", True), (1.1, "higher", False), (1.0, "lower", True), (0.9, "lower", False)],
)
def test_reached_is_about_the_ratio_and_includes_the_bound(reach, better, reached) -> None:
    row = Measurement("r", "w", (2.0, 2.0, 9.0), "s", (2.0, 2.0, 2.0), "them", reach, better)
    assert row.ratio == 1
    assert row.reached is reached


def test_without_a_reference_the_value_itself_is_to_be_reached() -> None:
    row = Measurement("r", "w", (80.0, 95.0, 85.0), "s", reach=90, better="lower")
    assert row.reached is True
    assert row.ratio is None
    assert math.isnan(row.reference_value)
    assert Measurement("r", "w", (1.0,), "s").reached is None


def test_sides_with_unequal_repeats_are_refused() -> None:
    with pytest.raises(ValueError):
        _ = Measurement("r", "w", (1.0, 2.0), "s", (1.0,), "them").ratios


def test_sides_take_turns_and_the_first_rounds_are_thrown_away() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    values = interleaved([lambda: side("a"), lambda: side("b")], repeats=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert values == [(3.0, 5.0), (4.0, 6.0)]


def test_table_rounds_and_has_dashes_where_nothing_is() -> None:
    cells = table.cells(
        Measurement("r", "w", (412.34, 400.0, 420.0), "image/s", (500.0, 500.0, 400.0), "l", 0.9)
    )
    assert cells == ("r", "w", "412 image/s", "500 image/s (l)", "0.825 (0.8..1.05)", "≥ 0.9", "no")
    alone = table.cells(Measurement("r", "w", (1.25, 1.5), "s", note="n"))
    assert alone == ("r", "w; n", "1.38 s (1.25..1.5)", "—", "—", "—", "—")
    assert table.cells(Measurement("r", "w", (math.nan,), "s", reach=5, better="lower"))[2:] == (
        "— s", "—", "—", "≤ 5 s", "no",
    )  # fmt: skip


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two groups: one gives a row and then fails, the other gives one; returns who was measured."""
    told: list[str] = []

    def measure(name: str, setting: Conditions) -> Iterator[Measurement]:
        told.append(name)
        assert setting.folder.is_dir()
        yield Measurement(name, "a row", (0.1 + 0.2,) * setting.repeats, "s")
        if name == "bad":
            raise RuntimeError("out of\nluck")

    monkeypatch.setattr(bench_rows, "measure", measure)
    named = {"bad": bench_rows.RowGroup("fails", "no"), "good": bench_rows.RowGroup("works", "no")}
    monkeypatch.setattr(
        bench_rows, "GROUPS", {**named, "slow": bench_rows.RowGroup("takes long", "no", by_default=False)}
    )
    return told


def test_a_failing_group_is_named_and_the_others_go_on(groups, tmp_path, capsys) -> None:
    code = main(["bench", "--device", "cpu", "--repeats", "2", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code == 1
    assert groups == ["bad", "good"]
    assert "bad failed: RuntimeError: out of luck" in said.err
    assert "good  a row" in said.out
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["row"] for row in found["rows"]] == ["bad", "good"]
    assert found["rows"][0]["ours"] == [0.1 + 0.2] * 2  # unrounded
    assert found["failed"] == {"bad": "RuntimeError: out of luck"}
    assert found["setting"]["repeats"] == 2
    assert {"cpu", "cores", "memory_bytes", "gpu"} == found["machine"].keys()
    assert {"torch", "python", "cliqa_bench"} <= found["versions"].keys()
    assert "bad` failed: RuntimeError: out of luck" in (tmp_path / "bench.md").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_shows_and_keeps_what_was_measured(monkeypatch, tmp_path, capsys, number, code) -> None:
    def measure(name: str, setting: Conditions) -> Iterator[Measurement]:
        yield Measurement(name, "a row", (1.0,), "s")
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            raise OSError("a library's own") from None
        yield Measurement(name, "never", (1.0,), "s")

    monkeypatch.setattr(bench_rows, "measure", measure)
    monkeypatch.setattr(
        bench_rows, "GROUPS", {"one": bench_rows.RowGroup("t", "no"), "two": bench_rows.RowGroup("t", "no")}
    )
    assert main(["bench", "--device", "cpu", "--out", str(tmp_path)]) == code
    said = capsys.readouterr()
    assert "one  a row" in said.out and "never" not in said.out and "two" not in said.out
    assert "interrupted; the same command starts over; measured so far" in said.err
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["what"] for row in found["rows"]] == ["a row"] and not found["failed"]


def test_a_command_that_is_measured_ends_with_the_benchmark(monkeypatch, tmp_path) -> None:
    begun: list[subprocess.Popen[str]] = []

    class Stopped(subprocess.Popen):
        def communicate(self, *args: object, **flags: object) -> NoReturn:
            begun.append(self)
            raise Terminated

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    with pytest.raises(Terminated):
        process.run(["run", "--strategy", "tsn", "--out", str(tmp_path / "runs")], tmp_path / "cache")
    assert [p.returncode for p in begun] in ([-signal.SIGTERM], [143])


def test_groups_are_chosen_by_name(groups, tmp_path, capsys) -> None:
    assert main(["bench", "--rows", "slow,good", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert groups == ["good", "slow"]
    assert main(["bench", "--list"]) == 0
    assert "slow  takes long (long: only by --rows)" in capsys.readouterr().out


def test_what_is_undefined_is_null_in_the_file(monkeypatch, tmp_path, capsys) -> None:
    row = Measurement("r", "w", (math.nan, math.nan), "s", (1.0, 0.1 + 0.2), "t", raw={"x": (math.inf, 1.0)})
    monkeypatch.setattr(bench_rows, "GROUPS", {"r": bench_rows.RowGroup("t", "no")})
    monkeypatch.setattr(bench_rows, "measure", lambda name, setting: iter([row]))
    assert main(["bench", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (found,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert found["ours"] == [None, None]
    assert found["reference"] == [1.0, 0.1 + 0.2]
    assert found["raw"] == {"x": [None, 1.0]}
    assert found["value"] is found["ratio"] is None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rows", "scorning"], "unknown group of rows (--rows) 'scorning'"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--scale", "0"], "--scale must be above 0, not 0.0"),
        (["--precision", "fp16"], "unknown precision 'fp16'"),
        (["--device", "abacus"], "--device abacus is not available"),
    ],
)
def test_misuse_is_one_line(words, complaint, tmp_path, capsys) -> None:
    assert main(["bench", "--out", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "bench.json").exists()
