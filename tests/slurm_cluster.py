"""Runs an array on a real Slurm of two nodes on this machine, disturbs it, and compares with one machine.

`PYTHONPATH=. python tests/slurm_cluster.py` in the checkout's root, as root, with Debian's packages
slurmctld, slurmd, slurm-client and munge and the extra [slurm]: some minutes. No systemd and no configuration
of the system is used. Of three tasks, one is killed (-9, by its process id) in the middle of a training, one
is put back into the queue by the signal that comes before the time limit, and the node of one is drained. It
prints what was done to whom; the exit code is 1 if any file but logs and times differs, or a training was
done twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster_lab import AtWork, Lab, await_training, conclude, environment_of, until

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo")
CONFIGURATION = """\
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
"""One page: two nodes of two cores each, no accounting, no cgroups."""


@contextlib.contextmanager
def slurm(root: Path) -> Iterator[Path]:
    """Starts munge, the controller and two nodes; gives the configuration; ends them by their process ids."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise SystemExit(f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    key, conf = root / "munge.key", root / "slurm.conf"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    (root / "state").mkdir()
    port = 20000 + os.getpid() % 10000
    host = platform.node().partition(".")[0]
    conf.write_text(CONFIGURATION.format(root=root, host=host, port=port, port1=port + 1, port2=port + 2))
    os.environ["SLURM_CONF"] = str(conf)
    files = {f"--{name}-file": root / f"munge.{name}" for name in ("key", "pid", "log", "seed")}
    munge = ["munged", "--foreground", "--force", f"--socket={root}/munge.socket"]
    munge += [f"{flag}={path}" for flag, path in files.items()]
    started = [subprocess.Popen(munge, stderr=subprocess.DEVNULL)]
    try:
        until(lambda: (root / "munge.socket").exists(), "munged does not start")
        started.append(subprocess.Popen(["slurmctld", "-D", "-i"], stderr=subprocess.DEVNULL))
        for node in NODES:
            started.append(subprocess.Popen(["slurmd", "-D", "-N", node], stderr=subprocess.DEVNULL))
        until(lambda: _told("sinfo", "--noheader", "--format=%T %D") == "idle 2", "the nodes do not come up")
        yield conf
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def task_of(at: AtWork) -> tuple[str, str]:
    """Returns the task of an array that has a training ("12_1"), and its node."""
    found = environment_of(at.pid)
    task = f"{found.get('SLURM_ARRAY_JOB_ID')}_{found.get('SLURM_ARRAY_TASK_ID')}"
    return task, found.get("SLURMD_NODENAME", "?")


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="of each training; more are easier to disturb")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        lab = Lab(root, args.epochs)
        expected = lab.expected()
        with slurm(root) as conf:
            lab.environment["SLURM_CONF"] = str(conf)
            lab.say(f"{_told('slurmctld', '-V')}: {_told('sinfo', '--noheader', '--format=%N %D nodes %T')}")
            return conclude(disturbed(lab, root / "out", expected) + refused(lab, root))


def disturbed(lab: Lab, out: Path, expected: dict[str, str]) -> list[str]:
    """Disturbs an array of three; returns what is wrong."""
    log = lab.root / "wait.log"
    options = ("--executor", "slurm", "--slurm", "partition=main,time=60,array=3", "--wait")
    waiting = lab.launch(out, log, *options)
    hit: set[str] = set()

    def another(at: AtWork) -> bool:
        return task_of(at)[0] not in hit and task_of(at)[1] in NODES

    at = await_training(out, another)
    task, node = task_of(at)
    os.kill(at.pid, signal.SIGKILL)
    lab.say(f"kill -9 {at.pid}: task {task} on {node}, epoch {at.epoch} of {at.node}")
    hit.add(task)

    at = await_training(out, another)
    task, node = task_of(at)
    subprocess.run(["scancel", "--signal=USR2", task], check=True)  # as Slurm does before the time limit
    lab.say(f"signal USR2: task {task} on {node}, epoch {at.epoch} of {at.node}")
    hit.add(task)

    at = await_training(out, another)
    task, node = task_of(at)
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test"], check=True)
    lab.say(f"drain {node}: task {task} is there, epoch {at.epoch} of {at.node}")
    lab.say("queue: " + "; ".join(_told("squeue", "--noheader", "--array", "--format=%i %T %N").splitlines()))

    code = waiting.wait(1800)
    lab.say(f"--wait ended with exit code {code}; nodes: {_told('sinfo', '--noheader', '--format=%N %T')!r}")
    texts = {path.name: path.read_text(errors="replace") for path in sorted((out / "slurm").glob("*.out"))}
    for name, text in texts.items():
        resumed = re.findall(r"(\S+ on .*): resuming after epoch (\d+) of (\d+)", text)
        starts = text.count("Starting with JobEnvironment")
        lab.say(f"{name}: started {starts} times; resumed {resumed or 'nothing'}")
        for line in re.findall(r"submitit \w+ \((.*(?:Starting with|Caught signal|Requeued job).*)", text):
            lab.say(f"  {line}")
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True)
    wrong = lab.compare(out, expected, "\n".join(texts.values()))
    if code:
        wrong.append(f"--wait: exit code {code}\n{log.read_text()}")
    if sum(text.count("Starting with JobEnvironment") for text in texts.values()) < 4:
        wrong.append("no task was put back into the queue")
    return wrong


def refused(lab: Lab, root: Path) -> list[str]:
    """Gives Slurm what it refuses; returns what does not end in one line with exit code 2."""
    wrong = []
    for options in ("partition=no-such-queue,time=10", "partition=main,time=10,colour=red"):
        log, out = root / "refused.log", root / "refused"
        code = lab.launch(out, log, "--executor", "slurm", "--slurm", options).wait()
        text = log.read_text().strip()
        lab.say(f"--slurm {options}: exit code {code}: {text}")
        if code != 2 or "\n" in text or out.exists():
            wrong.append(f"--slurm {options}: exit code {code}, {text!r}, {list(root.glob('refused/*'))}")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
