"""Would the tests notice wrong science? Applies small wrong changes singly and runs the tests concerned.

In the checkout's root: `python tests/wrong_science.py [--only TEXT] [--jobs N]`. The changes are in
`tests/wrong_science/*.toml`, grouped by what they touch::

    [[change]]
    name = "the runner does not pass the seed to the learner"
    file = "cliqa_bench/execution/worker.py"
    old = '''seed=work.seed'''
    new = '''seed=0'''
    tests = ["tests/test_seeds.py::test_each_seed_is_trained_with_itself"]
    # equivalent = "why no number and no name can change": such a change is listed, and not run

`old` occurs exactly once in the file. The tests first run on the unchanged code, where they must pass. A
change that they do not notice is a survivor; the script ends with exit code 1 if there are any, or if one
no longer fits the code. It is not part of the test suite: a run takes some seconds a change. Generated data
are made once, by the unchanged code; changes of what makes them let the tests make their own. Each pytest is
forked from a process that has imported PyTorch and the like, which takes longer than most tests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")
ROOT = Path(__file__).resolve().parents[1]
CHANGES = Path(__file__).with_suffix("")
MINIATURES = "CLIQA_TEST_MINIATURES"
"""Environment variable: a folder of generated datasets that all runs of the tests read; see conftest.py."""

GENERATOR = "benchmarks/generated/"
"""Where a change makes other generated data."""

PRELOADED = (
    "avalanche.training", "hypothesis", "jsonargparse", "matplotlib.figure", "pandas", "piq", "PIL.Image",
    "pytest", "scipy.stats", "skimage", "sklearn.cluster", "torch", "torchvision", "tqdm",
)  # fmt: skip
"""What every pytest has at its start; nothing of the package, which each copy brings itself."""

SECONDS = 300.0
"""Longest that the tests of a change may take; a change that makes them hang is noticed, too."""


@dataclass(frozen=True)
class Change:
    """A wrong change.

    Attributes:
        name: What is wrong, in words.
        file: The file that is changed, relative to the checkout.
        old: The text that is replaced; occurs once.
        new: What replaces it.
        tests: Node ids of the tests that should notice it.
        equivalent: Why it changes no result; "" for a change that is wrong.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""

    def problem(self, root: Path) -> str:
        """Returns why the change cannot be applied, or ""."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} does not exist"
        count = path.read_text(encoding="utf-8").count(self.old)
        if count != 1:
            return f"the text to replace occurs {count} times in {self.file}"
        if not self.tests and not self.equivalent:
            return "it names no tests"
        return ""


@dataclass(frozen=True)
class Verdict:
    """What the tests said about a change.

    Attributes:
        change: The change.
        end: "noticed", "survived", "equivalent" or "broken" (it does not fit, or the tests could not run).
        detail: The first test that failed, or what is broken.
    """

    change: Change
    end: str
    detail: str


def read_changes(folder: Path = CHANGES) -> list[Change]:
    """Reads all changes, in the order of the files' names."""
    changes = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["change"]:
            changes.append(Change(**{**entry, "tests": tuple(entry.get("tests", ()))}))
    return changes


@contextmanager
def copied_checkout() -> Iterator[Path]:
    """Gives a copy of what git tracks or would track, with the reference material beside it."""
    with tempfile.TemporaryDirectory(prefix="wrong-science-") as folder:
        copy = Path(folder) / "cliqa_bench"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, listed):
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink() or source.is_file():
                shutil.copy2(source, target, follow_symlinks=False)
        shared = ROOT.parent / "shared"
        if shared.is_dir():
            (Path(folder) / "shared").symlink_to(shared.resolve())
        yield copy


@contextmanager
def made_miniatures() -> Iterator[None]:
    """Makes the generated datasets that tests read, in the folder that MINIATURES names, or for once."""
    program = (
        "import sys, pathlib, conftest; from cliqa_bench.benchmarks.generated.make import make_miniatures; "
        "make_miniatures(pathlib.Path(sys.argv[1]), conftest.SCALE, seed=0)"
    )
    with tempfile.TemporaryDirectory(prefix="wrong-science-") as temporary:
        folder = os.environ.setdefault(MINIATURES, temporary)
        subprocess.run(
            [sys.executable, "-c", program, folder],
            cwd=ROOT / "tests",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        yield


def run_tests(
    copy: Path, tests: Sequence[str], *flags: str, own_data: bool = False, seconds: float | None = SECONDS
) -> tuple[int | None, str]:
    """Runs tests in a copy of the checkout; returns pytest's exit code (None: too slow) and its output.

    With `own_data`, they make the generated datasets themselves.
    """
    words = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-m", ""]  # slow tests, too
    with tempfile.NamedTemporaryFile(prefix="wrong-science-", suffix=".txt") as output:
        process = multiprocessing.get_context("forkserver").Process(
            target=_be_pytest, args=(copy, [*words, *flags, *tests], own_data, output.name)
        )
        process.start()
        process.join(seconds)
        if process.pid is not None and process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)  # with what the tests have started
            process.join()
            return None, ""
        return process.exitcode, output.read().decode(errors="replace")


