"""Fonts inside of SVG files: text stays text, and looks the same where the font is not installed."""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from typing import Literal

FAMILY = "DejaVu Sans"
"""The font of all figures; matplotlib ships it."""


def embed_fonts(svg: str) -> str:
    """Puts the letters that a figure uses into its style sheet, as `@font-face` with a WOFF font.

    Args:
        svg: A figure as matplotlib writes it, its text as text of the family `FAMILY`.

    Returns:
        The figure with its fonts; the same bytes for the same figure.
    """
    used = html.unescape("".join(re.findall(r">([^<]+)<", svg)))
    letters = "".join(sorted(set(used) - set("\n\r\t")))
    faces = [_face("normal", letters)]
    if "oblique" in svg or "italic" in svg:  # mathematics
        faces.append(_face("oblique", letters))
    return svg.replace("</style>", "\n" + "\n".join(faces) + "\n</style>", 1)


@functools.lru_cache(maxsize=16)
def _face(style: Literal["normal", "oblique"], letters: str) -> str:
    from fontTools import subset
    from fontTools.ttLib import TTFont
    from matplotlib.font_manager import FontProperties, findfont

    options = subset.Options(
        hinting=False, layout_features=[], name_IDs=[], notdef_outline=True, glyph_names=False
    )  # fmt: skip
    options.drop_tables += ["FFTM"]  # FontForge's dates
    font = TTFont(findfont(FontProperties(family=FAMILY, style=style)), recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=letters)
    subsetter.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"url(data:font/woff;base64,{data}) format('woff')"
    return f"@font-face {{font-family: '{FAMILY}'; font-style: {style}; src: {source}}}"
