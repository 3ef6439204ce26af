"""Where modules of 0.1.0 that people's own code may import are now; for the line that says so."""

from __future__ import annotations

MOVED = {
    "addons": "extensions.user_code",
    "benchmarks.cache": "benchmarks.pixels.cache",
    "benchmarks.content": "benchmarks.pixels.hashes",
    "benchmarks.images": "benchmarks.pixels.decode",
    "benchmarks.labels": "benchmarks.readers.text",
    "benchmarks.material": "benchmarks.labelled",
    "benchmarks.matlab": "benchmarks.readers.matlab",
    "benchmarks.source": "benchmarks.decoded",
    "benchmarks.workbooks": "benchmarks.readers.workbooks",
    "checkpoints": "learning.checkpoints",
    "computing": "system.compute",
    "disk": "system.disk",
    "evaluate": "learning.scoring",
    "folding": "models.folding",
    "gated": "models.gated",
    "gates": "models.gates",
    "learner": "learning.learner",
    "logs": "learning.avalanche_loggers",
    "losses": "learning.losses",
    "memory": "system.memory",
    "model": "models.quality",
    "paper": "settings.paper_runs",
    "planner": "execution.plan",
    "plugins": "learning.avalanche_plugins",
    "pretrain": "models.pretraining",
    "readouts": "results.readouts",
    "records": "results.records",
    "registry": "extensions.registry",
    "runner": "execution.run",
    "settings": "settings.resolve",
    "store": "results.nodes",
    "trial": "testing.tiny",
    "weights": "results.weights",
}
"""Module of 0.1.0 -> module now, both within `cliqa_bench`."""


def moved_to(error: BaseException) -> str:
    """Returns what to add to an error about an import, "" where it is about none of these modules."""
    name = (error.name or "") if isinstance(error, ImportError) else ""
    now = MOVED.get(name.removeprefix("cliqa_bench.")) if name.startswith("cliqa_bench.") else None
    return f"; since 0.2.0 it is cliqa_bench.{now}" if now else ""
