"""Avalanche's own plug-ins in our `Learner`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cliqa_bench.errors import UserError
from cliqa_bench.seeds import seed_for
from cliqa_bench.system.avalanche_import import importing_avalanche

with importing_avalanche():
    from avalanche.core import SupervisedPlugin
    from avalanche.training import plugins

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner


CANNOT: dict[str, str] = {
    "BiCPlugin": "it corrects the logits of classes",
    "CWRStarPlugin": "it copies the weights of classes in a last linear layer; our heads have none",
    "CoPEPlugin": "it keeps a prototype for every class",
    "FeatureDistillationPlugin": "it distils a network with two parts that Avalanche defines",
    "GenerativeReplayPlugin": "it needs a network that generates images",
    "LFLPlugin": "it needs a network with a method that Avalanche defines (get_features)",
    "LwFPlugin": "its distillation compares probabilities of classes; with one output it is 0. Take the "
    "strategy lwf",
    "RARPlugin": "it attacks the classes that a network tells apart",
    "RWalkPlugin": "it does not know parameters that come with a later experience, as our heads do",
    "SynapticIntelligencePlugin": "on a CPU it compares the weights with themselves and does nothing. "
    "Take cliqa_bench.learning.avalanche_plugins.SynapticIntelligencePlugin, which mends that, or the "
    "strategy si",
}
"""Plug-ins of avalanche-lib 0.6.0 that do nothing or fail on scores of images -> why, and what to take."""


def refuse_plugins(given: Iterable[object]) -> None:
    """Refuses plug-ins of Avalanche that cannot do their job in the learner.

    Args:
        given: Plug-ins, or what is wrapped around one.

    Raises:
        UserError: Names the plug-in, the reason, and what to take instead where there is something.
    """
    for plugin in given:
        cls = type(getattr(plugin, "plugin", plugin))
        if cls.__module__.startswith("avalanche.") and cls.__name__ in CANNOT:
            raise UserError(
                f"Avalanche's {cls.__name__} cannot learn scores of images: {CANNOT[cls.__name__]}"
            )


def plugin_class(name: str) -> type[SupervisedPlugin]:
    """Returns a plug-in's class by its name in Avalanche: the one of this module, else Avalanche's."""
    found: type[SupervisedPlugin] = globals().get(name) or getattr(plugins, name)
    return found


class SynapticIntelligencePlugin(plugins.SynapticIntelligencePlugin):
    """Avalanche's, with weights copied where it means to, and the path of the weights that stay.

    On a CPU, what it keeps as the weights before a step and at the start of an experience are views of the
    weights themselves (avalanche-lib 0.6.0, `extract_weights`): they never differ from them, every importance
    is 0 and so is the penalty. And since the best epoch's weights come back in the end, what later epochs
    added to the path is taken back, too.
    """

    def before_training_exp(self, strategy: Learner, **kwargs: Any) -> None:
        """Copies the weights at the start of the experience."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])
        self._path = self._trajectory()

    def before_training_iteration(self, strategy: Learner, **kwargs: Any) -> None:
        """Copies the weights before the step."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])

    def after_training_epoch(self, strategy: Learner, **kwargs: Any) -> None:
        """Keeps the path of the best epoch so far."""
        super().after_training_epoch(strategy, **kwargs)
        if strategy.best_epoch == strategy.epoch:
            self._path = self._trajectory()

    def after_training_exp(self, strategy: Learner, **kwargs: Any) -> None:
        """Consolidates the path of the weights that stay."""
        for name, path in self._path.items():
            self.syn_data["trajectory"][name].data = path
        super().after_training_exp(strategy, **kwargs)

    def _trajectory(self) -> dict[str, torch.Tensor]:
        return {name: kept.data.clone() for name, kept in self.syn_data["trajectory"].items()}


def _copy(weights: dict[str, Any]) -> None:
    for kept in weights.values():
        kept.data = kept.data.clone()


class AfterWarmUp:
    """Lets an Avalanche plug-in see of every experience what comes after the warm-up.

    In the warm-up a new head finds its place and nothing else learns. A plug-in would take that for the
    learning of the experience, and `SynapticIntelligencePlugin` would not know what learns later. So
    `before_training_exp` comes with the first epoch after the warm-up (where there is none, at the end), and
    nothing that happens in the epochs before is passed on.

    Where plug-ins draw random numbers they use the global generators; these are seeded anew for every
    experience, from names, so that a run that trains an experience again gets the same bits.

    Args:
        plugin: The plug-in.
    """

    def __init__(self, plugin: SupervisedPlugin) -> None:
        self.plugin = plugin
        self._begun = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Passes on whatever else Avalanche calls, unless it belongs to the warm-up."""
        if not name.startswith(("before_", "after_")):
            raise AttributeError(name)

        def passed_on(learner: Learner, **kwargs: Any) -> None:
            if not learner.warming_up:
                getattr(self.plugin, name)(learner, **kwargs)

        return passed_on

    def before_training_exp(self, learner: Learner, **kwargs: Any) -> None:
        """Waits for the end of the warm-up."""
        self._begun = False

    def before_training_epoch(self, learner: Learner, **kwargs: Any) -> None:
        """Begins with the first epoch after the warm-up."""
        if not learner.warming_up:
            self._begin(learner, **kwargs)
            self.plugin.before_training_epoch(learner, **kwargs)

    def after_training_exp(self, learner: Learner, **kwargs: Any) -> None:
        """Lets the plug-in consolidate what was learned; the best weights are back by then."""
        self._begin(learner, **kwargs)
        # ReplayPlugin calls what Avalanche deprecates, and says so whatever the filters are
        with warnings.catch_warnings(record=True) as said:
            self.plugin.after_training_exp(learner, **kwargs)
        for warning in said:
            if not issubclass(warning.category, DeprecationWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _begin(self, learner: Learner, **kwargs: Any) -> None:
        if not self._begun:
            self._begun = True
            names = [source.name for source in learner.sources]
            seed = seed_for("plug-in", type(self.plugin).__name__, *names, learner.seed)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            self.plugin.before_training_exp(learner, **kwargs)
