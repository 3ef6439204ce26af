"""Freed memory is given back when more than usual has gathered; see also test_faults.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from cliqa_bench import memory

MB = 1 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of /proc")
def test_own_memory_is_what_was_written_to() -> None:
    program = (  # a process of its own: this one may have freed memory at hand
        "import numpy as np; from cliqa_bench import memory; before = memory._own_bytes();"
        "block = np.ones(200 << 20, np.uint8); print(memory._own_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parents[1])  # fmt: skip
    assert 195 * MB < int(done.stdout) < 260 * MB


def test_what_gathers_is_given_back_and_what_is_usual_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    trimmed: list[int] = []
    monkeypatch.setattr(memory, "_trimmer", lambda: trimmed.append)
    monkeypatch.setattr(memory, "_own_bytes", lambda: now[0] * MB)
    freed = memory.FreedMemory()

    def settled(megabytes: int) -> int:
        now[0] = megabytes
        freed.settle()
        return len(trimmed)

    assert [settled(n) for n in (1000, 1200, 1256, 1257)] == [0, 0, 0, 1]
    # the next mini-batch takes again what it needs, and that is usual from now on
    assert [settled(n) for n in (2000, 2400, 2500, 2501, 600, 600)] == [1, 1, 1, 2, 2, 2]
    assert [settled(n) for n in (856, 857)] == [2, 3]


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trimmer", lambda: None)
    monkeypatch.setattr(memory, "_own_bytes", None)
    memory.FreedMemory().settle()
