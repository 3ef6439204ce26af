"""The control: what the device itself can do, to tell a slow row from a slow machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement, interleaved, synchronised

SIDE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices, by type of device."""

BYTES = {"cuda": 1 << 32, "cpu": 1 << 26}
CALLS = {"cuda": 10, "cpu": 2}


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    device = torch.device(setting.device)
    for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        yield product(setting, device, name, kind)
    yield copied(setting, device)
    if device.type == "cuda":
        yield sent(setting, device)


def product(setting: Conditions, device: torch.device, name: str, kind: torch.dtype) -> Measurement:
    """Measures a product of two square matrices of random numbers."""
    side = SIDE[device.type]
    random = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=random).to(kind) for _ in range(2))
    rates = _rates(setting, device, lambda: a @ b, 2 * side**3 / 1e12)
    return Measurement("device", f"product of matrices, {side} x {side}, {name}", rates, "TFLOP/s")


def copied(setting: Conditions, device: torch.device) -> Measurement:
    """Measures a copy within the device's memory; what is read and what is written both count."""
    size = BYTES[device.type]
    a, b = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    rates = _rates(setting, device, lambda: b.copy_(a), 2 * size / 1e9)
    return Measurement("device", "copy within its memory, bytes read and written", rates, "GB/s")


def sent(setting: Conditions, device: torch.device) -> Measurement:
    """Measures what main memory sends to a GPU, from pages of the ordinary kind."""
    a = torch.ones(1 << 29, dtype=torch.uint8)
    rates = _rates(setting, device, lambda: a.to(device), len(a) / 1e9, calls=2)
    return Measurement("device", "from main memory to the GPU", rates, "GB/s")


def _rates(
    setting: Conditions, device: torch.device, call: Callable[[], object], work: float, calls: int = 0
) -> tuple[float, ...]:
    calls = calls or CALLS[device.type]

    def several() -> None:
        for _ in range(calls):
            call()

    (rates,) = interleaved([lambda: calls * work / synchronised(several, device)], setting.repeats)
    return rates
