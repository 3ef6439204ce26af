"""What `--slurm` says: options of sbatch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cliqa_bench.errors import UserError
from cliqa_bench.settings.resolve import words

MOST_TASKS = 1000
"""Tasks in one array; Slurm itself takes 1001 unless it is told otherwise."""

WARNING = 90
"""Seconds before the time limit at which a task is requeued, where `signal` does not say otherwise."""

_NOT_OURS = ("output", "error", "open-mode", "wrap", "chdir", "wait", "ntasks", "nodes", "ntasks-per-node")
"""What would take the logs away, or make a task anything but one process."""


@dataclass(frozen=True)
class SlurmOptions:
    """How an array is submitted.

    Attributes:
        array: Number of tasks.
        minutes: Time limit of each.
        warning: Seconds before it at which the task is requeued.
        more: Further options of sbatch under their long names; True for one without a value.
    """

    array: int
    minutes: int
    warning: int
    more: dict[str, str | bool]


def slurm_options(value: str | Iterable[str] | None) -> SlurmOptions:
    """Reads `partition=gpu,gpus=1,time=4:00:00,array=16`.

    Raises:
        UserError: If an option cannot be read, is given twice or is none of a user's, or there is no `time`.
    """
    found: dict[str, str | bool] = {}
    for word in words(value):
        name, equals, text = (part.strip() for part in word.partition("="))
        name = name.removeprefix("--").replace("_", "-")
        if not re.fullmatch("[a-z][a-z-]*", name) or (equals and not text):
            raise UserError(
                f"--slurm takes options of sbatch such as partition=gpu,time=4:00:00; not {word!r}"
            )
        if name in found or name in _NOT_OURS:
            why = "is given twice" if name in found else "is set by the suite"
            raise UserError(f"--slurm: {name} {why}; leave it out")
        found[name] = text if equals else True
    if "time" not in found:
        raise UserError("--slurm needs a time limit for each task, such as time=4:00:00")
    array = _whole("array", found.pop("array", "1"), MOST_TASKS)
    minutes = slurm_minutes(str(found.pop("time")))
    return SlurmOptions(array, minutes, _whole("signal", found.pop("signal", str(WARNING)), 65535), found)


def _whole(name: str, value: str | bool, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", str(value)) or not 1 <= int(value) <= most:
        raise UserError(f"--slurm: {name} must be a whole number from 1 to {most}, not {value!r}")
    return int(value)


def slurm_minutes(text: str) -> int:
    """Returns the minutes of a time as sbatch reads it, rounded up.

    Args:
        text: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
            days-hours:minutes:seconds.

    Raises:
        UserError: If it is none of these, or no time at all.
    """
    form = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", text)
    minutes = 0.0
    if form:
        days, *rest = form.groups()
        first, second, third = (int(part or 0) for part in rest)
        if days is not None:
            minutes = int(days) * 1440 + first * 60 + second + third / 60
        elif rest[2] is not None:
            minutes = first * 60 + second + third / 60
        else:
            minutes = first + second / 60
    if minutes <= 0:
        raise UserError(f"--slurm: time must be like 90, 4:00:00 or 1-12:00:00, not {text!r}")
    return math.ceil(minutes)
