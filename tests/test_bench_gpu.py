"""The checks of a GPU, rehearsed on the CPU at toy size, and what becomes of a check that fails."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cliqa_bench.bench import bench_rows, process
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups import gpu_works
from cliqa_bench.bench.groups.gpu_works import Check, Place
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError

LWF = ("--strategy", "lwf", "--orders", "bid,live")


@pytest.fixture
def place(tmp_path: Path, miniatures: Path, own_cache: Path) -> Place:
    return Place(Conditions("cpu", "fp32", 1, 1, tmp_path), miniatures, own_cache)


def test_the_word_gpu_stands_for_its_groups_in_their_order() -> None:
    wanted = bench_rows.SETS["gpu"]
    assert "gpu-works" in wanted
    assert tuple(bench_rows.chosen_groups(["gpu"])) == wanted
    assert bench_rows.chosen_groups(["gpu", "startup"]) == ["startup", *wanted]


def test_only_its_name_starts_what_is_of_a_gpu_alone() -> None:
    every, usual = bench_rows.chosen_groups(["all"]), bench_rows.chosen_groups([])
    assert {"memory", "startup"} <= set(every) and "memory" not in usual
    assert not set(bench_rows.SETS["gpu"]) & {*every, *usual}
    assert bench_rows.chosen_groups(["gpu-works"]) == ["gpu-works"]


def test_the_list_shows_sets_and_what_all_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "not in 'all'" in lines["gpu-works"] and "not in 'all'" not in lines["memory"]
    assert lines["gpu"].split(maxsplit=1)[1] == ", ".join(bench_rows.SETS["gpu"])


def test_a_failed_check_ends_with_1_and_the_others_still_come(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Place
) -> None:
    def wrong(place: Place) -> str:
        raise ZeroDivisionError("of\nnothing")

    def skipped(place: Place) -> str:
        raise gpu_works.Skipped("abacus is not installed")

    monkeypatch.setattr(gpu_works, "prepared", lambda setting: place)
    monkeypatch.setattr(
        gpu_works,
        "checks",
        lambda place: [
            Check("first", wrong, alone=True),
            Check("bad words", lambda place: str(place.run(place.folder()))),
            Check("absent", skipped),
            Check("good", lambda place: "all is well"),
        ],
    )
    assert main(["bench", "--rows", "gpu-works", "--device", "cpu", "--out", str(tmp_path / "b")]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "ZeroDivisionError" in said
    lines = [line for line in said.splitlines() if line.startswith("cliqa-bench: error: ")]
    assert len(lines) == 1 and "which strategy" in lines[0]  # what the command itself said
    found = json.loads((tmp_path / "b" / "bench.json").read_text())
    failed = found["failed"]
    assert failed["gpu-works: first, on cpu at toy size"] == "ZeroDivisionError: of nothing"
    assert "failed with 2: cliqa-bench: error: " in failed["gpu-works: bad words, on cpu at toy size"]
    notes = {row["what"]: (row["note"], row["value"]) for row in found["rows"]}
    assert len(failed) == len(notes) == 2
    assert notes["absent, on cpu at toy size"] == ("skipped: abacus is not installed", None)
    note, seconds = notes["good, on cpu at toy size"]
    assert note == "all is well" and seconds >= 0
    text = (tmp_path / "b" / "bench.md").read_text()
    assert "`gpu-works: first, on cpu at toy size` failed: ZeroDivisionError: of nothing" in text


def test_jobs_that_failed_are_named_instead_of_the_last_line() -> None:
    said = "failed: train A: x\nTraceback\nfailed: train B: y\nfailed: train A: x\n2 failed, the same again\n"
    assert process._reason(said) == "failed: train A: x; failed: train B: y"
    assert process._reason("one\ntwo\n") == "two"
    assert process._reason("") == "nothing"


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--help was not done after 0\.001 s"):
        process.run(["--help"], tmp_path, limit=0.001)
    assert not process._running


def test_stopped_checks_leave_no_command_behind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(place: Place) -> str:
        while not process._running:
            time.sleep(0.01)
        return "the other has begun"

    def long(place: Place) -> str:
        return process.run(["-n1", "-r1", "import time; time.sleep(100)"], place.cache, "timeit").output

    monkeypatch.setattr(gpu_works, "cores", lambda: 2)
    start = time.monotonic()
    rows = gpu_works.side_by_side(place, [Check("short", begun), Check("long", long)])
    assert next(rows).what.startswith("short")
    rows.close()  # type: ignore[attr-defined]
    assert not process._running
    assert time.monotonic() - start < 50


def test_scores_after_a_real_out_of_memory_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    note = gpu_works.out_of_memory(place)
    assert note.endswith("the scores of 13 images are the same bits")
    assert int(note.split(":")[1].split(";")[0]) >= 1
    monkeypatch.setattr(gpu_works.Hungry, "_bytes", lambda self, images: 1)
    with pytest.raises(UserError, match="memory was never used up"):
        gpu_works.out_of_memory(place)


def test_scores_that_depend_on_the_batch_are_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gpu_works.outermost
    monkeypatch.setattr(gpu_works, "outermost", lambda images: plain(images) + len(images) / 8)
    with pytest.raises(UserError, match=r"scores after an out-of-memory error differ by up to [0-9]"):
        gpu_works.out_of_memory(place)


def test_two_images_fit_and_three_do_not() -> None:
    hungry = gpu_works.Hungry(torch.device("cpu"))
    assert len(hungry(torch.zeros(2, 3, 4, 4))) == 2
    with pytest.raises(RuntimeError, match=r"allocate memory|not enough memory"):
        hungry(torch.zeros(3, 3, 4, 4))
    assert hungry.failed == 1


@pytest.mark.slow
def test_two_strategies_twice_with_the_same_bits(place: Place) -> None:
    note = gpu_works.deterministic(place)
    assert note.endswith("arrays of weights and answers are the same bits")
    first, second = (folder for folder in place.setting.folder.iterdir() if (folder / "train").is_dir())
    assert len(gpu_works.trained(first)) == 4 and set(gpu_works.trained(first).values()) == {"cpu"}
    ours, theirs = gpu_works.arrays(first), gpu_works.arrays(second)
    assert any("answers.npz scores" in name for name in ours)
    assert any("state.safetensors" in name for name in ours)
    assert not gpu_works.differences(ours, theirs)
    assert set(gpu_works.apart_by(gpu_works.srccs(first), gpu_works.srccs(second))) == {0}


def test_arrays_that_differ_are_named_with_their_distance() -> None:
    same = {"keys": np.array(["x"]), "w": np.array([1.0, 2.0], np.float32), "n": np.array([np.nan])}
    assert not gpu_works.differences(same, {name: part.copy() for name, part in same.items()})
    w = np.array([1.0, 2.5], np.float32)
    assert gpu_works.differences(same, {**same, "w": w}) == {"w": 0.5}
    assert gpu_works.differences(same, {**same, "keys": np.array(["y"])}) == {"keys": math.inf}
    assert gpu_works.differences(same, {**same, "more": w}) == {"more": math.inf}
    assert gpu_works.differences(same, {**same, "w": w[:1]}) == {"w": math.inf}


def fake_runs(monkeypatch: pytest.MonkeyPatch, values: Iterator[float]) -> None:
    """Lets a run write nothing but one SRCC and one array, both the next value."""

    def run(self: Place, out: Path, *words: str, **more: Any) -> process.Ran:
        value = next(values)
        for name in ("report", "answers/node"):
            (out / name).mkdir(parents=True)
        text = f"table,metric,value,std,note\nIV,SRCC,{value},,\nIV,mSRCC,9,,\nV,SRCC,0.25,,\n"
        (out / "report" / "results.csv").write_text(text)
        np.savez(out / "answers" / "node" / "answers.npz", scores=np.array([value]), keys=np.array(["x"]))
        return process.Ran(1.0, math.nan, "")

    monkeypatch.setattr(Place, "run", run)


def test_the_numbers_of_the_notes(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    fake_runs(monkeypatch, iter([0.75, 0.5]))
    note = gpu_works.against_cpu(place, LWF)
    assert note == (
        "mean of 2 SRCC 0.500; differs from the CPU by 0.12 (median) and 0.25 (most); 1.0 s, on the CPU 1.0 s"
    )  # the mean over both tables of the first run
    fake_runs(monkeypatch, iter([0.5, 0.625]))
    with pytest.raises(UserError, match=r"1 of 2 arrays differ, .*answers\.npz scores the most: .* 0\.125"):
        gpu_works.deterministic(place)
    fake_runs(monkeypatch, iter([0.5, 0.5]))
    assert gpu_works.deterministic(place) == "2 arrays of weights and answers are the same bits"
    fake_runs(monkeypatch, iter([0.5, 0.625]))
    assert gpu_works.spread(place) == ("2 runs: 2 SRCC spread by 0 to 0.125; 1 of 2 arrays differ in bits")


def test_srcc_of_different_things_are_not_compared() -> None:
    a, b = ("IV", "BID"), ("IV", "LIVE")
    assert gpu_works.apart_by({a: 0.5, b: math.nan}, {a: 0.25, b: math.nan}) == [0.25, 0]
    assert gpu_works.apart_by({a: 0.5}, {a: math.nan}) == [math.inf]
    with pytest.raises(UserError, match="SRCC on one side only: 1, such as that of IV LIVE"):
        gpu_works.apart_by({a: 0.5, b: 0.5}, {a: 0.5})


def test_timm_may_be_missing(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setattr(gpu_works, "find_spec", lambda name: None)
    chosen = [check for check in gpu_works.backbone_checks(place) if "timm" in check.what]
    (found,) = [gpu_works.result(place, check) for check in chosen]
    assert isinstance(found, Measurement) and found.note == "skipped: timm is not installed"


def test_every_strategy_is_checked_in_one_of_several_commands_on_a_gpu(place: Place) -> None:
    on_gpu = place._replace(setting=Conditions("cuda", "fp32", 1, 1, place.setting.folder))
    parts = [c.what.removeprefix("strategies ").split(", ") for c in gpu_works.strategy_checks(on_gpu)]
    names = {name for part in parts for name in part}
    assert len(parts) == gpu_works.COMMANDS and len(names) == sum(map(len, parts))
    (together,) = gpu_works.strategy_checks(place)
    assert {"lwf", "si", "mas", "replay", "ewc", "ridge", "avalanche:EWCPlugin"} <= names
    assert set(together.what.removeprefix("strategies ").split(", ")) == names


@pytest.mark.slow
def test_an_interrupted_run_is_ended(place: Place) -> None:
    check = Check("resumed", partial(gpu_works.resumed, devices=("", "cpu")))
    found = gpu_works.result(place, check)
    assert isinstance(found, Measurement), found
    assert found.note == (
        "trained on cpu before the interruption, on cpu, cpu after it; verify finds nothing wrong"
    )


@pytest.mark.slow
def test_everything_at_toy_size(tmp_path: Path) -> None:
    found = list(gpu_works.measure(Conditions("cpu", "fp32", 1, 1, tmp_path)))
    assert not [row for row in found if isinstance(row, Failed)]
    assert all(isinstance(row, Measurement) and "on cpu at toy size" in row.what for row in found)
    assert len(found) == 12
