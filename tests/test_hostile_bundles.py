"""Bundles that strangers send: each is refused in one line, and the page is built from the others."""

from __future__ import annotations

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded

from cliqa_bench.cli.parser import main
from cliqa_bench.reports.audit.bundle import pack
from cliqa_bench.reports.leaderboard.proofs import Proof, append_proof
from cliqa_bench.reports.leaderboard.site import build_site
from cliqa_bench.reports.report import write_report
from cliqa_bench.results.nodes import file_digest, read_answers, write_arrays, write_json
from cliqa_bench.results.records import read_records, record_files, write_record

pytestmark = pytest.mark.slow
MARKUP = '<img src=x onerror="alert(1)">'
MEGABYTES = 80
"""More than what is small: 64. As blanks or zeros it is packed to a thousandth of that."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "runs"
    recorded.record_tsn(out, preset="quick", split="1")
    write_report(out, formats=["csv"], figures=False)
    return out


@pytest.fixture(scope="module")
def honest(runs: Path) -> Path:
    bundle = runs.parent / "honest.zip"
    pack(runs, bundle)
    return bundle


# -- what is added to a bundle -------------------------------------------------------------------------------


def foreign_markup(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"{MARKUP}/index.html", "<script>alert(1)</script>")


def markup_in_a_node(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"train/{MARKUP.replace('/', '')}/done.json", "{}")


def name_of_two_lines(archive: zipfile.ZipFile) -> None:
    archive.writestr("runs/a\nOK: all is well\x1b[2J/b.json", "{}")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("runs/bomb.json", b" " * (MEGABYTES << 20), zipfile.ZIP_DEFLATED)


def bomb_in_parts(archive: zipfile.ZipFile) -> None:
    for number in range(8):
        archive.writestr(f"runs/{number}.json", b" " * (MEGABYTES << 17), zipfile.ZIP_DEFLATED)


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("runs/link.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/hostname")


def link_of_a_folder(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("answers/elsewhere")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc")


def climbing_name(archive: zipfile.ZipFile) -> None:
    archive.writestr("answers/../../../climbed.json", "{}")


def long_number(archive: zipfile.ZipFile) -> None:
    archive.writestr("runs/number.json", '{"seed": 1' + "0" * 100_000 + "}", zipfile.ZIP_DEFLATED)


def deep_json(archive: zipfile.ZipFile) -> None:
    archive.writestr("runs/deep.json", "[" * 100_000, zipfile.ZIP_DEFLATED)


def long_name(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"runs/{'a' * 60_000}.json", "{}")


ADDED: dict[Callable[[zipfile.ZipFile], None], str] = {
    foreign_markup: "which no bundle does",
    markup_in_a_node: "its JSON files cannot be read",
    name_of_two_lines: "which no bundle does",
    bomb: "unpacked it has",
    bomb_in_parts: "unpacked it has",
    link: "holds 'runs/link.json', which no bundle does",
    link_of_a_folder: "holds 'answers/elsewhere', which no bundle does",
    climbing_name: "which no bundle does",
    long_number: "is not valid JSON",
    deep_json: "is not valid JSON",
    long_name: "cannot unpack",
}


def assert_refused(folder: Path, name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Builds a page from the folder, which holds one honest bundle and one that is refused."""
    assert main(["leaderboard", "build", str(folder), "--to", str(folder / "site"), "--jobs", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if line.startswith("refused: ")]
    assert line.startswith(f"refused: {name}: ") and reason in line
    assert line.isprintable() and len(line) < 1000
    assert said[-1].endswith("of 1 bundle")
    assert MARKUP not in (folder / "site" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("add", ADDED, ids=lambda add: add.__name__)
def test_what_is_added_is_refused(
    honest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    add: Callable[[zipfile.ZipFile], None],
) -> None:
    folder = tmp_path / "some" / "where"
    folder.mkdir(parents=True)
    for name in ("honest.zip", "other.zip"):
        shutil.copy(honest, folder / name)
    with zipfile.ZipFile(folder / "other.zip", "a") as archive:
        add(archive)
    assert (folder / "other.zip").stat().st_size < 1_000_000
    assert_refused(folder, "other.zip", ADDED[add], capsys)
    assert not list(tmp_path.rglob("climbed.json"))


# -- what is changed in a run, and signed --------------------------------------------------------------------


def bomb_of_answers(path: Path) -> None:
    arrays = read_answers(path)
    n = len(arrays["keys"])
    arrays["scores"] = np.zeros((n, (MEGABYTES << 18) // n), np.float32)
    write_arrays(path, arrays, compress=True)


def array_of_a_terabyte(path: Path) -> None:
    """Writes a header that claims 2**40 numbers, and none of them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    )
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (kept | {"scores.npy": buffer.getvalue()}).items():
            archive.writestr(name, data)


@pytest.mark.parametrize("change", [bomb_of_answers, array_of_a_terabyte], ids=lambda change: change.__name__)
def test_what_is_changed_and_signed_is_refused(
    runs: Path,
    honest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
) -> None:
    out, folder = tmp_path / "runs", tmp_path / "bundles"
    shutil.copytree(runs, out)
    path = sorted((out / "answers").glob("train-*/answers.npz"))[0]
    change(path)
    recorded.sign(path.parent)
    folder.mkdir()
    shutil.copy(honest, folder / "honest.zip")
    pack(out, folder / "other.zip")
    assert (folder / "other.zip").stat().st_size < 1_000_000
    assert_refused(folder, "other.zip", "is not an answer file", capsys)


# -- markup that a bundle may hold ---------------------------------------------------------------------------


def test_markup_in_names_is_text_on_the_page(runs: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "runs", tmp_path / "bundles"
    shutil.copytree(runs, out)
    (record,) = read_records(out)
    for path in record_files(out):
        path.unlink()
    named = {readout: f"{name} {MARKUP}" for readout, name in record.rows.items()}
    titles = {name: f"{title} {MARKUP}" for name, title in record.titles.items()}
    facts = {**record.facts, "preset": MARKUP, "split": MARKUP, "weights": MARKUP}
    write_record(out, replace(record, rows=named, titles=titles, facts=facts, backbone=MARKUP))
    write_report(out, formats=["csv"], figures=False)
    folder.mkdir()
    bundle = folder / "<b>x.zip"
    pack(out, bundle)
    append_proof(
        bundle,
        Proof(file_digest(bundle), MARKUP, 0, MARKUP, MARKUP, {MARKUP: MARKUP}, MARKUP, 0.0, 0.0, 1.0, 1.0),
    )
    built = build_site(folder, tmp_path / "site", jobs=1)
    assert [entry.refused for entry in built.entries] == [""]
    page = built.page.read_text(encoding="utf-8")
    assert MARKUP not in page and "<b>x" not in page and "<img" not in page
    assert "&lt;img src=x onerror=" in page and "&lt;b&gt;x.zip" in page


def test_a_record_is_refused_if_its_names_are_paths(
    runs: Path, honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "runs", tmp_path / "bundles"
    shutil.copytree(runs, out)
    (path,) = record_files(out)
    body = json.loads(path.read_text(encoding="utf-8"))
    body["steps"][0]["heads"][0][0] = "../../../../etc"
    write_json(path, body)
    folder.mkdir()
    shutil.copy(honest, folder / "honest.zip")
    pack(out, folder / "other.zip")
    assert_refused(folder, "other.zip", "is not a run record", capsys)
