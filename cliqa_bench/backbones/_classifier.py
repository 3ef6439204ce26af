"""The classifier in a file of weights: nothing here reads one, so any will do, and none."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cliqa_bench.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


def with_classifier_of(
    model: nn.Module, names: Iterable[str], state: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Puts a network's own classifier in the place of that of a file, so that the rest can be checked whole.

    Args:
        model: The network with its classifier.
        names: Names of the classifier's weights.
        state: What the file holds.
        path: The file; a classifier of another size in it is said to be ignored, once in a process.
    """
    own = model.state_dict()
    wanted = {name: own[name] for name in names}
    if any(name in state and state[name].shape != value.shape for name, value in wanted.items()):
        _say_once(
            f"{path}: its classifier has another number of classes and is ignored; only features are used"
        )
    return {**state, **wanted}


@functools.cache
def _say_once(text: str) -> None:
    say(text)
