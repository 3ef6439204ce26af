"""A fast slice of the fuzzer (`tests/fuzz.py`), what it found before, and tests of the fuzzer itself."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from fuzz_labels import Case, wrong_ratings

from cliqa_bench.errors import UserError
from cliqa_bench.types import Rating

ENDS = ("accepted", "refused")
SLOW = {"bundle", "run-record", "done-json", "spec-json", "run-answers", "results-csv"}
"""Formats whose cases take a tenth of a second."""
RECIPES = [
    line.split()[:2]
    for line in (Path(__file__).parent / "regressions" / "recipes.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> fuzz.Bench:
    return fuzz.Bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", fuzz.FORMATS)
def test_damaged_files_are_refused_in_a_line_or_read_right(bench: fuzz.Bench, name: str) -> None:
    for number in range(2 if name in SLOW else 15):
        result = bench.run(name, number)
        assert not result.found, f"{name} {number}: {result.end}: {result.told}"


@pytest.mark.parametrize(("name", "number"), RECIPES)
def test_what_was_found_once_stays_mended(bench: fuzz.Bench, name: str, number: str) -> None:
    result = bench.run(name, int(number))
    assert not result.found, f"{result.end}: {result.told}"


# -- the fuzzer itself: a reader with a fault must be found ---------------------------------------------


def case_of(tmp_path: Path, read: object) -> Case:
    def wrong(found: object, now: bytes) -> str:
        return "" if found == now else "it is not what the file holds"

    return Case(tmp_path / "file", read, wrong)  # type: ignore[arg-type]


def raised(error: Exception) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (UserError("file row 3: download it again"), "refused"),
        (UserError(""), "an error that is not a line"),
        (ValueError("bug"), "ValueError"),
        (MemoryError(), "MemoryError"),
        (RecursionError(), "RecursionError"),
    ],
)
def test_how_a_case_ends(tmp_path: Path, error: Exception, end: str) -> None:
    assert fuzz.judged(case_of(tmp_path, lambda: raised(error)), b"x")[0] == end


def test_wrong_content_is_found(tmp_path: Path) -> None:
    assert fuzz.judged(case_of(tmp_path, lambda: b"x"), b"x") == ("accepted", "")
    assert fuzz.judged(case_of(tmp_path, lambda: b"y"), b"x")[0] == "wrong content"


def test_a_case_is_a_function_of_its_name_and_number() -> None:
    data = bytes(range(256)) * 20
    again = [fuzz.damaged("png", n, data) for n in range(50)]
    assert again == [fuzz.damaged("png", n, data) for n in range(50)]
    assert len(set(again)) > 40
    assert list(fuzz.cases(["a", "b"], 3, 2)) == [("a", 2_000_000), ("b", 2_000_000), ("a", 2_000_001)]


def test_what_counts_as_wrong_ratings() -> None:
    truth = [Rating(f"images/{i}.png", 1.0 + i, 0.5, f"r{i}", "blur") for i in range(3)]
    first = truth[0]

    def told(rating: Rating, same: set[str], name: str = "kadid10k") -> str:
        return wrong_ratings(name, truth, [rating, *truth[1:]], same)

    all_keys = {rating.key for rating in truth}
    assert told(first, all_keys) == ""
    assert told(first._replace(score=1.5), all_keys - {first.key}) == "", (
        "its bytes changed, the range is kept"
    )
    assert "their bytes did not change" in told(first._replace(score=1.5), all_keys)
    assert "score of" in told(first._replace(score=0.5), set())
    assert "score of" in told(first._replace(score=float("nan")), set())
    assert "std of" in told(first._replace(std=float("inf")), set())
    assert "std of" in told(first._replace(std=float("nan")), set())
    assert "its bytes did not change" in told(first._replace(std=0.6), all_keys)
    assert "group of" in told(first._replace(group="r1"), all_keys)
    assert "keys are others" in told(first._replace(key="images/1.png"), set())
    moved = [rating._replace(score=rating.score + 7) for rating in truth]
    assert wrong_ratings("live", truth, moved, all_keys) == "", "scores of LIVE count from the worst image"
    assert "moved by" in wrong_ratings("live", truth, [moved[0], *truth[1:]], all_keys)


@pytest.mark.slow
def test_the_watched_process_is_replaced_when_it_hangs_or_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its formats are those of a fresh import, so the hang is one of the parent's patience."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    watched = fuzz.Watched()
    try:
        assert watched.run("run-record", 1).end == "a hang"
        monkeypatch.setattr(fuzz, "SECONDS", 60.0)
        assert watched.run("png", 1).end in ENDS
        watched.process.kill()
        assert watched.run("png", 1).end == "a crash (exit code -9)"
        assert watched.run("png", 1).end in ENDS
    finally:
        watched.close()
