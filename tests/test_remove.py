"""`remove`: a model without a dataset is the one that never learned it, byte by byte where it was added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from grown_models import Grown, in_this_process
from safetensors.torch import load
from test_model_file import header_of, written

import cliqa_bench
from cliqa_bench.cli.parser import main
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.results.nodes import file_digest

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


@pytest.fixture(autouse=True)
def no_processes() -> Iterator[None]:
    with in_this_process():
        yield


def removed(grown: Grown, name: str, source: str, to: Path) -> Path:
    assert main(["remove", name, "--from", str(grown.path(source)), "--out", str(to)]) == 0
    return to


def test_the_last_one_leaves_the_very_file(
    grown: Grown,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = removed(grown, "csv-two", "two.safetensors", tmp_path / "one.safetensors")
    assert one.read_bytes() == grown.path("one.safetensors").read_bytes()
    said = capsys.readouterr().out
    assert f"SHA-256 {file_digest(one)}" in said and "the same bytes as the file to which csv-two" in said
    assert main(["remove", "one", "--from", str(one), "--out", str(tmp_path / "old.safetensors")]) == 0
    assert (tmp_path / "old.safetensors").read_bytes() == grown.path("old.safetensors").read_bytes()


def test_one_between_leaves_the_file_that_never_had_it(grown: Grown, tmp_path: Path) -> None:
    never = tmp_path / "never.safetensors"
    words = ["add", grown.two, "--to", str(grown.path("old.safetensors")), "--out", str(never)]
    assert main([*words, "--device", "cpu", *grown.learned]) == 0
    without = removed(grown, "csv-one", "two.safetensors", tmp_path / "without.safetensors")
    assert without.read_bytes() == never.read_bytes()


def test_one_of_the_run_leaves_with_all_that_is_its_own(grown: Grown, tmp_path: Path) -> None:
    without = removed(grown, "a", "two.safetensors", tmp_path / "x.safetensors")
    whole, left = LearnedFile(grown.path("two.safetensors")), LearnedFile(without)
    assert left.facts.sequence == ["csv-b", "csv-one", "csv-two"]
    assert [test for test, _ in left.facts.answered] == ["csv-b", "csv-one", "csv-two"]
    for place in range(3):
        ours, theirs = left.state(str(place)), whole.state(str(place + 1))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
        assert all(map(torch.equal, left.centroids()[place], whole.centroids()[place + 1]))
    assert left.answers()["csv-b"].scores.tolist() == whole.answers()["csv-b"].scores[:, 1:].tolist()
    assert left.facts.srcc != whole.facts.srcc and set(left.facts.srcc) == {"csv-b", "csv-one", "csv-two"}
    pictures = sorted(grown.path("b").glob("*.png"))
    alone, all_ = (cliqa_bench.load(path, device="cpu").score(pictures) for path in (without, whole.path))
    assert alone.heads.tobytes() == all_.heads[:, 1:].tobytes()
    # what was added to the rest can leave it again
    once = removed(grown, "csv-two", str(without), tmp_path / "y.safetensors")
    assert LearnedFile(once).facts.sequence == ["csv-b", "csv-one"]


def test_down_to_one_and_no_further(
    grown: Grown,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    single = tmp_path / "b.safetensors"
    assert main(["remove", "a", "--from", str(grown.path("runs")), "--out", str(single)]) == 0
    pictures = sorted(grown.path("b").glob("*.png"))
    found = cliqa_bench.load(single, device="cpu").score(pictures)
    assert found.scores.astype("f4").tolist() == found.heads[:, 0].tolist()
    capsys.readouterr()
    for name, message in {"b": "csv-b is the only dataset that", "nothing": "unknown dataset of"}.items():
        assert main(["remove", name, "--from", str(single), "--out", str(tmp_path / "n.safetensors")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "n.safetensors").exists()
    # a single head gets another one beside it: the gate was kept
    words = ["add", grown.one, "--to", str(single), "--out", str(tmp_path / "two.safetensors")]
    assert main([*words, "--device", "cpu", *grown.learned]) == 0
    body = json.loads((tmp_path / "two-report" / "report.json").read_text())
    assert body["passed"] and {one["name"] for one in body["test_sets"]} == {"csv-b", "csv-one"}
    back = removed(grown, "one", str(tmp_path / "two.safetensors"), tmp_path / "back.safetensors")
    assert back.read_bytes() == single.read_bytes()


def test_a_header_that_does_not_fit_is_one_line(
    grown: Grown,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = grown.path("one.safetensors").read_bytes()
    for spoiled in ({"before": 3, "file": ""}, {"before": {"facts": {"sequence": ["x"]}}, "file": "0"}):
        header = header_of(data)
        header["facts"]["added"] = spoiled
        file = written(tmp_path / "m.safetensors", load(data), header)
        assert main(["remove", "one", "--from", str(file), "--out", str(tmp_path / "n.safetensors")]) == 2
        assert "does not say what it was before its last dataset was added" in capsys.readouterr().err
