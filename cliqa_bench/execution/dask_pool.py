"""Does jobs in the workers of a Dask cluster: one that is up, or one of this run's own on this machine.

Dask carries jobs and messages, knows which workers there are, and restarts those that die. Who does what is
decided here, as for processes of this machine: a worker gets one job at a time, and only a worker that was
looked at gets any. A worker may come later; the job of one that is gone is tried once more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliqa_bench.config import DASK, RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution.dask_worker import DaskTask, Fitness, do_job, leave_run, start_process
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.worker_processes import Deaths, MakePlan, Progress, Result
from cliqa_bench.extensions import user_code
from cliqa_bench.progress import say, warn
from cliqa_bench.results.nodes import IN_USE

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK = 1.0
"""Seconds after which we look again which workers there are."""

PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""

STARTING = 60.0
"""Seconds in which a first worker must be there."""


# -- the cluster ---------------------------------------------------------------------------------------------


def check_scheduler(executor: str) -> None:
    """Refuses a cluster that is not there; one of this machine's own is started later.

    Raises:
        UserError: If Dask is not installed, or nothing answers at the address.
    """
    _check_installed(executor)
    if executor != DASK:
        _connected(executor).close()


def _check_installed(executor: str) -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--executor {executor} needs the package distributed ({error}): "
            "pip install 'cliqa-bench[cluster]'"
        ) from error


def _connected(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except Exception as error:  # its own, of sockets, of asyncio, of TLS
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"--executor {address}: no Dask scheduler answers there ({reason:.200})") from error


_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
"""Turns down Dask's monitoring of itself in a cluster of ours: by default it takes 7 % of two cores."""


@contextlib.contextmanager
def _started(n: int) -> Iterator[Any]:
    """Starts a cluster on this machine, of as many workers, each a process; ends it."""
    import dask
    from distributed import LocalCluster

    # what learns is a process beside the worker, so no limit of the worker's own memory says anything
    with dask.config.set(_QUIET), LocalCluster(
        n_workers=n, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
        host="127.0.0.1", silence_logs=logging.CRITICAL,
    ) as cluster:  # fmt: skip
        yield cluster


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Dask from logging beside our lines: we report what it has to say."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# -- the pool ------------------------------------------------------------------------------------------------


@dataclass
class _Errand:
    """A job that a worker has, and the future that Dask has for it."""

    job: Job
    worker: str
    future: Future


