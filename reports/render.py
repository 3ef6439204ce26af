"""Tables as CSV, Markdown, LaTeX and plain text. Only here are numbers rounded."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cliqa_bench.errors import one_line
from cliqa_bench.reports.rows import TidyRow, columns_of
from cliqa_bench.reports.tables.shapes import DIGITS, Section, Table, TableValue
from cliqa_bench.results.nodes import csv_cell

DASH = "—"
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII")


def csv_text(rows: Iterable[TidyRow], more: Mapping[str, Sequence[float]] | None = None) -> str:
    """Returns tidy rows as CSV, unrounded (the shortest digits that give the same float64 back).

    Where a number is undefined, the row is there and its value is empty. See `csv_cell` for names that a
    spreadsheet would take for formulas.

    Args:
        rows: The rows.
        more: Further columns, a number for each row.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    more, rows = more or {}, list(rows)
    columns = columns_of(rows)
    writer.writerow([*columns, *more])
    for i, row in enumerate(rows):
        cells = [*row[: len(columns)], *(column[i] for column in more.values())]
        writer.writerow("" if isinstance(x, float) and math.isnan(x) else csv_cell(x) for x in cells)
    return buffer.getvalue()


def number(value: float, digits: int = DIGITS) -> str:
    """Returns a number as printed ("0.816", "98,304"), a dash for nan; there is no minus zero."""
    return f"{round(value, digits) + 0.0:,.{digits}f}" if math.isfinite(value) else DASH


def plain(value: TableValue) -> str:
    """Returns a value as printed, with its spread, its median and its interval where it has them."""
    text = number(value.mean, value.digits)
    if math.isfinite(value.std):
        text += f" ± {number(value.std, value.digits)}"
    if math.isfinite(value.median):
        text += f" ({number(value.median, value.digits)})"
    if math.isfinite(value.low):
        text += f" [{number(value.low, value.digits)}, {number(value.high, value.digits)}]"
    return text


# ------------------------------------------------------------------------------------------------ Markdown


