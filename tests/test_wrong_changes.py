"""The wrong changes of `tests/wrong_science/` can be applied: what each replaces stands where it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import wrong_science

ROOT = Path(__file__).resolve().parents[1]


def test_every_wrong_change_fits() -> None:
    changes = wrong_science.read_changes()
    assert len(changes) > 1000
    assert not [f"{change.name}: {said}" for change in changes if (said := change.problem(ROOT))]


def test_one_that_does_not_fit_is_said() -> None:
    change = wrong_science.read_changes()[0]
    for wrong, said in (
        (replace(change, old="no such text"), "the text to replace occurs 0 times"),
        (replace(change, old="\n"), "the text to replace occurs"),
        (replace(change, file="no_such_file.py"), "no_such_file.py does not exist"),
        (replace(change, tests=(), equivalent=""), "it names no tests"),
    ):
        assert said in wrong.problem(ROOT)
