"""Processes that each have a pipe to the process that started them, and end with it.

Why not `ProcessPoolExecutor`: if one of its processes dies, it ends the others too, and does not say which
task the dead one was working on. Its processes also share queues: one that is killed while it holds a queue's
lock leaves the others waiting for ever.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, TypeVar

from cliqa_bench.errors import UserError
from cliqa_bench.system.signals import block_signals, leave_stops_to_parent

Item = TypeVar("Item")
Returned = TypeVar("Returned")

CONTEXT = multiprocessing.get_context("spawn")
"""How processes are started; not forked, because a forked child can inherit locked thread pools."""


class Child:
    """A process that was started, and this end of its pipe; the pipe breaks when the process dies.

    Block signals while you start one and until you have stored it: a stop in between would leave it behind.

    Args:
        serve: What it does; a function of a module. It may end as soon as its end of the pipe breaks.
        args: What `serve` is called with, after its end of the pipe.
    """

    def __init__(self, serve: Callable[..., None], *args: Any) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(serve, theirs, *args))
        self.process.start()
        theirs.close()

    def end(self) -> None:
        """Ends it at once."""
        end_all([self])


def end_all(children: Iterable[Child]) -> None:
    """Ends processes at once: nothing incomplete has a final name, so they need no cleaning up."""
    every = list(children)
    for child in every:
        child.process.kill()
    for child in every:
        child.process.join()
        child.pipe.close()


def _serve(serve: Callable[..., None], pipe: Connection, *args: Any) -> None:
    attend()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone, or needs us no longer
        serve(pipe, *args)


def attend() -> None:
    """Prepares a process that was started with signals blocked.

    It leaves stops to its parent, and ends when its parent does.
    """
    leave_stops_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def attend_loader(number: int) -> None:
    """As `attend`, for a process of PyTorch's `DataLoader`.

    Args:
        number: Which of the loader's processes it is; `worker_init_fn` is called with it.
    """
    attend()
    hook = sys.excepthook

    def quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # the thread that hands tensors over complains when the parent stops during one; errors of the data go
        # another way
        if not issubclass(kind, ConnectionError | EOFError):
            hook(kind, error, trace)

    sys.excepthook = quiet


# -- a function over many items ------------------------------------------------------------------------------


class Processes:
    """Processes that share out items; see `processes`.

    Args:
        number: How many; they are started when there is something to do.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._children: list[Child] = []

    def map(self, function: Callable[[Item], Returned], items: Iterable[Item]) -> Iterator[Returned]:
        """Gives what becomes of items, in their order; one `map` must be over before the next begins.

        Args:
            function: A function of a module.
            items: What it is called with.

        Raises:
            UserError: If a process was killed.
        """
        return map(function, items) if self._number <= 1 else self._map(function, list(items))

    def _map(self, function: Callable[[Item], Returned], items: list[Item]) -> Iterator[Returned]:
        if items and not self._children:
            for _ in range(self._number):
                with block_signals():
                    self._children.append(Child(_apply))
        todo, done = iter(enumerate(items)), dict[int, Returned]()
        idle, at_work = [child.pipe for child in self._children], dict[Connection, int]()
        for number in range(len(items)):
            while number not in done:
                for pipe, (at, item) in zip(idle, todo, strict=False):
                    with _told_if_killed():
                        pipe.send((function, item))
                    at_work[pipe] = at
                idle = [pipe for pipe in wait(list(at_work)) if isinstance(pipe, Connection)]
                done |= {at_work.pop(pipe): _received(pipe) for pipe in idle}
            yield done.pop(number)

    def end(self) -> None:
        """Ends all at once."""
        end_all(self._children)


@contextmanager
def _told_if_killed() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise UserError("a process was killed (out of memory?); run the same command again") from error


def _received(pipe: Connection) -> Any:
    with _told_if_killed():
        outcome, error = pipe.recv()
    if error is not None:
        raise error
    return outcome


def _apply(pipe: Connection) -> None:
    """Applies functions to items that come through a pipe; what one raises is sent back, and where."""
    while True:
        function, item = pipe.recv()
        try:
            told: tuple[Any, Exception | None] = function(item), None
        except Exception as error:
            error.add_note(traceback.format_exc())
            told = None, error
        try:
            pipe.send(told)
        except Exception:  # it cannot be pickled; none of it was sent
            pipe.send((None, RuntimeError(traceback.format_exc())))


@contextmanager
def call(function: Callable[[Item], Returned], item: Item) -> Iterator[Callable[[], Returned]]:
    """Runs a function in a process of its own, which ends with the block.

    Args:
        function: A function of a module.
        item: What it is called with.

    Yields:
        What waits for the outcome; it raises what the function did, and a `UserError` if the process was
        killed.
    """
    with block_signals():
        child = Child(_apply)
    try:
        with _told_if_killed():
            child.pipe.send((function, item))
        yield lambda: _received(child.pipe)
    finally:
        child.end()


@contextmanager
def processes(number: int) -> Iterator[Processes]:
    """Starts processes, and ends them at once: what they do must need no cleaning up.

    Args:
        number: How many; with one, everything is done in this process.
    """
    spread = Processes(number)
    try:
        yield spread
    finally:
        spread.end()
