"""The sample report and leaderboard: the files that a build of the site makes, in a real Chromium."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from visited_page import Visit

from cliqa_bench.reports.audit.bundle import unpacked
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.leaderboard.proofs import read_proofs
from cliqa_bench.results.records import read_records

pytestmark = pytest.mark.slow
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def build() -> Any:
    """Returns docs/conf.py, which Sphinx reads; it needs no Sphinx itself."""
    spec = importlib.util.spec_from_file_location("docs_conf", DOCS / "conf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the page to which the site links, made as a build ends."""
    site = tmp_path_factory.mktemp("site")
    build._add_samples(SimpleNamespace(outdir=str(site), builder=SimpleNamespace(format="html")), None)
    text = (DOCS / "sample_report.md").read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]+)"', text)
    return site / str(link)


def test_the_bundle_is_the_main_job(build: Any) -> None:
    assert build.SAMPLE.stat().st_size < 400_000
    with unpacked(build.SAMPLE) as runs:
        records = read_records(runs)
    assert sorted(record.order for record in records) == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
    assert {record.strategy for record in records} == {"tsn"}
    assert {len(record.sequence) for record in records} == {6}


def test_the_site_links_to_where_the_page_is_put(sample: Path) -> None:
    assert sample.parts[-2:] == ("sample", "report.html") and sample.is_file()


def test_it_names_no_folder_of_whoever_built_it(sample: Path) -> None:
    text = sample.read_text(encoding="utf-8")
    assert "generated miniatures: not comparable with published numbers" in text
    assert str(Path.home()) not in text and "/tmp/" not in text and "cliqa-bundle-" not in text


def test_it_opens_without_requests_and_messages(chromium: Any, sample: Path) -> None:
    visit = Visit(chromium, sample)
    assert len(visit.rows("#summary table")) == 4
    first = visit.page.locator("#summary table").inner_text()
    visit.choose("order", "VIII")
    assert visit.page.locator("#summary table").inner_text() != first
    pictures = visit.page.locator("figure img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert len(pictures) >= 5 and min(pictures) > 0
    visit.close(sample)


def test_the_build_notices_what_is_loaded_from_elsewhere(build: Any, sample: Path) -> None:
    remote = ['<script src="https://a.org/b.js">', "<link rel=x href='//a.org/b.css'>"]
    remote += ['<img alt="" src="http://a/b">']
    local = '<a href="https://a.org"><script src="_static/a.js"></script><img src="data:a;base64,//8">'
    assert build.remote_parts(local + "".join(remote)) == remote
    assert build.remote_parts(sample.read_text(encoding="utf-8")) == []


def test_every_number_of_the_bundle_is_right(build: Any) -> None:
    found = verify(build.SAMPLE)
    assert found.ok, found.problems


# -- the sample leaderboard ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(sample: Path) -> Path:
    """Returns the leaderboard to which the site links."""
    text = (DOCS / "sample_leaderboard.md").read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]+)"', text)
    return sample.parents[1] / str(link)


def test_every_row_of_the_leaderboard_is_proved(board: Path) -> None:
    with (board.parent / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["table"] for row in rows}) == 1
    assert {row["bundle"] for row in rows} == {"main_job.zip", "methods.zip"}
    assert min(int(row["proofs"]) for row in rows) >= 1
    assert {"TSN-IQA", "LwF-KG", "R&R-Net-KG", "JL"} <= {row["method"] for row in rows}


def test_its_proofs_are_of_these_bundles_and_of_the_same_bits(build: Any) -> None:
    bundles = sorted(build.SAMPLES.glob("*.zip"))
    assert [bundle.name for bundle in bundles] == ["main_job.zip", "methods.zip"]
    for bundle in bundles:
        proofs, odd = read_proofs(bundle)
        assert not odd and all(proof.holds and proof.scores == 0 for proof in proofs)


def test_it_opens_without_requests_and_can_be_filtered(chromium: Any, board: Path) -> None:
    visit = Visit(chromium, board)
    every = len(visit.rows("#boards"))
    visit.choose("order", "VIII")
    assert 0 < len(visit.rows("#boards")) < every
    assert not visit.page.locator("#refused").count()
    visit.close(board)
