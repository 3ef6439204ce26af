"""Avalanche's own: Naive, Cumulative, JointTraining, {EWC,SynapticIntelligence,MAS,Replay,AGEM,GEM}Plugin.

`avalanche:EWCPlugin` is the plug-in itself in our `Learner`, with the arguments of its constructor as
hyper-parameters: the same model with a head per task, the same two stages, the fidelity loss on pairs. What a
plug-in learns lives in Python objects, so such a strategy is not resumable.

- EWCPlugin squares the gradient of a whole mini-batch's loss, in evaluation mode, where heads have unit
  length (our `ewc`: of single pairs, with the length that heads have in training).
- SynapticIntelligencePlugin leaves BatchNorm's parameters out, counts the new head in, and clips importances
  at 0.001 (our `si` does none of it). A fault that makes it do nothing on a CPU is fixed.
- AGEMPlugin and GEMPlugin project the gradient of a mini-batch so that it does not go against those of a
  memory: `patterns_per_experience` images of each earlier dataset, with all pairs inside a dataset. Mended:
  the images of a memory are scored by the head of their dataset.
- MASPlugin measures importances in training mode, on statistics of mini-batches; the learner puts back what
  that moves, and says so. Its penalty holds earlier heads, too.
- ReplayPlugin replaces the mini-batches after the warm-up by Avalanche's: `batch_size` images of the new
  dataset and `batch_size_mem` of earlier ones, with all pairs inside a dataset, whatever `training.pairs`
  says. The memory is a random choice of images, an equal share of each dataset.

Avalanche's three templates differ from a bare training loop in nothing but the experiences they train on, and
that is what is taken over: Naive is our `naive`; Cumulative learns all datasets so far, each with its own
head; JointTraining is our `jl`. Avalanche's other strategies are made for class labels.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from cliqa_bench import errors
from cliqa_bench.learning.refused_plugins import CANNOT, refusal
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.types import Dependence

if TYPE_CHECKING:
    from torch import nn

    from cliqa_bench.models.quality import QualityModel
    from cliqa_bench.system.avalanche_parts import SupervisedPlugin

AVALANCHE = "V. Lomonaco et al.: Avalanche: an end-to-end library for continual learning. CVPR Workshops 2021"


def _rows(name: str) -> dict[str, str]:
    return {
        "last": f"{name} (Avalanche)",
        "gate": f"{name}-KG (Avalanche)",
        "oracle": f"{name}-O (Avalanche)",
    }


@dataclass
class Naive(Strategy):
    """One dataset after the other, with nothing against forgetting."""

    rows: ClassVar[dict[str, str]] = _rows("Naive")
    citation: ClassVar[str | tuple[str, ...]] = AVALANCHE


@dataclass
class AllHeads(Strategy):
    """Earlier datasets are seen again: every head has a loss, and learns."""

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the new head; after the warm-up the backbone and all heads."""
        return super().trainable(model, task, warmup) if warmup else model.learnable_parameters()


@dataclass
class Cumulative(AllHeads):
    """All datasets so far are learned together, each time from where the last experience ended."""

    cumulative: ClassVar[bool] = True
    rows: ClassVar[dict[str, str]] = _rows("Cumulative")
    citation: ClassVar[str | tuple[str, ...]] = AVALANCHE

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again: all."""
        return sys.maxsize


@dataclass
class JointTraining(Strategy):
    """All datasets of an order are learned at once, with one head."""

    rows: ClassVar[dict[str, str]] = {"last": "JointTraining (Avalanche)"}
    citation: ClassVar[str | tuple[str, ...]] = AVALANCHE

    @property
    def depends_on(self) -> Dependence:
        """The set of datasets."""
        return "set"

    @property
    def single_head(self) -> bool:
        """Whether all tasks share one head: there is one task."""
        return True


@dataclass
class Plugin(Strategy):
    """What the classes of Avalanche's plug-ins share; `find` makes one per plug-in.

    Class attributes:
        plugin: The plug-in's class.
        arguments: Arguments of its constructor that are hyper-parameters.
    """

    resumable: ClassVar[bool] = False
    citation: ClassVar[str | tuple[str, ...]] = AVALANCHE
    plugin: ClassVar[type[Any]]
    arguments: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If the plug-in does not take them.
        """
        super().__post_init__()
        self.new_plugin()

    def new_plugin(self) -> SupervisedPlugin:
        """Makes an Avalanche plug-in that has learned nothing yet.

        Raises:
            UserError: If it does not take the hyper-parameters.
        """
        try:
            return self.plugin(**{name: getattr(self, name) for name in self.arguments})
        except (AssertionError, TypeError, ValueError) as error:
            raise errors.UserError(f"{self.name} does not take its arguments: {error}") from error

    def as_plugin(self) -> SupervisedPlugin:
        """Returns a new plug-in, which sees what comes after the warm-up."""
        from cliqa_bench.learning.avalanche_plugins import AfterWarmUp

        return AfterWarmUp(self.new_plugin())


