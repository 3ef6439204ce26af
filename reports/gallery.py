"""All figures of a report, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cliqa_bench.records import AnswerReader
from cliqa_bench.reports import figures_matrices, figures_orders, figures_scale, figures_scatter
from cliqa_bench.reports.figures import draw_psi, psi_caption
from cliqa_bench.reports.rows import Row, Tidy
from cliqa_bench.reports.style import FORMATS
from cliqa_bench.reports.tables import main_sequence


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: Name of its files, without the suffix.
        draw: Draws it into a folder and returns its files; none where the runs have nothing to show.
        caption: What it shows, in sentences.
    """

    name: str
    draw: Callable[[Tidy, AnswerReader, Path], list[Path]]
    caption: Callable[[Tidy], str]


class Drawn(NamedTuple):
    """A figure that was drawn.

    Attributes:
        files: As SVG, PDF and PNG.
        caption: What it shows.
    """

    files: list[Path]
    caption: str


def _curves(numbers: Tidy) -> list[Row]:
    return [row for row in numbers.rows if row.table == "Fig. 4"]


def _draw_fig_4(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    curves = _curves(numbers)
    return draw_psi(curves, main_sequence(numbers.group), folder) if curves else []


PICTURES = (
    Picture("fig_4", _draw_fig_4, lambda numbers: psi_caption(_curves(numbers))),
    Picture("fig_5", figures_scale.draw_scale, figures_scale.scale_caption),
    Picture("fig_srcc", figures_matrices.draw_srcc, figures_matrices.srcc_caption),
    Picture("fig_stability", figures_matrices.draw_stability, figures_matrices.stability_caption),
    Picture("fig_scatter", figures_scatter.draw_scatter, figures_scatter.scatter_caption),
    Picture("fig_orders", figures_orders.draw_orders, figures_orders.orders_caption),
    Picture("fig_first_task", figures_orders.draw_first_task, figures_orders.first_task_caption),
)

FILES = tuple(f"{picture.name}.{kind}" for picture in PICTURES for kind in FORMATS)
"""Every file that may be drawn."""


def draw_all(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Drawn]:
    """Draws every figure for which there is something to show.

    Args:
        numbers: The group's numbers.
        reader: Reads the group's answers.
        folder: Where the files go.

    Raises:
        UserError: If an answer file or a picture is broken, or a file cannot be written.
    """
    drawn = []
    for picture in PICTURES:
        files = picture.draw(numbers, reader, folder)
        if files:
            drawn.append(Drawn(files, picture.caption(numbers)))
    return drawn
