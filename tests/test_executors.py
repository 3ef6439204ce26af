"""Executors: the order in which jobs are given out, GPUs, Slurm's options, and what is refused in a line."""

import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_planner import config

from cliqa_bench.cli.parser import _recorded, main
from cliqa_bench.errors import UserError
from cliqa_bench.execution import dask_worker, job_queue, slurm_array, worker_processes
from cliqa_bench.execution.dask_worker import DaskTask
from cliqa_bench.execution.job_queue import MANY, JobQueue, Outcome
from cliqa_bench.execution.jobs import Job, longest_first
from cliqa_bench.execution.worker_processes import Progress, Result
from cliqa_bench.settings.choice import own_code
from cliqa_bench.settings.resolve import config_dict
from cliqa_bench.settings.slurm_options import SlurmOptions, slurm_minutes, slurm_options
from cliqa_bench.system import hardware
from cliqa_bench.system.versions import versions

CHECK = Job("check", "", "", "check", 0)
DONE = Result("done")


# -- jobs are given out ----------------------------------------------------------------------------------


def a_tree(n: int, seed: int = 0) -> list[Job]:
    """Returns `n` trainings, each after one or two earlier jobs, with random sizes, some the same."""
    rng = random.Random(seed)
    jobs = [CHECK]
    for number in range(n):
        after = tuple(dict.fromkeys(rng.choices(jobs[-20:], k=2)))
        jobs.append(Job("train", f"{number}", "", f"job {number}", rng.randrange(5), after))
    return jobs


def ready_now(jobs: list[Job], left: set[str], running: set[str]) -> list[str]:
    """The definition: all that need nothing that is left, the longest chain first, then as in the plan."""
    behind = longest_first(jobs)
    ready = [
        job.key
        for job in jobs
        if job.key in left and job.key not in running and not any(n.key in left for n in job.after)
    ]
    return sorted(ready, key=lambda key: -behind[key])


@pytest.mark.parametrize("seed", range(3))
def test_the_most_urgent_job_that_can_start_is_given_out(tmp_path, seed):
    jobs, rng = a_tree(60, seed), random.Random(seed)
    queue = JobQueue(tmp_path, jobs, Outcome(), lambda: None)
    running: dict[str, Job] = {}
    while queue.left:
        while len(running) < 3 and (expected := ready_now(jobs, set(queue.left), set(running))):
            job = queue.next()
            assert job is not None and job.key == expected[0]
            running[job.key] = job
        assert running
        done = rng.choice(list(running))
        queue.take(running.pop(done), DONE)
    assert queue.next() is None and queue.pause() is None


@pytest.mark.parametrize(("n", "early"), [(MANY - 1, False), (MANY, True)])
def test_a_run_of_many_trainings_is_scored_as_it_goes(tmp_path, n, early):
    trainings = [Job("train", f"{i:02}", "", "", 10, (CHECK,)) for i in range(n)]
    scores = [Job("scores", job.about, "", "", 1, (job,)) for job in trainings]
    queue = JobQueue(tmp_path, [CHECK, *trainings, *scores], Outcome(), lambda: None)
    given = []
    while job := queue.next():
        queue.take(job, DONE)
        given.append(job.key)
    each = [job.key for pair in zip(trainings, scores, strict=True) for job in pair]
    last = [job.key for job in (*trainings, *scores)]
    assert given == [CHECK.key, *(each if early else last)]


