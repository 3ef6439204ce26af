"""The main job from an empty cache, and once more with everything done."""

from __future__ import annotations

from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.bench.process import Ran, run

MAIN = ("run", "--strategy", "tsn", "--orders", "all")
LONG = 3
"""Most repeats of what takes a minute."""


def where(setting: Conditions, name: str) -> list[str]:
    """Returns the flags that say where a run computes and writes."""
    device = ["--device", setting.device, "--precision", setting.precision]
    return ["--out", str(setting.folder / name), *device]


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    first: list[Ran] = []
    again: list[Ran] = []
    told: list[Ran] = []
    for repeat in range(min(setting.repeats, LONG)):
        cache, words = setting.folder / f"cache{repeat}", where(setting, f"runs{repeat}")
        first.append(run([*MAIN, *words], cache))
        again += [run([*MAIN, *words], cache) for _ in range(2)]
        report = ["report", "--out", words[1], "--format", "csv,md,tex", "--no-figures"]
        told += [run(report, cache) for _ in range(2)]
    what = f"tsn, all orders, on the miniatures, in {setting.precision}"
    yield Measurement(
        "main-job", f"{what}, empty cache", _times(first), "s", reach=90, better="lower",
        note="makes and decodes the miniatures, trains, tests, reports, draws",
    )  # fmt: skip
    yield Measurement("main-job", "its memory at the peak", _gigabytes(first), "GB", reach=4, better="lower")
    yield Measurement("main-job", f"{what}, everything done", _times(again), "s", reach=5, better="lower")
    yield Measurement("main-job", "report: its tables", _times(told), "s", reach=3, better="lower")


def _times(ran: list[Ran]) -> tuple[float, ...]:
    return tuple(r.seconds for r in ran)


def _gigabytes(ran: list[Ran]) -> tuple[float, ...]:
    return tuple(r.peak_bytes / 1e9 for r in ran)
