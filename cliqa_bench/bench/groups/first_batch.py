"""From the command to the first mini-batch of a dataset of KonIQ-10k's size, already decoded.

Run as a module it does what the command `run` does, with a look at the learner: it ends with the first
optimiser step, and says how long the process had lived by then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.bench.real_size import make_real_size
from cliqa_bench.errors import UserError

_STARTED = "CLIQA_BENCH_STARTED"


def measure(setting: Conditions) -> Iterator[Measurement]:
    """Gives the rows of the group."""
    data, cache = setting.folder / "data", setting.folder / "cache"
    n = make_real_size(data, ["koniq10k"], setting.scale)
    cold = _first(setting, data, cache)
    what = f"first mini-batch, {n:,} images of 1024 x 768"
    yield Measurement("first-batch", f"{what}, to be decoded first", (cold["batch"],), "s")
    warm = [_first(setting, data, cache) for _ in range(setting.repeats)]
    yield Measurement(
        "first-batch", f"{what}, cache warm", tuple(w["batch"] for w in warm), "s", reach=10, better="lower"
    )
    yield Measurement("first-batch", "first optimiser step", tuple(w["step"] for w in warm), "s")


def _first(setting: Conditions, data: Path, cache: Path) -> dict[str, float]:
    flags = {
        "strategy": "tsn", "orders": "koniq10k", "data": str(data), "preset": "paper", "backbone": "scnn",
        "device": setting.device, "jobs": 1, "out": str(setting.folder / "runs"),
    }  # fmt: skip
    env = {**os.environ, "CLIQA_CACHE": str(cache), _STARTED: repr(time.time())}
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(flags)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise UserError(f"run ended before its first step: {done.stderr.strip().splitlines()[-1:]}")
    told: dict[str, float] = json.loads(lines[-1])
    return told


def _main() -> None:
    """Does `run`, and ends it with the first optimiser step."""
    from cliqa_bench.execution import run, worker
    from cliqa_bench.learning import learner
    from cliqa_bench.settings import resolve

    started = float(os.environ[_STARTED])
    seen: dict[str, float] = {}

    class Watched(learner.Learner):
        def _unpack_minibatch(self) -> None:
            seen.setdefault("batch", time.time() - started)
            super()._unpack_minibatch()

        def _after_training_iteration(self, **kwargs: Any) -> None:
            print(json.dumps({**seen, "step": time.time() - started}), flush=True)
            os._exit(0)

    vars(worker)["Learner"] = Watched
    sys.exit(run.run(resolve.resolve(json.loads(sys.argv[1])), ""))


if __name__ == "__main__":
    _main()
