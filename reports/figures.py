"""Figures for print: readable in gray and by the colour-blind, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliqa_bench.reports.rows import GENERATED, Row
from cliqa_bench.store import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")

# Okabe and Ito's palette without its yellow (too light on white); its order alternates dark and light
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")

# Any: the stubs of matplotlib want a literal type for each key
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
    # text stays text, in embedded TrueType fonts
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "svg.hashsalt": "cliqa_bench",
    "savefig.dpi": 200,
}

# dates and versions would change the bytes of a figure whose numbers have not changed
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def psi_caption(rows: Sequence[Row]) -> str:
    """Returns the caption of the PSI curves."""
    text = f"PSI_t as a function of the task index t, order {rows[0].order}."
    if any(math.isfinite(row.std) for row in rows):
        text += " Error bars: standard deviation over seeds (ddof = 1)."
    return text + (f" {GENERATED.capitalize()}." if GENERATED in rows[0].note else "")


def draw_psi(rows: Sequence[Row], sequence: Sequence[str], folder: Path) -> list[Path]:
    """Draws the paper's Fig. 4: PSI_t against t, one panel per backbone, as SVG, PDF and PNG.

    Args:
        rows: Rows of the metric PSI_t of one task order.
        sequence: Titles of the datasets in that order.
        folder: Where `fig_4.*` go.

    Returns:
        The files; none where every value is undefined.

    Raises:
        UserError: If a file cannot be written.
    """
    rows = [row for row in rows if row.metric == "PSI_t"]
    if not any(math.isfinite(row.value) for row in rows):
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        backbones = list(dict.fromkeys(row.backbone for row in rows))
        figure = Figure(figsize=(max(4.6, 3.9 * len(backbones)), 3.4), layout="constrained")
        panels = figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0]
        for panel, backbone in zip(panels, backbones, strict=True):
            _panel(panel, [row for row in rows if row.backbone == backbone], _styles(rows), sequence)
            panel.set_title(backbone)
        panels[0].set_ylabel(r"$\mathrm{PSI}_t$")
        _legend(figure, panels)
        figure.supxlabel(_foot(rows), fontsize=7, color="0.25")
        return [_save(figure, folder / f"fig_4.{kind}") for kind in FORMATS]


def _label(row: Row) -> str:
    return row.method + (f" ({row.variant})" if row.variant else "")


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """A colour, a marker and a line style for each method, the same in all panels."""
    labels = dict.fromkeys(_label(row) for row in rows)
    return {
        label: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i % len(LINES)],
        }
        for i, label in enumerate(labels)
    }


def _panel(panel: Axes, rows: list[Row], styles: dict[str, dict[str, Any]], sequence: Sequence[str]) -> None:
    for label, style in styles.items():
        own = [row for row in rows if _label(row) == label]
        if own:
            t, values = [float(row.length) for row in own], [row.value for row in own]
            spread = [row.std if math.isfinite(row.std) else 0.0 for row in own]
            # hollow markers: curves that lie on each other stay visible
            panel.errorbar(
                t, values, yerr=spread if any(spread) else None, label=label, capsize=2, mfc="white", **style
            )  # fmt: skip
    ticks = range(1, len(sequence) + 1)
    panel.set_xticks(list(ticks), [f"{t}\n{title}" for t, title in zip(ticks, sequence, strict=True)])
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel("task index $t$ and the dataset learned")
    panel.margins(x=0.06)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Puts one legend over all panels, in as many columns as fit into the figure."""
    found = {label: h for p in panels for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
    for columns in range(min(4, len(found)), 0, -1):
        legend = figure.legend(
            list(found.values()), list(found), loc="outside upper center", ncols=columns, handlelength=3
        )
        figure.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def _foot(rows: Sequence[Row]) -> str:
    generated = any(GENERATED in row.note for row in rows)
    return f"order {rows[0].order}" + (f"; {GENERATED}" if generated else "")


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        kind = path.suffix[1:]
        figure.savefig(temporary, format=kind, metadata=_METADATA[kind])
    return path
