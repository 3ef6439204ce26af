"""Memory, energy and load of a piece of work, with a counted card instead of a real one."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cliqa_bench.system import memory, usage
from cliqa_bench.system.usage import GpuLoad, Sampler, measured

CPU, SECOND = torch.device("cpu"), torch.device("cuda", 1)
MB = 1 << 20


class NVMLError(Exception):
    """As NVML raises for everything that it cannot do."""


class Nvml(SimpleNamespace):
    """Two cards, which NVML counts in the other order than CUDA does; their counters go on with each look."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.without: set[str] = set()
        self.energy = {"GPU-aa": [1_000, 2_000], "GPU-bb": [500_000, 512_346]}  # millijoules
        self.load = {"GPU-aa": [90], "GPU-bb": [7, 40]}

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.without:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self._called("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._called("handle")
        if uuid not in self.energy:
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, card: str) -> int:
        self._called("energy")
        return self.energy[card].pop(0)

    def nvmlDeviceGetUtilizationRates(self, card: str) -> SimpleNamespace:
        self._called("load")
        values = self.load[card]
        return SimpleNamespace(gpu=values.pop(0) if len(values) > 1 else values[0], memory=0)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvml]:
    fake = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(usage, "_EVERY", 0.001)
    usage._card.cache_clear()
    yield fake
    usage._card.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what is asked of PyTorch, in turn; it sees two cards, and holds 3,000 bytes once it counts."""
    asked: list[str] = []
    peaks = {SECOND: 9_000}

    def reset(device: torch.device) -> None:
        asked.append("reset")
        peaks[device] = 3_000

    def peak(device: torch.device) -> int:
        asked.append("peak")
        return peaks[device]

    def properties(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(uuid=["aa", "bb"][device.index])

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return asked


def test_a_gpu_s_memory_and_energy_are_those_of_its_card(nvml: Nvml, cuda: list[str]) -> None:
    with measured(SECOND) as used:
        cuda.append("work")
    assert cuda == ["wait", "reset", "work", "wait", "peak"]
    assert (used.gpu_bytes, used.joules) == (3_000, 12.346)
    assert used.host_bytes is not None
    assert used.facts("score_") == {
        "score_joules": 12.346, "score_gpu_bytes": 3_000, "score_host_bytes": used.host_bytes,
    }  # fmt: skip


@pytest.mark.parametrize("without", ["init", "handle", "energy"])
def test_without_the_right_or_a_counter_there_is_no_energy(nvml: Nvml, cuda: list[str], without: str) -> None:
    nvml.without = {without}
    with measured(SECOND) as used:
        pass
    assert used.joules is None and "joules" not in used.facts()
    assert used.gpu_bytes == 3_000


def test_a_counter_that_began_anew_tells_no_energy(nvml: Nvml, cuda: list[str]) -> None:
    nvml.energy["GPU-bb"] = [500_000, 10]
    with measured(SECOND) as used:
        pass
    assert used.joules is None


def test_a_card_that_nvml_does_not_know_has_no_energy(nvml: Nvml, cuda: list[str]) -> None:
    del nvml.energy["GPU-bb"]
    with measured(SECOND) as used:
        pass
    assert used.joules is None


def test_a_pytorch_that_does_not_name_the_card_measures_no_energy(
    nvml: Nvml, cuda: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    with measured(SECOND) as used:
        pass
    assert used.joules is None and used.gpu_bytes == 3_000


def test_without_the_package_there_is_no_energy(
    nvml: Nvml, cuda: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    with measured(SECOND) as used, GpuLoad(SECOND) as load:
        assert watching() == 1, "the memory alone"
    assert used.joules is None and math.isnan(load.mean)


def test_nothing_is_asked_of_a_gpu_where_the_device_is_a_cpu(nvml: Nvml, cuda: list[str]) -> None:
    with measured(CPU) as used, GpuLoad(CPU) as load:
        pass
    assert nvml.calls == cuda == []
    assert used.facts().keys() == {"host_bytes"} and math.isnan(load.mean)


def watching() -> int:
    """Returns how many threads look at something at the moment."""
    return sum(thread.name == usage._THREAD for thread in threading.enumerate())


def until(reached: Callable[[], bool]) -> None:
    """Waits for another thread."""
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end, "nothing looks"
        time.sleep(0.001)


def test_the_load_is_the_mean_of_what_was_seen_during_the_block(nvml: Nvml, cuda: list[str]) -> None:
    with GpuLoad(SECOND) as load:
        until(lambda: nvml.calls.count("load") > 3)
    assert load.mean == 40, "7 is of the time before"
    assert watching() == 0


def test_an_answer_that_nvml_owes_is_left_out_of_the_mean(nvml: Nvml, cuda: list[str]) -> None:
    with GpuLoad(SECOND) as load:
        until(lambda: nvml.calls.count("load") > 3)
        nvml.without = {"load"}
        calls = len(nvml.calls)
        until(lambda: len(nvml.calls) > calls + 1)
    assert load.mean == 40


def test_a_sampler_s_mean_and_maximum() -> None:
    values = iter([5.0, 1.0, math.nan, 4.0, 10.0])
    sampler = Sampler(lambda: next(values))
    for _ in range(5):
        sampler._sample()
    assert (sampler.mean, sampler.largest) == (5.0, 10.0)


def test_a_peak_within_the_block_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [1000.0], [0]

    def own() -> float:
        looks[0] += 1
        return now[0]

    monkeypatch.setattr(usage, "own_bytes", own)
    monkeypatch.setattr(usage, "_EVERY", 0.001)
    with measured(CPU) as used:
        now[0] = 5000.0
        seen = looks[0]
        until(lambda: looks[0] > seen + 1)
        now[0] = 2000.0
    assert used.host_bytes == 5000
    assert watching() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of /proc")
@pytest.mark.slow
def test_what_a_block_takes_is_in_the_memory_of_the_host() -> None:
    program = (  # a process of its own: this one may have freed memory at hand
        "import numpy as np, torch; from cliqa_bench.system.usage import measured\n"
        "with measured(torch.device('cpu')) as before: pass\n"
        "with measured(torch.device('cpu')) as used: block = np.ones(200 << 20, np.uint8)\n"
        "print(used.host_bytes - before.host_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parents[1])  # fmt: skip
    assert 195 * MB < int(done.stdout) < 260 * MB


def test_where_the_system_does_not_tell_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    with measured(CPU) as used:
        assert watching() == 0, "it is not asked again"
    assert used.facts() == {} and used.seconds > 0


def test_a_block_that_raises_leaves_no_thread() -> None:
    with pytest.raises(KeyError), measured(CPU) as used:
        assert watching() == 1
        raise KeyError
    assert watching() == 0 and used.facts() == {}
