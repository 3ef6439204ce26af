"""Full disks, removed folders, locks between processes, and signals: what is said, and what is left."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cliqa_bench.benchmarks.pixels import hashes
from cliqa_bench.errors import UserError
from cliqa_bench.results import nodes
from cliqa_bench.results.nodes import Node
from cliqa_bench.system import disk, signals
from cliqa_bench.system.locks import claimed, locked, owner, sweep_locks

ROOT = Path(__file__).resolve().parents[1]


# -- full disks ------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Returns a folder on a disk of one megabyte, half of it taken."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk needs root and the right to mount")
    (folder / "other").write_bytes(b"x" * 500_000)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


BIG = np.random.default_rng(0).random(125_000)
"""A megabyte that does not compress."""


def save_tensors(path: Path) -> None:
    save_file({"x": BIG}, path)


def save_arrays(path: Path) -> None:
    nodes.write_arrays(path, {"x": BIG})


def test_a_figure_on_a_full_disk(small: Path) -> None:
    from matplotlib.figure import Figure

    from cliqa_bench.reports.figures import style

    figure = Figure()
    figure.text(0.5, 0.5, "abc")
    with contextlib.suppress(OSError), (small / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(UserError, match=r"cannot write .*fig\.svg"):
        style.save(figure, small, "fig")
    assert {path.name for path in small.iterdir()} == {"other", "rest"}


@pytest.mark.parametrize(
    "write",
    [lambda path: path.write_bytes(BIG.tobytes()), save_arrays, save_tensors],
    ids=["bytes", "numpy", "safetensors"],
)
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(small: Path, write: Any) -> None:
    finished = Node(small, "train", "finished", {})
    with finished.building({}) as folder:
        (folder / "weights").write_bytes(b"123")
    line = (
        r"^cannot write .*No space left on device \(it needs more than \d\.\d MB, 0\.\d MB are free\); make"
    )
    with pytest.raises(UserError, match=line), Node(small, "train", "full", {}).building({}) as folder:
        write(folder / "x.npz")
    with pytest.raises(UserError, match=line), nodes.atomic_path(small / "x.npz") as path:
        write(path)
    assert sorted(p.name for p in small.iterdir()) == ["other", "train"]
    assert [p.name for p in (small / "train").iterdir()] == [finished.id]
    assert finished.file("weights").read_bytes() == b"123"


def test_a_read_only_disk_is_named(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for block in (nodes.atomic_path(small / "x"), Node(small, "train", "a", {}).building({})):
        with pytest.raises(UserError, match=f"cannot write {small}.*: Read-only file system"), block:
            pass
    with pytest.raises(UserError, match="Read-only"), claimed(small / "x.lock"):
        pass


def test_a_quota_is_a_full_disk(tmp_path: Path) -> None:
    line = r"Disk quota exceeded \(it needs more than 0\.1 MB, .* MB are free\)"
    with pytest.raises(UserError, match=line), nodes.atomic_path(tmp_path / "x") as path:
        path.write_bytes(bytes(100_000))
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert not list(tmp_path.iterdir())


def test_what_is_not_the_disk_s_is_not_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk.writing(tmp_path):
        print(1 / (not tmp_path))
    assert disk.as_os_error(ValueError("(os error 28)")) is None


def test_a_folder_removed_while_it_is_filled_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="was removed while it was being written; run again"),
        Node(tmp_path, "train", "a", {}).building({}) as folder,
    ):
        shutil.rmtree(tmp_path)
        (folder / "weights").write_bytes(b"123")


def test_a_cache_that_cannot_be_written_costs_time_alone(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    monkeypatch.setenv("CLIQA_CACHE", str(small))
    picture = ROOT / "README.md"
    assert hashes.content_hashes(ROOT, [picture], "pictures") == hashes.content_hashes(ROOT, [picture], "")


# -- power -----------------------------------------------------------------------------------------------


def test_a_name_is_given_when_the_content_lies_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def synced(handle: int) -> None:
        order.append("sync " + Path(f"/proc/self/fd/{handle}").readlink().name.partition("~")[0])
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        order.append(f"name {Path(target).name}")
        return rename(path, target)

    def replaced(path: Path, target: Path) -> Path:
        order.append(f"name {Path(target).name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "replace", replaced)
    node = Node(tmp_path, "train", "a", {})
    with node.building({}) as folder:
        (folder / "weights").write_bytes(b"123")
    at = order.index(f"name {node.id}")
    assert set(order[:at]) >= {"sync weights", "sync spec.json", "sync done.json", f"sync .{node.id}"}
    assert order[at + 1 :] == ["sync train"]
    order.clear()
    nodes.write_text(tmp_path / "x.json", "")
    assert order == ["sync .x", "name x.json", f"sync {tmp_path.name}"]
    order.clear()
    nodes.write_text(tmp_path / "x.json", "", lasting=False)
    assert order == ["name x.json"]


# -- locks -----------------------------------------------------------------------------------------------

HOLD = (
    "import sys, time; from pathlib import Path; from cliqa_bench.system.locks import claimed\n"
    "with claimed(Path(sys.argv[1])) as ours:\n print(ours, flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Returns a process that has the lock `tmp_path / "claims" / "x.lock"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "claims" / "x.lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_lock_is_one_process_s_and_free_when_it_dies(tmp_path: Path, holder: Any) -> None:
    path = tmp_path / "claims" / "x.lock"
    with claimed(path) as ours:
        assert not ours
    assert owner(path).startswith(f"process {holder.pid} on ")
    sweep_locks(path.parent)
    assert path.exists(), "a living owner keeps its lock"
    holder.kill()
    holder.wait()
    with claimed(path) as ours:
        assert ours
    sweep_locks(path.parent)
    assert not path.parent.exists()


def test_who_needs_a_lock_waits_and_says_so_once(tmp_path: Path, holder: Any, capsys: Any) -> None:
    path = tmp_path / "claims" / "x.lock"
    threading.Timer(0.2, holder.kill).start()
    begin = time.monotonic()
    with locked(path, "that does something") as real:
        assert real
        assert 0.1 < time.monotonic() - begin < 30
    host = os.uname().nodename
    assert capsys.readouterr().err == f"waiting for process {holder.pid} on {host} that does something\n"
    assert not path.exists()


def _count(path: Path, counter: Path, rounds: int) -> None:
    for _ in range(rounds):
        with locked(path, "that counts"):
            before = int(counter.read_text())
            time.sleep(0.0002)
            counter.write_text(str(before + 1))


def test_nobody_gets_the_lock_of_a_file_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("0")
    context = multiprocessing.get_context("fork")
    work = (tmp_path / "x.lock", tmp_path / "n", 60)
    processes = [context.Process(target=_count, args=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "n").read_text() == "240"
    assert not (tmp_path / "x.lock").exists()


# -- signals ---------------------------------------------------------------------------------------------

SWALLOWS = (
    "import os, signal, time; from cliqa_bench.system import signals\n"
    "signals.GRACE = 0.3\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "with signals.stoppable('the command'):\n"
    " try:\n"
    "  os.kill(os.getpid(), signal.{sent}); time.sleep(30)\n"
    " except BaseException:\n"
    "  {then}\n"
)


def ended(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stop_that_gets_lost_ends_the_process_all_the_same(sent: str, code: int) -> None:
    program = SWALLOWS.format(sent=sent, then="time.sleep(30)")
    done = ended(program)
    assert done.returncode == code
    assert done.stderr == signals.farewell("the command") + "\n"


IN_A_FINALISER = (
    "import os, signal, sys, time; from cliqa_bench.system import signals\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "class Thing:\n"
    " def __del__(self):\n"
    "  os.kill(os.getpid(), signal.{sent}); time.sleep(0)\n"
    "try:\n"
    " with signals.stoppable('the command'):\n"
    "  Thing()\n"
    "  time.sleep(30)\n"
    "except signals.STOPS as stop:\n"
    " sys.exit(signals.exit_code(stop))\n"
)


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stop_in_a_finaliser_is_raised_again(sent: str, code: int) -> None:
    done = ended(IN_A_FINALISER.format(sent=sent))
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGINT"])
def test_a_later_signal_ends_at_once_and_one_that_comes_soon_is_the_same_stop(sent: str) -> None:
    again = f"os.kill(os.getpid(), signal.{sent}); "
    then = f"{again}print('unwinding', flush=True); time.sleep(0.6); {again}time.sleep(30)"
    program = SWALLOWS.format(sent=sent, then=then).replace(
        "GRACE = 0.3", "GRACE, signals.SAME_STOP = 20, 0.5"
    )
    done = ended(program)
    assert (done.stdout, done.returncode) == ("unwinding\n", 128 + getattr(signal, sent))
    assert done.stderr.count("run the same command to resume") == 1


def test_a_stop_amid_the_imports_prints_no_traceback() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "cliqa_bench", "list"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    lines = iter(process.stderr)
    while not next(lines).rstrip().endswith("cliqa_bench.system.signals"):
        pass
    next(lines)  # something else was imported: from here on it can be stopped
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.rstrip().endswith("run the same command to resume: python -m cliqa_bench list")


def test_a_child_that_is_started_meanwhile_gets_no_signal() -> None:
    with signals.block_signals():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert {signal.SIGINT, signal.SIGTERM} <= blocked
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
