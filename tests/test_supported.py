"""Which systems the package runs on, and what it says on others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cliqa_bench import __main__ as program
from cliqa_bench.cli import parser
from cliqa_bench.system import supported


@pytest.fixture
def last() -> Iterator[None]:
    """For a test that calls the program's `main`, after which signals are ignored since the process ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pretend(patch: pytest.MonkeyPatch, system: str, processor: str) -> None:
    patch.setattr(sys, "platform", system)
    uname = os.uname_result((system, "here", "1", "1", processor))
    patch.setattr(os, "uname", lambda: uname, raising=False)
    patch.setattr(parser, "main", lambda: 7)


def test_windows_ends_in_one_line() -> None:
    """In a process of its own, with what Windows lacks hidden: nothing may be imported that needs it."""
    code = (
        "import os, runpy, signal, sys; sys.platform = 'win32'; sys.modules['fcntl'] = None\n"
        "sys.modules['resource'] = None\n"
        "del os.uname, signal.SIGKILL, signal.setitimer, signal.pthread_sigmask\n"
        "sys.argv = ['cliqa_bench', 'list']; runpy.run_module('cliqa_bench', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = "cliqa-bench: Windows is not supported; use Linux, or WSL on this machine\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.usefixtures("last")
@pytest.mark.parametrize(
    ("system", "processor"), [("darwin", "arm64"), ("darwin", "x86_64"), ("linux", "aarch64")]
)
def test_an_untried_system_is_named_and_not_refused(
    system: str, processor: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, system, processor)
    code, said = program.main(), capsys.readouterr()
    monkeypatch.undo()
    assert (code, said.out) == (7, "")
    line = f"cliqa-bench: {system} on {processor} is untried; tested on Linux on x86-64 only\n"
    assert said.err == line


@pytest.mark.usefixtures("last")
def test_where_it_was_tried_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "linux", "x86_64")
    assert supported.untried() is None
    code, said = program.main(), capsys.readouterr()
    assert (code, said.out, said.err) == (7, "", "")
