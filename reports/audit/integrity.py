"""Whether the files of an output folder are what they claim to be: hashes, names, completeness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError, run_again
from cliqa_bench.results.nodes import KINDS, canonical, digest, file_digest, read_answers, read_json
from cliqa_bench.results.records import RunRecord, read_record, record_files

_AGAIN = run_again("its folder")


class Problem(NamedTuple):
    """Something that does not match.

    Attributes:
        path: The file or folder, relative to the output folder; of a row of a table, with its line.
        what: What is wrong with it.
        advice: What to do.
    """

    path: str
    what: str
    advice: str

    def __str__(self) -> str:
        return " ".join(f"{self.path}: {self.what}; {self.advice}".split())


@dataclass
class Integrity:
    """What was found about the files of an output folder.

    Attributes:
        problems: What does not match, each a line.
        notes: What could not be checked, or need not be, each a line.
        records: The run records that could be read.
        nodes: Number of finished nodes whose hashes were checked.
        tests: Test set with its fingerprint, as JSON -> its keys and its MOS.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    nodes: int = 0
    tests: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)


class _Told(NamedTuple):
    """What an answers node holds.

    Attributes:
        spec: What it depends on.
        heads: Number of columns of its scores, 0 where it holds none.
        stages: Number of columns of its distances, 0 where it holds none.
    """

    spec: dict[str, Any]
    heads: int
    stages: int


