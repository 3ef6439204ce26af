"""Jobs and processes: who waits for whom, the same bits side by side, and what a failure takes with it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_planner import NAMES, config, lay_out
from test_runner import ROOT, arguments

from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution import jobs, worker, worker_processes
from cliqa_bench.execution.jobs import Job, jobs_of, longest_first
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.scheduler import run_jobs
from cliqa_bench.system import processes
from cliqa_bench.system.disk import temporary_prefix

pytestmark = pytest.mark.usefixtures("undrawn")

CHECK = Job("check", "", "", "check", 0)


# -- what waits for what ---------------------------------------------------------------------------------


def test_every_job_comes_after_those_it_needs_and_stands_once(tmp_path):
    for strategy in (["tsn"], ["lwf", "tsn", "jl"]):
        listed = jobs_of(lay_out(config(tmp_path, strategy=strategy)))
        keys = [job.key for job in listed]
        assert len(set(keys)) == len(keys)
        for i, job in enumerate(listed):
            assert {needed.key for needed in job.after} <= set(keys[:i]), job.title


def test_eight_orders_of_tsn_are_six_trainings_that_need_no_other(tmp_path):
    listed = jobs_of(lay_out(config(tmp_path)))
    kinds = [job.kind for job in listed]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "check": 1, "gate-net": 1, "gate": 6, "distances": 6, "train": 6, "scores": 6, "picture": 6,
    }  # fmt: skip
    assert {job.after for job in listed if job.kind == "train"} == {(listed[0],)}


def test_a_prefix_waits_for_the_prefix_before_it(tmp_path):
    plan = lay_out(config(tmp_path, strategy=["lwf"]))
    by_key = {job.key: job for job in jobs_of(plan)}
    for work in plan.train.values():
        (needs,) = by_key[f"train  {work.node.id}"].after
        assert needs.about == (work.previous.node.id if work.previous else "")


def test_distances_wait_for_the_gates_of_all_tasks(tmp_path):
    for job in jobs_of(lay_out(config(tmp_path))):
        if job.kind == "distances":
            assert {needed.about for needed in job.after} == set(NAMES)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 1),
        ({"jobs": 3}, 3),
        ({"jobs": "auto", "device": "cpu"}, 4),
        ({"jobs": "auto", "device": "cpu", "strategy": ["lwf"], "orders": {"I": list(ORDERS["I"])}}, 1),
        ({"jobs": "auto", "device": "cuda:1"}, 1),
        ({"jobs": "auto", "device": "cuda"}, 2),
    ],
)
def test_processes_are_worth_their_start(tmp_path, monkeypatch, change, expected):
    monkeypatch.setattr(jobs, "cores", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(jobs, "WORTH_A_PROCESS", 1.0)
    plan = lay_out(config(tmp_path, **change))
    assert jobs.processes(plan, jobs_of(plan)) == expected


def test_little_work_stays_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "cores", lambda: 4)
    few = replace(config(tmp_path).training, epochs=0, warmup_epochs=1)
    plan = lay_out(config(tmp_path, jobs="auto", device="cpu", training=few, orders={"x": ["bid", "live"]}))
    assert jobs.processes(plan, jobs_of(plan)) == 1


# -- what a failure takes with it ------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Forks the pool's processes from one that has imported what they need; spawned ones take seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cliqa_bench.execution.worker"])
    monkeypatch.setattr(processes, "CONTEXT", context)
    monkeypatch.setattr(worker, "Worker", FakeWorker)


class FakeWorker:
    """Does jobs by title: "fine", "wrong" (raises), "misuse", "gone", "half", "die" (at once), "die once"."""

    def __init__(self, plan, facts, tick, say, number=0):
        self.out = plan.config.out

    def do(self, job: Job) -> None:
        if "wrong" in job.title:
            raise FloatingPointError("the loss is nan")
        half = self.out / "train" / f"{temporary_prefix('x')}half"
        if job.title == "half":
            half.mkdir(parents=True)
            time.sleep(60)
        while "after a half" in job.title and not list(self.out.glob("train/.*half")):
            time.sleep(0.01)
        if "misuse" in job.title:
            raise UserError("the disk is full")
        if "gone" in job.title:
            Path("/no/such/file").read_text()
        if "die" in job.title and not ("once" in job.title and (self.out / "died").exists()):
            (self.out / "died").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        (self.out / job.about).touch()


def plan_of(cfg: RunConfig) -> Plan:
    """Stands for `execution.run.rebuild_plan`; in a process of the pool it puts the fake worker in place."""
    worker.Worker = FakeWorker  # type: ignore[assignment, misc]
    return Plan(SimpleNamespace(config=cfg), {})  # type: ignore[arg-type]


def some_jobs(what: str) -> list[Job]:
    bad = Job("train", "bad", "", what, 1, (CHECK,))
    child = Job("train", "child", "", "fine child of the bad one", 1, (bad,))
    fine = [Job("train", f"fine{i}", "", "fine", 1, (CHECK,)) for i in range(3)]
    return [CHECK, bad, child, *fine, Job("scores", "grandchild", "", "fine", 1, (child,))]


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failed_job_takes_with_it_what_needs_it_and_no_more(tmp_path, quick, capsys, n):
    said: list[str] = []
    cfg = config(tmp_path)
    outcome = run_jobs(plan_of(cfg), plan_of, {}, some_jobs("wrong"), n, lambda: said.append("ready"))
    assert [(job.about, reason) for job, reason in outcome.failed.items()] == [
        ("bad", "FloatingPointError: the loss is nan")
    ]
    assert {job.about for job in outcome.skipped} == {"child", "grandchild"}
    assert {p.name for p in tmp_path.iterdir()} == {"fine0", "fine1", "fine2", "failed"}
    assert said == ["ready"]
    assert "failed: wrong: FloatingPointError: the loss is nan" in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_misuse_ends_the_run_in_one_line(tmp_path, quick, n):
    with pytest.raises(UserError, match="the disk is full"):
        run_jobs(plan_of(config(tmp_path)), plan_of, {}, some_jobs("misuse"), n, lambda: None)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


@pytest.mark.slow
def test_what_is_half_written_goes_with_the_run(tmp_path, quick):
    listed = [CHECK, *(Job("train", t, "", t, 1, (CHECK,)) for t in ("half", "misuse after a half"))]
    with pytest.raises(UserError, match="the disk is full"):
        run_jobs(plan_of(config(tmp_path)), plan_of, {}, listed, 2, lambda: None)
    assert [p.name for p in tmp_path.rglob("*")] == ["train"]


@pytest.mark.slow
def test_a_process_that_dies_twice_is_named_and_the_rest_goes_on(tmp_path, quick, capsys):
    outcome = run_jobs(plan_of(config(tmp_path)), plan_of, {}, some_jobs("die"), 2, lambda: None)
    how = "its process died (SIGKILL, as a system that is out of memory does; try a smaller --jobs)"
    assert {job.about: reason for job, reason in outcome.failed.items()} == {"bad": how}, (
        "what ran beside it is not lost"
    )
    assert {job.about for job in outcome.skipped} == {"child", "grandchild"}
    assert {p.name for p in tmp_path.iterdir()} == {"fine0", "fine1", "fine2", "died", "failed"}
    said = capsys.readouterr().err
    assert (said.count(f"die: {how}; trying it once more"), said.count(f"failed: die: {how}")) == (1, 1)


@pytest.mark.slow
def test_a_job_whose_process_dies_once_is_done_in_a_fresh_one(tmp_path, quick, capsys):
    outcome = run_jobs(plan_of(config(tmp_path)), plan_of, {}, some_jobs("die once"), 2, lambda: None)
    assert not outcome.failed and not outcome.skipped
    names = {"bad", "child", "grandchild", "fine0", "fine1", "fine2", "died"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert capsys.readouterr().err.count("trying it once more") == 1


@pytest.mark.slow
def test_a_job_that_is_tried_once_more_gets_no_process_that_has_worked(tmp_path, quick):
    few, bad = worker_processes.WorkerPool(plan_of, config(tmp_path), {}), some_jobs("die once")[1]
    try:
        few.start([0])
        used: list[Any] = []
        for job in (bad, CHECK, bad):  # another job uses the fresh process first
            few.submit(job)
            used.append(few._hands[0].child.process.pid)
            told: list[Any] = []
            while not told:
                told += [
                    event.kind for _, event in few.events(None) if isinstance(event, worker_processes.Result)
                ]
            used.append(told)
        assert used[1::2] == [["died"], ["done"], ["done"]]
        assert len(set(used[::2])) == 3
    finally:
        few.end()


def test_a_process_that_dies_with_nothing_to_do_is_replaced(tmp_path, quick):
    few = worker_processes.WorkerPool(plan_of, config(tmp_path), {})
    try:
        few.start([0])
        first = few._hands[0].child.process
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        few.submit(CHECK)
        assert few._hands[0].child.process.pid != first.pid
        told: list[Any] = []
        while not told:
            told += [event for _, event in few.events(None) if isinstance(event, worker_processes.Result)]
        assert told == [worker_processes.Result("done")]
    finally:
        few.end()


def test_a_file_that_is_gone_is_said_in_one_line(tmp_path, quick, capsys):
    outcome = run_jobs(plan_of(config(tmp_path)), plan_of, {}, some_jobs("gone"), 1, lambda: None)
    (reason,) = outcome.failed.values()
    assert reason == "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"
    assert "Traceback" not in capsys.readouterr().err


# -- two runs on one folder --------------------------------------------------------------------------------


HOLD = (
    "import sys, time; from pathlib import Path; from cliqa_bench.system.locks import claimed\n"
    "with claimed(Path(sys.argv[1])):\n print(flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("n", [1, 2])
def test_what_another_run_is_at_comes_last_and_is_taken_over_from_the_dead(tmp_path, quick, capsys, n):
    listed = some_jobs("fine")
    lock = worker_processes.claim_of(tmp_path, listed[1])
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()

        def kill_when_the_rest_is_done():
            while len(list(tmp_path.glob("fine*"))) < 3:
                time.sleep(0.01)
            time.sleep(0.2)
            assert not (tmp_path / "bad").exists(), "two do not do the same"
            other.kill()

        killer = threading.Thread(target=kill_when_the_rest_is_done)
        killer.start()
        outcome = run_jobs(plan_of(config(tmp_path)), plan_of, {}, listed, n, lambda: None)
        killer.join()
    assert not outcome.failed and not outcome.skipped
    assert {p.name for p in tmp_path.iterdir()} == {"bad", "child", "grandchild", "fine0", "fine1", "fine2"}
    said = capsys.readouterr().err
    assert said.count("waiting for another run that uses") == 1
    assert f"process {other.pid} on " in said


def test_work_has_one_name_for_all_runs_and_a_file_name(tmp_path):
    listed = jobs_of(lay_out(config(tmp_path)))
    locks = [worker_processes.claim_of(tmp_path, job) for job in listed]
    assert len(set(locks)) == len(locks)
    odd = Job("gate", "../a b:c", "own", "", 0)
    assert worker_processes.claim_of(tmp_path, odd).parent == tmp_path / "claims"


# -- what is left of a run ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_s_processes_do_not_outlive_it(miniatures, tmp_path):
    command = [sys.executable, "-m", "cliqa_bench", *arguments(miniatures, tmp_path, "--jobs", "2")]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while len(kin := children(run.pid)) < 2 and run.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(kin) >= 2
    while any(alive(pid) for pid in kin) and time.time() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in kin if alive(pid)]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("this system does not list a process's children in /proc")
    return [int(child) for child in listed.read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False


def test_the_longest_chain_goes_first() -> None:
    check = Job("check", "", "", "", 0)
    short = Job("train", "short", "", "", 10, (check,))
    long = Job("train", "long", "", "", 5, (check,))
    after = Job("train", "after", "", "", 7, (long,))
    last = Job("scores", "last", "", "", 1, (after, short))
    behind = longest_first([check, short, long, after, last])
    assert [behind[job.key] for job in (check, short, long, after, last)] == [13, 11, 13, 8, 1]
    # what is done already is not a job any more
    assert longest_first([after])[after.key] == 7
