"""What is called in a worker of a Dask cluster: whether it can do the work, and a job in a process beside it.

The process is one of `worker_processes`, as on this machine: it ends with the worker, PyTorch has its main
thread, and whatever a job does to its process, the worker stays.
"""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing
import pickle
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cliqa_bench.config import RunConfig
from cliqa_bench.execution.jobs import Job
from cliqa_bench.execution.worker_processes import MakePlan, Progress, Result, WorkerPool
from cliqa_bench.paths import cache_root
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.settings.choice import own_code
from cliqa_bench.system.hardware import gpu_names
from cliqa_bench.system.versions import versions

BEAT = 0.5
"""Seconds between two messages about one job: a scheduler keeps them all for a while."""


class DaskTask(NamedTuple):
    """What a worker must know about a run.

    Attributes:
        make: Lays out the plan.
        config: What the plan is of.
        facts: Versions and the like.
        sources: The user's own files that it includes, and what they import: path -> bytes.
        mark: A file that is in the folder of results as long as the run is at work.
    """

    make: MakePlan
    config: RunConfig
    facts: dict[str, Any]
    sources: dict[str, bytes]
    mark: Path


class Fitness(NamedTuple):
    """Whether a worker can do the work.

    Attributes:
        reason: Why it cannot, in a few words; "" if it can.
        host: The machine it is on.
        gpus: What CUDA_VISIBLE_DEVICES calls the GPUs that it sees.
    """

    reason: str
    host: str
    gpus: tuple[str, ...]


_runs: dict[str, DaskTask] = {}
_pools: dict[str, WorkerPool] = {}
_busy: set[str] = set()
"""The runs of which a job is under way in this worker."""


def prepare_worker(topic: str, facts: Mapping[str, Any], packed: bytes) -> Fitness:
    """Checks whether this worker can do a run's work, and keeps what it needs for it.

    Args:
        topic: Name of the run on this cluster.
        facts: Versions of the command that asks, and the hash of its sources.
        packed: The `DaskTask`; unpacked once the sources are known to be the same.
    """
    reason = _other(facts)
    if not reason:
        task: DaskTask = pickle.loads(packed)
        reason = _lacking(task)
    if not reason:
        _runs[topic] = task._replace(config=_placed(task.config, task.sources))
    return Fitness(reason, platform.node(), tuple(gpu_names()))


def _other(facts: Mapping[str, Any]) -> str:
    asked, here = facts["versions"], versions()
    for package in sorted(asked.keys() | here.keys()):
        if here.get(package) != asked.get(package):
            theirs, ours = (side.get(package, "none") for side in (here, asked))
            return f"it has {package} {theirs}, this command has {ours}; install the same"
    if own_code() != facts["code"]:
        return "its sources of cliqa_bench are not those of this command; install the same"
    return ""


def _lacking(task: DaskTask) -> str:
    config = task.config
    if not task.mark.exists():
        return f"it does not see the folder of results {config.out} (--out must be on a disk that all share)"
    if config.data is not None and not config.data.is_dir():
        return f"it has no folder {config.data} (--data)"
    if config.weights not in (None, "random") and not Path(str(config.weights)).is_file():
        return f"it has no file {config.weights} (--weights)"
    return ""


def _placed(config: RunConfig, sources: Mapping[str, bytes]) -> RunConfig:
    """Writes the user's own files where this machine does not have them; returns where they are."""
    if all(_is_file(Path(path), text) for path, text in sources.items()):
        return config
    whole = hashlib.sha256(b"".join(sources[path] for path in sorted(sources))).hexdigest()[:16]
    folder = cache_root() / "included" / whole
    for path, text in sources.items():
        own = folder / Path(path).relative_to("/")
        if not _is_file(own, text):
            with atomic_path(own, lasting=False) as temporary:
                temporary.write_bytes(text)
    return replace(config, include=[str(folder / Path(path).relative_to("/")) for path in config.include])


def _is_file(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes() == text
    except OSError:
        return False


# -- a job ---------------------------------------------------------------------------------------------------


class _Messages:
    """Sends the events of a job to the command that asked for it, in batches and in order."""

    def __init__(self, worker: Any, topic: str, key: str) -> None:
        self._worker, self._topic, self._key = worker, topic, key
        self._images, self._text, self._part = 0, "", ""
        self._sent = time.monotonic()

    def tell(self, told: Progress | Result) -> None:
        """Sends a result and a line at once, and gathers the rest."""
        if isinstance(told, Result):
            self.flush()
            self._send("result", *told)
        elif told.line:
            self.flush()
            self._send("progress", 0, "", told.line, "")
        else:
            if told.part != self._part:
                self.flush()
            self._images, self._part = self._images + told.images, told.part
            self._text = told.text or self._text
            if time.monotonic() - self._sent >= BEAT:
                self.flush()

    def flush(self) -> None:
        """Sends what was gathered."""
        if self._images or self._text:
            self._send("progress", self._images, self._text, "", self._part)
        self._images, self._text, self._sent = 0, "", time.monotonic()

    def _send(self, kind: str, *more: Any) -> None:
        self._worker.log_event(self._topic, [self._key, kind, *more])


def start_process(topic: str, numbers: Mapping[str, int], dask_worker: Any) -> None:
    """Starts the process that does a run's jobs for this worker: it loads PyTorch while others begin.

    Args:
        topic: Name of the run on this cluster.
        numbers: Address of a worker -> which of those on its machine that see the same GPUs it is.
        dask_worker: This worker; given by Dask.
    """
    for other in [name for name in _pools if name != topic]:
        leave_run(other)
    # a worker of a nanny may have no children, as none would end them; ours end with it
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    atexit.unregister(_leave_all)
    atexit.register(_leave_all)  # called before Python waits for children that would never end
    task = _runs[topic]
    pool = _pools[topic] = WorkerPool(task.make, task.config, task.facts)
    pool.start([numbers[dask_worker.address]])


def do_job(topic: str, job: Job) -> None:
    """Does a job; its result is sent as an event of the run's topic.

    Args:
        topic: Name of the run on this cluster.
        job: The job.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    messages = _Messages(worker, topic, key)
    _busy.add(topic)
    try:
        pool = _pools[topic]
        pool.submit(job)
        while topic in _runs:
            for _, told in pool.events(BEAT):
                messages.tell(told)
                if isinstance(told, Result):
                    return
            messages.flush()
            state = worker.state.tasks.get(key)
            ends = worker.status.name in ("closing", "closed", "failed")  # its scheduler is gone, say
            if ends or state is None or state.state == "cancelled":  # its result is no longer wanted
                _runs.pop(topic, None)
    finally:
        _busy.discard(topic)
        if topic not in _runs:
            leave_run(topic)


def _leave_all() -> None:
    _runs.clear()
    deadline = time.monotonic() + 4 * BEAT
    while _busy and time.monotonic() < deadline:  # the threads that run them end their processes
        time.sleep(BEAT / 10)
    for topic in list(_pools):
        leave_run(topic)


def leave_run(topic: str) -> None:
    """Ends the process that this worker has for a run; if it does a job, soon."""
    _runs.pop(topic, None)
    if topic not in _busy and (pool := _pools.pop(topic, None)) is not None:
        pool.end()
