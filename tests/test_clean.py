"""`clean`: everything that it lists is unused, and everything that is used, or is not ours, stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_names import plan_of
from safetensors.numpy import save_file

from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.execution import run
from cliqa_bench.execution.clean import at_work, find_unused, remove_unused
from cliqa_bench.models.pretraining_config import DISTORTION_BN, pretraining
from cliqa_bench.reports import kept_report
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.results.records import Step, read_record, write_record
from cliqa_bench.system import locks
from cliqa_bench.system.disk import temporary_prefix
from cliqa_bench.system.locks import claimed

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(__file__).parent / "run_0_1_0" / "runs"
TSN, NAIVE, LAST = (
    "tsn-scnn-live-e2ac614bf0fc",
    "naive-scnn-live-e9930cb670cd",
    "naive-scnn-2bid-097ed9ebd140",
)
DEAD = "process 999999999 on here\n"
HOLD = (
    "import sys; from pathlib import Path; from cliqa_bench.system.locks import claimed\n"
    "with claimed(Path(sys.argv[1])) as ours:\n print(ours, flush=True); sys.stdin.readline()"
)


def content(*folders: Path) -> dict[str, str]:
    """Returns every file and folder, links not followed, with a hash of a file's content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for folder in folders
        for path in sorted(folder.rglob("*"))
    }


def of_a_dead_process(name: str) -> str:
    """Returns a temporary name of a process that is gone."""
    return temporary_prefix(name).replace(f"~{os.getpid()}~", "~999999999~") + "x"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a cache folder of the test's own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("CLIQA_CACHE", str(folder))
    return folder


@pytest.fixture
def out(tmp_path: Path, cache: Path) -> Path:
    """Returns the folder of two runs, all of which is used."""
    return Path(shutil.copytree(KEPT, tmp_path / "runs"))


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Lets another process take a lock, until its standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def hold(path: Path) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", HOLD, str(path)], subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        return process

    yield hold
    for process in started:
        process.communicate()


def without_tsn(out: Path) -> list[Path]:
    """Removes the record of TSN-IQA; returns the nodes that no other record names."""
    for path in (out / "runs").glob("tsn-*.json"):
        path.unlink()
    nodes = [path.parent for path in out.glob("*/*/done.json")]
    return [n for n in nodes if "naive" not in n.name and n.parent.name != "pictures"]


def plant_unused(out: Path) -> set[Path]:
    """Adds what nothing uses to an output folder; returns it."""
    found = set(without_tsn(out))
    for name in ("checkpoints", "claims", "in_use"):
        (out / name).mkdir()
    checkpoints = [
        out / "checkpoints" / f"{name}.safetensors" for name in (NAIVE, "lwf-scnn-2bid-0123456789ab")
    ]
    leftovers = [out / "train" / of_a_dead_process(TSN), out / "report" / of_a_dead_process("table.csv")]
    locks = [out / "claims" / f"train-{LAST}.lock", out / "in_use" / "999999999-0.lock"]
    leftovers[0].mkdir()
    (leftovers[0] / "spec.json").write_text("{")
    for path in (*checkpoints, leftovers[1]):
        path.write_bytes(b"x" * 1000)
    for path in locks:
        path.write_text(DEAD)
    return {*found, *checkpoints, *leftovers, *locks}


def plant_used(out: Path) -> None:
    """Adds what must stay: an interrupted training, what is being written, what is not ours."""
    shutil.rmtree(out / "train" / LAST)
    (out / "checkpoints" / f"{LAST}.safetensors").write_bytes(b"resumed from here")
    (out / "train" / f"{temporary_prefix(LAST)}x").mkdir()
    (out / "claims" / "mine.lock").write_text("not a process")
    (out / "poetry.lock").write_text(DEAD)
    (out / "checkpoints" / "mine.safetensors").write_bytes(b"mine")
    (out / "train" / "notes").mkdir()
    (out / "train" / "notes" / "monday.txt").write_text("mine")
    unfinished = out / "train" / "tsn-scnn-csiq-0123456789ab"
    unfinished.mkdir()
    (unfinished / "spec.json").write_text("{}")


