"""From a plan to jobs: pieces of work that need none but those named, in any process. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cliqa_bench.machine import cores, visible_gpus
from cliqa_bench.planner import AnswerWork, GateNormalisation, GateWork, Plan, TrainWork, images_of

Kind = Literal["check", "gate-net", "gate", "distances", "train", "scores", "picture"]


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        kind: What is done.
        about: Id of the node (train, scores, picture), name of the dataset (gate, distances), or "".
        net: Whose normalisation the gate's features have ("gate-net", "gate", "distances"), else "".
        title: What it does, for people.
        images: How many images pass through the network.
        after: Jobs that must be done first, as far as they are missing.
    """

    kind: Kind
    about: str
    net: GateNormalisation | Literal[""]
    title: str
    images: int
    after: tuple[Job, ...] = ()

    @property
    def key(self) -> str:
        """Tells it from the other jobs of its plan."""
        return f"{self.kind} {self.net} {self.about}"

    @property
    def file_name(self) -> str:
        """The same as a file name."""
        return "-".join(part.replace(":", "-") for part in (self.kind, self.net, self.about) if part)


def answers_by_source(plan: Plan) -> dict[str, list[AnswerWork]]:
    """Returns the missing answers by the id of the train or gate node that gives them."""
    found: dict[str, list[AnswerWork]] = defaultdict(list)
    for work in plan.missing().answers:
        found[work.of.node.id].append(work)
    return dict(found)


def jobs_of(plan: Plan) -> list[Job]:
    """Returns the jobs that finish a plan; each comes after those it needs."""
    missing, answers = plan.missing(), answers_by_source(plan)
    check = Job("check", "", "", "check weights and device", 0)
    train = _train_jobs(plan, missing.train, check)
    jobs = [check, *_gate_jobs(plan, missing.gates, answers, check), *train.values()]
    for work in plan.train.values():
        if work.node.id in answers:
            n = sum(_size(plan, a.test, "test") for a in answers[work.node.id])
            needs = train.get(work.node.id, check)
            jobs.append(Job("scores", work.node.id, "", f"test {_what(plan, work)}", n, (needs,)))
    for picture in missing.pictures:
        title = f"keep pictures of {_title(plan, picture.test)}"
        jobs.append(Job("picture", picture.node.id, "", title, 0, (check,)))
    return jobs


def _title(plan: Plan, name: str) -> str:
    return plan.materials[name].dataset.title


def _what(plan: Plan, work: TrainWork) -> str:
    titles = [_title(plan, name) for name in work.datasets]
    what = titles[0] if len(titles) == 1 else f"{len(titles)} datasets together"
    return f"{work.strategy.name} on {what} (seed {work.seed})"


def _size(plan: Plan, name: str, subset: Literal["train", "test"]) -> int:
    return len(plan.materials[name].split.keys(subset))


def _train_jobs(plan: Plan, works: list[TrainWork], check: Job) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for work in works:  # parents come before their children
        parent = jobs.get(work.previous.node.id) if work.previous else None
        title = f"train {_what(plan, work)}"
        jobs[work.node.id] = Job("train", work.node.id, "", title, images_of(plan, work), (parent or check,))
    return jobs


def _gate_jobs(
    plan: Plan, missing: list[GateWork], answers: dict[str, list[AnswerWork]], check: Job
) -> list[Job]:
    """A job per dataset describes its training images, another its test images: each is described once."""
    nets: dict[GateNormalisation, Job] = {}
    fits: dict[tuple[GateNormalisation, str], Job] = {}
    asked: dict[tuple[GateNormalisation, str], set[str]] = defaultdict(set)
    for gate in missing:
        nets.setdefault(gate.net, Job("gate-net", "", gate.net, "ready the gate's network", 0, (check,)))
        n = _size(plan, gate.dataset, "train")
        title = f"fit the gate of {_title(plan, gate.dataset)}"
        fits[gate.net, gate.dataset] = Job("gate", gate.dataset, gate.net, title, n, (nets[gate.net],))
    for gate in plan.gates.values():
        for work in answers.get(gate.node.id, ()):
            asked[gate.net, work.test].add(gate.dataset)
    distances = []
    for (net, test), datasets in asked.items():
        nets.setdefault(net, Job("gate-net", "", net, "ready the gate's network", 0, (check,)))
        needs = tuple(fits[net, d] for d in sorted(datasets) if (net, d) in fits) or (nets[net],)
        title = f"gate {_title(plan, test)}'s test images"
        distances.append(Job("distances", test, net, title, _size(plan, test, "test"), needs))
    return [*nets.values(), *fits.values(), *distances]


def longest_first(jobs: Sequence[Job]) -> dict[str, int]:
    """Returns how many images wait behind each job, its own included, along the longest chain.

    Who works side by side takes the job with the most behind it first: what is started last then is short,
    and nobody waits for it alone.

    Args:
        jobs: Each after those it needs.
    """
    behind = {job.key: 0 for job in jobs}
    for job in reversed(jobs):
        behind[job.key] += job.images
        for needed in job.after:
            if needed.key in behind:
                behind[needed.key] = max(behind[needed.key], behind[job.key])
    return behind


def processes(plan: Plan, jobs: list[Job]) -> int:
    """Returns how many processes to work in, where nobody said.

    Results do not depend on it. On a CPU it is the number of cores, unless the work is so little, or such a
    chain, that starting processes costs more than they save; on GPUs one process each.
    """
    if (asked := plan.config.jobs) != "auto":
        return asked
    device = plan.config.device
    if device != "cpu" and (gpus := visible_gpus()):
        return gpus if device in ("auto", "cuda") else 1
    chains = sum(1 for job in jobs if job.kind in ("train", "scores") and job.after[0].kind == "check")
    images = sum(job.images for job in jobs)
    work = images * plan.config.training.crop**2 / 224**2 * plan.backbone.gmacs
    return max(1, min(cores(), chains)) if work > WORTH_A_PROCESS else 1


WORTH_A_PROCESS = 1000.0
"""Billions of multiply-adds of forward passes, about half a minute of one core."""
