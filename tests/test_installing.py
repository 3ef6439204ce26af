"""What docs/installing.md promises: reading without PyTorch, completion, containers."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cliqa_bench.cli.parser import LEARNING, main
from cliqa_bench.extensions import registry
from cliqa_bench.system.versions import versions

ROOT = Path(__file__).resolve().parents[1]

READING = """
import importlib.metadata, sys

missing = {missing!r}
version = importlib.metadata.version

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def found(name):
    if name.split("-")[0].replace("scikit", "sklearn") in missing:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

sys.meta_path.insert(0, Missing)
importlib.metadata.version = found
from cliqa_bench.cli.parser import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_group_for_reading_has_the_bounds_of_the_package() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"][
        "reading"
    ]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    required = config["options"]["install_requires"].splitlines()
    assert len(group) == len(set(group)) >= 10
    assert set(group) <= set(required)
    assert not {re.split("[<>=]", line)[0] for line in group} & {"torch", "torchvision", "avalanche-lib"}


def reading(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line where the packages that learn are missing."""
    program = [sys.executable, "-c", READING.format(missing=LEARNING)]
    return subprocess.run([*program, *words], capture_output=True, text=True)


def test_a_plan_is_made_where_nothing_can_be_learned(miniatures: Path, tmp_path: Path) -> None:
    done = reading(
        "plan", "--strategy", "tsn", "--orders", "bid", "--data", str(miniatures), "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "1 training" in done.stdout


def test_what_learns_says_what_is_missing_in_one_line(miniatures: Path, tmp_path: Path) -> None:
    done = reading(
        "run", "--strategy", "tsn", "--orders", "bid", "--data", str(miniatures), "--out", str(tmp_path)
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert re.search(r"run needs \w+, which is not installed here; install cliqa_bench with all", line)
    assert "Traceback" not in done.stderr


def test_versions_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    assert "torch" in versions()
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "torch" not in versions()
    assert versions()["numpy"] == "1"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab")
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    command = [sys.executable, "-m", "cliqa_bench", "completion", "bash"]
    file = tmp_path_factory.mktemp("completion") / "cliqa-bench"
    file.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return file


def completed(script: Path, *words: str) -> set[str]:
    """Returns what bash offers after these words."""
    ask = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=();'
    ask += ' _shtab_cliqa_bench "" "" ""; printf "%s\\n" "${COMPREPLY[@]}"'
    asked = subprocess.run(["bash", "-c", ask, "bash", *words], capture_output=True, text=True, check=True)
    return set(asked.stdout.split())


def test_bash_completes_commands_flags_names_and_folders(script: Path, tmp_path: Path) -> None:
    assert completed(script, "cliqa-bench", "rep") == {"report"}
    assert completed(script, "cliqa-bench", "data", "c") == {"check"}
    assert completed(script, "cliqa-bench", "run", "--strat") == {"--strategy"}
    strategies = {name for name in registry.names("strategies") if name.startswith("l")}
    assert completed(script, "cliqa-bench", "run", "--strategy", "l") == strategies
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert completed(script, "cliqa-bench", "run", "--data", f"{tmp_path}/f") == {f"{tmp_path}/folder"}


def test_completion_changes_nothing_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "unknown shell" in capsys.readouterr().err


def test_containers_install_what_is_here_and_start_the_command() -> None:
    docker = (ROOT / "docs/containers/Dockerfile").read_text(encoding="utf-8")
    apptainer = (ROOT / "docs/containers/apptainer.def").read_text(encoding="utf-8")
    images = {re.search(r"^FROM (\S+)|^From: (\S+)", text, re.MULTILINE) for text in (docker, apptainer)}
    names = {found[1] or found[2] for found in images if found}
    assert len(names) == 1, "both from the same image"
    assert 'ENTRYPOINT ["cliqa-bench"]' in docker
    assert 'exec cliqa-bench "$@"' in apptainer
    # docs/installing.md gives docker a user without an account; Avalanche writes to the home folder
    assert re.search(r"^ENV .*\bHOME=/tmp\b", docker, re.MULTILINE)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    required = config["options"]["install_requires"].splitlines()
    for text in (docker, apptainer):
        assert {f"torch{b}" for b in re.findall(r'"torch(>=[\d.]+)"', text)} <= set(required)
        assert {f"torchvision{b}" for b in re.findall(r'"torchvision(>=[\d.]+)"', text)} <= set(required)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint")
def test_the_container_file_is_linted() -> None:
    done = subprocess.run(
        ["hadolint", "docs/containers/Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_help_waits_neither_for_numpy_nor_for_the_datasets() -> None:
    program = (
        "import sys, cliqa_bench.cli.parser; print({'numpy', 'cliqa_bench.benchmarks.base'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
