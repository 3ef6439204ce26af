"""Where finished work lies: nodes named by the hash of what they depend on, finished atomically.

Layout of an output folder::

    <out>/train/<id>/     spec.json  state.safetensors  history.json  done.json   one trained experience
                          strategy.safetensors  (where a strategy hands on more than weights)
                          norm.npz  (last BatchNorm's mean and var, where each task owns its normalisation)
    <out>/gate/<id>/      spec.json  state.safetensors  done.json                 K-means of one dataset
    <out>/answers/<id>/   spec.json  answers.npz  done.json                       one model on one test set
    <out>/pictures/<id>/  spec.json  0.png ... keys.json  done.json               a few test images, small
    <out>/runs/<id>.json  one `RunRecord`: a strategy on a sequence of datasets, and the nodes it consists of
    <out>/report/         tables and figures, made from the above alone

A node without `done.json` does not exist. Only numpy and the standard library are used here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.schema import wrong_answers, wrong_record, wrong_type
from cliqa_bench.types import Answers

Kind = Literal["train", "gate", "answers", "pictures"]
KINDS: tuple[Kind, ...] = ("train", "gate", "answers", "pictures")
Json = Any


def canonical(value: Json) -> str:
    """Writes a JSON value in the one form that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Json, length: int = 12) -> str:
    """Returns the first hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one line that a path cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _temporary_prefix(name: str) -> str:
    """Returns how a temporary name starts: hidden, and naming the process that may still be writing it."""
    return f".{name}~{platform.node()}~{os.getpid()}~"


def _is_orphan(path: Path) -> bool:
    """Tells whether a temporary file or folder belongs to a process of this machine that is gone."""
    parts = path.name.rsplit("~", 3)
    if len(parts) != 4 or parts[1] != platform.node() or not parts[2].isdigit():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # alive, and somebody else's
        return False
    return False


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; when the block ends well, it becomes `path` in one step.

    Raises:
        UserError: If the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the suffix is kept: numpy and matplotlib choose the format by it
        handle, name = tempfile.mkstemp(path.suffix, _temporary_prefix(path.stem), path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically (UTF-8, LF)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Json) -> None:
    """Writes a JSON file atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Json:
    """Reads a JSON file.

    Raises:
        UserError: If it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run again") from error


class Node:
    """A piece of work with a folder of its own, named by the hash of everything it depends on.

    Attributes:
        kind: Which sub-folder it lies in.
        spec: Everything the result depends on, as JSON.
        id: `<slug>-<hash>`.
        folder: Where it lies when finished.
    """

    def __init__(self, out: Path, kind: Kind, slug: str, spec: Mapping[str, Json]) -> None:
        self.kind: Kind = kind
        self.spec = dict(spec)
        self.id = f"{slug}-{digest(self.spec)}"
        self.folder = out / kind / self.id

    @property
    def done(self) -> bool:
        """Whether the node is finished."""
        return (self.folder / "done.json").is_file()

    @contextlib.contextmanager
    def building(self, facts: Mapping[str, Json]) -> Iterator[Path]:
        """Gives an empty folder to fill; when the block ends well it becomes the node, `done.json` last.

        Args:
            facts: What is worth knowing about this very computation (versions, device); may be filled until
                the block ends. Goes into `done.json` with the hashes of the files, and is no part of them.

        A folder left by a killed run is thrown away. Where another process finished the same node in the
        meantime, its result stays and ours is dropped.

        Raises:
            UserError: If the output folder cannot be written.
        """
        with _writing(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=_temporary_prefix(self.id), dir=self.folder.parent))
            partial.chmod(0o755)
        try:
            yield partial
            with _writing(self.folder):
                write_json(partial / "spec.json", self.spec)
                files = [p for p in sorted(partial.iterdir()) if not p.name.startswith(".")]
                hashes = {path.name: file_digest(path) for path in files}
                write_json(partial / "done.json", {"id": self.id, "files": hashes, "facts": dict(facts)})
                self._take(partial)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _take(self, partial: Path) -> None:
        """Gives a whole folder the node's name, unless another process was faster."""
        while not self.done:
            try:
                partial.rename(self.folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not self.done:  # a folder without `done.json` is nobody's: out of the way, in one step
                    aside = Path(tempfile.mkdtemp(prefix=_temporary_prefix(self.id), dir=self.folder.parent))
                    with contextlib.suppress(OSError):
                        self.folder.rename(aside / "old")
                    shutil.rmtree(aside, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Returns the path of one of the node's files."""
        return self.folder / name


def clean_partial(out: Path) -> None:
    """Removes what killed runs left behind under temporary names; what a living one writes is left alone."""
    for folder in (out, *(out / name for name in (*KINDS, "runs", "report"))):
        for leftover in folder.glob(".*~*~*~*"):
            if not _is_orphan(leftover):
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


_LARGEST = 4 << 30
"""Bytes that an answer file may have when unpacked: a small archive can stand for any amount of memory."""


def write_answers(
    path: Path,
    keys: NDArray[np.str_],
    mos: NDArray[np.float64],
    scores: NDArray[np.float32] | None = None,
    distances: NDArray[np.float32] | None = None,
) -> None:
    """Writes `answers.npz`: `keys`, `mos`, and `scores` (n, heads) or `distances` (n, all stages)."""
    arrays: dict[str, Any] = {"keys": np.asarray(keys, dtype=np.str_), "mos": np.asarray(mos, np.float64)}
    if scores is not None:
        arrays["scores"] = np.asarray(scores, np.float32)
    if distances is not None:
        arrays["distances"] = np.asarray(distances, np.float32)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_answers(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what `write_answers` wrote; no pickle is ever unpacked.

    Returns:
        `keys` (n,) str, each once; `mos` (n,) float64, finite; `scores` (n, heads) and `distances`
        (n, stages) float32, either or both; these may hold nan, which a report says and shows as a dash.

    Raises:
        UserError: If the file is missing, broken, or not an answer file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if sum(entry.file_size for entry in archive.zip.infolist()) > _LARGEST:
                raise ValueError(f"more than {_LARGEST} bytes when unpacked")
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken archive
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is not an answer file ({said}); delete its folder and run again") from error
    if wrong := wrong_answers(arrays):
        raise UserError(f"{path} is not an answer file: {wrong}; delete its folder and run again")
    return arrays


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

    @cached_property
    def id(self) -> str:
        """`<strategy>-<order>-seed<seed>-<hash>`."""
        order = self.order if "," not in self.order else self.order.replace(",", "-")
        # versions and dates are facts of a run, not its identity
        body = {k: v for k, v in asdict(self).items() if k != "facts"}
        return f"{self.strategy.replace(':', '-')}-{order}-seed{self.seed}-{digest(body)}"


def write_record(out: Path, record: RunRecord) -> None:
    """Writes `<out>/runs/<id>.json`."""
    write_json(out / "runs" / f"{record.id}.json", asdict(record))


def read_records(out: Path) -> list[RunRecord]:
    """Reads every run record of an output folder, in the order of their names.

    Raises:
        UserError: If there is none, or one is broken.
    """
    paths = sorted((out / "runs").glob("*.json"))
    if not paths:
        raise UserError(f"no runs in {out}; make some: python -m cliqa_bench run --strategy tsn --out {out}")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> RunRecord:
    """Reads one run record.

    Raises:
        UserError: If it is missing or broken: a field is missing, unknown or of another type, a name of a
            node is no plain file name, or steps, heads and test sets do not belong together.
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
        raise UserError(f"{path} is not a run record ({wrong}); delete it and run again")
    return record


class AnswerReader:
    """Puts the answers of a run together from its nodes; each file is read once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._cache: dict[str, dict[str, NDArray[Any]] | None] = {}

    def _read(self, answers_id: str | None) -> dict[str, NDArray[Any]] | None:
        if answers_id is None:
            return None
        if answers_id not in self._cache:
            folder = self.out / "answers" / answers_id
            done = (folder / "done.json").is_file()
            self._cache[answers_id] = read_answers(folder / "answers.npz") if done else None
        return self._cache[answers_id]

    def facts(self, answers_id: str) -> dict[str, Json]:
        """Returns what is known of the computation of an answers node; {} where it is not finished."""
        done = self.out / "answers" / answers_id / "done.json"
        return dict(read_json(done).get("facts", {})) if done.is_file() else {}

    def norm(self, train_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Returns mean and variance (C,) of the last normalisation layer of a train node.

        None where the node is not finished, or keeps none: only a task that owns its normalisation does, and
        only if a layer of it has running statistics.

        Raises:
            UserError: If the file is broken.
        """
        folder = self.out / "train" / train_id
        path = folder / "norm.npz"
        if not (folder / "done.json").is_file() or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive["mean"].astype(np.float64), archive["var"].astype(np.float64)
        except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken archive
            raise UserError(f"{path} is broken ({error}); delete its folder and run again") from error

    def answers(self, record: RunRecord, step: int, test: str) -> Answers | None:
        """Returns what the model of a run said about a test set after an experience.

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
            if not np.array_equal(other["keys"], first["keys"]):
                raise self._misfit(record, test, "name different images")
        distances = None
        if len(ready) == len(gates):  # files hold every stage; which of them count is a choice of reading
            used = [stage - 1 for stage in record.stages]
            distances = np.stack([gate["distances"][:, used] for gate in ready], 1)
        scores = np.stack([part["scores"][:, column] for part, column in present], 1)
        return Answers(first["keys"], first["mos"], scores, distances)

    def _misfit(self, record: RunRecord, test: str, what: str) -> UserError:
        where = self.out / "answers"
        return UserError(f"answer files of run {record.id} on {test} {what}; delete {where} and run again")


def _width(arrays: Mapping[str, NDArray[Any]], name: str) -> int:
    """Returns how many columns of a kind an answer file holds."""
    return int(arrays[name].shape[1]) if name in arrays else 0
