"""A report at a glance: the terminal's summary, and the README of its folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cliqa_bench.reports import render
from cliqa_bench.reports.measure import SETTINGS, SUMMARY
from cliqa_bench.reports.methods import label_of
from cliqa_bench.reports.parts import ReportPart, empty_parts, what_it_shows
from cliqa_bench.reports.rows import ORDERS, RunGroup, Tidy, TidyRow, order_rank
from cliqa_bench.reports.tables.shapes import Table, TableValue, table_title, value_of
from cliqa_bench.terminal import as_sentence, text_table

_BOLD = (
    "Bold in a table is the best number of its section. Where the best are equal as printed, none is bold; "
    "results of future tasks never are."
)
_OverviewLine = tuple[str, ...]
_Summaries = dict[_OverviewLine, dict[str, TidyRow]]

MOST_ORDERS, FEW_ORDERS = 24, 8
"""Orders that the terminal shows one by one, and how many of more if the paper's are not among them."""


def summary_text(numbers: Tidy, folder: Path) -> str:
    """Returns the four summary numbers per order, setting and method, with what must be known about them.

    Of joint learning, which has no sequence, there is mSRCC alone.

    Args:
        numbers: The numbers of comparable runs.
        folder: Where tables and figures are.
    """
    found, left_out = _shown_orders(_summaries(numbers))
    several = len({row.backbone for row in numbers.rows}) > 1
    heads = ["order", "method", "setting", *(["backbone"] if several else []), *SUMMARY]
    body = [[*line, *(_shown(found[line].get(m)) for m in SUMMARY)] for line in found]
    lines = [f"{_runs(numbers.group)} ({numbers.group.description})"]
    if numbers.group.caution:
        lines.append(numbers.group.caution)
    if any(row.median is not None for row in numbers.rows):
        lines.append("over the splits: mean ± standard deviation (median)")
    lines += numbers.missing
    if body:
        lines += ["", text_table(body, heads, right=range(len(heads) - len(SUMMARY), len(heads))), ""]
    if left_out:
        lines.append(f"and {left_out} further orders; table_orders sums them up, results.csv has each")
    if empty := ", ".join(table_title(part.number).removeprefix("Table ") for part in empty_parts(numbers)):
        lines.append(f"nothing to show yet: {empty}; {folder / 'README.md'} names the runs that fill them")
    return "\n".join([*lines, *numbers.notes, f"tables and figures: {folder}"])


def _runs(group: RunGroup) -> str:
    """Returns how many runs there are: "1 run", "9 runs, 2 of them unfinished"."""
    n, less = len(group.records), len(group.unfinished)
    return f"{n} {'run' if n == 1 else 'runs'}" + (f", {less} of them unfinished" if less else "")


def _shown(row: TidyRow | None) -> str:
    return render.plain(TableValue() if row is None else value_of(row, spread=False))


def _shown_orders(found: _Summaries) -> tuple[_Summaries, int]:
    """Returns what the terminal shows, of many orders the paper's or else a few; and how many it does not."""
    orders = [order for order in dict.fromkeys(line[0] for line in found) if order]
    if len(orders) <= MOST_ORDERS:
        return found, 0
    shown = [order for order in orders if order in ORDERS] or orders[:FEW_ORDERS]
    return {line: found[line] for line in found if line[0] in ("", *shown)}, len(orders) - len(shown)


def _summaries(numbers: Tidy) -> _Summaries:
    """Sorts the summary numbers by what comes before them: order, method, setting (and backbone)."""
    several = len({row.backbone for row in numbers.rows}) > 1
    found: _Summaries = {}
    for row in numbers.rows:
        if row.metric in SUMMARY and row.table in ("V", "III", "") and numbers.group.is_whole(row):
            line = (row.order, label_of(row), row.setting, *([row.backbone] if several else []))
            found.setdefault(line, {})[row.metric] = row

    def rank(line: _OverviewLine) -> tuple[object, ...]:
        return (order_rank(line[0]) if line[0] else (-1, ""), SETTINGS.index(line[2]), *line[1:])

    return {line: found[line] for line in sorted(found, key=rank)}


def fill_lines(numbers: Tidy, out: Path) -> list[str]:
    """Returns a line for each table that has nothing to show, with the command that fills it.

    Args:
        numbers: The numbers of comparable runs.
        out: Folder of the results.
    """
    return [
        f"{table_title(part.number)} ({part.title}): nothing to show; "
        f"to fill it: {_command(part, numbers.group, out)}"
        for part in empty_parts(numbers)
    ]


def _command(part: ReportPart, group: RunGroup, out: Path) -> str:
    """Returns the part's command with the data of the runs there are."""
    data = (group.records[0].facts.get("config") or {}).get("data")
    known = {"--data": data, "--out": out}
    return " ".join([part.fill, *(f"{flag} {shlex.quote(str(v))}" for flag, v in known.items() if v)])


def overview(numbers: Tidy, tables: Sequence[Table], files: Sequence[str], out: Path) -> str:
    """Returns the README of a report's folder: what is there, what is not, and what would fill it.

    Args:
        numbers: The numbers of comparable runs.
        tables: The tables of the report.
        files: Names of the files beside it; tables in Markdown are linked and pictures shown.
        out: Folder of the results.
    """
    group = numbers.group
    lines = ["# Report", "", f"{_runs(group)}, {group.description}."]
    if group.caution:
        lines += ["", as_sentence(group.caution)]
    if numbers.missing:
        lines += ["", *map(_markdown_note, numbers.missing)]
    lines += ["", "`results.csv` holds every number, unrounded.", "", _BOLD, ""]
    if "report.html" in files:
        lines += ["[report.html](report.html) shows all of it in a browser, to sort and to explore.", ""]
    for table in tables:
        file = f"{table.name}.md"
        title = f"[{table.title}]({file})" if file in files else table.title
        lines.append(f"- {title}: {what_it_shows(table.number)}")
    for picture in (name for name in files if name.endswith(".png")):
        lines += ["", f"![{picture.removesuffix('.png')}]({picture})"]
    notes = [*numbers.notes, *fill_lines(numbers, out)]
    if notes:
        lines += ["", "## Notes", "", *map(_markdown_note, notes)]
    return "\n".join(lines) + "\n"


def _markdown_note(note: str) -> str:
    """A line of a list; the command at its end is code, to be copied as it is."""
    text, command, rest = note.partition("python -m cliqa_bench")
    return f"- {render.escape_md(text)}" + (f" `{command}{rest}`" if command else "")
