"""What the rest of a plan takes: guessed beforehand, and measured on what is there once some of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.execution.jobs import jobs_of, processes
from cliqa_bench.execution.plan import AnswerWork, Plan, TrainWork, images_of
from cliqa_bench.models.pretraining_config import DISTORTION_BN, distortion_bn_file
from cliqa_bench.paths import cache_root
from cliqa_bench.results.nodes import Node, read_json
from cliqa_bench.types import Subset

GMACS_PER_SECOND = 30.0
"""Speed of one CPU core that is assumed; a guess, and called one."""

ANSWER_BYTES = 20_000
"""Size of an answer file that is assumed."""

MOST_LOOKED_AT = 60
"""Finished nodes of a strategy that are looked at, evenly spread: more would not change the estimate."""


_Work = TypeVar("_Work", TrainWork, AnswerWork)


class _Pace(NamedTuple):
    """What finished nodes took.

    Attributes:
        n_bytes: On the disk, of a node.
        seconds: Per image, of one process.
    """

    n_bytes: float
    seconds: float


def estimate(plan: Plan) -> list[str]:
    """Says in lines what is left to do, and what it takes."""
    missing = plan.missing()
    lines = []
    if missing.gates and not _has_gate_net(plan):
        seconds = _gate_net_seconds(plan)
        title = plan.backbone.title
        lines.append(f"first, once: distortion-aware BN of {title}, about {time_text(seconds)}")
    n_bytes = {
        name: ImageCache.missing_bytes(m.dataset, [r.key for r in m.ratings], plan.config.training.resize)
        for name, m in plan.materials.items()
        if missing.train or missing.gates or missing.answers
    }
    decoded = sum(n_bytes.values())
    if decoded:
        lines.append(f"first, once: decoded images, {decoded / 1e9:.2f} GB in {cache_root()}")
    return [*lines, left_to_do(plan)]


def left_to_do(plan: Plan) -> str:
    """Says in a line how much is left, how long it takes, and how much of the disk.

    Both are measured on those nodes of the plan that are finished, and guessed for kinds of which none is.
    """
    train, gates, answers, _ = plan.missing()
    paces = {strategy.name: _trained_pace(plan, strategy.name) for strategy in plan.choice.strategies}
    answered = _answered_pace(plan)
    measured = answered is not None or any(paces[work.strategy.name] for work in train)
    seconds = sum(_train_seconds(plan, work, paces[work.strategy.name]) for work in train)
    seconds += sum(_whole_seconds(plan, work.test, "test", answered) for work in answers)
    seconds += sum(_whole_seconds(plan, gate.dataset, "train", None) for gate in gates)
    if gates and not _has_gate_net(plan):
        seconds += _gate_net_seconds(plan)
    seconds /= processes(plan, jobs_of(plan))
    how = "at the pace of what is there" if measured else "on this machine's CPU (a guess from multiply-adds)"
    disk = sum(_node_bytes(plan, work, paces[work.strategy.name]) for work in train)
    disk += len(answers) * (answered.n_bytes if answered else ANSWER_BYTES)
    return (
        f"left to do: {counted(len(train), 'training')}, {counted(len(gates), 'gate')}, "
        f"{counted(len(answers), 'answer file')}; roughly {time_text(seconds)} {how}, "
        f"{disk / 1e6:.1f} MB in {plan.config.out}"
    )


def _trained_pace(plan: Plan, strategy: str) -> _Pace | None:
    done = [work for work in plan.train.values() if work.strategy.name == strategy and work.node.done]
    return _pace(done, lambda work: images_of(plan, work), "seconds")


def _answered_pace(plan: Plan) -> _Pace | None:
    """Of answers of train nodes: what a gate says of an image takes another time."""
    done = [work for work in plan.answers.values() if isinstance(work.of, TrainWork) and work.node.done]
    return _pace(done, lambda work: size_of(plan, work.test, "test"), "score_seconds")


def _pace(done: Sequence[_Work], images: Callable[[_Work], int], fact: str) -> _Pace | None:
    """Returns the mean over some finished nodes; None where there are none, or none says how long it took."""
    some = done[:: max(1, len(done) // MOST_LOOKED_AT)]
    seconds = [read_json(work.node.folder / "done.json").get("facts", {}).get(fact) for work in some]
    timed = [(work, float(s)) for work, s in zip(some, seconds, strict=True) if s is not None]
    n_images = sum(images(work) for work, _ in timed)
    if not n_images:
        return None
    return _Pace(_mean(_bytes(work.node) for work in some), sum(s for _, s in timed) / n_images)


def _bytes(node: Node) -> int:
    return sum(path.stat().st_size for path in node.folder.iterdir() if path.is_file())


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _node_bytes(plan: Plan, work: TrainWork, pace: _Pace | None) -> float:
    """Returns the size of a train node: a task's own normalisation and head, or a whole network."""
    if pace is not None:
        return pace.n_bytes
    backbone = plan.backbone
    if work.strategy.own_features:
        return 8 * backbone.task_parameters() + 400 * sum(backbone.stage_sizes)
    return 4 * backbone.n_parameters * (2 if work.strategy.overrides("state") else 1)


def _train_seconds(plan: Plan, work: TrainWork, pace: _Pace | None) -> float:
    """Returns how long one process trains."""
    if pace is not None:
        return images_of(plan, work) * pace.seconds
    # forward and backward cost about twice a forward pass when only normalisation learns
    return _guess(plan, 2 * images_of(plan, work) * plan.config.training.crop**2)


def _whole_seconds(plan: Plan, name: str, subset: Subset, pace: _Pace | None) -> float:
    """Returns how long one process looks at the whole images of a subset."""
    n = size_of(plan, name, subset)
    return n * pace.seconds if pace else _guess(plan, n * (plan.config.training.resize or 1024) ** 2)


def _gate_net_seconds(plan: Plan) -> float:
    made = DISTORTION_BN[plan.config.preset]
    return _guess(plan, 2 * made.steps * made.batch * made.size**2)


def _guess(plan: Plan, pixels: float) -> float:
    """Returns the seconds that so many pixels take on a core, by the backbone's multiply-adds."""
    return pixels * plan.backbone.gmacs / 224**2 / GMACS_PER_SECOND


def _has_gate_net(plan: Plan) -> bool:
    backbone = plan.backbone
    weights = backbone.weights_id(plan.config.weights)
    return (
        backbone.gate_net == "own"
        or distortion_bn_file(backbone.name, weights, DISTORTION_BN[plan.config.preset]).is_file()
    )


def size_of(plan: Plan, name: str, subset: Subset) -> int:
    """Returns how many images a subset of a dataset has."""
    return len(plan.materials[name].split.keys(subset))


def counted(n: int, noun: str) -> str:
    """Returns "1 run", "2 runs"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def time_text(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
