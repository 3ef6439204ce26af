"""The SRCC matrix and the stability matrix of every method as heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.reports.figures.style import WIDTH, generated_sentence, grid, plain, put_foot, save, styled
from cliqa_bench.reports.measure import SETTINGS
from cliqa_bench.reports.methods import Method, drawn_methods, row_method, unique
from cliqa_bench.reports.rows import TABLES, Tidy
from cliqa_bench.reports.tables.shapes import main_sequence
from cliqa_bench.results.records import AnswerReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLUMNS = 4
"""Panels in a line."""


class MethodMatrix(NamedTuple):
    """A method's matrix.

    Attributes:
        values: (rows, columns) float64, nan where a number is missing.
        exists: (rows, columns) bool; False where there can be none (the oracle's future tasks).
    """

    values: NDArray[np.float64]
    exists: NDArray[np.bool_]


def srcc_caption(numbers: Tidy) -> str:
    """Returns the caption of the SRCC matrices."""
    return (
        "SRCC on each test set (column) after learning each dataset (row), order "
        f"{numbers.group.main_order}. The line separates tasks already learned (below) from future ones."
        + _end(numbers)
    )


def stability_caption(numbers: Tidy) -> str:
    """Returns the caption of the stability matrices."""
    return (
        "Stability matrix: SRCC on each test set (column) between what a model predicts after learning each "
        "dataset (row) and what it predicted right after learning that test set's dataset, order "
        f"{numbers.group.main_order}." + _end(numbers)
    )


def draw_srcc(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws the SRCC matrix of every method in the main order, as `fig_srcc.*`.

    Which methods have room is the choice of `methods.drawn_methods`.

    Args:
        numbers: The tidy rows; of several seeds or splits the means are drawn.
        reader: Not needed: the numbers are in the rows.
        folder: Where the files go.

    Returns:
        The files; none where every value is undefined.

    Raises:
        UserError: If a file cannot be written.
    """
    titles = main_sequence(numbers.group)
    return _draw(numbers, "SRCC", titles, titles, folder / "fig_srcc")


def draw_stability(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws the stability matrix of every method in the main order, as `fig_stability.*`.

    Args, returns and raises as of `draw_srcc`.
    """
    titles = main_sequence(numbers.group)
    return _draw(numbers, "S", titles[1:], titles[:-1], folder / "fig_stability")


def _end(numbers: Tidy) -> str:
    several = "" if len({r.seed for r in numbers.group.records}) < 2 else " Means over the seeds."
    if len(numbers.group.splits) > 1:
        several = " Means over the splits."
    return several + generated_sentence(numbers.group.caution)


def _draw(numbers: Tidy, metric: str, down: list[str], across: list[str], path: Path) -> list[Path]:
    order = numbers.group.main_order
    # other tables have numbers of the same name: Table IX, of one head alone
    wanted = (r for r in numbers.rows if r.table in TABLES and (r.metric, r.order) == (metric, order))
    rows = [row for row in wanted if row.train_dataset in down and row.test_dataset in across]
    methods = drawn_methods(unique(map(row_method, rows)))
    matrices: dict[Method, MethodMatrix] = {}
    for method in sorted(methods, key=lambda m: -SETTINGS.index(m.setting)):
        cells = {(r.train_dataset, r.test_dataset): r.value for r in rows if row_method(r) == method}
        values = np.array([[cells.get((t, k), math.nan) for k in across] for t in down])
        matrices[method] = MethodMatrix(values, np.array([[(t, k) in cells for k in across] for t in down]))
    if not any(np.isfinite(matrix.values).any() for matrix in matrices.values()):
        return []
    with styled():
        figure = _figure(matrices, down, across, stairs=metric == "SRCC")
        put_foot(figure, f"order {order}, backbone {methods[0].backbone}", numbers.group.caution)
        return save(figure, path.parent, path.name)


def _figure(
    matrices: dict[Method, MethodMatrix], down: Sequence[str], across: Sequence[str], stairs: bool
) -> Figure:
    from matplotlib.figure import Figure

    lines, columns = grid(len(matrices), COLUMNS)
    low = min(float(np.nanmin(m.values)) for m in matrices.values() if np.isfinite(m.values).any())
    side = (WIDTH - 2) / COLUMNS  # inches of a panel; around them labels, titles and the colour bar
    title = 0.1 + 0.13 * max(plain(m.label, 20).count("\n") + 1 for m in matrices)
    size = (max(3.4, 2 + side * columns), 0.85 + (side * len(down) / len(across) + title) * lines)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    image: AxesImage | None = None
    for i, (method, matrix) in enumerate(matrices.items()):
        panel = panels.flat[i]
        # sequential, even in gray; white is reserved for undefined values
        image = panel.imshow(matrix.values, cmap="cividis", vmin=min(0.0, math.floor(low * 10) / 10), vmax=1)
        _write(panel, matrix, image)
        if stairs:
            _stairs(panel, len(down))
        panel.set_title(plain(method.label, 20), fontsize=8)
        panel.set_yticks(range(len(down)), [plain(name, 12) for name in down])
    for panel in panels.flat[len(matrices) :]:
        panel.set_visible(False)
    for i in range(columns):  # the last panel of each column, which need not be in the last line
        panel = panels.flat[max(j for j in range(len(matrices)) if j % columns == i)]
        panel.tick_params(axis="x", labelbottom=True)
        panel.set_xticks(
            range(len(across)),
            [plain(name, 12) for name in across],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
    for panel in panels.flat:
        panel.grid(False)
        panel.tick_params(length=0, labelsize=6.5)
        panel.spines[:].set_visible(False)
    figure.supylabel("after learning", fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 1.6 / lines), pad=0.01, aspect=18)
        bar.outline.set_visible(False)
        bar.set_label("SRCC")
    return figure


def _write(panel: Axes, matrix: MethodMatrix, image: AxesImage) -> None:
    """Writes the numbers into the cells, dark on light and light on dark; a dash where one is missing."""
    cells = max(matrix.values.shape)
    size = 6.0 if cells <= 6 else 5.0 if cells <= 8 else 4.0
    colours = np.asarray(image.to_rgba(matrix.values))
    for (t, k), value in np.ndenumerate(matrix.values):
        if math.isfinite(value):
            light = float(np.dot(colours[t, k, :3], (0.299, 0.587, 0.114)))
            text = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1).replace("-", "−")
            colour = "white" if light < 0.5 else "black"
            panel.text(k, t, text, ha="center", va="center", fontsize=size, color=colour)
        elif matrix.exists[t, k]:
            panel.text(k, t, "–", ha="center", va="center", fontsize=size)


def _stairs(panel: Axes, steps: int) -> None:
    """Draws the line between the tasks learned so far and those of the future."""
    x, y = [0.5], [-0.5]
    for t in range(1, steps):
        x += [t - 0.5, t + 0.5]
        y += [t - 0.5, t - 0.5]
    panel.plot(x, y, color="white", linewidth=2.2, solid_capstyle="butt")
    panel.plot(x, y, color="black", linewidth=1.0, solid_capstyle="butt")
