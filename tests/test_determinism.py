"""The same command, the same bits: whatever the processes, the place in an order, and the flag for GPUs."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from test_runner import arguments, content
from tiny_dataset import make_tiny

from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.cli import parser
from cliqa_bench.extensions.registry import code_digest
from cliqa_bench.reports import report
from cliqa_bench.settings.resolve import config_dict, resolve
from cliqa_bench.system.compute import deterministic_algorithms
from cliqa_bench.system.versions import versions


def test_deterministic_algorithms_are_set_and_taken_back():
    def state():
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark

    before = state()
    with deterministic_algorithms(True):
        assert state() == (True, True, False)
        with deterministic_algorithms(False):
            assert state() == (True, True, False), "what is wanted outside stays"
    assert state() == before
    with pytest.raises(ValueError, match="x"), deterministic_algorithms(True):
        raise ValueError("x")
    assert state() == before


def test_the_flag_is_a_key_of_the_configuration():
    settings = {"strategy": "tsn", "deterministic": True}
    config = resolve(settings)
    assert config.deterministic
    assert resolve(config_dict(config)).deterministic
    assert not resolve({"strategy": "tsn"}).deterministic


@pytest.mark.slow
def test_neither_order_nor_processes_nor_the_flag_change_a_byte(miniatures, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write_report", lambda *given: SimpleNamespace(summary=""))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is taken back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for name, order, more in (
        ("one", "live,bid", ["--deterministic"]),
        ("two", "bid,live", ["--jobs", "2", "--device", "cpu"]),
    ):
        words = arguments(miniatures, tmp_path / name, *more)
        words[words.index("--orders") + 1] = order
        assert parser.main(words) == 0
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert len(one) > 20
    assert one | {"config.yaml": ""} == two | {"config.yaml": ""}
    for name, deterministic in (("one", True), ("two", False)):
        check_what_lies_beside(tmp_path / name, deterministic)


def test_the_number_of_decoding_threads_changes_no_byte(tmp_path, monkeypatch):
    dataset = make_tiny(tmp_path / "tiny", 30)
    keys = [rating.key for rating in dataset.ratings()]
    decoded = []
    for threads in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda n=threads: n)
        folder = tmp_path / str(threads)
        ImageCache.open(dataset, keys, 0, folder)
        decoded.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert decoded[0] == decoded[1] and decoded[0]


def check_what_lies_beside(out, deterministic):
    """What a result depends on stands beside it: in its node, and in the record of the run."""
    for done in out.glob("*/*/done.json"):
        facts = json.loads(done.read_text())["facts"]
        assert facts["deterministic"] is deterministic
        assert facts["device"] == "cpu" and facts["device_name"] and facts["threads"] == 1
        assert facts["code"] == code_digest() and facts["versions"] == versions()
    for spec in out.glob("train/*/spec.json"):
        body = json.loads(spec.read_text())
        assert {"strategy", "params", "training", "seed", "backbone", "weights", "sequence"} <= body.keys()
        assert [len(fingerprint) for _, fingerprint in body["sequence"]] == [64], "of data and split"
    (record,) = (json.loads(path.read_text()) for path in out.glob("runs/*.json"))
    facts = record["facts"]
    assert facts["config"]["deterministic"] is deterministic and facts["code"] == code_digest()
    assert {"command", "config", "weights", "split", "device", "versions", "fingerprints"} <= facts.keys()
