"""Two runs on one folder: each piece of work is done once, and a dead owner's claim is free at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from test_runner import ROOT, arguments, content

from cliqa_bench import cli, worker
from cliqa_bench.claims import CLAIMS, Taken, claim
from cliqa_bench.planner import TrainWork

pytest.importorskip("fcntl", reason="this system has no file locks")

HOLD = """
import sys
from pathlib import Path
from cliqa_bench.claims import claim
with claim(Path(sys.argv[1]), "work"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_what_another_process_holds_is_taken_until_it_lets_go(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with pytest.raises(Taken), claim(tmp_path, "work"):
        pass
    with claim(tmp_path, "other work"):
        pass
    said: list[str] = []
    timer = threading.Timer(0.3, lambda: process.communicate(""))
    timer.start()
    with claim(tmp_path, "work", lambda: said.append("waiting")):
        process.wait(timeout=10)
    timer.join()
    assert said == ["waiting"]
    assert not (tmp_path / CLAIMS).exists()


def test_a_dead_owners_claim_is_free_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / CLAIMS / "work.lock").exists(), "it had no time to tidy up"
    with claim(tmp_path, "work"):
        pass
    assert not (tmp_path / CLAIMS).exists()


def test_many_threads_hold_it_one_at_a_time(tmp_path: Path) -> None:
    inside, most, rounds = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            with claim(tmp_path, "work", lambda: None):
                inside += 1
                most = max(most, inside)
                rounds.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(rounds)) == (1, 180)


def test_two_runs_on_one_folder_share_the_work(
    miniatures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert cli.main(arguments(miniatures, alone)) == 0
    command = [sys.executable, "-m", "cliqa_bench", *arguments(miniatures, together)]
    env = {**os.environ, "CLIQA_CHECKPOINT_SECONDS": "1e9"}
    both = [subprocess.Popen([*command, "--jobs", n], cwd=ROOT, env=env) for n in ("1", "2")]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert content(together) | {"config.yaml": ""} == content(alone) | {"config.yaml": ""}
    said = capfd.readouterr()
    trained = [line for line in said.err.splitlines() + said.out.splitlines() if ": validation SRCC" in line]
    assert len(trained) == 2 + 2, "two of the run alone, and each of two once by one of the others"


def test_work_that_others_are_at_comes_last(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, ...]] = []
    held: dict[str, Any] = {}
    original = worker.Worker._train

    def train(self: worker.Worker, work: TrainWork) -> None:
        trained.append(work.datasets)
        original(self, work)

    def claiming(out: Path, what: str, wait: Any = None) -> Any:
        if what.startswith("train-tsn-scnn-live") and not held:
            held[what] = claim(out, what)
            held[what].__enter__()  # somebody else came first ...
            threading.Timer(1, held[what].__exit__, (None, None, None)).start()  # ... and goes
        return claim(out, what, wait)

    monkeypatch.setattr(worker.Worker, "_train", train)
    monkeypatch.setattr("cliqa_bench.worker.claim", claiming)
    assert cli.main([*arguments(miniatures, tmp_path / "runs"), "--jobs", "1"]) == 0
    assert held
    assert trained == [("bid",), ("live",)]
