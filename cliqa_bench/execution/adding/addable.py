"""Which models can learn one more dataset without changing what they know."""

from __future__ import annotations

from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import Learned
from cliqa_bench.settings.choice import load_strategy, refuse_foreign_code


def check_addable(learned: Learned) -> None:
    """Makes sure that a model can learn a further task and stay as it is.

    Args:
        learned: The model.

    Raises:
        UserError: If a further task would change the others, if its score is not a mixture of all heads, or
            if the strategy is not one of this package.
    """
    facts = learned.facts
    refuse_foreign_code(f"{learned.name} cannot take a further dataset", facts.backbone, facts.strategy)
    strategy = load_strategy(facts.strategy, facts.params).trained_as()
    if strategy.depends_on != "nothing":
        raise UserError(
            f"{learned.name} cannot take a further dataset: each training of {facts.strategy} builds on "
            "those before it, so its heads are not independent; 'add' works for tsn, whose tasks do not "
            "depend on earlier ones"
        )
    refuse_other_readouts(learned, "cannot take a further dataset")


def refuse_other_readouts(learned: Learned, what: str) -> None:
    """Refuses a model whose score is not a mixture of heads of the tasks' own.

    Args:
        learned: The model.
        what: What it cannot have done to it, for the message.

    Raises:
        UserError: If it is read without a gate, or tasks share a training.
    """
    facts = learned.facts
    if facts.readout != "gate":
        which = "one merged head" if facts.readout == "merged" else "its newest head"
        raise UserError(
            f"{learned.name} {what}: its score comes from {which}, not from a gate over all heads; "
            "use a model of tsn"
        )
    own = len(learned.nodes) == len(facts.heads) == len(facts.sequence)
    if not own or any(column for _, column in facts.heads):
        raise UserError(f"{learned.name} {what}: its tasks share one network; use a model of tsn")