def network(path: Path, made: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({"x": np.zeros(3)}, path, {"made_by": json.dumps({**made, "accuracy": 0.5})})


def decoded(cache: Path, miniatures: Path, name: str) -> Path:
    """Decodes a few pictures into a cache file."""
    dataset = load_materials([name], miniatures)[name].dataset
    return ImageCache.open(dataset, [rating.key for rating in dataset.ratings()][:2], 96).path


def another_pillow(path: Path) -> None:
    """Lets a cache file say that it was decoded with another version."""
    import PIL

    old, new = (
        f'"pillow": "{version}"'.encode() for version in (PIL.__version__, "x" * len(PIL.__version__))
    )
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


# -- what is listed ------------------------------------------------------------------------------------------


def test_all_of_a_finished_run_is_used(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(out)
    assert main(["clean", str(out)]) == main(["clean", str(out), "--yes"]) == 0
    assert capsys.readouterr().out == "nothing is unused\n" * 2
    assert content(out) == before


def test_it_lists_what_is_unused_and_changes_nothing(
    out: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = plant_unused(out)
    plant_used(out)
    before = content(out, cache)
    assert {item.path for item in find_unused(out).unused} == expected
    assert main(["clean", str(out)]) == 0
    said = capsys.readouterr().out
    assert content(out, cache) == before
    assert said.startswith(f"unused in {out}:\n  node")
    assert f"{out / 'train' / 'notes'} is left alone: it is not a node" in said
    assert f"{len(expected)} items" in said and "nothing was removed" in said
    assert "999999999 is at work" not in said


def test_removed_is_what_was_listed_and_nothing_else(out: Path, cache: Path) -> None:
    plant_unused(out)
    plant_used(out)
    before = content(out, cache)
    listed = {str(item.path) for item in find_unused(out).unused}
    assert main(["clean", str(out), "--yes"]) == 0
    gone = {path for path in before if path in listed or any(path.startswith(f"{one}/") for one in listed)}
    gone.add(str(out / "in_use"))  # a folder of locks goes with the last one
    assert content(out, cache) == {path: text for path, text in before.items() if path not in gone}
    assert find_unused(out).unused == []


def test_plan_report_and_verify_say_what_they_said(
    out: Path, miniatures: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_unused(out)
    plan = ["plan", "--config", str(out / "config.yaml"), "--strategy", "naive", "--data", str(miniatures)]
    report = ["report", "--out", str(out), "--format", "csv,md,tex"]

    def said() -> tuple[str, dict[str, str], object]:
        assert main([*plan, "--out", str(out)]) == main(report) == 0
        found = verify(out)
        facts = found.problems, found.runs, found.cells, found.plain
        written = content(out / "report")
        del written[str(out / "report" / kept_report.FILE)]  # it names all that was there
        return capsys.readouterr().out, written, facts

    before = said()
    removed = remove_unused(out).unused
    assert sum(item.kind == "node" for item in removed) == 12
    assert said() == before
    assert before[2][0] == []  # type: ignore[index]


def test_a_node_with_a_file_of_another_hand_is_left_alone(out: Path) -> None:
    (node, *_) = [path for path in without_tsn(out) if path.name == TSN]
    (node / "monday.txt").write_text("mine")
    elsewhere = out.parent / "elsewhere"
    linked = next(path for path in (out / "gate").iterdir())
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    found = remove_unused(out)
    assert (node / "monday.txt").is_file() and (node / "done.json").is_file()
    assert linked.is_symlink() and (elsewhere / "done.json").is_file()
    assert sorted(found.notes) == sorted([
        f"{node} is left alone: its done.json does not name monday.txt",
        f"{linked} is left alone: it is not a node",
    ])  # fmt: skip
    assert len(found.unused) == 10


@pytest.mark.parametrize("without", ["answers", "gates", "steps"])
def test_a_node_that_one_part_of_a_record_names_is_used(out: Path, without: str) -> None:
    without_tsn(out)
    (path,) = (out / "runs").iterdir()
    tsn = read_record(next((KEPT / "runs").glob("tsn-*.json")))
    nodes = {*tsn.answers}  # trainings and gates; each is named in two of the three
    path.unlink()
    one = [(TSN, 0)]
    parts: dict[str, Any] = {"answers": {}, "gates": {}, "steps": [Step("live", one), Step("bid", one)]}
    write_record(out, replace(tsn, **{without: parts[without]}))
    assert not nodes & {item.path.name for item in find_unused(out).unused}


# -- the cache -----------------------------------------------------------------------------------------------


def test_caches_of_other_versions_are_unused(out: Path, cache: Path, miniatures: Path) -> None:
    old, new = decoded(cache, miniatures, "bid"), decoded(cache, miniatures, "live")
    another_pillow(old)
    (cache / "decoded" / "mine.images").write_bytes(b"mine" * 100)
    today = pretraining(DISTORTION_BN["quick"])
    network(cache / "distortion-bn" / "resnet18-a.safetensors", {**today, "pictures_version": 0})
    network(cache / "distortion-bn" / "resnet18-b.safetensors", {**today, "steps": 7})
    network(cache / "distortion-bn" / "resnet18-c.safetensors", today)
    network(cache / "pretrain" / "resnet18-c.safetensors", {"step": "100"})
    network(cache / "pretrain" / "resnet18-d.safetensors", {"step": "100"})
    (cache / "distortion-bn" / "damaged.safetensors").write_bytes(b"mine")
    (cache / "decoded" / "bid.lock").write_text(DEAD)
    before = content(cache)
    unused = {item.path: item.why for item in find_unused(out).unused}
    assert {
        path.relative_to(cache).as_posix().replace(old.name, "OLD"): why for path, why in unused.items()
    } == {
        "distortion-bn/resnet18-a.safetensors": "pre-trained on other pictures than the current ones",
        "distortion-bn/resnet18-b.safetensors": "pre-trained with other settings than the current ones",
        "pretrain/resnet18-c.safetensors": "its training is finished",
        "decoded/OLD": unused[old],
        "decoded/bid.lock": "its process was killed",
    }
    assert unused[old].startswith("decoded with pillow x")
    assert {item.path for item in remove_unused(out).unused} == set(unused)
    assert content(cache) == {path: text for path, text in before.items() if Path(path) not in unused}
    assert new.is_file()


def test_a_cache_that_another_run_makes_anew_stays(
    out: Path, cache: Path, miniatures: Path, holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    path = decoded(cache, miniatures, "bid")
    another_pillow(path)
    before = path.read_bytes()
    holder(path.with_suffix(".lock"))
    found = remove_unused(out)
    assert found.unused == [] and found.notes == [f"{path} is left alone: another run is making it again"]
    assert path.read_bytes() == before


# -- beside runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [f"claims/train-{LAST}.lock", "in_use/7-x.lock"])
def test_while_a_run_is_at_work_nothing_is_removed(
    out: Path,
    lock: str,
    holder: Callable[[Path], subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant_unused(out)
    (out / lock).unlink(missing_ok=True)
    process = holder(out / lock)
    before = content(out)
    assert main(["clean", str(out)]) == 0
    assert f"note: process {process.pid} on " in capsys.readouterr().out
    assert main(["clean", str(out), "--yes"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"process {process.pid} on " in error and "nothing was removed" in error
    # at its end a command clears folders of locks, as every other one does
    assert {p: c for p, c in content(out).items() if "in_use" not in p} == {
        p: c for p, c in before.items() if "in_use" not in p
    }
    assert (out / lock).is_file()
    process.communicate()
    assert main(["clean", str(out), "--yes"]) == 0
    assert find_unused(out).unused == []


def test_a_run_is_at_work_from_before_it_looks_at_what_is_there(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: object, **__: object) -> None:
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* is at work"):
            remove_unused(out)
        raise UserError("seen")

    monkeypatch.setattr(run, "prepare", prepare)
    nodes = without_tsn(out)
    config = plan_of("quick, S-CNN", out=out).config
    with pytest.raises(UserError, match="seen"):
        run.run(config, "")
    assert all(node.is_dir() for node in nodes)
    assert not (out / "in_use").exists()
    assert len(remove_unused(out).unused) == len(nodes)


def test_a_run_waits_for_clean(
    out: Path, holder: Callable[[Path], subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    process, entered = holder(out / "in_use" / "clean.lock"), threading.Event()

    def work() -> None:
        with at_work(out):
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not entered.wait(0.3)
    process.communicate()
    assert entered.wait(10)
    thread.join()
    assert f"waiting for process {process.pid} on " in capsys.readouterr().err
    assert not (out / "in_use").exists()


def test_two_runs_do_not_wait_for_each_other(out: Path) -> None:
    with at_work(out), at_work(out):
        assert len(list((out / "in_use").iterdir())) == 2
    assert not (out / "in_use").exists()


# -- misuse and kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_without_readable_records_nothing_is_removed(
    out: Path, tmp_path: Path, yes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    without_tsn(out)
    (record,) = (out / "runs").iterdir()
    record.write_text("{}")
    before = content(out)
    assert main(["clean", str(out), *yes]) == 2
    assert f"{record} is not a run record" in capsys.readouterr().err
    record.unlink()
    del before[str(record)]
    assert main(["clean", str(out), *yes]) == 2
    assert main(["clean", str(tmp_path / "nowhere"), *yes]) == 2
    assert f"no runs in {out}" in capsys.readouterr().err
    assert content(out) == before
    assert not (tmp_path / "nowhere").exists()


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
left = int(sys.argv[2])
def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for owner, name in ((os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "mkdir")):
    setattr(owner, name, counted(getattr(owner, name)))
from cliqa_bench.execution.clean import remove_unused
remove_unused(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8, 20])
def test_killed_it_leaves_a_folder_that_verifies(out: Path, after: int) -> None:
    unused = plant_unused(out)
    assert main(["report", "--out", str(out), "--no-figures", "--format", "csv"]) == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out), str(after)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert verify(out).problems == []
    remove_unused(out)
    assert find_unused(out).unused == []
    assert not [path for path in unused if path.exists()]
    assert not list(out.rglob(".*~*")), "its own temporary folders, too"
    assert verify(out).problems == []


def test_a_folder_that_cannot_be_changed_is_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tsn(out)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"^cannot remove .*: Permission denied$"):
        remove_unused(out)
    assert not list(out.rglob(".*~*"))


def test_what_a_dead_machine_left_is_removed_once_its_lease_is_over(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIQA_LEASES", "1")
    monkeypatch.setattr(locks, "LEASE", 0.2)
    locks._has_flock.cache_clear()
    lease = out / "in_use" / "7-abcd.lock"
    lease.parent.mkdir(exist_ok=True)
    lease.write_text(
        "process 7 on elsewhere\nother-boot.1 7 99 abcdef 000000000003\n2026-01-01T00:00:00+00:00\n"
    )
    half = out / "train" / ".tsn-x~elsewhere.1~7~abcdefgh"
    half.mkdir()
    try:
        assert not any(item.path in (lease, half) for item in find_unused(out).unused)
        locks._watched.clear()  # however long that took, the watch begins now
        removed = {item.path for item in remove_unused(out).unused}
    finally:
        locks._has_flock.cache_clear()
    assert {lease, half} <= removed and not lease.exists() and not half.exists()
    assert "whether process 7 on elsewhere is still at work" in capsys.readouterr().err


def test_where_leases_are_used_a_flock_counts_as_at_work(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIQA_LEASES", "1")
    monkeypatch.setattr(locks, "LEASE", 0.0)
    locks._has_flock.cache_clear()
    flock = out / "in_use" / "7-abcd.lock"
    flock.parent.mkdir(exist_ok=True)
    flock.write_text("process 7 on elsewhere\n2026-01-01T00:00:00+00:00\n")
    try:
        with pytest.raises(UserError, match="process 7 on elsewhere is at work"):
            remove_unused(out)
    finally:
        locks._has_flock.cache_clear()


def test_a_lock_that_is_held_is_not_cleared(out: Path) -> None:
    (out / "claims").mkdir()
    with claimed(out / "claims" / "report.lock"):
        assert find_unused(out).unused == []
