"""Progress: bars, lines and events, and an estimate that does not jump."""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_runner import ROOT, arguments
from tqdm.std import EMA  # type: ignore[attr-defined]

from cliqa_bench import progress
from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution.job_progress import TimeLeft
from cliqa_bench.execution.jobs import Job, JobPart

pytestmark = pytest.mark.usefixtures("undrawn")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


SECONDS = {"warm-up": 0.004, "main": 0.02, "validation": 0.03, "": 0.03}
"""What an image takes, by its part; of scoring, the guess from the trainings is half of it."""


def stream(n: int = 12) -> list[Job]:
    """Returns trainings, and the scoring of each after all of them."""
    train, scores = [], []
    for i in range(n):
        parts = (
            JobPart("warm-up", "warm", 600, 1.0),
            JobPart("main", "main", 1800, 3.0),
            JobPart("validation", "val", 300, 2.0),
        )
        train.append(Job("train", f"t{i}", "", "", 2700, (), parts))
        scores.append(Job("scores", f"s{i}", "", "", 800, (train[-1],), (JobPart("", "scores", 800, 2.0),)))
    return [*train, *scores]


def do(jobs: list[Job], clock: Clock, estimate: TimeLeft, left: dict[str, Job]) -> Iterator[int]:
    """Does jobs in batches of twenty images; gives the images of each batch."""
    for job in jobs:
        estimate.begin(job)
        for part in job.parts:
            for _ in range(part.images // 20):
                clock.now += 20 * SECONDS[part.name]
                estimate.tick(job, 20, part.name)
                yield 20
        estimate.end(job)
        del left[job.key]


def test_the_estimate_stays_within_a_band_where_an_average_of_images_jumps() -> None:
    jobs, clock = stream(), Clock()
    left = {job.key: job for job in jobs}
    estimate = TimeLeft(jobs, left, 1, clock)
    true = sum(part.images * SECONDS[part.name] for job in jobs for part in job.parts)
    total = sum(job.images for job in jobs)
    took, images, before = EMA(0.3), EMA(0.3), 0.0
    ours, theirs, done = [], [], 0
    for n in do(jobs, clock, estimate, left):
        done += n
        pace = images(n) / took(clock.now - before)
        before = clock.now
        if 0.1 * true < clock.now < 0.95 * true:
            rest = estimate.left()
            assert rest is not None
            ours.append(clock.now + rest)
            theirs.append(clock.now + (total - done) / pace)
    assert max(theirs) / min(theirs) > 2
    assert max(ours) / min(ours) < 1.5
    assert 0.67 * true < min(ours) and max(ours) < 1.5 * true
    assert estimate.left() == 0


def test_what_others_finished_counts_no_longer_and_a_chain_is_not_divided() -> None:
    jobs, clock = stream(2), Clock()
    left = {job.key: job for job in jobs}
    estimate = TimeLeft(jobs, left, 8, clock)
    assert estimate.left() is None
    estimate.begin(jobs[0])
    clock.now += 40
    estimate.tick(jobs[0], 1800, "main")
    alone = estimate.left()
    del left[jobs[1].key], left[jobs[3].key]
    shorter = estimate.left()
    assert alone is not None and shorter is not None and 0 < shorter < alone
    one = TimeLeft(jobs, left, 1, clock)
    one.begin(jobs[0])
    clock.now += 40
    one.tick(jobs[0], 1800, "main")
    assert one.left() == pytest.approx(shorter), "what is left is one chain"


@pytest.mark.parametrize("how", ["plain", "json", "none"])
def test_forms(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with progress.shown_as(how):
        for seconds in (0.001, 1.0):
            with progress.bar(100, "decode", "image", clock=clock) as shown:
                for _ in range(100):
                    clock.now += seconds
                    shown.update()
        progress.say("a word")
        progress.warn("a warning")
    err = capsys.readouterr().err
    assert "\r" not in err
    if how == "none":
        assert err == "a warning\n"
    elif how == "plain":
        lines = err.splitlines()
        assert lines[0] == "decode: 2 of 100 images in 00:02, about 01:38 left"
        assert lines[-3:] == ["decode: 100 of 100 images done in 01:40", "a word", "a warning"]
        assert len(lines) == 7, "one every half minute"
    else:
        events = [json.loads(line) for line in err.splitlines()]
        names = [event["event"] for event in events]
        assert names.count("stage_started") == names.count("stage_finished") == 2
        assert names[-2:] == ["message", "warning"]
        ended = [event for event in events if event["event"] == "stage_finished"]
        assert [(e["done"], e["total"], e["eta_seconds"]) for e in ended] == [(100, 100, 0.0)] * 2


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UserError, match="'jsno' \\(did you mean 'json'"), progress.shown_as("jsno"):
        pass


# -- a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(miniatures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the main job of the tests, and gives its standard error."""

    def main(*more: str) -> str:
        out = tmp_path / "runs"
        assert parser.main(arguments(miniatures, out, *more)) == 0
        assert f"--out {out}" in (record := next((out / "runs").glob("*.json")).read_text(encoding="utf-8"))
        assert "--progress" not in record + (out / "config.yaml").read_text(encoding="utf-8")
        return capfd.readouterr().err

    return main


@pytest.mark.slow
def test_a_log_file_gets_a_few_lines_and_none_gets_nothing(run: Callable[..., str], tmp_path: Path) -> None:
    err = run()
    assert len(err) < 5000 and "\r" not in err
    assert "loading PyTorch" in err
    shutil.rmtree(tmp_path / "runs" / "answers")  # to have something to do again
    assert run("--progress", "none") == ""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_events_of_a_run_add_up(run: Callable[..., str], jobs: str) -> None:
    events = [json.loads(line) for line in run("--progress=json", "--jobs", jobs).splitlines()]
    of_run = [event for event in events if event.get("stage") == "run"]
    assert [of_run[0]["event"], of_run[-1]["event"]] == ["stage_started", "stage_finished"]
    assert of_run[-1]["done"] == of_run[-1]["total"] > 0
    begun, over = ([e for e in events if e["event"] == f"job_{what}"] for what in ("started", "finished"))
    assert Counter(e["title"] for e in begun) == Counter(e["title"] for e in over)
    numbers = [(e["number"], e["of"]) for e in begun if e["kind"] == "train"]
    assert numbers == [(1, 2), (2, 2)]


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    code = (
        "import time; from cliqa_bench.progress import bar\n"
        "with bar(30, 'decode', 'image') as shown:\n"
        "    for _ in range(30): time.sleep(0.05); shown.update()"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))  # one of no width has no room for a bar
    done = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 1000):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.wait() == 0
    assert b"\r" in written and b"30/30 image" in written
