"""What files that are read back must look like before anything is computed from them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.results.readouts import RULES

if TYPE_CHECKING:
    from cliqa_bench.results.records import RunRecord

_COLUMNS: dict[str, tuple[int, type[np.generic]]] = {
    "keys": (1, np.str_),
    "mos": (1, np.float64),
    "scores": (2, np.float32),
    "distances": (2, np.float32),
    "contents": (1, np.int64),
}
"""What an answer file holds: name -> dimensions and type."""
EXTRA = "extra."
"""Begins the names of what else a model said, each (n, k) float32."""
_TABLES = ("fingerprints", "origins", "config", "pictures", "versions", "cost", "splits")
"""Facts of a run record that are looked up by name."""
_MOST = sys.float_info.max


def wrong_answers(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns why arrays are not answers; "" if they are."""
    names = arrays.keys()
    columns = _COLUMNS | {n: _COLUMNS["scores"] for n in names if n.startswith(EXTRA) and "scores" in names}
    told = {"scores", "distances"} & names
    if not {"keys", "mos"} <= names or not names <= columns.keys() or not told:
        return "it needs keys, mos, and scores or distances"
    for name, (ndim, dtype) in columns.items():
        if name in names and not isinstance(
            arrays[name], np.ndarray
        ):  # numpy returns what is not one as bytes
            return f"{name} is not an array"
        if name in names and (arrays[name].ndim != ndim or arrays[name].dtype.type is not dtype):
            return f"{name} has shape {arrays[name].shape} and type {arrays[name].dtype}"
    if len({len(array) for array in arrays.values()}) != 1:
        return "keys, mos and columns differ in length"
    if len(np.unique(arrays["keys"])) < len(arrays["keys"]):
        return "an image is named twice"
    return "" if np.isfinite(arrays["mos"]).all() else "a MOS is not a finite number"


def wrong_type(value: Any) -> str:
    """Returns which field of a dataclass is not of its declared type; "" if all are."""
    hints = get_type_hints(type(value))
    wrong = (f"{f.name} = {getattr(value, f.name)!r:.60}" for f in fields(value)
             if not _fits(getattr(value, f.name), hints[f.name]))  # fmt: skip
    return next(wrong, "")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a declared type; numbers must be finite."""
    kind, of = get_origin(hint) or hint, get_args(hint)
    if kind is list:
        return isinstance(value, list) and all(_fits(v, of[0]) for v in value)
    if kind is tuple:
        return len(value) == len(of) and all(map(_fits, value, of))
    if kind is dict:
        return isinstance(value, dict) and all(_fits(k, of[0]) and _fits(v, of[1]) for k, v in value.items())
    if is_dataclass(value):
        return type(value) is kind and not wrong_type(value)
    if kind in (int, float):  # compared, not converted: a whole number may be too large for a float
        return isinstance(value, int | kind) and not isinstance(value, bool) and abs(value) <= _MOST
    return kind is Any or isinstance(value, kind)


def is_plain_name(name: str) -> bool:
    """Whether a name can only stand for a file of the very folder it is looked for in."""
    return bool(re.fullmatch(r"[^./\\\0][^/\\\0]{0,254}", name))


def _are_nodes(named: Any) -> bool:
    nodes = named.values() if isinstance(named, dict) else ()
    return all(isinstance(node, str) and is_plain_name(node) for node in nodes)


def _are_parts(told: Any) -> bool:
    """Whether what a record says its models are made of, if anything, is a list of nodes."""
    named = [] if told is None else told
    return isinstance(named, list) and all(isinstance(node, str) and is_plain_name(node) for node in named)


def _are_splits(told: Any) -> bool:
    """Whether what a record says of several splits, if anything, has all that reports look up in it."""
    if not isinstance(told, dict):
        return told is None
    number, folder, data = (told.get(key) for key in ("number", "from", "data"))
    is_number = isinstance(number, int) and not isinstance(number, bool) and number > 0
    return is_number and isinstance(folder, str) and isinstance(data, dict)


def wrong_record(record: RunRecord) -> str:
    """Returns what in a record does not fit together; "" if nothing is wrong."""
    nodes = {*record.answers, *record.gates.values(), *(n for s in record.steps for n, _ in s.heads)}
    answers = {a for by_test in record.answers.values() for a in by_test.values()}
    answers |= {a for by_set in record.validation.values() for a in by_set.values()}
    named = {*record.sequence, *record.tests}
    checks = {
        "a node's name is not a plain file name": all(map(is_plain_name, nodes | answers)),
        "no sequence, or a dataset twice": 0 < len(record.sequence) == len(set(record.sequence)),
        "neither one step nor one a dataset": len(record.steps) in (1, len(record.sequence)),
        "a step with neither one head nor one a task": all(
            len(step.heads) in (1, tasks) for tasks, step in enumerate(record.steps, 1)
        ),
        "a head's column below 0": all(c >= 0 for s in record.steps for _, c in s.heads),
        "a dataset without a title": named <= record.titles.keys(),
        "a step of a dataset that is not in the sequence": {s.dataset for s in record.steps} <= named,
        "gates without stages": bool(record.stages) or not record.gates,
        "facts that are not tables": all(isinstance(record.facts.get(k), dict | None) for k in _TABLES),
        "splits without a number and data": _are_splits(record.facts.get("splits")),
        "a picture's node is not a plain file name": _are_nodes(record.facts.get("pictures")),
        "what it is built from is not a list of plain file names": _are_parts(record.facts.get("built_from")),
        "an unknown rule of reading": record.reading.items() <= RULES.items(),
        "tau or a stage out of range": record.tau >= 0 and all(stage >= 1 for stage in record.stages),
    }
    return next((text for text, holds in checks.items() if not holds), "")
