"""What the tests of the HTML report share: runs to show, hostile names, and the numbers of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import recorded_runs as recorded

from cliqa_bench.reports.page.html import html_report
from cliqa_bench.reports.parts import collect, make_tables
from cliqa_bench.reports.rows import Tidy, TidyRow, group_records
from cliqa_bench.results.records import AnswerReader, read_records, write_record

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    '"onmouseover="alert(3)',
    "'><svg onload=alert(4)>",
    "</style></title></textarea><b>bold</b>",
    r"\input{/etc/passwd} {{ 7 * 7 }} ${alert(5)}",
    "=cmd()|' /C calc'!A0",
    "line\u2028separator, comma & ampersand",
]


def base(numbers: Tidy) -> list[TidyRow]:
    """Returns the rows from which the interactive part is made; further tables have the same metrics."""
    return [row for row in numbers.rows if row.table in ("III", "IV", "V", "VI", "Fig. 4", "")]


def numbers_of(out: Path) -> Tidy:
    reader = AnswerReader(out)
    return collect(group_records(read_records(out), reader)[0], reader)


def page_of(out: Path) -> str:
    numbers = numbers_of(out)
    return html_report(numbers, make_tables(numbers), notes=[*numbers.missing, *numbers.notes])


def record_for_html(out: Path) -> None:
    """Records the golden runs, some of them with what a real run tells of itself."""
    facts: dict[str, Any] = {
        "command": "python -m cliqa_bench run --orders all",
        "versions": {"numpy": "1.2.3"},
    }
    recorded.record_golden(out)
    for order in recorded.ORDERS:
        recorded.record_tsn(out, order, **facts, config={"seeds": [0, 1]})


def hostile_run(out: Path) -> None:
    """Records a run whose every name is hostile."""
    record = recorded.record_tsn(out, command=HOSTILE[0], versions={HOSTILE[1]: HOSTILE[2]}, split=HOSTILE[3])
    names = dict(zip(record.sequence, HOSTILE, strict=False))
    rows = dict(zip(record.rows, HOSTILE[4:], strict=True))
    write_record(out, replace(record, titles=names, rows=rows, backbone=HOSTILE[1], variant=HOSTILE[2]))
    (out / "runs" / f"{record.id}.json").unlink()
