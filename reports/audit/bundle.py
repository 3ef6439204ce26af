"""Bundles: a zip file of everything that the numbers of a report are made of, without weights and images."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from cliqa_bench.errors import UserError
from cliqa_bench.results.nodes import atomic_path, most_unpacked

_NODE = r"[^./\\][^/\\]*"
_MEMBERS = re.compile(
    rf"runs/{_NODE}\.json"
    rf"|(train|gate)/{_NODE}/(spec\.json|done\.json|history\.json|norm\.npz)"
    rf"|answers/{_NODE}/(spec\.json|done\.json|answers\.npz)"
    r"|report/(other-[0-9a-f]{8}/)?results\.csv"
)
"""Names of what a bundle holds; nothing else is packed, and nothing else is unpacked."""

MAX_FILES = 1_000_000
MAX_FILE_BYTES = 1 << 30
MAX_BYTES = 8 << 30
"""Limits of what is unpacked, so that a small file cannot fill a disk; far above what runs leave."""
MAX_RATIO = 100
"""How many times its size a bundle may have when unpacked, see `most_unpacked`; those of runs have ten."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20


def pack(out: Path, path: Path) -> int:
    """Writes a bundle of an output folder: the same files give the same bytes.

    It holds the run records (with their configuration), specs and hashes of all nodes, answers, statistics
    of the last normalisation layers, learning histories and every `results.csv`.

    Args:
        out: Folder of the results.
        path: The zip file.

    Returns:
        Its size in bytes.

    Raises:
        UserError: If a file cannot be read or written.
    """
    folders = [
        p.parent for kind in ("train", "gate", "answers") for p in (out / kind).glob("[!.]*/done.json")
    ]
    parts = [out / "runs", out / "report", *(out / "report").glob("other-*"), *folders]
    files = {file.relative_to(out).as_posix(): file for part in parts for file in part.glob("*")}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(filter(_MEMBERS.fullmatch, files)):
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.create_system = 3  # else it is the machine's, and the bytes are not the same everywhere
            archive.writestr(info, files[name].read_bytes(), zipfile.ZIP_DEFLATED, 9)
    return path.stat().st_size


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Gives a temporary folder with what a bundle holds.

    Raises:
        UserError: If it is not a bundle: not a zip file, broken, larger than the limits, or with a member
            that no bundle has (another name, an absolute path, "..", a link).
    """
    with tempfile.TemporaryDirectory(prefix="cliqa-bundle-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(path) as archive:
                _check(path, archive)
                for member in archive.infolist():
                    _extract(archive, member, folder / member.filename)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{path} is not a whole zip file ({error}); ask for the bundle again") from error
        except OSError as error:
            raise UserError(f"cannot unpack {path} to {folder}: {error.strerror or error}") from error
        yield folder


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses what no bundle holds before anything is unpacked."""
    members = archive.infolist()
    names = [member.filename for member in members]
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not _MEMBERS.fullmatch(member.filename) or kind not in (0, stat.S_IFREG):
            raise UserError(
                f"{path} is not a bundle: it holds {member.filename!r}, which no bundle does; make one with: "
                "python -m cliqa_bench verify RUNS --pack FILE.zip"
            )
    if len(set(names)) < len(names):
        raise UserError(f"{path} is not a bundle: it holds a file twice; make it again")
    sizes = [member.file_size for member in members]
    largest, together = max(sizes, default=0), sum(sizes)
    if len(members) > MAX_FILES or largest > MAX_FILE_BYTES or together > MAX_BYTES:
        raise UserError(
            f"{path} is larger than a bundle may be when unpacked ({MAX_FILES} files, {MAX_FILE_BYTES >> 30} "
            f"GiB each, {MAX_BYTES >> 30} GiB together); unpack it yourself and verify the folder"
        )
    packed = path.stat().st_size
    if together > most_unpacked(packed, MAX_RATIO):
        times = together / packed
        raise UserError(
            f"{path} is not a bundle: unpacked it has {times:.0f} times its size, and those of runs have "
            f"less than {MAX_RATIO} times"
        )


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path) -> None:
    """Unpacks a file; zipfile gives no more bytes than the size that was checked, and checks the CRC."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, _BLOCK)
