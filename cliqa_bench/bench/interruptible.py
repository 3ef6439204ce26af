"""The command line, which Ctrl-C reaches even if a shell script started the benchmark in the background.

A shell makes what a script starts in the background ignore the signal, and everything started from there.
`python -m cliqa_bench.bench.interruptible` takes the words of `python -m cliqa_bench`.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Does what the words say; returns the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from cliqa_bench.__main__ import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
