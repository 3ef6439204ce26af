"""From a configuration to a tree of work: which nodes there are, which are done, what the rest costs.

Nothing here imports torch: `plan` answers at once, and a run with nothing left to do stays quick.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.benchmarks.aspect_labels import unknown_aspects
from cliqa_bench.benchmarks.labelled import LabelledDataset
from cliqa_bench.config import RunConfig, named
from cliqa_bench.errors import UserError
from cliqa_bench.execution.work_size import cost, memory_cost
from cliqa_bench.models.pretraining_config import DISTORTION_BN, pretraining
from cliqa_bench.part_names import in_path
from cliqa_bench.results.nodes import Node
from cliqa_bench.results.records import RunRecord, Step
from cliqa_bench.settings.choice import Choice
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import GateSpace, Subset

if TYPE_CHECKING:
    from cliqa_bench.models.finished import RunNetworks

GateNormalisation = Literal["own", "distortion-bn", "imagenet"]

COMPOSITION = "shuffled and cut evenly 1"
"""How the test images that a model is adapted to come together, see `learning.adaptation.batches_of`.

It goes into the names of adapted answers; another rule has another name.
"""

N_PICTURES = 3
"""Images of a test set that are kept for figures."""

SCHEMA = 3
"""Goes into every node's hash; raised when a change to the code changes what a node would hold."""


@dataclass
class TrainWork:
    """One experience to train.

    Attributes:
        node: Where it goes.
        strategy: The strategy, with its hyper-parameters.
        sequence: Datasets learned, the last being this experience's; of joint and cumulative learning, all.
        seed: Seed of the run.
        previous: The node it continues; None for a fresh model.
        parts: The nodes that it is put together from, one for each dataset; none if it is trained.
    """

    node: Node
    strategy: Strategy
    sequence: tuple[str, ...]
    seed: int
    previous: TrainWork | None
    parts: tuple[TrainWork, ...] = ()

    @property
    def dataset(self) -> str:
        """The dataset of this experience, of joint learning the last one."""
        return self.sequence[-1]

    @property
    def first_task(self) -> int:
        """Position in the order of the first dataset of this experience, and so of its head."""
        return len(self.sequence) - len(self.datasets)

    @property
    def joint(self) -> bool:
        """Whether all datasets of the sequence are one experience."""
        return self.strategy.depends_on == "set" or self.strategy.cumulative

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets of this experience."""
        return self.sequence if self.joint else self.sequence[-1:]


@dataclass
class GateWork:
    """The gate of one dataset: K-means of its training images' features under one normalisation."""

    node: Node
    dataset: str
    k: int
    seed: int
    net: GateNormalisation
    space: GateSpace = "unit"


@dataclass
class AnswerWork:
    """The answers of one node to one test set, or to the validation images of a dataset.

    Attributes:
        node: Where it goes.
        of: Who says it.
        test: Name of the dataset.
        subset: Which of its images.
        adapted_by: The transductive strategy that adapts the model to the test images; None for the model as
            it was trained.
    """

    node: Node
    of: TrainWork | GateWork
    test: str
    subset: Subset = "test"
    adapted_by: Strategy | None = None


@dataclass
class PictureWork:
    """A few images of a test set, small, for figures."""

    node: Node
    test: str


class Missing(NamedTuple):
    """What is not finished yet."""

    train: list[TrainWork]
    gates: list[GateWork]
    answers: list[AnswerWork]
    pictures: list[PictureWork]

    def used(self) -> list[str]:
        """Returns the datasets whose images this work needs, in alphabetical order."""
        return sorted(
            {name for work in self.train if not work.parts for name in work.sequence}
            | {gate.dataset for gate in self.gates}
            | {answer.test for answer in self.answers}
            | {picture.test for picture in self.pictures}
        )


@dataclass
class Plan:
    """Everything a configuration asks for; nodes are listed once, parents before children.

    `answers_of` finds the answers by the id of the node that gives them, the dataset, its subset, and the
    name of the strategy that adapts the model to it, "" for none. `networks` are those of a model file, if
    all starts from one: its work is done in this process.
    """

    choice: Choice
    materials: dict[str, LabelledDataset]
    train: dict[str, TrainWork] = field(default_factory=dict)
    gates: dict[str, GateWork] = field(default_factory=dict)
    answers: dict[str, AnswerWork] = field(default_factory=dict)
    pictures: dict[str, PictureWork] = field(default_factory=dict)
    records: list[RunRecord] = field(default_factory=list)
    answers_of: dict[tuple[str, str, Subset, str], AnswerWork] = field(default_factory=dict)
    networks: RunNetworks | None = None

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.choice.config

    @property
    def backbone(self) -> type[Backbone]:
        """The backbone of all its networks."""
        return self.choice.backbone

    def missing(self) -> Missing:
        """Returns what is not finished yet; looks for each node on the disk, thousands for many orders."""
        return Missing(
            [w for w in self.train.values() if not w.node.done],
            [w for w in self.gates.values() if not w.node.done],
            [w for w in self.answers.values() if not w.node.done],
            [w for w in self.pictures.values() if not w.node.done],
        )


