"""Kills commands at random moments, again and again, and sees that what they leave in the end is the same.

`PYTHONPATH=. python tests/chaos.py --kills 200` in the checkout's root: some twenty minutes. Every
campaign starts a command and kills it (SIGKILL; SIGTERM and Ctrl-C, to the process or its whole group, also
doubled; one of its processes, or two that try the same job), some times, then lets it finish, and compares
all results byte for byte with those of an undisturbed run. Some campaigns are two runs on one
folder, others start on a disk that is too small (root only: a small tmpfs).
It prints what was hit how often, and every deviation; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import chaos_process as lab

STRATEGIES = ("tsn", "lwf", "si", "replay")
ORDERS = "bid,clive;clive,bid"
WORKER = "KILL of a process of the run"
TWICE = "KILL of the processes that try a job, twice"
KILLS = ("KILL", "TERM", "INT", WORKER)
STOPS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}
WAYS = {
    "": (os.kill,),
    " to the group": (os.killpg,),  # as a terminal does it
    ", doubled": (os.kill, os.kill),
    " to the group, doubled": (os.killpg, os.killpg),
    ", then to the group": (os.kill, os.killpg),  # as `timeout` does it
}
"""How a stop reaches a run: its process, or all processes of its group."""
WAITED_FOR = ("train", "gate", "distances", "scores", "picture", "report")


@dataclass
class Task:
    """What is killed.

    Attributes:
        name: For the table of figures.
        words: The command line; "{out}" stands for its output folder.
        hook: What a fork does first, to make the work smaller.
        prepare: Makes what must be there before it starts.
    """

    name: str
    words: list[str]
    hook: Callable[[], None] | None = None
    prepare: Callable[[Path], None] | None = None


@dataclass
class Chaos:
    """A series of campaigns.

    Attributes:
        root: Folder of everything.
        rng: What chance is made of.
        figures: What happened how often.
        wrong: Every deviation.
        expected: Task -> its undisturbed results, and how many seconds they took.
    """

    root: Path
    rng: random.Random
    figures: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    expected: dict[str, tuple[dict[str, str], float]] = field(default_factory=dict)
    number: int = 0

    def start(self, task: Task, out: Path, cache: Path, cold: bool = False) -> lab.Run:
        """Starts a task."""
        self.number += 1
        self.figures["starts" + (", as users start it" if cold else "")] += 1
        words = [word.format(out=out) for word in task.words]
        return lab.start(words, cache, self.root / f"{self.number}.log", cold, None if cold else task.hook)

    def report(self, what: str, run: lab.Run) -> None:
        """Notes a deviation."""
        self.wrong.append(f"{what} (see {run.log})")
        print(f"DEVIATION: {self.wrong[-1]}", flush=True)

    # -- what a single campaign does -------------------------------------------------------------------------

    def undisturbed(self, task: Task) -> None:
        """Lets a task run through once, so that it is known what is to come out."""
        out, cache = self.root / f"expected-{task.name}", self.root / "cache"
        if task.prepare:
            task.prepare(out)
        begin = time.monotonic()
        run = self.start(task, out, cache)
        code = run.wait()
        if code != 0:
            raise SystemExit(f"{task.name} fails without being disturbed (code {code}):\n{run.said()}")
        self.expected[task.name] = lab.results(out), time.monotonic() - begin

    def campaign(self, task: Task, kills: int, runs: int = 1) -> None:
        """Kills a task some times, lets it finish, and compares.

        Args:
            task: The task.
            kills: How often.
            runs: How many runs of it share the folder.
        """
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        cache = self.root / "cache"
        if self.rng.random() < 0.3:  # all decoded images and hashes are made anew
            cache = self.root / "fresh-cache"
            shutil.rmtree(cache, ignore_errors=True)
        if task.prepare:
            task.prepare(out)
        for _ in range(kills):
            cold = self.rng.random() < 0.06 and task.hook is None
            started = [self.start(task, out, cache, cold) for _ in range(runs)]
            if self.disturb(task, self.rng.choice(started), out):
                self.figures["kills"] += 1
            for run in started:
                if run.wait() is None:
                    self.report(f"{task.name} hung", run)
                if orphans := run.orphans():
                    self.report(f"{task.name} left processes {orphans}", run)
            if damaged := lab.torn(out):
                self.report(f"{task.name}: damaged under a final name: {damaged}", started[0])
        last = [self.start(task, out, cache) for _ in range(runs)]
        self.finish(task, last, out, cache)

    def finish(self, task: Task, last: list[lab.Run], out: Path, cache: Path) -> None:
        """Waits for undisturbed runs, and compares what they leave with what is expected."""
        for run in last:
            if (code := run.wait()) != 0:
                self.report(f"{task.name} ended with code {code}, undisturbed", run)
        said = [line for run in last for line in run.said().splitlines() if "validation SRCC" in line]
        if twice := [line for line, n in Counter(line.partition(":")[0] for line in said).items() if n > 2]:
            self.report(f"{task.name}: trained twice: {twice}", last[0])
        if different := lab.differences(lab.results(out), self.expected[task.name][0]):
            self.figures["mismatches"] += len(different)
            self.report(f"{task.name}: not as undisturbed: {different}", last[0])
        if left := lab.leftovers(out, cache):
            self.report(f"{task.name}: left behind: {left}", last[0])
        self.figures["campaigns" + (", two runs on one folder" if len(last) > 1 else "")] += 1

    def disturb(self, task: Task, run: lab.Run, out: Path) -> bool:
        """Kills a run at a random moment; returns whether it came in time."""
        moment = self.rng.random() * self.expected[task.name][1] * (3 if run.cold else 1)
        awaited = self.rng.choice(WAITED_FOR) if self.rng.random() < 0.5 else ""
        deadline = time.monotonic() + (60 if awaited else moment)
        while time.monotonic() < deadline and not run.ended():
            if awaited and any(name.startswith(awaited) for name in lab.claims(out)):
                time.sleep(self.rng.random() * 0.05)
                break
            time.sleep(0.002)
        if run.ended():
            return False
        during, workers = lab.phase(out), {k: pid for k, pid in lab.claims(out).items() if pid != run.pid}
        kind = self.rng.choice(KILLS)
        if kind == WORKER and not workers:
            kind = "KILL"
        elif kind == WORKER and self.rng.random() < 0.3:
            kind = TWICE
        way = self.rng.choice(list(WAYS)) if kind in STOPS else ""
        try:
            self.send(kind, way, run, workers, out)
        except ProcessLookupError:  # it has just ended
            return False
        self.figures[f"killed during: {during if task.words[0] == 'run' else task.words[0]}"] += 1
        self.figures[f"killed by: {kind}{way}"] += 1
        self.check_end(task, run, kind, way)
        return True

    def send(self, kind: str, way: str, run: lab.Run, workers: dict[str, int], out: Path) -> None:
        """Sends a signal to a run, to all of its processes, or to one of its workers."""
        if kind == "KILL":
            os.kill(run.pid, signal.SIGKILL)
        elif kind in STOPS:
            for n, send in enumerate(WAYS[way]):
                time.sleep(self.rng.random() * 0.005 * n)
                send(run.pid, STOPS[kind])
        else:
            claim = self.rng.choice(list(workers))
            os.kill(workers[claim], signal.SIGKILL)
            if kind == TWICE and (second := self.next_owner(claim, workers[claim], run, out)):
                os.kill(second, signal.SIGKILL)

    def next_owner(self, claim: str, first: int, run: lab.Run, out: Path) -> int | None:
        """Waits until another process has a lock; returns its id, None if the run ends before."""
        while not run.ended():
            if (owner := lab.claims(out).get(claim, first)) not in (first, run.pid):
                return owner
            time.sleep(0.002)
        return None

    def check_end(self, task: Task, run: lab.Run, kind: str, way: str) -> None:
        """Sees that a run ends as it should after a signal; one that was just finishing may succeed."""
        begin = time.monotonic()
        code = run.wait()
        if kind in STOPS:
            took = round(1000 * (time.monotonic() - begin))
            self.figures["slowest stop, in ms"] = max(self.figures["slowest stop, in ms"], took)
        if kind == TWICE:
            self.figures[f"ended with code {code} after {TWICE}"] += 1
        # one that was killed is tried once more; of two, the second may have done another job already
        allowed = {"KILL": (-9, 0), "TERM": (143, 0), "INT": (130, 0), WORKER: (0,), TWICE: (0, 1)}[kind]
        said, kind = run.said(), kind + way
        unborn = not said and code in [-number for number in STOPS.values()]
        if code not in allowed and not unborn:  # before its first line nothing can take a signal
            self.report(f"{task.name} ended with code {code} after {kind}", run)
        if code in (130, 143) and said.count("run the same command to resume") != 1:
            self.report(f"{task.name} does not say once how to go on after {kind}", run)
        if "Traceback" in said or ("leaked" in said and kind != "KILL"):
            self.report(f"{task.name} printed a traceback after {kind}", run)

    def small_disk(self, task: Task) -> None:
        """Starts a task on a disk that is too small, makes it larger, and lets it finish."""
        disk, cache = self.root / "disk", self.root / "cache"
        disk.mkdir(exist_ok=True)
        whole = sum(p.stat().st_size for p in (self.root / f"expected-{task.name}").rglob("*") if p.is_file())
        size = int(whole * self.rng.uniform(0.02, 1.0)) // 1024 + 8
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)
        try:
            out = disk / "out"
            run = self.start(task, out, cache)
            code, last = run.wait(), run.said().strip().splitlines()[-1]
            if code == 2:
                self.figures["disks full"] += 1
                if not last.startswith("cliqa-bench: error: cannot write") or "MB are free" not in last:
                    self.report(f"{task.name} on a full disk says: {last}", run)
            elif code != 0:
                self.report(f"{task.name} on a small disk ended with code {code}", run)
            if "Traceback" in run.said() or lab.torn(out):
                self.report(f"{task.name} on a small disk: traceback, or a damaged node", run)
            subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
            self.finish(task, [self.start(task, out, cache)], out, cache)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


# -- what is killed ------------------------------------------------------------------------------------------


def run_task(data: Path, strategy: str, jobs: int, hook: Callable[[], None] | None) -> Task:
    """Returns two short trainings in two orders, with everything that belongs to a run."""
    words = [
        "run", "--strategy", strategy, "--orders", ORDERS, "--data", str(data), "--weights", "random",
        "--set", "training.epochs=2", "--set", "training.warmup_epochs=1", "--device", "cpu",
        "--jobs", str(jobs), "--out", "{out}",
    ]  # fmt: skip
    return Task(f"{strategy}-{jobs}", words, hook)


def small_make() -> None:
    """Leaves two datasets to `data make`."""
    from cliqa_bench.benchmarks.generated import make

    make.LAYOUTS = {name: make.LAYOUTS[name] for name in ("bid", "clive")}


def no_figures() -> None:
    """Leaves the figures out of reports."""
    from cliqa_bench.reports.figures import gallery

    gallery.PICTURES = ()


def small_pretrain() -> None:
    """Makes `pretrain` a matter of seconds."""
    from dataclasses import replace

    from cliqa_bench.models import pretraining, pretraining_config

    small = replace(pretraining_config.SCNN, pictures=4, size=32, batch=8)
    pretraining_config.SHIPPED_PRETRAINING["scnn"] = small
    pretraining.CHECKPOINT_EVERY = 3


def other_tasks(finished: Path) -> list[Task]:
    """Returns the other commands that write: `data make`, `pretrain`, and `report` on a finished run."""

    def copy(out: Path) -> None:
        shutil.copytree(finished, out)
        shutil.rmtree(out / "report")

    return [
        Task("make", ["data", "make", "{out}", "--scale", "0.02"], small_make),
        Task("pretrain", ["pretrain", "--to", "{out}/scnn.safetensors", "--steps", "20"], small_pretrain),
        Task("report", ["report", "--out", "{out}"], None, copy),
    ]


def can_mount(folder: Path) -> bool:
    """Tells whether a small tmpfs can be had here."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount"):
        return False
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return False
    return subprocess.run(["umount", str(folder)], check=False).returncode == 0


