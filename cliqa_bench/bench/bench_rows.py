"""The groups of rows, and where each is measured.

A group is a module in `groups` with a function `measure(setting) -> Iterator[Measurement | Failed]`. It gives
its rows one by one, so that what was measured stays if a later row fails; a `Failed` in place
of a row reports one check that failed, and the group continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.errors import unknown
from cliqa_bench.terminal import text_table


class RowGroup(NamedTuple):
    """A group of rows that are measured together.

    Attributes:
        title: What it measures, in a few words.
        module: Name of the module in `groups` that does.
        by_default: Whether `bench` measures it unasked; not so what takes long.
        in_all: Whether the word "all" stands for it, too; not so what needs more than a processor and
            what is always installed.
        only: What a group that is not in "all" needs.
    """

    title: str
    module: str
    by_default: bool = True
    in_all: bool = True
    only: str = "for a GPU"


GROUPS: dict[str, RowGroup] = {
    "main-job": RowGroup("the main job on the miniatures from an empty cache, and once more", "main_job"),
    "orders": RowGroup("TSN over eight orders against one", "order_growth"),
    "startup": RowGroup("help, and the plan of 720 orders", "startup"),
    "scoring": RowGroup(
        "test images a second, against the limit and against the published way", "score_speed"
    ),
    "training": RowGroup("training images a second (TSN, LwF, SI), against the bare loop", "training"),
    "growth": RowGroup("time against the number of images and of tasks: linear or not", "growth"),
    "precision": RowGroup("scores and SRCC in bfloat16 against float32, alone and in batches", "precision"),
    "first-batch": RowGroup(
        "from the command to the first mini-batch of a set of KonIQ-10k's size",
        "first_batch",
        by_default=False,
    ),
    "memory": RowGroup("memory of a run on six sets of real-size images", "peak_memory", by_default=False),
    "pairs": RowGroup(
        "image passes to a validation SRCC, two kinds of pairs", "pair_kinds", by_default=False
    ),
    "against": RowGroup(
        "this version against another one, in turn, with the difference of their answers",
        "against",
        by_default=False,
        in_all=False,
        only="with --against",
    ),
    "liqe": RowGroup(
        "LIQE with CLIP's towers: training, scoring, texts, against bare loops",
        "liqe_speed",
        by_default=False,
        in_all=False,
        only="with the extra [clip]",
    ),
    "device": RowGroup(
        "the control: matrix products and copies", "device_control", by_default=False, in_all=False
    ),
    "gpu-works": RowGroup(
        "whether everything works on the device", "gpu_works", by_default=False, in_all=False
    ),
    "gpu-speed": RowGroup(
        "training and scoring against bare loops, six tasks in one pass",
        "gpu_speed",
        by_default=False,
        in_all=False,
    ),
    "gpu-tenth": RowGroup(
        "eight orders on a tenth of the images of six real sets", "gpu_tenth", by_default=False, in_all=False
    ),
    "gpu-size": RowGroup(
        "eight orders on as many images as six real sets have", "gpu_size", by_default=False, in_all=False
    ),
}

SETS: dict[str, tuple[str, ...]] = {"gpu": ("device", "gpu-works", "gpu-speed", "gpu-tenth")}
"""A word of `--rows` -> the groups that it stands for, measured in the order of `GROUPS`."""


def chosen_groups(words: Sequence[str]) -> list[str]:
    """Returns the groups that are asked for, in the order of `GROUPS`.

    Args:
        words: Names of groups and of `SETS`; none for what takes no long time, "all" for all but what is of a
            GPU alone.

    Raises:
        UserError: If there is no such group.
    """
    if not words:
        return [name for name, group in GROUPS.items() if group.by_default]
    sets = {**SETS, "all": tuple(name for name, group in GROUPS.items() if group.in_all)}
    for word in words:
        if word not in GROUPS and word not in sets:
            raise unknown("group of rows (--rows)", word, [*GROUPS, *sets])
    wanted = {name for word in words for name in sets.get(word, (word,))}
    return [name for name in GROUPS if name in wanted]


def measure(name: str, setting: Conditions) -> Iterator[Measurement | Failed]:
    """Gives the rows of a group, as they are measured."""
    module = import_module(f"cliqa_bench.bench.groups.{GROUPS[name].module}")
    rows: Iterator[Measurement | Failed] = module.measure(setting)
    return rows


def listing() -> str:
    """Returns the groups and their sets as text for the terminal."""
    groups = [(name, f"{group.title}{_asked_for(group)}") for name, group in GROUPS.items()]
    return text_table([*groups, *((word, ", ".join(names)) for word, names in SETS.items())])


def _asked_for(group: RowGroup) -> str:
    if not group.in_all:
        return f" ({group.only}: only by --rows, not in 'all')"
    return "" if group.by_default else " (long: only by --rows)"
