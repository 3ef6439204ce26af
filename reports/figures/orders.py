"""mPSI over all task orders: its distribution, and what the first dataset does to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliqa_bench.reports.figures.style import generated_sentence, method_styles, plain, put_foot, save, styled
from cliqa_bench.reports.methods import drawn_methods
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.reports.tables.all_orders import OrderStudy, order_studies
from cliqa_bench.reports.tables.order_study import ALIKE, paper_places
from cliqa_bench.results.records import AnswerReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60
FEW, FEW_BINS = 100, 25
"""Of fewer orders there are fewer bins: else each would be a peak of its own."""


def orders_caption(numbers: Tidy) -> str:
    """Returns the caption of the distribution over all orders."""
    return (
        "mPSI over all orders of the datasets, computed exactly from one training per dataset; for a method "
        "whose training depends on the order, over the n orders that were run. Histograms, each scaled to "
        "its own height; below them every order as a stroke, the quartiles and the median. Diamonds and "
        "numerals: the paper's orders, restricted to these datasets."
        + generated_sentence(numbers.group.caution)
    )


def first_task_caption(numbers: Tidy) -> str:
    """Returns the caption of the first-task effect."""
    return (
        "First-task effect: mean of mPSI over all orders that begin with a dataset; bars: from the worst to "
        "the best of these orders. Exact where one training per dataset gives every order; else each was "
        "trained." + generated_sentence(numbers.group.caution)
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

        figure = Figure(figsize=(6.2, 0.9 + 0.68 * len(studies)), layout="constrained")
        panel = figure.subplots()
        lowest = min(float(s.values["mPSI"].min()) for s in studies)
        highest = max(float(s.values["mPSI"].max()) for s in studies)
        room = 0.04 * (highest - lowest or 1.0)
        few = max(len(study.permutations) for study in studies) < FEW
        bins = np.linspace(lowest - room, highest + room, (FEW_BINS if few else BINS) + 1)
        styles = method_styles(study.method.label for study in studies)
        panel.set_xlim(bins[0], bins[-1])
        for i, study in enumerate(studies):
            _ridge(panel, study, len(studies) - 1 - i, bins, styles[study.method.label]["color"])
        panel.set_yticks(range(len(studies)), [_counted(study) for study in reversed(studies)])
        panel.set_ylim(-0.45, len(studies) - 0.4)
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
    studies = [study for study in _complete(numbers, reader) if study.whole]
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
    """Returns the studies to draw: without a missing number, the task-agnostic ones first.

    They are of the main datasets, unless of others more methods are there.
    """
    found = [s for s in order_studies(numbers.group, reader) if np.isfinite(s.values["mPSI"]).all()]
    counts = Counter(tuple(study.names) for study in found)
    chosen = max(counts, key=lambda names: counts[names], default=())
    found = [study for study in found if tuple(study.names) == chosen]
    shown = drawn_methods(study.method for study in found)
    kept = [study for study in found if study.method in shown]
    return sorted(kept, key=lambda study: study.method.setting != "Task-Agnostic")


def _name(study: OrderStudy) -> str:
    return plain(study.method.label, 28)


def _counted(study: OrderStudy) -> str:
    return f"{_name(study)}\nn = {len(study.permutations)}"


def _foot(studies: Sequence[OrderStudy]) -> str:
    study = studies[0]
    return f"orders of {', '.join(study.titles)}: {study.total} in all; backbone {study.method.backbone}"


def _ridge(panel: Axes, study: OrderStudy, level: int, bins: np.ndarray, colour: str) -> None:
    """Draws one method's histogram on its own line; below it every order, a box, and the paper's orders."""
    values = study.values["mPSI"]
    counts, _ = np.histogram(values, bins)
    first, last = np.flatnonzero(counts)[[0, -1]]
    panel.stairs(
        level + 0.5 * counts[first : last + 1] / counts.max(), bins[first : last + 2], baseline=level,
        fill=True, facecolor=(colour, 0.55), edgecolor=colour, linewidth=0.8,
    )  # fmt: skip
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    y = level - 0.09
    ends = strokes(values, 0.0015 * (bins[-1] - bins[0]))
    panel.plot(ends, np.full(len(ends), y), color="0.35", linewidth=5, solid_capstyle="butt", alpha=0.6)
    panel.plot([q1, q3], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    panel.plot([median], [y], "|", color="white", markersize=5, markeredgewidth=1.2)
    _mark_paper(panel, study, y, bins[-1] - bins[0])


def strokes(values: np.ndarray, width: float) -> np.ndarray:
    """Returns the ends of strokes, one for each value, but one for all that touch, with nan between strokes.

    A path of its own for each of 720 orders would make a figure of some megabytes.

    Args:
        values: (n,) where the strokes are.
        width: How wide one is.
    """
    ordered = np.sort(values)
    gaps = np.diff(ordered) > width
    begins = ordered[np.concatenate([[True], gaps])] - width / 2
    ends = ordered[np.concatenate([gaps, [True]])] + width / 2
    return np.stack([begins, ends, np.full(len(ends), np.nan)], axis=1).ravel()


def _mark_paper(panel: Axes, study: OrderStudy, y: float, width: float) -> None:
    """Marks the paper's orders and writes their numerals below, pushed apart where they would touch."""
    labels: dict[float, list[str]] = {}
    for label, order in paper_places(study).items():
        value = float(study.values["mPSI"][order])
        same = next((other for other in labels if abs(other - value) < ALIKE), value)
        labels.setdefault(same, []).append(label)
    values = sorted(labels)
    texts = ["I\N{EN DASH}VIII" if len(labels[value]) == 8 else ", ".join(labels[value]) for value in values]
    halves = [0.0065 * width * (len(text) + 1) for text in texts]
    places = apart(values, halves, panel.get_xlim())
    ways = np.array([[value, place, np.nan] for value, place in zip(values, places, strict=True)]).ravel()
    panel.plot(ways, np.tile([y, y - 0.17, np.nan], len(values)), color="0.5", linewidth=0.5, zorder=1)
    heights = np.full(len(values), y)
    panel.plot(values, heights, "D", color="white", markeredgecolor="black", markersize=3.5, zorder=4)
    for text, place in zip(texts, places, strict=True):
        panel.text(place, y - 0.24, text, ha="center", va="center", fontsize=6)


def apart(values: Sequence[float], halves: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Returns places for labels near ascending values, in their order, so that none touch.

    Args:
        values: Where they should be.
        halves: Half of the width of each.
        limits: Left and right end of what is free; where it is too short for all, they go beyond its left.
    """
    right, left = list(values), list(values)  # pushed to the right, and to the left: half way none touch
    for i in range(1, len(values)):
        right[i] = max(right[i], right[i - 1] + halves[i - 1] + halves[i])
    for i in range(len(values) - 2, -1, -1):
        left[i] = min(left[i], left[i + 1] - halves[i + 1] - halves[i])
    places = [(one + other) / 2 for one, other in zip(left, right, strict=True)]
    start, end = limits
    for i, half in enumerate(halves):
        start = max(start + half, places[i])
        places[i], start = start, start + half
    for i in range(len(values) - 1, -1, -1):
        end = min(end - halves[i], places[i])
        places[i], end = end, end - halves[i]
    return places
