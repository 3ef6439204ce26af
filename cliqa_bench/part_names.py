"""How a part of a dataset is written: `csiq:common`, `csiq@1/3`, `csiq:common@1/3?unlabelled`."""

from __future__ import annotations

import re
from typing import NamedTuple

from cliqa_bench.errors import UserError

UNLABELLED = "?unlabelled"
MOST_BLOCKS = 1000


class PartName(NamedTuple):
    """Which part of which dataset.

    Attributes:
        base: The whole dataset's name.
        group: One of its distortions, or a named group of them, as `plain` writes it; "" for all.
        block: Number of the block of its training and validation contents, from 1.
        blocks: Number of blocks; 1 for the whole.
        unlabelled: Whether the opinion scores of its training and validation images are hidden.
    """

    base: str
    group: str = ""
    block: int = 1
    blocks: int = 1
    unlabelled: bool = False

    @property
    def name(self) -> str:
        """The name that the part goes by; the base's own if it is the whole."""
        group = f":{self.group}" if self.group else ""
        block = f"@{self.block}/{self.blocks}" if self.blocks > 1 else ""
        return f"{self.base}{group}{block}{UNLABELLED if self.unlabelled else ''}"


def plain(words: str) -> str:
    """Returns a distortion's name as it is written after a colon.

    Example:
        >>> plain("jpeg 2000"), plain("White noise")
        ('jpeg-2000', 'white-noise')
    """
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def read_part(word: str, families: tuple[str, ...] = ()) -> PartName | None:
    """Reads the name of a part; None for the name of a whole dataset.

    Args:
        word: The name.
        families: Prefixes ("csv") after which a colon is part of the dataset's own name.

    Raises:
        UserError: If it is a part, but no such block or group can be.
    """
    text = word.removesuffix(UNLABELLED)
    unlabelled, of_family = text != word, text.partition(":")[0] in families
    text, at, block = _at_block(word, text, of_family)
    base, colon, group = (text, "", "") if of_family else _at_colon(text)
    if colon and not plain(group):
        raise UserError(f"{word!r}: the colon names no group; write {base}:blur, or {base} for all of it")
    if not (unlabelled or at or colon):
        return None
    return PartName(base, plain(group), *block, unlabelled)


def _at_colon(text: str) -> tuple[str, str, str]:
    """Splits "csiq:blur"; a colon in the path of a Python file does not count."""
    file, end, rest = text.rpartition(".py")
    if end and rest[:1] in ("", ":"):
        return file + end, rest[:1], rest[1:]
    return text.partition(":")


def _at_block(word: str, text: str, of_family: bool) -> tuple[str, bool, tuple[int, int]]:
    """Splits "csiq@1/3" into "csiq", whether there is a block, and (1, 3)."""
    before, at, after = text.rpartition("@")
    numbers = re.fullmatch("([0-9]{1,4})/([0-9]{1,4})", after) if at else None
    if not at or (numbers is None and (of_family or ".py" in after)):  # a path may hold an @
        return text, False, (1, 1)
    if not before or numbers is None:
        raise UserError(f"{word!r} is not a block of a dataset; write the first of three as csiq@1/3")
    block, blocks = int(numbers[1]), int(numbers[2])
    if not 1 <= block <= blocks <= MOST_BLOCKS:
        raise UserError(f"{word!r}: there is no block {block} of {blocks}; blocks are numbered from 1")
    return before, True, (block, blocks)


def base_of(name: str) -> str:
    """Returns the name of the whole dataset of a name that is known to exist."""
    part = read_part(name)
    return part.base if part else name


def is_unlabelled(name: str) -> bool:
    """Tells whether a name is that of a part whose opinion scores are hidden."""
    return name.endswith(UNLABELLED)


def in_path(name: str) -> str:
    """Returns a name, or an order's label, as a piece of a file's name."""
    return re.sub(r"[:@/?,]", "-", name)
