"""Jobs in the workers of a Dask cluster: results, failures, deaths, and who is refused."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from dask_fake import plan_of
from test_planner import config
from test_pool import some_jobs

from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution import dask_pool
from cliqa_bench.execution.dask_worker import Fitness
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.scheduler import run_jobs
from cliqa_bench.results.nodes import IN_USE
from cliqa_bench.settings.choice import own_code
from cliqa_bench.system.locks import locked
from cliqa_bench.system.versions import versions

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


def a_plan(cfg: RunConfig) -> Plan:
    """Stands for the plan in this process, where no fake is put in place."""
    return Plan(SimpleNamespace(config=cfg), {})  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Does jobs on a cluster of two workers, or of an address; the workers find this module."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    )
    facts = {"versions": versions(), "code": own_code()}
    out = tmp_path / "out"

    def do(jobs, executor="dask", **changed):
        cfg = replace(config(out), executor=executor, device="cpu", **changed)
        with locked(out / IN_USE / f"{os.getpid()}-x.lock", ""):
            return run_jobs(a_plan(cfg), plan_of, facts, jobs, 2, lambda: None)

    do.out, do.facts = out, facts  # type: ignore[attr-defined]
    return do


def test_what_fails_takes_with_it_what_needs_it_and_the_rest_is_done_and_shown(run, capsys):
    outcome = run(some_jobs("wrong"))
    assert list(outcome.failed.values()) == ["FloatingPointError: the loss is nan"]
    assert {job.about for job in outcome.skipped} == {"child", "grandchild"}
    names = {"fine0", "fine1", "fine2"}
    assert {path.name for path in run.out.iterdir()} >= names
    assert capsys.readouterr().out.count(" by ") == len(names) + 1  # and the check


def test_a_job_whose_worker_dies_is_tried_once_more(run, capsys):
    outcome = run(some_jobs("die with the worker"))
    assert not outcome.failed and (run.out / "grandchild").exists()
    assert capsys.readouterr().err.count("trying it once more") == 1


def test_workers_without_the_data_are_refused_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"no worker can do the work: .*: it has no folder .*gone \(--data\)"):
        run(some_jobs("fine"), data=tmp_path / "gone")
    assert {path.name for path in run.out.iterdir()} <= {IN_USE}


def test_workers_of_other_versions_are_refused_in_one_line(run):
    run.facts["versions"]["numpy"] = "0.1"
    with pytest.raises(UserError, match=r"it has numpy .*, this command has 0\.1; install the same"):
        run(some_jobs("fine"))


def test_a_worker_without_the_suite_is_refused_in_one_line(run, tmp_path):
    def examine():
        raise ModuleNotFoundError("No module named 'cliqa_bench'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_pool, "_examination", lambda topic, task: examine)
        with pytest.raises(
            UserError, match=r"it cannot import cliqa_bench \(No module named 'cliqa_bench'\)"
        ):
            run(some_jobs("fine"))


def test_workers_of_one_machine_share_its_gpus_one_each(monkeypatch, tmp_path):
    pool = dask_pool.DaskPool(plan_of, replace(config(tmp_path), device="cuda"), {})
    seen = {f"tcp://h:{n}": Fitness("", "host", ("0", "1")) for n in range(3)}
    seen["tcp://i:1"] = Fitness("", "other", ("0", "1"))
    seen |= {f"tcp://j:{n}": Fitness("", "third", (str(n), str(1 - n))) for n in range(2)}
    pool._client = SimpleNamespace(run=lambda *more, **how: seen)
    reasons = pool._examine(list(seen))
    assert reasons == ["tcp://h:2: all 2 GPUs of host have a worker"]
    # which of the GPUs that a worker sees it takes: those of the third machine see them in another order
    assert pool._numbers == {"tcp://h:0": 0, "tcp://h:1": 1, "tcp://i:1": 0, "tcp://j:0": 0, "tcp://j:1": 0}
    # one that comes in the place of one that is gone gets its GPU
    del pool._numbers["tcp://h:0"]
    assert pool._sort_out({"tcp://h:9": Fitness("", "host", ("0", "1"))}) == []
    assert pool._numbers["tcp://h:9"] == 0


def test_no_scheduler_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE", 1.0)
    with pytest.raises(UserError, match=r"--executor tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        dask_pool.check_scheduler("tcp://127.0.0.1:9")


def test_the_death_of_the_scheduler_ends_the_run_in_one_line(run, tmp_path):
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--no-dashboard",
    ]
    command += ["--port", "0", "--scheduler-file", str(tmp_path / "scheduler.json")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scheduler:
        deadline = time.monotonic() + 30
        while not (tmp_path / "scheduler.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
        pool = dask_pool.DaskPool(plan_of, replace(config(run.out), executor=address), run.facts)
        pool._client = dask_pool._connected(address)
        scheduler.kill()
        with pytest.raises(UserError, match="is gone; finished work is kept"):
            while time.monotonic() < deadline:
                list(pool.events(0.1))
        pool.end()