def test_what_another_run_is_at_is_given_out_again_after_a_pause(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first, second = (Job("train", name, "", name, 1) for name in "ab")
    queue = JobQueue(tmp_path, [first, second], Outcome(), lambda: None)
    assert queue.next() is first
    queue.take(first, Result("taken"))
    assert queue.pause() == job_queue.PAUSE
    assert queue.next() is second and queue.next() is None
    now[0] += job_queue.PAUSE
    assert queue.next() is first
    queue.take(first, DONE)
    assert list(queue.left) == [second.key] and queue.pause() is None


def test_a_job_that_died_is_given_out_again_and_a_failed_one_takes_all_behind_it_along(tmp_path, capsys):
    jobs = [CHECK, *(Job("train", name, "", name, 1, (CHECK,)) for name in "ab")]
    jobs += [Job("scores", "c", "", "c", 1, (jobs[1],)), Job("scores", "d", "", "d", 1, (jobs[1], jobs[2]))]
    said: list[str] = []
    outcome = Outcome()
    queue = JobQueue(tmp_path, jobs, outcome, lambda: said.append("ready"))
    assert queue.next() is CHECK and not said
    queue.take(CHECK, DONE)
    assert said == ["ready"]
    a = queue.next()
    assert a is jobs[1]
    queue.take(a, Result("died", "its process died"))
    assert queue.next() is a
    queue.take(a, Result("failed", "the loss is nan"))
    assert outcome.failed == {a: "the loss is nan"} and outcome.skipped == jobs[3:]
    assert [path.name for path in tmp_path.glob("failed/*")] == ["train-a.json"]
    assert queue.next() is jobs[2]
    queue.take(jobs[2], DONE)
    assert not queue.left
    # the run that does it later removes the note
    JobQueue(tmp_path, [a], Outcome(), lambda: None).take(a, DONE)
    assert list(tmp_path.iterdir()) == []


def test_ten_times_as_many_jobs_take_about_ten_times_as_long(tmp_path, monkeypatch):
    monkeypatch.setattr(job_queue, "forget_failure", lambda out, claim: None)

    def seconds(n: int) -> float:
        jobs = [CHECK, *(Job("train", f"{i}", "", "", i % 7, (CHECK,)) for i in range(n))]
        start = time.process_time()
        queue = JobQueue(tmp_path, jobs, Outcome(), lambda: None)
        while (job := queue.next()) is not None:
            queue.take(job, DONE)
        assert not queue.left
        return time.process_time() - start

    few = min(seconds(400) for _ in range(3))
    # a quadratic step would make it 100
    assert seconds(4000) < 40 * few


# -- GPUs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        ("0,1,2", "auto", ["0", "1", "2", "0"]),
        ("4, GPU-5", "cuda", ["4", "GPU-5", "4", "GPU-5"]),
        ("3", "auto", ["3"] * 4),
        ("0,1", "cpu", ["0,1"] * 4),
        ("0,1", "cuda:1", ["0,1"] * 4),
        ("", "auto", [""] * 4),
    ],
)
def test_each_process_sees_a_gpu_of_its_own(tmp_path, monkeypatch, visible, device, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen: list[str] = []

    class Child:
        def __init__(self, serve, number, *told):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setattr(worker_processes, "Child", Child)
    pool = worker_processes.WorkerPool(lambda cfg: None, config(tmp_path, device=device), {})  # type: ignore[arg-type, return-value]
    pool.start(range(4))
    assert seen == expected
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_gpus_are_counted_by_the_system_where_nothing_names_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices = ["null", "nvidia0", "nvidia1", "nvidiactl", "nvidia10"]
    monkeypatch.setattr(os, "listdir", lambda folder: devices)
    assert hardware.gpu_names() == ["0", "1", "2"] and hardware.visible_gpus() == 3


# -- names and options ---------------------------------------------------------------------------------------


def test_where_a_run_was_done_is_nothing_of_its_results(tmp_path):
    here = config(tmp_path)
    assert config_dict(here) == config_dict(replace(here, executor="tcp://10.0.0.1:8786"))
    words = "python -m cliqa_bench run --strategy tsn"
    more = " --executor slurm --slurm 'partition=gpu,time=4:00:00' --wait --progress=plain"
    assert _recorded(f"{words}{more} --out runs") == f"{words} --out runs"
    assert _recorded(f"{words} --out --waiting") == f"{words} --out --waiting"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30", 2),
        ("4:00:00", 240),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("2-00:30:01", 2911),
        ("1-0:5", 1445),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(text, minutes):
    assert slurm_minutes(text) == minutes


def test_slurm_options_are_those_of_sbatch():
    assert slurm_options("partition=gpu,gpus=1,time=4:00:00,array=16,exclusive") == SlurmOptions(
        16, 240, 90, {"partition": "gpu", "gpus": "1", "exclusive": True}
    )
    assert slurm_options(("time=10", "--signal=30", "cpus_per_task=4")) == SlurmOptions(
        1, 10, 30, {"cpus-per-task": "4"}
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "needs a time limit"),
        ("partition=gpu", "needs a time limit"),
        ("time=soon", "not 'soon'"),
        ("time=0", "not '0'"),
        ("time=5,array=0", "array must be"),
        ("time=5,array=1001", "array must be"),
        ("time=5,time=6", "time is given twice"),
        ("time=5,output=x", "output is set by the suite"),
        ("time=5,=3", "not '=3'"),
        ("time=5,partition=", "not 'partition='"),
    ],
)
def test_slurm_options_that_will_not_do_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        slurm_options(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "darsk"], "unknown executor 'darsk' (did you mean 'dask'?)"),
        (["--executor", "tcp://host"], "unknown executor 'tcp://host'"),
        (["--wait"], "--wait goes with --executor slurm, not local"),
        (["--slurm", "time=5"], "--slurm goes with --executor slurm, not local"),
        (["--executor", "slurm"], "--slurm needs a time limit"),
    ],
)
def test_misuse_is_said_in_one_line(capsys, tmp_path, words, said):
    assert main(["run", "--strategy", "tsn", "--orders", "bid", "--out", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not (tmp_path / "out").exists()


# -- Slurm, without one ------------------------------------------------------------------------------------


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Makes shell scripts that stand for Slurm's commands, the only ones on the path."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def run_on_slurm(out: Path) -> int:
    more = ["--executor", "slurm", "--slurm", "partition=gpu,time=5,array=2"]
    return main(["run", "--strategy", "tsn", "--orders", "bid", "--out", str(out), *more])


def test_no_slurm_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, srun="true")
    assert run_on_slurm(tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no sbatch here" in line and not (tmp_path / "out").exists()


def test_no_submitit_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, srun="true", sbatch="true", squeue="true")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert run_on_slurm(tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'cliqa-bench[slurm]'" in line and not (tmp_path / "out").exists()


def test_no_such_queue_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    text = "allocation failure: Invalid partition name specified"
    refuse = f'echo "$@" >{tmp_path}/asked; echo "sbatch: error: invalid partition specified: gpu" >&2'
    refuse += f'; echo "{text}" >&2; exit 1'
    programs(tmp_path / "bin", monkeypatch, srun="true", sbatch=refuse, squeue="true")
    assert run_on_slurm(tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("--slurm: invalid partition specified: gpu; Invalid partition name specified")
    assert not (tmp_path / "out").exists()
    asked = (tmp_path / "asked").read_text()
    assert asked == "--test-only --time=5 --array=0-1 --partition=gpu --wrap=true\n"


def test_tasks_are_submitted_alike_and_the_id_is_printed(capsys, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    keep = f'/bin/cp "$1" {tmp_path}/script; echo "Submitted batch job 41"'
    keep = f'case "$1" in --test-only) ;; *) {keep};; esac'
    programs(tmp_path / "bin", monkeypatch, srun="true", sbatch=keep, squeue="true")
    assert run_on_slurm(tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith("job 41: 2 tasks; logs in ")
    script = (tmp_path / "script").read_text()
    for line in (
        "--array=0-1%2",
        "--time=5",
        "--signal=USR2@90",
        "--partition=gpu",
        "--requeue",
        "--open-mode=append",
    ):
        assert f"#SBATCH {line}\n" in script
    import submitit

    for number in (0, 1):
        path = tmp_path / "out" / "slurm" / f"41_{number}_submitted.pkl"
        task = submitit.core.utils.DelayedSubmission.load(path)
        (cfg,) = task.function.configs
        assert (cfg.executor, cfg.jobs, cfg.out) == ("local", 1, tmp_path / "out")
        # once more after the signal, which works with a number of minutes only
        assert task._timeout_min == 5 and task._checkpoint_function().function == task.function


def test_states_are_those_of_the_queue_until_the_job_has_left_it(tmp_path, monkeypatch):
    states = (
        f'[ -e {tmp_path}/over ] && {{ echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }}'
    )
    programs(tmp_path / "bin", monkeypatch, squeue=f"{states}\necho PENDING; echo RUNNING; echo PENDING")
    assert slurm_array._states("41") == {"PENDING": 2, "RUNNING": 1}
    (tmp_path / "over").touch()
    assert not slurm_array._states("41")


# -- Dask, without one ---------------------------------------------------------------------------------------


def test_no_dask_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = [
        "run",
        "--strategy",
        "tsn",
        "--orders",
        "bid",
        "--out",
        str(tmp_path / "out"),
        "--executor",
        "dask",
    ]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'cliqa-bench[cluster]'" in line and not (tmp_path / "out").exists()


def task(tmp_path: Path, **changed: object) -> DaskTask:
    mark = tmp_path / "mark"
    mark.touch()
    cfg = replace(config(tmp_path), **changed)  # type: ignore[arg-type]
    return DaskTask(worker_processes.attempt, cfg, {}, {}, mark)  # type: ignore[arg-type]


def test_a_worker_that_cannot_do_the_work_says_why(tmp_path):
    assert dask_worker._lacking(task(tmp_path, data=None)) == ""
    assert dask_worker._lacking(task(tmp_path, data=tmp_path, weights="random")) == ""
    away = tmp_path / "away"
    assert f"no folder {away} (--data)" in dask_worker._lacking(task(tmp_path, data=away))
    assert f"no file {away} (--weights)" in dask_worker._lacking(task(tmp_path, weights=str(away)))
    unseen = task(tmp_path, data=None)._replace(mark=away)
    assert "does not see the folder of results" in dask_worker._lacking(unseen)


def test_a_worker_of_other_versions_says_which(monkeypatch):
    facts = {"versions": versions(), "code": own_code()}
    assert dask_worker._other(facts) == ""
    other = {**facts, "versions": {**versions(), "numpy": "0.1"}}
    assert (
        dask_worker._other(other)
        == f"it has numpy {versions()['numpy']}, this command has 0.1; install the same"
    )
    more = {**facts, "versions": {**versions(), "timm2": "3"}}
    assert "it has timm2 none, this command has 3" in dask_worker._other(more)
    assert "sources of cliqa_bench" in dask_worker._other({**facts, "code": "0"})


def test_code_of_a_user_s_own_is_laid_down_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path / "cache"))
    mine, helper = tmp_path / "mine.py", tmp_path / "helper.py"
    cfg = replace(config(tmp_path), include=[str(mine)])
    sources = {str(mine): b"import helper\n", str(helper): b"x = 1\n"}
    placed = dask_worker._placed(cfg, sources)
    (path,) = map(Path, placed.include)
    assert path.name == "mine.py" and path.read_bytes() == b"import helper\n"
    assert (path.parent / "helper.py").read_bytes() == b"x = 1\n"
    assert not mine.exists()
    for file, text in sources.items():
        Path(file).write_bytes(text)
    assert dask_worker._placed(cfg, sources) is cfg
    mine.write_bytes(b"another one\n")
    assert dask_worker._placed(cfg, sources) == placed


def test_messages_are_few_and_none_is_lost(monkeypatch):
    now, sent = [0.0], list[list[object]]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Worker:
        def log_event(self, topic: str, message: list[object]) -> None:
            assert topic == "topic"
            sent.append(message)

    messages = dask_worker._Messages(Worker(), "topic", "key")
    for number in range(100):
        now[0] += 0.01
        messages.tell(Progress(2, f"at {number}", part="main"))
    messages.tell(Progress(1, "", part="validation"))
    messages.tell(Progress(0, "", "a line"))
    messages.tell(Result("failed", "why", "where"))
    progress = [m for m in sent if m[1] == "progress"]
    assert len(progress) <= 5 and all(m[0] == "key" for m in sent)
    assert sum(m[2] for m in progress if m[5] == "main") == 200  # type: ignore[misc]
    assert [m[2] for m in progress if m[5] == "validation"] == [1]
    assert [m[4] for m in progress if m[4]] == ["a line"] and sent[-1] == [
        "key",
        "result",
        "failed",
        "why",
        "where",
    ]
