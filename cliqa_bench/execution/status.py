"""`status`: what is done, running, failed and left in a folder of results. Imports no torch.

Nothing is kept for it but a line about each failure (`results.failures`): what there is to do is in the run
records, what is done is in the nodes, and a run holds a lock on what it does, with any executor.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, get_args

from cliqa_bench.errors import UserError
from cliqa_bench.execution.estimate import time_text
from cliqa_bench.execution.plan import GateNormalisation
from cliqa_bench.results.failures import read_failures
from cliqa_bench.results.nodes import CLAIMS, KINDS, NodeKind, claim_name, node_facts
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.system.locks import held_since, is_held, owner
from cliqa_bench.terminal import text_table

REFRESH = 2.0
"""Seconds between two looks with `--watch`."""

_NOUNS: dict[NodeKind, str] = {
    "train": "trainings", "gate": "gates", "answers": "answer files", "pictures": "pictures",
}  # fmt: skip
_TIMED: dict[NodeKind, str] = {"train": "seconds", "answers": "score_seconds"}


@dataclass
class Counted:
    """How many pieces of work of a kind there are, by their state."""

    done: int = 0
    running: int = 0
    failed: int = 0
    left: int = 0


class Running(NamedTuple):
    """A job under way: its name, who does it, and since when (ISO 8601 in UTC; "" if unknown)."""

    job: str
    where: str
    since: str


@dataclass
class Status:
    """The state of the work in a folder.

    Attributes:
        work: Kind of work -> counts.
        running: The jobs under way.
        failed: What failed and is not done since: title, reason, when and where.
        seconds_left: Roughly how long the rest takes, with as many at work as now; None if nothing was timed.
    """

    work: dict[str, Counted]
    running: list[Running] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    seconds_left: float | None = None

    @property
    def over(self) -> bool:
        """Whether all is done."""
        return not any(one.running + one.failed + one.left for one in self.work.values())


# -- what there is to do -------------------------------------------------------------------------------------


class Inventory:
    """All work that the run records of a folder name, and what of it is done.

    Args:
        out: Folder of the results.

    Raises:
        UserError: If there is no run record, or one is broken.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.nodes: dict[str, NodeKind] = {}
        self.claims: dict[str, dict[str, None]] = defaultdict(dict)  # name of a claim -> nodes that it makes
        self._done: set[str] = set()
        self._seconds: dict[str, float] = {}  # node -> what it took
        for record in read_records(out):
            self._add(record)

    def _add(self, record: RunRecord) -> None:
        trained = list(dict.fromkeys(node for step in record.steps for node, _ in step.heads))
        for node in trained:
            self._node("train", node, claim_name("train", "", node))
        for net in get_args(GateNormalisation):
            for dataset, node in record.gates.items():
                self._node("gate", node, claim_name("gate", net, dataset))
        gates = set(record.gates.values())
        for of, answers in record.answers.items():
            for test, node in answers.items():
                if of in gates:
                    for net in get_args(GateNormalisation):
                        self._node("answers", node, claim_name("distances", net, test))
                else:
                    self._node("answers", node, claim_name("scores", "", of))
        for node in (record.facts.get("pictures") or {}).values():
            self._node("pictures", node, claim_name("picture", "", node))

    def _node(self, kind: NodeKind, node: str, claim: str) -> None:
        self.nodes[node] = kind
        self.claims[claim][node] = None

    def look(self) -> Status:
        """Returns the present state of the work."""
        self._done |= {
            node
            for node, kind in self.nodes.items()
            if node not in self._done and (self.out / kind / node / "done.json").is_file()
        }
        status = Status({_NOUNS[kind]: Counted() for kind in KINDS})
        state = dict.fromkeys(self.nodes, "left") | dict.fromkeys(self._done, "done")
        failures = read_failures(self.out)
        for claim, body in failures.items():
            lacking = [node for node in self.claims.get(claim, ()) if state[node] != "done"]
            state |= dict.fromkeys(lacking, "failed")
            if lacking or claim not in self.claims:
                status.failed.append(body)
        for path in sorted((self.out / CLAIMS).glob("*.lock")):
            if is_held(path):
                status.running.append(Running(path.stem, owner(path), held_since(path)))
                nodes = [node for node in self.claims.get(path.stem, ()) if state[node] != "done"]
                state |= dict.fromkeys(nodes, "running")
        for node, what in state.items():
            counted = status.work[_NOUNS[self.nodes[node]]]
            setattr(counted, what, getattr(counted, what) + 1)
        status.seconds_left = self._left(state, status.running)
        return status

    # -- time ------------------------------------------------------------------------------------------------

    def _left(self, state: Mapping[str, str], running: Sequence[Running]) -> float | None:
        """Returns the seconds that are left, from those that nodes like the ones that are left took."""
        lacking = [node for node, what in state.items() if what != "done"]
        if not lacking:
            return 0.0
        took = self._took()
        rest = [_expected(node, took) for node in lacking if self.nodes[node] in _TIMED]
        known = [seconds for seconds in rest if seconds is not None]
        if not known:
            return None
        spent = sum(_age(job.since) for job in running if job.job.startswith("train-"))
        # if nothing like it was timed, it takes as long as the others
        return max(0.0, fmean(known) * len(rest) - spent) / max(1, len(running))

    def _took(self) -> dict[str, list[float]]:
        """Returns the seconds of finished nodes, by their name without the hash, and by less of it."""
        for node in self._done - self._seconds.keys():
            fact = _TIMED.get(self.nodes[node])
            seconds = _fact(self.out / self.nodes[node] / node, fact) if fact else None
            self._seconds[node] = -1.0 if seconds is None else seconds
        took: dict[str, list[float]] = defaultdict(list)
        for node, seconds in self._seconds.items():
            if seconds >= 0:
                for likeness in _likenesses(node):
                    took[likeness].append(seconds)
        return took


