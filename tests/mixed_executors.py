"""Lets commands of every executor work on one folder at once, disturbs them, and compares with one machine.

`PYTHONPATH=. python tests/mixed_executors.py` in the checkout's root, as root on Linux, with the extras
[slurm] and [cluster] and Debian's packages slurmctld, slurmd, slurm-client, munge, sshfs and openssh-server:
some minutes.

First on a disk with locks: processes of this machine, workers of a Dask cluster and tasks of Slurm; one of
each is killed (-9, by its process id) in the middle of a training. Then on a disk without: three machines
see it over SSH, where the `flock` of one says nothing to the others. Two of them are namespaces (`unshare`)
with process ids, a name, a mount and a monotonic clock of their own, and a wall clock that is hours fast or
slow. One is killed as a whole in the middle of a training. It prints what was done to whom; the exit code is
1 if a file but logs and times differs, a training was done twice, or a command fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster_lab import (
    ROOT,
    AtWork,
    Lab,
    await_training,
    conclude,
    environment_of,
    free_port,
    parent_of,
    until,
)
from dask_cluster import Cluster
from slurm_cluster import slurm

PROGRAMS = ("sshfs", "unshare", "ssh-keygen", "fusermount3")
CLOCK = """
import os, time
ahead, own = float(os.environ["HOURS_AHEAD"]) * 3600, time.time
time.time = lambda: own() + ahead
"""
"""A `sitecustomize` whose wall clock is wrong: libfaketime 0.9.10 breaks Python's waits for locks."""
ORDERS = "bid,clive,csiq;csiq,clive,bid"
SLURM = ("--executor", "slurm", "--slurm", "partition=main,time=60,array=2", "--wait")
HERE = platform.node()


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="of each training; more are easier to disturb")
    parser.add_argument("--only", choices=("locks", "leases"), help="one of both disks")
    args = parser.parse_args()
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"no {', '.join(missing)}: apt-get install sshfs openssh-server util-linux")
    root = Path(tempfile.mkdtemp(prefix="mixed-"))
    root.chmod(0o755)
    lab = Lab(root, args.epochs, ORDERS)
    expected = lab.expected()
    wrong = []
    with slurm(root) as conf:
        lab.environment["SLURM_CONF"] = str(conf)
        if args.only != "leases":
            cluster = Cluster(lab, "mixed")
            try:
                wrong += with_locks(lab, root / "locks", expected, cluster)
            finally:
                cluster.end()
        if args.only != "locks":
            wrong += without_locks(lab, root, expected)
        code = conclude(wrong)
    if code == 0:
        shutil.rmtree(root, ignore_errors=True)
    return code


def finished(
    lab: Lab,
    out: Path,
    expected: dict[str, str],
    runs: dict[str, subprocess.Popen[bytes]],
    seen: Path | None = None,
) -> list[str]:
    """Waits for commands, whose logs have their names; returns what is wrong with what they leave.

    Args:
        lab: Where they work.
        out: Their folder of results.
        expected: What should be in it.
        runs: Name -> command.
        seen: Where the folder is read; `out` itself by default.
    """
    wrong, texts = [], {}
    for name, process in runs.items():
        code = process.wait(1800)
        texts[name] = (lab.root / f"{out.name}-{name}.log").read_text()
        if code and name != "ended":
            wrong.append(f"{name}: exit code {code}\n{texts[name]}")
    seen = seen or out
    texts["tasks of slurm"] = "".join(path.read_text() for path in sorted((seen / "slurm").glob("*.out")))
    for name, text in texts.items():
        ended, resumed = text.count("validation SRCC"), text.count("resuming after")
        lab.say(f"{name}: {ended} trainings ended, {resumed} resumed")
    return wrong + lab.compare(seen, expected, "\n".join(texts.values()), unheard=1)


# -- one disk with locks -------------------------------------------------------------------------------------


