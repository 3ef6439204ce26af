"""Tables III and IV of the other orders: views of rows that the report has already."""

from __future__ import annotations

from collections.abc import Sequence

from cliqa_bench.reports.measure import NOT_LEARNED, SETTINGS, SUMMARY
from cliqa_bench.reports.rows import TidyRow, is_design_choice, order_rank

MOST = 8
"""How many orders have tables; the paper has eight."""

TABLES_OF_ORDERS = ("III", "IV")


def order_of(number: str) -> tuple[str, str]:
    """Parts a table's number into that of the main order and the further order: ("IV", "II"); "" for none."""
    table, _, order = number.partition("_")
    return (table, order) if table in TABLES_OF_ORDERS else (number, "")


def further_orders(rows: Sequence[TidyRow]) -> list[str]:
    """Returns the orders beside the main one in which a method has all four numbers.

    Args:
        rows: All rows of a report.
    """
    main = {row.order for row in rows if row.table == "III"}
    known: dict[str, set[str]] = {}
    for row in rows:
        if row.table in ("V", "") and row.metric in SUMMARY:
            known.setdefault(row.order, set()).add(row.metric)
    whole = {order for order, found in known.items() if found == set(SUMMARY)}
    return sorted(whole - main, key=order_rank) if main else []


def further_tables(rows: Sequence[TidyRow]) -> dict[str, list[TidyRow]]:
    """Returns the rows of Tables III and IV for each further order, see `MOST`.

    Returns:
        Number of the table ("III_II", "IV_live,csiq") -> its rows, Table III of each order before Table IV.
    """
    found: dict[str, list[TidyRow]] = {}
    shown = further_orders(rows)[: MOST - 1]
    kept = [row for row in rows if row.table in ("V", "IV", "")] if shown else []
    for order in shown:
        own = [row for row in kept if row.order == order]
        default = {_line(row) for row in own if not row.variant}
        own = [r for r in own if not (is_design_choice(r) and _line(r) in default)]
        length = max(row.length for row in own if row.metric == "mPI" and isinstance(row.length, int))
        found[f"III_{order}"] = [row for row in own if row.metric in SUMMARY and row.length == length]
        found[f"IV_{order}"] = [*(row for row in own if _in_matrix(row)), *_joint(kept, own)]
    return {
        number: [row._replace(table=number) for row in _once(own)] for number, own in found.items() if own
    }


def _line(row: TidyRow) -> tuple[str, str, str]:
    return (row.setting, row.backbone, row.method)


def _in_matrix(row: TidyRow) -> bool:
    agnostic = row.setting in ("Task-Agnostic", "Joint", "Task-Agnostic, adapted")
    return row.metric == "SRCC" and agnostic and not row.note.startswith(NOT_LEARNED)


def _joint(rows: Sequence[TidyRow], own: Sequence[TidyRow]) -> list[TidyRow]:
    """Returns the rows of joint learning, where it has learned the same datasets as an order."""
    joint = [row for row in rows if row.table == "IV" and row.setting == "Joint"]
    learned = {row.train_dataset for row in own if _in_matrix(row)} - {"All"}
    return joint if {row.test_dataset for row in joint} == learned else []


def _once(rows: Sequence[TidyRow]) -> list[TidyRow]:
    """Takes each number once, as it may be in several tables of the paper; sorts them by setting."""
    found = {row._replace(table="", std=0.0, value=0.0): row for row in rows}
    return sorted(found.values(), key=lambda row: (row.setting == "Joint", SETTINGS.index(row.setting)))
