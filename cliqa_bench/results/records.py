"""Which nodes a run consists of, and its models' answers: what reports read. Only numpy is used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.config import later, named
from cliqa_bench.errors import UserError, run_again
from cliqa_bench.part_names import in_path
from cliqa_bench.results.nodes import (
    digest,
    node_facts,
    node_hashes,
    parse_answers,
    read_json,
    read_verified,
    write_json,
)
from cliqa_bench.results.readouts import chosen_tau, standardised
from cliqa_bench.results.schema import EXTRA, wrong_record, wrong_type
from cliqa_bench.types import Answers, Json


@dataclass(frozen=True)
class Step:
    """The state after one experience.

    Attributes:
        dataset: The dataset learned last.
        heads: For every head of the model, the train node that holds it and its column in that node's scores.
    """

    dataset: str
    heads: list[tuple[str, int]]


@dataclass(frozen=True)
class RunRecord:
    """A strategy on a sequence of datasets with one seed, and the nodes it is made of.

    Attributes:
        strategy: Name on the command line.
        variant: Hyper-parameters that differ from the defaults, as `name=value, ...`; "" for none.
        rows: Readout ("gate", "gate-hard", "oracle", "last") -> the method's name in the tables
            ("TSN-IQA", "TSN-IQA-O", ...).
        backbone: The backbone's name in the tables ("ResNet-18", "S-CNN", ...).
        seed: Seed of the training.
        order: "I" to "VIII", or the sequence itself, comma-separated.
        sequence: Dataset names in the order of learning.
        tests: Dataset names of the test sets.
        titles: Dataset name -> its name in the tables ("KonIQ-10K").
        steps: One per experience.
        gates: Dataset name -> id of its gate node.
        answers: Node id (train or gate) -> test set -> id of the answers node.
        tau: Temperature of the gate (Eq. 8).
        stages: The backbone's stages that the gate uses, as numbered in the paper.
        generated: Whether any of the data is generated; then no number is comparable with published ones.
        facts: Everything worth knowing beside the numbers: preset, versions, fingerprints, config.
        transductive: Whether its models were adapted to the unlabelled test images before they answered.
        trained_as: The strategy that trained its models; "" for itself.
        reading: What is chosen or fitted on validation images, see `readouts.RULES`.
        validation: Node id -> dataset -> id of the node's answers to its validation images.
    """

    strategy: str
    variant: str
    rows: dict[str, str]
    backbone: str
    seed: int
    order: str
    sequence: list[str]
    tests: list[str]
    titles: dict[str, str]
    steps: list[Step]
    gates: dict[str, str]
    answers: dict[str, dict[str, str]]
    tau: float
    stages: list[int]
    generated: bool
    facts: dict[str, Json] = field(default_factory=dict)
    transductive: bool = later(False, "0.2.0")
    trained_as: str = later("", "0.2.0")
    reading: dict[str, str] = field(default_factory=dict, metadata={"since": "0.2.0", "before": {}})
    validation: dict[str, dict[str, str]] = field(
        default_factory=dict, metadata={"since": "0.2.0", "before": {}}
    )

    @cached_property
    def id(self) -> str:
        """`<strategy>-<order>-seed<seed>-<hash>`."""
        order = in_path(self.order)
        # versions and dates are facts of a run, not its identity
        body = {k: v for k, v in named(RunRecord, asdict(self)).items() if k != "facts"}
        return f"{self.strategy.replace(':', '-')}-{order}-seed{self.seed}-{digest(body)}"

    @property
    def split_number(self) -> int:
        """The number of its split among several that were asked for together; 0 for a split of its own."""
        return int((self.facts.get("splits") or {}).get("number", 0))


def write_record(out: Path, record: RunRecord) -> None:
    """Writes `<out>/runs/<id>.json`."""
    write_json(out / "runs" / f"{record.id}.json", named(RunRecord, asdict(record)))


def record_files(out: Path) -> list[Path]:
    """Returns the files of the run records of an output folder; not those that are being written."""
    return sorted((out / "runs").glob("[!.]*.json"))


def read_records(out: Path) -> list[RunRecord]:
    """Reads every run record of an output folder, in the order of their names.

    Raises:
        UserError: If there is none, or one is broken.
    """
    paths = record_files(out)
    if not paths:
        raise UserError(f"no runs in {out}; make some: python -m cliqa_bench run --strategy tsn --out {out}")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> RunRecord:
    """Reads one run record.

    Raises:
        UserError: If it is missing or broken: a field is missing, unknown or of another type, a name of a
            node is not a plain file name, or steps, heads and test sets do not belong together.
    """
    body = read_json(path)
    try:
        steps = [Step(s["dataset"], [(n, c) for n, c in s["heads"]]) for s in body.pop("steps")]
        record = RunRecord(steps=steps, **body)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        wrong = wrong_type(record) or wrong_record(record)
    if wrong:
        raise UserError(f"{path} is not a run record ({wrong}); {run_again()}")
    return record


class AnswerReader:
    """Assembles the answers of a run from its nodes; each file is read once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._cache: dict[str, dict[str, NDArray[Any]] | None] = {}
        self._keys: dict[bytes, NDArray[Any]] = {}
        self._taus: dict[tuple[str, int], float | None] = {}

    def _read(self, answers_id: str | None) -> dict[str, NDArray[Any]] | None:
        if answers_id is None:
            return None
        if answers_id not in self._cache:
            folder = self.out / "answers" / answers_id
            done = (folder / "done.json").is_file()
            answers = _answers_of(folder) if done else None
            if answers is not None:
                # equal keys become one array, so that comparing them costs nothing
                answers["keys"] = self._keys.setdefault(answers["keys"].tobytes(), answers["keys"])
            self._cache[answers_id] = answers
        return self._cache[answers_id]

    @cached_property
    def _done(self) -> set[str]:
        return {path.parent.name for path in (self.out / "answers").glob("[!.]*/done.json")}

    def missing(self, record: RunRecord) -> tuple[int, int]:
        """Returns how many (experience, test set) pairs of a run lack answers, and how many pairs there are.

        Only names are used; no file is read.
        """
        gated = bool({"gate", "gate-hard"} & record.rows.keys())
        tests = list(dict.fromkeys([*record.sequence, *record.tests]))
        missing = 0
        for t, step in enumerate(record.steps):
            nodes = [node for node, _ in step.heads]
            if gated and len(nodes) > 1:
                nodes += [record.gates.get(s.dataset, "") for s in record.steps[: t + 1]]
            by_node = [record.answers.get(node, {}) for node in nodes]
            known = [record.validation.get(node, {}).values() for node in nodes]
            lacking = any(answers not in self._done for of in known for answers in of)
            missing += sum(lacking or any(of.get(test) not in self._done for of in by_node) for test in tests)
        return missing, len(record.steps) * len(tests)

    def facts(self, answers_id: str) -> dict[str, Json]:
        """Returns what is known about the computation of an answers node; {} if it is not finished."""
        return node_facts(self.out / "answers" / answers_id)

    def training_facts(self, train_id: str) -> dict[str, Json]:
        """Returns what is known about the computation of a train node; {} if it is not finished."""
        return node_facts(self.out / "train" / train_id)

    def norm(self, train_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Returns mean and variance (C,) of the last normalisation layer of a train node.

        None where the node is not finished, or keeps none: only a task that owns its normalisation does, and
        only if a layer of it has running statistics.

        Raises:
            UserError: If the file is broken.
        """
        folder = self.out / "train" / train_id
        path = folder / "norm.npz"
        if not (folder / "done.json").is_file() or path.name not in node_hashes(folder):
            return None
        data = read_verified(folder, path.name)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return archive["mean"].astype(np.float64), archive["var"].astype(np.float64)
        except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken archive
            raise UserError(f"{path} is broken ({error}); {run_again('its folder')}") from error

    def answers(self, record: RunRecord, step: int, test: str) -> Answers | None:
        """Returns the answers of a run's model to a test set after an experience.

        Args:
            record: The run.
            step: Index of the experience, from 0.
            test: Name of the test set.

        Returns:
            The answers, or None if a node they need is not finished. `distances` covers the tasks learned so
            far and is None where the run has no gates (or they are unfinished).

        Raises:
            UserError: If files that belong together name different images.
        """
        parts = [(self._read(record.answers.get(n, {}).get(test)), c) for n, c in record.steps[step].heads]
        if not parts or any(part is None for part, _ in parts):
            return None
        present = [(part, column) for part, column in parts if part is not None]
        first = present[0][0]
        gates = [
            self._read(record.answers.get(record.gates.get(s.dataset, ""), {}).get(test))
            for s in record.steps[: step + 1]
        ]
        ready = [gate for gate in gates if gate is not None]
        lacking = any(column >= _width(part, "scores") for part, column in present)
        if lacking or any(max(record.stages, default=0) > _width(gate, "distances") for gate in ready):
            raise self._misfit(record, test, "lack a head or a stage that it reads")
        for other in [part for part, _ in present[1:]] + ready:
            if other["keys"] is not first["keys"]:
                raise self._misfit(record, test, "name different images")
        tau, distances = self.tau(record, step), None
        if len(ready) == len(gates) and tau is not None:  # files hold every stage; which count is a choice
            used = [stage - 1 for stage in record.stages]
            distances = np.stack([gate["distances"][:, used] for gate in ready], 1)
        columns = [part["scores"][:, column] for part, column in present]
        if "scores" in record.reading:
            known = self.validation_scores(record, step)
            if any(some is None for some in known):
                return None
            pairs = zip(columns, known, strict=True)
            columns = [standardised(told, some) for told, some in pairs if some is not None]
        scores = np.stack(columns, 1)
        newest = present[-1][0]
        extras = {name.removeprefix(EXTRA): newest[name] for name in newest if name.startswith(EXTRA)}
        contents = next((p["contents"] for p, _ in present if "contents" in p), None)
        return Answers(
            first["keys"],
            first["mos"],
            scores,
            distances,
            extras,
            contents,
            record.tau if tau is None else tau,
        )

    def tau(self, record: RunRecord, step: int) -> float | None:
        """Returns the gate's temperature after an experience; None if what chooses it is missing."""
        if "tau" not in record.reading or step == 0:
            return record.tau
        if (record.id, step) not in self._taus:
            self._taus[record.id, step] = self._chosen_tau(record, step)
        return self._taus[record.id, step]

    def _chosen_tau(self, record: RunRecord, step: int) -> float | None:
        distances = self.validation_distances(record, step)
        return None if distances is None else chosen_tau(distances)

    def validation_distances(self, record: RunRecord, step: int) -> list[NDArray[np.float32]] | None:
        """Returns what the gates of an experience say of the validation images of every task so far.

        Returns:
            Of each task (n, tasks, stages that are used); None where the run does not keep it, or not yet.
        """
        learned = [s.dataset for s in record.steps[: step + 1]]
        used = [stage - 1 for stage in record.stages]
        distances = []
        for dataset in learned:
            files = [
                self._read(record.validation.get(record.gates.get(d, ""), {}).get(dataset)) for d in learned
            ]
            ready = [file["distances"][:, used] for file in files if file is not None]
            if len(ready) < len(files):
                return None
            distances.append(np.stack(ready, axis=1))
        return distances

    def validation_scores(self, record: RunRecord, step: int) -> list[NDArray[np.float32] | None]:
        """Returns each head's scores of its own task's validation images after an experience, (m,) each."""
        found: list[NDArray[np.float32] | None] = []
        for (node, column), learned in zip(record.steps[step].heads, record.steps, strict=False):
            file = self._read(record.validation.get(node, {}).get(learned.dataset))
            found.append(None if file is None else file["scores"][:, column])
        return found

    def _misfit(self, record: RunRecord, test: str, what: str) -> UserError:
        where = self.out / "answers"
        return UserError(f"answer files of run {record.id} on {test} {what}; {run_again(where)}")


def _answers_of(folder: Path) -> dict[str, NDArray[Any]]:
    return parse_answers(read_verified(folder, "answers.npz"), folder / "answers.npz")


def _width(arrays: Mapping[str, NDArray[Any]], name: str) -> int:
    """Returns how many columns of a kind an answer file holds."""
    return int(arrays[name].shape[1]) if name in arrays else 0
