"""How Sphinx builds this documentation: `sphinx-build -W docs site` (the extra [docs]).

Sphinx, since it reads the docstrings as they are (Google style), checks every reference, and needs nothing
from the internet; MyST lets the pages stay plain Markdown, which people also read in the repository.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cliqa_bench import __version__
from cliqa_bench.reports.audit.bundle import unpacked
from cliqa_bench.reports.leaderboard.site import build_site
from cliqa_bench.reports.report import write_report

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "cliqa_bench"
author = "the contributors of cliqa_bench"
copyright = author
release = version = __version__

# myst_nb is MyST, and renders the notebook among the tutorials, too. It shows the outputs that the notebook
# holds: tests/test_tutorials.py runs it and compares them, so that building the site trains nothing.
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # by default, scripts of another site
exclude_patterns: list[str] = []

myst_heading_anchors = 3
default_role = "code"  # as docstrings mean a single backquote

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_mock_imports: list[str] = []
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Class attributes", "Attributes")]

html_theme = "furo"
html_title = f"cliqa_bench {release}"
html_copy_source = html_show_sourcelink = False
html_permalinks_icon = "#"
html_static_path, html_css_files = ["_static"], ["site.css"]


SAMPLES = Path(__file__).parent / "sample"
"""Bundles, with their proofs: they hold answers, so that pages are always made by today's code."""
SAMPLE = SAMPLES / "main_job.zip"
"""That of the README's first command."""


def write_sample(to: Path) -> None:
    """Writes the report of the main job.

    Args:
        to: The HTML file.
    """
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # Sphinx prints what others log
    with unpacked(SAMPLE) as runs, tempfile.TemporaryDirectory() as work:
        with contextlib.chdir(work):  # the page names its folder: "runs", wherever it is built
            shutil.copytree(runs, "runs")
            write_report(Path("runs"), formats=["html"])
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(work) / "runs" / "report" / "report.html", to)


def remote_parts(page: str) -> list[str]:
    """Returns the tags of a page that load something from elsewhere."""
    return re.findall(r"""<(?:script|link|img|iframe|source)\b[^>]*=["'](?:https?:)?//[^>]*>""", page)


def _check_offline(app: Sphinx, error: Exception | None) -> None:
    """Warns of pages that need the internet: what an extension brings along may change."""
    for page in Path(app.outdir).rglob("*.html"):
        for tag in remote_parts(page.read_text(encoding="utf-8")):
            logging.getLogger("sphinx.conf").warning("%s loads from elsewhere: %s", page.name, tag)


def _add_samples(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_sample(Path(app.outdir) / "sample" / "report.html")
        build_site(SAMPLES, Path(app.outdir) / "sample" / "leaderboard", jobs=1)


def setup(app: Sphinx) -> None:
    """Puts the samples beside the pages once they are written; then all must work offline."""
    app.connect("build-finished", _add_samples, priority=500)
    app.connect("build-finished", _check_offline, priority=600)
