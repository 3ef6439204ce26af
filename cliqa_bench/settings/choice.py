"""The names of a configuration, resolved once: classes, and what identifies their versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.settings.resolve import include, recall_tables, typed_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.strategies.base import Strategy

CodeOrigin = dict[str, str]
"""Version of code that is not ours, see `registry.origin`."""


@dataclass(frozen=True)
class Choice:
    """What a configuration names, loaded.

    Attributes:
        config: The configuration.
        backbone: The backbone.
        weights: Which weights it starts from, see `Backbone.weights_id`.
        strategies: The strategies, with their hyper-parameters.
        origins: (kind, name) -> version, of whatever in it is not ours.
        code: Hash of our own sources, for facts.
    """

    config: RunConfig
    backbone: type[Backbone]
    weights: str
    strategies: tuple[Strategy, ...]
    origins: Mapping[tuple[registry.PluginKind, str], CodeOrigin]
    code: str

    def origin(self, kind: registry.PluginKind, name: str) -> CodeOrigin | None:
        """Returns the version of something named; None for our own."""
        return self.origins.get((kind, name))


def choose(config: RunConfig) -> Choice:
    """Loads what a configuration names, here, in this process.

    Raises:
        UserError: If a name is unknown, a hyper-parameter is out of range, or weights are missing.
    """
    include(config.include)  # in a process of its own, nothing is included yet
    recall_tables(config.tables)
    backbone = load_backbone(config.backbone)
    strategies = tuple(load_strategy(name, config.params.get(name, {})) for name in config.strategy)
    datasets = {name for order in config.orders.values() for name in order} | set(config.test_on)
    named: list[tuple[registry.PluginKind, str]] = [("backbones", config.backbone)]
    named += [("strategies", s.trained_as().name) for s in strategies]
    named += [("strategies", name) for name in config.strategy]
    named += [("strategies", one.built_from.name) for one in strategies if one.built_from is not None]
    named += [("datasets", name) for name in sorted(datasets)]
    origins = {(kind, name): registry.origin(kind, name) for kind, name in named}
    known = {key: origin for key, origin in origins.items() if origin}
    weights, code = backbone.weights_id(config.weights), own_code()
    return Choice(config, backbone, weights, strategies, known, code)


def own_code() -> str:
    """Returns a hash of our own sources, see `Choice.code`."""
    return registry.code_digest()


def load_backbone(name: str) -> type[Backbone]:
    """Loads a backbone by its name."""
    return cast("type[Backbone]", registry.load("backbones", name))


def load_strategy(name: str, params: Mapping[str, Any]) -> Strategy:
    """Makes a strategy from its name and its hyper-parameters, as `config.yaml` has them.

    Raises:
        UserError: If a hyper-parameter is unknown, of another type or out of range.
    """
    cls = cast("type[Strategy]", registry.load("strategies", name))
    cls.check_declared()
    return cls(**typed_fields(cls, params, name))


def refuse_foreign_code(what: str, backbone: str, strategy: str | None) -> None:
    """Refuses names that stand for code which is neither this package's nor timm's; nothing is imported.

    Args:
        what: What is refused, the beginning of the message.
        backbone: Name of a backbone.
        strategy: Name of a strategy; None for none.

    Raises:
        UserError: Names the first.
    """
    timm = re.fullmatch(r"timm:[\w.]+", backbone)  # no model of a hub, no path
    named: list[tuple[registry.PluginKind, str, str]] = [] if timm else [("backbones", "backbone", backbone)]
    named += [] if strategy is None else [("strategies", "strategy", strategy)]
    for kind, noun, name in named:
        if not registry.is_ours(kind, name):
            raise UserError(
                f"{what}: its {noun} {name:.200} is not part of this package, and a file of weights must not "
                "contain code; score with the folder of its run"
            )
