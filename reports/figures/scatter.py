"""Prediction against MOS on every test set, with the logistic function that maps the one to the other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliqa_bench import metrics
from cliqa_bench.reports.figures.style import (
    COLOURS,
    WIDTH,
    generated_sentence,
    grid,
    plain,
    put_foot,
    save,
    styled,
)
from cliqa_bench.reports.methods import Method, Prediction, RunReadout, label_of, method_of, predict, sources
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.results.records import AnswerReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
"""Panels in a line."""


def best_method(numbers: Tidy) -> RunReadout | None:
    """Returns the task-agnostic method with the highest mSRCC in the main order, and its first run.

    Returns:
        None where none is complete.
    """
    group = numbers.group
    values = {
        (row.backbone, label_of(row)): row.value
        for row in numbers.rows
        if (row.table, row.setting, row.metric) == ("III", "Task-Agnostic", "mSRCC")
    }
    found = {
        method: seeds
        for method, seeds in sources(group).items()
        if method.setting == "Task-Agnostic"
        and math.isfinite(values.get((method.backbone, method.label), math.nan))
    }
    if not found:
        return None
    best = max(found, key=lambda method: values[method.backbone, method.label])
    return next(iter(found[best].values()))


def scatter_caption(numbers: Tidy) -> str:
    """Returns the caption of the scatter plots."""
    source = best_method(numbers)
    name = "" if source is None else f" of {_title(source)}"
    return (
        f"Predictions{name} against MOS after the last experience, with the four-parameter logistic fit "
        "(none where the best curve does not rise; dashed where it is as steep as allowed). PLCC: first raw, "
        "then after the fit; RMSE: after the fit." + generated_sentence(numbers.group.caution)
    )


def draw_scatter(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws what the best task-agnostic method (see `best_method`) predicts against MOS, as `fig_scatter.*`.

    Args:
        numbers: The tidy rows, which say which method is the best.
        reader: Reads the answers.
        folder: Where the files go.

    Returns:
        The files; none where no method is complete.

    Raises:
        UserError: If an answer file is broken or a file cannot be written.
    """
    source = best_method(numbers)
    if source is None:
        return []
    record = source.record
    tests = [*record.sequence, *(t for t in record.tests if t not in record.sequence)]
    told = {test: predict(reader, source, len(record.steps) - 1, test) for test in tests}
    panels = {record.titles.get(test, test): p for test, p in told.items() if p is not None}
    with styled():
        from matplotlib.figure import Figure

        lines, columns = grid(len(panels), 2 if len(panels) == 4 else COLUMNS)
        figure = Figure(figsize=(WIDTH * columns / COLUMNS, 0.7 + 2.1 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for panel, (title, prediction) in zip(axes.flat, panels.items(), strict=False):
            _panel(panel, prediction)
            panel.set_title(plain(title, 28, 1))
        for panel in axes.flat[max(0, len(panels) - columns) : len(panels)]:
            panel.set_xlabel("prediction")
        for panel in axes.flat[len(panels) :]:
            panel.set_visible(False)
        figure.supylabel("MOS (each dataset's own unit)", fontsize=8)
        figure.suptitle(plain(_title(source), 60, 1), fontsize=9)
        split = f"split {record.split_number}, " if record.split_number else ""
        put_foot(figure, f"order {record.order}, {split}seed {record.seed}", numbers.group.caution)
        return save(figure, folder, "fig_scatter")


def _title(source: RunReadout) -> str:
    method: Method = method_of(source)
    return f"{method.label} [{method.backbone}]"


def _panel(panel: Axes, prediction: Prediction) -> None:
    mos, scores = prediction.mos, prediction.scores
    # thousands of points as one picture: as drawings they would make the file slow to open
    panel.plot(
        scores, mos, "o", color=COLOURS[0], alpha=0.35 if len(mos) > 300 else 0.6, rasterized=True,
        markersize=2 if len(mos) > 300 else 3, markeredgewidth=0,
    )  # fmt: skip
    curve = metrics.fit_logistic(scores, mos)
    if curve is not None:
        x = np.linspace(scores.min(), scores.max(), 200)
        panel.plot(x, curve(x), color="black", linewidth=1.4, linestyle="--" if curve.steep else "-")
    fit = metrics.fitted(scores, mos)
    lines = [
        f"SRCC {metrics.srcc(scores, mos):.3f}",
        f"PLCC {metrics.plcc(scores, mos):.3f}, {fit.plcc:.3f}",
        f"RMSE {fit.rmse:#.3g}",
    ]
    text = "\n".join(line.replace("nan", "–").replace("-", "−") for line in lines)
    panel.annotate(
        text, (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=6.5,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    # room for the numbers above the highest point
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.3 * (high - low))
