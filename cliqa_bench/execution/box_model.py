"""The model that the package ships, opened."""

from __future__ import annotations

from cliqa_bench.errors import UserError
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.models.box_config import BOX

SAID = (
    "the model in the box learned from generated distortions and what quality measures say about them, "
    "not from people's opinions; see docs/box.md"
)
"""The note to everyone who uses it."""


def open_box() -> LearnedFile:
    """Opens the model that the package ships.

    Raises:
        UserError: If the package was installed without it.
    """
    if not BOX.is_file():
        raise UserError(f"the model in the box is missing ({BOX}); install cliqa_bench again")
    found = LearnedFile(BOX)
    found.name = "the model in the box"
    return found
