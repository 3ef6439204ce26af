"""How to compute: on which device, in how many threads, how exactly; and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from cliqa_bench.config import RunConfig
from cliqa_bench.errors import OutOfMemory, UserError
from cliqa_bench.system.hardware import cpu_model
from cliqa_bench.system.memory import is_out_of_memory


def resolve_device(name: str, number: int = 0) -> torch.device:
    """Turns "auto" into a device, and checks any other name.

    Args:
        name: As on the command line.
        number: Which of several processes asks; they share the GPUs evenly where none is named.

    Raises:
        UserError: If the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count() > 1:
        name = f"cuda:{number % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} is not available ({reason}); use cpu or auto") from error
    return device


@contextmanager
def limited_threads(config: RunConfig) -> Iterator[None]:
    """Computes with the configured number of threads; sums of another number differ in the last bits.

    On a GPU the threads of the CPU add nothing up, and are left alone unless set.
    """
    threads = config.threads
    if threads is None and resolve_device(config.device).type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        with threadpool_limits(threads or 1):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Lets PyTorch use only what gives the same bits each time on one device; a CPU does so anyway.

    What has no such implementation on a GPU then raises a RuntimeError that names it.
    """
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    if wanted:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        cudnn.deterministic, cudnn.benchmark = flags


@contextmanager
def explain_out_of_memory(*settings: str) -> Iterator[None]:
    """Reports in one line that memory is used up, and which settings to lower.

    Raises:
        OutOfMemory: Where memory is used up.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        lower = " or ".join([*filter(None, [", ".join(settings)]), "--jobs"])
        raise OutOfMemory(f"out of memory; reduce {lower} ({said})") from None


def title_of(device: torch.device) -> str:
    """Returns what a device is: "NVIDIA H100", or the CPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
