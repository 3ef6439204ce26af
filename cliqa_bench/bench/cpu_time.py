"""Runs a command and writes the CPU time that it took, including processes that outlive it.

`python cpu_time.py FILE COMMAND ...`: a program of its own, which imports nothing of the package. A fork
server outlives the process that started it, and its time would count nowhere: here it becomes our own child.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of Linux: orphans among our descendants become our children."""


def main(words: list[str]) -> int:
    """Runs the command, waits for all that it started, and writes the CPU seconds; returns its exit code."""
    file, *command = words
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command, too
    code = process.wait()
    _wait_for_orphans()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(file).write_text(repr(used.ru_utime + used.ru_stime), encoding="utf-8")
    return code


def _wait_for_orphans() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
