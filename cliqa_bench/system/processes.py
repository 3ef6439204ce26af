"""A function over many items in several processes, none of which outlives whoever started them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from cliqa_bench.errors import UserError
from cliqa_bench.system.signals import block_signals, leave_stops_to_parent

Item = TypeVar("Item")
Returned = TypeVar("Returned")


class Processes:
    """Processes that share out the items; see `processes`.

    Args:
        pool: Who does the work; None for this process.
    """

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool = pool

    def map(self, function: Callable[[Item], Returned], items: Iterable[Item]) -> Iterator[Returned]:
        """Begins with all items, and gives what becomes of them in their order.

        Args:
            function: A function of a module.
            items: What it is called with.

        Raises:
            UserError: If a process was killed.
        """
        if self._pool is None:
            return map(function, items)
        # not the pool's own `map`: stopped, it cancels what is left, and a cancelled one whose process is
        # killed ends in a traceback of the pool's thread
        with block_signals():  # here processes are started
            return _in_turn(deque(self._pool.submit(function, item) for item in items))


def _in_turn(futures: deque) -> Iterator:
    while futures:
        yield futures.popleft().result()


@contextmanager
def processes(number: int) -> Iterator[Processes]:
    """Starts processes, and ends them.

    Where something goes wrong, Ctrl-C included, they end at once: what they do must not need a farewell.

    Args:
        number: How many; with one, everything is done in this process.

    Raises:
        UserError: If one of them was killed.
    """
    if number <= 1:
        yield Processes(None)
        return
    # spawned, not forked: a forked child can inherit locked thread pools
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(number, context, _attend, (os.getpid(),)) as pool:
            try:
                yield Processes(pool)
            except BaseException:
                for child in multiprocessing.active_children():
                    child.kill()
                raise
    except BrokenProcessPool as error:
        raise UserError("a process was killed (memory?); run the same command again") from error


def _attend(parent: int) -> None:
    """Prepares a process: stops are the parent's business, and without parent it ends."""
    leave_stops_to_parent()
    end_with(parent)


def attend_loader(number: int) -> None:
    """As that, for a process of PyTorch's `DataLoader`, which must be started with signals held back.

    Args:
        number: Which of the loader's processes it is; `worker_init_fn` is called with it.
    """
    leave_stops_to_parent()
    end_with(os.getppid())
    hook = sys.excepthook

    def quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # the thread that hands tensors over complains when the parent stops amid one; errors of the data go
        # another way
        if not issubclass(kind, ConnectionError | EOFError):
            hook(kind, error, trace)

    sys.excepthook = quiet


def end_with(parent: int) -> None:
    """Lets this process end soon after its parent.

    Args:
        parent: The parent's process id.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
