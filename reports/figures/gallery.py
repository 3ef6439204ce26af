"""All figures of a report, in one place."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cliqa_bench.errors import UserError
from cliqa_bench.reports.figures import matrices, orders, phases, scale, scatter
from cliqa_bench.reports.figures.curves import draw_psi, psi_caption
from cliqa_bench.reports.figures.style import FORMATS
from cliqa_bench.reports.parts import lasting
from cliqa_bench.reports.rows import Tidy, TidyRow
from cliqa_bench.reports.tables.shapes import main_sequence
from cliqa_bench.results.nodes import digest, file_digest, read_json, write_json
from cliqa_bench.results.records import AnswerReader


@dataclass(frozen=True)
class ReportFigure:
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


def _curves(numbers: Tidy) -> list[TidyRow]:
    return [row for row in numbers.rows if row.table == "Fig. 4"]


def _draw_fig_4(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    curves = _curves(numbers)
    return draw_psi(curves, main_sequence(numbers.group), folder) if curves else []


PICTURES: tuple[ReportFigure, ...] = (
    ReportFigure("fig_4", _draw_fig_4, lambda numbers: psi_caption(_curves(numbers))),
    ReportFigure("fig_5", scale.draw_scale, scale.scale_caption),
    ReportFigure("fig_srcc", matrices.draw_srcc, matrices.srcc_caption),
    ReportFigure("fig_stability", matrices.draw_stability, matrices.stability_caption),
    ReportFigure("fig_scatter", scatter.draw_scatter, scatter.scatter_caption),
    ReportFigure("fig_orders", orders.draw_orders, orders.orders_caption),
    ReportFigure("fig_first_task", orders.draw_first_task, orders.first_task_caption),
    ReportFigure("fig_ssiqa", phases.draw_phases, phases.phases_caption),
)

FILES = tuple(f"{picture.name}.{kind}" for picture in PICTURES for kind in FORMATS)
"""Every file that may be drawn."""


KEPT = ".figures.json"
"""What the figures of a folder were drawn from, and their hashes."""


def draw_changed(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Drawn]:
    """Returns what `draw_all` would draw, and draws it only if that is not there already.

    Drawing takes longer than all other parts of a report. Figures are drawn again when a number, a run, one
    of their files or the code that draws them has changed, or a picture of an image has come.
    """
    drawn_from = _fingerprint(numbers, reader.out)
    kept = _kept(folder)
    if kept.get("drawn_from") == drawn_from:
        found = [Drawn([folder / name for name in names], text) for names, text in kept["figures"]]
        if all(_hash(path) == kept["files"].get(path.name) for drawn in found for path in drawn.files):
            return found
    found = draw_all(numbers, reader, folder)
    files = {path.name: _hash(path) for drawn in found for path in drawn.files}
    figures = [([path.name for path in drawn.files], drawn.caption) for drawn in found]
    write_json(folder / KEPT, {"drawn_from": drawn_from, "figures": figures, "files": files}, lasting=False)
    return found


def _kept(folder: Path) -> dict[str, Any]:
    try:
        kept = read_json(folder / KEPT)
    except UserError:
        return {}
    whole = isinstance(kept, dict) and {"drawn_from", "figures", "files"} <= kept.keys()
    return kept if whole else {}


def _hash(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _fingerprint(numbers: Tidy, out: Path) -> str:
    records = [asdict(record) for record in numbers.group.records]
    for record in records:
        # when, where and how a run was asked for is in no figure
        told = ("preset", "split", "splits", "fingerprints", "pictures")
        record["facts"] = {k: record["facts"].get(k) for k in told}
    pictures = {node for record in records for node in (record["facts"]["pictures"] or {}).values()}
    there = sorted(str(node) for node in pictures if (out / "pictures" / str(node) / "done.json").is_file())
    rows = hashlib.sha256(repr(lasting(numbers.rows)).encode()).hexdigest()
    return digest([_code(), rows, repr(records), there], length=32)


@functools.cache
def _code() -> list[str]:
    import matplotlib

    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    return [matplotlib.__version__, *(file_digest(path) for path in sources)]


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
