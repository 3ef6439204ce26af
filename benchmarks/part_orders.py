"""Orders of parts: transfers to unlabelled blocks, and the distortions of a dataset one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.errors import UserError
from cliqa_bench.part_names import PartName, plain, read_part

PART_WORDS = ("transfers", "transfer:A,B", "distortions:NAME", "distortions-reversed:NAME")
"""What `--orders` knows of parts."""

TRANSFERS = (
    ("live", "csiq"), ("csiq", "live"),
    ("tid2013", "kadid10k"), ("kadid10k", "tid2013"),
    ("clive", "koniq10k"), ("koniq10k", "clive"),
    ("spaq", "flive"), ("flive", "spaq"),
)  # fmt: skip
"""The eight of SS-IQA, labelled to unlabelled."""

BLOCKS = 3
"""Blocks of the unlabelled dataset unless said otherwise (SS-IQA)."""

_ORDER = re.compile(
    r"(transfers)(?:@([0-9]{1,4}))?"
    r"|(transfer)(?:@([0-9]{1,4}))?:(.*)"
    r"|(distortions(?:-reversed)?):(.*)",
    re.IGNORECASE | re.DOTALL,
)

Find = Callable[[str], type[Dataset]]
"""From a dataset's name, in any case, to its class."""


def is_part_order(text: str) -> bool:
    """Tells whether a piece of `--orders` names orders of parts."""
    return _ORDER.fullmatch(text.strip()) is not None


def part_orders(text: str, find: Find) -> dict[str, list[str]]:
    """Reads orders of parts.

    Args:
        text: "transfer:A,B" is A, then three blocks of B without labels, "transfer@4:A,B" four; "transfers"
            the eight of SS-IQA; "distortions:NAME" each distortion of a dataset or each of its groups, and
            "distortions-reversed:NAME" the last first.
        find: Finds a dataset.

    Returns:
        Label -> dataset names.

    Raises:
        UserError: If a dataset is unknown, or has no such parts.
    """
    found = _ORDER.fullmatch(text.strip())
    assert found is not None
    if found[1]:
        blocks = int(found[2] or BLOCKS)
        return dict(_transfer([find(name) for name in pair], blocks) for pair in TRANSFERS)
    if found[3]:
        named = [word.strip() for word in found[5].split(",") if word.strip()]
        if len(named) != 2:
            raise UserError(f"--orders {text}: name two datasets, such as transfer:live,csiq")
        return dict([_transfer([find(name) for name in named], int(found[4] or BLOCKS))])
    if not found[7].strip():
        raise UserError(f"--orders {text}: name a dataset after the colon, as in distortions:csiq")
    return dict([_distortions(find(found[7].strip()), reverse=found[6].lower() != "distortions")])


def _transfer(pair: Sequence[type[Dataset]], blocks: int) -> tuple[str, list[str]]:
    known, new = pair
    part = new.part or PartName(new.name)
    if not (known.labelled and new.labelled and part.blocks == 1):
        raise UserError(
            f"transfer:{known.name},{new.name}: name two datasets, or groups of their images; the transfer "
            "itself makes blocks and hides labels"
        )
    if blocks < 1:
        raise UserError(f"transfer@{blocks}: at least one block is needed")
    asked = "transfer" if blocks == BLOCKS else f"transfer@{blocks}"
    steps = [
        part._replace(block=block, blocks=blocks, unlabelled=True).name for block in range(1, blocks + 1)
    ]
    return f"{asked}:{known.name},{new.name}", [known.name, *steps]


def _distortions(dataset: type[Dataset], reverse: bool) -> tuple[str, list[str]]:
    if read_part(dataset.name) is not None:
        raise UserError(f"distortions:{dataset.name}: name a whole dataset")
    groups = dataset.stream or tuple(map(plain, dataset.distortions))
    if len(groups) < 2:
        raise UserError(
            f"distortions:{dataset.name}: {dataset.title} does not say which distortions it has; name the "
            f"parts, such as {dataset.name}:blur,{dataset.name}:noise"
        )
    names = [PartName(dataset.name, group).name for group in groups]
    return f"distortions{'-reversed' * reverse}:{dataset.name}", names[::-1] if reverse else names
