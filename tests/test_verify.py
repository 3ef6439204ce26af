"""`verify`: a run as it was left verifies clean, and everything that is changed in it is found and named."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs as recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from cliqa_bench import metrics
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.reports.audit import bundle
from cliqa_bench.reports.audit.recomputed import gated
from cliqa_bench.reports.audit.verify import Verified, verify
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.nodes import Node, digest, read_answers, read_json, write_answers, write_json
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import read_records, write_record
from cliqa_bench.types import Answers


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns two recorded runs with their report; read it, never write to it."""
    out = tmp_path_factory.mktemp("verify") / "runs"
    recorded.record_tsn(out)
    recorded.record_single(out, "jl")
    write_report(out, ("csv",), figures=False)
    return out


@pytest.fixture
def out(clean: Path, tmp_path: Path) -> Path:
    """Returns a copy to tamper with."""
    return Path(shutil.copytree(clean, tmp_path / "runs"))


def answers(out: Path, pattern: str = "train-*-on-live-*") -> Path:
    """Returns the folder of the first answers node of a pattern."""
    return sorted((out / "answers").glob(pattern))[0]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes an answer file, and its hash in `done.json`: what a careful forger would do."""
    arrays: dict[str, Any] = read_answers(folder / "answers.npz")
    change(arrays)
    write_answers(folder / "answers.npz", **arrays)
    recorded.sign(folder)


def problems(out: Path) -> str:
    """Returns what `verify` says; it must find something, each a line of path, fault and advice."""
    found = verify(out)
    assert not found.ok
    lines = [str(problem) for problem in found.problems]
    assert all("\n" not in line and ": " in line and "; " in line for line in lines)
    assert len(set(lines)) == len(lines)
    return "\n".join(lines)


def numbers(found: Verified) -> tuple[int, int, int]:
    return found.runs, found.cells, found.plain


def test_a_recorded_run_is_clean(clean: Path) -> None:
    found = verify(clean)
    assert found.problems == []
    lines = (clean / "report" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert found.cells == len(lines) - 1
    assert found.cells > found.plain > 200
    assert found.nodes == len(list(clean.glob("*/*/done.json")))
    assert found.notes == ["training and gates not here and not checked: 9"]


def test_the_golden_runs_are_clean(tmp_path: Path) -> None:
    """Two orders, two seeds, gates, joint and separate learning: means and deviations, too."""
    recorded.record_golden(tmp_path)
    write_report(tmp_path, ("csv",), figures=False)
    found = verify(tmp_path)
    assert (found.problems, found.runs) == ([], 9)


def test_groups_that_are_reported_apart(tmp_path: Path) -> None:
    recorded.record_single(tmp_path, "sl")
    recorded.record_single(tmp_path, "sl", seed=1, preset="paper", asked="2023-01-01T00:00:00+00:00")
    write_report(tmp_path, ("csv",), figures=False)
    found = verify(tmp_path)
    assert found.problems == []
    (other,) = (tmp_path / "report").glob("other-*/results.csv")
    other.write_text(other.read_text(encoding="utf-8").replace("SL", "LS"), encoding="utf-8")
    assert other.parent.name in problems(tmp_path)


# -- tampering -----------------------------------------------------------------------------------------------


def test_one_bit_of_answers(out: Path) -> None:
    path = answers(out) / "answers.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said = problems(out)
    assert f"answers/{path.parent.name}/answers.npz: its SHA-256 is not that in done.json" in said


def test_a_swapped_file(out: Path) -> None:
    one, other = (answers(out, f"train-{name}-0-on-live-*") for name in ("live", "bid"))
    shutil.copy(one / "answers.npz", other / "answers.npz")
    said = problems(out)
    assert f"answers/{other.name}/answers.npz: its SHA-256" in said
    assert f"answers/{one.name}" not in said
    assert "cannot be computed again" in said and "is not the file that was written" in said


def test_forged_scores_change_the_numbers(out: Path) -> None:
    def forge(arrays: dict[str, np.ndarray]) -> None:
        arrays["scores"] = -arrays["scores"]

    rewrite(answers(out, "train-live-0-on-live-*"), forge)
    said = problems(out)
    assert "SHA-256" not in said
    assert "results.csv:" in said
    assert "value of III Task-Agnostic S-CNN TSN-IQA I 4 mSRCC is" in said


@pytest.mark.parametrize("change", [1e-9, -0.25])
def test_an_edited_cell(out: Path, change: float) -> None:
    path = out / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = next(i for i, line in enumerate(lines) if ",SRCC," in line)
    cells = lines[row].split(",")
    right = cells[10]
    cells[10] = repr(float(right) + change)
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = problems(out)
    assert said.startswith(f"report/results.csv:{row + 1}: value of ")
    assert f"is {cells[10]}, but computed from the answers it is {right}; " in said
    assert "\n" not in said


def test_an_edited_deviation(tmp_path: Path) -> None:
    for seed in (0, 1):
        recorded.record_single(tmp_path, "sl", seed=seed)
    write_report(tmp_path, ("csv",), figures=False)
    path = tmp_path / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = next(i for i, line in enumerate(lines) if ",mSRCC," in line)
    cells = lines[row].split(",")
    right = cells[11]
    cells[11] = repr(float(right) / 2)
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = problems(tmp_path)
    assert said.startswith(f"report/results.csv:{row + 1}: std of ") and right in said and "\n" not in said


def test_a_mistake_of_the_report_s_own_code_is_found(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wrong code writes the report and computes it again: the independent path differs."""
    right = metrics.si_t
    monkeypatch.setattr(metrics, "si_t", lambda stability: right(stability) * 0.99)
    write_report(out, ("csv",), figures=False)
    said = problems(out)
    assert " SI_t is " in said and " SRCC is " not in said


