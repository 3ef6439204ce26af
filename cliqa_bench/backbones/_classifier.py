"""The classifier in a file of weights is never used: it may be missing or of any size."""

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
    """Replaces the classifier of a file by the network's own; all other weights can then be checked strictly.

    Args:
        model: The network with its classifier.
        names: Names of the classifier's weights.
        state: What the file holds.
        path: The file. If its classifier has another size, a line says once that it is ignored.
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
