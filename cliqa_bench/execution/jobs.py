"""From a plan to jobs: pieces of work that depend only on those named, in any process. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cliqa_bench.execution.plan import AnswerWork, GateNormalisation, GateWork, Missing, Plan, TrainWork
from cliqa_bench.execution.work_size import images_by_part, size_of
from cliqa_bench.models.pretraining_config import DISTORTION_BN, distortion_bn_file
from cliqa_bench.system.hardware import cores, visible_gpus
from cliqa_bench.types import Subset

JobKind = Literal["check", "gate-net", "gate", "distances", "train", "scores", "picture"]


class JobPart(NamedTuple):
    """Images of a job that pass through the network in the same way.

    Attributes:
        name: What they are for ("warm-up", "main", "validation"), or "" where a job has one part only.
        kind: Images of one kind take the same time, but for their `cost`; jobs share kinds.
        images: How many.
        cost: What one of them costs: its pixels times the passes through the network, roughly.
    """

    name: str
    kind: str
    images: int
    cost: float


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
        parts: What those images are; for estimates of the time.
    """

    kind: JobKind
    about: str
    net: GateNormalisation | Literal[""]
    title: str
    images: int
    after: tuple[Job, ...] = ()
    parts: tuple[JobPart, ...] = ()

    @property
    def key(self) -> str:
        """Identifies the job within its plan."""
        return f"{self.kind} {self.net} {self.about}"


Pixels = Mapping[str, float]
"""Name of a dataset -> pixels of an image of it, on average; for estimates of the time."""


def jobs_of(plan: Plan, pixels: Pixels | None = None, missing: Missing | None = None) -> list[Job]:
    """Returns the jobs that finish a plan; each comes after those it needs.

    Args:
        plan: The plan.
        pixels: Sizes of images, as far as they are known.
        missing: What `plan.missing` returned, if it was just asked.
    """
    pixels, missing = pixels or {}, missing or plan.missing()
    answers: dict[str, list[AnswerWork]] = defaultdict(list)
    for answer in missing.answers:
        answers[answer.of.node.id].append(answer)
    check = Job("check", "", "", "check weights and device", 0)
    train = _train_jobs(plan, missing.train, check, pixels)
    jobs = [check, *_gate_jobs(plan, missing.gates, answers, check, pixels), *train.values()]
    for work in plan.train.values():
        if work.node.id in answers:
            asked = [(a.test, a.subset) for a in answers[work.node.id]]
            parts = _whole(plan, asked, "scores", pixels)
            needs = train.get(work.node.id, check)
            title = f"test {work_title(plan, work)}"
            jobs.append(Job("scores", work.node.id, "", title, parts[0].images, (needs,), parts))
    for picture in missing.pictures:
        title = f"store example pictures of {_title(plan, picture.test)}"
        jobs.append(Job("picture", picture.node.id, "", title, 0, (check,)))
    return jobs


def _title(plan: Plan, name: str) -> str:
    return plan.materials[name].dataset.title


def work_title(plan: Plan, work: TrainWork) -> str:
    """Returns what a training is called: "tsn on LIVE (seed 0)"."""
    titles = [_title(plan, name) for name in work.datasets]
    what = titles[0] if len(titles) == 1 else f"{len(titles)} datasets together"
    return f"{work.strategy.name} on {what} (seed {work.seed})"


def _whole(plan: Plan, asked: Sequence[tuple[str, Subset]], kind: str, pixels: Pixels) -> tuple[JobPart, ...]:
    """Returns the part of a job that looks at whole images of subsets once, each time it is asked."""
    sizes = [(name, size_of(plan, name, subset)) for name, subset in asked]
    n = sum(size for _, size in sizes)
    cost = sum(size * _pixels(plan, name, pixels) for name, size in sizes) / n if n else 0.0
    return (JobPart("", kind, n, cost),)


def _pixels(plan: Plan, name: str, pixels: Pixels) -> float:
    return pixels.get(name, (plan.config.training.resize or 768) ** 2)


PASSES = {"warm-up": 1, "main": 3, "validation": 1}
"""What an image costs in training, in passes: forwards, and about twice that backwards."""


