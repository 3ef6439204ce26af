"""No command opens a connection beyond this machine, and none asks for the address of another."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_runner import ROOT, arguments

HOOK = """
import os, sys

LOCAL = ("127.0.0.1", "::1", "localhost", "", "0.0.0.0", "::", None)


def watch(event, args):
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        if not isinstance(address, tuple):  # a path of this machine
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOCAL:
        with open(os.environ["OFFLINE_LOG"], "a") as file:
            file.write(f"{event} {host!r} {sys.argv}\\n")
        raise PermissionError(f"{event}: {host!r} is not this machine")


sys.addaudithook(watch)
"""
"""Put into every Python process; what it raises comes before any packet leaves."""


class Offline:
    """Runs Python where no connection is allowed, and notes those that were tried."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        self.log = folder / "log"
        places = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))
        self.env = os.environ | {
            "PYTHONPATH": places, "OFFLINE_LOG": str(self.log), "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def python(self, *words: str) -> None:
        self.log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert not self.log.exists(), f"{words}: {self.log.read_text(encoding='utf-8')}"

    def __call__(self, *commands: Sequence[str | Path], setup: str = "") -> None:
        """Runs commands one after the other in one process: imports take longer than most of them."""
        self.python("-c", f"{setup}\n{PROGRAM}", *(shlex.join(map(str, words)) for words in commands))


PROGRAM = """
import shlex, sys
from cliqa_bench.cli.parser import main
if __name__ == "__main__":
    for line in sys.argv[1:]:
        sys.argv = ["cliqa_bench", *shlex.split(line)]
        if code := main(sys.argv[1:]):
            sys.exit(f"{line}: exit code {code}")
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    return Offline(tmp_path_factory.mktemp("offline") / "site")


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), 1)",
        "socket.getaddrinfo('example.invalid', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
    ],
)
def test_an_attempt_is_noticed(tmp_path: Path, call: str) -> None:
    control = Offline(tmp_path / "site")
    with pytest.raises(AssertionError, match="is not this machine"):
        control.python("-c", f"import socket; {call}")
    assert control.log.stat().st_size, "it would be noticed where the error is caught, too"


@pytest.mark.slow
def test_a_run_and_what_reads_it(offline: Offline, miniatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = arguments(miniatures, out)
    offline.python("-m", "cliqa_bench", *words, "--jobs", "2", "--log", "csv")
    pictures = sorted((out / "pictures").rglob("*.png"))[:2]
    precision = ["--rows", "precision", "--repeats", "1", "--device", "cpu"]
    offline(
        ["plan", *words[1:]],
        ["report", "--out", out],
        ["verify", out, "--pack", tmp_path / "bundle.zip"],
        ["score", *pictures, "--runs", out],
        ["bench", *precision, "--runs", out, "--out", tmp_path],
    )


@pytest.mark.slow
def test_runs_with_loggers_and_those_of_the_paper(offline: Offline, miniatures: Path, tmp_path: Path) -> None:
    words = [word.replace("live,bid;bid,live", "bid") for word in arguments(miniatures, tmp_path / "runs")]
    paper = arguments(miniatures, tmp_path / "paper", "--test-on", "none", "--jobs", "1")
    for flag in ("--strategy", "--orders"):
        del paper[(i := paper.index(flag)) : i + 2]
    offline(
        [*words, "--log", "tensorboard"],
        [*words, "--log", "wandb", "--seeds", "1"],
        ["paper", *paper[1:]],
        setup=f"import chaos; chaos.no_figures()\n{FEW_RUNS}",  # another test draws them
    )


FEW_RUNS = """
from cliqa_bench.settings import paper_runs
whole = paper_runs.runs
def few(base, strategies, orders, backbones):
    # its first run and one of the others, on one dataset
    chosen = list(whole(base, ["tsn", "sl"], {"I": ["bid"]}, backbones))
    yield chosen[0]
    yield chosen[2]
paper_runs.runs = few
"""


@pytest.mark.slow
def test_the_other_commands(offline: Offline, tmp_path: Path) -> None:
    made = tmp_path / "made"
    offline(
        ["data", "make", made, "--scale", "0.02"],
        ["data", "check", made, "--datasets", "bid"],
        ["data", "ratings", "bid", "--data", made],
        ["data", "sheet", made, "--out", tmp_path / "sheets"],
        ["list"],
        ["test", "naive"],
        ["pretrain", "--steps", "1", "--to", tmp_path / "w.safetensors", "--device", "cpu"],
        setup="import chaos; chaos.small_make(); chaos.small_pretrain()",
    )


@pytest.mark.slow
def test_timm_as_it_is_imported(offline: Offline) -> None:
    pytest.importorskip("timm")  # what else is large, avalanche and loggers, the runs import
    offline.python("-c", "import timm")
