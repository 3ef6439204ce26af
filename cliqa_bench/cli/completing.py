"""What a shell needs to complete commands, flags and the names that they take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from jsonargparse import ArgumentParser

from cliqa_bench.cli.data_commands import Add
from cliqa_bench.config import PRESETS
from cliqa_bench.errors import UserError, unknown
from cliqa_bench.extensions import registry

SHELLS = ("bash", "zsh", "tcsh")
SUMMARY = "write the script by which a shell completes commands, flags and names"

NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "strategy": lambda: registry.names("strategies"),
    "backbone": lambda: registry.names("backbones"),
    "test_on": lambda: registry.names("datasets"),
    "orders": lambda: [*_orders(), "all", "every", "williams"],
    "preset": lambda: PRESETS,
    "precision": lambda: ("fp32", "bf16", "auto"),
    "progress": lambda: ("auto", "plain", "json", "none"),
    "executor": lambda: ("local", "slurm", "dask"),
    "device": lambda: ("auto", "cpu", "cuda"),
}
"""Destination of a flag -> the values that are offered. More is allowed: paths, lists, your own names."""


def _orders() -> Iterable[str]:
    from cliqa_bench.order_designs import ORDERS  # numpy with it, which help need not wait for

    return ORDERS


def arguments(add: Add) -> None:
    """Adds the arguments of the command `completion`."""
    add("shell", type=str, help="bash, zsh or tcsh")


def script(shell: str, parser: ArgumentParser, leaves: Iterable[ArgumentParser]) -> str:
    """Returns the completion script for a shell.

    Args:
        shell: One of `SHELLS`.
        parser: The parser of all commands.
        leaves: The parser of each command.

    Raises:
        UserError: If the shell is another one, or `shtab`, which writes the script, is not installed.
    """
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    try:
        import shtab
    except ImportError:
        raise UserError('completion needs shtab: pip install "cliqa_bench[completion]"') from None

    files = {"DIR": shtab.DIRECTORY, "N|DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "FILES": shtab.FILE}
    for leaf in leaves:
        for action in leaf._actions:
            _hint(action, files)
    return str(shtab.complete(parser, shell))


def _hint(action: argparse.Action, files: dict[str, Any]) -> None:
    """Gives an argument the values, or the kind of path, that it is completed with."""
    if action.dest in NAMES:
        action.choices = tuple(NAMES[action.dest]())
    elif isinstance(action.metavar, str) and action.metavar in files:
        action.complete = files[action.metavar]  # type: ignore[attr-defined]
