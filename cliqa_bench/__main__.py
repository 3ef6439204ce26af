"""The entry point: from its first line on, it can be stopped without a traceback."""

import shlex
import sys

from cliqa_bench.system import supported
from cliqa_bench.system.signals import STOPS, exit_code, say_stopped, stoppable


def main() -> int:
    """Runs the command line of this process; returns its exit code, see `cli.main`."""
    if supported.windows():
        print("cliqa-bench: Windows is not supported; use Linux, or WSL on this machine", file=sys.stderr)
        return 2
    command = f"python -m cliqa_bench {shlex.join(sys.argv[1:])}".rstrip()
    try:
        # afterwards there is nothing to report: the interpreter is ending
        with stoppable(command, last=True):
            if system := supported.untried():
                print(f"cliqa-bench: {system} is untried; tested on Linux on x86-64 only", file=sys.stderr)
            from cliqa_bench.cli.parser import main as run

            return run()
    except STOPS as stop:  # during the imports
        say_stopped(command)
        return exit_code(stop)


if __name__ == "__main__":
    sys.exit(main())
