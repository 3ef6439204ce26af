"""The first import of Avalanche, which writes a settings file in the home folder in two steps."""

import json
import os
import subprocess
import sys

import pytest

from cliqa_bench.errors import UserError
from cliqa_bench.system.avalanche_import import importing_avalanche


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("left", [None, ""], ids=["missing", "left empty by a killed process"])
def test_the_settings_are_whole_before_avalanche_looks_for_them(home, left):
    path = home / ".avalanche" / "config.json"
    if left is not None:
        path.parent.mkdir()
        path.write_text(left)
    with importing_avalanche():
        assert json.loads(path.read_text()) == {"dataset_location": str(home / ".avalanche" / "data")}
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_settings_that_are_there_stay(home):
    path = home / ".avalanche" / "config.json"
    path.parent.mkdir()
    path.write_text('{"dataset_location": "elsewhere"}')
    with importing_avalanche():
        assert json.loads(path.read_text()) == {"dataset_location": "elsewhere"}


def test_a_home_that_cannot_be_written_is_named(home):
    (home / ".avalanche").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"config\.json .*set HOME") as raised, importing_avalanche():
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_avalanche_takes_these_settings(home):
    code = (
        "from cliqa_bench.system.avalanche_import import importing_avalanche\n"
        "with importing_avalanche():\n"
        "    from avalanche.benchmarks.datasets.dataset_utils import AVALANCHE_CONFIG\n"
        "print(AVALANCHE_CONFIG['dataset_location'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(home)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(home / ".avalanche" / "data"), done.stderr
