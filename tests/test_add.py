"""`add`: a dataset more in a finished model, the old heads as they were, and a report of what changed."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grown_models import TINY, Grown, in_this_process
from safetensors.torch import load
from test_model_file import header_of, written

import cliqa_bench
from cliqa_bench.cli.parser import main
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.extensions import registry
from cliqa_bench.results.nodes import file_digest
from cliqa_bench.results.records import read_records
from cliqa_bench.results.weights import node_weights

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


@pytest.fixture(autouse=True)
def no_processes() -> Iterator[None]:
    with in_this_process():
        yield


# -- what is kept --------------------------------------------------------------------------------------------


def test_old_tensors_have_the_same_bits(grown: Grown) -> None:
    old, new = (load(grown.path(name).read_bytes()) for name in ("old.safetensors", "one.safetensors"))
    kept = {name: tensor for name, tensor in old.items() if not name.startswith(("answers.", "reading."))}
    assert kept and all(torch.equal(tensor, new[name]) for name, tensor in kept.items())
    more = {name.rpartition(".heads")[0] or name for name in new.keys() - old.keys()}
    assert {name.partition(".")[0] for name in more} <= {"train", "centroids", "answers", "earlier"}
    assert header_of(grown.path("one.safetensors").read_bytes())["facts"]["sequence"] == [
        "csv-a",
        "csv-b",
        "csv-one",
    ]


def test_scores_are_read_among_the_test_pictures_of_all(grown: Grown) -> None:
    names = ("old.safetensors", "one.safetensors")
    old, new = (LearnedFile(grown.path(name)) for name in names)
    before, after = old.reading_scale(), new.reading_scale()
    assert before is not None and after is not None
    assert len(after.scores) == len(before.scores) + len(new.answers()["csv-one"].keys)
    assert after.limits is not None and after.limits.shape[0] == 3
    for name in ("scores", "limits"):
        assert torch.equal(new.tensors[f"earlier.2.reading.{name}"], old.tensors[f"reading.{name}"])


def test_the_training_is_that_of_a_run(grown: Grown) -> None:
    """The new head has the bits that `run` gives it in the order a, b, one."""
    grown.run(f"{grown.orders},{grown.one}", "whole")
    (record,) = read_records(grown.path("whole"))
    added = LearnedFile(grown.path("one.safetensors"))
    theirs = node_weights(grown.path("whole") / "train" / record.steps[-1].heads[-1][0])
    ours = added.state("2")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    whole = open_learned(grown.path("whole"))
    for mine, wanted in zip(added.centroids(), whole.centroids(), strict=True):
        assert all(map(torch.equal, mine, wanted))
    assert added.facts.srcc.keys() == whole.measured().srcc.keys()
    for test, srcc in whole.measured().srcc.items():
        assert added.facts.srcc[test] == pytest.approx(srcc, abs=1e-6)


def test_answers_are_carried(grown: Grown) -> None:
    old, new = LearnedFile(grown.path("old.safetensors")), LearnedFile(grown.path("one.safetensors"))
    assert list(old.answers()) == ["csv-a", "csv-b"] and list(new.answers()) == ["csv-a", "csv-b", "csv-one"]
    for test, said in old.answers().items():
        more = new.answers()[test]
        assert more.keys.tolist() == said.keys.tolist() and more.mos.tolist() == said.mos.tolist()
        assert more.scores.shape == (len(said.keys), 3)
        assert more.scores[:, :2].tobytes() == said.scores.tobytes()
    model = cliqa_bench.load(grown.path("one.safetensors"), device="cpu")
    for name in ("a", "b", "one"):
        said = new.answers()[f"csv-{name}"]
        found = model.score([grown.path(name) / key for key in said.keys.tolist()])
        np.testing.assert_allclose(found.heads, said.scores, atol=1e-6)
        assert found.distances is not None and said.distances is not None
        np.testing.assert_allclose(found.distances, said.distances, atol=1e-6)


# -- the report ----------------------------------------------------------------------------------------------


def report(grown: Grown, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((grown.path(f"{name}-report") / "report.json").read_text())
    return body


def test_the_report_has_the_numbers_of_both_models(grown: Grown) -> None:
    body = report(grown, "one")
    assert body["passed"] and [one["name"] for one in body["test_sets"]] == ["csv-a", "csv-b", "csv-one"]
    assert [one["added"] for one in body["test_sets"]] == [False, False, True]
    assert body["new"]["released_sha256"] == file_digest(grown.path("one.safetensors"))
    models = [cliqa_bench.load(grown.path(f"{name}.safetensors"), device="cpu") for name in ("old", "one")]
    for one in body["test_sets"]:
        folder = grown.path(one["title"])
        before, after = (m.score([folder / p["key"] for p in one["pictures"]]).scores for m in models)
        assert [p["before"] for p in one["pictures"]] == before.tolist()
        assert [p["after"] for p in one["pictures"]] == after.tolist()
        change, bounds = np.abs(after - before), np.array([p["bound"] for p in one["pictures"]])
        assert (change <= bounds + 1e-6).all() and bounds.max() > 0
        assert one["largest_change"] == change.max() and one["bounds_broken"] == 0
    for name in ("report.html", "report.md"):
        text = (grown.path("one-report") / name).read_text()
        assert "one added to a, b: " in text and body["old"]["sha256"] in text


def test_half_done_work_is_gone_and_the_run_is_untouched(grown: Grown) -> None:
    assert not grown.path("one-work").exists()
    assert len(read_records(grown.path("runs"))) == 1
    assert {path.name[:5] for path in (grown.path("runs") / "train").iterdir()} == {"tsn-s"}
    assert len(list((grown.path("runs") / "train").iterdir())) == 2


def test_a_limit_that_is_missed_is_exit_code_3(grown: Grown, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--min-srcc", "1.5", *grown.learned)
    assert grown.add(grown.one, "old.safetensors", "bad.safetensors", *limits) == 3
    said = capsys.readouterr().out
    assert "FAIL: SRCC on the new test set is at least 1.5: " in said
    assert not grown.path("bad.safetensors").exists() and not report(grown, "bad")["passed"]
    kept = grown.path("bad-work") / "bad.safetensors"
    assert kept.read_bytes() == grown.path("one.safetensors").read_bytes()
    trained = sorted((grown.path("bad-work") / "train").glob("*/done.json"))
    before = [path.stat().st_mtime_ns for path in trained]
    assert before
    assert (
        grown.add(grown.one, "old.safetensors", "bad.safetensors", *grown.learned, "--max-change", "0") == 3
    )
    assert [path.stat().st_mtime_ns for path in trained] == before  # nothing is trained again


def test_without_old_pictures_it_says_so(
    grown: Grown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_sourced", {})  # a process that never heard of these tables
    assert grown.add(grown.two, "old.safetensors", "blind.safetensors", "--max-drop", ".5") == 2
    error = capsys.readouterr().err.strip()
    assert "--max-drop needs the test pictures of csv-a, csv-b: " in error and "--data" in error
    assert grown.add(grown.two, "old.safetensors", "blind.safetensors") == 0
    assert "a is not scored: nothing is known of csv-a here; give" in capsys.readouterr().err
    body = report(grown, "blind")
    assert [one["title"] for one in body["not_scored"]] == ["a", "b"]
    assert body["not_scored"][0]["srcc"] == LearnedFile(grown.path("old.safetensors")).facts.srcc["csv-a"]
    facts = LearnedFile(grown.path("blind.safetensors")).facts
    assert facts.answered == [("csv-a", 2), ("csv-b", 2), ("csv-two", 3)] and list(facts.srcc) == ["csv-two"]


def test_other_labels_of_an_old_set_are_noticed(
    grown: Grown, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_sourced", {})
    shutil.copytree(grown.path("a"), tmp_path / "a")
    rows = (tmp_path / "a" / "a.csv").read_text().splitlines()
    (tmp_path / "a" / "a.csv").write_text("\n".join([rows[0], *(f"{row}.5" for row in rows[1:])]))
    limits = (f"--tables=csv:{tmp_path / 'a' / 'a.csv'}", "--max-change", "2")
    assert grown.add(grown.two, "old.safetensors", "x.safetensors", *limits) == 2
    assert "are not those that the model was tested on" in capsys.readouterr().err


# -- what is refused -----------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cliqa-bench: error: ")
    return error


def test_what_cannot_be_added_is_one_line(
    grown: Grown, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def added(dataset: str, to: str = "old.safetensors", out: str = "x.safetensors") -> str:
        return refused(capsys, grown.add(dataset, to, out))

    a = grown.orders.partition(",")[0]
    assert "has already learned csv-a" in added(a)
    assert "learns one dataset, not" in added(grown.orders)
    assert "no file or folder" in added(grown.one, to="nothing")
    assert "is the model itself" in added(grown.one, out="old.safetensors")
    assert "must be a file that ends in .safetensors" in added(grown.one, out="new.pt")
    half = grown.path("half.safetensors")
    half.write_bytes(grown.path("old.safetensors").read_bytes()[:-100])
    assert "is not a safetensors file" in added(grown.one, to="half.safetensors")
    assert "has already learned csv-a" in added(a, to="runs")  # whose file was in the work folder by then
    assert not any(grown.folder.glob("x*"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategy": "lwf", "params": {}}, "each training of lwf builds on those before it"),
        (
            {"strategy": "tsn", "params": {"norms": "shared"}},
            "each training of tsn builds on those before it",
        ),
        ({"readout": "last"}, "its score comes from its newest head, not from a gate over all heads"),
        ({"heads": [["0", 0], ["0", 1]]}, "its tasks share one network"),
    ],
)
def test_other_kinds_of_models_are_refused(
    grown: Grown, tmp_path: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = grown.path("old.safetensors").read_bytes()
    header = header_of(data)
    header["facts"] |= changed
    file = written(tmp_path / "m.safetensors", load(data), header)
    words = ["add", grown.one, "--to", str(file), "--out", str(tmp_path / "n.safetensors")]
    assert message in refused(capsys, main(words))


def test_a_file_without_answers_and_seed_can_be_added_to(
    grown: Grown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As earlier releases wrote them."""
    data = grown.path("old.safetensors").read_bytes()
    header = header_of(data)
    for name in ("made", "answered", "added"):
        del header["facts"][name]
    tensors = {name: tensor for name, tensor in load(data).items() if not name.startswith("answers.")}
    file = written(tmp_path / "m.safetensors", tensors, header)
    out = str(tmp_path / "n.safetensors")
    assert main(["add", grown.one, "--to", str(file), "--out", out, "--device", "cpu", *grown.learned]) == 0
    assert "does not say its seed and split; using seed 0 and split 1" in capsys.readouterr().err
    assert (
        LearnedFile(Path(out)).state("2").keys()
        == LearnedFile(grown.path("one.safetensors")).state("2").keys()
    )
    assert main(["remove", "one", "--from", out, "--out", str(tmp_path / "back.safetensors")]) == 0
    assert load((tmp_path / "back.safetensors").read_bytes()).keys() == tensors.keys()


