"""mPSI over all task orders: its distribution, and what the first dataset does to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliqa_bench.reports.figures.style import generated_sentence, method_styles, plain, put_foot, save, styled
from cliqa_bench.reports.methods import drawn_methods
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.reports.tables.all_orders import OrderStudy, order_studies
from cliqa_bench.results.records import AnswerReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 40


def orders_caption(numbers: Tidy) -> str:
    """Returns the caption of the distribution over all orders."""
    return (
        "mPSI over all orders of the datasets, exact from one training per dataset. Histograms, each scaled "
        "to its own height; below them the range, the quartiles and the median. Diamond: order "
        f"{numbers.group.main_order}." + generated_sentence(numbers.group.caution)
    )


def first_task_caption(numbers: Tidy) -> str:
    """Returns the caption of the first-task effect."""
    return (
        "First-task effect: mean of mPSI over all orders that begin with a dataset; bars: from the worst to "
        "the best of these orders. Exact from one training per dataset."
        + generated_sentence(numbers.group.caution)
    )


def draw_orders(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws the distribution of mPSI over all task orders, a line per method, as `fig_orders.*`.

    Args:
        numbers: The tidy rows, whose group is studied.
        reader: Reads the answers.
        folder: Where the files go.

    Returns:
        The files; none where no method is independent of the order and complete.

    Raises:
        UserError: If an answer file is broken or a file cannot be written.
    """
    studies = _complete(numbers, reader)
    if not studies:
        return []
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 1.1 + 0.55 * len(studies)), layout="constrained")
        panel = figure.subplots()
        lowest = min(float(s.values["mPSI"].min()) for s in studies)
        highest = max(float(s.values["mPSI"].max()) for s in studies)
        room = 0.02 * (highest - lowest or 1.0)
        bins = np.linspace(lowest - room, highest + room, BINS + 1)
        styles = method_styles(study.method.label for study in studies)
        for i, study in enumerate(studies):
            _ridge(panel, study, len(studies) - 1 - i, bins, styles[study.method.label]["color"])
        panel.set_yticks(range(len(studies)), [_name(study) for study in reversed(studies)])
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.set_xlabel("mPSI")
        panel.grid(False, axis="y")
        put_foot(figure, _foot(studies), numbers.group.caution)
        return save(figure, folder, "fig_orders")


def draw_first_task(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws mPSI by the dataset that is learned first, as `fig_first_task.*`.

    Args, returns and raises as of `draw_orders`.
    """
    studies = _complete(numbers, reader)
    if not studies:
        return []
    with styled():
        from matplotlib.figure import Figure

        titles = studies[0].titles
        height = max(3.2, 1 + 0.18 * sum(_name(study).count("\n") + 1 for study in studies))
        figure = Figure(figsize=(max(4.6, 0.95 * len(titles) + 2.6), height), layout="constrained")
        panel = figure.subplots()
        styles = method_styles(study.method.label for study in studies)
        for i, study in enumerate(studies):
            shift = 0.6 * ((i + 0.5) / len(studies) - 0.5)
            means = study.first_task.mean(axis=1)
            reach = np.abs(np.stack([study.first_task.min(axis=1), study.first_task.max(axis=1)]) - means)
            panel.errorbar(
                np.arange(len(titles)) + shift, means, yerr=reach, label=_name(study), capsize=2, mfc="white",
                **{**styles[study.method.label], "linestyle": "none"},
            )  # fmt: skip
        panel.set_xticks(range(len(titles)), [plain(title, 12) for title in titles])
        panel.set_xlabel("dataset learned first")
        panel.set_ylabel("mPSI")
        panel.grid(False, axis="x")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper")
        put_foot(figure, _foot(studies), numbers.group.caution)
        return save(figure, folder, "fig_first_task")


def _complete(numbers: Tidy, reader: AnswerReader) -> list[OrderStudy]:
    """Returns the studies to draw: without a missing number, the task-agnostic ones first."""
    found = [s for s in order_studies(numbers.group, reader) if np.isfinite(s.values["mPSI"]).all()]
    shown = drawn_methods(study.method for study in found)
    kept = [study for study in found if study.method in shown]
    return sorted(kept, key=lambda study: study.method.setting != "Task-Agnostic")


def _name(study: OrderStudy) -> str:
    return plain(study.method.label, 28)


def _foot(studies: Sequence[OrderStudy]) -> str:
    return f"all {len(studies[0].permutations)} orders, backbone {studies[0].method.backbone}"


def _ridge(panel: Axes, study: OrderStudy, level: int, bins: np.ndarray, colour: str) -> None:
    """Draws one method's histogram on its own line, with a box below."""
    values = study.values["mPSI"]
    counts, _ = np.histogram(values, bins)
    panel.stairs(
        level + 0.72 * counts / counts.max(), bins, baseline=level, fill=True, color=colour, alpha=0.55
    )
    panel.stairs(level + 0.72 * counts / counts.max(), bins, baseline=level, color=colour, linewidth=0.8)
    low, q1, median, q3, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    y = level - 0.1
    panel.plot([low, high], [y, y], color="black", linewidth=0.8)
    panel.plot([q1, q3], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    panel.plot([median], [y], "|", color="white", markersize=5, markeredgewidth=1.2)
    panel.plot([values[0]], [y], "D", color="white", markeredgecolor="black", markersize=4)