class DaskPool:
    """Workers of a Dask cluster; the verbs are those of `pools.JobPool`.

    Args:
        make: Lays out the plan, in each of them.
        config: What the plan is of.
        facts: Versions and the like; go into every node's `done.json`.
    """

    def __init__(self, make: MakePlan, config: RunConfig, facts: dict[str, Any]) -> None:
        self._told, self._config = (make, config, facts), config
        self._topic = f"cliqa-bench-{secrets.token_hex(8)}"
        self._news: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._errands: dict[str, _Errand] = {}
        self._numbers: dict[str, int] = {}  # worker that can do the work -> its number among those beside it
        self._places: dict[str, tuple[str, tuple[str, ...]]] = {}  # worker -> machine, and GPUs that it sees
        self._known: set[str] = set()
        self._died = Deaths()
        self._tries, self._looked, self._alone = 0, 0.0, False
        self._open = contextlib.ExitStack()
        self._client: Client | None = None

    def start(self, numbers: Iterable[int]) -> None:
        """Connects to the cluster, or starts one of as many workers, and looks at its workers.

        Raises:
            UserError: If nothing answers, or no worker can do the work; says why.
        """
        _check_installed(self._config.executor)
        self._open.enter_context(_quiet())
        if self._config.executor == DASK:
            cluster = self._open.enter_context(_started(len(list(numbers))))
            self._client = _connected(cluster.scheduler_address)
        else:
            self._client = _connected(self._config.executor)
        self._client.subscribe_topic(self._topic, lambda event: self._news.put(tuple(event[1])))
        where = f"--executor {self._config.executor}"
        deadline, refused = time.monotonic() + STARTING, list[str]()
        while not self._numbers:
            refused += self._look()
            if refused and not self._numbers:
                raise UserError(f"{where}: no worker can do the work: {refused[0]}")
            if not self._numbers and time.monotonic() > deadline:
                raise UserError(
                    f"{where}: no worker has joined within {STARTING:.0f} s; start some, such as: "
                    "dask worker ADDRESS --nthreads 1"
                )
            if not self._numbers:
                time.sleep(LOOK / 10)

    @property
    def running(self) -> list[Job]:
        """The jobs that are under way."""
        return [errand.job for errand in self._errands.values()]

    @property
    def idle(self) -> int:
        """How many workers are idle."""
        return len(self._idle())

    def _idle(self) -> list[str]:
        busy = {errand.worker for errand in self._errands.values()}
        return [worker for worker in self._numbers if worker not in busy]

    def submit(self, job: Job) -> None:
        """Hands a job to an idle worker."""
        assert self._client is not None
        worker, self._tries = self._idle()[0], self._tries + 1
        key = f"{self._topic}-{self._tries}"
        future = self._client.submit(
            do_job, self._topic, replace(job, after=()),
            key=key, workers=[worker], allow_other_workers=False, pure=False, retries=0,
        )  # fmt: skip
        self._errands[key] = _Errand(job, worker, future)

    def events(self, timeout: float | None) -> Iterator[tuple[Job, Progress | Result]]:
        """Waits for the next event, at most until it is time to look for workers, and returns it.

        Raises:
            UserError: If the scheduler is gone.
        """
        self._check_alive()
        if time.monotonic() - self._looked >= LOOK:
            self._look()
            self._check_alive()  # otherwise all would seem lost
            gone = [key for key, errand in self._errands.items() if self._is_lost(errand)]
            for key in gone:
                yield self._gone(key)
            if gone:
                return
        try:
            news = [self._news.get(timeout=LOOK if timeout is None else min(timeout, LOOK))]
        except queue.Empty:
            return
        with contextlib.suppress(queue.Empty):
            while True:
                news.append(self._news.get_nowait())
        for key, kind, *more in news:
            if (errand := self._errands.get(key)) is None:
                continue
            if kind == "progress":
                images, text, line, part = more
                yield errand.job, Progress(images, text, line, part)
            else:
                del self._errands[key]
                yield errand.job, self._once_more(errand.job, Result(*more))

    def _is_lost(self, errand: _Errand) -> bool:
        """Tells whether nothing will come of a job; of one that is "finished", the result is on the way."""
        return errand.worker not in self._known or errand.future.status in ("error", "cancelled", "lost")

    def _gone(self, key: str) -> tuple[Job, Result]:
        errand = self._errands.pop(key)
        reason = f"its worker {errand.worker} is gone"
        if errand.future.status == "error":
            error = errand.future.exception()
            reason = " ".join(f"its worker says {type(error).__name__}: {error}".split())[:300]
        errand.future.cancel()
        # one that is back under the same address is checked like a new one
        self._numbers.pop(errand.worker, None)
        self._known.discard(errand.worker)
        return errand.job, self._once_more(errand.job, Result("died", reason))

    def _once_more(self, job: Job, result: Result) -> Result:
        """Lets a job die only once."""
        return self._died.result(job, result.reason) if result.kind == "died" else result

    def _check_alive(self) -> None:
        if self._client is None or self._client.status != "running":
            raise UserError(
                f"the Dask scheduler ({self._config.executor}) is gone; finished work is kept: start it "
                "again, and run the same command to resume"
            )

    def end(self) -> None:
        """Ends what the workers do for this run, and the cluster that was started here."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                # a worker whose child process is still there is killed only after seconds
                if client.status == "running":
                    client.run(leave_run, self._topic, on_error="ignore")
            for errand in self._errands.values():
                with contextlib.suppress(Exception):
                    errand.future.cancel()
            with contextlib.suppress(Exception):
                client.close(timeout=PATIENCE)
        with contextlib.suppress(Exception):
            self._open.close()

    # -- workers ---------------------------------------------------------------------------------------------

    def _look(self) -> list[str]:
        """Looks for workers and checks new ones; returns why some cannot do the work."""
        assert self._client is not None
        try:
            there = set(self._client.nthreads())
        except Exception:
            self._check_alive()
            return []
        finally:
            self._looked = time.monotonic()
        for worker in self._numbers.keys() - there:
            del self._numbers[worker]
        new, self._known = sorted(there - self._known), there
        refused = self._examine(new) if new else []
        if not self._numbers and not self._alone and self._tries:
            say("no worker is left; waiting for one")
        self._alone = not self._numbers
        return refused

    def _examine(self, workers: list[str]) -> list[str]:
        """Lets workers look whether they can do the work; those that cannot are refused in a line each."""
        assert self._client is not None
        examine = _examination(self._topic, self._task())
        try:
            found = self._client.run(examine, workers=workers, on_error="return")
            reasons = self._sort_out(found)
            if fit := [worker for worker in workers if worker in self._numbers]:
                self._client.run(start_process, self._topic, dict(self._numbers), workers=fit)
        except Exception as error:  # one is gone already; the next look will know
            self._known -= set(workers)
            for worker in workers:
                self._numbers.pop(worker, None)
            return [" ".join(f"{type(error).__name__}: {error}".split())]
        for reason in reasons if self._numbers else ():
            warn(f"worker refused: {reason}")
        return reasons

    def _sort_out(self, found: Mapping[str, Any]) -> list[str]:
        """Numbers the workers that can do the work; returns why the others cannot."""
        taken: dict[tuple[str, tuple[str, ...]], set[int]] = defaultdict(set)
        for worker, number in self._numbers.items():
            taken[self._places[worker]].add(number)
        reasons = []
        for worker, said in found.items():
            if not isinstance(said, Fitness):
                said = Fitness(f"it cannot import cliqa_bench ({said!s:.200}); install it there", "", ())
            place = said.host, said.gpus
            on_gpu = self._config.device in ("auto", "cuda") and len(said.gpus) > 0
            if not said.reason and on_gpu and len(taken[place]) >= len(said.gpus):
                said = said._replace(reason=f"all {len(said.gpus)} GPUs of {said.host} have a worker")
            if said.reason:
                reasons.append(f"{worker}: {said.reason}")
                continue
            number = min(set(range(len(taken[place]) + 1)) - taken[place])  # that of one that is gone is free
            self._numbers[worker], self._places[worker] = number, place
            taken[place].add(number)
        return reasons

    def _task(self) -> DaskTask:
        make, config, facts = self._told
        included = {str(held.path): held for held in user_code.included().values()}
        paths = {path for name in config.include if name in included for path in included[name].sources}
        sources = {path: Path(path).read_bytes() for path in sorted(paths)}
        mark = next((config.out / IN_USE).glob(f"{os.getpid()}-*.lock"), config.out)
        weights = config.weights
        if weights not in (None, "random"):
            weights = str(Path(str(weights)).absolute())
        data = None if config.data is None else config.data.absolute()
        absolute = replace(config, out=config.out.absolute(), data=data, weights=weights)
        return DaskTask(make, absolute, facts, sources, mark.absolute())


def _examination(topic: str, task: DaskTask) -> Callable[[], Any]:
    """Returns a function that is sent as code: even a worker without the suite can then report that."""
    facts, packed = task.facts, pickle.dumps(task)

    def examine() -> Any:
        from cliqa_bench.execution.dask_worker import prepare_worker

        return prepare_worker(topic, facts, packed)

    return examine
