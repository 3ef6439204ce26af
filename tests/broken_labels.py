"""Breaks label files, and expects the one line that tells of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from cliqa_bench.errors import UserError


def edit(path: Path, old: str, new: str) -> None:
    """Replaces the first of some text, which must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_cell(path: Path, sheet: str, cell: str, value: object) -> None:
    """Puts another value into a cell of a workbook."""
    book = openpyxl.load_workbook(path)
    book[sheet][cell] = value
    book.save(path)


def assert_refused(read: Callable[[], object], *words: str) -> None:
    """Expects a reader to refuse what it reads, in one line with these words."""
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)
