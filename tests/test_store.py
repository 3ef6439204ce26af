"""Nothing half-written ever counts, and what belongs together is put together."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs
import torch
from safetensors.torch import save_file

from cliqa_bench.errors import UserError
from cliqa_bench.results import nodes, records
from cliqa_bench.results.nodes import Node, read_answers, read_json, write_answers
from cliqa_bench.results.records import AnswerReader, RunRecord, Step
from cliqa_bench.results.weights import write_weights
from cliqa_bench.types import Answers


def test_a_node_is_named_by_its_spec_alone(tmp_path):
    assert (
        Node(tmp_path, "train", "a", {"x": 1, "y": [2]}).id
        == Node(tmp_path, "train", "a", {"y": [2], "x": 1}).id
    )
    assert Node(tmp_path, "train", "a", {"x": 1}).id != Node(tmp_path, "train", "a", {"x": 2}).id


def test_a_finished_node_carries_the_hashes_of_its_files(tmp_path):
    node = Node(tmp_path, "train", "a", {"x": 1})
    facts: dict[str, object] = {"device": "cpu"}
    with node.building(facts) as folder:
        (folder / "weights").write_bytes(b"123")
        assert not node.file("done.json").exists()
        facts["seconds"] = 1.5
    assert node.done
    done = json.loads(node.file("done.json").read_text())
    assert done["facts"] == {"device": "cpu", "seconds": 1.5}
    assert done["files"] == {name: nodes.file_digest(node.file(name)) for name in ("spec.json", "weights")}


def test_a_node_that_fails_leaves_nothing(tmp_path):
    node = Node(tmp_path, "train", "a", {"x": 1})
    with pytest.raises(ZeroDivisionError), node.building({}) as folder:
        (folder / "weights").write_bytes(b"123")
        print(1 / (not folder))
    assert not node.done
    assert not list((tmp_path / "train").iterdir())


def test_a_node_finished_by_somebody_else_stays(tmp_path):
    node = Node(tmp_path, "train", "a", {"x": 1})
    with node.building({}) as mine:
        (mine / "weights").write_bytes(b"mine")
        with node.building({}) as theirs:
            (theirs / "weights").write_bytes(b"theirs")
    assert node.file("weights").read_bytes() == b"theirs"


def test_a_folder_without_done_is_no_node_and_is_replaced(tmp_path):
    node = Node(tmp_path, "train", "a", {"x": 1})
    node.folder.mkdir(parents=True)
    node.file("weights").write_bytes(b"half")
    assert not node.done
    with node.building({}) as folder:
        (folder / "weights").write_bytes(b"whole")
    assert node.file("weights").read_bytes() == b"whole"


def test_a_mistake_of_ours_is_not_blamed_on_the_disk(tmp_path):
    node = Node(tmp_path, "train", "a", {})
    with pytest.raises(FileNotFoundError), node.building({}):
        Path(tmp_path / "missing").read_text()
    with pytest.raises(UserError, match=r"cannot write .*a-.*: No space left"), node.building({}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from cliqa_bench.results.nodes import *\n"
        f"out = Path({str(tmp_path)!r})\n"
        "with Node(out, 'train', 'a', {}).building({}), atomic_path(out / 'runs' / 'x.json'): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[1])
    assert len(list(tmp_path.rglob(".*~*"))) == 2, "a killed process leaves its temporary names behind"
    with Node(tmp_path, "train", "b", {}).building({}) as alive:
        nodes.clean_partial(tmp_path)
        assert alive.is_dir()
        assert list(tmp_path.rglob(".*~*")) == [alive]


def test_a_text_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "a.json"
    nodes.write_json(path, {"b": 1})
    with pytest.raises(ValueError, match="JSON"):
        nodes.write_json(path, {"b": float("nan")})
    assert nodes.read_json(path) == {"b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}"):
        nodes.write_text(tmp_path / "a", "b")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "train").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write .*train"),
        Node(tmp_path, "train", "a", {}).building({}),
    ):
        pass


def write_columns(out: Path, name: str, keys: list[str], **arrays: Any) -> None:
    folder = out / "answers" / name
    mos = np.arange(len(keys), dtype=np.float64)
    nodes.write_answers(folder / "answers.npz", np.array(keys), mos, **arrays)
    recorded_runs.sign(folder)


def read(reader: AnswerReader, record: RunRecord, step: int) -> Answers:
    answers = reader.answers(record, step, "x")
    assert answers is not None
    return answers


@pytest.fixture
def record(tmp_path):
    keys = ["a", "b", "c"]
    columns = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_columns(tmp_path, "n1-on-x", keys, scores=columns)
    write_columns(tmp_path, "n2-on-x", keys, scores=10 + columns)
    for gate in ("gx", "gy"):
        write_columns(
            tmp_path, f"{gate}-on-x", keys, distances=np.tile(np.arange(4, dtype=np.float32), (3, 1))
        )
    return RunRecord(
        strategy="s", variant="", rows={"last": "S"}, backbone="B", seed=0, order="x,y", sequence=["x", "y"],
        tests=["x"], titles={"x": "X", "y": "Y"},
        steps=[Step("x", [("n1", 1)]), Step("y", [("n1", 0), ("n2", 1)])],
        gates={"x": "gx", "y": "gy"}, answers={n: {"x": f"{n}-on-x"} for n in ("n1", "n2", "gx", "gy")},
        tau=32.0, stages=[3, 4], generated=True,
    )  # fmt: skip


def test_heads_come_from_the_nodes_and_columns_that_the_record_names(tmp_path, record):
    answers = read(AnswerReader(tmp_path), record, 1)
    assert answers.distances is not None
    assert answers.scores.tolist() == [[0, 11], [2, 13], [4, 15]]
    assert answers.mos.tolist() == [0, 1, 2]
    assert answers.distances.shape == (3, 2, 2)
    assert answers.distances[0, 0].tolist() == [2, 3], "stages 3 and 4 are the third and the fourth column"


def test_answers_come_back_bit_by_bit(tmp_path):
    mos, scores = np.array([1 / 3, 2.0**60 + 2.0**10]), np.array([[0.1, -0.0], [1e-30, 3.5]], np.float32)
    distances = np.array([[0.7], [1.1]], np.float32)
    path = tmp_path / "answers.npz"
    write_answers(path, np.array(["b", "a"]), mos, scores=scores, distances=distances)
    back = read_answers(path)
    assert back["keys"].tolist() == ["b", "a"] and back["mos"].dtype == np.float64
    for name, array in (("mos", mos), ("scores", scores), ("distances", distances)):
        assert back[name].tobytes() == array.tobytes(), name


def test_an_unfinished_node_is_no_answer(tmp_path, record):
    (tmp_path / "answers" / "n2-on-x" / "done.json").unlink()
    reader = AnswerReader(tmp_path)
    assert reader.answers(record, 1, "x") is None
    assert reader.answers(record, 0, "x") is not None


def test_without_all_gates_there_are_no_distances(tmp_path, record):
    (tmp_path / "answers" / "gy-on-x" / "done.json").unlink()
    assert read(AnswerReader(tmp_path), record, 1).distances is None
    assert read(AnswerReader(tmp_path), record, 0).distances is not None


def test_answers_about_other_images_are_refused(tmp_path, record):
    write_columns(tmp_path, "n2-on-x", ["a", "c", "b"], scores=np.zeros((3, 2), np.float32))
    with pytest.raises(UserError, match="name different images"):
        AnswerReader(tmp_path).answers(record, 1, "x")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_a_broken_answer_file_is_named(tmp_path, record, content):
    path = tmp_path / "answers" / "n1-on-x" / "answers.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        AnswerReader(tmp_path).answers(record, 0, "x")


def test_a_pickle_is_never_unpacked(tmp_path, record):
    path = tmp_path / "answers" / "n1-on-x" / "answers.npz"
    np.savez(path, keys=np.array([{}], dtype=object), mos=np.zeros(1))
    recorded_runs.sign(path.parent)
    with pytest.raises(UserError, match="not an answer file"):
        AnswerReader(tmp_path).answers(record, 0, "x")


@pytest.mark.parametrize("change", ["bytes", "gone", "unnamed", "no hashes"])
def test_a_file_that_is_not_the_one_written_is_refused(tmp_path, record, change):
    folder = tmp_path / "answers" / "n1-on-x"
    path, done = folder / "answers.npz", folder / "done.json"
    if change == "bytes":
        path.write_bytes((tmp_path / "answers" / "n2-on-x" / "answers.npz").read_bytes())
    elif change == "gone":
        path.unlink()
    else:
        nodes.write_json(done, {"files": {}} if change == "unnamed" else [])
    with pytest.raises(UserError, match=str(done if change == "no hashes" else path)):
        AnswerReader(tmp_path).answers(record, 0, "x")


def test_weights_are_written_under_the_caller_s_name_only(tmp_path, monkeypatch):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2)}
    write_weights(tmp_path / "ours", tensors, {"made_by": "us"})
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "theirs", {"made_by": "us"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda *_: os._exit(9))
    child = os.fork()
    if not child:
        write_weights(tmp_path / "killed", tensors)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_a_record_that_is_being_written_is_not_read(tmp_path, record):
    records.write_record(tmp_path, record)
    with nodes.atomic_path(tmp_path / "runs" / "other.json") as temporary:
        temporary.write_text("{")
        assert records.read_records(tmp_path) == [record]
        temporary.write_text("{}")


def test_records_come_back_as_they_went(tmp_path, record):
    records.write_record(tmp_path, record)
    assert records.read_records(tmp_path) == [record]
    facts = replace(record, facts={"created": "today"})
    assert facts.id == record.id, "facts are not part of what a run is"
    assert replace(record, seed=1).id != record.id


@pytest.mark.parametrize("text", ["", "{}", '{"steps": 3}', "[]", '{"steps": [{}]}'])
def test_a_broken_record_is_named(tmp_path, text):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        records.read_records(tmp_path)


def test_no_runs_at_all_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no runs in .* make some"):
        records.read_records(tmp_path)


@pytest.mark.parametrize("text", ["[NaN]", "[-Infinity]", "[1e999]", "[", "[" * 100_000])
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_member_of_an_answer_file_that_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    write_answers(path, np.array(["a", "b"]), np.array([1.0, 2.0]), np.zeros((2, 1), np.float32))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, b"no array" if name == "mos.npy" else data)
    with pytest.raises(UserError, match="mos is not an array"):
        read_answers(path)


def test_a_message_can_be_printed_whatever_it_quotes() -> None:
    assert str(UserError("no column \ufeffname,\n\x00\u2028 got \ud800")) == "no column  name,  got \\ud800"
