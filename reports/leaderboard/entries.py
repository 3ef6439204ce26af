"""What a bundle adds to a leaderboard: its rows, computed from its answers, or why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cliqa_bench.errors import UserError
from cliqa_bench.reports.audit.bundle import unpacked
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.leaderboard.proofs import Proof, read_proofs
from cliqa_bench.reports.methods import label_of
from cliqa_bench.reports.page.explorer import summary_lines
from cliqa_bench.reports.rows import RunGroup, Tidy, TidyRow
from cliqa_bench.reports.tables.shapes import TableValue, value_of
from cliqa_bench.results.nodes import digest, file_digest
from cliqa_bench.results.records import RunRecord

_MAIN = "mSRCC"


class BoardRow(NamedTuple):
    """A method of a bundle, in one order.

    Attributes:
        table: Rows with the same one may be compared: the same data, split and protocol.
        bundle: Name of the bundle's file.
        method: Name of the row, with its variant.
        setting: "Task-Agnostic" or the like.
        backbone: The backbone and its weights.
        order: The task order, "" for joint learning.
        seeds: How many seeds.
        numbers: Metric of `SUMMARY` -> number; that of mSRCC has its interval.
    """

    table: str
    bundle: str
    method: str
    setting: str
    backbone: str
    order: str
    seeds: int
    numbers: dict[str, TableValue]


class BoardTable(NamedTuple):
    """Rows that may be compared.

    Attributes:
        id: Digest of data, split and protocol.
        title: Preset, data and split in a few words.
        precision: In which numbers were computed.
        datasets: Titles of the datasets, and eight digits of each fingerprint.
        caution: A warning that belongs to every number; "" for none.
    """

    id: str
    title: str
    precision: str
    datasets: dict[str, str]
    caution: str


@dataclass
class BoardEntry:
    """A bundle.

    Attributes:
        name: Name of its file.
        digest: SHA-256 of it.
        refused: Why it has no rows; "" if it has.
        rows: Its rows.
        tables: Id -> what the rows with it have in common.
        tests: Test set, with its fingerprint -> digest of the names of its images and their opinion scores.
        proofs: What came out when its nodes were trained again.
        notes: Further notes, one line each.
    """

    name: str
    digest: str = ""
    refused: str = ""
    rows: list[BoardRow] = field(default_factory=list)
    tables: dict[str, BoardTable] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_entry(path: Path) -> BoardEntry:
    """Checks a bundle as `verify` does, and computes its rows from its answers.

    No number that the bundle claims is shown: its `results.csv` is only compared with them.
    """
    entry = BoardEntry(path.name)
    try:
        entry.digest = file_digest(path)
        with unpacked(path) as folder:
            found = verify(folder)
            if found.problems:
                more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
                entry.refused = f"{found.problems[0]}{more}"
                return entry
            for numbers in found.numbers:
                _add_group(entry, numbers)
            entry.tests = {
                test: digest([keys.tolist(), mos.tolist()], 16) for test, (keys, mos) in found.tests.items()
            }
    except UserError as error:
        entry.refused = str(error)
        return entry
    except OSError as error:
        entry.refused = f"cannot be read: {error.strerror or error}"
        return entry
    entry.proofs, entry.notes = read_proofs(path)
    if broken := next((proof for proof in entry.proofs if not proof.holds), None):
        entry.rows.clear()
        entry.refused = (
            f"{broken.node} was trained again by {broken.who} and gave other answers: {broken.wrong}"
        )
    return entry


def _add_group(entry: BoardEntry, numbers: Tidy) -> None:
    ends = _intervals(numbers)
    by_order = summary_lines(numbers)
    for order, setting, found in ((*key, line) for key, lines in by_order.items() for line in lines.values()):
        first = next(iter(found.values()))
        runs = [r for r in numbers.group.finished if _is_of(r, first, numbers.group)]
        if not runs or all(numbers.group.unfinished.get(run.id) for run in runs):
            entry.notes.append(f"{label_of(first)} in order {order or 'of all datasets'} is not finished")
            continue
        table = _table(numbers.group, runs[0])
        entry.tables[table.id] = table
        values = {metric: value_of(row) for metric, row in found.items()}
        about = (setting, first.backbone, first.method, first.variant, order)
        if about in ends and _MAIN in values:
            low, high = ends[about]
            values[_MAIN] = values[_MAIN]._replace(low=low, high=high)
        weights = str(runs[0].facts.get("weights"))
        entry.rows.append(
            BoardRow(
                table.id,
                entry.name,
                label_of(first),
                setting,
                f"{first.backbone} ({weights:.24})",
                order,
                len({run.seed for run in runs}),
                values,
            )
        )


def _is_of(record: RunRecord, row: TidyRow, group: RunGroup) -> bool:
    same = (record.backbone, record.variant, group.order_of(record)) == (row.backbone, row.variant, row.order)
    return same and row.method in record.rows.values()


def _table(group: RunGroup, record: RunRecord) -> BoardTable:
    prints = {name: str((record.facts.get("fingerprints") or {}).get(name)) for name in record.sequence}
    data = {record.titles.get(name, name): prints[name][:8] for name in sorted(record.sequence)}
    training: dict[str, Any] = (record.facts.get("config") or {}).get("training") or {}
    return BoardTable(
        digest([group.key, prints], 8),
        f"preset {record.facts.get('preset', '?')}, {group.split}: {', '.join(data)}",
        str(training.get("precision", "?")),
        data,
        group.caution,
    )


def _intervals(numbers: Tidy) -> dict[tuple[str, str, str, str, str], tuple[float, float]]:
    """Returns the interval of each method's mSRCC in the main order."""
    found: dict[tuple[str, str, str, str, str], dict[str, float]] = {}
    for row in numbers.rows:
        if row.table == "intervals" and row.metric in (f"{_MAIN}: low", f"{_MAIN}: high"):
            key = (row.setting, row.backbone, row.method, row.variant, row.order)
            found.setdefault(key, {})[row.metric.rpartition(" ")[2]] = row.value
    return {key: (ends.get("low", math.nan), ends.get("high", math.nan)) for key, ends in found.items()}
