"""What a measurement is: two sides of one comparison, taken in turn, and what was to be reached."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from cliqa_bench.progress import track

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One row of the benchmark.

    Attributes:
        row: Name of the row's group, the word of `--rows` ("scoring").
        what: What was measured, in a few words.
        ours: Our values, one per repeat, in `unit`.
        reference: The other side's, taken in the same run; none where the value itself is to be reached.
        against: What the other side is ("the limit: a bare loop of seven passes"); "" for none.
        unit: Of both ("image/s", "s", "MB", "image passes").
        reach: What is to be reached: by the ratio ours / reference, or by ours without a reference;
            None where the row only informs.
        better: Whether "higher" or "lower" is better.
        note: What else a reader must know, in one line.
        raw: Further values behind those, for the JSON file alone.
    """

    row: str
    what: str
    ours: tuple[float, ...]
    unit: str
    reference: tuple[float, ...] = ()
    against: str = ""
    reach: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""
    raw: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Median of our values."""
        return statistics.median(self.ours)

    @property
    def reference_value(self) -> float:
        """Median of the other side's values; nan if there are none."""
        return statistics.median(self.reference) if self.reference else math.nan

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours / reference, repeat by repeat: what slowed the machine down slowed both sides of it."""
        return tuple(a / b for a, b in zip(self.ours, self.reference, strict=bool(self.reference)))

    @property
    def ratio(self) -> float | None:
        """Median of the ratios; None without a reference."""
        return statistics.median(self.ratios) if self.reference else None

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches what was to be reached; None where nothing was."""
        if self.reach is None:
            return None
        got = self.value if self.ratio is None else self.ratio
        return got >= self.reach if self.better == "higher" else got <= self.reach


class Failed(NamedTuple):
    """One check of a group that failed; the other checks are still run.

    Attributes:
        what: What was checked, in a few words.
        reason: What went wrong, in one line.
    """

    what: str
    reason: str


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def synchronised(call: Callable[[], object], device: torch.device) -> float:
    """Returns how long a call takes on a device, until all of it is done there."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def quickest(candidates: Sequence[T], run: Callable[[T], object]) -> T:
    """Returns the one of several that runs in the shortest time, after all of them have run once."""
    for one in candidates:
        run(one)
    return min(candidates, key=lambda one: seconds(lambda: run(one)))


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done its work; a CPU has by then."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def interleaved(
    sides: Sequence[Callable[[], float]], repeats: int, warm_up: int = 1, what: str = "measure"
) -> list[tuple[float, ...]]:
    """Takes the sides of a comparison in turn, so that a slow moment of the machine hits all of them.

    Args:
        sides: Each measures once and returns its value.
        repeats: How often.
        warm_up: Rounds whose values are thrown away.
        what: Said beside the progress bar.

    Returns:
        For each side its values, one per repeat.
    """
    n = warm_up + repeats
    rounds = [[side() for side in sides] for _ in track(range(n), n, what, "round")]
    return list(zip(*rounds[warm_up:], strict=True))
