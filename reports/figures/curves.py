"""The paper's Fig. 4: PSI_t against t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliqa_bench.reports.figures.style import (
    generated_sentence,
    method_styles,
    plain,
    put_foot,
    put_legend,
    save,
    styled,
)
from cliqa_bench.reports.methods import drawn_methods, label_of, row_method
from cliqa_bench.reports.rows import TidyRow, caution_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def psi_caption(rows: Sequence[TidyRow]) -> str:
    """Returns the caption of the PSI curves."""
    text = f"PSI_t as a function of the task index t, order {rows[0].order}."
    if any(math.isfinite(row.std) for row in rows):
        over = "splits" if any(row.median is not None for row in rows) else "seeds"
        text += f" Error bars: standard deviation over {over} (ddof = 1)."
    return text + generated_sentence(caution_in(rows[0].note))


def draw_psi(rows: Sequence[TidyRow], sequence: Sequence[str], folder: Path) -> list[Path]:
    """Draws the paper's Fig. 4: PSI_t against t, one panel per backbone, as SVG, PDF and PNG.

    Variants of a method that is there itself are left out.

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
    shown = drawn_methods(dict.fromkeys(map(row_method, rows)), one_backbone=False)
    rows = [row for row in rows if row_method(row) in shown]
    if not any(math.isfinite(row.value) for row in rows):
        return []
    with styled():
        from matplotlib.figure import Figure

        backbones = list(dict.fromkeys(row.backbone for row in rows))
        figure = Figure(figsize=(max(4.6, 3.9 * len(backbones)), 2.9), layout="constrained")
        panels = figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0]
        styles = method_styles(map(label_of, rows))
        for panel, backbone in zip(panels, backbones, strict=True):
            _panel(panel, [row for row in rows if row.backbone == backbone], styles, sequence)
            panel.set_title(plain(backbone))
        panels[0].set_ylabel(r"$\mathrm{PSI}_t$")
        put_legend(figure, panels)
        put_foot(figure, f"order {rows[0].order}", caution_in(rows[0].note))
        return save(figure, folder, "fig_4")


def _panel(
    panel: Axes, rows: list[TidyRow], styles: dict[str, dict[str, Any]], sequence: Sequence[str]
) -> None:
    for label, style in styles.items():
        own = [row for row in rows if label_of(row) == label]
        if own:
            t, values = [float(row.length) for row in own], [row.value for row in own]
            spread = [row.std if math.isfinite(row.std) else 0.0 for row in own]
            # hollow markers: overlapping curves stay visible
            bars = spread if any(spread) else None
            panel.errorbar(t, values, yerr=bars, label=plain(label, 40), capsize=2, mfc="white", **style)
    ticks = range(1, len(sequence) + 1)
    panel.set_xticks(
        list(ticks), [f"{t}\n{plain(title, 12)}" for t, title in zip(ticks, sequence, strict=True)]
    )
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel("task index $t$ and the dataset learned")
    panel.margins(x=0.06)
