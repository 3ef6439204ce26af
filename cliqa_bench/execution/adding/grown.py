"""A model with one more task: the old one, and what a training left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench.execution.adding.remade import RemadeModel
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.types import Answers, Json


@dataclass(frozen=True)
class TaskPart:
    """What a model holds of one task.

    Attributes:
        name: The dataset.
        title: Its name in tables.
        state: What the training left, see `QualityModel.own_state`.
        centroids: (K, channels) float32 for each stage of the backbone.
        scales: (channels,) float32 for each stage; [] for nothing.
        validation: (m,) float32, the head's scores of its validation images, where heads are standardised.
        facts: `fingerprint`, `generated`, `split` and the `versions` of the packages, as JSON.
    """

    name: str
    title: str
    state: dict[str, Tensor]
    centroids: list[Tensor]
    scales: list[Tensor]
    validation: NDArray[np.float32] | None
    facts: dict[str, Json]


class GrownModel(RemadeModel):
    """A model that has learned one more task; nothing of the old one changes.

    Args:
        old: The model before, see `addable.check_addable`.
        part: The new task.
        answers: Test set -> the scores of all heads; None for those of the old ones.
    """

    def __init__(
        self, old: LearnedFile, part: TaskPart, answers: Mapping[str, Answers] | None = None
    ) -> None:
        self.part, self._node, facts = part, str(len(old.nodes)), old.facts
        facts = replace(
            facts,
            sequence=[*facts.sequence, part.name],
            titles={**facts.titles, part.name: part.title},
            heads=[*facts.heads, (self._node, 0)],
            generated=facts.generated or bool(part.facts.get("generated")),
            added={**part.facts, "before": old.header, "file": old.digest},
        )
        super().__init__(
            old, f"{old.name} with {part.name}", facts, old.answers() if answers is None else answers
        )

    def state(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self.part.state if node == self._node else super().state(node)

    def remembered(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return {} if node == self._node else super().remembered(node)

    def model(self, node: str) -> QualityModel:
        """See the base class."""
        return self.networks.restored(self.state(node), self.old.path, self.parts)

    def centroids(self) -> list[list[Tensor]]:
        """See the base class."""
        return [*self.old.centroids(), self.part.centroids]

    def scales(self) -> list[list[Tensor]]:
        """See the base class."""
        return [*self.old.scales(), self.part.scales] if self.part.scales else []

    def validation(self) -> list[NDArray[np.float32]]:
        """See the base class."""
        return [] if self.part.validation is None else [*self.old.validation(), self.part.validation]

    def earlier(self) -> dict[str, Tensor]:
        """See the base class: the scale of the old model, which `remove` writes again."""
        place = f"earlier.{len(self.old.facts.sequence)}."
        kept = {name: t for name, t in self.old.tensors.items() if name.startswith("earlier.")}
        return kept | {place + n: t for n, t in self.old.tensors.items() if n.startswith("reading.")}


def part_of(file: LearnedFile, place: int, facts: Mapping[str, Json]) -> TaskPart:
    """Returns what a model file holds of one task.

    Args:
        file: The model.
        place: Which task, from 0.
        facts: As in `TaskPart`.
    """
    name, scales, validation = file.facts.sequence[place], file.scales(), file.validation()
    return TaskPart(
        name=name,
        title=file.facts.titles.get(name, name),
        state=file.state(file.facts.heads[place][0]),
        centroids=file.centroids()[place],
        scales=scales[place] if scales else [],
        validation=validation[place] if validation else None,
        facts=dict(facts),
    )
