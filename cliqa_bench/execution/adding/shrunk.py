"""A model without one of its tasks.

A file that learned datasets by `add` has the header of each file before it. To remove such a dataset, the
file from before it was added is written again, bit by bit, and what was added later is added again. A dataset
of the original run leaves with its head, its centroids and its answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.errors import UserError, unknown
from cliqa_bench.execution.adding.addable import refuse_other_readouts
from cliqa_bench.execution.adding.grown import GrownModel, part_of
from cliqa_bench.execution.adding.remade import RemadeModel
from cliqa_bench.execution.carried_answers import answer_tensors, answers_of, trimmed
from cliqa_bench.execution.learned import Learned
from cliqa_bench.execution.model_file import LearnedFile, write_model, write_parts
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.results.nodes import file_digest
from cliqa_bench.types import Json

_OF_TASKS = ("train", "strategy", "centroids", "scales", "validation")
"""Parts of a model file that are numbered by task, see `model_file`."""


class Ancestor(NamedTuple):
    """A model file that another one was made from by `add`.

    Attributes:
        header: What its header says, but the hash of all else.
        file: Hash of the file; "" for the current model.
    """

    header: dict[str, Json]
    file: str

    @property
    def tasks(self) -> int:
        """How many datasets it learned."""
        return len(self.header["facts"]["sequence"])

    @property
    def last(self) -> dict[str, Json]:
        """What it says of the dataset that it learned last by `add`, see `grown.TaskPart`."""
        facts = self.header["facts"]["added"]
        return {name: value for name, value in facts.items() if name not in ("before", "file")}


def ancestors(file: LearnedFile) -> Iterator[Ancestor]:
    """Yields the model itself, then those it was made from, newest first.

    Raises:
        UserError: If a header does not fit the one of the model that was made from it.
    """
    one = Ancestor(file.header, "")
    yield one
    while added := one.header["facts"].get("added"):
        try:
            older = Ancestor(dict(added["before"]), str(added["file"]))
            fits = older.header["facts"]["sequence"] == one.header["facts"]["sequence"][:-1]
        except (TypeError, KeyError, ValueError):
            fits = False
        if not fits:
            raise UserError(f"{file.path} does not say what it was before its last dataset was added")
        yield older
        one = older


class Removal(NamedTuple):
    """What `remove_task` wrote.

    Attributes:
        file: Hash of the file.
        expected: Hash of the file that the dataset was added to, if nothing was added later; else "".
    """

    file: str
    expected: str


def remove_task(file: LearnedFile, name: str, to: Path) -> Removal:
    """Writes a model without one of its datasets.

    Args:
        file: The model.
        name: The dataset: its name, or its title in tables.
        to: The new file.

    Raises:
        UserError: If the model has not learned it or nothing else, if its tasks share a network, or if the
            file cannot be written.
    """
    name = _learned_as(file, name)
    if len(file.facts.sequence) == 1:
        raise UserError(f"{name} is the only dataset that {file.path} has learned, so it cannot be removed")
    refuse_other_readouts(file, "cannot lose a dataset")
    place, known = file.facts.sequence.index(name), list(ancestors(file))
    start = next((one for one in known if one.tasks == place), known[-1])
    later = [one for one in reversed(known[:-1]) if one.tasks > max(place + 1, start.tasks)]
    with tempfile.TemporaryDirectory(prefix="cliqa-remove-") as folder:
        steps = iter(_targets(Path(folder), to, len(later) + (start.tasks > place)))
        at = next(steps)
        write_parts(_tensors_at(file, start.header), start.header, at)
        if start.tasks > place:
            model: Learned = ShrunkModel(LearnedFile(at), place)
            write_model(model, at := next(steps))
        for one in later:
            model = _added_again(LearnedFile(at), file, one, place)
            write_model(model, at := next(steps))
    return Removal(file_digest(to), "" if later or start.tasks > place else start.file)


def _learned_as(file: LearnedFile, name: str) -> str:
    learned = file.facts.sequence
    titled = [one for one in learned if file.facts.titles.get(one) == name]
    found = name if name in learned else titled[0] if len(titled) == 1 else None
    if found is None:
        raise unknown(f"dataset of {file.path}", name, learned)
    return found


def _targets(folder: Path, to: Path, steps: int) -> list[Path]:
    return [*(folder / f"{step}.safetensors" for step in range(steps)), to]


def _tensors_at(file: LearnedFile, header: Mapping[str, Json]) -> dict[str, Tensor]:
    """Returns the tensors of a model that a file was made from."""
    facts = header["facts"]
    tasks, answered = len(facts["sequence"]), facts.get("answered", [])
    found = {}
    for name, tensor in file.tensors.items():
        kind, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        if kind == "earlier" and int(number) == tasks:
            found[inner] = tensor
        elif kind == "reading":
            if tasks == len(file.facts.sequence):
                found[name] = tensor
        elif kind != "answers" and (kind not in (*_OF_TASKS, "earlier") or int(number) < tasks):
            found[name] = tensor
    every = file.answers()
    for place, (test, heads) in enumerate(answered):
        kept = trimmed(answer_tensors(every[test]), range(heads))
        found |= {f"answers.{place}.{name}": tensor for name, tensor in kept.items()}
    return found


def _added_again(base: LearnedFile, file: LearnedFile, one: Ancestor, without: int) -> GrownModel:
    """Returns a model to which a later dataset of a file is added, without what was removed.

    Args:
        base: The model so far.
        file: The model with all datasets.
        one: The file as it was with that dataset as its last.
        without: Place of the dataset that was taken out.
    """
    gone, every = file.facts.sequence[without], file.answers()
    answers = {}
    for test, heads in one.header["facts"].get("answered", []):
        if test != gone:
            columns = [head for head in range(heads) if head != without]
            answers[test] = answers_of(trimmed(answer_tensors(every[test]), columns), file.tau)
    return GrownModel(base, part_of(file, one.tasks - 1, one.last), answers)


class ShrunkModel(RemadeModel):
    """A model without one of its tasks.

    Args:
        old: The model before.
        place: Which task is left out, from 0.
    """

    def __init__(self, old: LearnedFile, place: int) -> None:
        gone = old.facts.sequence[place]
        self._kept = [task for task in range(len(old.facts.sequence)) if task != place]
        facts = replace(
            old.facts,
            sequence=[old.facts.sequence[task] for task in self._kept],
            titles={name: title for name, title in old.facts.titles.items() if name != gone},
            heads=[old.facts.heads[task] for task in self._kept],
            added={},
        )
        answers = {
            test: answers_of(trimmed(answer_tensors(said), self._kept), old.tau)
            for test, said in old.answers().items()
            if test != gone
        }
        super().__init__(old, f"{old.name} without {gone}", facts, answers)

    def model(self, node: str) -> QualityModel:
        """See the base class."""
        return self.old.model(node)

    def centroids(self) -> list[list[Tensor]]:
        """See the base class."""
        every = self.old.centroids()
        return [every[task] for task in self._kept]

    def scales(self) -> list[list[Tensor]]:
        """See the base class."""
        every = self.old.scales()
        return [every[task] for task in self._kept] if every else []

    def validation(self) -> list[NDArray[np.float32]]:
        """See the base class."""
        every = self.old.validation()
        return [every[task] for task in self._kept] if every else []
