"""The groups of rows, and where each is measured.

A group is a module beside this one with a function `measure(setting) -> Iterator[Measurement]`. It gives its
rows one by one, so that what was measured stays if a later row fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.errors import unknown
from cliqa_bench.terminal import text_table


class RowGroup(NamedTuple):
    """A group of rows that are measured together.

    Attributes:
        title: What it measures, in a few words.
        module: Name of the module in `groups` that does.
        by_default: Whether `bench` measures it unasked; not so what takes long.
    """

    title: str
    module: str
    by_default: bool = True


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
    "device": RowGroup("the control: matrix products and copies", "device_control", False),
    "gpu-speed": RowGroup("training and scoring against bare loops, six tasks in one pass", "gpu_speed", False),
    "gpu-tenth": RowGroup("eight orders on a tenth of the images of six real sets", "gpu_tenth", False),
    "gpu-size": RowGroup("eight orders on as many images as six real sets have", "gpu_size", False),
}


def chosen_groups(words: Sequence[str]) -> list[str]:
    """Returns the groups that are asked for, in the order of `GROUPS`.

    Args:
        words: Names; none for those that need no long time, "all" for all.

    Raises:
        UserError: If there is no such group.
    """
    for word in words:
        if word not in GROUPS and word != "all":
            raise unknown("group of rows (--rows)", word, [*GROUPS, "all"])
    if not words:
        return [name for name, group in GROUPS.items() if group.by_default]
    return [name for name in GROUPS if name in words or "all" in words]


def measure(name: str, setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of a group, as they are measured."""
    module = import_module(f"cliqa_bench.bench.groups.{GROUPS[name].module}")
    rows: Iterator[Measurement] = module.measure(setting)
    return rows


def listing() -> str:
    """Returns the groups as text for the terminal."""
    long = " (long: only by --rows)"
    return text_table([(n, f"{g.title}{'' if g.by_default else long}") for n, g in GROUPS.items()])