@dataclass
class ReplayingPlugin(Plugin, AllHeads):
    """A plug-in with a memory of `mem_size` images."""

    mem_size: ClassVar[int]

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        self.require("mem_size", least=2, why=" (a pair)")
        super().__post_init__()

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again."""
        return self.mem_size


@dataclass
class RememberingPlugin(Plugin):
    """A plug-in with a memory of `patterns_per_experience` images of every experience."""

    @property
    def memory_size(self) -> int:
        """Most training images of earlier experiences that it may see again: it grows with every one."""
        return sys.maxsize


TEMPLATES: dict[str, type[Strategy]] = {c.__name__: c for c in (Naive, Cumulative, JointTraining)}
PLUGINS: dict[str, type[Plugin]] = {
    "EWCPlugin": Plugin,
    "SynapticIntelligencePlugin": Plugin,
    "MASPlugin": Plugin,
    "ReplayPlugin": ReplayingPlugin,
    "AGEMPlugin": RememberingPlugin,
    "GEMPlugin": RememberingPlugin,
}
"""Plug-ins that do their job on scores of images; there is a test of each."""


@functools.cache
def find(name: str) -> type[Strategy]:
    """Returns the class of one of Avalanche's strategies; those of plug-ins are made from their constructors.

    Args:
        name: The class in Avalanche: "EWCPlugin".

    Raises:
        UserError: If there is no such strategy, or it is not one for scores of images.
    """
    if name in TEMPLATES:
        made = TEMPLATES[name]
    elif name in PLUGINS:
        made = _from_plugin(name, PLUGINS[name])
    elif known := [n for n in (name, f"{name}Plugin") if n in CANNOT and n not in PLUGINS]:
        raise refusal(known[0])
    else:
        raise errors.unknown("strategy of Avalanche", name, [*TEMPLATES, *PLUGINS])
    made.name = f"avalanche:{name}"
    return made


def _from_plugin(name: str, base: type[Plugin]) -> type[Strategy]:
    from cliqa_bench.learning.avalanche_plugins import plugin_class

    plugin = plugin_class(name)
    hints = typing.get_type_hints(plugin.__init__)
    made_fields = []
    for key, parameter in inspect.signature(plugin).parameters.items():
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        kind = plain_type(hints.get(key, Any), default)
        if kind is not None:  # what is not a number, word or list of them keeps its default
            made_fields.append((key, kind, field(default=default)))
    shared = {"plugin": plugin, "arguments": tuple(key for key, *_ in made_fields), "rows": _rows(name)}
    made = make_dataclass(name, made_fields, bases=(base,), namespace=shared, kw_only=True)
    made.__doc__ = inspect.getdoc(plugin)
    return cast("type[Strategy]", made)


def plain_type(annotation: Any, default: Any = MISSING) -> Any:
    """Returns the type of a hyper-parameter that stands for an argument of a constructor.

    Args:
        annotation: The argument's. `Any` where it has none: then it is of its default's type, and a number
            where that does not say.
        default: The argument's default, `MISSING` where it has none.

    Returns:
        Numbers, words, truth values, None and tuples of them, or several of these; None where nothing of the
        annotation can be written in a YAML file.

    Example:
        >>> plain_type(float | Sequence[float])
        float | tuple[float, ...]
    """
    if annotation is Any:
        return float | None if default is None else float if default is MISSING else type(default)
    if annotation in (int, float, bool, str):
        return annotation
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        nothing = type(None)
        known = [kind for kind in (plain_type(a) for a in inner if a is not nothing) if kind]
        return (
            functools.reduce(operator.or_, [*known, nothing] if nothing in inner else known)
            if known
            else None
        )
    if origin is not None and issubclass(origin, Sequence) and plain_type(inner[0]):
        return tuple[plain_type(inner[0]), ...]  # type: ignore[misc]
    return None
