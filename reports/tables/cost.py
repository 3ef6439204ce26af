"""What a method costs: Table XII (soft and hard gate), parameters per task, and measured time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cliqa_bench import metrics
from cliqa_bench.reports.measure import ADAPTED
from cliqa_bench.reports.methods import Method, RunReadout, label_of, namer, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import ONCE
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.reports.tables.tsn import Runs, default_runs, length_of, over_runs, summaries
from cliqa_bench.results.records import AnswerReader, RunRecord

BASELINE, SOFT, HARD = "(as baseline)", "soft assignment", "hard assignment"
COSTS = ("CC", "Passes", "GMACs")
TIMES = ("network", "gate", "total")
GATED = ("gate", "gate-hard")


class _Configuration(NamedTuple):
    """A line of Table XII."""

    method: Method
    runs: Runs


def _configurations(group: RunGroup) -> Iterator[_Configuration]:
    """Yields LwF-KG and TSN-IQA with the soft and the hard gate, in the paper's words; none without both."""
    hard = default_runs(group, "tsn", "gate-hard")
    soft = default_runs(group, "tsn", "gate")
    if not (soft and hard):
        return
    for method, runs in default_runs(group, "lwf").items():
        yield _Configuration(method._replace(variant=_named(BASELINE, method)), runs)
    for gentle, runs in soft.items():
        yield _Configuration(gentle._replace(variant=_named(SOFT, gentle)), runs)
        for strict, chosen in hard.items():
            if (strict.backbone, strict.variant) == (gentle.backbone, gentle.variant):
                yield _Configuration(gentle._replace(variant=_named(HARD, gentle)), chosen)


def _named(assignment: str, method: Method) -> str:
    return assignment + (f", {method.variant}" if method.variant else "")


def _cost(source: RunReadout) -> Mapping[str, Any]:
    found = source.record.facts.get("cost")
    return found if isinstance(found, dict) else {}


def _counts(source: RunReadout) -> dict[str, float]:
    """The paper's CC counts the passes of the network that scores; the gate's own pass comes on top."""
    cost = _cost(source)
    passes = float((cost.get("passes") or {}).get(source.readout, math.nan))
    gated = source.readout in GATED
    scoring = passes - 1 if gated else passes
    whole, fixed = float(cost.get("gmacs_224", math.nan)), float(cost.get("fixed_gmacs_224", 0))
    gmacs = fixed + scoring * (whole - fixed) + ((fixed or whole) if gated else 0)
    return {"CC": scoring, "Passes": passes, "GMACs": gmacs}


def gate_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns quality and counted cost of the soft and the hard gate (Table XII), means over seeds or splits.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, runs in _configurations(group):
        numbers = summaries(reader, runs)
        own = [over_runs("XII", method, group, m, numbers[m]) for m in ("mSRCC", "mPSI")]
        counts = _counts(next(iter(runs.values())))  # the same for every run
        own += [over_runs("XII", method, group, m, {ONCE: counts[m]}) for m in COSTS]
        rows += [row._replace(length=length_of(runs)) for row in own]
    return rows


def _namer(rows: list[TidyRow]) -> Callable[[TidyRow], str]:
    """Names configurations; the paper has "(as baseline)" in parentheses already."""
    name = namer(rows)
    return lambda row: name(row._replace(variant=row.variant.replace(BASELINE, BASELINE[1:-1])))


def shape_gate(rows: list[TidyRow]) -> Table:
    """A row per configuration; quality and cost as columns."""
    columns = [m for m in ("mSRCC", "mPSI", *COSTS) if any(row.metric == m for row in rows)]
    caption = (
        "TSN-IQA with a soft and a hard gate. CC: passes of the network that scores an image, as the paper "
        "counts them (T after T tasks; with a hard gate the chosen head alone)."
    )
    if "Passes" in columns:
        caption += (
            " Passes: CC and the one in which the gate describes the image. GMACs: billions of multiply-adds "
            "of these passes at 224 x 224."
        )
    section = build(
        "", rows, _namer(rows), lambda row: row.metric, columns,
        digits={"CC": 0, "Passes": 0, "GMACs": 2}, best=("mSRCC", "mPSI"),
    )  # fmt: skip
    return Table("XII", f"{caption} Best results in bold.", ("", "Configuration"), columns, [section])


# ------------------------------------------------------------------------------------------------- parameters

_COSTS = ("task_parameters", "centroid_values", "backbone_parameters")
_OVERHEAD = {
    "task parameters": ("Parameters per task", 0),
    "task parameters (%)": ("Parameters (%)", 3),
    "centroid values": ("Centroid values per task", 0),
    "centroid values (%)": ("Centroid values (%)", 3),
    "backbone parameters": ("Backbone parameters", 0),
}
_MEMORY = {
    "added memory (images)": ("Added memory (images)", 0),
    "added memory (values)": ("Added memory (values)", 0),
}
_MEMORY_COSTS = ("memory_images", "memory_values")
"""Runs of 0.1.0 do not have them."""


