"""Strategies that cannot be resumed from files: which learner is kept, and what is trained again."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from cliqa_bench.execution.retrained_prefix import LivePrefix


class Trained:
    """Stands in for the learner; records what it learned and which progress it reported."""

    def __init__(self, work: Any) -> None:
        self.of = work.node.id
        self.learned: list[str] = []
        self.reported: list[str] = []
        self.tick: Any = lambda images, text, part: self.reported.append(part)


def learn(learner: Any, work: Any) -> None:
    learner.tick(1, "", work.dataset)
    learner.learned.append(work.dataset)


def chain(*datasets: str) -> list[Any]:
    """Returns the works of a sequence, each after the one before it."""
    works: list[Any] = []
    for end in range(1, len(datasets) + 1):
        name = ",".join(datasets[:end])
        works.append(
            SimpleNamespace(
                node=SimpleNamespace(id=name), dataset=datasets[end - 1],
                strategy=SimpleNamespace(name="own"), previous=works[-1] if works else None,
            )
        )  # fmt: skip
    return works


def prefix(lines: list[str]) -> LivePrefix:
    return LivePrefix(Trained, learn, lines.append)  # type: ignore[arg-type]


def test_the_previous_experience_s_learner_is_kept():
    lines: list[str] = []
    kept, works = prefix(lines), chain("live", "csiq", "bid")
    learner: Any = kept.before(works[0])
    learn(learner, works[0])
    for before, work in pairwise(works):
        kept.keep(before, learner)
        assert kept.before(work) is learner
        learn(learner, work)
    assert learner.learned == learner.reported == ["live", "csiq", "bid"] and not lines


def test_what_is_not_kept_is_learned_again_in_order_without_progress():
    lines: list[str] = []
    kept, works = prefix(lines), chain("live", "csiq", "bid", "clive")
    learner: Any = kept.before(works[3])
    assert learner.of == "live" and learner.learned == ["live", "csiq", "bid"] and not learner.reported
    assert lines == ["own: learning live, csiq, bid again, because no file holds what it has learned"]
    learn(learner, works[3])
    assert learner.reported == ["clive"], "the new experience reports progress again"


def test_only_what_is_missing_is_learned_again():
    kept, works = prefix([]), chain("live", "csiq", "bid", "clive")
    learner: Any = Trained(works[0])
    learn(learner, works[0])
    kept.keep(works[0], learner)
    assert kept.before(works[3]) is learner and learner.learned == ["live", "csiq", "bid"]


def test_a_learner_serves_one_successor_and_no_stranger():
    works, other = chain("live", "csiq"), chain("bid", "csiq")
    for asked, expected in ((works[1], ["live"]), (other[1], ["bid"]), (other[0], [])):
        kept = prefix([])
        learner: Any = Trained(works[0])
        learn(learner, works[0])
        kept.keep(works[0], learner)
        first: Any = kept.before(asked)
        assert (first is learner) == (asked is works[1]) and first.learned == expected
        again: Any = kept.before(works[1])
        assert again is not learner and again.learned == ["live"]
