"""LIQE's Tables 4 and 5: what its parts and its tasks do; how often scenes and distortions are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.aspects import DISTORTIONS, SCENES
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, label_of, make_row, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import Replicate, counted
from cliqa_bench.reports.tables.jackknife import LEVEL
from cliqa_bench.reports.tables.liqe import (
    ABLATED,
    JOINT,
    METHOD,
    OURS,
    about,
    by_setting,
    filled,
    liqe_runs,
    mean_srcc_of,
    srcc_of,
)
from cliqa_bench.reports.tables.shapes import Section, Table, build
from cliqa_bench.reports.tables.ssiqa import options_of
from cliqa_bench.reports.tables.statistics import known_agreements
from cliqa_bench.results.records import AnswerReader

ABLATIONS = {
    (): "",
    (("freeze_text", "True"),): "(3) Frozen Textual Encoder",
    (("weighting", "equal"),): "(5) Equal Task Weightings",
}
"""What was left out -> its name in the paper."""
IMAGE_TOWER = "(6) Fine-Tuned Visual Encoder Only"
"""The paper's name for what is JL here: the same network with a linear head."""
TASKS = {
    "q": "Quality", "qs": "Quality + Scene", "qd": "Quality + Distortion", "qsd": "All Tasks",
}  # fmt: skip
"""What is learned -> its name in the paper."""
SCENE, DISTORTION = "ACC_scene", "ACC_distortion"
COMMONEST = "always the commonest"
"""Says of every image what most test images have."""


class _Variation(NamedTuple):
    """Rows of a variant: the paper's word for it, and what else it has."""

    setting: str
    backbone: str
    rest: str
    word: str
    rows: list[TidyRow]