def _fact(folder: Path, fact: str) -> float | None:
    try:
        seconds = node_facts(folder).get(fact)
    except UserError:  # damaged; what needs the node says so
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def _likenesses(node: str) -> Iterator[str]:
    """Gives what nodes that take as long share of their names, the most alike first.

    Example:
        >>> list(_likenesses("lwf-resnet18-2live-0123456789ab"))
        ['lwf-resnet18-2live', 'lwf-resnet18', 'lwf', ' train']
    """
    slug, _, test = node.partition("-on-")
    end = f" on {test.rpartition('-')[0]}" if test else ""
    parts = slug.split("-")[:-1]
    for n in range(len(parts), 0, -1):
        yield "-".join(parts[:n]) + end
    yield " answers" if test else " train"


def _expected(node: str, took: Mapping[str, Sequence[float]]) -> float | None:
    return next((fmean(took[likeness]) for likeness in _likenesses(node) if took.get(likeness)), None)


def _age(since: str) -> float:
    """Returns the seconds since a time; 0 if it is unknown, or ahead of this machine's clock."""
    if not since:
        return 0.0
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(since)
    return max(0.0, age.total_seconds())


# -- words ---------------------------------------------------------------------------------------------------


def render(status: Status) -> str:
    """Returns the status as text for people."""
    heads = ["", *(name for name in asdict(Counted()))]
    rows = [[noun, *(f"{n:,}" for n in asdict(one).values())] for noun, one in status.work.items()]
    blocks = [text_table(rows, heads, right={1, 2, 3, 4})]
    if status.running:
        cells = [(job.job, job.where, _since_text(job.since)) for job in status.running]
        blocks.append("running:\n" + text_table(cells))
    if status.failed:
        blocks.append("failed:\n" + "\n".join(
            f"{one['title']}: {one['reason']} ({one['where']}, {one['when']})" for one in status.failed
        ))  # fmt: skip
    if status.over:
        blocks.append("all is done")
    elif status.seconds_left is None:
        blocks.append("time left: unknown until something is done")
    else:
        at_work = f"{len(status.running)} at work" if status.running else "none at work now; with one process"
        blocks.append(f"time left: roughly {time_text(status.seconds_left)} ({at_work})")
    return "\n\n".join(blocks)


def _since_text(since: str) -> str:
    return f"since {since} ({time_text(_age(since))})" if since else ""


def show(out: Path, watch: bool, as_json: bool) -> None:
    """Prints the status of a folder, again and again with `watch`, until all is done.

    Args:
        out: Folder of the results.
        watch: Whether to go on.
        as_json: Whether to print JSON, with `watch` an object in each line.

    Raises:
        UserError: If there is no run in the folder.
    """
    inventory, before = Inventory(out), ""
    while True:
        status = inventory.look()
        text = (
            json.dumps(
                asdict(status) | {"running": [job._asdict() for job in status.running]},
                indent=None if watch else 1,
            )
            if as_json
            else render(status)
        )
        if text != before:
            clear = "\033[2J\033[H" if watch and not as_json and sys.stdout.isatty() else ""
            print(clear + text + ("" if as_json or not watch or clear else "\n"), flush=True)
        before = text
        if not watch or status.over:
            return
        time.sleep(REFRESH)
