"""Runs the suite as other machines would: other processors, threads, versions and Pythons, each value once.

`PYTHONPATH=. python tests/matrix.py` in the checkout's root: eleven runs, some minutes each. `--list` names
them, `--only NAMES` chooses, and pytest gets what follows `--`: `--only aten-avx2 -- tests/test_model.py`.
`--slice` repeats the runs that once found something, with the tests that found it. Other versions get their
own environment in the work folder, unless `--venv NAME=PATH` names one to use again. A run that lacks its
Python is named and counts as not run. The exit code is 1 if anything failed or was not run.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("test",)
"""Extras of setup.cfg that an environment gets."""


@dataclass(frozen=True)
class Run:
    """What differs from the usual in one run of the suite.

    Attributes:
        name: For `--only` and the table.
        variables: Environment variables.
        python: Version of the interpreter of its environment, such as "3.12"; None for the running one's.
        versions: "oldest" pins everything to the lower bounds of setup.cfg; "newest" takes what pip finds;
            None uses the environment that runs this script.
        found: Tests that once failed in this run, for `--slice`.
    """

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    versions: str | None = None
    found: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """Adds the slow tests where versions differ: processes depend on those, and on no processor."""
        return ("-m", "") if self.versions else ()


GOLDEN = "tests/test_model.py::test_golden_forward"
PENALTY = "tests/test_avalanche.py::test_a_penalty_is_positive_and_has_a_gradient_on_the_second_experience"
SCORES = "tests/test_text_head.py::test_joint_marginals_and_score_are_the_golden_ones"
OLD_RUNS = "tests/test_versions.py"
ASPECTS = "tests/test_score_aspects.py::test_what_texts_do_not_name_is_not_said"
RESELECT = "tests/test_ssiqa.py::test_reselected_exemplars_follow_the_newest_network"
MERGE = "tests/test_liqa.py::test_a_merge_learns_what_scikit_learn_says_of_what_is_drawn"
AVX512 = "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
"""NumPy's names of AVX-512 and its extensions: since version 2.4, and before."""

