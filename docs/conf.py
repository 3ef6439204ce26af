"""How Sphinx builds this documentation: `sphinx-build -W docs site` (the extra [docs]).

Sphinx, since it reads the docstrings as they are (Google style), checks every reference, and needs nothing
from the internet; MyST lets the pages stay plain Markdown, which people also read in the repository.
"""

from cliqa_bench import __version__

project = "cliqa_bench"
author = "the contributors of cliqa_bench"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
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
