"""No command opens a connection beyond this machine, and none asks for the address of another."""

import os
import subprocess
import sys
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
        self.env = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "OFFLINE_LOG": str(self.log),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def python(self, *words: str, code: int = 0, cwd: Path = ROOT) -> None:
        self.log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *words], cwd=cwd, env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stderr
        assert not self.log.exists(), f"{words}: {self.log.read_text(encoding='utf-8')}"

    def __call__(self, *words: str, code: int = 0) -> None:
        self.python("-m", "cliqa_bench", *words, code=code)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    return Offline(tmp_path_factory.mktemp("offline") / "site")


@pytest.fixture(scope="module")
def finished(offline: Offline, miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("offline-run") / "runs"
    offline(*arguments(miniatures, out, "--jobs", "2", "--log", "csv"))
    return out


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


@pytest.mark.parametrize("log", ["tensorboard", "wandb"])
def test_run_with_a_logger(offline: Offline, miniatures: Path, tmp_path: Path, log: str) -> None:
    words = arguments(miniatures, tmp_path / "runs", "--log", log)
    offline(*[word.replace("live,bid;bid,live", "bid") for word in words])


def test_what_reads_a_finished_run(
    offline: Offline, finished: Path, miniatures: Path, tmp_path: Path
) -> None:
    offline("plan", *arguments(miniatures, finished)[1:])
    offline("report", "--out", str(finished))
    offline("verify", str(finished), "--pack", str(tmp_path / "bundle.zip"))
    pictures = sorted((finished / "pictures").rglob("*.png"))[:2]
    offline("score", *map(str, pictures), "--runs", str(finished))


def test_data(offline: Offline, miniatures: Path, tmp_path: Path) -> None:
    offline("data", "make", str(tmp_path / "made"), "--scale", "0.02")
    offline("data", "check", str(miniatures), "--datasets", "bid")
    offline("data", "ratings", "bid", "--data", str(miniatures))
    offline("data", "sheet", str(tmp_path / "made"), "--out", str(tmp_path / "sheets"))


def test_the_other_commands(offline: Offline, finished: Path, tmp_path: Path) -> None:
    offline("list")
    offline("test", "naive")
    words = ["--rows", "precision", "--runs", str(finished), "--repeats", "1", "--device", "cpu"]
    offline("bench", *words, "--out", str(tmp_path / "bench"))
    words = ["--steps", "1", "--to", str(tmp_path / "w.safetensors"), "--device", "cpu"]
    offline.python("-c", PRETRAIN, "pretrain", *words)


PRETRAIN = """
import sys
from dataclasses import replace
from cliqa_bench import cli, pretrain_config
# a few small pictures
pretrain_config.SCNN = replace(pretrain_config.SCNN, pictures=5, batch=4, size=64)
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""

PAPER = """
import sys
from dataclasses import replace
from cliqa_bench import cli, paper, settings
whole = paper.runs
def few(base, strategies, orders, backbones):
    # its first run and one of the others, on one dataset
    chosen = list(whole(base, ["tsn", "sl"], {"I": ["bid"]}, backbones))
    yield chosen[0]
    yield chosen[2]
paper.runs = few
sys.exit(cli.main(sys.argv[1:]))
"""


def test_paper(offline: Offline, miniatures: Path, tmp_path: Path) -> None:
    words = arguments(miniatures, tmp_path / "runs", "--test-on", "none", "--jobs", "1")
    left_out = words.index("--strategy"), words.index("--orders")
    kept = [word for i, word in enumerate(words[1:], 1) if i not in {k for n in left_out for k in (n, n + 1)}]
    offline.python("-c", PAPER, "paper", *kept)


def test_timm_as_it_is_imported(offline: Offline) -> None:
    pytest.importorskip("timm")  # what else is large, avalanche and loggers, the runs import
    offline.python("-c", "import timm")