def make_plan(choice: Choice, materials: dict[str, LabelledDataset], facts: dict[str, Any]) -> Plan:
    """Lays out the nodes and run records of a configuration.

    Args:
        choice: The configuration, its names resolved.
        materials: Every dataset that an order or `test_on` names.
        facts: Goes into every run record (versions, command, ...).

    Raises:
        UserError: If a reading choice is out of range, an order is longer than a strategy can learn, a
            strategy cannot work with the backbone, or two have a row of one name.
    """
    config, backbone, weights = choice.config, choice.backbone, choice.weights
    plan = Plan(choice, materials)
    for strategy in choice.strategies:
        _check_gate(strategy, backbone)
        _check_parts(strategy)
        strategy.check_backbone(backbone)
        strategy.check_length(max(map(len, config.orders.values())))
    _check_rows(choice.strategies)
    for strategy, seed, (label, order) in itertools.product(
        choice.strategies, config.seeds, config.orders.items()
    ):
        rows = strategy.table_rows()
        steps = list(_train_nodes(plan, strategy.trained_as(), weights, order, seed))
        gates = {d: _gate_node(plan, strategy, weights, d, seed) for d in order} if "gate" in rows else {}
        plan.records.append(_record(plan, strategy, seed, label, order, steps, gates, facts))
    return plan


def _check_rows(strategies: Sequence[Strategy]) -> None:
    for one, other in itertools.combinations(strategies, 2):
        same = set(one.table_rows().values()) & set(other.table_rows().values())
        if same and one.name != other.name:
            both = f"{one.name} and {other.name} both have the row {min(same)!r}"
            raise UserError(f"{both} in the tables; rename it in the rows of one of them")


def _check_gate(strategy: Strategy, backbone: type[Backbone]) -> None:
    wrong = [s for s in strategy.stages if not 1 <= s <= len(backbone.stage_sizes)]
    if wrong:
        n = len(backbone.stage_sizes)
        raise UserError(f"{strategy.name}.stages = {strategy.stages}: {backbone.title} has stages 1 to {n}")
    if strategy.centroids < 1:
        raise UserError(f"{strategy.name}.centroids = {strategy.centroids}: at least 1 is needed")
    if not 0 <= strategy.tau < math.inf:
        raise UserError(f"{strategy.name}.tau = {strategy.tau}: 0 (equal weights) or more is needed")


def _check_parts(strategy: Strategy) -> None:
    parent = strategy.built_from
    if parent is not None and (parent.depends_on, strategy.depends_on) != ("nothing", "set"):
        raise UserError(
            f"{strategy.name} is built from {parent.name}: {parent.name}.depends_on must be 'nothing' and "
            f"{strategy.name}.depends_on 'set', not {parent.depends_on!r} and {strategy.depends_on!r}"
        )


def _spec(plan: Plan, weights: str, kind: str, **more: Any) -> dict[str, Any]:
    spec = {"schema": SCHEMA, "kind": kind, "backbone": plan.backbone.name, "weights": weights, **more}
    origin = plan.choice.origin("backbones", plan.backbone.name)
    return spec | ({"backbone_origin": origin} if origin else {})


def _train_nodes(
    plan: Plan, strategy: Strategy, weights: str, order: Sequence[str], seed: int
) -> Iterator[TrainWork]:
    """Yields the train node behind each experience of an order; nodes that orders share are made once.

    Joint learning has one experience, whatever the order. What is built from other nodes comes after these.
    """
    previous: TrainWork | None = None
    parent = strategy.built_from
    parts = [] if parent is None else list(_train_nodes(plan, parent, weights, order, seed))
    joint = strategy.depends_on == "set" and parent is None
    for length in [len(order)] if joint else range(1, len(order) + 1):
        prefix = tuple(order[:length])
        sequence = {"nothing": prefix[-1:], "set": tuple(sorted(prefix)), "prefix": prefix}[
            strategy.depends_on
        ]
        own = tuple(sorted(parts[:length], key=lambda part: part.dataset))
        spec = _spec(
            plan,
            weights,
            "train",
            **({"built_from": [part.node.id for part in own]} if own else {}),
            strategy=strategy.name,
            **_origin(plan, strategy),
            params=named(type(strategy), strategy.experience_params(len(sequence) - 1)),
            training=named(type(plan.config.training), asdict(plan.config.training)),
            seed=seed,
            sequence=[_data(plan, strategy, name) for name in sequence],
        )
        last = f"{length if len(sequence) > 1 else ''}{sequence[-1]}"
        last = f"joint{length}" if joint else f"set{length}" if own else last
        slug = f"{strategy.name.replace(':', '-')}-{plan.backbone.name}-{in_path(last)}"
        node = Node(plan.config.out, "train", slug, spec)
        work = plan.train.get(node.id)
        if work is None:
            after = previous if strategy.depends_on == "prefix" else None
            work = plan.train[node.id] = TrainWork(node, strategy, sequence, seed, after, own)
        previous = work
        yield work


