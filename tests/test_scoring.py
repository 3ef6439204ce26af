"""Images of one's own scored with a finished run: as the run answered, or with fewer heads."""

import csv
import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_runner import arguments

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import LearnedRun
from cliqa_bench.models.gated import Gate, GatedScorer
from cliqa_bench.models.pretraining_config import DISTORTION_BN, pretraining
from cliqa_bench.results.nodes import write_json
from cliqa_bench.results.readouts import gate_weights, read
from cliqa_bench.results.records import AnswerReader, read_records

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def finished(miniatures, tmp_path_factory):
    """TSN-IQA, heads on normalisations of their own, and LwF, heads on one."""
    out = tmp_path_factory.mktemp("scoring") / "runs"
    words = arguments(miniatures, out)
    words[words.index("tsn")] = "tsn,lwf"
    words[words.index("live,bid;bid,live")] = "live,bid"
    assert parser.main(words) == 0
    return out


def scored(out, images, capsys, *more):
    assert parser.main(["score", *map(str, images), "--runs", str(out), *more]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    return {Path(row["image"]).name: row for row in rows}


@pytest.mark.parametrize("strategy", ["tsn", pytest.param("lwf", marks=pytest.mark.slow)])
def test_scores_are_those_that_the_run_answered(finished, miniatures, capsys, strategy):
    (record,) = (r for r in read_records(finished) if r.strategy == strategy)
    found = scored(finished, [miniatures / "BID"], capsys, "--run", strategy)
    answers = AnswerReader(finished).answers(record, 1, "bid")
    assert answers is not None and answers.distances is not None
    expected = read(answers, "gate", None, record.tau)
    assert expected is not None
    weights = gate_weights(answers.distances, record.tau)
    assert len(answers.keys) > 3
    for key, score, weight, heads in zip(answers.keys, expected, weights, answers.scores, strict=True):
        row = found[Path(key).name]
        assert float(row["score"]) == pytest.approx(score, abs=1e-6)
        for k, task in enumerate(("live", "bid")):
            assert float(row[f"weight:{task}"]) == pytest.approx(weight[k], abs=1e-5)
            assert float(row[f"head:{task}"]) == pytest.approx(heads[k], abs=1e-6)


def test_gates_of_a_network_that_learned_from_other_pictures_are_refused(tmp_path):
    made = DISTORTION_BN["quick"]
    (tmp_path / "gate" / "g").mkdir(parents=True)
    spec = tmp_path / "gate" / "g" / "spec.json"
    saved = LearnedRun.__new__(LearnedRun)
    vars(saved).update(out=tmp_path, record=SimpleNamespace(id="tsn-x", gates={"live": "g"}))
    write_json(spec, {"net": pretraining(made)})
    saved._check_gate_net(made)
    write_json(spec, {"net": asdict(made)})  # as release 0.1.0 wrote it
    with pytest.raises(UserError, match=r"run tsn-x has gates of a network .* other pictures"):
        saved._check_gate_net(made)


@pytest.mark.slow
def test_within_a_tolerance_fewer_heads_run(finished, miniatures, capsys):
    images = [miniatures / "BID", miniatures / "databaserelease2"]
    exact = scored(finished, images, capsys, "--run", "tsn")
    near = scored(finished, images, capsys, "--run", "tsn", "--tolerance", "0.3")
    errors = [abs(float(exact[name]["score"]) - float(near[name]["score"])) for name in exact]
    left_out = sum(row[f"head:{task}"] == "" for row in near.values() for task in ("live", "bid"))
    assert 0 < left_out < 2 * len(near)
    assert 0 < max(errors) <= 0.3
    for name, row in near.items():
        said = [task for task in ("live", "bid") if row[f"head:{task}"]]
        assert said
        weighted = sum(float(row[f"weight:{t}"]) * float(row[f"head:{t}"]) for t in said)
        # of a head that is left out, the middle of its range counts: less than 1
        without = sum(float(row[f"weight:{t}"]) for t in ("live", "bid") if t not in said)
        assert abs(float(row["score"]) - weighted) <= without + 1e-6, name


def test_a_file_and_a_folder_in_their_order(finished, miniatures, tmp_path):
    first, second = sorted((miniatures / "BID").rglob("*.JPG"))[:2]
    folder = tmp_path / "of mine"
    folder.mkdir()
    shutil.copy(first, folder / "=1+1,<b>.jpg")
    (folder / "notes.txt").write_text("no image")
    to = tmp_path / "scores.csv"
    assert parser.main(["score", str(second), str(folder), "--runs", str(finished), "--to", str(to)]) == 0
    with to.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(second), str(folder / "=1+1,<b>.jpg")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.png"], "no file or folder nowhere.png"),
        (["{empty}"], "no images in "),
        (["{image}", "--run", "x"], "--run x matches no run of "),
        (["{image}", "--run", ""], "--run  matches 2 runs of "),
        (["{image}", "--tolerance", "1"], "--tolerance must be at least 0 and below 1, not 1.0"),
        (["{image}", "--precision", "fp16"], "unknown precision 'fp16'"),
    ],
)
def test_misuse_is_one_line(finished, miniatures, tmp_path, capsys, words, said):
    (tmp_path / "empty").mkdir()
    places = {
        "empty": tmp_path / "empty",
        "image": next((miniatures / "BID").rglob("*.JPG")),
    }
    assert parser.main(["score", *(w.format(**places) for w in words), "--runs", str(finished)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("cliqa-bench: error: ") and said in error


def test_what_is_not_finished_or_not_the_same_is_refused(finished, miniatures, tmp_path, capsys):
    image = str(next((miniatures / "BID").rglob("*.JPG")))
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    for folder in (out / "gate").iterdir():
        shutil.rmtree(folder)
    assert parser.main(["score", image, "--runs", str(out)]) == 2
    assert "is not finished (no " in capsys.readouterr().err
    for path in (out / "runs").iterdir():
        body = json.loads(path.read_text())
        body["facts"]["weights"] = "of something else"
        path.write_text(json.dumps(body))
    assert parser.main(["score", image, "--runs", str(out)]) == 2
    assert "was trained with other weights of S-CNN" in capsys.readouterr().err


class _Head(torch.nn.Module):
    """A head that says one thing, and counts how many images it is asked about."""

    def __init__(self, says):
        super().__init__()
        self.says, self.asked, self.heads = says, 0, [0]

    def fixed(self, images):
        return None

    def forward(self, images, fixed=None):
        self.asked += len(images)
        return torch.full((len(images), 1), self.says)


def test_a_head_that_is_left_out_counts_as_the_middle_of_its_range(monkeypatch):
    given = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3]], dtype=torch.float64)
    monkeypatch.setattr(Gate, "distances", lambda self, images: torch.zeros(2, 3, 1))
    monkeypatch.setattr(Gate, "weights_at", lambda self, distances: given)
    heads = [_Head(0.9), _Head(0.3), _Head(-0.5)]
    ranges = np.array([[-0.1, 0.9], [0.1, 0.4], [-0.6, 0.2]])
    gate = Gate(None, [], [], 32.0)  # type: ignore[arg-type]
    said = GatedScorer(heads, gate, 0.08, ranges=ranges)(torch.zeros(2, 3, 8, 8))  # type: ignore[arg-type]
    # at stake: 0.35, 0.03, 0.04 and 0.3, 0.015, 0.12
    assert [head.asked for head in heads] == [2, 0, 1]
    expected = [0.7 * 0.9 + 0.2 * 0.25 + 0.1 * -0.2, 0.6 * 0.9 + 0.1 * 0.25 + 0.3 * -0.5]
    np.testing.assert_allclose(said.scores, expected, rtol=1e-6)


def test_heads_that_do_not_count_are_not_run(monkeypatch):
    given = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)
    monkeypatch.setattr(Gate, "distances", lambda self, images: torch.zeros(3, 3, 1))
    monkeypatch.setattr(Gate, "weights_at", lambda self, distances: given)
    heads = [_Head(1.0), _Head(-1.0), _Head(0.5)]
    gate = Gate(None, [], [], 32.0)  # type: ignore[arg-type]
    said = GatedScorer(heads, gate, tolerance=0.15)(torch.zeros(3, 3, 8, 8))  # type: ignore[arg-type]
    # 0.1 goes alone (with 0.2 it is too much); 0.1 or 0.1, not both; 0.05 and 0.05 together
    assert [head.asked for head in heads] == [1, 2, 2]
    np.testing.assert_allclose(said.scores, (given.numpy() * np.nan_to_num(said.heads)).sum(axis=1))
    assert np.isnan(said.heads).sum() == 4
