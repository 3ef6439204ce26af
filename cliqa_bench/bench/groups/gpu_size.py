"""The eight orders on as many images as the six real datasets have."""

from __future__ import annotations

from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.eight_orders import eight_orders
from cliqa_bench.bench.measurement import Measurement


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    passed = eight_orders(setting, setting.scale)
    yield Measurement(
        "gpu-size", passed.what, (passed.ran.seconds,), "s", reach=600, better="lower",
        note="empty cache; preset paper with all pairs of a mini-batch; report and figures included; "
        f"{passed.taken}",
    )  # fmt: skip
