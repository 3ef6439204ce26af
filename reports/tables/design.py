"""Table VII, the effect of TSN-IQA's design choices, and XIII, the effect of chance on methods."""

from __future__ import annotations

from collections import Counter

from cliqa_bench.reports.measure import SUMMARY
from cliqa_bench.reports.methods import Method, namer, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import ONCE, SEEDS, SPLITS, kind_of_units
from cliqa_bench.reports.tables.shapes import Section, Table, build
from cliqa_bench.reports.tables.tsn import Runs, default_runs, length_of, over_runs, runs_of, summaries
from cliqa_bench.results.records import AnswerReader

# in the paper's words
SHARED, IMAGENET, HIERARCHY = (
    "Task-agnostic BN",
    "ImageNet Pre-trained BN (for KG)",
    "Feature hierarchy: ",
)
REFERENCE, BACKBONE, DEFAULT = "reference", "Backbone", "default setting"
SAME_GATE = "same gate as by default: the backbone was pre-trained on distortions"
_CHOICES = {"norms=shared": SHARED, "gate_bn=imagenet": IMAGENET}
_SECTIONS = ("Reference", "Normalisation", "Feature hierarchy", "Other settings", "Backbone")


def design_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns mPSI and mSRCC of TSN-IQA by design choice and backbone (Table VII), see `over_runs`.

    One backbone bears the design choices: the one with most of them, of several ResNet-18 as in the paper.
    LwF-KG is listed beside them for reference. None unless there are two choices to compare.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    found = runs_of(group, "tsn")
    if len(found) < 2:
        return []
    tried = Counter(method.backbone for method in found)
    main = max(sorted(tried), key=lambda name: (tried[name], name == "ResNet-18"))
    chosen = [(m._replace(variant=REFERENCE), runs) for m, runs in default_runs(group, "lwf").items()]
    chosen += [(m._replace(variant=_choice(m, runs, main)), runs) for m, runs in found.items()]
    shared = set.intersection(*(set(runs) for runs in found.values()))
    default_gates = [
        source.record.gates
        for method, runs in found.items()
        if not method.variant
        for source in runs.values()
    ]
    rows = []
    for method, all_runs in chosen:
        # the effect of chance on one run must not be taken for that of a choice
        runs = {run: source for run, source in all_runs.items() if run in shared} or all_runs
        numbers = summaries(reader, runs)
        record = next(iter(runs.values())).record
        note = DEFAULT if method.variant.startswith(HIERARCHY) and not record.variant else ""
        if method.variant == IMAGENET and record.gates in default_gates:
            note = SAME_GATE
        for metric in ("mPSI", "mSRCC"):
            row = over_runs("VII", method, group, metric, numbers[metric], note)
            rows.append(row._replace(length=length_of(runs)))
    return sorted(rows, key=lambda row: (_SECTIONS.index(_kind(row)), len(row.variant)))


def _choice(method: Method, runs: Runs, main: str) -> str:
    """Names a design choice as the paper does; one that it did not try keeps the names of its settings."""
    if method.backbone != main:
        return BACKBONE + (f", {method.variant}" if method.variant else "")
    record = next(iter(runs.values())).record
    staged = method.variant.startswith("stages=") and method.variant.count("=") == 1
    if not method.variant or staged:
        stages = "+".join(map(str, record.stages))
        return f"{HIERARCHY}Stage{'s' if len(record.stages) > 1 else ''} {stages}"
    return _CHOICES.get(method.variant, method.variant)


def _kind(row: TidyRow) -> str:
    if row.variant == REFERENCE:
        return "Reference"
    if row.variant.startswith((HIERARCHY, BACKBONE)):
        return "Feature hierarchy" if row.variant.startswith(HIERARCHY) else "Backbone"
    return "Normalisation" if row.variant in (SHARED, IMAGENET) else "Other settings"


def shape_design(rows: list[TidyRow]) -> Table:
    """A section per kind of choice, the columns mPSI and mSRCC."""
    columns = ["mPSI", "mSRCC"]

    def name(row: TidyRow) -> str:
        if row.variant == REFERENCE:
            return f"{row.method} [{row.backbone}]"
        if row.variant.startswith(BACKBONE):
            return row.backbone + row.variant.removeprefix(BACKBONE)
        if row.note.startswith(SAME_GATE):
            return f"{row.variant}: the default's"
        return row.variant.removeprefix(HIERARCHY) + (" (default)" if row.note.startswith(DEFAULT) else "")

    sections = [
        build(kind, own, name, lambda row: row.metric, columns)
        for kind in _SECTIONS
        if (own := [row for row in rows if _kind(row) == kind])
    ]
    main = next((r.backbone for r in rows if _kind(r) not in ("Reference", "Backbone")), "")
    caption = (
        f"TSN-IQA with different design choices{f' on {main}' if main else ''}, and on other backbones with "
        "the default setting; LwF-KG for reference. Best results of each section in bold."
    )
    return Table("VII", caption, ("Design choice", "Variant"), columns, sections)


def seed_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns mean and standard deviation (ddof=1) over seeds of the task-agnostic methods (Table XIII).

    Over splits, where there are several. A method with one run is a dash (its variants are left out); none
    where no method has two.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    found = {
        method: runs
        for method, runs in sources(group).items()
        if method.setting == "Task-Agnostic" and (len(runs) > 1 or not method.variant)
    }
    if max(map(len, found.values()), default=0) < 2:
        return []
    kind = kind_of_units(run for runs in found.values() for run in runs)
    rows = []
    for method, runs in found.items():
        n = len({run.split if kind == SPLITS else run.seed for run in runs})
        numbers = summaries(reader, runs) if n > 1 else {metric: {} for metric in SUMMARY}
        own = [over_runs("XIII", method, group, metric, numbers[metric]) for metric in SUMMARY]
        own.append(over_runs("XIII", method, group, kind, {ONCE: n}))
        rows += [row._replace(length=length_of(runs)) for row in own]
    return rows


def shape_seeds(rows: list[TidyRow]) -> Table:
    """A section per backbone, a column per summary number, and one with the number of runs."""
    there = {row.metric for row in rows}
    columns = [*SUMMARY, *(kind for kind in (SPLITS, SEEDS) if kind in there)]
    sections: list[Section] = []
    for backbone in unique(row.backbone for row in rows):
        own = [row for row in rows if row.backbone == backbone]
        metric = build(
            backbone, own, namer(own), lambda row: row.metric, columns, True, {SEEDS: 0, SPLITS: 0}, SUMMARY
        )
        sections.append(metric)
    what = ("splits of the data", SPLITS) if SPLITS in there else ("seeds of the training", SEEDS)
    caption = (
        f"Mean ± standard deviation (ddof = 1) over {what[0]}, task-agnostic methods; a dash where there are "
        f"fewer than two {what[1]}. Best means of each section in bold."
    )
    return Table("XIII", caption, ("Backbone", "Method"), columns, sections)
