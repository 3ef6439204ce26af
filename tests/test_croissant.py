"""Croissant metadata of ratings and results: what the library mlcroissant loads, and what is said."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as recorded

from cliqa_bench.benchmarks import describe_ratings
from cliqa_bench.benchmarks.splits import CSV_COLUMNS
from cliqa_bench.cli.parser import main
from cliqa_bench.extensions import registry
from cliqa_bench.reports import describe_results
from cliqa_bench.reports.report import write_report
from cliqa_bench.types import TIDY_COLUMNS

LAST_DIGIT = 1e-15
"""Relative; pandas, by which the library reads a CSV file, may miss the last digit: by 2.3e-16 at most."""


def body(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def loaded(metadata: Path, records: str) -> list[dict[str, Any]]:
    """Returns what mlcroissant reads; an error in the metadata raises there."""
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(jsonld=str(metadata))
    assert not data.metadata.ctx.issues.errors
    found = [
        {key.removeprefix(f"{records}/"): cell for key, cell in row.items()} for row in data.records(records)
    ]
    return [
        {key: cell.decode() if isinstance(cell, bytes) else cell for key, cell in row.items()}
        for row in found
    ]


def assert_same(found: list[dict[str, Any]], written: list[dict[str, str]], numbers: set[str]) -> None:
    assert len(found) == len(written) > 0
    for ours, theirs in zip(written, found, strict=True):
        assert list(theirs) == list(ours)
        for column, cell in ours.items():
            if column in numbers and cell:
                assert theirs[column] == pytest.approx(float(cell), rel=LAST_DIGIT, abs=0)
            else:
                assert theirs[column] == (cell or None), column


@pytest.mark.parametrize("name", ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"])
def test_ratings_are_loaded_as_they_were_written(name: str, miniatures: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.csv"
    assert main(["data", "ratings", name, "--data", str(miniatures), "--split", "1", "--to", str(file)]) == 0
    written = rows_of(file)
    assert {row["subset"] for row in written} == {"train", "val", "test"}
    assert_same(loaded(file.with_suffix(".croissant.json"), "ratings"), written, {"score", "std"})


def test_results_are_loaded_as_they_were_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded.record_golden(tmp_path)
    write_report(tmp_path, formats=["csv"], figures=False)
    written = rows_of(tmp_path / "report" / "results.csv")
    assert "Mean" in {row["length"] for row in written}
    found = loaded(tmp_path / "report" / "croissant.json", "results")
    assert_same(found, written, {"value", "std", "median"})
    assert "recommended" in caplog.text and "not standard" not in caplog.text  # of the JSON-LD context


def test_hash_and_size_are_those_of_the_file(miniatures: Path, tmp_path: Path) -> None:
    file = tmp_path / "bid.csv"
    assert main(["data", "ratings", "bid", "--data", str(miniatures), "--to", str(file)]) == 0
    (about,) = body(tmp_path / "bid.croissant.json")["distribution"]
    assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["contentSize"] == f"{file.stat().st_size} B"


# -- what is said --------------------------------------------------------------------------------------------


def test_every_column_is_described_in_the_order_of_the_file() -> None:
    assert tuple(describe_ratings.COLUMNS) == CSV_COLUMNS
    assert tuple(describe_results._SAYS) == (*TIDY_COLUMNS, "median")


def test_the_same_text_as_printed(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "ratings", "csiq", "--data", str(miniatures), "--split", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert main([*words, "--to", str(tmp_path / "new" / "csiq.csv")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "new" / name) for name in ("csiq.csv", "csiq.croissant.json")
    ]
    assert (tmp_path / "new" / "csiq.csv").read_text(encoding="utf-8") == printed


def test_a_miniature_is_called_one_and_its_authors_are_not_cited(miniatures: Path, tmp_path: Path) -> None:
    assert main(["data", "ratings", "csiq", "--data", str(miniatures), "--to", str(tmp_path / "a.csv")]) == 0
    found = body(tmp_path / "a.croissant.json")
    assert "generated miniature" in found["name"] and "not comparable" in found["description"]
    assert not {"citeAs", "license", "url"} & found.keys()


def test_licence_and_citation_are_those_of_the_class(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csiq = registry.load("datasets", "csiq")
    monkeypatch.setattr(csiq, "generated", None)  # as if these were the authors' files
    monkeypatch.setattr(csiq, "expected_images", property(lambda self: len(self.entries())))
    monkeypatch.setattr(csiq, "expected_groups", None)
    words = ["data", "ratings", "csiq", "--data", str(miniatures), "--to", str(tmp_path / "a.csv")]
    assert main(words) == 0
    found = body(tmp_path / "a.croissant.json")
    assert (found["citeAs"], found["url"]) == (csiq.citation, csiq.homepage)
    assert found["license"] == f"the terms of the dataset's authors, see {csiq.homepage}"
    assert "The images are not part of this" in found["description"]
    monkeypatch.setattr(csiq, "licence", "CC0-1.0")
    assert main(words) == 0
    assert body(tmp_path / "a.croissant.json")["license"] == "CC0-1.0"


def test_a_table_of_ones_own_names_no_path_of_this_disk(miniatures: Path, tmp_path: Path) -> None:
    pictures = sorted((miniatures / "BID" / "ImageDatabase").glob("*.JPG"))[:12]
    lines = [f"{path},{number}" for number, path in enumerate(pictures)]
    (tmp_path / "my.csv").write_text("\n".join(["image,mos", *lines, ""]), encoding="utf-8")
    assert main(["data", "ratings", f"csv:{tmp_path / 'my.csv'}", "--to", str(tmp_path / "out.csv")]) == 0
    found = body(tmp_path / "out.croissant.json")
    assert not {"license", "url"} & found.keys()
    assert str(tmp_path) not in json.dumps(found)


def test_a_report_without_csv_has_none(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    write_report(tmp_path, formats=["csv"], figures=False)
    assert (tmp_path / "report" / "croissant.json").is_file()
    write_report(tmp_path, formats=["md"], figures=False)
    assert not (tmp_path / "report" / "croissant.json").exists()


def test_other_suffixes_are_refused_in_one_line(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "ratings", "bid", "--data", str(miniatures), "--to", str(tmp_path / "bid.xlsx")]
    assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.endswith("bid.xlsx does not end in .csv; ratings are written as CSV")
    assert not any(tmp_path.iterdir())
