"""What models made from a model file have in common: one more task, or one fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.execution.learned import Learned, ModelFacts, agreement
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.execution.run_scale import scale_of_answers
from cliqa_bench.models.reading_scale import ReadingScale
from cliqa_bench.types import Answers


class RemadeModel(Learned):
    """A model that has the networks of a file, and answers of its own.

    Args:
        old: The file.
        name: What it is called in messages.
        facts: What is known of it.
        answers: Test set -> the scores of its heads.
    """

    def __init__(
        self, old: LearnedFile, name: str, facts: ModelFacts, answers: Mapping[str, Answers]
    ) -> None:
        self.old, self.name, self.parts, self.networks = old, name, old.parts, old.networks
        # the file's scale belongs to its own answers
        self.facts, self._answers = replace(facts, reading={}), dict(answers)

    def state(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self.old.state(node)

    def remembered(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self.old.remembered(node)

    def gate_net(self, device: torch.device) -> FeatureNet:
        """See the base class."""
        return self.old.gate_net(device)

    def answers(self) -> dict[str, Answers]:
        """See the base class."""
        return self._answers

    def reading_scale(self) -> ReadingScale | None:
        """See the base class; its population are the test pictures that every head has answered."""
        full = {t: said for t, said in self._answers.items() if said.scores.shape[1] == len(self.facts.heads)}
        return scale_of_answers(full, self.facts.titles, self.facts.sequence, self.facts.readout)

    def measured(self) -> ModelFacts:
        """See the base class."""
        return replace(self.facts, srcc=agreement(self._answers, self.facts))