# -- whole runs ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_options_of_tsn_keep_the_bound(
    grown: Grown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads on one scale, distances in deviations, and a chosen temperature, which stays."""
    options = ("tsn.scores=standard", "tsn.gate_features=standard", "tsn.tau_from=validation")
    grown.run(grown.orders, "options", *options)
    out = tmp_path / "n.safetensors"
    assert grown.add(grown.one, "options", str(out)) == 0
    said = capsys.readouterr()
    before, after = open_learned(grown.path("options")), LearnedFile(out)
    assert f"tau stays {before.tau:g}, as it was chosen" in said.err
    assert after.tau == before.tau and len(after.validation()) == len(after.scales()) == 3
    body = json.loads((tmp_path / "n-report" / "report.json").read_text())
    assert body["passed"] and len(body["test_sets"]) == 3
    grown.run(f"{grown.orders},{grown.one}", "options-whole", *options)
    whole = open_learned(grown.path("options-whole"))
    for ours, theirs in zip(after.validation(), whole.validation(), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert main(["export", str(grown.path("options")), "--to", str(tmp_path / "o.safetensors")]) == 0
    assert main(["remove", "one", "--from", str(out), "--out", str(tmp_path / "b.safetensors")]) == 0
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "o.safetensors").read_bytes()


@pytest.mark.slow
def test_in_two_processes_on_the_miniatures(miniatures: Path, tmp_path: Path) -> None:
    def command(*words: object) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable,
            "-m",
            "cliqa_bench",
            *map(str, words),
            "--progress",
            "none",
            "--device",
            "cpu",
        ]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)

    tiny = [word for text in TINY for word in ("--set", f"training.{text}")]
    where = ["--data", miniatures, "--out", "runs", "--jobs", "1", "--no-figures", "--format", "csv"]
    assert command("run", "--strategy", "tsn", "--orders", "live,bid", *where, *tiny).returncode == 0
    added = command("add", "csiq", "--to", "runs", "--out", "new.safetensors", "--max-drop", "2")
    assert added.returncode == 0, added.stderr
    body = json.loads((tmp_path / "new-report" / "report.json").read_text())
    assert body["passed"] and body["old"]["process"] != body["new"]["process"]
    assert [one["name"] for one in body["test_sets"]] == ["live", "bid", "csiq"]
    pictures = [p["key"] for p in body["test_sets"][2]["pictures"]]
    folder = miniatures / "CSIQ"
    files = [folder / key for key in pictures]
    assert command("score", *files, "--model", "new.safetensors", "--to", "x.csv").returncode == 0
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = [float(row["score"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, [p["after"] for p in body["test_sets"][2]["pictures"]], atol=1e-6)
