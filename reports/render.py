"""Tables as CSV, Markdown, LaTeX and plain text. Only here are numbers rounded."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
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
        writer.writerow(csv_cells(cells))
    return buffer.getvalue()


def csv_cells(cells: Iterable[object]) -> list[object]:
    """Returns what a row of a CSV file holds: "" for nan, and names that no spreadsheet computes."""
    return ["" if isinstance(x, float) and math.isnan(x) else csv_cell(x) for x in cells]


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


def table_md(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Returns the lines of a Markdown table.

    Args:
        heads: Titles of the columns.
        rows: Cells, as they are to be written, see `escape_md`.
        right: Numbers of the columns that are set flush right.
    """
    rule = "".join("---:|" if place in right else "---|" for place in range(len(heads)))
    return [_line_md(heads), f"|{rule}", *map(_line_md, rows)]


def _line_md(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(table: Table) -> str:
    """Returns a table as GitHub Markdown; results of future tasks are in italics, as there is no gray."""
    owners = [owner for owner, n in table.spans for _ in range(n)] or [""] * len(table.columns)
    heads = [f"{o} {c}".strip() for o, c in zip(owners, table.columns, strict=True)]
    corner = table.corner if table.labelled else table.corner[1:]
    titles, rows = [*map(escape_md, [*corner, *heads])], []
    for section in table.sections:
        for i, (name, values) in enumerate(section.rows):
            label = escape_md(section.label) if i == 0 else ""
            cells = [label, escape_md(name), *map(_markdown_value, values)]
            rows.append(cells[2 - len(corner) :])
    lines = [f"**{table.title}.** {escape_md(table.caption)}", ""]
    lines += table_md(titles, rows, right=range(len(corner), len(titles)))
    if any(v.gray for s in table.sections for _, values in s.rows for v in values):
        lines += ["", "Italics: results of future tasks (gray in the LaTeX table)."]
    return "\n".join(lines) + "\n"


def _markdown_value(value: TableValue) -> str:
    text = plain(value)
    if value.gray and text != DASH:
        text = f"*{text}*"
    return f"**{text}**" if value.bold else text


# --------------------------------------------------------------------------------------------------- LaTeX

# points between the margins of report.tex, and of a page of two columns in most journals
_TEX_LINE = 510.0
# letters in points, with the name of the size and how much wider they are for their height than those of ten:
# the largest that fits is used, and what needs smaller ones is parted
_TEX_SIZES = ((10, "normalsize", 1.0), (9, "small", 1.03), (8, "footnotesize", 1.07), (7, "scriptsize", 1.15))
_TEX_PARTED = (2, 3)
"""Which of these sizes a parted table may have; of equally many parts the larger letters are used."""
_TEX_GAP = 4.0
"""Points at each side of a column."""
_TEX_MOST = (130.0, 210.0)
"""Widest columns of section labels and of names, in points; what is longer is broken into lines."""

_ROWS_ON_PAGE = 36

# a picture that is wider than the text, or so high that its caption has no room, shrinks
_TEX_PICTURE = (
    "\\resizebox*{!}{\\ifdim\\totalheight>.8\\textheight .8\\textheight\\else\\totalheight\\fi}{"
    "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{\\includegraphics{%s}}}"
)

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
    """Returns a table as booktabs floats; needs the packages booktabs and xcolor.

    What is too long for a page, or too wide with letters of seven points, continues in further floats of the
    same number.
    """
    size, parts = _fitted(table)
    floats: list[str] = []
    for columns in parts:
        for sections in _pages(table, size):
            floats.append(_latex_float(table, sections, columns, size, bool(floats)))
    return "% needs \\usepackage{booktabs,xcolor}\n" + "\n".join(floats) + "\n"


def _ems(text: str) -> float:
    """Returns about how wide a text is in Computer Modern, rather too much, for a height of one."""
    wide = re.sub(r"-(?=\d)", "±", text)
    return sum(_EMS.get(c, 0.78 if c.isupper() else 0.56 if c.isascii() else 1.0) for c in wide)


_EMS = {
    **dict.fromkeys("0123456789/acegosz", 0.5), **dict.fromkeys(" ", 0.34),
    **dict.fromkeys(".,:;'!|ijl[]", 0.28), "I": 0.37,
    **dict.fromkeys("()frst-", 0.4), **dict.fromkeys("mwMW%#@", 1.03), **dict.fromkeys("±=+<>~^", 0.78),
}  # fmt: skip


def _points(texts: Iterable[tuple[str, bool]], size: int) -> float:
    """Returns about how wide a column of texts is, each bold or not, in letters of a size of `_TEX_SIZES`."""
    height, _, widened = _TEX_SIZES[size]
    ems = max((_ems(text) * (1.17 if bold else 1) for text, bold in texts), default=0.0)
    return ems * height * widened + 2 * _TEX_GAP


def _left_widths(table: Table, size: int) -> list[float]:
    """Returns the widths of the columns of labels, if there is one, and of names."""
    labels = [(text, False) for text in (table.corner[0], *(section.label for section in table.sections))]
    names = [(table.corner[1], False), (table.spans_title, False)]
    names += [(name, False) for section in table.sections for name, _ in section.rows]
    widths = [min(_points(t, size), most) for t, most in zip((labels, names), _TEX_MOST, strict=True)]
    return widths if table.labelled else widths[1:]


def _cells(table: Table, i: int) -> list[tuple[str, bool]]:
    """Returns the texts of a column of numbers, each with whether it is bold."""
    return [(plain(values[i]), values[i].bold) for section in table.sections for _, values in section.rows]


def _head_lines(head: str, cells: Iterable[tuple[str, bool]]) -> list[str]:
    """Breaks the head of a column into lines no wider than its cells, as far as its words allow."""
    room = max(map(_ems, [text for text, _ in cells] + head.split()), default=0.0)
    lines: list[str] = []
    for word in head.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _ems(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _latex_head(lines: Sequence[str]) -> str:
    text = "\\\\".join(map(escape_tex, lines))
    return text if len(lines) == 1 else f"\\shortstack[r]{{{text}}}"


def _column_widths(table: Table, size: int) -> list[float]:
    """Returns the widths of the columns of numbers; a name over several is shared among them."""
    widths = []
    for i, head in enumerate(table.columns):
        cells = _cells(table, i)
        lines = _head_lines(head, cells)
        widths.append(_points([*((line, False) for line in lines), *cells], size))
    start = 0
    for owner, n in table.spans:
        missing = _points([(owner, False)], size) - sum(widths[start : start + n])
        widths[start : start + n] = [width + max(0.0, missing / n) for width in widths[start : start + n]]
        start += n
    return widths


def _fitted(table: Table) -> tuple[int, list[list[int]]]:
    """Returns the size of the letters, an index of `_TEX_SIZES`, and the columns of each part of a table."""
    every = list(range(len(table.columns)))
    for size in range(len(_TEX_SIZES)):
        if sum(_left_widths(table, size)) + sum(_column_widths(table, size)) <= _TEX_LINE:
            return size, [every]
    return min(((size, _parted(table, size)) for size in _TEX_PARTED), key=lambda found: len(found[1]))


def _parted(table: Table, size: int) -> list[list[int]]:
    """Returns the columns of each part of a table, as even as possible."""
    room = _TEX_LINE - sum(_left_widths(table, size))
    widths = _column_widths(table, size)
    blocks = _blocks(table, widths, room)
    parts = _side_by_side(blocks, widths, room)
    # the least room that needs no further part
    tries = (room * share / 20 for share in range(1, 20))
    even = (made for less in tries if len(made := _side_by_side(blocks, widths, less)) == len(parts))
    return next(even, parts)


def _side_by_side(blocks: Sequence[list[int]], widths: Sequence[float], room: float) -> list[list[int]]:
    """Returns the columns of each part, filled one after the other."""
    parts: list[list[int]] = [[]]
    for block in blocks:
        if parts[-1] and sum(widths[i] for i in [*parts[-1], *block]) > room:
            parts.append([])
        parts[-1] += block
    return parts


def _blocks(table: Table, widths: Sequence[float], room: float) -> list[list[int]]:
    """Returns which columns stay side by side: those under one name, as far as a page holds them."""
    blocks, start = [], 0
    for _, n in table.spans or [("", 1)] * len(table.columns):
        block = list(range(start, start + n))
        blocks += [block] if sum(widths[i] for i in block) <= room else [[i] for i in block]
        start += n
    return blocks


def _lines(text: str, points: float, size: int) -> int:
    """Returns how many lines a text takes in a column, rather too many."""
    height, _, widened = _TEX_SIZES[size]
    return math.ceil(1.2 * _ems(text) * height * widened / points) if _is_long(text, points, size) else 1


def _is_long(text: str, points: float, size: int) -> bool:
    return _points([(text, False)], size) > points


def _pages(table: Table, size: int) -> list[list[Section]]:
    """Parts sections so that no page has more than `_ROWS_ON_PAGE` lines; longer ones are parted, too."""
    most = _TEX_MOST[1]
    pieces = []
    for section in table.sections:
        rows: list[tuple[str, list[TableValue]]] = []
        for row in section.rows:
            if rows and sum(_lines(name, most, size) for name, _ in [*rows, row]) > _ROWS_ON_PAGE:
                pieces.append(Section(section.label, rows))
                rows = []
            rows.append(row)
        pieces.append(Section(section.label, rows))
    pages: list[list[Section]] = [[]]
    for piece in pieces:
        names = [name for section in [*pages[-1], piece] for name, _ in section.rows]
        if pages[-1] and sum(_lines(name, most, size) for name in names) > _ROWS_ON_PAGE:
            pages.append([])
        pages[-1].append(piece)
    return pages


def _latex_float(
    table: Table, sections: Sequence[Section], columns: Sequence[int], size: int, continued: bool
) -> str:
    most = _TEX_MOST if table.labelled else _TEX_MOST[1:]
    corner = table.corner if table.labelled else table.corner[1:]
    left = "".join(
        f"p{{{limit - 2 * _TEX_GAP:g}pt}}" if width >= limit else "l"
        for width, limit in zip(_left_widths(table, size), most, strict=True)
    )
    lines = ["\\begin{table}[htbp]", "\\centering"]
    if continued:
        lines += ["\\addtocounter{table}{-1}", "\\caption{(continued)}"]
    else:
        lines += [
            f"\\caption{{{escape_tex(table.caption)}}}",
            f"\\label{{{table.name.replace('table_', 'tab:', 1)}}}",
        ]
    lines += [
        f"\\{_TEX_SIZES[size][1]}\\setlength{{\\tabcolsep}}{{{_TEX_GAP:g}pt}}",
        f"\\begin{{tabular}}{{@{{}}{left}{'r' * len(columns)}@{{}}}}",
        "\\toprule",
    ]
    if table.spans:
        lines += _latex_spans(table, columns)
    heads = [_latex_head(_head_lines(table.columns[i], _cells(table, i))) for i in columns]
    lines.append(" & ".join([*map(escape_tex, corner), *heads]) + " \\\\")
    for section in sections:
        lines.append("\\midrule")
        for i, (name, values) in enumerate(section.rows):
            names = [section.label if i == 0 else "", name][2 - len(corner) :]
            cells = [_latex_name(text, limit, size) for text, limit in zip(names, most, strict=True)]
            lines.append(" & ".join([*cells, *(_latex_value(values[k]) for k in columns)]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


def _latex_name(text: str, most: float, size: int) -> str:
    """Returns a name, which may be broken into lines where it is longer than its column may be wide."""
    if not _is_long(text, most, size):
        return escape_tex(text)
    words = [re.findall(".{1,12}", word) for word in one_line(text).split()]
    return "\\raggedright " + " ".join("\\allowbreak{}".join(map(escape_tex, word)) for word in words)


def _latex_spans(table: Table, columns: Sequence[int]) -> list[str]:
    left = 2 if table.labelled else 1
    cells, rules, start, first = [*[""] * (left - 1), escape_tex(table.spans_title)], [], left + 1, 0
    for owner, n in table.spans:
        here = len(set(columns) & set(range(first, first + n)))
        first += n
        if not here:
            continue
        cells.append(f"\\multicolumn{{{here}}}{{c}}{{{escape_tex(owner)}}}")
        if owner:
            rules.append(f"\\cmidrule(lr){{{start}-{start + here - 1}}}")
        start += here
    return [" & ".join(cells) + " \\\\", "".join(rules)]


def _latex_value(value: TableValue) -> str:
    text = re.sub(r"-(?=\d)", "$-$", escape_tex(plain(value)))
    if value.bold:
        text = f"\\textbf{{{text}}}"
    return f"\\textcolor{{gray}}{{{text}}}" if value.gray else text


def latex_document(tables: Sequence[Table], figures: Sequence[tuple[Path, str]]) -> str:
    """Returns `report.tex`: a document that takes in all tables and figures and compiles as it is.

    Args:
        tables: The tables, whose files are beside it; the paper's come first.
        figures: Files beside it, each with its caption.
    """
    lines = [
        "\\documentclass{article}",
        "\\usepackage[utf8]{inputenc}",
        "\\usepackage[T1]{fontenc}",
        "\\IfFileExists{lmodern.sty}{\\usepackage{lmodern}}{}",
        "\\usepackage[margin=1.5cm]{geometry}",
        "\\usepackage{booktabs,graphicx,xcolor}",
        "\\extrafloats{500}\\maxdeadcycles=1000",  # there are only floats
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
            _TEX_PICTURE % path.name,
            f"\\caption{{{escape_tex(caption)}}}",
            "\\end{figure}",
        ]
    return "\n".join([*lines, "\\end{document}"]) + "\n"
