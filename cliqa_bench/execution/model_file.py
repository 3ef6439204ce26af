"""A model in one file: weights as safetensors, and all that is known about it as JSON in the header.

| tensors | what they are |
|---|---|
| `train.I.NAME` | what the I-th training left: heads and what tasks own, or the whole network |
| `strategy.I.NAME` | what the strategy kept beside it |
| `backbone.NAME` | the network that everything starts from, where a training does not hold all of it |
| `gate.NAME` | the network of the gate, where it is neither `backbone` nor named by `gate_weights` |
| `centroids.T.S` | centroids of task T in stage S of the backbone, (K, channels) |
| `scales.T.S` | what features of that stage are multiplied with for task T, (channels,), where they are |
| `validation.T.scores` | scores of task T's validation images, where its head is standardised by them |
| `reading.scores`, `reading.limits` | the scale of `models.reading_scale`, where it is |
| `earlier.N.reading.NAME` | the same of the file with N tasks that this one was made from by `add` |
| `answers.K.NAME` | the heads' answers to the K-th test set, see `carried_answers`; older files have none |

The header's one entry, `cliqa_bench`, has `format` (a number), `version` (of the suite), `sha256` (of all
else), `preprocessing` (in words and numbers, for other programs), and `facts`, see `ModelFacts`. Trainings
are counted in the order of the heads. The same model gives the same bytes. Nothing in a file is executed: a
backbone, and a strategy where its code is needed, are taken by name from this package, or from timm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliqa_bench._version import __version__
from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.benchmarks.pixels.cache import MEAN, STD
from cliqa_bench.config import Training
from cliqa_bench.errors import UserError
from cliqa_bench.execution.carried_answers import answer_tensors, answers_of, wrong_carried
from cliqa_bench.execution.learned import Learned, ModelFacts, UsualParts
from cliqa_bench.execution.own_picture import most_pixels
from cliqa_bench.models.finished import RunNetworks
from cliqa_bench.models.pretraining_config import PretrainConfig
from cliqa_bench.models.quality import ModelParts, QualityModel
from cliqa_bench.models.reading_scale import ReadingScale
from cliqa_bench.progress import Tick
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.results.schema import wrong_type
from cliqa_bench.results.weights import parse_weights, write_weights
from cliqa_bench.settings.choice import load_backbone, load_strategy, refuse_foreign_code
from cliqa_bench.settings.resolve import typed_fields
from cliqa_bench.types import Answers, Json

FORMAT = 1
"""Raise it when older releases would read a file wrong."""

MODEL = "model.safetensors"
"""The model file in a folder of a model, as hubs name it."""

_KEY = "cliqa_bench"
_ADVICE = "write it again: cliqa-bench export RUNS --to model.safetensors"
_MADE = "give a file that cliqa-bench export has written"


def model_path(path: Path) -> Path:
    """Returns the model file that a path means: itself, or the one in a folder of a model."""
    return path / MODEL if (path / MODEL).is_file() else path


# -- writing -------------------------------------------------------------------------------------------------


def write_model(learned: Learned, to: Path) -> None:
    """Writes a model file.

    Args:
        learned: The model.
        to: The file.

    Raises:
        UserError: If the model needs code that is not this package's, or the file cannot be written.
    """
    facts, answers = learned.measured(), learned.answers()
    _refuse_foreign_code(facts, f"{learned.name} cannot be written as one file")
    facts = replace(facts, answered=[(test, said.scores.shape[1]) for test, said in answers.items()])
    tensors, scale = _tensors(learned) | learned.earlier(), learned.reading_scale()
    if scale is not None:
        facts = replace(facts, reading=scale.facts())
        tensors |= _scale_tensors(scale)
    for place, said in enumerate(answers.values()):
        tensors |= {f"answers.{place}.{name}": tensor for name, tensor in answer_tensors(said).items()}
    write_parts(tensors, {"format": FORMAT, **facts_for_others(facts)}, to)


def write_parts(tensors: Mapping[str, Tensor], header: Mapping[str, Json], to: Path) -> None:
    """Writes a model file from its parts.

    Args:
        tensors: Name -> tensor; no two share memory.
        header: What its header says, but the hash.
        to: The file.

    Raises:
        UserError: If it cannot be written.
    """
    with atomic_path(to) as temporary:
        write_weights(temporary, tensors)
        signed = {**header, "sha256": _digest(temporary.read_bytes(), header)}
        write_weights(temporary, tensors, {_KEY: json.dumps(signed, sort_keys=True, allow_nan=False)})


def _tensors(learned: Learned) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def add(prefix: str, tensors: Mapping[str, Tensor]) -> None:
        # copies: safetensors refuses tensors that share memory
        found.update({f"{prefix}.{name}": tensor.detach().clone() for name, tensor in tensors.items()})

    for number, node in enumerate(learned.nodes):
        add(f"train.{number}", learned.state(node))
        add(f"strategy.{number}", learned.remembered(node) if learned.facts.readout == "merged" else {})
    gated = learned.facts.readout == "gate"
    start = learned.networks.start().state_dict()
    if learned.parts.view() is not None or gated:
        add("backbone", start)
    if gated:
        net = learned.gate_net(torch.device("cpu")).state_dict()
        usual = learned.facts.gate_weights
        if not usual and not all(torch.equal(tensor, start[name]) for name, tensor in net.items()):
            add("gate", net)
        for task, stages in enumerate(learned.centroids()):
            add(f"centroids.{task}", {str(stage): tensor for stage, tensor in enumerate(stages, 1)})
        for task, stages in enumerate(learned.scales()):
            add(f"scales.{task}", {str(stage): tensor for stage, tensor in enumerate(stages, 1)})
    for task, scores in enumerate(learned.validation()):
        add(f"validation.{task}", {"scores": torch.from_numpy(scores)})
    return found


def _scale_tensors(scale: ReadingScale) -> dict[str, Tensor]:
    arrays = {"scores": scale.scores, "limits": scale.limits}
    return {f"reading.{name}": torch.from_numpy(a.copy()) for name, a in arrays.items() if a is not None}


def facts_for_others(facts: ModelFacts) -> dict[str, Json]:
    """Returns what is known about a model, for other programs and people, as JSON."""
    numbers = {node: number for number, node in enumerate(dict.fromkeys(node for node, _ in facts.heads))}
    heads = [(str(numbers[node]), column) for node, column in facts.heads]
    return {
        "version": __version__,
        "preprocessing": preprocessing(facts.protocol.resize),
        "facts": asdict(facts) | {"heads": heads},
    }


def preprocessing(resize: int) -> dict[str, Json]:
    """Returns how a picture is prepared before a network sees it, for other programs.

    Args:
        resize: As in `pixels.decode.adaptive_size`.
    """
    rule = (
        f"if both sides are longer than {resize} pixels, shrink until the shorter one has {resize}; "
        f"then, if there are more than {most_pixels(resize)} pixels, shrink to these; "
        "bilinear, antialiased; never enlarge"
    )
    return {
        "colour": "sRGB, red green blue, 8 bits; transparent pixels over white",
        "resize": rule if resize else "none",
        "shorter_side": resize,
        "most_pixels": most_pixels(resize),
        "scale": 1 / 255,
        "mean": list(MEAN),
        "std": list(STD),
    }


def _refuse_foreign_code(facts: ModelFacts, what: str) -> None:
    refuse_foreign_code(what, facts.backbone, None if facts.usual_parts else facts.strategy)


# -- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredNetworks(RunNetworks):
    """The networks of a model file.

    Attributes:
        stored: Weights of the network that everything starts from; none where trainings hold all.
        gate_stored: Those of the network that describes images for the gate; none where it is the same.
        gate_weights: Which of the backbone's usual weights that network has, see `ModelFacts`; "" for none.
        where: The file.
    """

    stored: Mapping[str, Tensor]
    gate_stored: Mapping[str, Tensor]
    gate_weights: str
    where: Path

    def start(self) -> FeatureNet:
        """See the base class."""
        net = self.backbone.build("random")
        if self.stored:
            restore(net, self.stored, self.where)
        return net

    def gate_net(
        self, made: PretrainConfig | None, device: torch.device, tick: Tick | None = None
    ) -> FeatureNet:
        """See the base class; nothing is trained.

        Raises:
            UserError: If the backbone's usual weights are others than those of the file.
        """
        if self.gate_weights:
            return self._usual_net()
        net = self.start()
        if self.gate_stored:
            restore(net, self.gate_stored, self.where)
        return net

    def _usual_net(self) -> FeatureNet:
        if self.backbone.weights_id(None) != self.gate_weights:
            raise UserError(
                f"{self.where} needs other weights of {self.backbone.title} for its gate than this release "
                "has; use the release that wrote it"
            )
        return self.backbone.build(None)


def restore(net: FeatureNet, state: Mapping[str, Tensor], where: Path) -> None:
    """Loads weights into a network.

    Raises:
        UserError: If names or shapes are those of another network.
    """
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{where} holds weights of another network ({said:.200}); {_ADVICE}") from error


class LearnedFile(Learned):
    """What is in a model file.

    Args:
        path: The file.

    Attributes:
        digest: Hash of the file.
        header: What its header says, but the hash of all else.
        tensors: All that it holds, by name.

    Raises:
        UserError: If it is something else, half-written or damaged, or a later release wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"model {path}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; {_MADE}") from error
        self.tensors = parse_weights(data, path, _MADE)
        self.digest = hashlib.sha256(data).hexdigest()
        header = self._header(data)
        if header.pop("sha256", None) != _digest(data, header):
            raise UserError(f"{path} is damaged (it does not hold what was written); copy it again")
        del data
        self.header = header
        self.facts = self._facts(header.get("facts"))
        _refuse_foreign_code(self.facts, f"{path} cannot be loaded")
        self.parts: ModelParts = UsualParts(self.facts.own_features)
        if not self.facts.usual_parts:
            self.parts = load_strategy(self.facts.strategy, self.facts.params).trained_as()
        backbone = load_backbone(self.facts.backbone)
        nets = (self._part("backbone"), self._part("gate"), self.facts.gate_weights)
        self.networks = StoredNetworks(backbone, "random", self.facts.protocol, *nets, path)

    def _header(self, data: bytes) -> dict[str, Json]:
        length = int.from_bytes(data[:8], "little")
        text = (json.loads(data[8 : 8 + length]).get("__metadata__") or {}).get(_KEY)
        if text is None:
            raise UserError(f"{self.path} is a safetensors file, but not a model; {_MADE}")
        try:
            header = json.loads(text)
            made = int(header["format"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{self.path} has a damaged header ({error}); {_ADVICE}") from error
        if made > FORMAT:
            raise UserError(
                f"{self.path} was written by cliqa_bench {header.get('version')!s:.40}, in a format that "
                f"this release, {__version__}, does not read; install that release or a later one"
            )
        return dict(header)

    def _facts(self, body: Json) -> ModelFacts:
        """Returns the content of the header, once every field has the right type and fits the others."""
        try:
            heads = [(node, column) for node, column in body["heads"]]
            answered = [(test, count) for test, count in body.get("answered", [])]
            facts = ModelFacts(**body | {"heads": heads, "answered": answered})
        except (TypeError, KeyError, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"
        else:
            wrong = wrong_type(facts) or self._misfit(facts)
        if wrong:
            raise UserError(f"{self.path} has facts that do not fit ({wrong:.200}); {_ADVICE}")
        known = {f: v for f, v in facts.training.items() if f in Training.__dataclass_fields__}
        typed_fields(Training, known, f"{self.path}: training")
        return facts

    def _misfit(self, facts: ModelFacts) -> str:
        wanted = {str(stage) for stage in facts.stages}
        stages = [self._part(f"centroids.{task}") for task in range(len(facts.sequence))]
        checks = {
            "no dataset, or one twice": 0 < len(facts.sequence) == len(set(facts.sequence)),
            "neither one head nor one a dataset": len(facts.heads) in (1, len(facts.sequence)),
            "a head without a training": all(self._part(f"train.{node}") for node, _ in facts.heads),
            "a head's column out of range": all(0 <= column < 10_000 for _, column in facts.heads),
            "an unknown readout": facts.readout in ("gate", "last", "merged"),
            "a gate without centroids": facts.readout != "gate"
            or bool(wanted and all(wanted <= of_task.keys() for of_task in stages)),
            "tau out of range": facts.tau >= 0,
            "a scale that scores cannot be read on": not (reading := self._part("reading"))
            or _is_scale(reading, facts),
            "scales of other stages than centroids": all(
                not (scales := self._part(f"scales.{task}")) or scales.keys() == of_task.keys()
                for task, of_task in enumerate(stages)
            ),
        }
        wrong = [text for text, holds in checks.items() if not holds]
        wrong += [wrong_carried(self._part(f"answers.{k}"), n) for k, (_, n) in enumerate(facts.answered)]
        return next(filter(None, wrong), "")

    def _part(self, prefix: str) -> dict[str, Tensor]:
        start = f"{prefix}."
        return {n.removeprefix(start): t for n, t in self.tensors.items() if n.startswith(start)}

    def state(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self._part(f"train.{node}")

    def remembered(self, node: str) -> dict[str, Tensor]:
        """See the base class."""
        return self._part(f"strategy.{node}")

    def model(self, node: str) -> QualityModel:
        """See the base class."""
        return self.networks.restored(self.state(node), self.path, self.parts, advice=_ADVICE)

    def centroids(self) -> list[list[Tensor]]:
        """See the base class."""
        return self._by_stage("centroids")

    def scales(self) -> list[list[Tensor]]:
        """See the base class."""
        found = self._by_stage("scales")
        return found if any(found) else []

    def _by_stage(self, kind: str) -> list[list[Tensor]]:
        parts = [self._part(f"{kind}.{task}") for task in range(len(self.facts.sequence))]
        return [[stages[str(stage)] for stage in range(1, len(stages) + 1)] for stages in parts]

    def validation(self) -> list[NDArray[np.float32]]:
        """See the base class."""
        parts = [self._part(f"validation.{task}") for task in range(len(self.facts.sequence))]
        return [part["scores"].numpy() for part in parts] if all(parts) else []

    def reading_scale(self) -> ReadingScale | None:
        """See the base class."""
        part, words = self._part("reading"), self.facts.reading
        if not part:
            return None
        limits = part["limits"].numpy() if "limits" in part else None
        return ReadingScale(
            part["scores"].numpy(), words["names"], words["population"], limits, words["calibrated"]
        )

    def answers(self) -> dict[str, Answers]:
        """See the base class."""
        answered = enumerate(self.facts.answered)
        return {test: answers_of(self._part(f"answers.{k}"), self.tau) for k, (test, _) in answered}

    def gate_net(self, device: torch.device) -> FeatureNet:
        """See the base class."""
        return self.networks.gate_net(None, device)


def _is_scale(part: Mapping[str, Tensor], facts: ModelFacts) -> bool:
    """Tells whether a file's scale fits its facts: scores that ascend, each with a name, and limits."""
    scores, limits, words = part.get("scores"), part.get("limits"), facts.reading
    shape = (len(facts.sequence), len(facts.stages))
    return (
        scores is not None
        and scores.dtype == torch.float64
        and scores.ndim == 1
        and 0 < len(scores) == len(words.get("names", ()))
        and bool(scores.isfinite().all() and (scores.diff() >= 0).all())
        and all(isinstance(words.get(name), str) for name in ("population", "calibrated"))
        and (limits is None or (limits.shape == shape and bool((limits > 0).all())))
    )


def as_file(learned: Learned, path: Path) -> LearnedFile:
    """Returns a model as a file: itself if it is one, else one that is written.

    Args:
        learned: The model.
        path: Where it is written.

    Raises:
        UserError: See `write_model`.
    """
    if isinstance(learned, LearnedFile):
        return learned
    write_model(learned, path)
    return LearnedFile(path)


def _digest(data: bytes, header: Mapping[str, Json]) -> str:
    """Returns the hash of a model file.

    Args:
        data: A safetensors file with its tensors.
        header: What our entry of its header says, or is to say, but the hash.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    listed = {name: what for name, what in json.loads(data[8:end]).items() if name != "__metadata__"}
    hashed = hashlib.sha256(json.dumps([listed, header], sort_keys=True).encode())
    hashed.update(memoryview(data)[end:])
    return hashed.hexdigest()
