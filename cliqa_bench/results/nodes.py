"""Where finished work is kept: nodes named by the hash of what they depend on, finished atomically.

Layout of an output folder::

    <out>/train/<id>/     spec.json  state.safetensors  history.json  done.json   one trained experience
                          strategy.safetensors  (where a strategy keeps more than weights)
                          norm.npz  (last BatchNorm's mean and var, where each task owns its normalisation)
    <out>/gate/<id>/      spec.json  state.safetensors  done.json                 K-means of one dataset
    <out>/answers/<id>/   spec.json  answers.npz  done.json                       one model on one test set
    <out>/pictures/<id>/  spec.json  0.png ... keys.json  done.json               a few test images, small
    <out>/claims/         locks of what runs are doing at this moment
    <out>/failed/         <name of a claim>.json of work that failed and is not done since, for `status`
    <out>/in_use/         a lock of every run that is at work, so that `clean` removes nothing meanwhile
    <out>/runs/<id>.json  one `RunRecord`: a strategy on a sequence of datasets, and the nodes it consists of
    <out>/checkpoints/    <id>.safetensors of an experience that is being learned, see `checkpoints`
    <out>/report/         tables and figures, made from the above alone

A node without `done.json` does not exist. Only numpy and the standard library are used here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError, run_again
from cliqa_bench.results.schema import EXTRA, wrong_answers
from cliqa_bench.system.disk import (
    DISK_ERRORS,
    as_os_error,
    sweep,
    sync,
    sync_tree,
    temporary_prefix,
    writing,
)
from cliqa_bench.system.locks import sweep_locks
from cliqa_bench.types import Json

NodeKind = Literal["train", "gate", "answers", "pictures"]
KINDS: tuple[NodeKind, ...] = ("train", "gate", "answers", "pictures")
CHECKPOINTS = "checkpoints"
IN_USE = "in_use"
CLAIMS = "claims"
FAILED = "failed"


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


def claim_name(kind: str, net: str, about: str) -> str:
    """Returns the name under which all runs on a folder know a piece of work; see `execution.jobs.Job`."""
    name = "-".join(part for part in (kind, net, about) if part)
    return re.sub(r"[^A-Za-z0-9._+=,-]", "_", name)


@contextlib.contextmanager
def atomic_path(path: Path, lasting: bool = True) -> Iterator[Path]:
    """Gives a temporary name beside `path`; when the block ends well, it becomes `path` in one step.

    Args:
        path: The file that is to be there, whole.
        lasting: Whether a loss of power may not take or tear it either. It costs a wait for the disk, and
            what is made again from other files in no time need not pay it.

    Raises:
        UserError: If the folder cannot be written or the disk is full.
    """
    with _beside(path) as temporary, writing(path, temporary):
        yield temporary
        temporary.chmod(0o644)
        if lasting:
            sync(temporary)
        temporary.replace(path)
        if lasting:
            sync(path.parent)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Gives an empty file beside `path`, and removes it at the end if it still has its temporary name."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        # the suffix is kept: numpy and matplotlib choose the format by it
        handle, name = tempfile.mkstemp(path.suffix, temporary_prefix(path.stem), path.parent)
        os.close(handle)
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)


@functools.lru_cache(maxsize=256)
def _sweep_once(folder: Path) -> None:
    """Clears a folder of what killed processes left, before this one writes there for the first time."""
    sweep(folder)


def write_text(path: Path, text: str, lasting: bool = True) -> None:
    """Writes a text file atomically (UTF-8, LF); see `atomic_path`."""
    with atomic_path(path, lasting) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Json, lasting: bool = True) -> None:
    """Writes a JSON file atomically, see `atomic_path`; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", lasting)


def without_nan(value: Any) -> Any:
    """Turns what JSON lacks, NaN and infinities, into null, in lists and dictionaries too."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_cell(value: object) -> object:
    """Returns what a CSV file holds for a value: what would be a formula begins with "'".

    Example:
        >>> csv_cell("=1+1"), csv_cell("TSN-IQA"), csv_cell(-0.5)
        ("'=1+1", 'TSN-IQA', -0.5)
    """
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def read_json(path: Path) -> Json:
    """Reads a JSON file.

    Raises:
        UserError: If it is missing or is not JSON; nan and numbers beyond all floats are not.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {run_again()}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is not a JSON number")
    return value