def _text(options: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _where_several(found: Sequence[_Variation], main: str) -> list[TidyRow]:
    """Returns the rows of variants beside the main one, all else being alike."""
    words: dict[tuple[str, ...], set[str]] = {}
    for one in found:
        words.setdefault(one[:3], set()).add(one.word)
    kept = [one for one in found if main in words[one[:3]] and len(words[one[:3]]) > 1]
    return [row for one in kept for row in one.rows]


# --------------------------------------------------------------------------------------------------- ablation


def _ablation_of(method: Method) -> tuple[str, str] | None:
    """Returns what was left out of LIQE, and the variant without it; None for what is not in the table."""
    options = options_of(method.variant)
    if method.method == JOINT:
        return None if options else (IMAGE_TOWER, "")
    if method.method not in OURS or "tasks" in options:
        return None
    off = {name: options.pop(name) for name in ABLATED if name in options}
    word = ABLATIONS.get(tuple(sorted(off.items())))
    return None if word is None else (word, _text(options))


def left_out_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 4: SRCC on every dataset, and its mean, of LIQE and of what something was left out of.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    found, tests = [], group.main_record.sequence
    for method, runs in liqe_runs(group).items():
        ablation = _ablation_of(method)
        if ablation is None:
            continue
        word, rest = ablation
        row = about("liqe_4", group, method, runs)._replace(variant=joined_note(word, rest))
        titles = next(iter(runs.values())).record.titles
        rows = [
            filled(row, group, "SRCC", titles.get(test, test),
                   {run: srcc_of(reader, source, test) for run, source in runs.items()})
            for test in tests
        ]  # fmt: skip
        means = {run: mean_srcc_of(reader, source) for run, source in runs.items()}
        rows.append(filled(row, group, "mSRCC", "", means))
        found.append(_Variation(method.setting, method.backbone, rest, word, rows))
    return _where_several(found, main="")


# ------------------------------------------------------------------------------------------------------ tasks


def accuracies(reader: AnswerReader, source: RunReadout, test: str) -> dict[str, float]:
    """Returns how often a run finds scenes and distortions of test images after the last experience.

    Returns:
        `SCENE` and `DISTORTION` as far as it learned them, each also of what is `COMMONEST`.
    """
    answers = reader.answers(source.record, len(source.record.steps) - 1, test)
    extras = {} if answers is None else answers.extras
    if not {"aspects", "true_aspects"} <= extras.keys():
        return {}
    said, true = extras["aspects"], extras["true_aspects"]
    found: dict[str, float] = {}
    for metric, columns, of in (
        (SCENE, slice(0, len(SCENES)), metrics.scene_accuracy),
        (DISTORTION, slice(-len(DISTORTIONS), None), metrics.distortion_accuracy),
    ):
        if said.shape[1] in (columns.stop or len(DISTORTIONS), len(SCENES) + len(DISTORTIONS)):
            labels = true[:, columns]
            found[metric] = of(said[:, columns], labels)
            found[f"{metric}: {COMMONEST}"] = of(_commonest(labels), labels)
    return found


def _commonest(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns for every image (n, words) how common each word is."""
    return np.tile(labels.sum(axis=0), (len(labels), 1))


def _mean_accuracies(reader: AnswerReader, source: RunReadout) -> dict[str, float]:
    """Returns the means of `accuracies` over the datasets that a run learned."""
    each = [accuracies(reader, source, test) for test in source.record.sequence]
    return {metric: fmean(one.get(metric, math.nan) for one in each) for metric in each[0]}


def task_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 5: mean SRCC and accuracies of LIQE with all tasks and with fewer.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    found = []
    for method, runs in liqe_runs(group).items():
        if method.method not in OURS:
            continue
        options = options_of(method.variant)
        word = TASKS[options.pop("tasks", "qsd")]
        row = about("liqe_5", group, method, runs)._replace(variant=joined_note(word, _text(options)))
        means = {run: mean_srcc_of(reader, source) for run, source in runs.items()}
        rows = [filled(row, group, "mSRCC", "", means)]
        each = {run: _mean_accuracies(reader, source) for run, source in runs.items()}
        for metric in (SCENE, DISTORTION):
            if any(metric in one for one in each.values()):
                values = {run: one.get(metric, math.nan) for run, one in each.items()}
                rows.append(filled(row, group, f"m{metric}", "", values))
        found.append(_Variation(*method[:3], joined_note(method.method, _text(options)), rows))
    return _of_several_tasks(found)


def _of_several_tasks(found: Sequence[_Variation]) -> list[TidyRow]:
    """Returns the rows of what was learned with several numbers of tasks, all else being alike."""
    alike: dict[tuple[str, ...], list[TidyRow]] = {}
    for one in found:
        alike.setdefault(one[:4], []).extend(one.rows)
    several = [rows for rows in alike.values() if len({row.variant for row in rows}) > 1]
    return [row for rows in several for row in rows]


def aspect_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns how often each method finds scenes and distortions, on every dataset and in the mean.

    Metrics are `ACC_scene`, `ACC_distortion`, and the same of what is `COMMONEST`; means begin with an m.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    rows = []
    for method, runs in liqe_runs(group).items():
        row = about("liqe_aspects", group, method, runs)
        titles = next(iter(runs.values())).record.titles
        for test in group.main_record.sequence:
            each = {run: accuracies(reader, source, test) for run, source in runs.items()}
            rows += _of_each(row, group, titles.get(test, test), each, "")
        means = {run: _mean_accuracies(reader, source) for run, source in runs.items()}
        rows += _of_each(row, group, "", means, "m")
    return rows


def _of_each(
    row: TidyRow, group: RunGroup, test: str, each: Mapping[Replicate, Mapping[str, float]], begin: str
) -> list[TidyRow]:
    measured = unique(metric for one in each.values() for metric in one)
    return [
        filled(
            row,
            group,
            f"{begin}{metric}",
            test,
            {run: one.get(metric, math.nan) for run, one in each.items()},
        )
        for metric in measured
    ]


def gain_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns what scenes and distortions add to the mSRCC of quality alone, and LIQE to that of JL.

    Metrics are "mSRCC less LIQE (tasks=q)", and the same with ": low" and ": high", as in the table of power.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    runs = liqe_runs(group)
    pairs = [(one, other) for one in runs for other in runs if _gains(one, other)]
    if not pairs:
        return []
    known, tests, rows = known_agreements(group, reader), group.main_record.sequence, []
    once = "one split" if len(group.splits) > 1 else "one seed"
    for one, other in pairs:
        found = known.less(one, other, tests)
        low, high = found.interval
        paired = "" if known.runs[one] == known.runs[other] else "not the same runs"
        note = joined_note(counted(known.runs[one]) or once, paired, known.note)
        for end, value in {"": found.value, ": low": low, ": high": high}.items():
            metric = f"mSRCC less {other.label}{end}"
            rows.append(make_row("liqe_gain", one, group.main_order, metric, value, note))
    return rows


def _gains(one: Method, other: Method) -> bool:
    """Tells whether the difference of two methods is what tasks add, all else being alike."""
    if one[:2] != other[:2] or one.method not in OURS:
        return False
    mine, theirs = options_of(one.variant), options_of(other.variant)
    more = mine.pop("tasks", "qsd") != "q"
    if other.method == JOINT:
        return more and not mine and not theirs
    return more and other.method == one.method and theirs.pop("tasks", "qsd") == "q" and mine == theirs


# ----------------------------------------------------------------------------------------------------- shapes


def _name(row: TidyRow) -> str:
    return f"{row.method}, {row.variant}" if row.variant else row.method


def shape_left_out(rows: list[TidyRow]) -> Table:
    """A section per setting, a row per variant, a column per test set and one for their mean."""
    heads = {row.test_dataset or row.metric: row for row in rows}
    columns = [*(head for head in heads if head != "mSRCC"), "mSRCC"]
    sections = by_setting(rows, lambda row: row.test_dataset or row.metric, columns, _name)
    caption = (
        "LIQE, ablation (Table 4 of its paper): SRCC on the test images of each dataset, and its mean. "
        f"{IMAGE_TOWER}: JL on the same backbone, with mini-batches of one dataset and without texts."
    )
    return Table("liqe_4", caption, ("Setting", "Variant"), columns, sections)


def shape_tasks(rows: list[TidyRow]) -> Table:
    """A section per setting, a row per combination of tasks."""
    columns = ["mSRCC", f"m{SCENE}", f"m{DISTORTION}"]
    sections = by_setting(rows, lambda row: row.metric, columns, _name)
    caption = (
        "LIQE with all tasks and with fewer (Table 5 of its paper): means over the datasets of SRCC and of "
        f"the accuracies of scenes and distortions. {_ACCURACY}"
    )
    return Table("liqe_5", caption, ("Setting", "Tasks"), columns, sections)


_ACCURACY = (
    "Scene: for an image with k scenes the k most probable ones count as named; the share of all scenes "
    "shown that are named. Distortion: the most probable one."
)


def shape_aspects(rows: list[TidyRow]) -> Table:
    """A section for scenes and one for distortions, a row per method, a column per test set."""
    tests = [*unique(row.test_dataset for row in rows if row.test_dataset), "Mean"]
    sections: list[Section] = []
    for label, metric in (("Scene", SCENE), ("Distortion", DISTORTION)):
        own = [row for row in rows if metric in row.metric]
        # what is commonest last
        own.sort(key=lambda row: row.metric.endswith(COMMONEST))
        if own:
            sections.append(
                build(label, own, _namer(rows), lambda r: r.test_dataset or "Mean", tests, True, best=())
            )
    caption = (
        f"How often scenes and distortions of test images are found. {_ACCURACY} {COMMONEST.capitalize()}: "
        "what naming the commonest of the test set for every image would give."
    )
    return Table("liqe_aspects", caption, ("", "Method"), tests, sections)


def _namer(rows: Sequence[TidyRow]) -> Callable[[TidyRow], str]:
    several = len({row.backbone for row in rows}) > 1

    def name(row: TidyRow) -> str:
        if row.metric.endswith(COMMONEST):
            labels = options_of(row.variant).get("labels")
            return COMMONEST + (f" (labels={labels})" if labels else "")
        return label_of(row) + (f" [{row.backbone}]" if several else "")

    return name


def shape_gain(rows: list[TidyRow]) -> Table:
    """A section per setting, a line per pair."""
    heads = {"": "Gain", "low": "Low", "high": "High"}

    def name(row: TidyRow) -> str:
        return f"{label_of(row)} less {row.metric.partition(' less ')[2].partition(': ')[0]}"

    sections = by_setting(rows, lambda row: heads[row.metric.partition(": ")[2]], heads.values(), name)
    caption = (
        f"What scenes and distortions add to {METHOD}'s mSRCC, and {METHOD} to that of a network with a "
        f"linear head ({JOINT}), with {LEVEL:.0%} intervals (see docs/statistics.md). In the paper each "
        "gain is .007."
    )
    return Table("liqe_gain", caption, ("Setting", "Pair"), [*heads.values()], sections)