def overhead_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns what each method adds per task: learnable parameters and centroid values, by backbone.

    And in all: images of earlier datasets that must stay available, and numbers that are kept with them. None
    for runs that did not record their cost.
    """
    rows: list[TidyRow] = []
    told = set()
    for method, runs in sources(group).items():
        source = next(iter(runs.values()))
        record, cost = source.record, _cost(source)
        # a variant has a row of its own where it costs something else
        line = (record.strategy, record.backbone, *(cost.get(name) for name in (*_COSTS, *_MEMORY_COSTS)))
        adapted = method.setting in ADAPTED  # adds what the models that it adapts do
        if cost and source.readout == _main_readout(record) and line not in told and not adapted:
            told.add(line)
            task, centroids, whole = (float(cost[name]) for name in _COSTS)
            values = (task, 100 * task / whole, centroids, 100 * centroids / whole, whole)
            rows += [
                over_runs("overhead", method, group, metric, {ONCE: value})
                for metric, value in zip(_OVERHEAD, values, strict=True)
            ]
            rows += [
                over_runs("overhead", method, group, metric, {ONCE: float(cost[name])})
                for metric, name in zip(_MEMORY, _MEMORY_COSTS, strict=True)
                if name in cost
            ]
    return rows


def _main_readout(record: RunRecord) -> str:
    """Returns the readout whose row stands for a strategy: the gate, which needs centroids, if it has one."""
    return "gate" if "gate" in record.rows else min(record.rows)


def shape_overhead(rows: list[TidyRow]) -> Table:
    """A section per backbone, a row per method; what nothing keeps has no column."""
    kept = {row.metric for row in rows if row.metric in _MEMORY and row.value}
    heads = _OVERHEAD | (_MEMORY if kept else {})
    rows = [row for row in rows if row.metric in heads]
    columns = [head for head, _ in heads.values()]
    sections = [
        build(
            backbone,
            [row for row in rows if row.backbone == backbone],
            label_of,
            lambda row: heads[row.metric][0],
            columns,
            digits=dict(heads.values()),
            best=(),
        )
        for backbone in unique(row.backbone for row in rows)
    ]
    caption = (
        "What a method adds per task: learnable parameters, and numbers that the centroids of its gate "
        "consist of, each also in % of the parameters of the backbone that all tasks share."
    )
    if kept:
        caption += (
            " Added memory: training images of earlier datasets that are seen again, at most, and numbers "
            "that are kept with them (positions, stored scores), for all tasks together."
        )
    return Table("overhead", caption, ("Backbone", "Method"), columns, sections)


# ------------------------------------------------------------------------------------------------------- time

_GB = 1e9
_MEASURED = {
    "training": ("Training (s)", 1),
    "network": ("Network (ms)", 2),
    "gate": ("Gate (ms)", 2),
    "total": ("Total (ms)", 2),
    "joules": ("Energy (J)", 3),
    "gpu GB": ("GPU (GB)", 2),
    "host GB": ("Host (GB)", 2),
}
"""Metric -> its column, and digits after the point."""


def time_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns the measured cost of each method, means over seeds or splits.

    Seconds of training per dataset, milliseconds and joules per image, and the largest memory; no rows for
    runs that measured none of it.

    Raises:
        UserError: If an answer file or a `done.json` is broken, or files do not belong together.
    """
    rows = []
    for method, runs in _timed(group):
        measured = {run: _measured(reader, source) for run, source in runs.items()}
        # where no gate is read it takes no time, which nobody measured
        if any(math.isfinite(found[m]) for found in measured.values() for m in _MEASURED if m != "gate"):
            own = [
                over_runs("time", method, group, m, {run: found[m] for run, found in measured.items()})
                for m in _MEASURED
            ]
            # times always have their columns; what else is measured depends on the machine
            told = [row for row in own if row.metric in TIMES or math.isfinite(row.value)]
            rows += [row._replace(length=length_of(runs)) for row in told]
    return rows


def _timed(group: RunGroup) -> Iterator[_Configuration]:
    """Yields the main readout of each strategy and variant, and the hard gate.

    A variant that only reads the same answers otherwise took the same time, and is left out.
    """
    told = set()
    for method, runs in sources(group).items():
        record, readout = next(iter(runs.values()))
        if readout in (_main_readout(record), "gate-hard"):
            answers = {found for by_test in record.answers.values() for found in by_test.values()}
            line = (record.strategy, record.backbone, readout, *sorted(answers))
            if line not in told:
                told.add(line)
                yield _Configuration(method, runs)


