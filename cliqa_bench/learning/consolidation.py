"""What plug-ins may do after an experience: look at what was learned, but not change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliqa_bench.errors import join_names
from cliqa_bench.progress import warn

if TYPE_CHECKING:
    from cliqa_bench.learning.learner import Learner


def consolidate(learner: Learner, **kwargs: Any) -> None:
    """Calls every plug-in's `after_training_exp`, and restores, with a warning, what one of them changes.

    Avalanche's MASPlugin, for one, passes the data through the network in training mode: the running
    statistics of normalisation move, and what is left is not what was validated.

    Args:
        learner: With the weights that stay, in evaluation mode, in which it is left.
        **kwargs: Passed on.
    """
    model = learner.model
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for plugin in learner.plugins:
        hook = getattr(plugin, "after_training_exp", None)
        if hook is None:
            continue
        hook(learner, **kwargs)
        model.eval()  # one that measures something may leave it in training mode
        if moved := _moved(model.state_dict(), kept):
            model.load_state_dict(kept)
            warn(
                f"{_title(plugin)} changed {len(moved)} tensors of the model after its best epoch was chosen "
                f"({join_names(moved[:3])}{', ...' if moved[3:] else ''}); they were restored"
            )


def _moved(now: dict[str, Tensor], before: dict[str, Tensor]) -> list[str]:
    """Returns the tensors that have other bits, or other values where they are NaN."""
    return [name for name, tensor in now.items() if not torch.equal(tensor, before[name])]


def _title(plugin: Any) -> str:
    """Returns the name of a plug-in's class, of the one that is wrapped where one is."""
    return type(getattr(plugin, "plugin", plugin)).__name__
