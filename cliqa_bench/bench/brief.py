"""The command line with a report that holds numbers only, for runs that need no figures and no pages.

`python -m cliqa_bench.bench.brief` takes the words of `python -m cliqa_bench`. Ctrl-C reaches it even where a
shell script started the benchmark in the background, which has it ignored by all that is started.
"""

from __future__ import annotations

import signal
import sys
from functools import partial


def main() -> int:
    """Does what the words say; returns the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from cliqa_bench.__main__ import main as command_line
    from cliqa_bench.reports import report

    vars(report)["write_report"] = partial(report.write_report, formats=("csv",), figures=False)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
