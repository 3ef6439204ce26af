"""How all figures look: readable in gray and by the colour-blind, the same bytes for the same numbers."""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliqa_bench.reports.figures.fonts import FAMILY, embed_fonts
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.terminal import as_sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")

WIDTH = 7.16
"""Width of a page of two columns, in inches."""

# Okabe and Ito's palette without its yellow (too light on white); its order alternates dark and light
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# ten methods have markers of their own, 55 a marker and dashes that no other has
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (7, 2, 1, 2, 1, 2)))

# Any: the stubs of matplotlib want a literal type for each key
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.06,
    # text stays text, in embedded fonts (those of SVG: see fonts.py)
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "font.family": FAMILY,
    "svg.hashsalt": "cliqa_bench",
    "savefig.dpi": 200,
}

# dates and versions would change the bytes of a figure whose numbers have not changed
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draws and saves what is inside in the common style, whatever the user's own settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as SVG, PDF and PNG.

    Args:
        figure: The figure.
        folder: Where the files go.
        name: Their name without the suffix.

    Raises:
        UserError: If a file cannot be written.
    """
    # laid out once for all formats: that takes as long as drawing them
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    paths = [folder / f"{name}.{kind}" for kind in FORMATS]
    for path in paths:
        kind, buffer = path.suffix[1:], io.BytesIO()
        # not into the file: on a full disk the writer of PDF raises errors of its own
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
        drawn = buffer.getvalue()
        with atomic_path(path, lasting=False) as temporary:
            temporary.write_bytes(embed_fonts(drawn.decode()).encode() if kind == "svg" else drawn)
    return paths


def grid(n_panels: int, most: int) -> tuple[int, int]:
    """Returns how many lines and columns panels take, with at most so many in a line."""
    columns = min(most, n_panels)
    return math.ceil(n_panels / columns), columns


def method_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns a colour, a marker and a line style for each method, the same in all panels."""
    return {
        label: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, label in enumerate(dict.fromkeys(labels))
    }


def plain(name: str, width: int = 1000, lines: int = 2) -> str:
    """Returns a name as it is to be drawn: no mathematics in it, and cut where it does not fit.

    Args:
        name: Any text.
        width: Most characters in a line.
        lines: Most lines.
    """
    return textwrap.fill(name, width, max_lines=lines, placeholder="…").replace("$", r"\$")


def put_foot(figure: Figure, text: str, caution: str) -> None:
    """Writes the small print under a figure: what it shows, and the `RunGroup.caution` of its numbers."""
    width = int(16 * figure.get_figwidth())  # characters
    foot = plain(text, width)
    if caution:  # in one piece where it fits, so that it can be searched for
        foot += ("; " if len(foot) + 2 + len(caution) <= width else "\n") + plain(caution, max(width, 64), 4)
    figure.supxlabel(foot, fontsize=7, color="0.25")


def generated_sentence(caution: str) -> str:
    """Returns what ends the caption of a figure, given the `RunGroup.caution` of its numbers."""
    return f" {as_sentence(caution)}" if caution else ""


def put_legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Puts one legend over all panels, in as many columns as fit, and makes room for it in height."""
    found = {label: h for p in panels for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
    for columns in range(min(4, len(found)), 0, -1):
        legend = figure.legend(
            list(found.values()), list(found), loc="outside upper center", ncols=columns, handlelength=3
        )
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)