RUNS = (
    Run("aten-default", {"ATEN_CPU_CAPABILITY": "default"}, found=(GOLDEN, RESELECT)),
    Run("aten-avx2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    # without AMX, which is what the running machine may have
    Run("onednn-sse41", {"ONEDNN_MAX_CPU_ISA": "SSE41"}, found=(PENALTY, ASPECTS, MERGE)),
    Run("onednn-avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, found=(PENALTY,)),
    Run("onednn-avx512", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, found=(PENALTY,)),
    # a processor without AVX-512: NumPy and OpenBLAS use other instructions, too
    Run(
        "no-avx512",
        {
            "NPY_DISABLE_CPU_FEATURES": AVX512,
            "OPENBLAS_CORETYPE": "Haswell",
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
        found=(SCORES, OLD_RUNS),
    ),
    Run("two-threads", {"OMP_NUM_THREADS": "2"}),
    # found quantiles of Student's t that differ with scipy 1.11; the slice makes no environment for it
    Run("oldest", versions="oldest"),
    Run("newest", versions="newest"),
    Run("python3.12", python="3.12", versions="newest"),
    Run("python3.13", python="3.13", versions="newest"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a run; `missing` says why there was none."""

    passed: int = 0
    failures: tuple[str, ...] = ()
    skipped: int = 0
    seconds: float = 0.0
    missing: str = ""

    def line(self, name: str) -> str:
        """Returns the run's line of the table."""
        if self.missing:
            return f"{name:<14} not run: {self.missing}"
        counts = f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped"
        return f"{name:<14} {counts}, {self.seconds:.0f} s"


class NotRun(Exception):
    """A run that cannot be made here."""


# -- environments --------------------------------------------------------------------------------------------


def requirements(extras: Sequence[str] = EXTRAS) -> list[str]:
    """Returns what setup.cfg requires, with the requirements of extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][e] for e in extras)]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


def oldest(extras: Sequence[str] = EXTRAS) -> list[str]:
    """Returns constraints that pin each requirement to its lower bound; what has none is left out."""
    bounds = (re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9][0-9.]*)", line) for line in requirements(extras))
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def interpreter(version: str | None, given: dict[str, str]) -> str:
    """Returns the Python of a version: the one given, or found by name.

    Raises:
        NotRun: If there is none.
    """
    if version is None:
        return sys.executable
    path = given.get(version) or shutil.which(f"python{version}")
    probe = [str(path), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        said = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # pyenv puts names on the PATH that start nothing
        said = ""
    if said != version:
        raise NotRun(f"no Python {version} found; give it: --python {version}=PATH")
    return str(path)


def environment(run: Run, work: Path, pythons: dict[str, str]) -> str:
    """Makes the environment of a run, or uses the one of an earlier call; returns its Python.

    Raises:
        NotRun: If the interpreter is missing or an install fails.
    """
    folder, log = work / run.name, work / f"{run.name}-install.txt"
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return str(python)
    base = interpreter(run.python, pythons)
    shutil.rmtree(folder, ignore_errors=True)
    words = [str(python), "-m", "pip", "install", "-e", f"{ROOT}[{','.join(EXTRAS)}]"]
    if run.versions == "oldest":
        constraints = work / "oldest.txt"
        constraints.write_text("\n".join(oldest()) + "\n", encoding="utf-8")
        words += ["--constraint", str(constraints)]
    with log.open("w", encoding="utf-8") as file:
        for command in ([base, "-m", "venv", str(folder)], words):
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode:
                raise NotRun(f"the install failed, see {log}")
    complete.touch()
    return str(python)


# -- running -------------------------------------------------------------------------------------------------


def outcome(path: Path, code: int, seconds: float, log: Path) -> Outcome:
    """Reads a run's JUnit file.

    Args:
        path: The file.
        code: Exit code of pytest.
        seconds: How long it took.
        log: Where pytest's output stands.
    """
    cases = list(ElementTree.parse(path).iter("testcase")) if path.exists() else []
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    names = [f"{c.get('classname')}::{c.get('name')}" for c in failed]
    if code and not failed:  # it did not come as far as a verdict
        names = [f"pytest ended with code {code}, see {log}"]
    return Outcome(len(cases) - len(failed) - skipped, tuple(names), skipped, seconds)


def make(run: Run, python: str, work: Path, words: Sequence[str]) -> Outcome:
    """Runs pytest as a run wants it."""
    log, junit = work / f"{run.name}.txt", work / f"{run.name}.xml"
    junit.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={junit}", *words]
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            command, cwd=ROOT, env=os.environ | run.variables, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    return outcome(junit, code, time.monotonic() - begin, log)


def attempt(run: Run, options: argparse.Namespace, work: Path) -> Outcome:
    """Makes the environment of a run if it needs one, and runs it."""
    words = [*(run.found if options.slice else ()), *options.words] or ["-n", "auto", *run.marks]
    try:
        venvs = dict(options.venv)
        if run.name in venvs:
            python = str(Path(venvs[run.name]) / "bin" / "python")
            if not Path(python).exists():
                raise NotRun(f"no {python}")
        elif run.versions:
            python = environment(run, work, dict(options.python))
        else:
            python = sys.executable
    except NotRun as reason:
        return Outcome(missing=str(reason))
    return make(run, python, work, words)


# -- the command ---------------------------------------------------------------------------------------------


def pair(text: str) -> tuple[str, str]:
    """Parses NAME=PATH."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=PATH")
    return name, path


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; what follows "--" is pytest's."""
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="names of runs, separated by commas")
    parser.add_argument("--list", action="store_true", help="name the runs and end")
    parser.add_argument(
        "--slice", action="store_true", help="the runs that once found something, with its tests"
    )
    parser.add_argument("--venv", action="append", type=pair, default=[], help="NAME=PATH of an environment")
    parser.add_argument(
        "--python", action="append", type=pair, default=[], help="VERSION=PATH, such as 3.12=..."
    )
    parser.add_argument(
        "--work", type=Path, help="folder of environments and logs (default: a temporary one)"
    )
    options = parser.parse_args(words[:split])
    options.words = list(words[split + 1 :])
    known = {run.name: run for run in RUNS}
    names = options.only.split(",") if options.only else list(known)
    if unknown := [n for n in (*names, *(n for n, _ in options.venv)) if n not in known]:
        parser.error(f"unknown run {unknown[0]!r}; choose from {', '.join(known)}")
    options.runs = [known[n] for n in names if not options.slice or known[n].found]
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Runs what is asked for; returns 1 if anything failed or was not run."""
    options = parse(sys.argv[1:] if words is None else list(words))
    if options.list:
        for run in options.runs:
            what = " ".join([f"{k}={v}" for k, v in run.variables.items()] or [run.versions or "as usual"])
            print(f"{run.name:<14} {what}")
        return 0
    work = options.work or Path(tempfile.mkdtemp(prefix="matrix-"))
    work.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for run in options.runs:
        outcomes[run.name] = attempt(run, options, work.absolute())
        print(outcomes[run.name].line(run.name), flush=True)
        for failure in outcomes[run.name].failures:
            print(f"    {failure}", flush=True)
    print(f"logs: {work}")
    return int(any(o.failures or o.missing for o in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
