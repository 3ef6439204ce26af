"""What the tests of the HTML report share: runs to show, hostile names, and the numbers of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as recorded
from reported import numbers_of

from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.reports.page.html import html_report
from cliqa_bench.reports.parts import make_tables
from cliqa_bench.reports.rows import Tidy, TidyRow
from cliqa_bench.reports.tables.further_orders import order_of
from cliqa_bench.reports.tables.shapes import Table
from cliqa_bench.results.records import Step, write_record

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


def tables_of_page(numbers: Tidy) -> list[Table]:
    """Returns the tables that the page has: those of further orders are in its explorer."""
    return [table for table in make_tables(numbers) if not order_of(table.number)[1]]


def page_of(out: Path) -> str:
    numbers = numbers_of(out)
    return html_report(numbers, make_tables(numbers), notes=numbers.notes)


def record_for_html(out: Path) -> None:
    """Records the golden runs, some of them with what a real run tells of itself."""
    facts: dict[str, Any] = {
        "command": "python -m cliqa_bench run --orders all",
        "versions": {"numpy": "1.2.3"},
    }
    recorded.record_golden(out)
    for order in recorded.ORDERS:
        recorded.record_tsn(out, order, **facts, config={"seeds": [0, 1]})


MANY = {
    "tsn": recorded.TSN_ROWS,
    **{
        name.lower().replace("-", ""): {"gate": f"{name}-KG", "oracle": f"{name}-O", "last": name}
        for name in ("LwF", "EWC", "SI", "MAS", "ER", "EMA", "MH-CL")
    },
    "sl": {"last": "SL"},
    "jl": {"last": "JL"},
}
"""Ten strategies and the methods they are read as."""


def record_many(out: Path) -> None:
    """Records ten strategies in the paper's eight orders of six datasets: 80 runs, 25 methods."""
    more = {"koniq10k": "KonIQ-10k", "kadid10k": "KADID-10k"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # of thousands of files
        for name, title in more.items():
            patch.setitem(recorded.TITLES, name, title)
        for order, sequence in ORDERS.items():
            for i, (strategy, rows) in enumerate(MANY.items()):
                _record_many(out, strategy, rows, order, list(sequence), 0.8 - 0.04 * i)


def _record_many(
    out: Path, strategy: str, rows: dict[str, str], order: str, sequence: list[str], skill: float
) -> None:
    """Records a strategy that keeps a network for each dataset, so that all orders share its answers."""
    gates = {} if "gate" not in rows else {name: f"gate-{name}" for name in sequence}
    learned = ["all"] if strategy == "jl" else sequence
    answers = {}
    for name in dict.fromkeys([*gates, *learned]):
        head, spec = f"{strategy}-{name}", {"dataset": name}
        skills = {test: skill if name in (test, "all") else skill / 2 for test in sequence}
        answers[head] = {
            t: recorded._answer(out, head, spec, t, skills[t], recorded.IMAGES) for t in sequence
        }
        if name in gates:
            answers[gates[name]] = {
                t: recorded._answer(out, gates[name], spec, t, None, recorded.IMAGES) for t in sequence
            }
    heads = [(f"{strategy}-{name}", 0) for name in learned]
    steps = [Step(name, heads[: t + 1]) for t, name in enumerate(learned)]
    if strategy in ("sl", "jl"):
        steps = [
            Step(sequence[-1] if name == "all" else name, [(f"{strategy}-{name}", 0)]) for name in learned
        ]
    facts: dict[str, Any] = {
        "command": "python -m cliqa_bench run --strategy all --orders all",
        "versions": {"numpy": "1.2.3"},
        "config": {"settings": list(range(60))},
    }
    recorded._record(out, strategy, rows, order, sequence, 0, True, facts, answers, gates, steps)


def hostile_run(out: Path) -> None:
    """Records a run whose every name is hostile."""
    record = recorded.record_tsn(out, command=HOSTILE[0], versions={HOSTILE[1]: HOSTILE[2]}, split=HOSTILE[3])
    names = dict(zip(record.sequence, HOSTILE, strict=False))
    rows = dict(zip(record.rows, HOSTILE[4:], strict=True))
    write_record(out, replace(record, titles=names, rows=rows, backbone=HOSTILE[1], variant=HOSTILE[2]))
    (out / "runs" / f"{record.id}.json").unlink()
