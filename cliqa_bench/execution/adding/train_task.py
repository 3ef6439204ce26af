"""Trains one more task of a model exactly as `run` does: its nodes, its learner, its seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cliqa_bench.benchmarks.labelled import LabelledDataset, say_notes
from cliqa_bench.errors import UserError
from cliqa_bench.execution.adding.grown import TaskPart
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.execution.plan import Plan
from cliqa_bench.execution.run import finish, lay_out
from cliqa_bench.models.finished import centroids_of, scales_of
from cliqa_bench.progress import say
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.results.weights import node_weights
from cliqa_bench.settings.choice import choose
from cliqa_bench.settings.resolve import resolve
from cliqa_bench.system.versions import versions


@dataclass(frozen=True)
class TrainingRequest:
    """What to learn, and on what.

    Attributes:
        dataset: The dataset, as on the command line of `run`: a name, or `csv:FILE`.
        data: Folder of the datasets, as `run` takes it.
        device: On which to train, as `run` takes it.
        threads: Of the process.
        max_megapixels: Largest picture that is read.
        include: Files of a user's own datasets, as `run` takes them.
    """

    dataset: str
    data: str | None = None
    device: str | None = None
    threads: int | None = None
    max_megapixels: float | None = None
    include: Any = None


def plan_task(file: LearnedFile, asked: TrainingRequest, work: Path, command: str) -> Plan:
    """Lays out the training of one more task; its protocol, seed and split are those of the model.

    Args:
        file: The model; see `addable.check_addable`.
        asked: What to learn.
        work: Folder of the results.
        command: The command line that would do it again.

    Raises:
        UserError: If the dataset is missing, broken, or learned already.
    """
    config = resolve(_settings(file, asked, work))
    names = [name for order in config.orders.values() for name in order]
    if len(names) != 1:
        raise UserError(f"add learns one dataset, not {asked.dataset}; give them one after the other")
    if names[0] in file.facts.sequence:
        raise UserError(
            f"{file.path} has already learned {names[0]}; remove that first (cliqa-bench remove), or give a "
            "table with another name"
        )
    choice = replace(choose(config), weights=file.facts.weights)  # the file has them
    plan = lay_out(choice, command, decode=True)
    plan.networks = file.networks
    # of its answers, only what heads are standardised by is needed
    plan.answers = {name: work for name, work in plan.answers.items() if work.subset == "val"}
    plan.pictures = {}
    return plan


def _settings(file: LearnedFile, asked: TrainingRequest, work: Path) -> dict[str, Any]:
    facts, made = file.facts, file.facts.made
    if not made:
        say(f"{file.path} does not say its seed and split; using seed 0 and split 1")
    split = str(made.get("split", "1"))
    if "/" in split or "\\" in split:
        say(f"{file.path} was trained on the published split {split}; the new dataset uses split 1")
        split = "1"
    return {
        "strategy": facts.strategy,
        "params": {facts.strategy: facts.params} if facts.params else {},
        "training": asdict(facts.protocol),
        "backbone": facts.backbone,
        "weights": "random",  # not used: the networks are those of the file
        "preset": made.get("preset"),
        "seeds": made.get("seed", 0),
        "split": split,
        "srgb": made.get("srgb", False),
        "orders": asked.dataset,
        "data": asked.data,
        "device": asked.device,
        "threads": asked.threads,
        "max_megapixels": asked.max_megapixels,
        "include": asked.include,
        "jobs": 1,
        "out": str(work),
        "set": [],
    }


def train_task(plan: Plan) -> TaskPart:
    """Trains what `plan_task` has laid out, as far as it is missing.

    Raises:
        UserError: If it fails.
    """
    say_notes(plan.materials.values())
    failed = finish(plan).failed
    if failed:
        job, reason = next(iter(failed.items()))
        raise UserError(f"{job.title} failed: {reason}; the same command resumes")
    return _part(plan, plan.records[0])


def new_material(plan: Plan) -> LabelledDataset:
    """Returns the dataset that `plan_task` has laid out."""
    return plan.materials[plan.records[0].sequence[0]]


def _part(plan: Plan, record: RunRecord) -> TaskPart:
    (name,), (node, _) = record.sequence, record.steps[0].heads[0]
    out, material = plan.config.out, plan.materials[record.sequence[0]]
    gate = out / "gate" / record.gates[name]
    known = AnswerReader(out).validation_scores(record, 0) if "scores" in record.reading else [None]
    return TaskPart(
        name=name,
        title=material.dataset.title,
        state=node_weights(out / "train" / node),
        centroids=centroids_of(gate),
        scales=scales_of(gate),
        validation=known[0],
        facts={
            "fingerprint": material.fingerprint,
            "generated": material.generated,
            "split": plan.config.split,
            "versions": versions(),
        },
    )
