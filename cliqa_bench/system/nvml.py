"""What NVIDIA's management library tells of a card: how busy it is, and the energy that it has taken.

Its package, `nvidia-ml-py`, is optional: where it, the card or the right to ask is missing, there are no numbers.
"""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Any

import torch

_EVERY = 0.1
"""Seconds between two looks at how busy the card is."""


class Card:
    """A CUDA device as NVML knows it.

    Args:
        device: The device; one that is no CUDA device has no numbers.
    """

    def __init__(self, device: torch.device) -> None:
        self._library, self._handle = _handle(device)

    def joules(self) -> float:
        """Returns the energy that the whole card has taken since its driver started; nan if nobody tells."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", lambda found: float(found) / 1000)

    def busy(self) -> float:
        """Returns for what part of the last moments something ran on the card, in percent; nan likewise."""
        return self._ask("nvmlDeviceGetUtilizationRates", lambda found: float(found.gpu))

    def _ask(self, name: str, value: Any) -> float:
        if self._handle is None:
            return math.nan
        try:
            return float(value(getattr(self._library, name)(self._handle)))
        except self._library.NVMLError:
            return math.nan


def _handle(device: torch.device) -> tuple[Any, Any]:
    """Returns the library and the card's handle in it; None, None where there is none."""
    if device.type != "cuda":
        return None, None
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        # by its UUID: NVML's numbers count all cards, PyTorch's the visible ones
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None, None


class Utilisation:
    """How busy a card is while a block runs, looked at ten times a second.

    Attributes:
        percent: The mean, after the block; nan where nobody tells.
    """

    def __init__(self, device: torch.device) -> None:
        self._card = Card(device)
        self._seen: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.percent = math.nan

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self.percent = sum(self._seen) / len(self._seen) if self._seen else math.nan

    def _look(self) -> None:
        while not self._end.wait(_EVERY):
            self._seen.append(self._card.busy())