class Node:
    """A piece of work with a folder of its own, named by the hash of everything it depends on.

    Attributes:
        kind: Which sub-folder it is in.
        spec: Everything the result depends on, as JSON.
        id: `<slug>-<hash>`.
        folder: Where it is when finished.
    """

    def __init__(self, out: Path, kind: NodeKind, slug: str, spec: Mapping[str, Json]) -> None:
        self.kind: NodeKind = kind
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
                the block ends. Goes into `done.json` with the hashes of the files, and is not part of them.

        A folder left by a killed run is thrown away. Where another process finished the same node in the
        meantime, its result stays and ours is dropped.

        Raises:
            UserError: If the output folder cannot be written, or the disk is full.
        """
        with writing(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=temporary_prefix(self.id), dir=self.folder.parent))
            partial.chmod(0o755)
        try:
            # what the block does may fail for reasons that are not the disk's
            with writing(self.folder, partial, DISK_ERRORS), self._unless_removed(partial):
                yield partial
            with writing(self.folder, partial), self._unless_removed(partial):
                self._finish(partial, facts)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _finish(self, partial: Path, facts: Mapping[str, Json]) -> None:
        """Adds the mark that a folder is complete, and gives it its name."""
        write_json(partial / "spec.json", self.spec, lasting=False)
        files = [p for p in sorted(partial.iterdir()) if not p.name.startswith(".")]
        hashes = {path.name: file_digest(path) for path in files}
        done = {"id": self.id, "files": hashes, "facts": dict(facts)}
        write_json(partial / "done.json", done, lasting=False)
        sync_tree(partial)
        self._take(partial)
        sync(self.folder.parent)

    @contextlib.contextmanager
    def _unless_removed(self, partial: Path) -> Iterator[None]:
        """Reports that the folder which is being filled was removed."""
        try:
            yield
        except Exception as error:
            system = as_os_error(error)
            if system is None or system.errno != errno.ENOENT or partial.is_dir():
                raise
            text = f"{partial} was removed while it was being written; run again"
            raise UserError(text) from error

    def _take(self, partial: Path) -> None:
        """Gives a whole folder the node's name, unless another process was faster."""
        while not self.done:
            try:
                partial.rename(self.folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not self.done:  # a folder without `done.json` has no owner: out of the way, in one step
                    aside = Path(tempfile.mkdtemp(prefix=temporary_prefix(self.id), dir=self.folder.parent))
                    with contextlib.suppress(OSError):
                        self.folder.rename(aside / "old")
                    shutil.rmtree(aside, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Returns the path of one of the node's files."""
        return self.folder / name


def clean_partial(out: Path) -> None:
    """Removes what killed runs left behind: files and folders under temporary names, and locks, unless a
    living process has them, and checkpoints of experiences that are finished.
    """
    for path in (out / CHECKPOINTS).glob("[!.]*.safetensors"):
        if (out / "train" / path.stem / "done.json").is_file():
            path.unlink(missing_ok=True)
    reports = (out / "report", *(out / "report").glob("*/"))
    for folder in (out, *(out / name for name in (*KINDS, CHECKPOINTS, "runs")), *reports):
        sweep(folder)
    sweep_locks(out / CLAIMS)
    sweep_locks(out / IN_USE)


_LARGEST = 4 << 30
_RATIO = 300
"""Bytes that an answer file may have when unpacked, and how many times its size, see `most_unpacked`. Long
names of images are packed to a 95th."""
_SMALL = 64 << 20


def most_unpacked(packed: int, ratio: float) -> float:
    """Returns the most bytes that an archive may have when unpacked: a small one can stand for any amount.

    Args:
        packed: Its bytes.
        ratio: How many times these it may have, if that is not little anyway.
    """
    return max(_SMALL, ratio * packed)


def write_answers(
    path: Path,
    keys: NDArray[np.str_],
    mos: NDArray[np.float64],
    scores: NDArray[np.float32] | None = None,
    distances: NDArray[np.float32] | None = None,
    extras: Mapping[str, NDArray[np.float32]] | None = None,
    contents: NDArray[np.int64] | None = None,
) -> None:
    """Writes `answers.npz`: `keys`, `mos`, and `scores` (n, heads) or `distances` (n, all stages).

    Further answers go beside the scores, as `extra.NAME` (n, k). `contents` (n,) has one number for
    all images of a reference; files of 0.1.0 have none.
    """
    arrays: dict[str, Any] = {"keys": np.asarray(keys, dtype=np.str_), "mos": np.asarray(mos, np.float64)}
    if contents is not None:
        arrays["contents"] = np.asarray(contents, np.int64)
    if scores is not None:
        arrays["scores"] = np.asarray(scores, np.float32)
    if distances is not None:
        arrays["distances"] = np.asarray(distances, np.float32)
    for name, columns in (extras or {}).items():
        arrays[EXTRA + name] = np.asarray(columns, np.float32)
    with atomic_path(path) as temporary:
        write_arrays(temporary, arrays, compress=True)


def write_arrays(path: Path, arrays: Mapping[str, Any], compress: bool = False) -> None:
    """Writes an `.npz` file.

    By way of memory: on a full disk `savez` of numpy 1.26 leaves its file open, and a traceback follows ours.
    By way of bytes: so would it with a view of the buffer that an exception keeps alive.
    """
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


def read_answers(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what `write_answers` wrote, see `parse_answers`.

    Raises:
        UserError: If the file is missing, broken, or not an answer file.
    """
    try:
        return parse_answers(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def parse_answers(data: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Returns what an answer file holds; no pickle is ever unpacked.

    Args:
        data: Its content.
        path: The file, for messages.

    Returns:
        `keys` (n,) str, each once; `mos` (n,) float64, finite; `scores` (n, heads) and `distances`
        (n, stages) float32, either or both; these may hold nan, which a report says and shows as a dash.

    Raises:
        UserError: If it is broken, or not an answer file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            most = min(_LARGEST, most_unpacked(len(data), _RATIO))
            if sum(entry.file_size for entry in archive.zip.infolist()) > most:
                raise ValueError(f"more than {most} bytes when unpacked")
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken archive
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(f"{path} is not an answer file ({said:.200}); {run_again('its folder')}") from error
    if wrong := wrong_answers(arrays):
        raise UserError(f"{path} is not an answer file: {wrong}; {run_again('its folder')}")
    return arrays


def node_facts(folder: Path) -> dict[str, Json]:
    """Returns what is known about the computation of a node; {} if it is not finished.

    Raises:
        UserError: If its `done.json` is broken.
    """
    path = folder / "done.json"
    done = read_json(path) if path.is_file() else {}
    facts = done.get("facts") if isinstance(done, dict) else None
    return facts if isinstance(facts, dict) else {}


def node_hashes(folder: Path) -> dict[str, str]:
    """Returns the files of a finished node: name -> SHA-256 (hex), as `done.json` has them.

    Raises:
        UserError: If the node is not finished, or its `done.json` is broken.
    """
    done = read_json(folder / "done.json")
    files = done.get("files") if isinstance(done, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{folder / 'done.json'} names no files and hashes; {run_again('its folder')}")
    return files


def read_verified(folder: Path, name: str) -> bytes:
    """Returns the content of a file of a finished node, once its hash has been checked against `done.json`.

    Raises:
        UserError: If the node is not finished, or the file is missing or another one.
    """
    path, hashes = folder / name, node_hashes(folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}; {run_again('its folder')}"
        ) from error
    if hashes.get(name) != hashlib.sha256(data).hexdigest():
        raise UserError(
            f"{path} is not the file that was written (its SHA-256 is not that in done.json); "
            f"{run_again('its folder')}"
        )
    return data