def wreak(chaos: Chaos, args: argparse.Namespace) -> None:
    """Does campaigns until there were as many kills as asked for, and then as many small disks."""
    strategies, jobs = args.strategies.split(","), [int(n) for n in args.jobs.split(",")]
    others, kills = not args.only_runs, args.kills
    data = chaos.root / "data"
    make = Task("data", ["data", "make", "{out}", "--scale", "0.02"], small_make)
    if chaos.start(make, data, chaos.root / "cache").wait() != 0:
        raise SystemExit("cannot make the miniatures")
    hook = no_figures if args.no_figures else None
    tasks = [run_task(data, strategy, n, hook) for strategy in strategies for n in jobs]
    for task in tasks:
        chaos.undisturbed(task)
    for strategy in strategies:
        first, *more = (chaos.expected[f"{strategy}-{n}"][0] for n in jobs)
        for other in more:
            if different := lab.differences(other, first):
                chaos.wrong.append(f"{strategy}: --jobs changes {different}")
    mountable = can_mount(chaos.root / "disk")
    if others:
        more_tasks = other_tasks(chaos.root / f"expected-{tasks[0].name}")
        for task in more_tasks:
            chaos.undisturbed(task)
    while chaos.figures["kills"] < kills:
        left = kills - chaos.figures["kills"]
        chance = chaos.rng.random()
        if others and chance < 0.2:
            chaos.campaign(chaos.rng.choice(more_tasks), min(left, chaos.rng.randint(1, 4)))
        elif others and mountable and chance < 0.3:
            chaos.small_disk(chaos.rng.choice(tasks))
        else:
            runs = 2 if chaos.rng.random() < 0.25 else 1
            chaos.campaign(chaos.rng.choice(tasks), min(left, chaos.rng.randint(1, 6)), runs)
        print(f"{chaos.figures['kills']} of {kills} kills, {len(chaos.wrong)} deviations", flush=True)
    for _ in range(args.disks if mountable else 0):
        chaos.small_disk(chaos.rng.choice(tasks))
    if not mountable:
        chaos.figures["small disks: not tried, they need root and mount"] = 0


def main() -> int:
    """Runs the command line; returns 1 if anything deviates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many kills (default: 200)")
    parser.add_argument("--disks", type=int, default=0, help="how many small disks in the end (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds (default: 0)")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="which strategies")
    parser.add_argument("--jobs", default="1,2", help="which numbers of processes (default: 1,2)")
    parser.add_argument("--only-runs", action="store_true", help="no other commands, no small disks")
    parser.add_argument("--no-figures", action="store_true", help="reports without figures, for a quick look")
    args = parser.parse_args()
    begin = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    lab.preload()
    chaos = Chaos(root, random.Random(args.seed))
    wreak(chaos, args)
    chaos.figures["deviations"] = len(chaos.wrong)
    chaos.figures["seconds"] = round(time.monotonic() - begin)
    for name, n in sorted(chaos.figures.items()):
        print(f"{name:<50} {n:>7,}")
    if chaos.wrong:
        print("\n".join(["", *chaos.wrong, f"everything is kept in {root}"]))
        return 1
    shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
