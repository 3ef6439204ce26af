"""Bundles in, a page out: sortable tables of everything that is comparable; it needs no server."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cliqa_bench._version import __version__
from cliqa_bench.errors import UserError
from cliqa_bench.progress import say
from cliqa_bench.reports.leaderboard.entries import BoardEntry, BoardRow, BoardTable, read_entry
from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import label_of
from cliqa_bench.reports.page.shell import TEMPLATES, shell
from cliqa_bench.reports.published import read_published
from cliqa_bench.reports.render import csv_cells, number, plain
from cliqa_bench.reports.rows import order_rank
from cliqa_bench.reports.tables.shapes import TableValue
from cliqa_bench.results.nodes import write_text
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.processes import processes
from cliqa_bench.terminal import plural

_HERE = Path(__file__).parent / "templates"
_SCRIPTS = (*(TEMPLATES / name for name in ("page.js", "exports.js", "tables.js")), _HERE / "board.js")
_COLUMNS = (
    "table", "bundle", "method", "setting", "backbone", "order", "seeds", "metric", "value", "std", "low",
    "high", "proofs",
)  # fmt: skip
_PUBLISHED = ("mSRCC", "mPI", "mSI", "mPSI")


class Built(NamedTuple):
    """A leaderboard that was built.

    Attributes:
        page: The page.
        entries: Every bundle, in the order of the files' names.
    """

    page: Path
    entries: list[BoardEntry]

    @property
    def refused(self) -> list[BoardEntry]:
        """The bundles that have no rows."""
        return [entry for entry in self.entries if entry.refused]


def build_site(folder: Path, to: Path, jobs: int | None = None) -> Built:
    """Builds the page `index.html`, and `leaderboard.csv` with every number unrounded.

    Each bundle is checked as `verify` does, and its numbers are computed from its answers; one that fails is
    listed with its reason. Of bundles whose images or opinion scores differ under one fingerprint, those are
    refused that disagree with the proved ones, or with most if none is proved; with no majority, all are.

    Args:
        folder: Holds the bundles, `*.zip`, and beside them their proofs.
        to: Where the page goes; files of other names stay.
        jobs: Processes that check bundles side by side; by default as many as cores.

    Raises:
        UserError: If there is not a bundle, or a file cannot be written.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give the folder that holds the bundles (*.zip)")
    paths = sorted(folder.glob("*.zip"))
    if not paths:
        raise UserError(f"no bundles in {folder}; make one: cliqa-bench verify RUNS --pack {folder}/mine.zip")
    workers = min(jobs or cores(), len(paths))
    say(f"checking {plural(len(paths), 'bundle')}")
    with processes(workers) as pool:
        entries = list(pool.map(read_entry, paths))
    _refuse_other_data(entries)
    write_text(to / "leaderboard.csv", _csv(entries))
    write_text(to / "index.html", _page(entries))
    return Built(to / "index.html", entries)


def _refuse_other_data(entries: Sequence[BoardEntry]) -> None:
    """Refuses bundles whose test sets are not those of the others, though they have the same fingerprint."""
    whole = [entry for entry in entries if not entry.refused]
    for test in sorted({test for entry in whole for test in entry.tests}):
        having = [entry for entry in whole if test in entry.tests]
        # a proof is made by someone who has the data and has compared them
        trained = [entry for entry in having if entry.proofs]
        votes = Counter(entry.tests[test] for entry in trained or having)
        most = max(votes.values())
        trusted = {found for found, count in votes.items() if count == most}
        for entry in having:
            if trusted != {entry.tests[test]}:
                others = plural(
                    sum(other.tests[test] != entry.tests[test] for other in having), "other bundle"
                )
                name, fingerprint = json.loads(test)
                entry.refused = (
                    f"its images or opinion scores of {name} are not those of {others} with the same "
                    f"fingerprint ({fingerprint:.8})"
                )
    for entry in entries:
        if entry.refused:
            entry.rows.clear()


def _rank(row: BoardRow) -> tuple[tuple[int, str], str, float, str]:
    found = row.numbers.get("mPSI") or row.numbers.get("mSRCC") or TableValue()
    best = -found.mean if math.isfinite(found.mean) else math.inf
    return order_rank(row.order), row.setting, best, row.method


def _boards(entries: Iterable[BoardEntry]) -> list[tuple[BoardTable, list[tuple[BoardRow, int]]]]:
    """Returns the tables, the longest first, each with its rows and how many proofs they have."""
    tables = {name: table for entry in entries for name, table in entry.tables.items()}
    rows: dict[str, list[tuple[BoardRow, int]]] = {name: [] for name in tables}
    for entry in entries:
        for row in entry.rows:
            rows[row.table].append((row, len(entry.proofs)))
    kept = sorted((name for name in tables if rows[name]), key=lambda name: (-len(rows[name]), name))
    return [(tables[name], sorted(rows[name], key=lambda each: _rank(each[0]))) for name in kept]


def _csv(entries: Iterable[BoardEntry]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for board, rows in _boards(entries):
        for row, proofs in rows:
            about = (board.id, row.bundle, row.method, row.setting, row.backbone, row.order, row.seeds)
            for metric, told in row.numbers.items():
                cells = (*about, metric, told.mean, told.std, told.low, told.high, proofs)
                writer.writerow(csv_cells(cells))
    return file.getvalue()


def _published() -> dict[tuple[str, str, str], dict[str, float]]:
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in (row for table in ("III", "IV") for row in read_published(table)):
        if row.metric in _PUBLISHED:
            found.setdefault((label_of(row), row.setting, row.backbone), {})[row.metric] = row.value
    return found


def _spread(value: TableValue) -> str:
    """Returns a value as printed; its interval has columns of its own."""
    return plain(value._replace(low=math.nan, high=math.nan))


def _page(entries: Sequence[BoardEntry]) -> str:
    page = shell(_SCRIPTS, _HERE)
    page.environment.filters.update(digits=number, spread=_spread)
    rows = [row for entry in entries for row in entry.rows]
    filters = [
        ("order", "Order", sorted({row.order for row in rows}, key=order_rank)),
        ("backbone", "Backbone", sorted({row.backbone for row in rows})),
        ("setting", "Setting", sorted({row.setting for row in rows})),
    ]
    return page.environment.get_template("leaderboard.html").render(
        style=page.style,
        script=page.script,
        policy=page.policy,
        boards=_boards(entries),
        metrics=SUMMARY,
        filters=[(name, label, values) for name, label, values in filters if len(values) > 1],
        published=_published(),
        published_metrics=_PUBLISHED,
        refused=[entry for entry in entries if entry.refused],
        entries=entries,
        version=__version__,
    )
