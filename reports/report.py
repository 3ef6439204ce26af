"""`report`: from the runs of an output folder to files for a paper, and a summary for the terminal."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliqa_bench.errors import UserError
from cliqa_bench.reports import describe_results, published, render
from cliqa_bench.reports.figures.gallery import FILES as FIGURES
from cliqa_bench.reports.figures.gallery import KEPT, draw_changed
from cliqa_bench.reports.formats import FORMATS, TABLE_FORMATS, check_formats
from cliqa_bench.reports.kept_report import keep, made_from
from cliqa_bench.reports.overview import fill_lines, overview, summary_text
from cliqa_bench.reports.page.html import html_report
from cliqa_bench.reports.parts import NUMBERS, collect, lasting, make_tables, rows_by_table
from cliqa_bench.reports.rows import ORDERS, Tidy, group_records
from cliqa_bench.reports.tables.shapes import Table
from cliqa_bench.results.nodes import CLAIMS, clean_partial, write_text
from cliqa_bench.results.records import AnswerReader, RunRecord, read_records
from cliqa_bench.system.locks import locked, sweep_locks

# everything that a report may have: what a former one left and this one does not write is removed
_OWN = (
    "results.csv",
    describe_results.FILE,
    "report.tex",
    "report.html",
    "README.md",
    *(f"table_{number}.{kind}" for number in NUMBERS for kind in TABLE_FORMATS),
    *FIGURES,
    KEPT,
)

# of a further order: II to VIII, or datasets in a line
_FURTHER = re.compile(rf"table_(III|IV)_(?:{'|'.join(ORDERS)}|.+-.+)\.(?:{'|'.join(TABLE_FORMATS)})")


@dataclass
class ReportResult:
    """What `write_report` did.

    Attributes:
        summary: Text for the terminal, without a newline at its end.
        files: Every file written.
    """

    summary: str
    files: list[Path] = field(default_factory=list)


def write_report(
    out: Path, formats: Sequence[str] = FORMATS, figures: bool = True, beside_published: bool = False
) -> ReportResult:
    """Writes tables and figures of all runs of an output folder to `<out>/report/`.

    Runs that cannot be compared (another preset, split, protocol, weights or data) are never put into one
    table: those of the newest run's kind are reported in `<out>/report/`, the others in sub-folders of it.

    Args:
        out: Folder of the results.
        formats: Which of "csv", "md", "tex" and "html" to write; `results.csv` is always written.
        figures: Whether to draw the figures.
        beside_published: Whether the paper's values are put beside ours in every table that the paper has.

    Raises:
        UserError: If there are no runs, a file is broken, a format is unknown, or the folder is not writable.
    """
    check_formats(formats)
    out = Path(out)
    read_records(out)  # where there are none, no folder is made
    with _alone(out):
        made = made_from(out, formats, figures)  # before it is read: what comes meanwhile is not in it
        result = _write_groups(out, read_records(out), formats, figures, beside_published)
        if not beside_published:
            keep(out, made, result.summary)
    return result


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lets one process at a time write a report, so that all its files are of one; clears what died there."""
    try:
        with locked(out / CLAIMS / "report.lock", f"that writes {out / 'report'}"):
            clean_partial(out)
            yield
    finally:
        sweep_locks(out / CLAIMS)


def _write_groups(
    out: Path, records: Sequence[RunRecord], formats: Sequence[str], figures: bool, beside_published: bool
) -> ReportResult:
    reader = AnswerReader(out)
    groups = group_records(records, reader)
    result = ReportResult("")
    parts = []
    for i, group in enumerate(groups):
        folder = out / "report" / ("" if i == 0 else f"other-{group.id}")
        numbers = collect(group, reader)
        drawn = _draw(numbers, reader, folder) if figures else []
        texts = _texts(numbers, formats, beside_published, drawn, out)
        result.files += _write(folder, texts, [path for path, _ in drawn], [KEPT] * figures)
        parts.append(summary_text(numbers, folder) if i == 0 else _other(numbers, folder))
    _remove_other(out / "report", {group.id for group in groups[1:]})
    if "html" in formats:
        parts.append(f"to open in a browser: {out / 'report' / 'report.html'}")
    result.summary = "\n".join(parts)
    return result


