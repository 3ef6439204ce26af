"""SS-IQA's phases: SRCC on D^A, on D^B and of the pseudo-labels after each experience."""

from __future__ import annotations

import math
from pathlib import Path

from cliqa_bench.reports.figures.style import (
    generated_sentence,
    grid,
    method_styles,
    put_foot,
    put_legend,
    save,
    styled,
)
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.reports.tables.ssiqa import phase_curves
from cliqa_bench.results.records import AnswerReader

COLUMNS = 3
"""Panels in a line."""


def phases_caption(numbers: Tidy) -> str:
    """Returns the caption of the phases."""
    return (
        "SS-IQA: SRCC on the test images of D^A and of D^B after each experience (0: after D^A; then after "
        "each block of D^B), and, on the test images of D^B, SRCC of the model that labels the next "
        "block's images. Error bars: standard deviation over seeds or splits (ddof = 1)."
        + generated_sentence(numbers.group.caution)
    )


def draw_phases(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws a panel per transfer, as `fig_ssiqa.*`.

    Args:
        numbers: The tidy rows.
        reader: Reads the answers; not needed here.
        folder: Where the files go.

    Returns:
        The files; none where no transfer was run.

    Raises:
        UserError: If a file cannot be written.
    """
    curves = phase_curves(numbers.rows)
    if not curves:
        return []
    with styled():
        from matplotlib.figure import Figure

        lines, columns = grid(len(curves), COLUMNS)
        figure = Figure(figsize=(max(4.6, 2.6 * columns), 0.4 + 2.3 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        styles = method_styles(setting for of_transfer in curves.values() for setting in of_transfer)
        for panel, (title, of_transfer) in zip(panels, curves.items(), strict=False):
            for setting, rows in of_transfer.items():
                steps = [int(row.metric.partition(": ")[2]) for row in rows]
                spread = [row.std if math.isfinite(row.std) else 0.0 for row in rows]
                bars = spread if any(spread) else None
                values = [row.value for row in rows]
                panel.errorbar(
                    steps, values, yerr=bars, label=setting, capsize=2, mfc="white", **styles[setting]
                )
            panel.set_title(title)
            panel.set_xticks(range(max(steps) + 1))
            panel.set_xlabel("experience")
        for panel in panels[len(curves) :]:
            panel.set_visible(False)
        panels[0].set_ylabel("SRCC")
        put_legend(figure, panels[: len(curves)])
        put_foot(figure, "SS-IQA", numbers.group.caution)
        return save(figure, folder, "fig_ssiqa")
