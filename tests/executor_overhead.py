"""What executors cost beside the work: a table of seconds, and how they grow with the number of jobs.

`PYTHONPATH=. python tests/executor_overhead.py` in the checkout's root, with the extra [cluster]: five
minutes on an idle machine. Jobs sleep for some milliseconds instead of learning. Not a test; the exit code is
1 where a target is missed: planning and giving out 1,956 trainings within 5 s, Dask within 10 ms a job of our
processes (what a run takes longer than its jobs would, by the number of jobs), and the last tenth of 10,000
jobs as quick as the first.

`--main-job 3` instead runs the README's main job with both executors, three times each in turn, each with an
empty cache, and compares the files; Dask may take 5 % longer.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chaos_process
from test_planner import NAMES, config, lay_out

from cliqa_bench.config import DASK, LOCAL, RunConfig
from cliqa_bench.execution import worker
from cliqa_bench.execution.job_queue import JobQueue, Outcome
from cliqa_bench.execution.jobs import Job, jobs_of
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.scheduler import run_jobs
from cliqa_bench.execution.worker_processes import Result
from cliqa_bench.settings.choice import own_code
from cliqa_bench.system.versions import versions

SLEEP = "CLIQA_OVERHEAD_SLEEP"
TARGET_PLAN, TARGET_NODE, TARGET_MAIN = 5.0, 0.010, 1.05


class Sleeper:
    """Stands for the worker: sleeps, and tells as much as a training of one epoch."""

    def __init__(self, plan: Plan, facts: dict[str, Any], tick: Any, say: Any, number: int = 0) -> None:
        self.tick, self.seconds = tick, float(os.environ[SLEEP])

    def do(self, job: Job) -> None:
        if job.kind != "check":
            time.sleep(self.seconds)
            self.tick(job.images, "val SRCC 0.5", "")


def plan_of(cfg: RunConfig) -> Plan:
    """Stands for `execution.run.rebuild_plan`, in this process and in those of the pools."""
    worker.Worker = Sleeper  # type: ignore[assignment, misc]
    return Plan(SimpleNamespace(config=cfg), {})  # type: ignore[arg-type]


def sleeping_jobs(n: int) -> list[Job]:
    """Returns `n` jobs: chains of six trainings, as of a strategy on six datasets."""
    check = Job("check", "", "", "check", 0)
    jobs, before = [check], check
    for number in range(n):
        needs = check if number % 6 == 0 else before
        before = Job("train", f"node-{number:06}", "", f"job {number}", 1, (needs,))
        jobs.append(before)
    return jobs


def planning(root: Path) -> bool:
    """Prints how long planning and giving out takes for more and more orders; tells if it is quick enough."""
    print("orders  trainings  experiences  jobs  plan s  jobs s  give out s  ms an experience")
    orders = list(itertools.permutations(NAMES))
    for n in (6, 24, 120, 360, 720):
        some = {",".join(order): list(order) for order in orders[:: 720 // n]}
        cfg = config(root / f"plan{n}", strategy=["lwf"], orders=some)
        start = time.process_time()
        plan = lay_out(cfg)
        planned = time.process_time()
        jobs = jobs_of(plan)
        listed = time.process_time()
        queue = JobQueue(cfg.out, jobs, Outcome(), lambda: None)
        while (job := queue.next()) is not None:
            queue.take(job, Result("done"))
        end = time.process_time()
        assert not queue.left
        seconds = planned - start, listed - planned, end - listed
        steps = sum(len(record.steps) for record in plan.records)
        each = sum(seconds) / steps * 1000
        times = "".join(f"{s:7.2f} " for s in seconds)
        print(f"{n:6}  {len(plan.train):9}  {steps:11}  {len(jobs):4}  {times}{each:10.2f}", flush=True)
    return sum(seconds) <= TARGET_PLAN


def resident_mb() -> float:
    """Returns how much memory this process has, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measured(
    root: Path, executor: str, jobs: list[Job], processes: int, seconds: float
) -> tuple[float, list[float], float]:
    """Returns how long jobs take, when each tenth of them was done, and by how many MB this process grew."""
    os.environ[SLEEP] = str(seconds)
    cfg = replace(config(root / f"{executor}-{len(jobs)}-{processes}"), executor=executor, device="cpu")
    plan, tenths = plan_of(cfg), []
    done, first = 0, 0.0
    own = JobQueue.take

    def take(self: JobQueue, job: Job, result: Result) -> None:
        nonlocal done, first
        own(self, job, result)
        done += 1
        if done == 2:
            first = resident_mb()
        if done % (len(jobs) // 10) == 0:
            tenths.append(time.perf_counter())

    JobQueue.take = take  # type: ignore[method-assign]
    facts = {"versions": versions(), "code": own_code()}
    begun: list[float] = []
    try:
        outcome = run_jobs(plan, plan_of, facts, jobs, processes, lambda: begun.append(time.perf_counter()))
    finally:
        JobQueue.take = own  # type: ignore[method-assign]
    assert not outcome.failed and not outcome.skipped, outcome
    return tenths[-1] - begun[0], tenths, resident_mb() - first


def main_job(root: Path, repeats: int) -> bool:
    """Prints how long the main job takes with both executors, in turn; returns whether Dask is near."""
    times: dict[str, list[float]] = {LOCAL: [], DASK: []}
    files: list[dict[str, str]] = []
    for number, executor in itertools.product(range(repeats), times):
        out, cache = root / f"out{number}{executor}", root / f"cache{number}{executor}"
        words = "run --strategy tsn --orders all --device cpu --precision fp32 --executor"
        command = [sys.executable, "-m", "cliqa_bench", *words.split(), executor, "--out", str(out)]
        start = time.perf_counter()
        environment = {**os.environ, "CLIQA_CACHE": str(cache)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        times[executor].append(time.perf_counter() - start)
        files.append(chaos_process.results(out))
        print(f"{executor:8}  {times[executor][-1]:.1f} s", flush=True)
    differ = {name for found in files for name in chaos_process.differences(found, files[0])}
    ratios = [dask / local for local, dask in zip(times[LOCAL], times[DASK], strict=True)]
    ratio = statistics.median(ratios)
    print(f"dask / local: {ratio:.3f} ({min(ratios):.3f}..{max(ratios):.3f}); ", end="")
    print(f"{len(files[0])} files of each compared, {len(differ)} differ")
    return ratio <= TARGET_MAIN and not differ


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="of the long series")
    parser.add_argument("--main-job", type=int, metavar="N", help="run it N times with each executor instead")
    args = parser.parse_args()
    os.environ["CLIQA_PROGRESS"] = "none"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.main_job:
            return 0 if main_job(root, args.main_job) else 1
        ok = planning(root)
        print("\nexecutor  processes  jobs  ms of sleep  s  overhead ms a job")
        over: dict[str, float] = {}
        for executor, n in ((LOCAL, 1), (LOCAL, 2), (DASK, 2)):
            jobs = sleeping_jobs(300)
            _, tenths, _ = measured(root, executor, jobs, n, 0.05)
            seconds = tenths[-1] - tenths[0]  # without the start, in which PyTorch is loaded
            over[f"{executor}{n}"] = each = (seconds / 270 - 0.05 / n) * 1000
            print(f"{executor:8}  {n:9}  {270:4}  {50:11}  {seconds:.2f}  {each:.1f}", flush=True)
        ok &= over["dask2"] - over["local2"] <= TARGET_NODE * 1000
        for executor in (LOCAL, DASK):
            jobs = sleeping_jobs(args.jobs)
            seconds, tenths, grown = measured(root, executor, jobs, 2, 0.01)
            spans = [b - a for a, b in itertools.pairwise(tenths)]
            curve = " ".join(f"{span:.1f}" for span in spans)
            print(f"\n{executor}, {args.jobs} jobs of 10 ms in 2 processes: {seconds:.1f} s; +{grown:.0f} MB")
            print(f"seconds of each tenth from the second on: {curve}", flush=True)
            ok &= spans[-1] < 2 * spans[0]
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\nlargest child {children:.0f} MB; {'all targets met' if ok else 'A TARGET IS MISSED'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
