"""Commands as a user gives them, with their wall time and the memory of all their processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cliqa_bench.errors import UserError

_EVERY = 0.5
"""Seconds between two looks at the memory."""


class Ran(NamedTuple):
    """What a command took.

    Attributes:
        seconds: Wall time.
        peak_bytes: Most resident memory at a time, of all its processes, shared pages counted once; nan where
            the system does not tell.
        output: What it wrote on standard output.
    """

    seconds: float
    peak_bytes: float
    output: str


_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of commands that were stopped together with us."""

_running: set[subprocess.Popen[str]] = set()


def end_all() -> None:
    """Ends the commands that run in this process's other threads; each then fails there."""
    for process in list(_running):
        process.terminate()


def run(
    words: Sequence[str],
    cache: Path,
    module: str = "cliqa_bench",
    until: Callable[[], bool] | None = None,
    limit: float | None = None,
) -> Ran:
    """Runs `python -m cliqa_bench` with a cache folder of its own.

    Args:
        words: The command line.
        cache: Folder of decoded images, miniatures and tables of hashes.
        module: What to run instead of `cliqa_bench`.
        until: When it is true the command is interrupted, as by Ctrl-C, and must end as interrupted.
        limit: Seconds after which it is ended, and has failed.

    Raises:
        UserError: If the command fails; quotes its error. Its whole output is printed.
    """
    command = [sys.executable, "-m", module, *words]
    return execute(command, f"cliqa-bench {' '.join(words)}", environment(cache), until=until, limit=limit)


def environment(cache: Path) -> dict[str, str]:
    """Returns the variables of this process, with another cache folder."""
    return {**os.environ, "CLIQA_CACHE": str(cache)}


def execute(
    command: Sequence[str],
    name: str,
    variables: Mapping[str, str],
    folder: Path | None = None,
    until: Callable[[], bool] | None = None,
    limit: float | None = None,
) -> Ran:
    """Runs any command, as `run` does.

    Args:
        command: Program and arguments.
        name: What messages call it.
        variables: Its environment.
        folder: Where it runs; None for where this process does.
        until: See `run`.
        limit: See `run`.

    Raises:
        UserError: If the command fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=variables, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _running.add(process)
    peak = [math.nan]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watch.start()
    if until:
        threading.Thread(target=_interrupt, args=(process, until), daemon=True).start()
    try:
        output, error = process.communicate(timeout=limit)
    except BaseException as stop:  # stopped; what runs must not outlive us
        process.terminate()
        process.wait()
        if isinstance(stop, subprocess.TimeoutExpired):
            raise UserError(f"{name} was not done after {limit:g} s") from None
        raise
    finally:
        _running.discard(process)
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode != (128 + signal.SIGINT if until else 0):
        if process.returncode not in _STOPPED:
            print(error, end="", file=sys.stderr, flush=True)
        raise UserError(f"{name} failed with {process.returncode}: {_reason(error)}")
    return Ran(seconds, peak[0], output)


def _reason(error: str) -> str:
    """Returns the lines that name what failed; without any, the last line."""
    lines = error.strip().splitlines() or ["nothing"]
    return "; ".join(dict.fromkeys(line for line in lines if line.startswith("failed: "))) or lines[-1]


def _interrupt(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    while process.poll() is None:
        if until():
            process.send_signal(signal.SIGINT)
            return
        time.sleep(0.02)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        found = sum(_resident(pid) for pid in _tree(process.pid))
        if found:
            peak[0] = max(found, 0 if math.isnan(peak[0]) else peak[0])
        time.sleep(_EVERY)


def _tree(pid: int) -> Iterator[int]:
    """Yields a process and those it has started, as far as the system knows."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it is gone
            continue
        for child in children:
            yield from _tree(int(child))


def _resident(pid: int) -> int:
    """Returns a process's share of resident memory in bytes, 0 if it is gone or the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
