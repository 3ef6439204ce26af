"""Freed memory is given back when more than usual has gathered; see also test_faults.py."""

import itertools
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.system import memory

MB = 1 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of /proc")
def test_own_memory_is_what_was_written_to() -> None:
    program = (  # a process of its own: this one may have freed memory at hand
        "import numpy as np; from cliqa_bench.system import memory; before = memory.own_bytes();"
        "block = np.ones(200 << 20, np.uint8); print(memory.own_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parents[1])  # fmt: skip
    assert 195 * MB < int(done.stdout) < 260 * MB


def test_what_gathers_is_given_back_and_what_is_usual_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    trimmed: list[int] = []
    monkeypatch.setattr(memory, "_trimmer", lambda: trimmed.append)
    monkeypatch.setattr(memory, "own_bytes", lambda: now[0] * MB)
    monkeypatch.setattr(memory, "_usual", 0)

    def given(megabytes: int) -> int:
        now[0] = megabytes
        memory.trim_memory()
        return len(trimmed)

    assert [given(n) for n in (1000, 1200, 1256, 1257)] == [0, 0, 0, 1]
    # the next mini-batch takes again what it needs, and that is usual from now on
    assert [given(n) for n in (2000, 2400, 2500, 2501, 600, 600)] == [1, 1, 1, 2, 2, 2]
    assert [given(n) for n in (856, 857)] == [2, 3]


def test_what_one_dataset_left_is_not_usual_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered, trimmed = itertools.count(1000 * MB, 200 * MB), mock.Mock()
    monkeypatch.setattr(memory, "_usual", 0)
    monkeypatch.setattr(memory, "own_bytes", lambda: next(gathered))
    monkeypatch.setattr(memory, "_trimmer", lambda: trimmed)
    dataset = mock.Mock(spec=DecodedDataset)
    dataset.keys.return_value = ["one"]
    dataset.eval_batches.side_effect = lambda *_: [(np.zeros(1, np.int64), torch.zeros(1, 3, 8, 8))]
    for _ in range(3):
        score_images(lambda x: x.mean((1, 2, 3))[:, None], dataset, "test", 1, "cpu")
    trimmed.assert_called_once_with(0)


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trimmer", lambda: None)
    monkeypatch.setattr(memory, "own_bytes", None)
    memory.trim_memory()
