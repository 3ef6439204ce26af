"""A slice of the chaos test, and that it would notice what it looks for. In full: `tests/chaos.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import chaos_process as lab
import pytest

from cliqa_bench.results.nodes import Node
from cliqa_bench.system.locks import claimed

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the chaos test forks")
@pytest.mark.slow
def test_what_is_killed_and_goes_on_ends_as_what_nobody_disturbed() -> None:
    words = [
        "--kills", "2", "--strategies", "tsn", "--jobs", "1", "--only-runs", "--no-figures", "--seed", "3",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "chaos.py"), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert (figures["kills"], figures["deviations"]) == ("2", "0")


def test_the_chaos_test_would_notice(tmp_path: Path) -> None:
    node = Node(tmp_path, "train", "a", {})
    with node.building({"seconds": 1}) as folder:
        (folder / "weights").write_bytes(b"123")
    before = lab.results(tmp_path)
    assert not lab.torn(tmp_path) and not lab.leftovers(tmp_path)
    node.file("weights").write_bytes(b"124")
    assert lab.torn(tmp_path) == [str(node.file("weights"))]
    assert lab.differences(lab.results(tmp_path), before) == [f"train/{node.id}/weights"]
    with claimed(tmp_path / "claims" / "train-x.lock"):
        assert lab.claims(tmp_path) == {"train-x.lock": os.getpid()}
        assert lab.phase(tmp_path) == "training"
        assert lab.leftovers(tmp_path) == [str(tmp_path / "claims" / "train-x.lock")]
    (tmp_path / "checkpoints").mkdir()
    for name in (".x~host~1~abc.json", "checkpoints/x.safetensors"):
        (tmp_path / name).touch()
        assert lab.leftovers(tmp_path) == [str(tmp_path / name)]
        (tmp_path / name).unlink()