def test_the_gate_is_computed_again_with_the_run_s_temperature(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "runs" / f"{record.id}.json").unlink()
    write_record(tmp_path, replace(record, tau=4.0))
    write_report(tmp_path, ("csv",), figures=False)
    found = verify(tmp_path)
    assert found.problems == [] and found.plain > 100


@pytest.mark.parametrize("wrong", ["seed", "weights", "data", ""])
def test_a_gate_of_another_seed_weights_or_data(out: Path, wrong: str) -> None:
    record = next(r for r in read_records(out) if r.strategy == "tsn")
    spec: dict[str, object] = {"seed": 0, "weights": None, "data": ["live", "print-of-live"]}
    spec |= {} if not wrong else {wrong: {"seed": 1, "weights": "w", "data": ["live", "x"]}[wrong]}
    node = Node(out, "gate", "scnn-live", spec)
    with node.building({}):
        pass
    (out / "runs" / f"{record.id}.json").unlink()
    old = record.gates["live"]
    answers = {node.id if of == old else of: told for of, told in record.answers.items()}
    write_record(out, replace(record, gates={**record.gates, "live": node.id}, answers=answers))
    said = "\n".join(map(str, verify(out).problems))
    assert (f"{node.id} was made with other data, weights, strategy or seed than the run" in said) == bool(
        wrong
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (",mSRCC,", ",mSRRC,", "no run gives such a row"),
        (",1.0,", ",1.0\x0c,", "computed from the answers it is 1.0"),
        (",1.0,", ",1_0e-1,", "is 1_0e-1, but computed from the answers it is 1.0"),
        ("table,setting", "setting,table", "has other columns"),
        ("TSN-IQA-O", "TSN-IQA-X", "is missing"),
        ("\n,", '\n"', "cannot be read"),
        ("generated miniatures: not comparable with published numbers", "", "no run gives such a row"),
    ],
)
def test_edited_text_of_the_results(out: Path, old: str, new: str, expected: str) -> None:
    path = out / "report" / "results.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert expected in problems(out)


def test_a_number_put_where_none_is_defined_and_taken_where_one_is(out: Path) -> None:
    path = out / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[5].split(",")
    cells[10], cells[11] = "", "0.0"
    lines[5] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = problems(out)
    assert "results.csv:6: value of" in said
    assert "is empty, but computed from the answers it is" in said
    assert "is 0.0, but computed from the answers it is undefined" in said


def test_rows_left_out_or_doubled(out: Path) -> None:
    path = out / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[5]]) + "\n", encoding="utf-8")
    said = problems(out)
    assert "the row of" in said
    assert f"results.csv:{len(lines)}: no run gives such a row" in said
    path.unlink()
    assert problems(out).startswith("report/results.csv: is missing; make it: ")


def _lie_id(done: dict) -> None:
    done["id"] = "another"


def _lie_files(done: dict) -> None:
    del done["files"]["answers.npz"]


def _lie_hash(done: dict) -> None:
    done["files"]["spec.json"] = "0" * 64


def _lie_more(done: dict) -> None:
    done["files"]["more.json"] = "0" * 64


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (_lie_id, "does not name this node"),
        (_lie_files, "/answers.npz: done.json does not name it"),
        (_lie_hash, "/spec.json: its SHA-256 is not that in done.json"),
        (_lie_more, "/more.json: is missing, though done.json names it"),
        (dict.clear, "does not name this node"),
    ],
)
def test_a_lying_done(out: Path, lie: Callable[[dict], None], expected: str) -> None:
    folder = answers(out)
    done = read_json(folder / "done.json")
    lie(done)
    write_json(folder / "done.json", done)
    said = problems(out)
    assert folder.name in said
    assert expected in said