def escape_md(text: str) -> str:
    """Makes a name harmless in a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def markdown(table: Table) -> str:
    """Returns a table as GitHub Markdown; results of future tasks are in italics, as there is no gray."""
    owners = [owner for owner, n in table.spans for _ in range(n)] or [""] * len(table.columns)
    heads = [f"{o} {c}".strip() for o, c in zip(owners, table.columns, strict=True)]
    corner = table.corner if table.labelled else table.corner[1:]
    lines = [
        f"**{table.title}.** {escape_md(table.caption)}",
        "",
        "| " + " | ".join(map(escape_md, [*corner, *heads])) + " |",
        "|" + "---|" * len(corner) + "---:|" * len(heads),
    ]
    for section in table.sections:
        for i, (name, values) in enumerate(section.rows):
            label = escape_md(section.label) if i == 0 else ""
            cells = [label, escape_md(name), *map(_markdown_value, values)]
            lines.append("| " + " | ".join(cells[2 - len(corner) :]) + " |")
    if any(v.gray for s in table.sections for _, values in s.rows for v in values):
        lines += ["", "Italics: results of future tasks (gray in the LaTeX table)."]
    return "\n".join(lines) + "\n"


def _markdown_value(value: TableValue) -> str:
    text = plain(value)
    if value.gray and text != DASH:
        text = f"*{text}*"
    return f"**{text}**" if value.bold else text


# --------------------------------------------------------------------------------------------------- LaTeX

# what is wider than the text shrinks to it, what is narrower keeps its size
_TEX_FIT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}"

_ROWS_ON_PAGE = 40

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    DASH: "---",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: f"\\{c}" for c in "&%$#_"},
}


def escape_tex(text: str) -> str:
    """Makes a name harmless in LaTeX; letters of other scripts are left to the engine."""
    return "".join(_TEX.get(c, c) for c in " ".join(one_line(text).split()))


def latex(table: Table) -> str:
    """Returns a table as a booktabs float; needs the packages booktabs, graphicx and xcolor.

    What is too long for a page goes on in further floats of the same number.
    """
    floats = [_latex_float(table, sections, i > 0) for i, sections in enumerate(_pages(table.sections))]
    return "% needs \\usepackage{booktabs,graphicx,xcolor}\n" + "\n".join(floats) + "\n"


def _pages(sections: Sequence[Section]) -> list[list[Section]]:
    """Parts sections so that no page has more than `_ROWS_ON_PAGE` rows; longer ones are parted, too."""
    pages: list[list[Section]] = [[]]
    starts = ((s, i) for s in sections for i in range(0, len(s.rows), _ROWS_ON_PAGE))
    for section in (Section(s.label, s.rows[i : i + _ROWS_ON_PAGE]) for s, i in starts):
        if pages[-1] and sum(len(s.rows) for s in [*pages[-1], section]) > _ROWS_ON_PAGE:
            pages.append([])
        pages[-1].append(section)
    return pages


def _latex_float(table: Table, sections: Sequence[Section], goes_on: bool) -> str:
    corner = table.corner if table.labelled else table.corner[1:]
    heads = [escape_tex(c) for c in [*corner, *table.columns]]
    lines = ["\\begin{table}[htbp]", "\\centering"]
    if goes_on:
        lines += ["\\addtocounter{table}{-1}", "\\caption{(continued)}"]
    else:
        lines += [
            f"\\caption{{{escape_tex(table.caption)}}}",
            f"\\label{{{table.name.replace('table_', 'tab:', 1)}}}",
        ]
    lines += [
        _TEX_FIT + "{%",
        f"\\begin{{tabular}}{{{'l' * len(corner)}{'r' * len(table.columns)}}}",
        "\\toprule",
    ]
    if table.spans:
        lines += _latex_spans(table)
    lines.append(" & ".join(heads) + " \\\\")
    for section in sections:
        lines.append("\\midrule")
        for i, (name, values) in enumerate(section.rows):
            label = escape_tex(section.label) if i == 0 else ""
            cells = [label, escape_tex(name), *map(_latex_value, values)]
            lines.append(" & ".join(cells[2 - len(corner) :]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table}"])


def _latex_spans(table: Table) -> list[str]:
    left = 2 if table.labelled else 1
    cells, rules, start = [*[""] * (left - 1), escape_tex(table.spans_title)], [], left + 1
    for owner, n in table.spans:
        cells.append(f"\\multicolumn{{{n}}}{{c}}{{{escape_tex(owner)}}}")
        if owner:
            rules.append(f"\\cmidrule(lr){{{start}-{start + n - 1}}}")
        start += n
    return [" & ".join(cells) + " \\\\", "".join(rules)]


def _latex_value(value: TableValue) -> str:
    text = re.sub(r"-(?=\d)", "$-$", escape_tex(plain(value)))
    if value.bold:
        text = f"\\textbf{{{text}}}"
    return f"\\textcolor{{gray}}{{{text}}}" if value.gray else text


def latex_document(tables: Sequence[Table], figures: Sequence[tuple[Path, str]]) -> str:
    """Returns `report.tex`: a document that takes in all tables and figures and compiles as it is.

    Args:
        tables: The tables, whose files lie beside it; the paper's come first.
        figures: Files beside it, each with its caption.
    """
    lines = [
        "\\documentclass{article}",
        "\\usepackage[utf8]{inputenc}",
        "\\usepackage[T1]{fontenc}",
        "\\IfFileExists{lmodern.sty}{\\usepackage{lmodern}}{}",
        "\\usepackage[margin=2cm]{geometry}",
        "\\usepackage{booktabs,graphicx,xcolor}",
        "\\begin{document}",
        "\\setlength{\\belowcaptionskip}{6pt}",
        "\\renewcommand{\\thetable}{\\Roman{table}}",  # the paper's numbers
    ]
    supplement = False
    for table in tables:
        if table.number in _ROMAN:
            lines.append(f"\\setcounter{{table}}{{{_ROMAN.index(table.number)}}}")
        elif not supplement:
            supplement = True
            lines += ["\\renewcommand{\\thetable}{S\\arabic{table}}", "\\setcounter{table}{0}"]
        lines.append(f"\\input{{{table.name}}}")
    for path, caption in figures:
        lines += [
            "\\begin{figure}[htbp]",
            "\\centering",
            f"{_TEX_FIT}{{\\includegraphics{{{path.name}}}}}",
            f"\\caption{{{escape_tex(caption)}}}",
            "\\end{figure}",
        ]
    return "\n".join([*lines, "\\end{document}"]) + "\n"
