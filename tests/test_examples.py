"""The examples in the docstrings of what docs/api.md names: each is there, and runs as it is printed."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[1]
TOO_LONG = {"cliqa_bench.testing.check_strategy"}
"""Trains for half a minute; docs/tutorials/own_strategy.md runs the same check."""
LOADED = "cliqa_bench.execution.loaded_model"
BY_THEIR_MAKER = {f"{LOADED}.LoadedModel", f"{LOADED}.PictureScores"}
"""The example of `load` makes and uses them."""


def documented() -> list[str]:
    """Returns the full names of what the page documents."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)$", page, re.MULTILINE)
    for module, members in re.findall(r"^\.\. automodule:: (\S+)\n +:members: (.+)$", page, re.MULTILINE):
        names += [f"{module}.{member}" for member in members.split(", ")]
    return sorted({*names} - BY_THEIR_MAKER)


def resolved(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


@pytest.fixture(scope="module")
def folder(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with what the page says the examples need."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "IQA").symlink_to(miniatures, target_is_directory=True)
    shutil.copytree(ROOT / "tests" / "run_0_1_0" / "runs", folder / "runs")
    picture = next((miniatures / "ChallengeDB_release").rglob("*.bmp"))
    photo = Image.open(picture).convert("RGB")
    photo.save(folder / "photo.jpg", quality=95)
    photo.filter(ImageFilter.GaussianBlur(3)).save(folder / "blurred.jpg", quality=95)
    return folder


def test_the_page_names_what_it_is_about() -> None:
    names = documented()
    assert len(names) > 20 and {*names} >= TOO_LONG
    assert {*names} >= {"cliqa_bench.reports.parts.load", f"{LOADED}.load"}


@pytest.mark.parametrize("name", documented())
def test_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    thing = resolved(name)
    module = importlib.import_module(thing.__module__)
    (found,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={**vars(module)})
    assert found.examples, f"the docstring of {name} has no example"
    skipped = any(doctest.SKIP in example.options for example in found.examples)
    assert skipped == (name in TOO_LONG)
    report: list[str] = []
    failed, _ = doctest.DocTestRunner().run(found, out=report.append)
    assert failed == 0, "".join(report)
