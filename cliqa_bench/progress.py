"""What is being done, how far it is and how long it will still take, on standard error.

`--progress HOW`, or the environment's `CLIQA_PROGRESS`, which child processes inherit, chooses the form:

- `auto`: a bar on a terminal, otherwise as `plain`;
- `plain`: a line at most every `EVERY` seconds, and one when a stage ends; none for a stage that is over
  within `DELAY` seconds;
- `json`: one event a line, for programs;
- `none`: warnings and errors only.

It changes no result, and is part of no configuration. **Events** are JSON objects, one a line, with a field
`event`; errors that end a command stay lines of text:

- `stage_started`, `progress` (at most one a second), `stage_finished`, `stage_failed` (an exception ended
  it): `stage` (what is done), `done` and `total` (counted in `unit`), `seconds` since it began, `eta_seconds`
  until it ends (null as long as that is unknown), `note` (such as the last validation SRCC; "" for none);
- `job_started`, `job_finished`, `job_failed`, `job_skipped` (it depends on one that failed), `job_taken`
  (another run is doing it), `job_died` (its process died; it is tried once more): `stage`, `kind` ("train",
  "gate", "scores", ...), `number` and `of` ("3 of 18" of this kind), `title`; once it has ended `seconds`,
  and of a failure its `reason`;
- `message`, `warning`: `text`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

from tqdm import tqdm

from cliqa_bench.errors import unknown
from cliqa_bench.terminal import plural

T = TypeVar("T")
Tick = Callable[[int, str, str], None]
"""Called with a number of images that passed, a text to show (the validation SRCC, after an epoch), and what
the images were for: "warm-up", "main", "validation", or "earlier" where an interrupted training saw them."""
How = Literal["auto", "plain", "json", "none"]

VARIABLE = "CLIQA_PROGRESS"
FLAG = "--progress"

DELAY = 2.0
"""Seconds that a stage must take before a line reports it."""

EVERY = 30.0
"""Seconds between two lines of a stage."""

EVENTS_EVERY = 1.0
"""Seconds between two `progress` events of a stage."""


def how() -> How:
    """Returns how progress is shown.

    Raises:
        UserError: If the environment's CLIQA_PROGRESS is none of the four.
    """
    return _checked(os.environ.get(VARIABLE) or "auto", VARIABLE)


def _checked(name: str, where: str) -> How:
    known: tuple[How, ...] = get_args(How)
    for one in known:
        if name == one:
            return one
    raise unknown(f"way of showing progress ({where})", name, known)


@contextmanager
def shown_as(name: str | None) -> Iterator[None]:
    """Shows progress in another way meanwhile, in child processes too; None for no other.

    Raises:
        UserError: If there is no such way.
    """
    if name is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = _checked(name, FLAG)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


# -- lines beside the bars -----------------------------------------------------------------------------------


def say(text: str) -> None:
    """Prints a line on what is being done to standard error."""
    if how() != "none":
        _write("message", text)


def warn(text: str) -> None:
    """Prints what went wrong to standard error, in a line or several."""
    _write("warning", text)


def _write(event: str, text: str) -> None:
    if how() == "json":
        _event(event, text=text)
    else:
        tqdm.write(text, file=sys.stderr)


def _event(event: str, **more: Any) -> None:
    # in one piece: several processes write to the same file
    sys.stderr.write(json.dumps({"event": event, **more}) + "\n")
    sys.stderr.flush()


# -- stages --------------------------------------------------------------------------------------------------


class Stage:
    """Something that takes a while, without showing its progress.

    Attributes:
        total: Number of steps.
        what: What is going on, in a few words.
        unit: What is counted ("image", "epoch", ...).
        done: Steps so far.
        text: What is being done at the moment, "" for nothing in particular.
        remark: The last `note`.

    Args:
        left: Gives the seconds that are left, None if unknown; None to assume that all steps take alike.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str,
        left: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done, self.text, self.remark = 0, "", ""
        self._left, self._clock = left or self._in_proportion, clock
        self._began = clock()

    def __enter__(self) -> Stage:
        """Begins."""
        self._begin()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Ends."""
        self._end(failed=error is not None)

    def update(self, steps: int = 1) -> None:
        """Counts steps that are done; less than 0 takes them back."""
        self.done += steps
        self._change(steps)

    def describe(self, text: str) -> None:
        """Says what is being done at the moment."""
        self.text = text

    def note(self, remark: str) -> None:
        """Adds a remark, until the next one."""
        self.remark = remark

    def event(self, event: str, **more: Any) -> None:
        """Sends an event to programs; people do not see it."""

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def _in_proportion(self) -> float | None:
        return self.seconds * (self.total - self.done) / self.done if self.done > 0 else None

    def _begin(self) -> None:
        pass

    def _change(self, steps: int) -> None:
        pass

    def _end(self, failed: bool) -> None:
        pass


class _Bar(tqdm):
    """A bar whose estimate is ours: that of tqdm follows the last steps, and jumps with them."""

    left: Callable[[], float | None] = staticmethod(lambda: None)

    @property
    def format_dict(self) -> dict[str, Any]:
        """Returns what the bar is made of."""
        return {**super().format_dict, "left": _clock(self.left())}


class _OnTerminal(Stage):
    """A bar that appears after a second and leaves one line behind."""

    def _begin(self) -> None:
        self._bar = _Bar(
            total=self.total, desc=self.what, unit=self.unit, delay=1, file=sys.stderr, dynamic_ncols=True,
            mininterval=0.3,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} "
            "[{elapsed}<{left}{postfix}]",
        )  # fmt: skip
        self._bar.left = self._left

    def describe(self, text: str) -> None:
        # refreshed with the next step: the bar must not appear before it is due
        self._bar.set_description(text or self.what, refresh=False)

    def note(self, remark: str) -> None:
        self._bar.set_postfix_str(remark, refresh=False)

    def _change(self, steps: int) -> None:
        self._bar.update(steps)

    def _end(self, failed: bool) -> None:
        self._bar.close()


class _AsLines(Stage):
    """A line from time to time."""

    _next = DELAY

    def _change(self, steps: int) -> None:
        if self.seconds >= self._next:
            self._next = self.seconds + EVERY
            note = f", {self.remark}" if self.remark else ""
            self._print(f"{self._so_far} in {_clock(self.seconds)}, about {_clock(self._left())} left{note}")

    @property
    def _so_far(self) -> str:
        text = f": {self.text}" if self.text else ""
        return f"{self.what}{text}: {self.done:,} of {plural(self.total, self.unit)}"

    def _end(self, failed: bool) -> None:
        if self.seconds >= DELAY:
            self.text = ""
            how_it_ended = "ended" if failed else "done"
            self._print(f"{self._so_far} {how_it_ended} in {_clock(self.seconds)}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _AsEvents(Stage):
    """Events for programs."""

    _next = EVENTS_EVERY

    def event(self, event: str, **more: Any) -> None:
        _event(event, stage=self.what, **more)

    def _begin(self) -> None:
        self._tell("stage_started")

    def _change(self, steps: int) -> None:
        if self.seconds >= self._next:
            self._next = self.seconds + EVENTS_EVERY
            self._tell("progress")

    def _end(self, failed: bool) -> None:
        self._tell("stage_failed" if failed else "stage_finished")

    def _tell(self, event: str) -> None:
        left = 0.0 if event == "stage_finished" else self._left()
        self.event(
            event, done=self.done, total=self.total, unit=self.unit, seconds=round(self.seconds, 1),
            eta_seconds=None if left is None else round(left, 1), note=self.remark,
        )  # fmt: skip


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else str(tqdm.format_interval(max(0.0, seconds)))


def bar(
    total: int,
    what: str,
    unit: str = "step",
    left: Callable[[], float | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Stage:
    """Returns a stage that shows its progress as `--progress` says; the arguments are those of `Stage`."""
    kinds = {"plain": _AsLines, "json": _AsEvents, "none": Stage}
    form = how()
    kind = (_OnTerminal if sys.stderr.isatty() else _AsLines) if form == "auto" else kinds[form]
    return kind(total, what, unit, left, clock)


def track(items: Iterable[T], total: int, what: str, unit: str = "step") -> Iterator[T]:
    """Iterates over items, and shows how far it is."""
    with bar(total, what, unit) as shown:
        for item in items:
            yield item
            shown.update()
