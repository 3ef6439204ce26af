"""The workflow for a repository of bundles: it installs what is needed, and its commands do what it says."""

from __future__ import annotations

import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as recorded
import yaml

from cliqa_bench.cli import parser
from cliqa_bench.reports.audit.bundle import pack
from cliqa_bench.reports.report import write_report

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / "docs" / "workflows" / "leaderboard.yml"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a repository with a bundle."""
    folder = tmp_path_factory.mktemp("repository")
    runs = folder / "runs"
    recorded.record_tsn(runs, preset="quick", split="1")
    write_report(runs, formats=["csv"], figures=False)
    (folder / "bundles").mkdir()
    pack(runs, folder / "bundles" / "honest.zip")
    return folder


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["build"][
        "steps"
    ]
    return found


def build(pull_request: bool) -> list[str]:
    """Returns the words of the one command that builds the page on such an event."""
    sign = "==" if pull_request else "!="
    (command,) = (
        step["run"] for step in steps() if step.get("if") == f"github.event_name {sign} 'pull_request'"
    )
    program, *words = shlex.split(command)
    assert program == "cliqa-bench"
    return words


def test_it_installs_the_group_for_reading_and_a_wheel() -> None:
    (lines,) = (step["run"] for step in steps() if step.get("name", "").startswith("Install"))
    packages, suite = (shlex.split(line) for line in lines.replace("\\\n", "").splitlines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert packages[:4] == suite[:4] == ["python", "-m", "pip", "install"]
    assert packages[4:] == project["dependency-groups"]["reading"]
    assert suite[4:] == ["--no-deps", "suite/*.whl"]


def test_a_pull_request_with_a_bundle_that_is_refused_fails(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(repository / "bundles", tmp_path / "bundles")
    monkeypatch.chdir(tmp_path)
    for pull_request in (True, False):
        assert parser.main(build(pull_request)) == 0
        assert "refused" not in capsys.readouterr().out
    (tmp_path / "bundles" / "half.zip").write_bytes((tmp_path / "bundles" / "honest.zip").read_bytes()[:-40])
    for pull_request in (True, False):
        shutil.rmtree("site")
        assert parser.main(build(pull_request)) == int(pull_request)
        assert "refused: half.zip" in capsys.readouterr().out
        page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
        assert "<dt>half.zip</dt>" in page and "TSN-IQA" in page


def test_only_what_is_published_may_write() -> None:
    flow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    assert "permissions" not in flow["jobs"]["build"]
    assert flow["jobs"]["publish"]["if"] == "github.event_name != 'pull_request'"
    assert flow["jobs"]["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
