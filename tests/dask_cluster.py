"""Runs on a real Dask cluster of processes on this machine, disturbs it, and compares with one machine.

`PYTHONPATH=. python tests/dask_cluster.py` in the checkout's root, with the extra [cluster]: some minutes.
Of three workers, one is killed (-9, by its process id) in the middle of a training, and another is added;
then the scheduler is killed, and once there is a new one the command is given again. It prints what was done
to whom; the exit code is 1 if any file but logs and times differs, or a training was done twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster_lab import ROOT, AtWork, Lab, await_training, conclude, free_port, parent_of, until


class Cluster:
    """A scheduler and its workers, each a process of its own.

    Args:
        lab: Where they log.
        name: For the names of logs.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab, self._name = lab, name
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )
        self.workers: dict[int, str] = {}
        where = ("127.0.0.1", self.port)
        until(lambda: socket.socket().connect_ex(where) == 0, "the scheduler does not start")

    def _start(self, what: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, *more]
        with (self._lab.root / f"{self._name}-{what}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._lab.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def add(self, name: str) -> None:
        """Starts a worker; no nanny brings it back."""
        flags = ("--no-nanny", "--nthreads", "1", "--name", name, "--no-dashboard")
        local = self._lab.root / f"dask-{name}"
        process = self._start("worker", self.address, *flags, "--local-directory", str(local))
        self.workers[process.pid] = name
        self._lab.say(f"worker {name} starts (process {process.pid})")

    def end(self) -> None:
        """Ends all of its processes that are still there."""
        for pid in (*self.workers, self.scheduler.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="of each training; more are easier to disturb")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dask-"))
    lab = Lab(root, args.epochs)
    clusters: list[Cluster] = []
    try:
        wrong = disturbed(lab, root / "out", lab.expected(), clusters)
        code = conclude(wrong + refused(lab, root, clusters))
    finally:
        for cluster in clusters:
            cluster.end()
    if code == 0:
        shutil.rmtree(root, ignore_errors=True)
    return code


def disturbed(lab: Lab, out: Path, expected: dict[str, str], clusters: list[Cluster]) -> list[str]:
    """Kills a worker, adds one, kills the scheduler and begins again; returns what is wrong."""
    cluster = Cluster(lab, "first")
    clusters.append(cluster)
    for name in ("w1", "w2", "w3"):
        cluster.add(name)
    log = lab.root / "first.log"
    run = lab.launch(out, log, "--executor", cluster.address)

    def of_cluster(at: AtWork) -> bool:
        return parent_of(at.pid) in cluster.workers

    at = await_training(out, of_cluster)
    pid = parent_of(at.pid)
    name = cluster.workers.pop(pid)
    os.kill(pid, signal.SIGKILL)
    lab.say(f"kill -9 {pid}: worker {name}, epoch {at.epoch} of {at.node}")
    cluster.add("w4")
    added = next(pid for pid, name in cluster.workers.items() if name == "w4")

    at = await_training(out, lambda at: parent_of(at.pid) == added)
    lab.say(f"worker w4, which came later, is at epoch {at.epoch} of {at.node}")
    done, under_way = len(list(out.glob("train/*/done.json"))), len(list(out.glob("claims/train-*.lock")))
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    lab.say(f"kill -9 {cluster.scheduler.pid}: the scheduler; {done} trainings are done")
    code = run.wait(300)
    text = log.read_text()
    lab.say(f"the command ended with exit code {code}: {text.strip().splitlines()[-1]}")
    wrong = [] if code == 2 else [f"the scheduler is gone, and the exit code is {code}"]

    again = Cluster(lab, "second")
    clusters.append(again)
    for name in ("w5", "w6", "w7"):
        again.add(name)
    second = lab.root / "second.log"
    code = lab.launch(out, second, "--executor", again.address).wait(1800)
    lab.say(f"the same command on a new scheduler ended with exit code {code}")
    for line in (*text.splitlines(), *second.read_text().splitlines()):
        if "resuming" in line or "tried once more" in line or "waiting for" in line:
            lab.say(f"  said: {line}")
    if code:
        wrong.append(f"exit code {code}\n{second.read_text()}")
    return wrong + lab.compare(out, expected, text + second.read_text(), under_way)


def refused(lab: Lab, root: Path, clusters: list[Cluster]) -> list[str]:
    """Asks for a scheduler that is not there; returns what does not end in one line with exit code 2."""
    address = f"tcp://127.0.0.1:{free_port()}"
    log, out = root / "refused.log", root / "refused"
    code = lab.launch(out, log, "--executor", address).wait()
    text = log.read_text().strip()
    lab.say(f"--executor {address}: exit code {code}: {text}")
    ok = code == 2 and "\n" not in text and not out.exists()
    return [] if ok else [f"--executor {address}: exit code {code}, {text!r}"]


if __name__ == "__main__":
    raise SystemExit(main())
