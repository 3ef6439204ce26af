"""Readers of label files: what they return, and that every fault names its file, row and column."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
import scipy.io
import xlwt
from layouts import cells

from cliqa_bench import errors
from cliqa_bench.benchmarks.readers import matlab, workbooks
from cliqa_bench.benchmarks.readers import text as labels
from cliqa_bench.errors import UserError


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_read_with_any_line_ending_and_a_byte_order_mark(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.csv", end.join(("\ufeffName,MOS", "x.png,1.5", "", "y.png,-2", "")))
    rows = labels.read_csv(path, ("name", "mos"))
    assert [(r.number, r.text("Name"), r.number_in("MOS")) for r in rows] == [
        (2, "x.png", 1.5),
        (4, "y.png", -2),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", ["no column 'name', 'mos'", "its header names: a, b"]),
        ("", ["no column 'name', 'mos'", "nothing"]),
        ("name,mos\nx,1\ny\n", ["row 3 has 1 cells", "header names 2"]),
        ("name,mos\nx,1,2\n", ["row 2 has 3 cells"]),
    ],
)
def test_broken_csv_names_file_and_row(tmp_path: Path, text: str, words: list[str]) -> None:
    path = written(tmp_path / "a.csv", text)
    with pytest.raises(UserError) as caught:
        errors.read_all(labels.read_csv(path, ("name", "mos")), lambda row: row.text("name"))
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x81")
    for reader in (lambda p: labels.read_csv(p, ("a",)), lambda p: labels.read_records(p, (3,))):
        with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
            reader(tmp_path / "none.csv")
        with pytest.raises(UserError, match=r"b\.csv is not a text file"):
            reader(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("cell", "ok"),
    [
        ("3.25", True), (3, True), (0.0, True), (5.0, True), ("x", False), ("", False), (None, False),
        ("nan", False), (float("nan"), False), ("inf", False), (5.001, False), (-0.001, False), (True, False),
    ],
)  # fmt: skip
def test_a_number_is_a_finite_number_in_range(cell: object, ok: bool) -> None:
    row = labels.LabelRow(Path("f.csv"), 17, {"mos": cell})
    if ok:
        assert row.number_in("MOS", 0, 5) == float(str(cell))
        return
    with pytest.raises(UserError, match=r"f\.csv row 17, column 'MOS' .*expected a number from 0 to 5"):
        row.number_in("MOS", 0, 5)


def test_whole_numbers_and_text() -> None:
    row = labels.LabelRow(Path("f.xls"), 2, {"image": 1600.0, "level": 3.0, "half": 2.5, "none": " "})
    assert row.text("image") == "1600"
    assert row.integer_in("level", 1, 5) == 3
    with pytest.raises(UserError, match=r"'half' holds 2\.5, expected a whole number from 1 to 5"):
        row.integer_in("half", 1, 5)
    with pytest.raises(UserError, match="'none'"):
        row.text("none")
    with pytest.raises(UserError, match="'absent' is empty"):
        row.text("absent")


def make_xlsx(path: Path) -> Path:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("data")
    for number, values in enumerate(
        [("title",), (), ("", "Name", "MOS"), ("", 1600, 0.5), (), ("", "b", 1)], 2
    ):
        for column, value in enumerate(values, start=3):
            if value != "":
                sheet.cell(number, column, value)
    book.save(path)
    return path


def make_xls(path: Path) -> Path:
    book = xlwt.Workbook()
    book.add_sheet("Sheet")
    sheet = book.add_sheet("data")
    for number, values in {3: ("Name", "MOS"), 4: (1600.0, 0.5), 6: ("b", 1.0)}.items():
        for column, value in enumerate(values, start=3):
            sheet.write(number, column, value)
    book.save(str(path))
    return path


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls"])
@pytest.mark.parametrize("make", [make_xlsx, make_xls])
def test_workbooks_are_told_apart_by_content(tmp_path: Path, name: str, make: object) -> None:
    path = make(tmp_path / name) if callable(make) else tmp_path
    rows = workbooks.read_sheet(path, ("name", "mos"), sheet="data")
    assert [(r.number, r.text("name"), r.number_in("mos")) for r in rows] == [(5, "1600", 0.5), (7, "b", 1.0)]
    with pytest.raises(UserError, match="no column 'std'; its header names: name, mos"):
        workbooks.read_sheet(path, ("name", "mos", "std"), sheet="data")
    with pytest.raises(UserError, match="no sheet 'more'; it has: Sheet, data"):
        workbooks.read_sheet(path, ("name",), sheet="more")


@pytest.mark.parametrize("start", [b"PK\x03\x04rubbish", b"\xd0\xcf\x11\xe0rubbish", b"name,mos\n"])
def test_a_broken_workbook_is_told(tmp_path: Path, start: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(start * 100)
    with pytest.raises(UserError, match=r"a\.xlsx is (a broken|neither)"):
        workbooks.read_sheet(path, ("a",))
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="cannot read"):
        workbooks.read_sheet(tmp_path / "none.xls", ("a",))


def test_mat_variables(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"v": [[1.0, 2.0, 3.0]], "c": cells(["a.bmp", "b.bmp"], nested=True)})
    v, c = matlab.read_mat(path, "v", "c")
    assert matlab.vector(path, "v", v, list("abcd")[:3], -9, 9).tolist() == [1, 2, 3]
    assert matlab.vector(path, "v", v.T, list("abcd")[:3], -9, 9).tolist() == [1, 2, 3]
    assert matlab.strings(path, "c", c, 2) == ["a.bmp", "b.bmp"]
    with pytest.raises(UserError, match=r"a\.mat has no variable 'w'; it has: v, c"):
        matlab.read_mat(path, "w")
    with pytest.raises(UserError, match="v has shape 1x3, expected 1x4"):
        matlab.vector(path, "v", v, list("abcd")[:4], -9, 9)
    with pytest.raises(UserError, match="expected 3 cells"):
        matlab.strings(path, "c", c, 3)
    with pytest.raises(UserError, match="v cell 1 holds no text"):
        matlab.strings(path, "v", v, 3)
    with pytest.raises(UserError, match=r"entry 2 \(b\) is nan"):
        matlab.vector(path, "v", np.array([[1, np.nan, 3]]), list("abcd")[:3], -9, 9)
    with pytest.raises(UserError, match="expected numbers"):
        matlab.vector(path, "c", c, list("abcd")[:2], -9, 9)


def test_broken_mat_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.mat").write_bytes(b"not a mat file at all, only text " * 9)
    (tmp_path / "new.mat").write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 9
    )
    whole = tmp_path / "whole.mat"
    scipy.io.savemat(whole, {"v": np.arange(500.0)})
    (tmp_path / "cut.mat").write_bytes(whole.read_bytes()[:700])
    empty = b"\x0e".ljust(8, b"\0")
    packed = zlib.compress(empty)
    for name, more in (("longer", empty), ("packed", struct.pack("<II", 15, len(packed)) + packed)):
        (tmp_path / f"{name}.mat").write_bytes(whole.read_bytes() + more)
    nothing = "broken .*an empty element in the place of a variable"
    reasons = {
        "text": "broken", "new": r"7\.3", "cut": "broken", "none": "cannot read",
        "longer": nothing, "packed": nothing,
    }  # fmt: skip
    for name, words in reasons.items():
        with pytest.raises(UserError, match=words):
            matlab.read_mat(tmp_path / f"{name}.mat", "v")


@pytest.mark.parametrize(
    ("category", "accepted"),
    [
        (DeprecationWarning, True),
        (PendingDeprecationWarning, True),
        (FutureWarning, True),
        (scipy.io.matlab.MatReadWarning, False),  # scipy: "Duplicate variable name"
        (Warning, False),  # scipy: "Unreadable variable"
        (UserWarning, False),  # scipy: "returned data may be corrupt"
    ],
)
def test_only_a_warning_about_the_file_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, category: type[Warning], accepted: bool
) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"v": [[1.0, 2.0]]})
    loadmat = scipy.io.loadmat

    def warning(*args: Any, **kwargs: Any) -> Any:
        warnings.warn("said while reading", category, stacklevel=2)
        return loadmat(*args, **kwargs)

    monkeypatch.setattr(scipy.io, "loadmat", warning)
    if accepted:
        np.testing.assert_array_equal(matlab.read_mat(path, "v")[0], [[1.0, 2.0]])
        return
    with pytest.raises(UserError, match=r"a\.mat is a broken MATLAB file .*said while reading"):
        matlab.read_mat(path, "v")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_records(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.txt", end.join(("a\t1\t2", "b c\t3\t4", "")))
    assert labels.read_records(path, (3,)) == [(1, ["a", "1", "2"]), (2, ["b c", "3", "4"])]
    with pytest.raises(UserError, match=r"a\.txt row 1 has 3 tab-separated cells, expected 4 or 5"):
        labels.read_records(path, (5, 4))
