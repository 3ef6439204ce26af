"""Commands as a user gives them, with their wall time and the memory of all their processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
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


def run(words: Sequence[str], cache: Path) -> Ran:
    """Runs `python -m cliqa_bench` with a cache folder of its own.

    Args:
        words: The command line.
        cache: Folder of decoded images, miniatures and tables of hashes.

    Raises:
        UserError: If the command fails; tells the last line that it said.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "cliqa_bench", *words],
        env={**os.environ, "CLIQA_CACHE": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = [math.nan]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watch.start()
    try:
        output, error = process.communicate()
    except BaseException:  # stopped; what runs must not outlive us
        process.terminate()
        process.wait()
        raise
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode:
        said = (error.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"cliqa-bench {' '.join(words)} failed with {process.returncode}: {said}")
    return Ran(seconds, peak[0], output)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        found = sum(_resident(pid) for pid in _tree(process.pid))
        if found:
            peak[0] = max(found, 0 if math.isnan(peak[0]) else peak[0])
        time.sleep(_EVERY)


def _tree(pid: int) -> Iterator[int]:
    """Yields a process and what it has started, as far as the system tells."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it is gone
            continue
        for child in children:
            yield from _tree(int(child))


def _resident(pid: int) -> int:
    """Returns a process's share of resident memory in bytes, 0 where it is gone or nobody tells."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
