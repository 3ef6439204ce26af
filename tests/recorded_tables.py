"""Recorded runs that fill the tables beside III to VI: variants, costs, statistics, further test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import recorded_runs as recorded

from cliqa_bench.results.nodes import Node, read_json, write_answers, write_json
from cliqa_bench.results.records import RunRecord, Step, write_record
from cliqa_bench.seeds import rng_for

SEQUENCE = recorded.ORDERS["I"]
FURTHER = {"tid2013": "TID2013", "spaq": "SPAQ"}
CHANNELS = 5
COST = {
    "task_parameters": 1600,
    "centroid_values": 24576,
    "backbone_parameters": 531120,
    "gmacs_224": 1.13,
    "passes": {"gate": 5, "gate-hard": 2, "oracle": 1, "last": 1},
}
LWF_COST = {**COST, "task_parameters": 128, "passes": {"gate": 2, "oracle": 1, "last": 1}}
NETWORK_SECONDS, GATE_SECONDS = 0.024, 0.012
"""What the network ran for a head and for the gates, on each test set of twelve images."""


def norms(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance of a task's last normalisation layer."""
    rng = rng_for("norm", task, str(seed))
    return rng.normal(size=CHANNELS), rng.uniform(0.5, 2.0, CHANNELS)


def _write_norm(out: Path, node: str, task: str, seed: int) -> None:
    folder = out / "train" / node
    folder.mkdir(parents=True, exist_ok=True)
    mean, var = norms(task, seed)
    np.savez(folder / "norm.npz", mean=mean, var=var)
    recorded.sign(folder)


def _timed(out: Path, record: RunRecord) -> None:
    """Says of every answers node how long it took."""
    for node, by_test in record.answers.items():
        seconds = GATE_SECONDS if node in record.gates.values() else NETWORK_SECONDS
        for answers in by_test.values():
            path = out / "answers" / answers / "done.json"
            write_json(path, {**read_json(path), "facts": {"score_seconds": seconds}})


def _test_further(out: Path, record: RunRecord) -> RunRecord:
    """Lets the run answer to test sets that are not part of its sequence."""
    answers = {node: dict(by_test) for node, by_test in record.answers.items()}
    for node, by_test in answers.items():
        for test in FURTHER:
            skill = None if node in record.gates.values() else 0.5
            spec: dict[str, object] = {"dataset": node.split("-")[1], "of": node}
            by_test[test] = recorded._answer(out, node, spec, test, skill, recorded.IMAGES)
    fingerprints = {**record.facts["fingerprints"], **{test: f"print-of-{test}" for test in FURTHER}}
    return replace(
        record, answers=answers, tests=[*record.tests, *FURTHER], titles={**record.titles, **FURTHER},
        facts={**record.facts, "fingerprints": fingerprints},
    )  # fmt: skip


def record_tsn(out: Path, seed: int = 0, generated: bool = True) -> RunRecord:
    """Records TSN-IQA with everything that a real run leaves."""
    record = recorded.record_tsn(out, seed=seed, generated=generated)
    (out / "runs" / f"{record.id}.json").unlink()
    record = _test_further(out, replace(record, facts={**record.facts, "cost": COST}))
    for node, _ in record.steps[-1].heads:
        _write_norm(out, node, node.split("-")[1], seed)
    _timed(out, record)
    write_record(out, record)
    return record


def record_variant(
    out: Path, record: RunRecord, variant: str, stages: Sequence[int] | None = None
) -> RunRecord:
    """Records a variant of TSN-IQA that only reads the answers otherwise."""
    found = replace(record, variant=variant, stages=list(stages or record.stages))
    if not stages:
        found = replace(found, tau=8.0)  # other numbers, as another gate would give
    write_record(out, found)
    return found


def record_prefix(out: Path, like: RunRecord, strategy: str, variant: str, rows: dict[str, str]) -> RunRecord:
    """Records a strategy whose heads share one network: each experience's node answers for all heads."""
    answers = {gate: like.answers[gate] for gate in like.gates.values()}
    steps = []
    for t, name in enumerate(SEQUENCE):
        node = f"{strategy}{variant}-{t}{name}-{like.seed}"
        answers[node] = {}
        for test in like.tests:
            made = Node(out, "answers", f"{node}-on-{test}", {"of": node, "test": [test, f"print-of-{test}"]})
            with made.building({"score_seconds": NETWORK_SECONDS}) as folder:
                rng = rng_for("prefix", node, test)
                mos = rng_for("mos", test).uniform(0, 100, recorded.IMAGES)
                keys = np.array([f"{test}/{i:03d}.png" for i in range(recorded.IMAGES)])
                told = 0.6 * (mos[:, None] - 50) / 30 + 0.5 * rng.normal(size=(recorded.IMAGES, t + 1))
                write_answers(folder / "answers.npz", keys, mos, scores=told.astype(np.float32))
            answers[node][test] = made.id
        steps.append(Step(name, [(node, column) for column in range(t + 1)]))
    record = replace(
        like, strategy=strategy, variant=variant, rows=rows, answers=answers, steps=steps,
        facts={**like.facts, "cost": LWF_COST},
    )  # fmt: skip
    write_record(out, record)
    return record


LWF_ROWS = {"gate": "LwF-KG", "oracle": "LwF-O", "last": "LwF"}


def record_all(out: Path) -> RunRecord:
    """Records what fills Tables VII to XIII; returns the run of TSN-IQA with seed 0."""
    record = record_tsn(out)
    record_tsn(out, seed=1)
    record_variant(out, record, "stages=(4,)", [4])
    record_variant(out, record, "stages=(2, 3, 4)", [2, 3, 4])
    record_variant(out, record, "gate_bn=imagenet")
    record_variant(out, record, "tau=8.0")
    record_prefix(out, record, "tsn", "norms=shared", recorded.TSN_ROWS)
    record_prefix(out, record, "lwf", "", LWF_ROWS)
    write_record(out, replace(record, backbone="ResNet-50"))
    recorded.record_tsn(out, ",".join(SEQUENCE[:-1]), SEQUENCE[:-1])
    return record
