"""Checks a YAML file before its values are made: what is refused here never becomes an object."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliqa_bench.errors import UserError, refuse

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 18
"""Size of the largest configuration that is read, 256 KB."""

MAX_DEPTH = 20
"""How deep lists and mappings may be nested; a configuration needs three levels."""


def check_yaml(path: Path) -> None:
    """Refuses what a configuration has no use for, and what could mislead a YAML parser.

    Tags (`!!python/...`) name types, anchors and aliases let a small file stand for a huge one, and of a key
    that is there twice only one would count.

    Args:
        path: The file; a missing one is left to the code that reads it.

    Raises:
        UserError: If it is too large, not YAML, too deep, or holds a tag, an anchor or a key twice; tells of
            all these, by line.
    """
    import yaml

    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(data) > MAX_BYTES:
        raise UserError(
            f"{path} has more than {MAX_BYTES >> 10} KB; a configuration is a page of keys and values"
        )
    try:
        faults = _of_events(path, data)
        refuse(faults)
        _require_keys_once(path, yaml.compose(data, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise UserError(
            f"{path} is not a YAML file of keys and values: {' '.join(str(error).split())}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error.reason}); save it as UTF-8") from error


def _of_events(path: Path, data: bytes) -> list[UserError]:
    """Walks through the file without building anything of it."""
    import yaml

    faults, depth = [], 0
    event: Any
    for event in yaml.parse(data, Loader=yaml.SafeLoader):
        where = f"{path} line {event.start_mark.line + 1}"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:  # the parser itself would overflow the stack
            return [
                UserError(f"{where} is nested more than {MAX_DEPTH} levels deep; a configuration needs three")
            ]
        if getattr(event, "tag", None) is not None:
            faults.append(UserError(f"{where} has the tag {event.tag!r}; write plain values, without tags"))
        if getattr(event, "anchor", None) is not None:
            faults.append(UserError(f"{where} has the anchor or alias {event.anchor!r}; write the value out"))
    return faults


def _require_keys_once(path: Path, root: yaml.Node | None) -> None:
    import yaml

    todo, faults = [root], []
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.MappingNode):
            counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            line = node.start_mark.line + 1
            twice = [key for key, n in counts.items() if n > 1]
            faults += [
                UserError(f"{path} has the key {key!r} twice (from line {line}); leave one") for key in twice
            ]
            todo += [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value
    refuse(faults)
