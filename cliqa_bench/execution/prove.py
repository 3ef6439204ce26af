"""`prove`: trains randomly drawn nodes of a bundle again, and compares their answers with those in it.

`verify` finds numbers that do not follow from the answers. Answers that were changed, or that other settings
gave than those named, can only be found by training again.
"""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import Job, jobs_of, processes
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.run import prepare_splits, rebuild_plan
from cliqa_bench.execution.scheduler import run_jobs
from cliqa_bench.progress import say
from cliqa_bench.reports.audit.bundle import unpacked
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.leaderboard.proofs import GATE_TOLERANCE, HEAD_TOLERANCE, Proof, append_proof
from cliqa_bench.results.answer_difference import most_apart
from cliqa_bench.results.nodes import file_digest, read_answers, read_json
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.seeds import rng_for
from cliqa_bench.settings.resolve import device_name, resolve
from cliqa_bench.system.compute import resolve_device, title_of
from cliqa_bench.system.versions import versions
from cliqa_bench.terminal import plural

_TAKEN = ("preset", "backbone", "split", "training", "test_on", "max_megapixels", "srgb", "deterministic")
"""What is taken from the configuration in a bundle. It names no file of the reader's disk to read or run."""


@dataclass(frozen=True)
class Request:
    """What to prove, and with what.

    Attributes:
        bundle: The bundle.
        data: Folder of the datasets; None for generated miniatures.
        nodes: How many nodes to train again.
        seed: Of the draw.
        who: Goes into the proof.
        tolerance: How far a head's score may be off.
        gate_tolerance: How far a gate's distance may be off, relative to its size.
        weights: The backbone's pre-trained weights, as `run` takes them.
        device: On which to train.
        threads: Of each process; None for as many as the run had, since another number changes last bits.
        include: Files of a user's own strategies, as `run` takes them.
    """

    bundle: Path
    data: str | None = None
    nodes: int = 1
    seed: int = 0
    who: str = "unnamed"
    tolerance: float = HEAD_TOLERANCE
    gate_tolerance: float = GATE_TOLERANCE
    weights: str | None = None
    device: str | None = None
    threads: int | None = None
    include: Any = None


def prove_bundle(asked: Request) -> list[Proof]:
    """Trains nodes again and adds the outcome to the proofs beside the bundle.

    Raises:
        UserError: If the bundle fails `verify`; if data, weights or settings are not those of the bundle;
            or if a training fails.
    """
    if asked.nodes < 1:
        raise UserError(f"--nodes must be at least 1, not {asked.nodes}")
    for flag, value in (("--tolerance", asked.tolerance), ("--gate-tolerance", asked.gate_tolerance)):
        if not 0 <= value < math.inf:
            raise UserError(f"{flag} must be at least 0, not {value}")
    if not asked.bundle.is_file():
        raise UserError(f"no file {asked.bundle}; give a bundle of verify --pack")
    digest = file_digest(asked.bundle)
    with unpacked(asked.bundle) as folder:
        problems = verify(folder).problems
        if problems:
            raise UserError(f"{asked.bundle} fails verify: {problems[0]}")
        records = read_records(folder)
        proofs = [
            _prove_node(asked, digest, folder, record, node)
            for record, node in _drawn(records, asked, digest)
        ]
    for proof in proofs:
        append_proof(asked.bundle, proof)
    return proofs


def _drawn(records: Sequence[RunRecord], asked: Request, digest: str) -> list[tuple[RunRecord, str]]:
    """Draws train nodes, each with a run that it is of; the bundle's own bytes seed the draw, too."""
    of: dict[str, RunRecord] = {}
    for record in records:
        for step in record.steps:
            of.setdefault(step.heads[-1][0], record)
    names = sorted(of)
    rng = rng_for("prove", digest, asked.seed)
    chosen = rng.choice(len(names), size=min(asked.nodes, len(names)), replace=False)
    return [(of[names[i]], names[i]) for i in sorted(chosen.tolist())]


