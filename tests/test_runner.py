"""The main job on small miniatures: what a run leaves, that it resumes where it stopped, what `plan` says."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cliqa_bench.cli import parser
from cliqa_bench.metrics import srcc
from cliqa_bench.reports import load
from cliqa_bench.results import nodes, records

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).resolve().parents[1]
ORDERS = "live,bid;bid,live"


def arguments(data, out, *more):
    return [
        "run", "--strategy", "tsn", "--orders", ORDERS, "--data", str(data), "--out", str(out),
        "--set", "training.epochs=1", "--set", "training.warmup_epochs=1", "--weights", "random", *more,
    ]  # fmt: skip


def content(out: Path) -> dict[str, str]:
    """Returns a hash of every file that results are made of.

    Times are not results: they are in done.json, the table of times and the HTML page. The run records, the
    report's README and its note of what it was made from name folders.
    """
    apart = re.compile(
        r"runs/.*|.*/done\.json|report/(table_time\..*|report\.html|README\.md|\.report\.json)"
    )
    files = {p.relative_to(out).as_posix(): p for p in sorted(out.rglob("*")) if p.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not apart.fullmatch(name)
    }


@pytest.fixture(scope="module")
def finished(miniatures, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "runs"
    assert parser.main(arguments(miniatures, out)) == 0
    return out


def test_two_orders_of_two_datasets_are_two_trainings_two_gates_eight_answers(finished):
    assert {
        kind: len(list((finished / kind).iterdir())) for kind in ("train", "gate", "answers", "runs")
    } == {
        "train": 2,
        "gate": 2,
        "answers": 8,
        "runs": 2,
    }


def test_every_node_says_what_it_is_made_of(finished):
    for done in finished.glob("*/*/done.json"):
        body = json.loads(done.read_text())
        assert body["files"] == {n: nodes.file_digest(done.parent / n) for n in body["files"]}
        assert {"torch", "avalanche-lib", "python"} <= body["facts"]["versions"].keys()
    for record in records.read_records(finished):
        assert record.generated
        assert record.facts["config"]["training"]["epochs"] == 1
        assert set(record.facts["fingerprints"]) == {"live", "bid"}


def test_the_report_s_numbers_are_those_of_the_answer_files(finished):
    record = next(r for r in records.read_records(finished) if r.sequence == ["live", "bid"])
    answers = records.AnswerReader(finished).answers(record, 1, "live")
    assert answers is not None and answers.distances is not None
    weights = np.exp(-32 * (answers.distances - answers.distances.min(1, keepdims=True)))
    weights = (weights / weights.sum(1, keepdims=True)).mean(2)
    expected = {
        "TSN-IQA": srcc((weights * answers.scores).sum(1), answers.mos),
        "TSN-IQA-O": srcc(answers.scores[:, 0], answers.mos),
        "TSN-IQA (last head)": srcc(answers.scores[:, 1], answers.mos),
    }
    frame = load(finished)
    for method, value in expected.items():
        rows = frame[
            (frame.metric == "SRCC") & (frame.method == method) & (frame.order == "live,bid")
            & (frame.length.astype(str) == "2") & (frame.test_dataset == "LIVE")
        ]  # fmt: skip
        assert rows.value.astype(float).iloc[0] == pytest.approx(value, abs=1e-6), method


def test_order_does_not_matter_to_what_is_learned(finished):
    frame = load(finished)
    values = frame[(frame.metric == "mSRCC") & (frame.method == "TSN-IQA") & (frame.table == "V")].value
    assert len(values) == 2
    assert len(set(values)) == 1


def test_run_again_it_trains_nothing(finished, miniatures, capsys, monkeypatch):
    from cliqa_bench.execution import worker

    before = content(finished)
    monkeypatch.setattr(worker, "Worker", None)  # nothing may ask for it
    assert parser.main(arguments(miniatures, finished)) == 0
    assert "2 trainings, 2 already there" in capsys.readouterr().out
    assert content(finished) == before


@pytest.mark.slow
def test_killed_and_run_again_it_ends_with_the_same_bytes(finished, miniatures, tmp_path):
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "cliqa_bench", *arguments(miniatures, out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    # the moment at which the first training is there and the second is under way
    while len(list(out.glob("train/*/done.json"))) < 1 and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(out.glob("train/*/done.json"))) == 1, "killed in the middle"
    assert parser.main(arguments(miniatures, out)) == 0
    assert content(out) | {"config.yaml": ""} == content(finished) | {"config.yaml": ""}


def test_a_run_writes_numbers_alone_where_it_is_told_to(finished, miniatures, tmp_path):
    out = shutil.copytree(finished, tmp_path / "runs")
    shutil.rmtree(out / "report")
    assert parser.main(arguments(miniatures, out, "--no-figures", "--format", "csv")) == 0
    left = {path.suffix for path in (out / "report").rglob("*") if path.is_file()}
    assert left == {".csv", ".json", ".md"} and not list((out / "report").glob("table_*.md"))


def test_plan_counts_what_is_there_and_starts_nothing(finished, miniatures, tmp_path, capsys):
    for out, there in ((finished, 2), (tmp_path / "none", 0)):
        assert parser.main(["plan", *arguments(miniatures, out)[1:]]) == 0
        said = capsys.readouterr().out
        assert f"2 trainings, {there} already there" in said
        assert said.count("to train") == 2 - there
        assert "MB in" in said
    assert not (tmp_path / "none").exists()


def test_plan_makes_no_miniatures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path))
    assert parser.main(["plan", "--strategy", "tsn", "--orders", "bid"]) == 0
    assert "not there yet" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_start_leaves_no_record(miniatures, tmp_path, capsys):
    assert parser.main(arguments(miniatures, tmp_path, "--set", "training.crop=180")) == 2
    assert "smaller than the crop of 180" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


def test_changed_pixels_are_noticed_though_the_file_has_its_size(finished, miniatures, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(miniatures, data)
    image = sorted((data / "databaserelease2" / "wn").glob("*.bmp"))[0]
    pixels = bytearray(image.read_bytes())
    pixels[-1] ^= 1
    image.write_bytes(pixels)
    assert parser.main(["plan", *arguments(data, finished)[1:]]) == 0
    assert "2 trainings, 1 already there" in capsys.readouterr().out


def test_another_tau_is_another_row_and_no_training(finished, miniatures, tmp_path, capsys):
    assert parser.main(["plan", *arguments(miniatures, finished, "--set", "tsn.tau=16")[1:]]) == 0
    assert "left to do: 0 trainings, 0 gates, 0 answer files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--device", "cuda:7"], "--device cuda:7"),
        (["--weights", "/no/such/file"], "/no/such/file"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--set", "tsn.stages=[7]"], "stages 1 to 4"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(miniatures, tmp_path, capsys, more, message):
    assert parser.main(arguments(miniatures, tmp_path / "runs", *more)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert said[-1].startswith("cliqa-bench: error: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_is_said_before_anything_else(miniatures, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert parser.main(arguments(miniatures, tmp_path)) == 2
    assert "not writable" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_said(miniatures, tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    assert parser.main(arguments(miniatures, tmp_path / "runs")) == 2
    assert "cannot make this folder" in capsys.readouterr().err


def test_a_set_to_test_on_is_tested_whole_and_never_learned(finished, miniatures, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    assert parser.main(arguments(miniatures, out, "--test-on", "csiq")) == 0
    assert "2 trainings, 2 already there" in capsys.readouterr().out
    record = next(r for r in records.read_records(out) if r.tests == ["live", "bid", "csiq"])
    answers = records.AnswerReader(out).answers(record, 1, "csiq")
    assert answers is not None and answers.distances is not None
    images = json.loads((miniatures / "CSIQ" / "generated.json").read_text())["n_images"]
    assert answers.scores.shape == (images, 2), "all images, not a subset of them"
    frame = load(out)
    rows = frame[(frame.test_dataset == "CSIQ") & (frame.metric == "SRCC") & (frame.method == "TSN-IQA")]
    assert {"X", "XI"} <= set(rows.table)
    rows = rows[rows.table == ""]
    assert len(rows) and rows.note.str.contains("not in the sequence").all()


def test_a_run_on_a_cpu_leaves_the_memory_of_the_host_and_no_energy(finished):
    for kind, prefix in (("train", ""), ("answers", "score_")):
        nodes = [json.loads(path.read_text())["facts"] for path in finished.glob(f"{kind}/*/done.json")]
        assert nodes
        for facts in nodes:
            told = {name for name in facts if name.endswith(("joules", "_bytes"))}
            assert told == {f"{prefix}host_bytes"}
            assert 50e6 < facts[f"{prefix}host_bytes"] < 20e9 and facts[f"{prefix}seconds"] > 0


def test_what_a_run_leaves_beside_scores(finished):
    (record, *_) = records.read_records(finished)
    assert record.facts["cost"]["task_parameters"] == 2 * 736 + 128
    assert record.facts["cost"]["passes"] == {"gate": 3, "oracle": 1, "gate-hard": 2, "last": 1}
    reader = records.AnswerReader(finished)
    norms = [reader.norm(node_id) for node_id, _ in record.steps[-1].heads]
    for norm in norms:
        assert norm is not None and norm[0].shape == norm[1].shape == (128,) and (norm[1] > 0).all()
    assert norms[0] is not None and norms[1] is not None
    assert not np.array_equal(norms[0][0], norms[1][0]), "each task has its own"
    assert reader.facts(record.answers[record.steps[0].heads[0][0]]["live"])["score_seconds"] > 0
    for node_id in record.facts["pictures"].values():
        folder = finished / "pictures" / node_id
        kept = json.loads((folder / "keys.json").read_text())
        assert len({k["key"] for k in kept}) == 3
        assert all((folder / k["file"]).is_file() for k in kept)
