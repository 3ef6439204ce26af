"""The eight orders on a tenth of the images of the six real datasets, and what all of them would take."""

from __future__ import annotations

from collections.abc import Iterator

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.eight_orders import WHOLE, eight_orders, foretell
from cliqa_bench.bench.measurement import Measurement

PARTS = (0.1, 0.05, 0.025)
"""Of the whole, the largest first: it is what is to be reached."""


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    images: list[float] = []
    times: list[float] = []
    for part in PARTS:
        passed = eight_orders(setting, part * setting.scale)
        images.append(passed.images)
        times.append(passed.ran.seconds)
        yield Measurement(
            "gpu-tenth", passed.what, (times[-1],), "s", reach=150 if part == PARTS[0] else None,
            better="lower",
            note="empty cache; preset paper with all pairs of a mini-batch; report and figures included; "
            f"{passed.taken}",
        )  # fmt: skip
    whole = foretell(images, times, WHOLE)
    yield Measurement(
        "gpu-tenth", f"predicted for {WHOLE:,} images by a straight line", (whole.value,), "s",
        note=f"95 % interval +- {whole.error:.0f} s, from three points", better="lower",
    )  # fmt: skip
