"""Where finished work lies: nodes named by the hash of what they depend on, finished atomically.

Layout of an output folder::

    <out>/train/<id>/     spec.json  state.safetensors  history.json  done.json   one trained experience
                          strategy.safetensors  (where a strategy hands on more than weights)
                          norm.npz  (last BatchNorm's mean and var, where each task owns its normalisation)
    <out>/gate/<id>/      spec.json  state.safetensors  done.json                 K-means of one dataset
    <out>/answers/<id>/   spec.json  answers.npz  done.json                       one model on one test set
    <out>/pictures/<id>/  spec.json  0.png ... keys.json  done.json               a few test images, small
    <out>/runs/<id>.json  one `RunRecord`: a strategy on a sequence of datasets, and the nodes it consists of
    <out>/checkpoints/    <id>.safetensors of an experience that is being learned, see `checkpoints`
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
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError
from cliqa_bench.schema import wrong_answers

Kind = Literal["train", "gate", "answers", "pictures"]
KINDS: tuple[Kind, ...] = ("train", "gate", "answers", "pictures")
CHECKPOINTS = "checkpoints"
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
    except (ValueError, RecursionError) as error:
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
    """Removes what killed runs left behind: files and folders under temporary names, unless a living process
    writes them, and checkpoints of experiences that are finished.
    """
    for path in (out / CHECKPOINTS).glob("[!.]*.safetensors"):
        if (out / "train" / path.stem / "done.json").is_file():
            path.unlink(missing_ok=True)
    for folder in (out, *(out / name for name in (*KINDS, CHECKPOINTS, "runs", "report"))):
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
