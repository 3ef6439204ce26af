"""Stands for what learns, in workers of a Dask cluster: tells and writes what the title of a job asks for.

A module of its own: workers import it, and need nothing else of the tests.
"""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

from cliqa_bench.config import RunConfig
from cliqa_bench.execution.plan import Plan


class DaskFake:
    """Does jobs by title: "wrong" raises, "die" ends its process once, "worker" the worker's that has it."""

    def __init__(self, plan: Plan, facts: dict[str, Any], tick: Any, say: Any, number: int = 0) -> None:
        self.out, self.tick, self.say = plan.config.out, tick, say

    def do(self, job: Any) -> None:
        marker = self.out / "died"
        if "wrong" in job.title:
            raise FloatingPointError("the loss is nan")
        if "die" in job.title and not marker.exists():
            marker.touch()
            os.kill(os.getppid() if "worker" in job.title else os.getpid(), signal.SIGKILL)
            time.sleep(60)
        self.tick(1, "", "")
        self.say(f"{job.about} by {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        (self.out / job.about).touch()


def plan_of(cfg: RunConfig) -> Plan:
    """Stands for `execution.run.rebuild_plan`; in a process of a worker it puts the fake in place."""
    from cliqa_bench.execution import worker

    worker.Worker = DaskFake  # type: ignore[assignment, misc]
    return Plan(SimpleNamespace(config=cfg), {})  # type: ignore[arg-type]
