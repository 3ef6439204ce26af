"""What a finished run learned, ready for use: heads, gate and protocol, wherever they are kept."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench import metrics
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.pixels.windows import Windows
from cliqa_bench.config import PresetName, Training
from cliqa_bench.errors import UserError
from cliqa_bench.execution.plan import gate_normalisation
from cliqa_bench.execution.run_scale import run_scale
from cliqa_bench.models.finished import RunNetworks, centroids_of, ready_gate, remembered, scales_of
from cliqa_bench.models.folding import MergedHead, Scorer
from cliqa_bench.models.gated import AspectScorer, Gate, GatedScorer, text_head_of
from cliqa_bench.models.pretraining_config import DISTORTION_BN, PretrainConfig, pretraining
from cliqa_bench.models.quality import ModelParts, QualityModel
from cliqa_bench.models.reading_scale import ReadingScale
from cliqa_bench.models.views import TaskNorms, TaskView
from cliqa_bench.results.nodes import read_json
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.results.weights import node_weights
from cliqa_bench.settings.choice import load_backbone, load_strategy
from cliqa_bench.settings.resolve import include
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Answers


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a model besides its weights.

    Attributes:
        id: Id of the run that made it.
        strategy: Name of the strategy on the command line.
        params: Its hyper-parameters that were set.
        usual_parts: Whether heads, view and windows are those that every strategy gets: then the strategy's
            code is not needed.
        own_features: Whether every task has features of its own.
        backbone: Name of the backbone on the command line.
        weights: Which pre-trained weights the backbone had, see `Backbone.weights_id`.
        training: The run's protocol, fields of `config.Training`.
        sequence: Datasets that were learned, in their order.
        titles: Dataset -> its name in tables.
        heads: For every head, which of the trainings holds it, and its column there.
        readout: How the heads become one score: "gate", "last" or "merged".
        tau: Temperature of the gate, where it was given and not chosen; see `Learned.tau`.
        stages: Stages of the backbone that the gate uses, counted from 1.
        generated: Whether any of the data was generated.
        versions: Package -> version with which it was trained.
        srcc: Test set -> SRCC of the scores on it, where the run answered it.
        reading: Words of the scale on which scores are read, see `ReadingScale.facts`; {} for none.
        gate_weights: Which of the backbone's usual weights describe images for the gate, see
            `Backbone.weights_id`; "" where the file holds them.
        made: With what the run was made: `seed`, `split`, `srgb` and `preset`; {} where a file does not say.
        answered: Test sets whose answers are carried, and how many heads, from the first, answered.
        added: Of a model that learned its last dataset by `add`: `before` (the header of the model before),
            `file` (the hash of that file) and facts of the dataset; {} otherwise.
    """

    id: str
    strategy: str
    params: dict[str, Any]
    usual_parts: bool
    own_features: bool
    backbone: str
    weights: str
    training: dict[str, Any]
    sequence: list[str]
    titles: dict[str, str]
    heads: list[tuple[str, int]]
    readout: str
    tau: float
    stages: list[int]
    generated: bool
    versions: dict[str, str]
    srcc: dict[str, float]
    reading: dict[str, Any] = field(default_factory=dict)
    gate_weights: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    answered: list[tuple[str, int]] = field(default_factory=list)
    added: dict[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """A name for each head: its dataset, or all datasets where there is a single head."""
        single = self.readout == "merged" or len(self.heads) == 1
        return ["+".join(self.sequence)] if single else self.sequence

    @property
    def protocol(self) -> Training:
        """The run's protocol; what another release has beside it is left out."""
        known = {one.name for one in dataclasses.fields(Training)}
        return Training(**{name: value for name, value in self.training.items() if name in known})


def facts_of(record: RunRecord) -> ModelFacts:
    """Returns what a run record says about the model, except how good it is; its strategy is loaded."""
    config = record.facts.get("config") or {}
    include(config.get("include"))
    params = (config.get("params") or {}).get(record.strategy, {})
    # single pictures are scored by the model as it was trained, whatever adapts it to a test set
    strategy, heads = load_strategy(record.strategy, params).trained_as(), record.steps[-1].heads
    readout = "merged" if "merged" in record.rows else "last"
    # a single head needs no gate, but a task that depends on nothing may get others beside it
    if readout == "last" and "gate" in record.rows and (len(heads) > 1 or strategy.depends_on == "nothing"):
        readout = "gate"
    usual = not any(map(strategy.overrides, ("view", "new_head", "windows"))) and readout != "merged"
    return ModelFacts(
        id=record.id,
        strategy=record.strategy,
        params=params,
        usual_parts=usual,
        own_features=strategy.own_features,
        backbone=str(config.get("backbone")),
        weights=str(record.facts.get("weights")),
        training=config.get("training") or {},
        sequence=list(record.sequence),
        titles=dict(record.titles),
        heads=list(heads),
        readout=readout,
        tau=record.tau,
        stages=list(record.stages),
        generated=record.generated,
        versions=record.facts.get("versions") or {},
        srcc={},
        made={
            "seed": record.seed,
            "split": str(record.facts.get("split", "1")),
            "srgb": bool(config.get("srgb")),
            "preset": str(record.facts.get("preset")),
        },
    )


def agreement(answers: Mapping[str, Answers], facts: ModelFacts) -> dict[str, float]:
    """Returns the SRCC on each test set that every head has answered; not where it is undefined.

    Args:
        answers: Test set -> the scores of the heads.
        facts: How they are read.
    """
    found = {}
    for test, said in answers.items():
        if said.scores.shape[1] == len(facts.heads):
            scores = read(said, facts.readout, None, said.tau)
            found[test] = math.nan if scores is None else metrics.srcc(scores, said.mos)
    return {test: srcc for test, srcc in found.items() if math.isfinite(srcc)}


@dataclass(frozen=True)
class UsualParts:
    """Heads, view and windows of a strategy that does not define its own.

    Attributes:
        own_features: Whether every task has features of its own.
    """

    own_features: bool

    def view(self) -> TaskView | None:
        """See `Strategy`."""
        return TaskNorms() if self.own_features else None

    def new_head(self, features: int) -> None:
        """See `Strategy`."""

    def trained_under(self, training: Training) -> Training:
        """See `Strategy`."""
        return training

    def windows(self, training: Training) -> Windows | None:
        """See `Strategy`."""
        return None


class Learned(ABC):
    """A model as a run left it.

    Attributes:
        facts: What is known of it.
        parts: Who makes heads, view and windows.
        networks: Builds its networks.
        name: What it is called in messages: "run tsn-I-seed0-...".
    """

    facts: ModelFacts
    parts: ModelParts
    networks: RunNetworks
    name: str

    @abstractmethod
    def state(self, node: str) -> dict[str, Tensor]:
        """Returns what a training left, see `QualityModel.own_state`."""

    @abstractmethod
    def remembered(self, node: str) -> dict[str, Tensor]:
        """Returns what the strategy kept beside the weights; {} for nothing."""

    @abstractmethod
    def model(self, node: str) -> QualityModel:
        """Returns the model that a training left."""

    @abstractmethod
    def centroids(self) -> list[list[Tensor]]:
        """Returns, for every task, the centroids (K, channels) of each stage of the backbone."""

    @abstractmethod
    def gate_net(self, device: torch.device) -> FeatureNet:
        """Returns the network that describes images for the gate, on the CPU and with its normalisation."""

    def scales(self) -> list[list[Tensor]]:
        """Returns, for every task, what each stage's features are multiplied with; [] for nothing."""
        return []

    def validation(self) -> list[NDArray[np.float32]]:
        """Returns each head's scores of its own task's validation images; [] if scores are mixed unscaled."""
        return []

    def reading_scale(self) -> ReadingScale | None:
        """Returns the scale on which its scores are read; None where it has none."""
        return None

    def earlier(self) -> dict[str, Tensor]:
        """Returns what a file keeps of the models that it was made from, besides tasks and answers."""
        return {}

    def answers(self) -> dict[str, Answers]:
        """Returns the heads' answers to the test sets; those that were not answered are left out."""
        return {}

    @property
    def tau(self) -> float:
        """The temperature of the gate."""
        return self.facts.tau

    def measured(self) -> ModelFacts:
        """Returns what is known about it, with its SRCC on the test sets that its run has answered."""
        return self.facts

    @property
    def nodes(self) -> list[str]:
        """The trainings that hold its heads, each once."""
        return list(dict.fromkeys(node for node, _ in self.facts.heads))

    def heads(self) -> list[Scorer | MergedHead]:
        """Returns what scores images: the heads, or the network of the readout "merged"."""
        last = self.facts.heads
        models = {node: self.model(node) for node in self.nodes}
        newest = last[-1][0]
        if self.facts.readout == "merged":  # a strategy that has a single head answers with it
            strategy = cast("Strategy", self.parts)
            strategy.load_state(self.remembered(newest))
            return [MergedHead(strategy.extras(models[newest])["merged"])]
        if self.parts.own_features or len(models) > 1:
            return [Scorer(models[node], [column]) for node, column in last]
        return [Scorer(models[newest], [column for _, column in last])]

    def gate(self, device: torch.device) -> Gate | None:
        """Returns the gate; None where the heads are read without one."""
        if self.facts.readout != "gate" or len(self.facts.heads) == 1:
            return None
        net = ready_gate(self.gate_net(device), device)
        centroids = [[stage.to(device) for stage in of_task] for of_task in self.centroids()]
        scales = [[scale.to(device) for scale in of_task] for of_task in self.scales()]
        return Gate(net, centroids, [stage - 1 for stage in self.facts.stages], self.tau, scales)

    def scorer(self, device: torch.device, tolerance: float = 0.0, aspects: bool = False) -> GatedScorer:
        """Returns what scores images.

        Args:
            device: Where to score.
            tolerance: As in `GatedScorer`.
            aspects: Whether it is to say quality, scene and distortion, too.

        Raises:
            UserError: If the run is not finished, its backbone's weights are not those it was trained with,
                or it cannot say aspects.
        """
        heads, validation = self.heads(), self.validation()
        if tolerance and (validation or any(not isinstance(head.heads, torch.Tensor) for head in heads)):
            raise UserError(
                f"{self.name} has heads whose scores have no bounds, so no tolerance can apply; leave it out"
            )
        if aspects:
            if (texts := text_head_of(heads)) is None:
                raise UserError(
                    f"{self.name} has no texts to compare pictures with; give --run an id of liqe or "
                    "liqe_cl, or leave --aspects out"
                )
            return AspectScorer(cast("Scorer", heads[0].to(device)), texts)
        ranges = [head.ranges() for head in heads if isinstance(head, Scorer)] if tolerance else []
        return GatedScorer(
            [head.to(device) for head in heads],
            self.gate(device),
            tolerance,
            validation,
            np.concatenate(ranges) if ranges else None,
        )


class LearnedRun(Learned):
    """What is in the folder of a run.

    Args:
        out: Folder of the results.
        record: The run.

    Raises:
        UserError: If the backbone's weights are not those it was trained with.
    """

    def __init__(self, out: Path, record: RunRecord) -> None:
        self.out, self.record, self.name = out, record, f"run {record.id}"
        self.facts = facts_of(record)
        config = record.facts.get("config") or {}
        backbone = load_backbone(self.facts.backbone)
        self.networks = RunNetworks(backbone, config.get("weights"), self.facts.protocol)
        if backbone.weights_id(self.networks.weights) != record.facts.get("weights"):
            raise UserError(
                f"{self.name} was trained with other weights of {backbone.title} than those found here"
            )
        self.parts = self.strategy = load_strategy(self.facts.strategy, self.facts.params).trained_as()
        self._answers = AnswerReader(out)

    def _folder(self, kind: str, node: str) -> Path:
        folder = self.out / kind / node
        if not (folder / "done.json").is_file():
            raise UserError(f"{self.name} is not finished (no {folder}); run its command again")
        return folder

    def state(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return node_weights(self._folder("train", node))

    def remembered(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return remembered(self._folder("train", node))

    def model(self, node: str) -> QualityModel:
        """See the base class."""
        return self.networks.trained(self._folder("train", node), self.parts)

    def centroids(self) -> list[list[Tensor]]:
        """See the base class."""
        gates = [self._folder("gate", self.record.gates[step.dataset]) for step in self.record.steps]
        return [centroids_of(gate) for gate in gates]

    def scales(self) -> list[list[Tensor]]:
        """See the base class."""
        gates = [self._folder("gate", self.record.gates[step.dataset]) for step in self.record.steps]
        found = [scales_of(gate) for gate in gates]
        return found if any(found) else []

    def validation(self) -> list[NDArray[np.float32]]:
        """See the base class."""
        if "scores" not in self.record.reading:
            return []
        known = self._answers.validation_scores(self.record, len(self.record.steps) - 1)
        if any(some is None for some in known):
            raise UserError(f"{self.name} is not finished; run its command again")
        return [some for some in known if some is not None]

    def reading_scale(self) -> ReadingScale | None:
        """See the base class."""
        return run_scale(self._answers, self.record, self.facts.readout)

    @property
    def tau(self) -> float:
        """See the base class."""
        found = self._answers.tau(self.record, len(self.record.steps) - 1)
        if found is None:
            raise UserError(f"{self.name} has not chosen its tau yet; run its command again")
        return found

    def _check_gate_net(self, made: PretrainConfig) -> None:
        """Refuses centroids of a network that was pre-trained otherwise than it would be now."""
        for node in self.record.gates.values():
            path = self.out / "gate" / node / "spec.json"
            if path.is_file() and read_json(path).get("net") != pretraining(made):
                raise UserError(
                    f"run {self.record.id} has gates of a network that was pre-trained on other pictures or "
                    "with other settings than the current ones; run its command again"
                )

    def gate_net(self, device: torch.device) -> FeatureNet:
        """See the base class."""
        made = None
        if gate_normalisation(self.networks.backbone, self.strategy) == "distortion-bn":
            made = DISTORTION_BN[cast("PresetName", self.record.facts.get("preset"))]
            self._check_gate_net(made)
        return self.networks.gate_net(made, device)

    def answers(self) -> dict[str, Answers]:
        """See the base class."""
        tests, step = dict.fromkeys([*self.record.sequence, *self.record.tests]), len(self.record.steps) - 1
        found = {test: self._answers.answers(self.record, step, test) for test in tests}
        return {test: answers for test, answers in found.items() if answers is not None}

    def measured(self) -> ModelFacts:
        """See the base class; answers that are missing are left out."""
        tau = self.tau if self.facts.readout == "gate" else self.facts.tau
        return replace(self.facts, srcc=agreement(self.answers(), self.facts), tau=tau)
