"""What a piece of work takes beside time: memory on host and GPU, and the energy and load of the card.

A number that is not available here is left out; asking for it raises nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

import torch

from cliqa_bench.system.memory import own_bytes
from cliqa_bench.types import Json

_EVERY = 0.1
"""Seconds between two samples."""
_THREAD = "sampler"


@dataclass
class Usage:
    """What a piece of work took; filled when it has ended well.

    Attributes:
        seconds: Wall time.
        joules: Energy of the whole card, with what it takes when idle and what other processes do on it. Its
            counter moves in steps, so that a piece much shorter than a second may find none, or a step of
            the work before it.
        gpu_bytes: Most memory of the GPU that PyTorch's tensors took at a time; without what its allocator
            keeps in reserve and without CUDA itself.
        host_bytes: Most main memory of this process, looked at every tenth of a second and at the end:
            resident, without mapped files (decoded images, libraries), with freed memory that it keeps.
    """

    seconds: float = math.nan
    joules: float | None = None
    gpu_bytes: int | None = None
    host_bytes: int | None = None

    def facts(self, prefix: str = "") -> dict[str, Json]:
        """Returns what was measured beside the time, for `done.json`."""
        measured = {"joules": self.joules, "gpu_bytes": self.gpu_bytes, "host_bytes": self.host_bytes}
        return {prefix + name: value for name, value in measured.items() if value is not None}


@contextmanager
def measured(device: torch.device) -> Iterator[Usage]:
    """Measures a block that computes on a device; one at a time in a process, none within another.

    Args:
        device: Where it computes. A GPU is waited for at both ends.
    """
    usage, gpu = Usage(), device.type == "cuda"
    with Sampler(own_bytes) as host:
        if gpu:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        joules, start = _joules(device), time.perf_counter()
        yield usage
        if gpu:
            torch.cuda.synchronize(device)
            usage.gpu_bytes = torch.cuda.max_memory_allocated(device)
        usage.seconds = time.perf_counter() - start
        joules = _joules(device) - joules
    if joules >= 0:  # not nan, and not counted from 0 again by a driver that was reloaded
        usage.joules = round(joules, 3)
    if math.isfinite(host.largest):
        usage.host_bytes = int(host.largest)


class Sampler:
    """Samples a number every tenth of a second in a thread, and once more at the end.

    Attributes:
        largest: The largest number, nan for none.
        mean: Their mean, nan for none.

    Args:
        read: Returns the number, nan for none; if it does so at the start, it is not asked again.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.largest = self.mean = math.nan
        self._read, self._number = read, 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if math.isfinite(self._read()):
            self._thread = threading.Thread(target=self._watch, name=_THREAD, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._sample()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._sample()

    def _sample(self) -> None:
        value = self._read()
        if math.isfinite(value):
            self._number += 1
            first = self._number == 1
            self.largest = value if first else max(self.largest, value)
            self.mean = value if first else self.mean + (value - self.mean) / self._number


class GpuLoad(Sampler):
    """Watches how busy a GPU is during a block; `mean` is in percent, nan if NVML does not report it.

    NVML's figure is the share of the last moments in which any kernel ran, of any process and however
    little of the card it filled.

    Args:
        device: The GPU; of any other device there is no number.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(partial(_percent, device))


def _joules(device: torch.device) -> float:
    """Returns the energy that a card has taken since its driver was loaded, nan where nothing counts it."""
    return _ask(device, lambda nvml, card: nvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1000)


def _percent(device: torch.device) -> float:
    return _ask(device, lambda nvml, card: nvml.nvmlDeviceGetUtilizationRates(card).gpu)


def _ask(device: torch.device, question: Callable[[Any, Any], float]) -> float:
    """Asks NVML about a card; nan without an answer."""
    if device.type != "cuda" or (found := _card(device)) is None:
        return math.nan
    try:
        return float(question(*found))
    except Exception:  # its errors are classes of a package that may be missing
        return math.nan


@cache
def _card(device: torch.device) -> tuple[Any, Any] | None:
    """Returns NVML and its handle of a GPU; None without the package, a driver, or the right to ask."""
    try:
        import pynvml

        pynvml.nvmlInit()
        # by UUID: NVML counts all cards, CUDA those that CUDA_VISIBLE_DEVICES names, in its order
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception:  # as in `_ask`; before PyTorch 2.5 a GPU may have no `uuid`
        return None