def _be_pytest(copy: Path, words: list[str], own_data: bool, output: str) -> None:
    """Runs pytest in a process of its own, which writes to a file and ends with pytest's exit code."""
    os.setsid()
    with Path(output).open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)  # for what the tests start
    if own_data:
        os.environ.pop(MINIATURES, None)
    # undo what marks this as a child process: the code under test reads both
    multiprocessing.set_start_method(None, force=True)
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    import pytest

    sys.exit(pytest.main(words))


def judge(change: Change, copy: Path) -> Verdict:
    """Applies a change to a copy, runs its tests, and takes the change back."""
    if problem := change.problem(copy):
        return Verdict(change, "broken", problem)
    if change.equivalent:
        return Verdict(change, "equivalent", change.equivalent)
    path = copy / change.file
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(original.replace(change.old, change.new), encoding="utf-8")
        own_data = GENERATOR in change.file
        code, output = run_tests(copy, change.tests, "-x", own_data=own_data)
    finally:
        path.write_text(original, encoding="utf-8")
    if code is None:
        return Verdict(change, "noticed", f"the tests took longer than {SECONDS:.0f} s")
    if code == 0:
        return Verdict(change, "survived", ", ".join(change.tests))
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if code != 1 or failed is None:
        last = output.strip().splitlines()[-1:] or ["no output"]
        return Verdict(change, "broken", f"pytest ended with exit code {code}: {last[0]}")
    return Verdict(change, "noticed", failed[1])


def side_by_side(work: Callable[[Given, Path], Found], given: Sequence[Given], jobs: int) -> Iterator[Found]:
    """Does some work on each of what is given, `jobs` at a time, each in its own copy; keeps the order."""
    copies: SimpleQueue[Path] = SimpleQueue()

    def one(item: Given) -> Found:
        copy = copies.get()
        try:
            return work(item, copy)
        finally:
            copies.put(copy)

    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        for _ in range(jobs):
            copies.put(stack.enter_context(copied_checkout()))
        yield from pool.map(one, given)


def check_unchanged(changes: Sequence[Change], jobs: int) -> str:
    """Runs the tests of all changes on the unchanged code; returns what is wrong, or ""."""
    tests = sorted({test for change in changes if not change.equivalent for test in change.tests})
    files = [list(of_file) for _, of_file in groupby(tests, lambda test: test.partition("::")[0])]
    for code, output in side_by_side(lambda some, copy: run_tests(copy, some, seconds=None), files, jobs):
        if code:
            return f"the tests fail on the unchanged code:\n{output[-2000:]}"
    return ""


def main() -> int:
    """Runs the command line; returns 1 if a change survives or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="changes whose name or file contains this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument(
        "--skip-unchanged", action="store_true", help="do not run the tests on the unchanged code"
    )
    args = parser.parse_args()
    changes = [c for c in read_changes() if args.only in c.name or args.only in c.file]
    os.environ |= {
        "PYTHONDONTWRITEBYTECODE": "1",  # two changes within one second may leave files of equal size
        "OMP_NUM_THREADS": "1",
    }
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    ends = []
    with made_miniatures():
        if not args.skip_unchanged and (wrong := check_unchanged(changes, args.jobs)):
            print(wrong, file=sys.stderr)
            return 1
        for verdict in side_by_side(judge, changes, args.jobs):
            ends.append(verdict.end)
            change = verdict.change
            print(f"{verdict.end:<10} {change.file}: {change.name} ({verdict.detail})", flush=True)
    counts = ", ".join(f"{ends.count(end)} {end}" for end in ("noticed", "survived", "equivalent", "broken"))
    print(f"{len(ends)} wrong changes: {counts}")
    return 1 if {"survived", "broken"} & set(ends) else 0


if __name__ == "__main__":
    sys.exit(main())
