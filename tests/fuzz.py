"""The fuzzer of everything that is read: damages files at random and sees that no wrong one is accepted.

In the checkout's root: `PYTHONPATH=. python tests/fuzz.py --cases 10000 --seed 0 [--format png,yaml]
[--seconds 600] [--keep FOLDER]`. A case is a format and a number; the same two give the same damage. What it
may end in: the file is accepted, and what was read passes the format's own test; or a UserError of one line.
Anything else is a finding: another exception, a warning on standard error, more than 5 seconds, a crash, more
than 2 GB of memory, or wrong content. It ends with exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import fuzz_files
import fuzz_labels
from fuzz_labels import Case, Format
from fuzz_mutations import mutate

from cliqa_bench.errors import LONGEST, UserError

FORMATS: dict[str, Format] = {**fuzz_labels.FORMATS, **fuzz_files.FORMATS}
SECONDS = 5.0
"""Longest that a case may take."""
MEMORY = 2 << 30
"""Bytes that a case may take beyond what the process had before."""


class Result(NamedTuple):
    """How a case ended.

    Attributes:
        format: Name of the format.
        number: Of the case.
        end: "accepted", "refused", or what was found.
        told: The error's line, or what was found, in full.
        seconds: It took.
    """

    format: str
    number: int
    end: str
    told: str
    seconds: float

    @property
    def found(self) -> bool:
        """Whether it ended as no case may."""
        return self.end not in ("accepted", "refused", "unchanged")


def damaged(name: str, number: int, original: bytes) -> bytes:
    """Returns the bytes of a case."""
    return mutate(original, FORMATS[name].mutations, random.Random(f"{name}:{number}"))


class Bench:
    """The samples of the formats, made when they are first needed, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cases: dict[str, tuple[Case, bytes]] = {}

    def case(self, name: str) -> tuple[Case, bytes]:
        """Returns a format's sample and the bytes of the file that is damaged; reads it whole once."""
        if name not in self._cases:
            folder = self.root / name
            folder.mkdir()
            case = FORMATS[name].make(folder)
            original = case.file.read_bytes()
            wrong = case.wrong(case.read(), original)
            assert not wrong, f"{name}: the whole sample is wrong: {wrong}"
            self._cases[name] = case, original
        return self._cases[name]

    def run(self, name: str, number: int) -> Result:
        """Damages the sample of a format, reads it, and judges."""
        case, original = self.case(name)
        content = damaged(name, number, original)
        case.file.write_bytes(content)
        start = time.perf_counter()
        end, told = judged(case, content)
        if content == original and end == "accepted":
            end = "unchanged"
        case.file.write_bytes(original)
        return Result(name, number, end, told, time.perf_counter() - start)


def judged(case: Case, content: bytes) -> tuple[str, str]:
    """Reads a damaged sample; returns how that ended, and what was told."""
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = case.read()
    except UserError as error:
        line = str(error)
        whole = 0 < len(line) <= LONGEST and line.isprintable()
        return ("refused" if whole else "an error that is not a line"), line
    except Exception as error:
        return type(error).__name__, traceback.format_exc()
    try:
        wrong = case.wrong(found, content)
    except Exception:  # the judgement reads it once more
        return "content that cannot be judged", traceback.format_exc()
    if wrong:
        return "wrong content", wrong
    strange = [str(w.message) for w in warned if not issubclass(w.category, UserWarning | DeprecationWarning)]
    return ("a strange warning", strange[0]) if strange else ("accepted", "")


# -- the process that does it, and the one that watches ------------------------------------------------------


def work(jobs: Connection, root: str) -> None:
    """Runs the cases that come through a pipe; its memory is limited, and it says nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    bench = Bench(Path(root))
    os.environ["CLIQA_CACHE"] = root
    while (job := jobs.recv()) is not None:
        name, number = job
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        bench.case(name)
        jobs.send("ready")
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, resource.RLIM_INFINITY))
        jobs.send(bench.run(name, number))


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Watched:
    """A process that runs cases, replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory(prefix="cliqa-fuzz-")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder.name), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, name: str, number: int) -> Result:
        """Runs a case; kills a process that takes too long."""
        start = time.perf_counter()
        try:
            self.pipe.send((name, number))
            assert self.pipe.recv() == "ready"  # making the samples, and the first imports, are not counted
            start = time.perf_counter()
            if self.pipe.poll(SECONDS):
                result = self.pipe.recv()
                assert isinstance(result, Result)
                return result
            end = "a hang"
        except (EOFError, OSError):
            self.process.join(5)
            end = f"a crash (exit code {self.process.exitcode})"
        self.close()
        self._start()
        return Result(name, number, end, "", time.perf_counter() - start)

    def close(self) -> None:
        """Ends the process and removes its folder."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.folder.cleanup()


def cases(names: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, int]]:
    """Gives the cases of a run: formats take turns, numbers go up from `seed` times a million."""
    for i in range(count):
        yield names[i % len(names)], seed * 1_000_000 + i // len(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="which (default: 0)")
    parser.add_argument("--format", default="all", help=f"comma-separated, of {', '.join(FORMATS)}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--keep", type=Path, help="folder that gets the damaged files of the findings")
    args = parser.parse_args(argv)
    names = list(FORMATS) if args.format == "all" else args.format.split(",")
    if wrong := set(names) - set(FORMATS):
        parser.error(f"no format {', '.join(sorted(wrong))}; choose from: {', '.join(FORMATS)}")
    watched, results, start = Watched(), [], time.time()
    try:
        for name, number in cases(names, args.cases, args.seed):
            if time.time() - start > args.seconds:
                break
            result = watched.run(name, number)
            results.append(result)
            if result.found:
                print(f"FOUND {result.format} {result.number}: {result.end}\n{result.told}", flush=True)
                keep(result, args.keep)
    finally:
        watched.close()
    print(summary(results, time.time() - start))
    return int(any(result.found for result in results))


def keep(result: Result, folder: Path | None) -> None:
    """Writes the damaged file of a finding."""
    if folder is None:
        return
    with tempfile.TemporaryDirectory() as root:
        case, original = Bench(Path(root)).case(result.format)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{result.format}-{result.number}{case.file.suffix}"
        (folder / name).write_bytes(damaged(result.format, result.number, original))


def summary(results: Sequence[Result], seconds: float) -> str:
    """Returns a table: cases, accepted, refused and found of each format, and the slowest case."""
    lines = [
        f"{'format':18} {'cases':>7} {'accepted':>9} {'unchanged':>9} {'refused':>8} {'found':>6}  slowest"
    ]
    by_format = {name: [r for r in results if r.format == name] for name in FORMATS}
    for name, mine in [*by_format.items(), ("all", list(results))]:
        if mine:
            ends = Counter("found" if r.found else r.end for r in mine)
            slowest = max(r.seconds for r in mine)
            lines.append(
                f"{name:18} {len(mine):7} {ends['accepted']:9} {ends['unchanged']:9} {ends['refused']:8} "
                f"{ends['found']:6} {slowest:7.2f}s"
            )
    return "\n".join([*lines, f"{len(results)} cases in {seconds:.0f} s"])


if __name__ == "__main__":
    sys.exit(main())
