"""Locks on a disk without `flock`: leases that their owner renews and others take over when it is gone."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cliqa_bench.system import locks
from cliqa_bench.system.locks import claimed, locked, owner, sweep_locks

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_FLOCK = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
from cliqa_bench.system import locks
locks.BEAT, locks.POLL = 0.05, 0.05
"""
HOLD = (
    "import sys; from pathlib import Path; from cliqa_bench.system.locks import claimed\n"
    "with claimed(Path(sys.argv[1])) as ours:\n print(ours, flush=True); sys.stdin.readline()"
)
ELSEWHERE = "process 7 on elsewhere\nother-boot.1 7 99 abcdef {beat:012d}\n"


@pytest.fixture(autouse=True)
def no_flock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "POLL", 0.02)
    monkeypatch.setattr(locks, "_said", [])
    yield
    locks._has_flock.cache_clear()
    locks._watched.clear()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Returns the environment of a process that has no `flock`."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT_FLOCK)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")])}


@pytest.fixture
def holder(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Returns a process that has the lease `claims/x.lock`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "claims" / "x.lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        yield process
        with suppress(ProcessLookupError):
            process.kill()


def free(path: Path) -> bool:
    with claimed(path) as ours:
        return ours


def test_a_lease_is_one_owner_s_and_gone_in_the_end(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "x.lock"
    with claimed(path) as first, claimed(path) as second:
        assert (first, second) == (True, False)
        assert owner(path) == f"process {os.getpid()} on {os.uname().nodename}"
    with locked(path, "") as lasting:
        assert not lasting
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}: this disk does not support locks (flock)")
    assert said.count("\n") == 1, "once, in one line"


def test_one_that_is_renewed_is_kept_and_one_whose_owner_died_here_is_free_at_once(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims" / "x.lock"
    monkeypatch.setattr(locks, "LEASE", 1.0)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert not free(path)
    sweep_locks(path.parent)
    assert path.exists()
    monkeypatch.setattr(locks, "LEASE", 1000.0)
    holder.kill()
    holder.wait()
    assert free(path)
    sweep_locks(path.parent)
    assert not path.parent.exists()


def test_whether_one_is_held_is_seen_without_taking_it(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "claims" / "x.lock", tmp_path / "claims" / "y.lock"
    other.write_text(ELSEWHERE.format(beat=1))
    assert locks.is_held(path) and locks.is_held(other) and not locks.is_held(tmp_path / "claims" / "z.lock")
    holder.kill()
    holder.wait()
    assert not locks.is_held(path) and locks.is_held(other)
    monkeypatch.setattr(locks, "LEASE", 0.0)
    assert not locks.is_held(other), "not renewed for long enough"
    assert path.is_file() and other.is_file()


def test_watching_tells_an_owner_elsewhere_that_lives_from_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE", 0.5)
    lives, gone = tmp_path / "x.lock", tmp_path / "y.lock"
    beats = iter(range(10**6))

    def beat(_: float) -> None:
        lives.write_text(ELSEWHERE.format(beat=next(beats)))
        real(0.02)

    real = time.sleep
    beat(0)
    gone.write_text(ELSEWHERE.format(beat=1))
    monkeypatch.setattr(time, "sleep", beat)
    start = time.monotonic()
    locks.watch_leases([lives, gone])
    assert time.monotonic() - start >= 0.5
    assert locks.is_held(lives) and not locks.is_held(gone)


@pytest.mark.parametrize("when", [0, 1, 2**32])
def test_one_from_elsewhere_is_taken_over_by_our_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    path, now = tmp_path / "x.lock", 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for beat in range(3):  # renewed in the last moment, twice
        path.write_text(ELSEWHERE.format(beat=beat))
        os.utime(path, (when, when))  # its machine's clock is years apart, or the disk's
        assert not free(path)
        now += locks.LEASE - 1
        os.utime(path, (2**33 - when, 2**33 - when))
        assert not free(path)
    now += 1
    assert free(path)
    assert not list(tmp_path.iterdir())


def test_an_owner_that_wakes_up_late_harms_nobody(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims" / "x.lock"
    monkeypatch.setattr(locks, "LEASE", 0.5)
    holder.send_signal(signal.SIGSTOP)
    while not free(path):
        time.sleep(0.05)
    with claimed(path) as ours:
        assert ours
        before = path.read_text().splitlines()[0]
        holder.send_signal(signal.SIGCONT)
        time.sleep(0.3)  # it would renew six times
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.wait(30) == 0
        assert path.read_text().splitlines()[0] == before
    assert not path.exists()


def test_who_was_slower_gives_back_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(fresh := ELSEWHERE.format(beat=2))
    contents = iter([stale := ELSEWHERE.format(beat=1), fresh])
    with pytest.MonkeyPatch.context() as patch:  # renewed between the last look and the new name
        patch.setattr(locks, "_content", lambda _: next(contents))
        assert not locks._clear(path, stale)
    assert [p.name for p in tmp_path.iterdir()] == ["x.lock"]
    assert path.read_text() == fresh


def _count(path: Path, counter: Path, rounds: int) -> None:
    for _ in range(rounds):
        with locked(path, "that counts"):
            before = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(before + 1))


@pytest.mark.slow
def test_several_that_wait_for_a_dead_one_get_it_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE", 2.0)
    (tmp_path / "n").write_text("0")
    (tmp_path / "x.lock").write_text(ELSEWHERE.format(beat=1))
    context = multiprocessing.get_context("fork")
    crew = [context.Process(target=_count, args=(tmp_path / "x.lock", tmp_path / "n", 20)) for _ in range(4)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(60)
    assert (tmp_path / "n").read_text() == "80"
    assert {p.name for p in tmp_path.iterdir()} == {"n"}


SHARE = """
import sys, time
from pathlib import Path
from test_planner import config
from test_pool import CHECK, plan_of
from cliqa_bench.execution import worker
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.scheduler import run_jobs

out, kill = Path(sys.argv[1]), sys.argv[2:]

class Worker:
    def __init__(self, *_):
        pass

    def do(self, job):
        if job.kind == "check" or (out / job.about).exists():
            return
        with (out / "log").open("a") as log:
            log.write(job.about + "\\n")
        if kill and job.about == "w3":
            time.sleep(60)
        time.sleep(0.05)
        (out / job.about).touch()

plan = plan_of(config(out))
worker.Worker = Worker
(out / f"ready{kill or time.time_ns()}").touch()
while len(list(out.glob("ready*"))) < 3:
    time.sleep(0.01)
jobs = [Job("train", f"w{i}", "", f"w{i}", 1, (CHECK,)) for i in range(24)]
outcome = run_jobs(plan, plan_of, {}, [CHECK, *jobs], 1, lambda: None)
assert not outcome.failed and not outcome.skipped
"""


@pytest.mark.slow
def test_three_runs_share_the_work_and_that_of_one_that_dies(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", SHARE, str(out)]
    runs = [
        subprocess.Popen([*command, *kill], env=environment, stderr=subprocess.PIPE, text=True)
        for kill in (["dies"], [], [])
    ]
    path = out / "claims" / "train-w3.lock"
    wait_for(lambda: owner(path).startswith(f"process {runs[0].pid} ") or len(list(out.glob("w*"))) == 24)
    runs[0].kill()
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs[1:]] == [0, 0], said
    done = (out / "log").read_text().split()
    assert set(done) == {f"w{i}" for i in range(24)}
    assert len(done) <= 25, "only what the killed run had begun is begun again"
    assert [text.count("this disk does not support locks (flock)") for text in said] == [1, 1, 1]
    assert not (out / "claims").exists()


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
