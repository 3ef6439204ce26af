"""Processes to be killed: started in milliseconds, watched while they work, and compared by what they leave.

Importing PyTorch and Avalanche takes longer than a small run. So one process imports them and does nothing
else, and every run is a fork of it; some are started as users do, to see that this makes no difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STOPS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 120.0
"""Seconds after which a run counts as hung."""


def preload() -> None:
    """Imports what runs need, here and in the process that theirs are forked from; writes nothing."""
    os.environ["OMP_NUM_THREADS"] = "1"  # forks must find no threads of PyTorch's
    forkserver.set_forkserver_preload(["cliqa_bench.execution.worker", "cliqa_bench.execution.run"])
    forkserver.ensure_running()
    import cliqa_bench.execution.run
    import cliqa_bench.execution.worker
    import cliqa_bench.reports.report  # noqa: F401
    from cliqa_bench.system import processes

    # a fork of this process cannot ask after its sibling, the server; it is there
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    processes.CONTEXT = _InGroups()  # type: ignore[assignment]


class _InGroups(ForkServerContext):
    """Starts processes that belong to the group of who asks for them, not to the server's."""

    def Process(  # type: ignore[override]
        self, target: Callable[..., None], args: tuple[Any, ...]
    ) -> BaseProcess:
        """See `multiprocessing.Process`."""
        return super().Process(target=_join, args=(os.getpgid(0), target, *args))


def _join(group: int, target: Callable[..., None], *args: Any) -> None:
    # a process that is spawned inherits that signals are held back
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    with contextlib.suppress(OSError):  # its last process has gone
        os.setpgid(0, group)
    target(*args)


@dataclass
class Run:
    """A command under way.

    Attributes:
        pid: Of its process, which leads a group of its own.
        log: What it says.
        cold: Whether it was started as users do, and not forked.
        code: Its exit code once it has ended; minus the signal's number where one killed it.
    """

    pid: int
    log: Path
    cold: bool
    code: int | None = None
    _kin: set[int] = field(default_factory=set)

    def ended(self) -> bool:
        """Tells whether it is over."""
        if self.code is None:
            self._kin |= children(self.pid)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Waits for its end; returns the exit code, None if it hangs, and is then killed."""
        waited, last = 0.0, time.monotonic()
        while not self.ended():
            # a pause of all processes, for a measurement, is not a hang
            waited, last = waited + min(time.monotonic() - last, 0.1), time.monotonic()
            if waited > seconds:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -signal.SIGKILL
                return None
            time.sleep(0.01)
        return self.code

    def orphans(self, seconds: float = 8.0) -> list[int]:
        """Returns its processes that are still there some seconds after its end."""
        deadline = time.monotonic() + seconds
        known = self._kin | children(_server())
        while left := [pid for pid in known if alive(pid)]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return left

    def said(self) -> str:
        """Returns what it said."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def _server() -> int:
    return forkserver._forkserver._forkserver_pid or 0  # type: ignore[attr-defined]


def children(pid: int) -> set[int]:
    """Returns the ids of a process's children."""
    with contextlib.suppress(OSError):
        return {int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def alive(pid: int) -> bool:
    """Tells whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def start(words: Sequence[str], cache: Path, log: Path, cold: bool, hook: Callable[[], None] | None) -> Run:
    """Starts a command.

    Args:
        words: The command line, without the program's name.
        cache: Its cache folder.
        log: Where what it says goes.
        cold: Whether to start it as users do; else it is a fork of this process.
        hook: What a fork does first, to make the work smaller.
    """
    if cold:
        env = {**os.environ, **_environment(cache), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "cliqa_bench", *words], cwd=ROOT, env=env, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        process.returncode = 0  # waited for by us
        return Run(process.pid, log, True)
    sys.stdout.flush()
    log.touch()  # it may be killed before it says anything
    pid = os.fork()
    if pid == 0:
        _become(words, cache, log, hook)
    with contextlib.suppress(OSError):  # whichever of the two comes first
        os.setpgid(pid, pid)
    return Run(pid, log, False)


def _environment(cache: Path) -> dict[str, str]:
    """Returns where a command's cache lies, and that it keeps a checkpoint of every epoch."""
    return {"CLIQA_CACHE": str(cache), "CLIQA_CHECKPOINT_SECONDS": "0"}


def _become(words: Sequence[str], cache: Path, log: Path, hook: Callable[[], None] | None) -> None:
    """Does a command in a fork, and ends it."""
    code = 70
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        target = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.environ |= _environment(cache)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = ["cliqa-bench", *words]
        if hook:
            hook()
        from cliqa_bench.__main__ import main

        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# -- what it is doing, and what it leaves --------------------------------------------------------------------

PHASES = {
    "report": "report",
    "train": "training",
    "gate": "gates and answers",
    "distances": "gates and answers",
    "scores": "gates and answers",
    "picture": "gates and answers",
}
"""First word of a lock's name -> what is being done."""


def claims(out: Path) -> dict[str, int]:
    """Returns what is being done in an output folder: name of the lock -> its owner."""
    found: dict[str, int] = {}
    locks: list[Path] = []
    with contextlib.suppress(OSError):  # the folder goes with its last lock
        locks = list((out / "claims").glob("*.lock"))
    for path in locks:
        with contextlib.suppress(OSError):
            if owner := re.match(r"process (\d+) on", path.read_text()):
                found[path.name] = int(owner[1])
    return found


def phase(out: Path) -> str:
    """Returns in words what is going on in an output folder."""
    for name in claims(out):
        return PHASES[name.removesuffix(".lock").partition("-")[0]]
    if not list(out.glob("runs/*.json")):
        return "start and decoding"
    return "in between"


def leftovers(*folders: Path) -> list[str]:
    """Returns the temporary files, locks and checkpoints in folders: none must be there after a run."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if (path.name.startswith(".") and "~" in path.name) or path.suffix == ".lock":
                found.append(str(path))
        found += [str(path) for path in folder.glob("checkpoints/*")]
    return found


_TIMES = re.compile(r"report/(table_time\..*|report\.html|README\.md|\.report\.json)|config\.yaml")
_OF_A_RUN = ("asked", "command", "config")


def results(out: Path) -> dict[str, str]:
    """Returns a hash of everything that an output folder holds, apart from times, folders and --jobs."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        data = path.read_bytes()
        if name.endswith("done.json"):
            body = json.loads(data)
            data = json.dumps([body["id"], body["files"]]).encode()
        elif name.startswith("runs/"):
            body = json.loads(data)
            body["facts"] = {k: v for k, v in body["facts"].items() if k not in _OF_A_RUN}
            data = json.dumps(body, sort_keys=True).encode()
        elif name == "scnn.safetensors":  # its metadata hold the command, and so the folder
            data = _tensors(data)
        if not _TIMES.fullmatch(name):
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _tensors(data: bytes) -> bytes:
    """Returns what a safetensors file holds but for its metadata, written anew."""
    from safetensors.numpy import load, save

    written: bytes = save(load(data))
    return written


def torn(out: Path) -> list[str]:
    """Returns the finished nodes of an output folder whose files are not those that they name."""
    wrong = []
    for done in out.glob("*/[!.]*/done.json"):
        files = json.loads(done.read_text())["files"]
        for name, digest in files.items():
            path = done.parent / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                wrong.append(str(path))
    return wrong


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Returns the names of what is missing, too much or different."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if found.get(name) != expected.get(name))
