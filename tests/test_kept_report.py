"""A report is kept where it would not change, and made again wherever it would."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import recorded_runs as recorded
from test_runner import arguments

import cliqa_bench
from cliqa_bench.cli import parser
from cliqa_bench.reports import kept_report, report
from cliqa_bench.reports.formats import FORMATS
from cliqa_bench.reports.kept_report import kept_summary
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.records import RunRecord, read_records, write_record

FORMER, LATER = "2024-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("kept") / "runs"
    recorded.record_tsn(out, asked=LATER)
    recorded.record_tsn(out, seed=1, asked=FORMER)
    return out, write_report(out, FORMATS, figures=False).summary


@pytest.fixture
def there(reported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder in which what is written below does not change what another test finds."""
    out, summary = reported
    safe = out.parent / "safe"
    shutil.rmtree(safe, ignore_errors=True)
    shutil.copytree(out, safe)
    monkeypatch.chdir(out.parent)
    yield out, summary
    shutil.rmtree(out)
    shutil.copytree(safe, out)


def asked_again(out: Path, when: str, number: int) -> None:
    record = read_records(out)[number]
    write_record(out, replace(record, facts={**record.facts, "asked": when}))


def test_what_did_not_change_says_what_it_said(there: tuple[Path, str]) -> None:
    out, summary = there
    assert kept_summary(out, FORMATS, False) == summary
    write_report(out, FORMATS, figures=False)
    assert kept_summary(out, FORMATS, False) == summary


def test_when_a_run_was_asked_for_counts_only_by_the_order(there: tuple[Path, str]) -> None:
    out, summary = there
    newest = max((0, 1), key=lambda i: str(read_records(out)[i].facts["asked"]))
    asked_again(out, "2026-01-02T00:00:00+00:00", newest)
    assert kept_summary(out, FORMATS, False) == summary
    asked_again(out, "2026-01-03T00:00:00+00:00", 1 - newest)
    assert kept_summary(out, FORMATS, False) is None


def other_record(out: Path) -> None:
    record: RunRecord = read_records(out)[0]
    write_record(out, replace(record, rows={**record.rows, "gate": "Another name"}))


def touched(path: Path) -> None:
    told = path.stat()
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a run more": lambda out: recorded.record_tsn(out, seed=2),
    "a run less": lambda out: next((out / "runs").glob("*.json")).unlink(),
    "a record says something else": other_record,
    "a broken record": lambda out: next((out / "runs").glob("*.json")).write_text("{"),
    "a record is a list": lambda out: next((out / "runs").glob("*.json")).write_text("[]"),
    "a record without facts": lambda out: next((out / "runs").glob("*.json")).write_text('{"facts": null}'),
    "answers were written": lambda out: touched(next(out.glob("answers/*/answers.npz"))),
    "answers are gone": lambda out: shutil.rmtree(next((out / "answers").iterdir())),
    "a table is gone": lambda out: (out / "report" / "table_III.md").unlink(),
    "a table was edited": lambda out: (out / "report" / "table_III.md").write_text("x"),
    "the note is broken": lambda out: (out / "report" / kept_report.FILE).write_text("[1"),
    "the note is of another kind": lambda out: (out / "report" / kept_report.FILE).write_text("[1]"),
    "the note is gone": lambda out: (out / "report" / kept_report.FILE).unlink(),
    "the paper's values are beside ours": lambda out: write_report(out, FORMATS, False, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_made_again(there: tuple[Path, str], change: str) -> None:
    CHANGES[change](there[0])
    assert kept_summary(there[0], FORMATS, False) is None


def test_another_report_is_made_again(there: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    out, summary = there
    assert kept_summary(out, ("csv",), False) is None
    assert kept_summary(out, FORMATS, True) is None
    assert kept_summary(out.parent / "safe", FORMATS, False) is None, "it names another folder"
    with monkeypatch.context() as patch:
        patch.setattr(kept_report, "versions", lambda: {"numpy": "0"})
        assert kept_summary(out, FORMATS, False) is None
    with monkeypatch.context() as patch:
        patch.setattr(kept_report, "_PACKAGE", out)
        assert kept_summary(out, FORMATS, False) is None, "made by other code"
    assert kept_summary(out, FORMATS, False) == summary


def test_our_code_is_all_of_the_package_and_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(path: Path) -> str:
        read.append(path)
        return ""

    monkeypatch.setattr(kept_report, "file_digest", noted)
    kept_report._code()
    package = Path(cliqa_bench.__file__).resolve().parent
    assert all(path.is_relative_to(package) for path in read)
    names = {path.relative_to(package).as_posix() for path in read}
    assert {"metrics.py", "reports/kept_report.py", "reports/page/templates/report.html"} <= names
    assert "reports/published/table_III.csv" in names, "in a checkout, reports is a link"


def test_what_is_unfinished_or_gone_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".half").mkdir()
    (tmp_path / ".half" / "a").write_text("a")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "b").write_text("bb")
    assert [(entry[0], entry[1]) for entry in kept_report._listing(tmp_path)] == [(str(tmp_path / "b"), 2)]
    assert list(kept_report._listing(tmp_path / "none")) == []


def test_a_run_with_everything_done_makes_no_report(
    miniatures: Path,
    tmp_path: Path,
    undrawn: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments(miniatures, tmp_path)
    assert parser.main(words) == 0
    told = capsys.readouterr().out
    note = json.loads((tmp_path / "report" / kept_report.FILE).read_text())
    assert note["summary"] in told and len(note["files"]) > 10

    made = []
    monkeypatch.setattr(report, "_write_groups", lambda *given: made.append(given))
    assert parser.main(words) == 0
    assert not made
    assert note["summary"] in capsys.readouterr().out
    (tmp_path / "report" / "results.csv").unlink()
    with pytest.raises(AttributeError):  # of the stand-in, which returns nothing
        parser.main(words)
    assert made
