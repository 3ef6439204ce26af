"""A report as one HTML file that needs nothing else: no network, no server, and no script for its tables."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from cliqa_bench.reports import render
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import label_of
from cliqa_bench.reports.page.explorer import base_rows, explorer, readouts, summary_lines, to_json
from cliqa_bench.reports.page.formulas import FORMULAS
from cliqa_bench.reports.page.shell import TEMPLATES as _TEMPLATES
from cliqa_bench.reports.page.shell import shell
from cliqa_bench.reports.parts import lasting, rows_by_table, what_it_shows
from cliqa_bench.reports.rows import RunGroup, Tidy, TidyRow, order_rank
from cliqa_bench.reports.spread import ranges
from cliqa_bench.reports.tables.further_orders import order_of
from cliqa_bench.reports.tables.shapes import Section, Table, TableValue, section, value_of
from cliqa_bench.results.nodes import canonical
from cliqa_bench.results.records import RunRecord
from cliqa_bench.terminal import as_sentence

_SCRIPTS = ("page.js", "exports.js", "tables.js", "charts.js", "explorer.js")
_COMMAND = "python -m cliqa_bench "
# what a data: URI in double quotes may contain as it is; quotes, ampersands and the like are spelled %XX
_PLAIN = " '/,:;=()+-_.~!*@<>[]{}|^?$"
# of a printed page: its width and the letters' heights in points, and in ems a letter and the space of a cell
_PAPER, _LARGEST, _SMALLEST, _EM, _GAP = 770, 9, 4, 0.62, 0.8
_TOLD = ("preset", "split", "device", "weights")


class PageSummary(NamedTuple):
    """Methods that are compared with each other: a task order, a setting, a line per method.

    Attributes:
        order: Name of the task order, "" for joint learning.
        setting: As in the paper.
        origin: Backbone and readout of each row.
        section: A row per method, a column per metric of `SUMMARY`.
    """

    order: str
    setting: str
    origin: list[tuple[str, str]]
    section: Section


@dataclass
class Origin:
    """Where runs come from: everything of a run that others may have in common with it.

    Attributes:
        runs: The runs.
        command: The command line that would do it again, "" where none was recorded.
        facts: What else was recorded in a word ("preset", "split", "device", "weights").
        versions: Package -> version.
        config: The resolved configuration as JSON, "" where none was recorded.
    """

    runs: list[RunRecord]
    command: str
    facts: dict[str, str]
    versions: dict[str, str]
    config: str


def html_report(
    numbers: Tidy,
    tables: Sequence[Table],
    figures: Sequence[tuple[Path, str]] = (),
    notes: Sequence[str] = (),
) -> str:
    """Returns a report as HTML; the same numbers give the same text.

    Args:
        numbers: The tidy rows of comparable runs: what can be explored and downloaded.
        tables: Tables to show, in this order.
        figures: SVG files to take in, each with its caption.
        notes: One line each: what is missing, and the command that fills it.

    Raises:
        OSError: If a figure cannot be read.
    """
    page = shell([_TEMPLATES / name for name in _SCRIPTS])
    page.environment.filters.update(
        split_command=_split_command, what_it_shows=what_it_shows, print_size=_print_size
    )
    group = numbers.group
    once = _said_once(group)
    # of further orders the explorer has all that their tables say, and eight times the bytes are too many
    tables = [table for table in tables if not order_of(table.number)[1]]
    return page.environment.get_template("report.html").render(
        style=page.style,
        script=page.script,
        policy=page.policy,
        data=_packed(to_json(explorer(numbers))),
        group=group,
        splits=bool(group.splits),
        generated=group.caution,
        facts=_facts(numbers),
        metrics=SUMMARY,
        summary=_summary(numbers),
        several_backbones=len({r.backbone for r in group.records}) > 1,
        tables=[replace(table, caption=once(table.caption)) for table in tables],
        figures=[(path.stem, _svg_uri(path), once(caption)) for path, caption in figures],
        missing=numbers.missing,
        notes=notes,
        origins=_origins(group.records),
        downloads=_downloads(numbers.rows),
        formulas=FORMULAS,
    )


def _said_once(group: RunGroup) -> Callable[[str], str]:
    """Returns a function that removes from a caption the sentences at the head of the page."""
    sentences = [f" {as_sentence(text)}" for text in (group.description, group.caution) if text]

    def shortened(caption: str) -> str:
        for sentence in sentences:
            caption = caption.replace(sentence, "")
        return caption

    return shortened


def _packed(text: str) -> str:
    """Compresses a text that only the script of the page reads."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _print_size(table: Table) -> int:
    """Returns how many points high the letters of a table may be, so that it fits on a printed page."""
    labels = [name for section in table.sections for name, _ in section.rows]
    columns = zip(*(values for section in table.sections for _, values in section.rows), strict=True)
    widths = [max(map(len, [*labels, table.corner[1]]))]
    for head, values in zip(table.columns, columns, strict=True):
        widths.append(max([len(render.plain(value)) for value in values] + list(map(len, head.split()))))
    ems = sum(_EM * width + _GAP for width in widths)
    return max(_SMALLEST, min(_LARGEST, math.floor(_PAPER / ems)))


