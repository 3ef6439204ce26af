"""The leaderboard: its numbers, what is refused, proofs, and forged bundles."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import forgeries
import numpy as np
import pytest
import recorded_runs as recorded
from test_runner import arguments

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution import prove
from cliqa_bench.metrics import srcc
from cliqa_bench.reports.audit.bundle import pack
from cliqa_bench.reports.leaderboard.entries import read_entry
from cliqa_bench.reports.leaderboard.proofs import (
    GATE_TOLERANCE,
    HEAD_TOLERANCE,
    Proof,
    append_proof,
    proofs_file,
    read_proofs,
)
from cliqa_bench.reports.leaderboard.site import build_site
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.answer_difference import most_apart
from cliqa_bench.results.nodes import file_digest
from cliqa_bench.results.records import AnswerReader, read_records

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Honest bundles, one whose opinion scores were swapped, one with an edited cell, and half a file."""
    folder = tmp_path_factory.mktemp("bundles")
    runs = folder / "runs"
    recorded.record_tsn(runs, preset="quick", split="1", weights=HOSTILE, config={"training": {"lr": 1.0}})
    write_report(runs, formats=["csv"], figures=False)
    (folder / "all").mkdir()
    pack(runs, folder / "all" / "honest.zip")
    pack(runs, folder / "all" / "honest too.zip")
    for how in ("swapped", "cell"):
        forgeries.forge(runs, how, folder / "all" / f"{how}.zip")
    (folder / "all" / "half.zip").write_bytes((folder / "all" / "honest.zip").read_bytes()[:-40])
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_number_follows_from_the_answers(bundles: Path) -> None:
    entry = read_entry(bundles / "all" / "honest.zip")
    reader = AnswerReader(bundles / "runs")
    (record,) = read_records(bundles / "runs")
    by_hand = []
    for place, test in enumerate(record.sequence):
        answers = reader.answers(record, len(record.sequence) - 1, test)
        assert answers is not None
        by_hand.append(srcc(answers.scores[:, place], answers.mos))
    (oracle,) = (row for row in entry.rows if row.method == "TSN-IQA-O")
    main = oracle.numbers["mSRCC"]
    assert main.mean == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert (oracle.order, oracle.seeds, oracle.setting) == ("I", 1, "Task-Aware")
    assert main.low < main.mean < main.high
    assert math.isnan(oracle.numbers["mPSI"].low)


def test_forged_and_broken_bundles_have_no_rows(bundles: Path, tmp_path: Path) -> None:
    built = build_site(bundles / "all", tmp_path, jobs=1)
    reasons = {entry.name: entry.refused for entry in built.entries}
    assert reasons["honest.zip"] == reasons["honest too.zip"] == ""
    assert "results.csv" in reasons["cell.zip"] and "computed from the answers it is" in reasons["cell.zip"]
    assert "are not those of 2 other bundles with the same fingerprint" in reasons["swapped.zip"]
    assert "is not a whole zip file" in reasons["half.zip"]
    listed = {row["bundle"] for row in rows_of(tmp_path / "leaderboard.csv")}
    assert listed == {"honest.zip", "honest too.zip"}
    page = built.page.read_text(encoding="utf-8")
    assert all(f"<dt>{name}</dt>" in page for name, reason in reasons.items() if reason)
    assert HOSTILE not in page and "&lt;img src=x" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_a_name_is_no_formula_of_a_spreadsheet(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "=1+1.zip").write_bytes((bundles / "all" / "honest.zip").read_bytes())
    build_site(tmp_path, tmp_path / "site", jobs=1)
    assert {row["bundle"] for row in rows_of(tmp_path / "site" / "leaderboard.csv")} == {"'=1+1.zip"}


@pytest.mark.slow
def test_two_that_disagree_are_both_refused(bundles: Path, tmp_path: Path) -> None:
    for name in ("honest.zip", "swapped.zip"):
        (tmp_path / name).write_bytes((bundles / "all" / name).read_bytes())
    built = build_site(tmp_path, tmp_path / "site", jobs=1)
    assert all("of live are not those of 1 other bundle with" in entry.refused for entry in built.entries)
    append_proof(tmp_path / "honest.zip", a_proof(tmp_path / "honest.zip"))
    built = build_site(tmp_path, tmp_path / "site", jobs=1)
    assert [bool(entry.refused) for entry in built.entries] == [False, True], "who proves has the data"


