"""`report`: from the runs of an output folder to files for a paper, and a summary for the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliqa_bench.errors import UserError, unknown
from cliqa_bench.reports import render
from cliqa_bench.reports.figures import draw_psi, psi_caption
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.rows import GENERATED, SETTINGS, Row, Tidy, group_records, order_rank, tidy
from cliqa_bench.reports.style import FORMATS as FIGURE_FORMATS
from cliqa_bench.reports.tables import main_sequence, make_tables
from cliqa_bench.store import AnswerReader, read_records, write_text

FORMATS = ("csv", "md", "tex")

# everything a report may consist of: what a former one left and this one does not write is taken away
_OWN = (
    "results.csv",
    "report.tex",
    *(f"table_{number}.{kind}" for number in ("III", "IV", "V", "VI") for kind in FORMATS),
    *(f"fig_4.{kind}" for kind in FIGURE_FORMATS),
)


@dataclass
class ReportResult:
    """What `write_report` did.

    Attributes:
        summary: Text for the terminal, without a newline at its end.
        files: Every file written.
    """

    summary: str
    files: list[Path] = field(default_factory=list)


def write_report(out: Path, formats: Sequence[str] = FORMATS, figures: bool = True) -> ReportResult:
    """Writes tables and figures of all runs of an output folder to `<out>/report/`.

    Runs that cannot be compared (another preset, split, protocol, weights or data) are never put into one
    table: those of the newest run's kind are reported in `<out>/report/`, the others in sub-folders of it.

    Args:
        out: Folder of the results.
        formats: Which of "csv", "md" and "tex" to write; `results.csv` is always written.
        figures: Whether to draw the figures.

    Raises:
        UserError: If there are no runs, a file is broken, a format is unknown, or the folder is not writable.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise unknown("format", kind, FORMATS)
    out = Path(out)
    groups = group_records(read_records(out))
    reader = AnswerReader(out)
    result = ReportResult("")
    parts = []
    for i, group in enumerate(groups):
        folder = out / "report" / ("" if i == 0 else f"other-{group.id}")
        numbers = tidy(group, reader)
        files = _write(numbers, folder, formats, figures)
        result.files += files
        parts.append(summary_text(numbers, folder) if i == 0 else _other(numbers, folder))
    _remove_other(out / "report", {group.id for group in groups[1:]})
    result.summary = "\n".join(parts)
    return result


def _write(numbers: Tidy, folder: Path, formats: Sequence[str], figures: bool) -> list[Path]:
    texts = {"results.csv": render.csv_text(numbers.rows)}
    tables = make_tables(numbers)
    for table in tables:
        rows = [row for row in numbers.rows if row.table == table.number]
        if "csv" in formats:
            texts[f"{table.name}.csv"] = render.csv_text(rows)
        if "md" in formats:
            texts[f"{table.name}.md"] = render.markdown(table)
        if "tex" in formats:
            texts[f"{table.name}.tex"] = render.latex(table)
    curves = [row for row in numbers.rows if row.table == "Fig. 4"]
    drawn = draw_psi(curves, main_sequence(numbers.group), folder) if figures and curves else []
    if "tex" in formats:
        pictures = [(path, psi_caption(curves)) for path in drawn if path.suffix == ".pdf"]
        texts["report.tex"] = render.latex_document(tables, pictures)
    for name, text in texts.items():
        write_text(folder / name, text)
    written = [folder / name for name in texts] + drawn
    _remove_stale(folder, {path.name for path in written})
    return written


def _remove_other(folder: Path, kept: set[str]) -> None:
    """Removes the sub-folders of groups that are no longer reported apart; foreign files in them stay."""
    for other in folder.glob("other-*"):
        if other.is_dir() and other.name.removeprefix("other-") not in kept:
            _remove_stale(other, set())
            with contextlib.suppress(OSError):
                other.rmdir()


def _remove_stale(folder: Path, kept: set[str]) -> None:
    try:
        for name in set(_OWN) - kept:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove the old {error.filename}: {error.strerror}") from error


def summary_text(numbers: Tidy, folder: Path) -> str:
    """Returns the four summary numbers per order, setting and method, with what must be known about them."""
    several = len({row.backbone for row in numbers.rows}) > 1
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in numbers.rows:
        if row.metric in SUMMARY and row.table in ("V", "III", ""):
            method = row.method + (f" ({row.variant})" if row.variant else "")
            line = (row.order, method, row.setting, *([row.backbone] if several else []))
            known = found.setdefault(line, {})
            # mPSI stands in a row per length: the longest is the whole
            if row.metric not in known or int(row.length) >= int(known[row.metric].length):
                known[row.metric] = row
    heads = ["order", "method", "setting", *(["backbone"] if several else []), *SUMMARY]
    body = [
        [*line, *(render.number(found[line][metric].value) for metric in SUMMARY)]
        for line in sorted(found, key=lambda line: (order_rank(line[0]), SETTINGS.index(line[2]), line[1]))
    ]
    n = len(numbers.group.records)
    lines = [f"{n} {'run' if n == 1 else 'runs'} ({numbers.group.description})"]
    if numbers.group.generated:
        lines.append(GENERATED)
    if body:
        lines += ["", render.text_table(heads, body, left=len(heads) - len(SUMMARY)), ""]
    return "\n".join([*lines, *numbers.notes, f"tables and figures: {folder}"])


def _other(numbers: Tidy, folder: Path) -> str:
    group, n = numbers.group, len(numbers.group.records)
    label = f" ({GENERATED})" if group.generated else ""
    head = f"not comparable with these, reported apart in {folder}: {n} runs, {group.description}{label}"
    return "\n".join([head, *numbers.notes])