def test_a_spec_of_another_name(out: Path) -> None:
    folder = answers(out)
    spec = {**read_json(folder / "spec.json"), "schema": 99}
    write_json(folder / "spec.json", spec)
    assert digest(spec) not in folder.name
    assert f"answers/{folder.name}/spec.json: the node's name is not its hash" in problems(out)


def test_a_missing_and_an_unfinished_node(out: Path) -> None:
    gone, half = answers(out, "train-live-*-on-bid-*"), answers(out, "gate-csiq-on-bid-*")
    shutil.rmtree(gone)
    (half / "done.json").unlink()
    said = problems(out)
    assert f"answers/{half.name} is broken; run again: " in said
    assert gone.name not in said  # it may not have been made yet, but then the report cannot know its numbers
    assert "no run gives such a row: III,Task-Agnostic,S-CNN,TSN-IQA," in said


def test_unfinished_work_is_a_note(tmp_path: Path) -> None:
    """Finished seeds beside an unfinished one, and two unfinished ones that are at different experiences."""
    for seed in (0, 1):
        recorded.record_single(tmp_path, "sl", seed=seed, command="python -m cliqa_bench run --strategy sl")
    records = read_records(tmp_path)
    for record, node in zip(records, ("sl-clive-0", "sl-bid-1"), strict=True):
        for test in record.tests:
            shutil.rmtree(tmp_path / "answers" / record.answers[node][test])
    recorded.record_tsn(tmp_path, "V")
    lost = recorded.record_tsn(tmp_path, "V", seed=1).answers["train-bid-1"]["live"]
    shutil.rmtree(tmp_path / "answers" / lost)
    write_report(tmp_path, ("csv",), figures=False)
    found = verify(tmp_path)
    assert found.problems == []
    told = [note for note in found.notes if note.startswith("unfinished: ")]
    assert len(told) == 2 and "8 of 32 answers" in told[0] and told[0].endswith("run --strategy sl")
    assert found.plain > 200
    bundle.pack(tmp_path, tmp_path / "some.zip")
    assert verify(tmp_path / "some.zip").problems == []


def test_another_mos(out: Path) -> None:
    folder = answers(out, "train-csiq-0-on-live-*")

    def forge(arrays: dict[str, np.ndarray]) -> None:
        arrays["mos"][3] += 1e-9

    rewrite(folder, forge)
    said = problems(out)
    assert f"answers/{folder.name}/answers.npz: has another MOS for image live/003.png than answers/" in said


def test_another_key_order_and_other_images(out: Path) -> None:
    turned, other = answers(out, "train-csiq-0-on-live-*"), answers(out, "train-csiq-0-on-bid-*")

    def turn(arrays: dict[str, np.ndarray]) -> None:
        for name in arrays:
            arrays[name] = arrays[name][::-1]

    def rename(arrays: dict[str, np.ndarray]) -> None:
        arrays["keys"][0] = "bid/another.png"

    rewrite(turned, turn)
    rewrite(other, rename)
    said = problems(out)
    assert f"{turned.name}/answers.npz: names the same images in another order than" in said
    assert f"{other.name}/answers.npz: names other images than" in said
    assert "report/results.csv: cannot be computed again" in said


def test_a_changed_record(out: Path) -> None:
    """Tau is part of a record's name; its facts are not, but fingerprints must be those of the answers."""
    record = next(r for r in read_records(out) if r.strategy == "tsn")
    path = out / "runs" / f"{record.id}.json"
    write_json(path, asdict(replace(record, tau=record.tau + 1)))
    assert "its contents were changed" in problems(out)
    first, other = (node for node, _ in record.steps[1].heads)
    swapped = {**record.answers, first: record.answers[other]}
    write_json(path, asdict(replace(record, answers=swapped)))
    assert f"was not made by {first} on " in problems(out)
    record.facts["fingerprints"]["bid"] = "another"
    write_json(path, asdict(record))
    assert " as the run records it" in problems(out)
    path.write_text("[]", encoding="utf-8")
    assert f"runs/{path.name}: " in problems(out)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tau", "hot", "tau = 'hot'"),
        ("tau", 10**400, "tau = 1000"),
        ("stages", [3, "x"], "stages ="),
        ("steps", [], "neither one step"),
        ("sequence", ["live", "live"], "a dataset twice"),
        ("gates", {"live": "../../etc"}, "not a plain file name"),
        ("titles", {}, "without a title"),
        ("steps", [{"dataset": "live", "heads": [["a", 0], ["b", 0]]}], "one head nor one a task"),
        ("stages", [], "gates without stages"),
        ("facts", {"fingerprints": "x"}, "facts that are not tables"),
        ("facts", {"pictures": {"live": ["x"]}}, "a picture's node"),
        ("facts", {"pictures": {"live": "../x"}}, "a picture's node"),
        ("facts", {"built_from": 5}, "what it is built from"),
        ("facts", {"built_from": ["../x"]}, "what it is built from"),
        ("extra", 1, "extra"),
    ],
)
def test_a_broken_record(out: Path, key: str, value: object, expected: str) -> None:
    path = sorted((out / "runs").glob("tsn*.json"))[0]
    path.write_text(json.dumps({**read_json(path), key: value}), encoding="utf-8")
    with pytest.raises(UserError, match="is not a run record") as caught:
        read_records(out)
    assert expected in str(caught.value)
    assert expected in problems(out)