def _prove_node(asked: Request, digest: str, folder: Path, record: RunRecord, node: str) -> Proof:
    with tempfile.TemporaryDirectory(prefix="cliqa-prove-") as name:
        plan = _plan(asked, record, Path(name))
        if node not in plan.train:
            raise UserError(f"{asked.bundle}: {_why_not(folder, node, plan)}")
        gate = record.gates.get(plan.train[node].dataset, "")
        jobs = list(_needed(jobs_of(plan), plan, node, gate))
        say(f"training {node} again: {plural(len(jobs), 'job')}")
        facts = {"versions": versions(), "code": plan.choice.code}
        done = run_jobs(plan, rebuild_plan, facts, jobs, min(processes(plan, jobs), len(jobs)), lambda: None)
        if done.failed:
            raise UserError(f"{node} cannot be trained here: {next(iter(done.failed.values()))}")
        scores = _difference(folder, plan, record, node, "scores")
        distances = _difference(folder, plan, record, gate, "distances") if gate else math.nan
    return Proof(
        bundle=digest,
        node=node,
        seed=asked.seed,
        who=asked.who,
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=title_of(resolve_device(device_name(asked.device))),
        scores=scores,
        distances=distances,
        tolerance=asked.tolerance,
        gate_tolerance=asked.gate_tolerance,
    )


def _plan(asked: Request, record: RunRecord, out: Path) -> Plan:
    """Plans the work of a record as its configuration asks for it, with the data given here."""
    config = record.facts.get("config")
    if not isinstance(config, dict):
        raise UserError(
            f"{asked.bundle}: run {record.id} has no configuration, so nothing can be trained again"
        )
    settings = {name: config.get(name) for name in _TAKEN}
    if record.split_number:
        settings |= {"split": None, "splits": str(record.split_number)}
    params = (config.get("params") or {}).get(record.strategy)
    settings |= {
        "strategy": record.strategy,
        "params": {record.strategy: params} if params else {},
        "orders": record.order,
        "seeds": record.seed,
        "data": asked.data,
        "weights": asked.weights or ("random" if config.get("weights") == "random" else None),
        "device": asked.device,
        "threads": asked.threads or config.get("threads"),
        "include": asked.include,
        "out": str(out),
        "set": [],
    }
    (plan,) = prepare_splits(resolve(settings), "")
    return plan


def _why_not(folder: Path, node: str, plan: Plan) -> str:
    """Returns why a node of a bundle is not one that its configuration asks for here."""
    spec = read_json(folder / "train" / node / "spec.json")
    here = {name: material.fingerprint for name, material in plan.materials.items()}
    for dataset, fingerprint, *_ in spec.get("sequence", []):
        if here.get(dataset, fingerprint) != fingerprint:
            return (
                f"its {dataset} has other labels, images or another split than the one here (fingerprint "
                f"{fingerprint:.8}, here {here[dataset]:.8}); give the same data with --data"
            )
    ours = next(iter(plan.train.values())).node.spec
    if spec.get("weights") != ours["weights"]:
        return (
            f"it was trained from other weights of the backbone ({spec.get('weights')!s:.16}, here "
            f"{ours['weights']!s:.16}); give them with --weights"
        )
    return f"{node} is not what the configuration of its run asks for: its settings were changed"


def _needed(jobs: Sequence[Job], plan: Plan, node: str, gate: str) -> Iterator[Job]:
    """Yields the jobs behind a node's answers, and a gate's, each after those it needs."""
    wanted = {job.key for job in jobs if job.kind == "scores" and job.about == node}
    if gate:
        of_gate = {
            (plan.gates[gate].net, work.test) for work in plan.answers.values() if work.of.node.id == gate
        }
        wanted |= {job.key for job in jobs if job.kind == "distances" and (job.net, job.about) in of_gate}
    by_key = {job.key: job for job in jobs}
    todo = list(wanted)
    while todo:
        more = [needed.key for needed in by_key[todo.pop()].after if needed.key not in wanted]
        wanted.update(more)
        todo += more
    return (job for job in jobs if job.key in wanted)


def _difference(folder: Path, plan: Plan, record: RunRecord, node: str, name: str) -> float:
    """Returns how far the answers of a node differ at most: scores by value, distances relative to theirs."""
    most = 0.0
    for test, answers in record.answers[node].items():
        theirs = read_answers(folder / "answers" / answers / "answers.npz")
        if answers not in plan.answers:
            raise UserError(f"{answers} is not what the configuration of its run asks for: it was changed")
        ours = read_answers(plan.answers[answers].node.folder / "answers.npz")
        for about in ("keys", "mos"):
            if not np.array_equal(theirs[about], ours[about]):
                raise UserError(f"the bundle's test set {test} is not the one here: its {about} differ")
        if theirs[name].shape != ours[name].shape:
            return math.inf
        size = np.abs(ours[name]) if name == "distances" else None
        most = max(most, most_apart(theirs[name], ours[name], size))
    return most
