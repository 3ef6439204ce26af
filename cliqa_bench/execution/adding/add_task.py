"""`add`: one more dataset in a finished model, and the certificate that says what it changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cliqa_bench.errors import UserError, join_names
from cliqa_bench.execution.adding.addable import check_addable
from cliqa_bench.execution.adding.grown import GrownModel, TaskPart
from cliqa_bench.execution.adding.pictures_of_tests import AbsentTests, find_old_tests, pictures_of
from cliqa_bench.execution.adding.release_pictures import small_picture
from cliqa_bench.execution.adding.train_task import TrainingRequest, new_material, plan_task, train_task
from cliqa_bench.execution.adding.two_scorings import ProcessScores, SetScores, start_scoring
from cliqa_bench.execution.learned import Learned, LearnedRun
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.execution.model_file import LearnedFile, as_file, write_model
from cliqa_bench.progress import say
from cliqa_bench.reports.certificate.evidence import (
    ModelSeen,
    ReleaseEvidence,
    SetEvidence,
    SetPictures,
    UnscoredSet,
)
from cliqa_bench.reports.certificate.verdict import ReleaseLimits
from cliqa_bench.reports.certificate.writing import Certificate, write_certificate
from cliqa_bench.system.disk import writing
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.versions import versions
from cliqa_bench.types import Answers


@dataclass(frozen=True)
class AddRequest:
    """What to add to what, and what a release is held to.

    Attributes:
        training: What to learn, and on what.
        source: Folder of results, model file, or folder that holds one.
        run: Of a folder of results: which run.
        out: The new model file.
        report: Folder of the report; None for one beside `out`.
        tables: Tables of the user's that the model learned before, `csv:FILE`.
        limits: What the release is held to.
        command: The command line.
    """

    training: TrainingRequest
    source: Path
    run: str | None
    out: Path
    report: Path | None
    tables: Sequence[str]
    limits: ReleaseLimits
    command: str

    @property
    def work(self) -> Path:
        """Folder of what is half done; it is removed once the new model is released."""
        return self.out.with_name(f"{self.out.stem}-work")

    @property
    def report_folder(self) -> Path:
        """Folder of the report."""
        return self.report or self.out.with_name(f"{self.out.stem}-report")


def add_dataset(asked: AddRequest) -> Certificate:
    """Trains a further task, scores old and new model in two processes, and writes the certificate.

    The new model gets its name only if it passes; else it stays in the work folder, and the same command with
    other limits has nothing to train.

    Raises:
        UserError: If model, dataset or pictures are wrong, if limits cannot be judged, or if the training
            fails.
    """
    learned = open_learned(asked.source, asked.run)
    check_addable(learned)
    asked = _with_what_the_run_knows(asked, learned)
    with _no_trace_of_refusals(asked.work):
        return _add(asked, learned)


def _add(asked: AddRequest, learned: Learned) -> Certificate:
    file = as_file(learned, asked.work / "old.safetensors")
    plan = plan_task(file, asked.training, asked.work, asked.command)
    tests, absent = find_old_tests(file, asked.training.data, asked.tables)
    _refuse_limits(asked.limits, absent)
    tests.append(pictures_of(new_material(plan)))
    _say_what_is_missing(file, absent)
    draft, final = asked.work / "draft.safetensors", asked.work / asked.out.name
    how = (tests, asked.training.device, asked.training.max_megapixels)
    say(f"scoring {sum(len(test.paths) for test in tests):,} test pictures, old and new, in two processes")
    trained = all(work.node.done for work in plan.train.values())
    beside = cores() if trained else max(1, cores() // 2)  # the training takes the other half
    with start_scoring(file.path, *how, threads=beside) as old:
        part = train_task(plan)
        write_model(GrownModel(file, part), draft)
        before = old()
    with start_scoring(draft, *how, threads=cores()) as new:
        scored = (before, new())
    answers = _answers(file, tests, scored[1].sets)
    write_model(GrownModel(file, part, answers), final)
    release = _evidence(asked, file, part, (draft, final), tests, absent, scored)
    if isinstance(learned, LearnedRun):
        release = replace(release, old=release.old._replace(file=learned.name))
    certificate = write_certificate(release, asked.limits, asked.report_folder, small_picture)
    if certificate.passed:
        _release(final, asked)
    return certificate


@contextmanager
def _no_trace_of_refusals(work: Path) -> Iterator[None]:
    """Removes a work folder that was just made and in which nothing was trained."""
    new = not work.exists()
    try:
        yield
    except UserError:
        if new and not any((work / "train").glob("*")):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _with_what_the_run_knows(asked: AddRequest, learned: Learned) -> AddRequest:
    """Uses data folder, tables and files of the run that is added to, if none are given."""
    if not isinstance(learned, LearnedRun):
        return asked
    config = learned.record.facts.get("config") or {}
    data = asked.training.data or config.get("data")
    tables = [*(config.get("tables") or ()), *asked.tables]
    return replace(asked, training=replace(asked.training, data=data), tables=tables)


def _refuse_limits(limits: ReleaseLimits, absent: Sequence[AbsentTests]) -> None:
    """Refuses limits on old test sets that cannot be judged, before anything is trained."""
    flags = {"--max-drop": limits.max_drop, "--max-change": limits.max_change}
    given = [flag for flag, value in flags.items() if value is not None]
    if given and absent:
        names = join_names(one.name for one in absent)
        raise UserError(
            f"{given[0]} needs the test pictures of {names}: {absent[0].reason}; or leave {given[0]} out"
        )


def _say_what_is_missing(file: LearnedFile, absent: Sequence[AbsentTests]) -> None:
    for one in absent:
        say(f"{one.title} is not scored: {one.reason}")
    if file.facts.params.get("tau_from") == "validation":
        say(f"tau stays {file.tau:g}, as it was chosen on the validation images of the old datasets")


def _answers(
    file: LearnedFile, tests: Sequence[SetPictures], scored: Sequence[SetScores]
) -> dict[str, Answers]:
    """Returns what the new model carries: what the old one did, and what its further heads said just now."""
    found = file.answers()
    for test, said in zip(tests, scored, strict=True):
        carried = found.get(test.name)
        if said.distances is None or np.isnan(said.heads).any():
            continue  # a head without weight did not run
        if carried is not None and carried.distances is None:
            continue
        heads = np.asarray(said.heads, np.float32)
        distances = np.asarray(said.distances, np.float32)
        if carried is not None and carried.distances is not None:
            known = carried.scores.shape[1]
            heads = np.concatenate([carried.scores, heads[:, known:]], axis=1)
            distances = np.concatenate([carried.distances, distances[:, known:]], axis=1)
        found[test.name] = Answers(
            test.keys, test.mos, heads, distances, contents=test.contents, tau=file.tau
        )
    return found


def _evidence(
    asked: AddRequest,
    file: LearnedFile,
    part: TaskPart,
    written: tuple[Path, Path],
    tests: Sequence[SetPictures],
    absent: Sequence[AbsentTests],
    scored: tuple[ProcessScores, ProcessScores],
) -> ReleaseEvidence:
    draft, final = (LearnedFile(path) for path in written)
    olds, news = scored[0].sets, scored[1].sets
    sets = [
        _set_evidence(test, old, new, test.name == part.name)
        for test, old, new in zip(tests, olds, news, strict=True)
    ]
    same = _same(_scoring_parts(file), final.tensors)
    whole = _same(_scoring_parts(draft), final.tensors) == len(_scoring_parts(draft))
    titles = file.facts.titles
    return ReleaseEvidence(
        old=ModelSeen(file.path.name, file.digest, scored[0].process),
        new=ModelSeen(asked.out.name, draft.digest, scored[1].process),
        released=(final.digest, whole and len(_scoring_parts(final)) == len(_scoring_parts(draft))),
        same_parts=(len(_scoring_parts(file)), same),
        learned=[titles.get(name, name) for name in file.facts.sequence],
        tau=file.tau,
        stages=file.facts.stages,
        sets=sets,
        unscored=[UnscoredSet(one.title, one.srcc, one.reason) for one in absent],
        facts={
            "model": file.facts.id,
            "strategy": file.facts.strategy,
            "params": file.facts.params,
            "backbone": file.facts.backbone,
            "training": file.facts.training,
            "seed": file.facts.made.get("seed", 0),
            "added": {name: value for name, value in part.facts.items() if name != "versions"},
            "generated": file.facts.generated or bool(part.facts["generated"]),
            "versions": versions(),
        },
        command=asked.command,
    )


def _set_evidence(test: SetPictures, old: SetScores, new: SetScores, added: bool) -> SetEvidence:
    assert new.distances is not None  # of two tasks or more
    return SetEvidence(
        **vars(test),
        added=added,
        before=old.scores,
        after=new.scores,
        old_heads=old.heads,
        heads=new.heads,
        distances=new.distances,
    )


def _scoring_parts(file: LearnedFile) -> dict[str, torch.Tensor]:
    """Returns all tensors of a file but its answers, and the scale made of them: all that decides a score."""
    others = ("answers.", "reading.", "earlier.")
    return {name: tensor for name, tensor in file.tensors.items() if not name.startswith(others)}


def _same(parts: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> int:
    """Returns how many tensors are in another file, bit by bit."""
    return sum(
        name in other
        and tensor.dtype == other[name].dtype
        and tensor.shape == other[name].shape
        and tensor.numpy().tobytes() == other[name].numpy().tobytes()
        for name, tensor in parts.items()
    )


def _release(final: Path, asked: AddRequest) -> None:
    with writing(asked.out):
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        final.replace(asked.out)
    shutil.rmtree(asked.work, ignore_errors=True)