@pytest.mark.slow
def test_other_data_or_another_protocol_makes_another_table(tmp_path: Path) -> None:
    changed: tuple[dict[str, Any], ...] = (
        {}, {"split": "2"}, {"config": {"training": {"lr": 0.5}}}, {"preset": "paper"},
    )  # fmt: skip
    (tmp_path / "all").mkdir()
    for i, facts in enumerate(changed):
        runs = tmp_path / f"runs{i}"
        usual: dict[str, Any] = {"preset": "quick", "split": "1", "config": {"training": {"lr": 1.0}}}
        recorded.record_tsn(runs, **{**usual, **facts})
        write_report(runs, formats=["csv"], figures=False)
        pack(runs, tmp_path / "all" / f"{i}.zip")
    build_site(tmp_path / "all", tmp_path / "site", jobs=1)
    tables = {row["bundle"]: row["table"] for row in rows_of(tmp_path / "site" / "leaderboard.csv")}
    assert len(set(tables.values())) == len(tables) == 4


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        build_site(tmp_path / "none", tmp_path / "site")
    with pytest.raises(UserError, match="no bundles in"):
        build_site(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()


# -- proofs --------------------------------------------------------------------------------------------------


def a_proof(bundle: Path) -> Proof:
    return Proof(
        file_digest(bundle), "train-live-0", 3, "me", "2026-01-02T03:04:05+00:00", {"torch": "2"}, "a CPU",
        0.0, math.nan, HEAD_TOLERANCE, GATE_TOLERANCE,
    )  # fmt: skip


def test_proofs_are_added_read_and_shown(bundles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "mine.zip"
    bundle.write_bytes((bundles / "all" / "honest.zip").read_bytes())
    assert read_proofs(bundle) == ([], [])
    append_proof(bundle, a_proof(bundle))
    append_proof(bundle, replace(a_proof(bundle), bundle="of another file"))
    with proofs_file(bundle).open("a", encoding="utf-8") as file:
        file.write("{}\nno JSON\n")
    proofs, odd = read_proofs(bundle)
    assert [repr(proof) for proof in proofs] == [repr(a_proof(bundle))]
    assert [line.partition(" ")[2] for line in odd] == [
        "is about another version of mine.zip", "is not a proof", "is not a proof",
    ]  # fmt: skip
    build_site(tmp_path, tmp_path / "site", jobs=1)
    assert {row["proofs"] for row in rows_of(tmp_path / "site" / "leaderboard.csv")} == {"1"}
    assert "train-live-0: same bits (me, 2026-01-02, a CPU)" in (tmp_path / "site/index.html").read_text()


def test_a_bundle_that_training_contradicts_is_refused(bundles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "mine.zip"
    bundle.write_bytes((bundles / "all" / "honest.zip").read_bytes())
    append_proof(bundle, replace(a_proof(bundle), scores=0.01))
    entry = read_entry(bundle)
    assert entry.rows == [] and "scores differ by up to 0.01, 0.001 is allowed" in entry.refused
    proofs_file(bundle).unlink()
    append_proof(bundle, replace(a_proof(bundle), distances=0.01))
    entry = read_entry(bundle)
    assert entry.rows == [] and "gate's distances differ by up to 0.01 of their size, 6e-06" in entry.refused


@pytest.mark.parametrize(
    ("scores", "distances", "holds"),
    [
        (0.0, math.nan, True),
        (HEAD_TOLERANCE, GATE_TOLERANCE, True),
        (0.99 * HEAD_TOLERANCE, 0.99 * GATE_TOLERANCE, True),
        (1.01 * HEAD_TOLERANCE, 0.0, False),
        (0.0, 1.01 * GATE_TOLERANCE, False),
        (GATE_TOLERANCE, HEAD_TOLERANCE, False),
        (math.inf, math.nan, False),
        (math.nan, math.nan, False),
    ],
)
def test_a_proof_holds_within_its_tolerance(
    bundles: Path, scores: float, distances: float, holds: bool
) -> None:
    assert replace(a_proof(bundles / "all" / "honest.zip"), scores=scores, distances=distances).holds is holds


def test_help_names_the_tolerances_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.main(["prove", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    found = [float(text) for text in re.findall(r"(?:be off|their size)[^()]*\(default: (\S+)\)", said)]
    assert found == [HEAD_TOLERANCE, GATE_TOLERANCE]


def test_a_proof_that_names_one_tolerance_is_read(bundles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "mine.zip"
    bundle.write_bytes((bundles / "all" / "honest.zip").read_bytes())
    append_proof(bundle, replace(a_proof(bundle), tolerance=1e-4))
    line = json.loads(proofs_file(bundle).read_text(encoding="utf-8"))
    del line["gate_tolerance"]
    proofs_file(bundle).write_text(json.dumps(line) + "\n", encoding="utf-8")
    ((proof,), odd) = read_proofs(bundle)
    assert (proof.tolerance, proof.gate_tolerance, odd) == (1e-4, 1e-4, [])


@pytest.mark.parametrize(
    ("config", "asked", "used"), [({}, None, None), ({"threads": 2}, None, 2), ({"threads": 2}, 3, 3)]
)
def test_a_node_is_trained_again_with_as_many_threads(
    bundles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, int],
    asked: int | None,
    used: int | None,
) -> None:
    (record,) = read_records(bundles / "runs")
    record.facts["config"] = config
    monkeypatch.setattr(prove, "resolve", lambda settings: settings)
    monkeypatch.setattr(prove, "prepare_splits", lambda settings, command: [settings])
    request = prove.Request(bundles / "all" / "honest.zip", threads=asked)
    settings: Any = prove._plan(request, record, tmp_path)
    assert settings["threads"] == used


def test_the_largest_difference() -> None:
    one = np.array([[0.5, 0.25], [1.0, np.nan]], np.float32)
    other = np.array([[0.5, 0.5], [-1.0, np.nan]], np.float32)
    assert most_apart(one, one) == 0
    assert most_apart(one, other) == 2
    assert most_apart(one[:1], other[:1], np.abs(other[:1])) == 0.5
    assert most_apart(one, np.zeros_like(one)) == math.inf, "a NaN on one side is a difference"
    assert most_apart(one[:0], other[:0], np.abs(other[:0])) == 0


# -- from the command line -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_verify_cannot_find_is_found_by_training_again(miniatures, tmp_path, capsys):
    runs, folder = tmp_path / "runs", tmp_path / "all"
    words = arguments(miniatures, runs, "--no-figures")
    words[words.index("live,bid;bid,live")] = "bid,live"
    assert parser.main(words) == 0
    folder.mkdir()
    assert parser.main(["bundle", str(runs), "--to", str(folder / "honest.zip")]) == 0
    data = ["--data", str(miniatures), "--weights", "random"]
    assert parser.main(["prove", str(folder / "honest.zip"), *data, "--who", "me"]) == 0
    assert "the same bits" in capsys.readouterr().out
    (line,) = proofs_file(folder / "honest.zip").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["scores"] == 0
    for how in ("moved", "settings"):
        forgeries.forge(runs, how, folder / f"{how}.zip")
        assert parser.main(["verify", str(folder / f"{how}.zip")]) == 0
        assert parser.main(["prove", str(folder / f"{how}.zip"), *data]) == 1
        assert "NOT proved" in capsys.readouterr().out
    forgeries.forge(runs, "swapped", folder / "swapped.zip")
    assert parser.main(["verify", str(folder / "swapped.zip")]) == 0
    assert parser.main(["prove", str(folder / "swapped.zip"), *data]) == 2
    assert "is not the one here: its mos differ" in capsys.readouterr().err
    assert parser.main(["leaderboard", "build", str(folder), "--to", str(tmp_path / "site")]) == 0
    shown = {row["bundle"] for row in rows_of(tmp_path / "site" / "leaderboard.csv")}
    assert shown == {"honest.zip"}
