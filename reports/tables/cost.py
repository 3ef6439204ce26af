"""What a method costs: Table XII (soft and hard gate), parameters per task, and measured time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cliqa_bench import metrics
from cliqa_bench.reports.methods import Method, RunReadout, label_of, namer, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.tables.shapes import Table, build
from cliqa_bench.reports.tables.tsn import Seeds, default_runs, length_of, over_seeds, summaries
from cliqa_bench.results.records import AnswerReader

BASELINE, SOFT, HARD = "(as baseline)", "soft assignment", "hard assignment"
COSTS = ("CC", "Passes", "GMACs")
TIMES = ("network", "gate", "total")


class _Configuration(NamedTuple):
    """A line of Table XII."""

    method: Method
    seeds: Seeds


def _configurations(group: RunGroup) -> Iterator[_Configuration]:
    """Yields LwF-KG and TSN-IQA with the soft and the hard gate, in the paper's words; none without both."""
    hard = default_runs(group, "tsn", "gate-hard")
    soft = default_runs(group, "tsn", "gate")
    if not (soft and hard):
        return
    for method, seeds in default_runs(group, "lwf").items():
        yield _Configuration(method._replace(variant=_named(BASELINE, method)), seeds)
    for gentle, seeds in soft.items():
        yield _Configuration(gentle._replace(variant=_named(SOFT, gentle)), seeds)
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
    gated = source.readout in ("gate", "gate-hard")
    scoring = passes - 1 if gated else passes
    whole, fixed = float(cost.get("gmacs_224", math.nan)), float(cost.get("fixed_gmacs_224", 0))
    gmacs = fixed + scoring * (whole - fixed) + ((fixed or whole) if gated else 0)
    return {"CC": scoring, "Passes": passes, "GMACs": gmacs}


def gate_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns quality and counted cost of the soft and the hard gate (Table XII), means over seeds.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, seeds in _configurations(group):
        numbers = summaries(reader, seeds)
        own = [over_seeds("XII", method, group, m, numbers[m]) for m in ("mSRCC", "mPSI")]
        counts = _counts(next(iter(seeds.values())))  # the same for every seed
        own += [over_seeds("XII", method, group, m, [counts[m]]) for m in COSTS]
        rows += [row._replace(length=length_of(seeds)) for row in own]
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
            " Passes: with the one in which the gate describes the image. GMACs: billions of multiply-adds "
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
    "task parameters (%)": ("(% of backbone)", 3),
    "centroid values": ("Centroid values per task", 0),
    "centroid values (%)": ("(% of the backbone)", 3),
    "backbone parameters": ("Backbone parameters", 0),
}


def overhead_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns what each method adds per task: learnable parameters and centroid values, by backbone.

    None for runs that did not record their cost.
    """
    rows: list[TidyRow] = []
    told = set()
    for method, seeds in sources(group).items():
        source = next(iter(seeds.values()))
        record, cost = source.record, _cost(source)
        # a variant has a row of its own where it costs something else
        line = (record.strategy, record.backbone, *(cost.get(name) for name in _COSTS))
        # one row a strategy: under the gate, which needs the centroids, where it has one
        named = "gate" if "gate" in record.rows else min(record.rows)
        if cost and source.readout == named and line not in told:
            told.add(line)
            task, centroids, whole = (float(cost[name]) for name in _COSTS)
            values = (task, 100 * task / whole, centroids, 100 * centroids / whole, whole)
            rows += [
                over_seeds("overhead", method, group, metric, [value])
                for metric, value in zip(_OVERHEAD, values, strict=True)
            ]
    return rows


def shape_overhead(rows: list[TidyRow]) -> Table:
    """A section per backbone, a row per method."""
    columns = [head for head, _ in _OVERHEAD.values()]
    sections = [
        build(
            backbone,
            [row for row in rows if row.backbone == backbone],
            label_of,
            lambda row: _OVERHEAD[row.metric][0],
            columns,
            digits=dict(_OVERHEAD.values()),
            best=(),
        )
        for backbone in unique(row.backbone for row in rows)
    ]
    caption = (
        "What a method adds per task: learnable parameters, and numbers that the centroids of its gate "
        "consist of, each also relative to the parameters of the backbone that all tasks share."
    )
    return Table("overhead", caption, ("Backbone", "Method"), columns, sections)


# ------------------------------------------------------------------------------------------------------- time


def time_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns measured milliseconds per image of the configurations of Table XII, means over seeds.

    None for runs that did not measure it.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, seeds in _configurations(group):
        measured = [_milliseconds(reader, source) for source in seeds.values()]
        if any(math.isfinite(value) for times in measured for value in times.values()):
            for metric in TIMES:
                row = over_seeds("time", method, group, metric, [times[metric] for times in measured])
                rows.append(row._replace(length=length_of(seeds)))
    return rows


def _milliseconds(reader: AnswerReader, source: RunReadout) -> dict[str, float]:
    """Milliseconds per image of the test sets of the sequence, after the last experience.

    With the soft gate every node that holds a head scores the image; with the hard one a single node does,
    whose time is taken for their mean. One pass describes the image for the gates of all tasks, so theirs is
    the mean, too.
    """
    record = source.record
    nodes = unique(node for node, _ in record.steps[-1].heads)
    scoring = gating = 0.0
    images = 0
    for test in record.sequence:
        answers = reader.answers(record, len(record.steps) - 1, test)
        if answers is None:
            return dict.fromkeys(TIMES, metrics.NAN)
        images += len(answers.mos)
        heads = [_seconds(reader, source, node, test) for node in nodes]
        gates = [_seconds(reader, source, node, test) for node in record.gates.values()]
        scoring += sum(heads) / (len(heads) if source.readout == "gate-hard" else 1)
        gating += sum(gates) / len(gates) if gates else 0.0
    per_image = [1000 * seconds / images if images else metrics.NAN for seconds in (scoring, gating)]
    return dict(zip(TIMES, [*per_image, sum(per_image)], strict=True))


def _seconds(reader: AnswerReader, source: RunReadout, node: str, test: str) -> float:
    answers = source.record.answers.get(node, {}).get(test)
    return float(reader.facts(answers).get("score_seconds", math.nan)) if answers else math.nan


def shape_time(rows: list[TidyRow]) -> Table:
    """A row per configuration; milliseconds per image as columns."""
    heads = {"network": "Network", "gate": "Gate", "total": "Total"}
    caption = (
        "Measured milliseconds per image of the test sets after the last experience, on the machine and at "
        "the image sizes of these runs: the passes that score the image, the pass that describes it for the "
        "gate, and both. Differs from one computation to the next."
    )
    section = build(
        "", rows, _namer(rows), lambda row: heads[row.metric], [*heads.values()], True,
        dict.fromkeys(heads.values(), 2), (),
    )  # fmt: skip
    return Table("time", caption, ("", "Configuration"), [*heads.values()], [section])
