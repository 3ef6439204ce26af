"""TSN-IQA over the paper's eight orders against one: nothing but reading depends on the order."""

from __future__ import annotations

from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.groups.main_job import LONG, MAIN, where
from cliqa_bench.bench.measurement import Measurement, interleaved
from cliqa_bench.bench.process import run


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the row of the group."""
    cache, number = setting.folder / "cache", iter(range(1000))
    run([*MAIN[:4], "I", *where(setting, "warm")], cache)  # makes and decodes the miniatures

    def side(orders: str) -> float:
        return run([*MAIN[:4], orders, *where(setting, f"runs{next(number)}")], cache).seconds

    repeats = min(setting.repeats, LONG)
    eight, one = interleaved([lambda: side("all"), lambda: side("I")], repeats, 0, "eight orders, one")
    yield Measurement(
        "orders", f"tsn, eight orders, in {setting.precision}", eight, "s", one, "order I alone", reach=1.05,
        better="lower", note="fresh outputs, cache warm; evaluation, tables and figures included",
    )  # fmt: skip
