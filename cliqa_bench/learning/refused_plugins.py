"""Plug-ins of Avalanche that cannot do their job on scores of images, and why; imports no Avalanche."""

from __future__ import annotations

from collections.abc import Iterable

from cliqa_bench.errors import UserError

OURS = "cliqa_bench.learning.avalanche_plugins"
"""Where the fixed versions of Avalanche's plug-ins are."""

_CLASS_MEANS = "it keeps the mean features of every class"

CANNOT: dict[str, str] = {
    "AGEMPlugin": "it compares images of different datasets, all under the newest head, and lets their "
    f"statistics move. Use {OURS}.AGEMPlugin",
    "BiCPlugin": "it corrects the logits of classes",
    "CWRStarPlugin": "it copies the weights of classes in a last linear layer; our heads have none",
    "CoPEPlugin": "it keeps a prototype for every class",
    "CurrentDataFeCAMUpdate": _CLASS_MEANS,
    "CurrentDataNCMUpdate": _CLASS_MEANS,
    "EarlyStoppingPlugin": "it waits for an evaluation during training, which the learner does not make, and "
    f"never stops. Use {OURS}.EarlyStoppingPlugin",
    "FeCAMOracle": _CLASS_MEANS,
    "FeatureDistillationPlugin": "it distils a network with two parts that Avalanche defines",
    "GDumbPlugin": "it puts its memory in the place of the training data, which the learner reads without it",
    "GEMPlugin": "it scores the images of earlier datasets with the newest head, and needs the package "
    f"quadprog. Use {OURS}.GEMPlugin",
    "GSS_greedyPlugin": "it keeps scores as whole numbers, and takes gradients of single images, where we "
    "learn from pairs",
    "GenerativeReplayPlugin": "it needs a network that generates images",
    "LFLPlugin": "it needs a network with a method that Avalanche defines (get_features)",
    "LRSchedulerPlugin": "the learner has a new optimiser for every experience and sets the rate of every "
    "epoch. Use training.decay_epochs",
    "LwFPlugin": "its distillation compares probabilities of classes; with one output it is 0. Use the "
    "strategy lwf",
    "MIRPlugin": "it needs the loss of every single image, where we learn from pairs",
    "MemoryFeCAMUpdate": _CLASS_MEANS,
    "MemoryNCMUpdate": _CLASS_MEANS,
    "NCMOracle": _CLASS_MEANS,
    "RARPlugin": "it attacks the classes that a network tells apart",
    "RWalkPlugin": "it does not know parameters that come with a later experience, as our heads do",
    "SynapticIntelligencePlugin": "on a CPU it compares the weights with themselves and does nothing. "
    f"Use {OURS}.SynapticIntelligencePlugin, which fixes that, or the strategy si",
    "TrainGeneratorAfterExpPlugin": "it trains the generator of GenerativeReplayPlugin, and nothing else",
}
"""Plug-ins of avalanche-lib 0.6.0 that fail, or do nothing or something else on scores of images -> why, and
what to take."""


def refusal(name: str) -> UserError:
    """Returns the error that refuses a plug-in.

    Args:
        name: One of `CANNOT`.
    """
    return UserError(f"Avalanche's {name} cannot learn scores of images: {CANNOT[name]}")


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
            raise refusal(cls.__name__)