def _split_command(note: str) -> tuple[str, str]:
    """Splits a note from the command it ends with, which is "" if there is none."""
    text, command, rest = note.partition(_COMMAND)
    return text, command + rest


def _svg_uri(path: Path) -> Markup:
    """A picture, unlike an svg element, runs no scripts."""
    return Markup("data:image/svg+xml," + quote(path.read_bytes(), safe=_PLAIN))


def _facts(numbers: Tidy) -> dict[str, str]:
    """Returns the head of the page: what was compared."""
    records = numbers.group.records
    methods = {label_of(row) for row in base_rows(numbers)}
    return {
        "Runs": str(len(records)),
        "Methods": str(len(methods)),
        "Task orders": _some(sorted({r.order for r in records}, key=order_rank)),
        "Backbones": _some(sorted({r.backbone for r in records})),
        "Seeds": _some([str(seed) for seed in sorted({r.seed for r in records})]),
        **({"Splits": ranges(numbers.group.splits)} if numbers.group.splits else {}),
    }


def _some(names: Sequence[str], most: int = 8) -> str:
    """Returns names in a line; sequences that are their own name, or very many, only by their number."""
    line, lists = ", ".join(names), any("," in name for name in names)
    return line if len(names) == 1 or (len(names) <= most and not lists) else str(len(names))


def _summary(numbers: Tidy) -> list[PageSummary]:
    """Returns the four numbers of every method; of joint learning, which has no sequence, only mSRCC."""
    found = summary_lines(numbers)
    read_by = readouts(numbers.group.records)
    blocks = []
    # joint learning belongs to all orders and comes last
    for order, setting in sorted(found, key=lambda key: (not key[0], order_rank(key[0]), key[1])):
        lines = found[order, setting]
        names = [label_of(next(iter(line.values()))) for line in lines.values()]
        columns = [
            [value_of(line[metric]) if metric in line else TableValue() for line in lines.values()]
            for metric in SUMMARY
        ]
        origin = [(line[0], read_by.get(line, "")) for line in lines]
        blocks.append(PageSummary(order, setting, origin, section(setting, names, columns)))
    return blocks


def _origins(records: Sequence[RunRecord]) -> list[Origin]:
    """Groups runs that were made by the same command with the same packages."""
    origins: dict[str, Origin] = {}
    for record in records:
        facts = record.facts
        told = {name: str(facts[name]) for name in _TOLD if facts.get(name) is not None}
        if record.split_number:  # the runs of a command are listed together; their split is a column
            told.pop("split", None)
        versions: dict[str, Any] = facts.get("versions") or {}
        command, config = str(facts.get("command") or ""), facts.get("config")
        key = canonical([told, versions, command, config])
        if key not in origins:
            text = json.dumps(config, indent=2, ensure_ascii=False) if config else ""
            origins[key] = Origin([], command, told, {k: str(v) for k, v in versions.items()}, text)
        origins[key].runs.append(record)
    return list(origins.values())


def _downloads(rows: list[TidyRow]) -> dict[str, str]:
    """Returns the name of a file -> its content as a data: URI; what is measured has a file of its own.

    The file of any other table is made by the script: it is those rows of `results.csv`.
    """
    packed = _packed(render.csv_text(lasting(rows)))
    files = {"results.csv.gz": f"data:application/gzip;base64,{packed}"}
    for number, own in rows_by_table(rows).items():
        if not lasting(own):
            text = quote(render.csv_text(own), safe=_PLAIN)
            files[f"table_{number}.csv"] = f"data:text/csv;charset=utf-8,{text}"
    return files