def test_a_head_that_no_answer_holds(out: Path) -> None:
    record = next(r for r in read_records(out) if r.strategy == "tsn")
    (out / "runs" / f"{record.id}.json").unlink()
    steps = [replace(s, heads=[(n, 7) for n, _ in s.heads]) for s in record.steps]
    write_record(out, replace(record, steps=steps))
    assert "lacks a head or stage that is read" in problems(out)


# -- the plain path ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 4), st.sampled_from([0.0, 1.0, 32.0]))
def test_the_plain_gate_agrees_with_the_readouts(seed: int, tasks: int, stages: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    scores = rng.normal(size=(n, tasks)).astype(np.float32)
    far = rng.integers(0, 4, (n, tasks, stages)).astype(np.float32)  # ties, too
    told = Answers(np.arange(n).astype(str), rng.normal(size=n), scores, far)
    by_stage = [far[:, :, s].T.astype(np.float64) for s in range(stages)]
    for readout in ("gate", "gate-hard"):
        plain = gated(scores.T.astype(np.float64), by_stage, tau, hard=readout == "gate-hard")
        told_by_report = read(told, readout, tau=tau)
        assert told_by_report is not None and np.array_equal(plain, told_by_report)


# -- bundles -------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(clean: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    bundle.pack(clean, path)
    return path


def test_a_bundle_verifies_and_reports_elsewhere(clean: Path, packed: Path, tmp_path: Path) -> None:
    assert numbers(verify(packed)) == numbers(verify(clean))
    assert verify(packed).ok
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "elsewhere")
    write_report(tmp_path / "elsewhere", ("csv",), figures=False)
    again = (tmp_path / "elsewhere" / "report" / "results.csv").read_bytes()
    assert again == (clean / "report" / "results.csv").read_bytes()


def test_a_bundle_has_the_same_bytes(clean: Path, packed: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(clean, tmp_path / "copied")
    for path in copied.rglob("*"):
        path.touch()
    (copied / "answers" / "notes.txt").write_text("not a part of it", encoding="utf-8")
    size = bundle.pack(copied, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert size == packed.stat().st_size


def test_tampering_with_a_bundle(packed: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"TSN-IQA-O", b"TSN-IQA-X") if "results" in name else data)
    assert "is missing" in problems(changed)


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/passwd", "runs/../../evil.json", "runs\\..\\evil.json", "answers/a/state.pickle",
     "train/../done.json", "runs/.hidden.json", "C:/runs/a.json", "runs/", "answers/a/b/answers.npz"],
)  # fmt: skip
def test_a_bundle_with_a_foreign_name_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(UserError, match="is not a bundle: it holds"):
        verify(packed)
    assert not (tmp_path / "evil.json").exists()


def test_a_bundle_with_a_link_is_refused(packed: Path) -> None:
    info = zipfile.ZipInfo("runs/link.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"holds 'runs/link\.json'"):
        verify(packed)


def test_a_bundle_that_is_too_large_is_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    with pytest.raises(UserError, match="larger than a bundle may be"):
        verify(packed)


def test_a_bundle_that_lies_about_its_size(packed: Path) -> None:
    """What is unpacked is bounded by the size that was checked, not by what the stream holds."""
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("runs/bomb.json", b" " * 1_000_000)
    data = packed.read_bytes()
    packed.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="is not a whole zip file"):
        verify(packed)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a whole zip file"):
        verify(path)


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.zip"
    assert main(["verify", str(out), "--pack", str(path)]) == 0
    assert "OK: 2 runs" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    (answers(out) / "done.json").unlink()
    other = tmp_path / "other.zip"
    assert main(["verify", str(out), "--pack", str(other)]) == 2
    assert not other.exists()  # what does not verify is not handed on
    assert "problems: 2 runs" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert "no runs in" in capsys.readouterr().err


def test_the_command_needs_no_torch(clean: Path) -> None:
    code = "import sys\nfrom cliqa_bench.cli.parser import main\ncode = main(sys.argv[1:])\n"
    code += "print(code, [name for name in ('torch', 'avalanche', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, "verify", str(clean)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