def write_published(out: Path, formats: Sequence[str] = TABLE_FORMATS) -> ReportResult:
    """Writes the published tables alone to `<out>/report/published/`; no runs are needed.

    Args:
        out: Folder of the results.
        formats: Which of "csv", "md" and "tex" to write; `results.csv` is always written.

    Raises:
        UserError: If a format is unknown or the folder is not writable.
    """
    check_formats(formats, TABLE_FORMATS)
    folder = Path(out) / "report" / "published"
    by_table = {number: published.read_published(number) for number in published.NUMBERS}
    texts = {"results.csv": render.csv_text(row for rows in by_table.values() for row in rows)}
    tables = published.published_tables()
    csvs = {number: render.csv_text(rows) for number, rows in by_table.items()}
    texts.update(_table_texts(tables, csvs, formats))
    if "tex" in formats:
        texts["report.tex"] = render.latex_document(tables, [])
    with _alone(Path(out)):
        files = _write(folder, texts, [])
    return ReportResult(f"{len(tables)} published tables ({published.SOURCE}): {folder}", files)


def _draw(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[tuple[Path, str]]:
    """Draws the figures; returns their files, each with its caption."""
    return [(path, drawn.caption) for drawn in draw_changed(numbers, reader, folder) for path in drawn.files]


def _texts(
    numbers: Tidy,
    formats: Sequence[str],
    beside_published: bool,
    drawn: Sequence[tuple[Path, str]],
    out: Path,
) -> dict[str, str]:
    """Returns the content of every file of a report except the figures, by name."""
    tables, by_table = make_tables(numbers), rows_by_table(numbers.rows)
    csvs = {number: render.csv_text(rows) for number, rows in by_table.items()}
    if beside_published:
        for i, table in enumerate(tables):
            if table.number in published.BESIDE:
                compared = published.compare(by_table[table.number])
                tables[i] = published.beside(table, compared)
                more = {"published": compared.paper, "difference": compared.less}
                columns = {name: [row.value for row in rows] for name, rows in more.items() if rows}
                csvs[table.number] = render.csv_text(compared.ours, columns)
    rows = lasting(numbers.rows)
    texts = {"results.csv": render.csv_text(rows), **_table_texts(tables, csvs, formats)}
    if "csv" in formats:
        described = describe_results.results_croissant(numbers, rows, texts["results.csv"])
        texts[describe_results.FILE] = described
    if "tex" in formats:
        pictures = [(path, caption) for path, caption in drawn if path.suffix == ".pdf"]
        texts["report.tex"] = render.latex_document(tables, pictures)
    if "html" in formats:
        pictures = [(path, caption) for path, caption in drawn if path.suffix == ".svg"]
        notes = [*numbers.notes, *fill_lines(numbers, out)]
        texts["report.html"] = html_report(numbers, tables, pictures, notes)
    texts["README.md"] = overview(numbers, tables, [*texts, *(path.name for path, _ in drawn)], out)
    return texts


def _table_texts(tables: Sequence[Table], csvs: Mapping[str, str], formats: Sequence[str]) -> dict[str, str]:
    texts = {}
    for table in tables:
        made = {"csv": csvs[table.number], "md": render.markdown(table), "tex": render.latex(table)}
        texts.update({f"{table.name}.{kind}": text for kind, text in made.items() if kind in formats})
    return texts


def _write(
    folder: Path, texts: Mapping[str, str], drawn: Sequence[Path], others: Sequence[str] = ()
) -> list[Path]:
    """Writes the files of a report, and removes those of a former one."""
    for name, text in texts.items():
        write_text(folder / name, text, lasting=False)  # after a loss of power it is made again in seconds
    written = [folder / name for name in texts] + list(drawn)
    _remove_stale(folder, {path.name for path in written} | set(others))
    return written


def _remove_other(folder: Path, kept: set[str]) -> None:
    """Removes the sub-folders of groups that are no longer reported separately; other files in them stay."""
    for other in folder.glob("other-*"):
        if other.is_dir() and other.name.removeprefix("other-") not in kept:
            _remove_stale(other, set())
            with contextlib.suppress(OSError):
                other.rmdir()


def _remove_stale(folder: Path, kept: set[str]) -> None:
    further = {path.name for path in folder.glob("table_*") if _FURTHER.fullmatch(path.name)}
    try:
        for name in {*_OWN, *further} - kept:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove the old {error.filename}: {error.strerror}") from error


def _other(numbers: Tidy, folder: Path) -> str:
    group, n = numbers.group, len(numbers.group.records)
    label = f" ({group.caution})" if group.caution else ""
    head = f"not comparable with these, reported separately in {folder}: {n} runs, {group.description}{label}"
    return "\n".join([head, *numbers.missing, *numbers.notes])
