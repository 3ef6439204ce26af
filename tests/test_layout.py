"""The four rooms make one package: in a checkout by symlinks, installed by setup.cfg."""

from __future__ import annotations

import configparser
import filecmp
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wrong_science import read_changes

import cliqa_bench

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("strategies", "benchmarks", "reports")


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_a_relative_symlink_into_the_checkout(room: str) -> None:
    link = ROOT / "cliqa_bench" / room
    if (ROOT / "PKG-INFO").is_file():
        assert not filecmp.dircmp(link, ROOT / room).diff_files, "a source distribution has copies"
        return
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert (ROOT / room / "__init__.py").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_room_refuses_its_bare_name(room: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"import cliqa_bench.{room}" in done.stderr.splitlines()[-1]


def test_setup_names_every_package() -> None:
    setup = _setup()
    listed = set(setup["options"]["packages"].split())
    folders = {".": "cliqa_bench", **{f"../{room}": f"cliqa_bench.{room}" for room in ROOMS}}
    found = set()
    for relative, package in folders.items():
        top = (ROOT / "cliqa_bench" / relative).resolve()
        for init in top.rglob("__init__.py"):
            inner = init.parent.relative_to(top).parts
            found.add(".".join([package, *inner]))
    assert found == listed


def test_setup_maps_rooms_to_their_folders() -> None:
    lines = _setup()["options"]["package_dir"].split("\n")
    mapped = dict(line.replace(" ", "").split("=") for line in lines if line.strip())
    assert mapped == {"cliqa_bench": "cliqa_bench"} | {f"cliqa_bench.{room}": room for room in ROOMS}


def test_a_source_distribution_has_all_that_its_tests_read() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("git knows what belongs to it")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {Path(name).parts[0] for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:graft|include) (.+)$", manifest, re.MULTILINE))
    named = {Path(word).parts[0] for line in named for word in line.split()}
    by_setuptools = {"README.md", "LICENSE", "pyproject.toml", "setup.cfg", "MANIFEST.in", *ROOMS}
    assert tops - by_setuptools - named == set()


def test_tests_are_no_package() -> None:
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {cliqa_bench.__version__}" in citation
    assert f"## {cliqa_bench.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_typed() -> None:
    assert (ROOT / "cliqa_bench" / "py.typed").is_file()
    assert "py.typed" in _setup()["options.package_data"]["cliqa_bench"]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`(docs/[\w./]+\.md)`", text)
    lost = [link for link in linked if not (page.parent / link).exists()]
    assert not lost + [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_linked_and_the_readme_is_short() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") <= 150, "a stranger reads one page, and chooses the next"
    texts = [readme, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]
    linked = {Path(link).name for text in texts for link in re.findall(r"\]\(([^)#\s]+\.md)", text)}
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    on_the_site = set(re.findall(r"^\w+$", "".join(index.split("```{toctree}")[1:]), re.MULTILINE))
    site_only = {"index.md", "glossary.md", "surprises.md", "api.md", "contributing.md", "changes.md"}
    assert not pages - linked - site_only
    assert {f"{name}.md" for name in on_the_site} == pages - {"index.md"}


def test_every_wrong_change_fits_its_file() -> None:
    lost = [
        f"{change.file}: {change.name}"
        for change in read_changes()
        if (ROOT / change.file).read_text(encoding="utf-8").count(change.old) < 1
    ]
    assert not lost, "fit them in tests/wrong_science/*.toml to what the code says now"
