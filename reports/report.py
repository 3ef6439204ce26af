"""`report`: from the runs of an output folder to files for a paper, and a summary for the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliqa_bench.errors import UserError, unknown
from cliqa_bench.reports import render
from cliqa_bench.reports.gallery import FILES as FIGURES
from cliqa_bench.reports.gallery import draw_all
from cliqa_bench.reports.overview import overview, summary_text
from cliqa_bench.reports.parts import NUMBERS, collect, lasting, make_tables, rows_by_table
from cliqa_bench.reports.rows import GENERATED, Tidy, group_records
from cliqa_bench.store import AnswerReader, read_records, write_text

FORMATS = ("csv", "md", "tex")

# everything a report may consist of: what a former one left and this one does not write is taken away
_OWN = (
    "results.csv",
    "report.tex",
    "README.md",
    *(f"table_{number}.{kind}" for number in NUMBERS for kind in FORMATS),
    *FIGURES,
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
        numbers = collect(group, reader)
        result.files += _write(numbers, reader, folder, formats, figures)
        parts.append(summary_text(numbers, folder) if i == 0 else _other(numbers, folder))
    _remove_other(out / "report", {group.id for group in groups[1:]})
    result.summary = "\n".join(parts)
    return result


def _write(
    numbers: Tidy, reader: AnswerReader, folder: Path, formats: Sequence[str], figures: bool
) -> list[Path]:
    texts = {"results.csv": render.csv_text(lasting(numbers.rows))}
    tables, by_table = make_tables(numbers), rows_by_table(numbers.rows)
    for table in tables:
        if "csv" in formats:
            texts[f"{table.name}.csv"] = render.csv_text(by_table[table.number])
        if "md" in formats:
            texts[f"{table.name}.md"] = render.markdown(table)
        if "tex" in formats:
            texts[f"{table.name}.tex"] = render.latex(table)
    pictures = draw_all(numbers, reader, folder) if figures else []
    drawn = [path for picture in pictures for path in picture.files]
    if "tex" in formats:
        pages = [(path, p.caption) for p in pictures for path in p.files if path.suffix == ".pdf"]
        texts["report.tex"] = render.latex_document(tables, pages)
    texts["README.md"] = overview(numbers, tables, [*texts, *(path.name for path in drawn)])
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


def _other(numbers: Tidy, folder: Path) -> str:
    group, n = numbers.group, len(numbers.group.records)
    label = f" ({GENERATED})" if group.generated else ""
    head = f"not comparable with these, reported apart in {folder}: {n} runs, {group.description}{label}"
    return "\n".join([head, *numbers.notes])
