"""`status`: what is done, running, failed and left, and roughly how long the rest takes."""

import datetime
import json
import os
import platform
import threading
import time
from dataclasses import replace

import pytest
from test_imports import LATE, probe
from test_planner import config, lay_out

from cliqa_bench.cli.parser import main
from cliqa_bench.execution import status as status_module
from cliqa_bench.execution.jobs import jobs_of
from cliqa_bench.execution.status import Counted, Inventory, render
from cliqa_bench.execution.worker_processes import claim_of
from cliqa_bench.results.failures import forget_failure, note_failure, read_failures
from cliqa_bench.results.nodes import write_json
from cliqa_bench.results.records import write_record
from cliqa_bench.system import locks
from cliqa_bench.system.locks import claimed, held_since

ORDERS = {"a": ["bid", "live"], "b": ["live", "bid"]}


@pytest.fixture
def plan(tmp_path):
    """A plan whose records are written, of which nothing is done."""
    made = lay_out(config(tmp_path, strategy=["tsn", "lwf"], orders=ORDERS))
    for record in made.records:
        write_record(tmp_path, record)
    return made


def finish(work, **facts):
    write_json(
        work.node.folder / "done.json", {"id": work.node.id, "files": {}, "facts": facts}, lasting=False
    )


def the_job(plan, kind, about=""):
    return next(job for job in jobs_of(plan) if job.kind == kind and job.about == (about or job.about))


def test_all_work_of_a_plan_is_counted_once(plan, tmp_path):
    found = Inventory(tmp_path).look()
    # tsn: 2 trainings; lwf: 4, of which none is shared
    counts = {noun: one.left for noun, one in found.work.items()}
    assert counts == {
        "trainings": len(plan.train), "gates": len(plan.gates), "answer files": len(plan.answers),
        "pictures": len(plan.pictures),
    }  # fmt: skip
    assert counts["trainings"] == 6 and found.seconds_left is None and not found.over
    assert "time left: unknown" in render(found)


def test_every_job_s_claim_is_known_with_the_nodes_that_it_makes(plan, tmp_path):
    inventory = Inventory(tmp_path)
    made = set()
    for job in jobs_of(plan):
        if job.kind not in ("check", "gate-net"):
            nodes = set(inventory.claims[claim_of(tmp_path, job).stem])
            assert nodes, job
            if job.kind in ("train", "picture"):
                assert nodes == {job.about}
            made |= nodes
    assert made == inventory.nodes.keys()


@pytest.mark.parametrize("flock", [True, False])
def test_what_is_held_is_running_and_what_is_not_is_left(plan, tmp_path, monkeypatch, flock):
    monkeypatch.setattr(locks, "_has_flock", lambda folder: flock)
    job = the_job(plan, "train")
    path = claim_of(tmp_path, job)
    path.parent.mkdir()
    path.with_name("train-dead.lock").write_text("process 1 on nowhere\n")
    before = time.time()
    if flock:  # one of ours does not count as held for this process, so another one holds it
        monkeypatch.setattr(status_module, "is_held", lambda held: held == path)
    else:
        monkeypatch.setattr(locks, "_is_over", lambda held, content: "nowhere" in content)
    with claimed(path) as ours:
        assert ours
        found = Inventory(tmp_path).look()
        (running,) = found.running
        assert running.job == path.stem and running.where == f"process {os.getpid()} on {platform.node()}"
        since = datetime.datetime.fromisoformat(running.since).timestamp()
        assert before - 1 <= since <= time.time()
        assert found.work["trainings"] == Counted(running=1, left=5)
        assert f"since {running.since}" in render(found)
    assert held_since(path.with_name("train-dead.lock")) == ""
    path.with_name("train-dead.lock").unlink()
    assert Inventory(tmp_path).look().work["trainings"] == Counted(left=6)