@dataclass
class _Known:
    """The contents of an output folder's finished nodes, for the records that name them.

    Attributes:
        specs: "train" or "gate" node -> its spec.
        told: Answers node -> what it holds.
        tests: Test set with its fingerprint -> where it was met first, its keys and its MOS.
        absent: What kind of file is not there -> how many.
        folders: Names of all answers nodes, broken ones too.
    """

    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, _Told] = field(default_factory=dict)
    tests: dict[str, tuple[str, NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    absent: Counter[str] = field(default_factory=Counter)
    folders: set[str] = field(default_factory=set)


def check_files(out: Path) -> Integrity:
    """Checks every finished node and every run record of an output folder.

    Args:
        out: Folder of the results.

    Raises:
        UserError: If there is no run in it.
    """
    found = Integrity()
    known = _Known(folders={path.name for path in (out / "answers").glob("[!.]*")})
    paths = record_files(out)
    if not paths:
        raise UserError(f"no runs in {out}: there is nothing to verify; give the --out folder of a run")
    for kind in KINDS:
        for folder in sorted(path.parent for path in (out / kind).glob("[!.]*/done.json")):
            found.nodes += 1
            where = f"{kind}/{folder.name}"
            spec = _check_node(found, folder, where, known.absent)
            if kind in ("train", "gate"):
                known.specs[folder.name] = spec
            elif kind == "answers":
                _check_answers(found, folder, where, spec, known)
    for path in paths:
        _check_record(found, path, known)
    found.problems += _of_splits(found.records, known)
    found.tests = {test: (keys, mos) for test, (_, keys, mos) in known.tests.items()}
    for what, n in sorted(known.absent.items()):
        found.notes.append(f"{what} not here and not checked: {n}")
    return found


def _check_node(found: Integrity, folder: Path, where: str, absent: Counter[str]) -> dict[str, Any]:
    """Checks one node's name and hashes; returns its spec, {} if it cannot be read."""
    try:
        done, spec = read_json(folder / "done.json"), read_json(folder / "spec.json")
    except UserError as error:
        found.problems.append(Problem(where, f"its JSON files cannot be read ({error})", _AGAIN))
        return {}
    if not isinstance(spec, dict) or not folder.name.endswith(f"-{digest(spec)}"):
        found.problems.append(Problem(f"{where}/spec.json", "the node's name is not its hash", _AGAIN))
    files = done.get("files") if isinstance(done, dict) else None
    if not isinstance(files, dict) or done.get("id") != folder.name:
        text = "does not name this node and the hashes of its files"
        found.problems.append(Problem(f"{where}/done.json", text, _AGAIN))
        files = {}
    present = {p.name for p in folder.iterdir() if not p.name.startswith(".")} - {"done.json"}
    for name in sorted({*files, *present}):
        if name not in files:
            what = "done.json does not name it" if files else ""
        elif name not in present and name.endswith((".safetensors", ".png")):
            # no number in the report needs them, so bundles leave them out
            absent["files of weights" if name.endswith(".safetensors") else "pictures"] += 1
            what = ""
        elif name not in present:
            what = "is missing, though done.json names it"
        else:
            what = "" if file_digest(folder / name) == files[name] else "its SHA-256 is not that in done.json"
        if what:
            found.problems.append(Problem(f"{where}/{name}", what, _AGAIN))
    return spec if isinstance(spec, dict) else {}


def _check_answers(found: Integrity, folder: Path, where: str, spec: dict[str, Any], known: _Known) -> None:
    """Checks what an answers node holds, also against others on the same test set."""
    where = f"{where}/answers.npz"
    try:
        arrays = read_answers(folder / "answers.npz")
    except UserError as error:
        found.problems.append(Problem(where, f"cannot be read ({error})", _AGAIN))
        return
    columns = [arrays[n].shape[1] if n in arrays else 0 for n in ("scores", "distances")]
    known.told[folder.name] = _Told(spec, *columns)
    keys, mos = arrays["keys"], arrays["mos"]
    about = [spec.get("test"), spec["subset"]] if "subset" in spec else spec.get("test")
    first, as_keys, as_mos = known.tests.setdefault(canonical(about), (where, keys, mos))
    if not np.array_equal(keys, as_keys):
        what = "other images" if set(keys) != set(as_keys) else "the same images in another order"
        found.problems.append(Problem(where, f"names {what} than {first}, for the same test set", _AGAIN))
    elif not np.array_equal(mos, as_mos):
        key = keys[(mos != as_mos).argmax()]
        what = f"has another MOS for image {key} than {first}, for the same test set"
        found.problems.append(Problem(where, what, _AGAIN))


def _check_record(found: Integrity, path: Path, known: _Known) -> None:
    where = f"runs/{path.name}"
    try:
        record = read_record(path)
    except UserError as error:
        found.problems.append(Problem(where, str(error), run_again()))
        return
    found.records.append(record)
    wrong = list(_of_record(record, path.stem, known))
    found.problems += [Problem(where, what, advice) for what, advice in dict.fromkeys(wrong)]


def _of_record(record: RunRecord, name: str, known: _Known) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a record, and what to do about it."""
    command = record.facts.get("command") or f"python -m cliqa_bench run --strategy {record.strategy}"
    if name != record.id:
        yield f"its contents were changed: they belong to the name {record.id}", run_again()
    heads = [(s, node, column) for s in record.steps for node, column in s.heads]
    gated = any(readout.startswith("gate") for readout in record.rows)
    gates = record.gates if len(record.steps[-1].heads) > 1 and gated else {}
    if gates or (gated and len(record.steps[-1].heads) > 1):
        for dataset in record.sequence:
            if dataset not in record.gates:
                yield f"it names no gate of {dataset}", f"{run_again()}: {command}"
    yield from _of_validation(record, known)
    columns = Counter({node: 0 for _, node, _ in heads})
    for _, node, column in heads:
        columns[node] = max(columns[node], column + 1)
    for node in dict.fromkeys([*columns, *gates.values()]):
        yield from _of_node(record, node, known)
        for test in record.tests:
            answers = record.answers.get(node, {}).get(test, "")
            told = known.told.get(answers)
            if answers and answers not in known.folders:
                continue  # a node gets its name once it is whole: this one is unfinished, and not broken
            if told is None:
                yield (
                    f"answers/{answers or f'(of {node} on {test})'} is broken",
                    f"run again: {command}",
                )
                continue
            expected = [test, (record.facts.get("fingerprints") or {}).get(test)]
            if [told.spec.get("of"), told.spec.get("test")] != [node, expected]:
                text = f"answers/{answers} was not made by {node} on {test} as the run records it"
                yield text, run_again("both")
            if bool(told.spec.get("adapted")) != (record.transductive and node not in gates.values()):
                adapted = "says" if told.spec.get("adapted") else "does not say"
                text = f"answers/{answers} {adapted} that it was adapted to the test images"
                yield f"{text}, and the run needs the opposite", run_again("both")
            if told.heads < columns[node] or (node in gates.values() and told.stages < max(record.stages)):
                yield f"answers/{answers} lacks a head or stage that is read", run_again("both")


def _of_validation(record: RunRecord, known: _Known) -> Iterator[tuple[str, str]]:
    """Yields answers to validation images that are not those of the node and dataset that name them."""
    prints = record.facts.get("fingerprints") or {}
    for node, by_set in record.validation.items():
        for dataset, answers in by_set.items():
            told = known.told.get(answers)
            if told is None and answers in known.folders:
                yield f"answers/{answers} is broken", run_again("its folder")
            expected = (node, [dataset, prints.get(dataset)], "val")
            if told and tuple(told.spec.get(key) for key in ("of", "test", "subset")) != expected:
                text = f"answers/{answers} was not made by {node} on the validation images of {dataset}"
                yield text, run_again("both")


def _of_splits(records: Iterable[RunRecord], known: _Known) -> Iterator[Problem]:
    """Yields test sets of several splits of the same data in which an image has two opinions."""
    first: dict[tuple[str, str, str], tuple[float, str]] = {}
    looked = set()
    for record in records:
        for test, data in ((record.facts.get("splits") or {}).get("data") or {}).items():
            about = canonical([test, (record.facts.get("fingerprints") or {}).get(test)])
            if about not in known.tests or (about, str(data)) in looked:
                continue
            looked.add((about, str(data)))
            where, keys, opinions = known.tests[about]
            for key, mos in zip(keys.tolist(), opinions.tolist(), strict=True):
                there, other = first.setdefault((test, str(data), key), (mos, where))
                if there != mos:
                    what = f"has another MOS for image {key} than {other}, for a split of the same data"
                    yield Problem(where, what, run_again("both"))
                    break


def _of_node(record: RunRecord, node: str, known: _Known) -> Iterator[tuple[str, str]]:
    """Yields what differs between a train or gate node and the record; a missing node is counted."""
    spec = known.specs.get(node)
    if spec is None:
        known.absent["training and gates"] += 1
        return
    prints = record.facts.get("fingerprints") or {}
    data = [spec["data"]] if "data" in spec else spec.get("sequence", [])
    same = all(isinstance(d, list) and len(d) > 1 and prints.get(d[0]) == d[1] for d in data)
    trained_as = record.trained_as or record.strategy
    of_train = {"strategy": trained_as, "seed": record.seed, "weights": record.facts.get("weights")}
    keys = ("weights", "seed") if "data" in spec else tuple(of_train)
    if not same or any(spec.get(key) != of_train[key] for key in keys):
        yield f"{node} was made with other data, weights, strategy or seed than the run", run_again("both")
