"""What the runs on real clusters share: the work, who is at it, the protocol of kills, and the comparison.

Not a test module: `slurm_cluster.py` and `dask_cluster.py` use it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chaos_process
from safetensors import SafetensorError, safe_open

from cliqa_bench.errors import UserError
from cliqa_bench.execution.status import Inventory
from cliqa_bench.results.nodes import CHECKPOINTS

ROOT = Path(__file__).resolve().parents[1]
ORDERS = "bid,clive;clive,bid"
WORDS = (
    "run", "--strategy", "lwf,tsn,si", "--weights", "random", "--preset", "quick", "--set",
    "training.warmup_epochs=1", "--device", "cpu", "--jobs", "1", "--no-figures",
)  # fmt: skip
SCALE = 0.25
"""Size of the generated data, as in the tests."""


class Lab:
    """A folder with generated data, and what a run on one machine makes of them.

    Args:
        root: The folder.
        epochs: Of each training, after the warm-up.
        orders: What is learned one after another; more orders are more work.
    """

    def __init__(self, root: Path, epochs: int, orders: str = ORDERS) -> None:
        from cliqa_bench.benchmarks.generated.make import make_miniatures

        self.root, self.data = root, root / "data"
        self.environment = {
            **os.environ, "CLIQA_CACHE": str(root / "cache"), "CLIQA_CHECKPOINT_SECONDS": "0",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.words = [*WORDS, "--orders", orders, "--data", str(self.data)]
        self.words += ["--set", f"training.epochs={epochs}"]
        self.start = time.monotonic()
        make_miniatures(self.data, SCALE, seed=0)

    def command(self, out: Path, *more: str) -> list[str]:
        """Returns the command line of a run."""
        return [sys.executable, "-m", "cliqa_bench", *self.words, "--out", str(out), *more]

    def launch(self, out: Path, log: Path, *more: str) -> subprocess.Popen[bytes]:
        """Starts a run."""
        with log.open("wb") as file:
            return subprocess.Popen(
                self.command(out, *more),
                cwd=ROOT,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def expected(self) -> dict[str, str]:
        """Returns what one process on one machine makes: file -> hash, without logs and times."""
        out, log = self.root / "expected", self.root / "expected.log"
        code = self.launch(out, log, "--executor", "local").wait()
        if code:
            raise SystemExit(f"the undisturbed run fails (exit code {code}):\n{log.read_text()}")
        self.say(f"undisturbed: {len(list(out.glob('train/*/done.json')))} trainings on one machine")
        return chaos_process.results(out)

    def say(self, text: str) -> None:
        """Prints a line of the protocol."""
        now = datetime.datetime.now(datetime.UTC).strftime("%H:%M:%S")
        print(f"{now} (+{time.monotonic() - self.start:5.0f} s)  {text}", flush=True)

    def compare(self, out: Path, expected: dict[str, str], logs: str, unheard: int = 0) -> list[str]:
        """Compares every file but logs and times; returns what is wrong.

        Args:
            out: What a cluster made.
            expected: What it should be.
            logs: What the runs printed: each training says so once.
            unheard: how many trainings may have ended unheard.
        """
        found = {name: h for name, h in chaos_process.results(out).items() if not name.startswith("slurm/")}
        wrong = chaos_process.differences(found, expected) + chaos_process.torn(out)
        nodes = len(list(out.glob("train/*/done.json")))
        said = len(re.findall(r"validation SRCC (?:-?[0-9.]+|undefined)[^\n]*, \d+ s", logs))
        self.say(
            f"{len(found)} files compared, {len(wrong)} differ; {nodes} trainings done, {said} ended in logs"
        )
        if not nodes - unheard <= said <= nodes:
            wrong.append(f"{said} trainings ended, for {nodes} nodes")
        return wrong


@dataclass(frozen=True)
class AtWork:
    """A training under way: its node, the process that has it and where, and the epochs in its checkpoint."""

    node: str
    pid: int
    host: str
    epoch: int


def trainings(out: Path) -> Iterator[AtWork]:
    """Gives the trainings that are under way and have a checkpoint, so that a kill comes in their middle."""
    with contextlib.suppress(UserError):
        for job in Inventory(out).look().running:
            node = job.job.removeprefix("train-")
            epoch = _epoch(out / CHECKPOINTS / f"{node}.safetensors")
            if node != job.job and epoch and (at := re.match(r"process (\d+) on (.*)", job.where)):
                yield AtWork(node, int(at[1]), at[2], epoch)


def _epoch(path: Path) -> int:
    try:
        with safe_open(path, "pt") as file:
            return int(json.loads(file.metadata()["body"])["epoch"])
    except (OSError, RuntimeError, SafetensorError, KeyError):  # not there yet, or gone meanwhile
        return 0


def await_training(out: Path, fits: Callable[[AtWork], bool], seconds: float = 600) -> AtWork:
    """Waits for a training in its middle that is as wanted."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := next(filter(fits, trainings(out)), None):
            return found
        time.sleep(0.1)
    raise SystemExit("no training was met in its middle; take more --epochs")


def until(done: Callable[[], object], otherwise: str, seconds: float = 60) -> None:
    """Waits until something is true, or ends with a message."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.2)


def free_port() -> int:
    """Returns a port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment_of(pid: int) -> dict[str, str]:
    """Returns the environment of a process; {} if it is gone."""
    try:
        parts = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(part.partition("=")[::2] for part in parts if part)


def parent_of(pid: int) -> int:
    """Returns the process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def conclude(wrong: list[Any]) -> int:
    """Prints what is wrong, and returns the exit code."""
    for one in wrong:
        print(f"WRONG: {one}")
    print("OK" if not wrong else f"{len(wrong)} wrong")
    return 1 if wrong else 0