def _origins(plan: Plan, strategy: Strategy, tests: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the versions of all foreign code in a run: numbers of two versions must not be mixed."""
    named = {("strategies", strategy.name), ("backbones", plan.backbone.name)}
    if strategy.built_from is not None:
        named.add(("strategies", strategy.built_from.name))
    named |= {("datasets", name) for name in tests}
    return {f"{k}: {name}": origin for (k, name), origin in plan.choice.origins.items() if (k, name) in named}


def _data(plan: Plan, strategy: Strategy, name: str) -> list[Any]:
    """Returns a dataset's name and fingerprint; of one that is not ours, how it is paired may change too.

    A strategy that learns scenes or distortions depends on these, too.

    Raises:
        UserError: If they are not known.
    """
    origin = plan.choice.origin("datasets", name)
    material = plan.materials[name]
    aspects = material.aspects_digest if strategy.reads_aspects else ""
    if strategy.reads_aspects and not aspects:
        raise unknown_aspects(strategy.name, material.dataset.title)
    return [name, material.fingerprint, *([origin] if origin else []), *([aspects] if aspects else [])]


def _origin(plan: Plan, strategy: Strategy) -> dict[str, Any]:
    """Returns what a node's name says of a strategy that is not ours: another version is trained again."""
    origin = plan.choice.origin("strategies", strategy.name)
    return {"origin": origin} if origin else {}


def _gate_node(plan: Plan, strategy: Strategy, weights: str, dataset: str, seed: int) -> GateWork:
    net = gate_normalisation(plan.backbone, strategy)
    spec = _spec(
        plan,
        weights,
        "gate",
        net=pretraining(DISTORTION_BN[plan.config.preset]) if net == "distortion-bn" else net,
        k=strategy.centroids,
        resize=plan.config.training.resize,
        precision=plan.config.training.precision,
        seed=seed,
        data=[dataset, plan.materials[dataset].fingerprint],
        **({} if strategy.gate_space == "unit" else {"space": strategy.gate_space}),
    )
    node = Node(plan.config.out, "gate", f"{plan.backbone.name}-{in_path(dataset)}", spec)
    return plan.gates.setdefault(
        node.id, GateWork(node, dataset, strategy.centroids, seed, net, strategy.gate_space)
    )


def gate_normalisation(backbone: type[Backbone], strategy: Strategy) -> GateNormalisation:
    """Returns whose normalisation the gate's features have."""
    if backbone.gate_net == "own":
        return "own"  # pre-trained on distortions: there is nothing else to choose
    return "distortion-bn" if strategy.gate_bn == "distortion" else "imagenet"


def _answer_node(
    plan: Plan,
    of: TrainWork | GateWork,
    test: str,
    subset: Subset = "test",
    adapted_by: Strategy | None = None,
) -> AnswerWork:
    """Returns what a node says about a test set; orders share it, and it is named once."""
    about = (of.node.id, test, subset, adapted_by.name if adapted_by else "")
    known = plan.answers_of.get(about)
    if known is not None:
        return known
    material = plan.materials[test]
    reads = isinstance(of, TrainWork) and of.strategy.reads_aspects
    aspects = material.aspects_digest if reads else ""
    spec = {"schema": SCHEMA, "of": of.node.id, "test": [test, material.fingerprint]}
    spec |= {"aspects": aspects} if aspects else {}
    spec |= {} if subset == "test" else {"subset": subset}
    spec |= {"adapted": _adaptation(plan, adapted_by)} if adapted_by else {}
    slug = f"{of.node.id}-on-{in_path(test)}" + ("" if subset == "test" else f"-{subset}")
    if adapted_by:
        slug = f"{adapted_by.name.replace(':', '-')}-{slug}"
    node = Node(plan.config.out, "answers", slug, spec)
    work = plan.answers.setdefault(node.id, AnswerWork(node, of, test, subset, adapted_by))
    return plan.answers_of.setdefault(about, work)


def _adaptation(plan: Plan, strategy: Strategy) -> dict[str, Any]:
    """Returns what a name says of an adaptation: who adapts how, and which test images come together."""
    return {
        "strategy": strategy.name,
        **_origin(plan, strategy),
        "params": named(type(strategy), strategy.adaptation()),
        "batches": [COMPOSITION, strategy.adaptation_batch],
    }


def _validation(
    plan: Plan,
    strategy: Strategy,
    order: Sequence[str],
    steps: Sequence[TrainWork],
    heads: Sequence[Sequence[tuple[str, int]]],
    gates: dict[str, GateWork],
) -> dict[str, dict[str, str]]:
    """Returns the answers to validation images that a strategy's `reading_rules` need: node -> dataset -> id.

    For "tau", every gate's distances to every dataset; for "scores", every head's scores of its own.
    """
    found: dict[str, dict[str, str]] = {}
    if "tau" in strategy.reading_rules:
        for gate in gates.values():
            found[gate.node.id] = {d: _answer_node(plan, gate, d, "val").node.id for d in order}
    if "scores" in strategy.reading_rules:
        works = {w.node.id: w for w in steps}
        for of_step in heads:
            for dataset, (node, _) in zip(order, of_step, strict=False):
                answers = _answer_node(plan, works[node], dataset, "val")
                found.setdefault(node, {})[dataset] = answers.node.id
    return found


def _picture_node(plan: Plan, test: str) -> PictureWork:
    spec = {"schema": SCHEMA, "test": [test, plan.materials[test].fingerprint], "n": N_PICTURES}
    node = Node(plan.config.out, "pictures", in_path(test), spec)
    return plan.pictures.setdefault(node.id, PictureWork(node, test))


def _record(
    plan: Plan,
    strategy: Strategy,
    seed: int,
    label: str,
    order: Sequence[str],
    steps: list[TrainWork],
    gates: dict[str, GateWork],
    facts: dict[str, Any],
) -> RunRecord:
    tests = [*order, *plan.config.test_on]
    nodes: list[TrainWork | GateWork] = [*steps, *gates.values()]
    adapted_by = strategy if strategy.transductive else None
    adapted = {w.node.id: adapted_by for w in steps}  # the gates' features stay as they are
    answers = {
        w.node.id: {
            test: _answer_node(plan, w, test, adapted_by=adapted.get(w.node.id)).node.id for test in tests
        }
        for w in nodes
    }
    trained = strategy.trained_as()
    if trained.single_head:
        heads = [[(w.node.id, 0)] for w in steps]
    elif trained.depends_on == "nothing":
        heads = [[(w.node.id, 0) for w in steps[: t + 1]] for t in range(len(steps))]
    elif strategy.built_from is not None:  # its heads are in the order of the set
        heads = [[(w.node.id, w.sequence.index(d)) for d in order[: t + 1]] for t, w in enumerate(steps)]
    else:
        heads = [[(w.node.id, column) for column in range(t + 1)] for t, w in enumerate(steps)]
    learned = order if len(steps) == len(order) else [w.dataset for w in steps]
    fingerprints = {name: plan.materials[name].fingerprint for name in tests}
    return RunRecord(
        strategy=strategy.name,
        variant=strategy.variant(),
        rows=strategy.table_rows(),
        backbone=plan.backbone.title,
        seed=seed,
        order=label,
        sequence=list(order),
        tests=tests,
        titles={name: plan.materials[name].dataset.title for name in tests},
        steps=[Step(dataset, h) for dataset, h in zip(learned, heads, strict=True)],
        gates={name: gate.node.id for name, gate in gates.items()},
        answers=answers,
        reading=strategy.reading_rules,
        validation=_validation(plan, strategy, order, steps, heads, gates),
        tau=strategy.tau,
        stages=list(strategy.stages or plan.backbone.gate_stages),
        generated=any(plan.materials[name].generated for name in tests),
        facts={
            **facts,
            "fingerprints": fingerprints,
            "generated": [name for name in tests if plan.materials[name].generated],
            "origins": _origins(plan, strategy, tests),
            "cost": {**cost(plan.backbone, strategy, len(steps)), **memory_cost(plan, strategy, order)},
            "pictures": {test: _picture_node(plan, test).node.id for test in tests},
            **({"built_from": [part.node.id for part in steps[-1].parts]} if steps[-1].parts else {}),
            **_one_of_several(plan, tests),
        },
        transductive=strategy.transductive,
        trained_as=trained.name if trained.name != strategy.name else "",
    )


def _one_of_several(plan: Plan, tests: Sequence[str]) -> dict[str, Any]:
    """Returns the fact by which reports know runs on several splits of the same data."""
    config = plan.config
    if not config.splits:
        return {}
    number = int(config.split.rpartition("#")[2])
    data = {name: plan.materials[name].contents for name in tests}
    return {"splits": {"from": config.split_folder, "number": number, "data": data}}