def _training_parts(plan: Plan, work: TrainWork, pixels: Pixels) -> tuple[JobPart, ...]:
    training = work.strategy.trained_under(plan.config.training)
    crop = training.crop**2 * work.strategy.crops
    whole = sum(_pixels(plan, name, pixels) for name in work.datasets) / len(work.datasets)
    return tuple(
        JobPart(
            name,
            f"{name} of {work.strategy.name}",
            images,
            PASSES[name] * (whole if name == "validation" else crop),
        )
        for name, images in images_by_part(plan, work).items()
    )


def has_gate_net(plan: Plan) -> bool:
    """Tells whether the gates' network needs no pre-training, or is cached."""
    backbone = plan.backbone
    weights = backbone.weights_id(plan.config.weights)
    return (
        backbone.gate_net == "own"
        or distortion_bn_file(backbone.name, weights, DISTORTION_BN[plan.config.preset]).is_file()
    )


def _gate_net_job(plan: Plan, net: GateNormalisation, check: Job) -> Job:
    """Its images are those of the gate network's pre-training, where it is not cached."""
    made = DISTORTION_BN[plan.config.preset]
    images = 0 if net != "distortion-bn" or has_gate_net(plan) else made.steps * made.batch
    parts = (JobPart("", "gate-net", images, PASSES["main"] * made.size**2),)
    return Job("gate-net", "", net, "prepare the gate's network", images, (check,), parts)


def _train_jobs(plan: Plan, works: list[TrainWork], check: Job, pixels: Pixels) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for work in works:  # parents come before their children
        parents = [*work.parts, *([work.previous] if work.previous else [])]
        needs = tuple(jobs[parent.node.id] for parent in parents if parent.node.id in jobs) or (check,)
        verb = "build" if work.parts else "train"
        title, parts = f"{verb} {work_title(plan, work)}", _training_parts(plan, work, pixels)
        n = sum(part.images for part in parts)
        jobs[work.node.id] = Job("train", work.node.id, "", title, n, needs, parts)
    return jobs


def _gate_jobs(
    plan: Plan,
    missing: list[GateWork],
    answers: dict[str, list[AnswerWork]],
    check: Job,
    pixels: Pixels,
) -> list[Job]:
    """A job per dataset describes its training images, another its test images: each is described once."""
    nets: dict[GateNormalisation, Job] = {}
    fits: dict[tuple[GateNormalisation, str], Job] = {}
    asked: dict[tuple[GateNormalisation, str], set[str]] = defaultdict(set)
    subsets: dict[tuple[GateNormalisation, str], dict[Subset, None]] = defaultdict(dict)
    for gate in missing:
        nets.setdefault(gate.net, _gate_net_job(plan, gate.net, check))
        parts = _whole(plan, [(gate.dataset, "train")], "gate", pixels)
        title = f"fit the gate of {_title(plan, gate.dataset)}"
        fits[gate.net, gate.dataset] = Job(
            "gate", gate.dataset, gate.net, title, parts[0].images, (nets[gate.net],), parts
        )
    for gate in plan.gates.values():
        for work in answers.get(gate.node.id, ()):
            asked[gate.net, work.test].add(gate.dataset)
            subsets[gate.net, work.test][work.subset] = None
    distances = []
    for (net, test), datasets in asked.items():
        nets.setdefault(net, _gate_net_job(plan, net, check))
        needs = tuple(fits[net, d] for d in sorted(datasets) if (net, d) in fits) or (nets[net],)
        title = f"measure gate distances of {_title(plan, test)}'s test images"
        parts = _whole(plan, [(test, subset) for subset in subsets[net, test]], "distances", pixels)
        distances.append(Job("distances", test, net, title, parts[0].images, needs, parts))
    return [*nets.values(), *fits.values(), *distances]


def longest_first(jobs: Sequence[Job], sizes: Mapping[str, float] | None = None) -> dict[str, float]:
    """Returns how many images wait behind each job, its own included, along the longest chain.

    Who works side by side takes the job with the most behind it first: what is started last then is short,
    and no job waits for it alone.

    Args:
        jobs: Each after those it needs.
        sizes: Key of each job -> its size, if another one than its images.
    """
    behind = {job.key: 0.0 for job in jobs}
    for job in reversed(jobs):
        behind[job.key] += job.images if sizes is None else sizes[job.key]
        for needed in job.after:
            if needed.key in behind:
                behind[needed.key] = max(behind[needed.key], behind[job.key])
    return behind


def processes(plan: Plan, jobs: list[Job]) -> int:
    """Returns how many processes to use by default.

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