def test_a_failure_is_shown_until_the_work_is_done(plan, tmp_path):
    job = the_job(plan, "train")
    claim = claim_of(tmp_path, job).stem
    note_failure(tmp_path, claim, job.title, "the loss is nan")
    found = Inventory(tmp_path).look()
    assert found.work["trainings"] == Counted(failed=1, left=5)
    assert f"{job.title}: the loss is nan (process {os.getpid()} on " in render(found)
    finish(plan.train[job.about])  # by another version, which leaves the note
    found = Inventory(tmp_path).look()
    assert found.work["trainings"] == Counted(done=1, left=5) and not found.failed
    forget_failure(tmp_path, claim)
    assert read_failures(tmp_path) == {} and not (tmp_path / "failed").exists()


def test_the_time_left_is_that_of_nodes_like_those_that_are_left(plan, tmp_path, monkeypatch):
    train = {work.node.id: work for work in plan.train.values()}
    lwf = [work for work in train.values() if work.strategy.name == "lwf"]
    tsn = [work for work in train.values() if work.strategy.name == "tsn"]
    finish(tsn[0], seconds=30.0)
    first = next(work for work in lwf if work.previous is None)
    finish(first, seconds=100.0)
    answer = next(iter(plan.answers.values()))
    finish(answer, score_seconds=2.0)
    found = Inventory(tmp_path).look()
    expected = 30.0 * (len(tsn) - 1) + 100.0 * (len(lwf) - 1) + 2.0 * (len(plan.answers) - 1)
    assert found.seconds_left == pytest.approx(expected)
    running = [status_module.Running("train-x", "there", "")] * 4
    inventory = Inventory(tmp_path)
    inventory.look()
    state = dict.fromkeys(inventory.nodes, "left") | dict.fromkeys(inventory._done, "done")
    assert inventory._left(state, running) == pytest.approx(expected / 4)
    monkeypatch.setattr(status_module, "_age", lambda since: 10.0)
    assert inventory._left(state, running) == pytest.approx((expected - 40) / 4)


def test_all_is_done(plan, tmp_path, capsys):
    works = (plan.train, plan.gates, plan.answers, plan.pictures)
    for work in (work for part in works for work in part.values()):
        finish(work)
    assert main(["status", str(tmp_path), "--watch"]) == 0  # ends by itself
    assert capsys.readouterr().out.rstrip().endswith("all is done")
    assert main(["status", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["work"]["trainings"] == {"done": 6, "running": 0, "failed": 0, "left": 0}
    assert (told["seconds_left"], told["running"], told["failed"]) == (0.0, [], [])


def test_watching_shows_what_changes_until_all_is_done(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(status_module, "REFRESH", 0.05)
    works = [w for part in (plan.train, plan.gates, plan.answers, plan.pictures) for w in part.values()]
    for work in works[1:]:
        finish(work)
    later = threading.Timer(0.5, finish, [works[0]])
    later.start()
    assert main(["status", str(tmp_path), "--watch", "--json"]) == 0
    later.join()
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["work"]["trainings"]["left"] == 1 and last["work"]["trainings"]["left"] == 0


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert main(["status", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no runs in" in line


def test_status_needs_no_torch(plan, tmp_path):
    line, seconds = probe(LATE, "status", str(tmp_path))
    assert line == "code=0 loaded=[]"
    assert seconds < 2


def test_many_orders_are_looked_at_in_no_time(tmp_path):
    base = config(tmp_path)
    many = {",".join(order): list(order) for order in list(status_orders())[:120]}
    made = lay_out(replace(base, strategy=["lwf"], orders=many))
    for record in made.records[:40]:
        write_record(tmp_path, record)
    inventory = Inventory(tmp_path)
    begun = time.process_time()
    found = inventory.look()
    assert time.process_time() - begun < 2
    assert found.work["trainings"].left == len(
        {n for r in made.records[:40] for s in r.steps for n, _ in s.heads}
    )


def status_orders():
    import itertools

    return itertools.permutations(ORDERS["a"] + ["csiq", "kadid10k", "clive", "koniq10k"])
