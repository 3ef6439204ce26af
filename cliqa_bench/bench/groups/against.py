"""This version of the suite against another installed one: the same commands, in turn.

A ratio without a look at the answers does not count: where no answer file of both sides can be compared, the
main job has no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups.main_job import MAIN
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.bench.other_version import (
    AnswerDifference,
    Installation,
    Took,
    compare_answers,
    installations,
    timed,
)
from cliqa_bench.errors import UserError
from cliqa_bench.progress import track

Pair = tuple[Installation, Installation]
"""This version, and the other one."""
Words = Callable[[Path], list[str]]
"""A folder of one repeat of one side -> a command line."""


def measure(setting: Conditions) -> Iterator[Measurement | Failed]:
    """Gives the rows of the group.

    Raises:
        UserError: If there is no other version, or a command of either fails.
    """
    if setting.against is None:
        raise UserError("there is nothing to compare with; give --against PYTHON")
    elsewhere = setting.folder / "elsewhere"
    elsewhere.mkdir()
    sides = installations(setting.against, elsewhere)
    main = [*MAIN, "--device", setting.device, "--precision", setting.precision]
    yield from _main_job(setting, sides, main)
    for what, words in _afterwards(main).items():
        yield _row(what, _in_turn(setting, sides, words, what), sides, "cpu_seconds", "s of CPU")


def _afterwards(main: list[str]) -> dict[str, Words]:
    """Returns what is measured in the folders that the main job has left."""
    report = ["report", "--format", "csv,md,tex", "--no-figures", "--out"]
    return {
        "the main job, everything done": lambda folder: [*main, "--out", str(folder / "runs")],
        "report: its tables": lambda folder: [*report, str(folder / "runs")],
        "data make": lambda folder: ["data", "make", str(folder / "made")],
        "list": lambda folder: ["list"],
        "--help": lambda folder: ["--help"],
    }


def _main_job(setting: Conditions, sides: Pair, main: list[str]) -> Iterator[Measurement | Failed]:
    took = _in_turn(setting, sides, lambda folder: [*main, "--out", str(folder / "runs")], "main job")
    found = [
        compare_answers(*(_folder(setting, side, repeat) / "runs" for side in (0, 1)))
        for repeat in range(setting.repeats)
    ]
    if not min(difference.files for difference in found):
        yield Failed(
            "main job", "the two have no answer file in common: nothing shows that they did the same"
        )
        return
    worst = AnswerDifference(*(max(values) for values in zip(*found, strict=True)))
    what = f"tsn, all orders, on the miniatures, in {setting.precision}, empty cache"
    yield _row(what, took, sides, "cpu_seconds", "s of CPU", worst.line() + _other_packages(sides))
    yield _row(what, took, sides, "seconds", "s", worst.line())
    yield _row("its memory at the peak", took, sides, "peak_gigabytes", "GB")


def _other_packages(sides: Pair) -> str:
    """Names the packages of which the two sides have different versions."""
    ours, theirs = (side.packages for side in sides)
    others = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
    return f"; the other side has {', '.join(others)}" if others else ""


def _folder(setting: Conditions, side: int, repeat: int) -> Path:
    return setting.folder / f"{('ours', 'theirs')[side]}{repeat}"


def _in_turn(setting: Conditions, sides: Pair, words: Words, what: str) -> tuple[list[Took], list[Took]]:
    """Runs a command of both sides, in turn; the side that begins changes from repeat to repeat."""
    took: tuple[list[Took], list[Took]] = ([], [])
    for repeat in track(range(setting.repeats), setting.repeats, what, "round"):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            folder = _folder(setting, side, repeat)
            folder.mkdir(exist_ok=True)
            took[side].append(timed(sides[side], words(folder), folder / "cache"))
    return took


def _row(
    what: str, took: tuple[list[Took], list[Took]], sides: Pair, field: str, unit: str, note: str = ""
) -> Measurement:
    ours, theirs = (tuple(getattr(one, field) for one in side) for side in took)
    against = f"cliqa-bench {sides[1].version}"
    return Measurement("against", what, ours, unit, theirs, against, better="lower", note=note)
