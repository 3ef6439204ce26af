"""Strategies whose state cannot be passed on through files: their prefixes are trained in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliqa_bench.execution.plan import TrainWork
    from cliqa_bench.learning.learner import Learner


class LivePrefix:
    """Keeps the learner of the experience trained last, and makes that of any other by training again.

    One is kept, and only for the node that follows: a plug-in's objects change as it learns, so a node with
    two successors serves one of them. Training again gives the same bits on a CPU.

    Args:
        new: Makes the learner of a node without a predecessor.
        train: Lets a learner learn the experience of a node.
        say: Told when experiences are trained again.
    """

    def __init__(
        self,
        new: Callable[[TrainWork], Learner],
        train: Callable[[Learner, TrainWork], None],
        say: Callable[[str], object],
    ) -> None:
        self._new, self._train, self._say = new, train, say
        self._kept: tuple[str, Learner] | None = None

    def keep(self, work: TrainWork, learner: Learner) -> None:
        """Keeps a learner that has just learned the experience of a node."""
        self._kept = work.node.id, learner

    def before(self, work: TrainWork) -> Learner:
        """Returns a learner that has learned the whole sequence before a node; reports no progress."""
        (kept, learner), self._kept = self._kept or ("", None), None
        again: list[TrainWork] = []
        first = work
        while first.previous is not None and first.previous.node.id != kept:
            first = first.previous
            again.append(first)
        if learner is None or first.previous is None:
            learner = self._new(first)
        if again:
            names = ", ".join(w.dataset for w in reversed(again))
            self._say(
                f"{work.strategy.name}: learning {names} again, because no file holds what it has learned"
            )
        tick, learner.tick = learner.tick, _silent
        for earlier in reversed(again):
            self._train(learner, earlier)
        learner.tick = tick
        return learner


def _silent(images: int, text: str, part: str) -> None:
    pass
