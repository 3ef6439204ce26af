"""One file imports all that we use of Avalanche; if a version lacks a part, this names what breaks.

`tests/matrix.py` runs it on each Python, and with the oldest and the newest versions.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_imports import modules

from cliqa_bench.system.avalanche_import import importing_avalanche

PARTS = "system.avalanche_parts"
OVERRIDDEN = {
    "_after_training_epoch", "_after_training_exp", "_after_training_iteration", "_before_backward",
    "_before_training_epoch", "_unpack_minibatch", "check_model_and_optimizer", "criterion", "forward",
    "make_train_dataloader", "optimizer_step",
}  # fmt: skip
"""Methods of `SupervisedTemplate` that the learner replaces: one of another name would never be called."""
HOOKS = {
    "after_backward", "after_training_epoch", "after_training_exp", "after_training_iteration",
    "after_update", "before_backward", "before_training_epoch", "before_training_exp",
    "before_training_iteration",
}  # fmt: skip
"""What our plug-ins do, by the name under which Avalanche calls it."""


def imports_of(path: Path, top: str) -> Iterator[tuple[str, str]]:
    """Gives module and name of everything that a file imports from a package or module, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == top.partition(".")[0]
        ):
            yield from ((node.module or "", alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == top)


def users() -> dict[str, list[str]]:
    """Returns name of a part -> our modules that import it."""
    found: dict[str, list[str]] = {}
    for module, path in modules().items():
        for where, name in imports_of(path, "cliqa_bench"):
            if where == f"cliqa_bench.{PARTS}":
                found.setdefault(name, []).append(module)
    return found


def missing(parts: set[tuple[str, str]]) -> list[str]:
    """Returns a line for each part that this Avalanche lacks, with our modules that break without it."""
    lines = []
    for module, name in sorted(parts):
        try:
            with importing_avalanche():
                present = hasattr(importlib.import_module(module), name)
        except ImportError:
            present = False
        if not present:
            lines.append(f"{module}.{name}: {', '.join(users().get(name, ['nothing']))}")
    return lines


@pytest.mark.parametrize("name", [name for name in modules() if name != PARTS])
def test_no_other_file_imports_avalanche(name: str) -> None:
    assert not list(imports_of(modules()[name], "avalanche")), f"take it from cliqa_bench.{PARTS}"


def test_every_part_is_there_and_used() -> None:
    parts = set(imports_of(modules()[PARTS], "avalanche"))
    assert len(parts) > 10
    assert missing(parts) == [], "this version of Avalanche breaks these modules"
    assert {name for _, name in parts} == users().keys()


def test_a_part_that_is_not_there_is_named_with_what_breaks() -> None:
    lost = {("avalanche.core", "SupervisedPlugin"), ("avalanche.cores", "SupervisedTemplate")}
    (line,) = missing(lost)
    assert line.startswith("avalanche.cores.SupervisedTemplate: ") and "learning.learner" in line


def test_what_the_learner_replaces_is_what_avalanche_calls() -> None:
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.system.avalanche_parts import SupervisedTemplate

    assert sorted(name for name in OVERRIDDEN if not hasattr(SupervisedTemplate, name)) == []
    ours = {
        name
        for name in vars(Learner)
        if not name.startswith("__") and name not in ("_abc_impl", "_is_protocol")
    }
    assert {name for name in ours if hasattr(SupervisedTemplate, name)} == OVERRIDDEN


def test_what_our_plugins_do_is_what_avalanche_calls() -> None:
    from cliqa_bench.system.avalanche_parts import SupervisedPlugin

    assert sorted(name for name in HOOKS if not hasattr(SupervisedPlugin, name)) == []
    found = set()
    for user in {user for names in users().values() for user in names}:
        module = importlib.import_module(f"cliqa_bench.{user}")
        kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
        for kind in (k for k in kinds if issubclass(k, SupervisedPlugin) and k.__module__ == module.__name__):
            found |= {name for name in vars(kind) if name.startswith(("before_", "after_"))}
    assert found == HOOKS
