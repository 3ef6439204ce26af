"""Another installed version of the suite: which it is, its commands, how far its answers are from ours."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.bench import cpu_time
from cliqa_bench.bench.process import environment, execute
from cliqa_bench.errors import UserError
from cliqa_bench.results.answer_difference import most_apart
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.system.versions import PACKAGES

_ASK = f"""
import importlib.metadata as m, json, os, cliqa_bench
versions = {{name: m.version(name) for name in {PACKAGES}}}
print(json.dumps([cliqa_bench.__version__, os.path.realpath(cliqa_bench.__file__), versions]))
"""


@dataclass(frozen=True)
class Installation:
    """A version of the suite in an environment.

    Attributes:
        python: Its interpreter.
        version: "0.1.0".
        place: File of the package `cliqa_bench`, absolute.
        packages: Versions of the packages that numbers can depend on.
        folder: Where its commands run; None for where this process does. An empty one keeps the checkout from
            which this process was started off another Python's path.
    """

    python: str
    version: str
    place: str
    packages: dict[str, str]
    folder: Path | None = None


class Took(NamedTuple):
    """What a command took: wall time, CPU time of all its processes (seconds), memory at the peak (bytes)."""

    seconds: float
    cpu_seconds: float
    peak_bytes: float

    @property
    def peak_gigabytes(self) -> float:
        """The memory in GB (1e9 bytes)."""
        return self.peak_bytes / 1e9


class AnswerDifference(NamedTuple):
    """How far the answers of two folders of results are apart.

    Attributes:
        files: Number of answer files that both have, by name.
        alone: Number of files that only one of them has.
        scores: Largest absolute difference of a score.
        distances: Largest difference of a distance to a centroid, relative to the larger of the two.
    """

    files: int
    alone: int
    scores: float
    distances: float

    def line(self) -> str:
        """Says it in words, for the note of a row."""
        said = f"{self.files} answer files compared: scores differ by {self.scores:.2g} at most, distances"
        said += f" of the gate by {self.distances:.2g} of their size"
        return said + (f"; {self.alone} files are of one side alone" if self.alone else "")


def installations(other: Path, folder: Path) -> tuple[Installation, Installation]:
    """Returns the version that runs, and the one of another Python.

    Args:
        other: Its interpreter.
        folder: An empty folder, where its commands are to run.

    Raises:
        UserError: If it is not Python, has no `cliqa_bench`, or the very one that runs.
    """
    ours = _asked(sys.executable, None, dict(os.environ))
    theirs = _asked(str(other), folder, _without_path(dict(os.environ)))
    if ours.place == theirs.place:
        raise UserError(f"--against {other}: its cliqa_bench is the one running here, {ours.place}")
    return ours, theirs


def _asked(python: str, folder: Path | None, variables: dict[str, str]) -> Installation:
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"--against {python}: cannot be started ({error.strerror or error})") from error
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise UserError(f"--against {python}: no cliqa_bench can be imported there ({reason})")
    version, place, packages = json.loads(asked.stdout)
    return Installation(python, version, place, packages, folder)


def _without_path(variables: dict[str, str]) -> dict[str, str]:
    """Leaves out variables that would put this process's packages before the other Python's."""
    return {name: value for name, value in variables.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def timed(side: Installation, words: list[str], cache: Path) -> Took:
    """Runs a command line of one version.

    Args:
        side: The version.
        words: The command line.
        cache: Its cache folder.

    Raises:
        UserError: If it fails.
    """
    file = cache.parent / f"{cache.name}.cpu"
    command = [sys.executable, str(cpu_time.__file__), str(file), side.python, "-m", "cliqa_bench", *words]
    variables = environment(cache)
    if side.folder:
        variables = _without_path(variables)
    ran = execute(command, f"cliqa-bench {side.version}: {' '.join(words)}", variables, side.folder)
    return Took(ran.seconds, float(file.read_text(encoding="utf-8")), ran.peak_bytes)


def compare_answers(ours: Path, theirs: Path) -> AnswerDifference:
    """Compares all answer files that two folders of results have in common.

    Names of files are made of everything that an answer depends on, and have been the same since 0.1.0.

    Args:
        ours: A folder of results.
        theirs: Another one, of the same command.

    Raises:
        UserError: If a file cannot be read, or the same one asks other images on both sides.
    """
    names = [{p.parent.name for p in out.glob("answers/*/answers.npz")} for out in (ours, theirs)]
    largest = {"scores": 0.0, "distances": 0.0}
    for name in sorted(names[0] & names[1]):
        one, other = (read_answers(out / "answers" / name / "answers.npz") for out in (ours, theirs))
        if not np.array_equal(one["keys"], other["keys"]) or not np.array_equal(one["mos"], other["mos"]):
            raise UserError(
                f"answers/{name} is about other images, or other labels, in {theirs} than in {ours}"
            )
        for kind in largest:
            largest[kind] = max(largest[kind], _apart(one.get(kind), other.get(kind), kind == "distances"))
    return AnswerDifference(len(names[0] & names[1]), len(names[0] ^ names[1]), **largest)


def _apart(one: NDArray[Any] | None, other: NDArray[Any] | None, relative: bool) -> float:
    """Returns the largest difference of two arrays; inf where only one is there or their shapes differ."""
    if one is None or other is None or one.shape != other.shape:
        return 0.0 if one is other is None else math.inf
    return most_apart(one, other, np.maximum(np.abs(one), np.abs(other)) if relative else None)