def _measured(reader: AnswerReader, source: RunReadout) -> dict[str, float]:
    """Returns what is measured of a run, on the test sets of its sequence after the last experience."""
    record = source.record
    answers = [reader.answers(record, len(record.steps) - 1, test) for test in record.sequence]
    images = sum(len(found.mos) for found in answers if found is not None)
    if not images or any(found is None for found in answers):
        return dict.fromkeys(_MEASURED, metrics.NAN)
    seconds, joules = (_spent(reader, source, f"score_{what}") for what in ("seconds", "joules"))
    times = [1000 * part / images for part in seconds]
    memory = [_peak(reader, source, f"score_{where}_bytes") / _GB for where in ("gpu", "host")]
    trained = _trained(reader, record)
    values = [trained, *times, sum(times), sum(joules) / images, *memory]
    return dict(zip(_MEASURED, values, strict=True))


def _trained(reader: AnswerReader, record: RunRecord) -> float:
    """Returns the seconds of training per dataset, that of what the run's models are made of included."""
    nodes = [node for step in record.steps for node, _ in step.heads]
    parts = record.facts.get("built_from") or ()
    facts = [reader.training_facts(node) for node in unique([*nodes, *parts])]
    return sum(map(_seconds, facts)) / len(record.sequence)


def _seconds(facts: Mapping[str, Any]) -> float:
    """Returns what a training took, in all its sittings."""
    earlier = facts.get("resumed")
    sittings = [facts, earlier] if isinstance(earlier, dict) else [facts]
    return sum(_number(sitting.get("seconds")) for sitting in sittings)


def _spent(reader: AnswerReader, source: RunReadout, fact: str) -> tuple[float, float]:
    """Returns what scoring the images of all test sets took, and describing them for the gate.

    With the soft gate every node that holds a head scores the image; with the hard one, or without a gate, a
    single node does, for which their mean stands. One pass describes the image for the gates of all tasks, so
    theirs is the mean, too.
    """
    record = source.record
    nodes, gated = _scoring(record), _gating(source)
    scoring = gating = 0.0
    for test in record.sequence:
        heads = [_fact(reader, record, node, test, fact) for node in nodes]
        gates = [_fact(reader, record, node, test, fact) for node in gated]
        scoring += sum(heads) / (1 if source.readout == "gate" else len(heads))
        gating += sum(gates) / len(gates) if gates else 0.0
    return scoring, gating


def _peak(reader: AnswerReader, source: RunReadout, fact: str) -> float:
    """Returns the largest memory of the passes; nan if one of them did not measure it."""
    record = source.record
    nodes = [*_scoring(record), *_gating(source)]
    held = [_fact(reader, record, node, test, fact) for node in nodes for test in record.sequence]
    return max(held) if all(map(math.isfinite, held)) else metrics.NAN


def _scoring(record: RunRecord) -> list[str]:
    """Returns the nodes that hold the heads after the last experience."""
    return unique(node for node, _ in record.steps[-1].heads)


def _gating(source: RunReadout) -> list[str]:
    """Returns the nodes that describe an image for the gates; none where no gate is read."""
    return [*source.record.gates.values()] if source.readout in GATED else []


def _fact(reader: AnswerReader, record: RunRecord, node: str, test: str, name: str) -> float:
    """Returns a number that an answers node noted; nan where it did not, or what it noted is not a number."""
    answers = record.answers.get(node, {}).get(test)
    return _number(reader.facts(answers).get(name) if answers else None)


def _number(value: Any) -> float:
    """Returns what was noted as a number; nan if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return metrics.NAN


_CAPTIONS = {
    "training": "Training: seconds of all trainings of the sequence, over the number of its datasets, "
    "without the fitting of gates; several may have run at once.",
    "joules": "Energy: joules per image that the whole card took in these passes, including what it "
    "takes when idle and what other programs took, as NVML counts them.",
    "gpu GB": "GPU: most memory that PyTorch's tensors took on the GPU in any of these passes.",
    "host GB": "Host: the most main memory that a process used in any of these passes, sampled every tenth "
    "of a second; it includes freed memory that the process keeps, and excludes mapped files such as "
    "decoded images.",
}


def shape_time(rows: list[TidyRow]) -> Table:
    """A section per setting, a row per method; times as columns, and what else was measured."""
    there = {row.metric for row in rows} | {*TIMES}
    heads = {metric: head for metric, (head, _) in _MEASURED.items() if metric in there}
    sentences = [
        "Measured cost, on the machine and at the image sizes of these runs. Network, gate and total: "
        "milliseconds per image of the test sets after the last experience, for the passes that score the "
        "image, for the pass that describes it for the gate, and for both. Gates that one pass served share "
        "its time.",
        *(text for metric, text in _CAPTIONS.items() if metric in there),
        *(["GB: 10^9 bytes."] if there & {"gpu GB", "host GB"} else []),
        "Measuring again gives other values.",
    ]
    sections = [
        build(
            setting, [row for row in rows if row.setting == setting], namer(rows),
            lambda row: heads[row.metric], [*heads.values()], True, dict(_MEASURED.values()), (),
        )
        for setting in unique(row.setting for row in rows)
    ]  # fmt: skip
    return Table("time", " ".join(sentences), ("Setting", "Method"), [*heads.values()], sections)
