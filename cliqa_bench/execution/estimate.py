"""How long the rest of a plan takes, and how much disk: a guess until some of it is finished."""

from __future__ import annotations

from collections.abc import Sequence, Set
from statistics import fmean
from typing import NamedTuple

from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.errors import UserError
from cliqa_bench.execution.jobs import has_gate_net, jobs_of, processes
from cliqa_bench.execution.plan import AnswerWork, Missing, Plan, TrainWork
from cliqa_bench.execution.work_size import images_of, size_of
from cliqa_bench.models.pretraining_config import DISTORTION_BN
from cliqa_bench.paths import cache_root
from cliqa_bench.results.nodes import Node, node_facts
from cliqa_bench.terminal import plural
from cliqa_bench.types import Subset

GMACS_PER_SECOND = 30.0
"""Speed of one CPU core that is assumed; a guess, and called one."""

ANSWER_BYTES = 20_000
"""Size of an answer file that is assumed."""

MOST_LOOKED_AT = 60
"""How many finished nodes of a strategy to look at, evenly spread: more would not change the estimate."""


class _Pace(NamedTuple):
    """What finished nodes took.

    Attributes:
        n_bytes: On the disk, of a node.
        seconds: Per image, of one process.
    """

    n_bytes: float
    seconds: float


def estimate(plans: Sequence[Plan], missing: Sequence[Missing]) -> list[str]:
    """Returns lines on what is left to do of plans that differ in the split, and how long it takes.

    Args:
        plans: The plans.
        missing: What each lacks.
    """
    lines = []
    if net_by := _makes_gate_net(plans, missing):
        seconds = _gate_net_seconds(net_by)
        title = net_by.backbone.title
        lines.append(f"first, once: distortion-aware BN of {title}, about {time_text(seconds)}")
    resize = plans[0].config.training.resize
    materials = plans[0].materials.values() if any(m.train or m.gates or m.answers for m in missing) else ()
    n_bytes = sum(ImageCache.missing_bytes(m.dataset, [r.key for r in m.ratings], resize) for m in materials)
    if n_bytes:
        lines.append(f"first, once: decoded images, {n_bytes / 1e9:.2f} GB in {cache_root()}")
    return [*lines, left_to_do(plans, missing)]


def left_to_do(plans: Sequence[Plan], missing: Sequence[Missing]) -> str:
    """Returns a line on how much is left, how long it takes, and how much disk space it needs.

    Both are measured on the finished nodes of the plans, and guessed for kinds of which none is finished.

    Args:
        plans: As in `estimate`.
        missing: As in `estimate`.
    """
    lacking = {work.node.id for lacks in missing for work in lacks.train}
    lacking |= {work.node.id for lacks in missing for work in lacks.answers}
    names = {work.strategy.name for plan in plans for work in plan.train.values()}
    paces = _Paces(
        {name: _trained_pace(plans, lacking, name) for name in names}, _answered_pace(plans, lacking)
    )
    net_by = _makes_gate_net(plans, missing)
    # one plan is done after the other
    left = [_left(plan, lacks, paces, plan is net_by) for plan, lacks in zip(plans, missing, strict=True)]
    train, gates, answers = (sum(counts) for counts in zip(*(one.counts for one in left), strict=True))
    measured = any(one.measured for one in left)
    how = "at the pace so far" if measured else "on this machine's CPU (a guess from multiply-adds)"
    return (
        f"left to do: {plural(train, 'training')}, {plural(gates, 'gate')}, "
        f"{plural(answers, 'answer file')}; roughly {time_text(sum(one.seconds for one in left))} {how}, "
        f"{sum(one.n_bytes for one in left) / 1e6:.1f} MB in {plans[0].config.out}"
    )


class _Paces(NamedTuple):
    """What finished nodes took: trainings by strategy, and answers; None if none is finished."""

    trained: dict[str, _Pace | None]
    answered: _Pace | None


class _Left(NamedTuple):
    """What is left of a plan: trainings, gates and answers; whether any of it was measured; what it takes."""

    counts: tuple[int, int, int]
    measured: bool
    seconds: float
    n_bytes: float


def _left(plan: Plan, missing: Missing, paces: _Paces, makes_net: bool) -> _Left:
    train, gates, answers, _ = missing
    trained, answered = paces
    seconds = sum(_train_seconds(plan, work, trained[work.strategy.name]) for work in train)
    seconds += sum(_whole_seconds(plan, work.test, work.subset, answered) for work in answers)
    seconds += sum(_whole_seconds(plan, gate.dataset, "train", None) for gate in gates)
    if makes_net:
        seconds += _gate_net_seconds(plan)
    seconds /= processes(plan, jobs_of(plan, missing=missing))
    n_bytes = sum(_node_bytes(plan, work, trained[work.strategy.name]) for work in train)
    n_bytes += len(answers) * (answered.n_bytes if answered else ANSWER_BYTES)
    measured = answered is not None or any(trained[work.strategy.name] for work in train)
    return _Left((len(train), len(gates), len(answers)), measured, seconds, n_bytes)


def _makes_gate_net(plans: Sequence[Plan], missing: Sequence[Missing]) -> Plan | None:
    """Returns the plan whose gates are the first to need a network that is not there."""
    gated = [plan for plan, lacks in zip(plans, missing, strict=True) if lacks.gates]
    return next((plan for plan in gated if not has_gate_net(plan)), None)


def _trained_pace(plans: Sequence[Plan], lacking: Set[str], strategy: str) -> _Pace | None:
    done = {
        work.node.id: (work, images_of(plan, work))
        for plan in plans
        for work in plan.train.values()
        if work.strategy.name == strategy and work.node.id not in lacking
    }
    return _pace([*done.values()], "seconds")


def _answered_pace(plans: Sequence[Plan], lacking: Set[str]) -> _Pace | None:
    """Returns the pace of answers of train nodes alone: those of gates take another time."""
    done = {
        work.node.id: (work, size_of(plan, work.test, work.subset))
        for plan in plans
        for work in plan.answers.values()
        if isinstance(work.of, TrainWork) and work.node.id not in lacking
    }
    return _pace([*done.values()], "score_seconds")


def _pace(done: Sequence[tuple[TrainWork | AnswerWork, int]], fact: str) -> _Pace | None:
    """Returns the mean over some finished nodes; None if there are none, or none records its time.

    Args:
        done: The work, and on how many images it was done.
        fact: What a node calls the seconds that it took.
    """
    some = done[:: max(1, len(done) // MOST_LOOKED_AT)]
    seconds = [_seconds(work.node, fact) for work, _ in some]
    timed = [(n, s) for (_, n), s in zip(some, seconds, strict=True) if s is not None]
    n_images = sum(n for n, _ in timed)
    if not n_images:
        return None
    return _Pace(fmean(_bytes(work.node) for work, _ in some), sum(s for _, s in timed) / n_images)


def _seconds(node: Node, fact: str) -> float | None:
    try:
        seconds = node_facts(node.folder).get(fact)
    except UserError:  # damaged; what needs the node says so, and an estimate must not stop what does not
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def _bytes(node: Node) -> int:
    return sum(path.stat().st_size for path in node.folder.iterdir() if path.is_file())


def _node_bytes(plan: Plan, work: TrainWork, pace: _Pace | None) -> float:
    """Returns the size of a train node: a task's own normalisation and head, or a whole network."""
    if pace is not None:
        return pace.n_bytes
    backbone = plan.backbone
    if work.strategy.own_features and not work.strategy.overrides("view"):
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


def time_text(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