def with_locks(lab: Lab, out: Path, expected: dict[str, str], cluster: Cluster) -> list[str]:
    """Runs three executors at once and kills a process of each; returns what is wrong."""
    for name in ("w1", "w2"):
        cluster.add(name)
    commands = {"local": ("--jobs", "2"), "dask": ("--executor", cluster.address), "slurm": SLURM}
    runs = {
        name: lab.launch(out, lab.root / f"{out.name}-{name}.log", *words) for name, words in commands.items()
    }

    def executor_of(at: AtWork) -> str:
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile
            if "SLURM_ARRAY_JOB_ID" in environment_of(at.pid):
                return "slurm"
            parent = parent_of(at.pid)
            return "dask" if parent in cluster.workers else "local" if parent == runs["local"].pid else ""
        return ""

    left = set(commands)
    while left:
        at = await_training(out, lambda at: executor_of(at) in left)
        name = executor_of(at)
        if name not in left:
            continue
        pid = parent_of(at.pid) if name == "dask" else at.pid
        os.kill(pid, signal.SIGKILL)
        cluster.workers.pop(pid, None)
        lab.say(f"kill -9 {pid} ({name}): epoch {at.epoch} of {at.node}")
        left.remove(name)
    return finished(lab, out, expected, runs)


# -- three machines, and a disk whose locks each sees for itself ---------------------------------------------


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """Serves a folder over SSH, as `root/served`; gives the command that mounts it at `root/shared`."""
    (root / "served").mkdir()
    (root / "shared").mkdir()
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True)
    port = free_port()
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": root / "host", "PidFile": "none",
        "AuthorizedKeysFile": root / "key.pub", "StrictModes": "no", "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (root / "sshd.conf").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", str(root / "sshd.conf")], stderr=subprocess.DEVNULL
    )
    until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "sshd does not start")
    trust = f"IdentityFile={root}/key,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
    try:
        yield f"sshfs -p {port} -o {trust} root@127.0.0.1:{root}/served {root}/shared 2>{root}/sshfs.log"
    finally:
        server.terminate()
        server.wait(20)


def without_locks(lab: Lab, root: Path, expected: dict[str, str]) -> list[str]:
    """Runs three machines on a disk without common locks and ends one; returns what is wrong."""
    out = root / "shared" / "leases"
    with served(root) as mount:
        subprocess.run(mount, shell=True, check=False)
        until((root / "shared").is_mount, "sshfs does not mount: see sshfs.log")
        try:
            dask = ("--executor", "dask", "--jobs", "2")
            runs = {"ended": machine(lab, out, "two", mount, 3, "ended", *dask)}
            await_training(out, lambda at: at.host == "two")  # the first, so that it gets work
            runs["local"] = machine(lab, out, "three", mount, -2, "local", "--jobs", "2")
            runs["slurm"] = lab.launch(out, root / "leases-slurm.log", *SLURM)
            await_training(out, lambda at: at.host in ("three", HERE))
            at = await_training(out, lambda at: at.host == "two")
            runs["ended"].kill()
            lab.say(f"machine two is killed: epoch {at.epoch} of {at.node}")
            for run in runs.values():
                run.wait(1800)
            clean = [sys.executable, "-m", "cliqa_bench", "clean", str(out), "--yes"]
            told = subprocess.run(
                clean, cwd=ROOT, env=lab.environment, capture_output=True, text=True, check=False
            )
            lab.say(f"clean --yes ended with exit code {told.returncode}: {told.stderr}{told.stdout}")
            wrong = [f"clean: exit code {told.returncode}"] if told.returncode else []
            return wrong + finished(lab, out, expected, runs, root / "served" / out.name)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(root / "shared")], check=False)


def machine(
    lab: Lab, out: Path, name: str, mount: str, ahead: int, run: str, *more: str
) -> subprocess.Popen[bytes]:
    """Starts a run on a machine of its own, whose clocks differ; it ends with the returned process.

    Args:
        lab: Where.
        out: Folder of the results.
        name: The machine's.
        mount: Mounts the disk.
        ahead: Hours by which its wall clock is fast.
        run: Names the log.
        more: Further words of the command line.
    """
    site = lab.root / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(CLOCK)
    words = shlex.join(lab.command(out, *more))
    script = f"hostname {name} && {mount} && exec {words}"
    spaces = ["--mount", "--uts", "--pid", "--time", "--mount-proc", "--fork", "--kill-child=KILL"]
    command = ["unshare", *spaces, f"--monotonic={len(name) * 100_000}", "sh", "-c", script]
    own = {"HOURS_AHEAD": str(ahead), "CLIQA_CACHE": str(lab.root / f"cache-{name}")}
    environment = {**lab.environment, **own, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    with (lab.root / f"{out.name}-{run}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    raise SystemExit(main())
