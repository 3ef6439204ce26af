"""What every page has in common: template engine, style, script, and a policy that allows no others."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cliqa_bench.reports import render

TEMPLATES = Path(__file__).parent / "templates"


class Shell(NamedTuple):
    """What a page is rendered with.

    Attributes:
        environment: Finds templates, and escapes whatever is put into them.
        style: The style of all pages.
        script: The page's own script.
        policy: Content security policy: this style and this script may be used, and nothing else.
    """

    environment: Environment
    style: Markup
    script: Markup
    policy: str


def shell(scripts: Sequence[Path], templates: Path = TEMPLATES, styles: Sequence[Path] = ()) -> Shell:
    """Prepares a page.

    Args:
        scripts: Files that its script is made of, in this order.
        templates: The folder of its template.
        styles: Files of its own style, after that of all pages.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(plain=render.plain, exact=exact)
    sheets = (TEMPLATES / "report.css", *styles)
    style = "".join(path.read_text(encoding="utf-8") for path in sheets)
    parts = "".join(path.read_text(encoding="utf-8") for path in scripts)
    script = f'(async () => {{\n"use strict";\n{parts}}})();\n'
    return Shell(environment, Markup(style), Markup(script), _policy(style, script))


def _policy(style: str, script: str) -> str:
    parts = [
        "default-src 'none'", f"style-src {_hash(style)}", f"script-src {_hash(script)}", "img-src data:",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    return "; ".join(parts)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def exact(value: float) -> str:
    """Returns the digits that give the same float64 back; "" for nan."""
    return "" if value != value else repr(float(value))
