"""`clean`: what nothing uses any more in an output folder and in the cache. Imports no torch.

What is listed is ours, which its name and content tell, and no run record needs it. While something is
removed, no run is at work in the folder: each run holds a lock in `<out>/in_use/` (see `at_work`) and waits
for `clean`. A node gets a temporary name before it is removed, so that no half of one is ever seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from cliqa_bench.benchmarks.pixels.cache import outdated
from cliqa_bench.errors import UserError
from cliqa_bench.models.pretraining_config import DISTORTION_BN, pretraining
from cliqa_bench.paths import cache_root
from cliqa_bench.results.nodes import CHECKPOINTS, CLAIMS, IN_USE, KINDS, read_json
from cliqa_bench.results.records import RunRecord, read_record, record_files
from cliqa_bench.system.disk import is_orphan, size_of, temporary_prefix
from cliqa_bench.system.locks import (
    claimed,
    is_held,
    is_unknown,
    locked,
    owner,
    sweep_lock,
    sweep_locks,
    watch_leases,
)
from cliqa_bench.terminal import text_table

_CLEANING = "clean.lock"
_NODE = re.compile(r"[^.].*-[0-9a-f]{12}")
_OURS = re.compile(r"process \d+ on ")
"""How the content of a lock begins."""
_CACHES = ("decoded", "distortion-bn", "pretrain", "hashes", "rules", "profiles")


class Unused(NamedTuple):
    """Something that nothing uses.

    Attributes:
        kind: What it is; "leftover" is a temporary file or folder of a process that was killed.
        root: The output folder or the cache folder.
        path: The file or folder.
        why: Why nothing uses it.
        size: In bytes.
    """

    kind: Literal["node", "checkpoint", "leftover", "lock", "gate network", "decoded images"]
    root: Path
    path: Path
    why: str
    size: int


@dataclass
class Cleanup:
    """What is unused, or was removed.

    Attributes:
        unused: The files and folders.
        notes: What is left alone though no run record names it, and who is at work; a line each.
    """

    unused: list[Unused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# -- who is at work ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_work(out: Path) -> Iterator[None]:
    """Keeps `clean` from removing anything in an output folder meanwhile; waits for one that is running.

    Raises:
        UserError: If the folder cannot be written.
    """
    folder = out / IN_USE
    try:
        # its own lock first, then a look at that of `clean`, which does the reverse: one sees the other
        with locked(folder / f"{os.getpid()}-{secrets.token_hex(4)}.lock", ""):
            if is_held(folder / _CLEANING):
                with locked(folder / _CLEANING, f"that cleans {out}"):
                    pass
            yield
    finally:
        sweep_locks(folder)


def workers(out: Path) -> list[str]:
    """Returns which runs are at work in an output folder, in words."""
    return list(dict.fromkeys(owner(path) for path in _locks(out) if is_held(path) or is_unknown(path)))


def _locks(out: Path) -> list[Path]:
    found = [*(out / IN_USE).glob("*.lock"), *(out / CLAIMS).glob("*.lock")]
    return sorted(path for path in found if path.name != _CLEANING)


# -- what is unused ------------------------------------------------------------------------------------------


def find_unused(out: Path, alone: bool = False) -> Cleanup:
    """Lists what nothing uses any more; changes nothing.

    Args:
        out: Folder of the results.
        alone: Whether it is known that no run is at work in it, on any machine: then also what another
            machine has left half-written.

    Raises:
        UserError: If there is no run in it, or a run record is broken: what it needs is not known then.
    """
    needed, cache = _needed(out), cache_root()
    found = Cleanup()
    _add_nodes(found, out, needed)
    found.unused += _checkpoints(out, needed)
    reports = (out / "report", *(out / "report").glob("*/"))
    found.unused += _leftovers(out, (out, out / "runs", *reports))
    found.unused += _leftovers(out, (out / name for name in (*KINDS, CHECKPOINTS)), alone)
    found.unused += _stale_locks(out, (CLAIMS, IN_USE))
    found.unused += [*_gate_networks(cache), *_decoded_images(cache)]
    found.unused += _leftovers(cache, (cache / name for name in _CACHES))
    found.unused += _stale_locks(cache, _CACHES)
    found.notes += [f"{who} is at work in {out}; --yes is refused until it has ended" for who in workers(out)]
    return found


def _needed(out: Path) -> set[str]:
    """Returns the ids of all nodes that the run records of an output folder name."""
    records = [read_record(path) for path in record_files(out)]
    if not records:
        raise UserError(f"no runs in {out}: there is nothing to clean; give the --out folder of a run")
    return set().union(*map(_named, records))


def _named(record: RunRecord) -> set[str]:
    heads = {node for step in record.steps for node, _ in step.heads}
    told = [*record.answers.values(), *record.validation.values()]
    answers = {node for by_test in told for node in by_test.values()}
    pictures = (record.facts.get("pictures") or {}).values()
    parts = record.facts.get("built_from") or ()
    return {*heads, *parts, *record.gates.values(), *record.answers, *answers, *pictures}


def _add_nodes(found: Cleanup, out: Path, needed: set[str]) -> None:
    for kind in KINDS:
        for folder in sorted((out / kind).glob("[!.]*")):
            if folder.name in needed:
                continue
            if why := _not_ours(folder):
                found.notes.append(f"{folder} is left alone: {why}")
            else:
                found.unused.append(Unused("node", out, folder, "no run record names it", size_of(folder)))


def _not_ours(folder: Path) -> str:
    """Returns why a folder is not ours to remove; "" if it is a finished node and nothing else."""
    if folder.is_symlink() or not folder.is_dir() or not _NODE.fullmatch(folder.name):
        return "it is not a node"
    try:
        done = read_json(folder / "done.json")
    except UserError:
        return "its done.json cannot be read"
    if not isinstance(done, dict) or done.get("id") != folder.name or not isinstance(done.get("files"), dict):
        return "its done.json describes something else"
    others = sorted(path.name for path in folder.iterdir() if path.name not in {*done["files"], "done.json"})
    return f"its done.json does not name {others[0]}" if others else ""


def _checkpoints(out: Path, needed: set[str]) -> Iterator[Unused]:
    for path in sorted((out / CHECKPOINTS).glob("[!.]*.safetensors")):
        if not _NODE.fullmatch(path.stem):
            continue
        if (out / "train" / path.stem / "done.json").is_file():
            yield Unused("checkpoint", out, path, "its training is finished", size_of(path))
        elif path.stem not in needed:
            yield Unused("checkpoint", out, path, "no run record names its training", size_of(path))


def _leftovers(root: Path, folders: Iterable[Path], alone: bool = False) -> Iterator[Unused]:
    for path in (path for folder in folders for path in sorted(folder.glob(".*~*~*~*"))):
        if is_orphan(path, alone):
            yield Unused("leftover", root, path, "its process was killed", size_of(path))


def _stale_locks(root: Path, names: Iterable[str]) -> Iterator[Unused]:
    for path in (path for name in names for path in sorted((root / name).glob("[!.]*.lock"))):
        if _OURS.match(owner(path)) and not is_held(path):
            yield Unused("lock", root, path, "its process was killed", size_of(path))


def _gate_networks(cache: Path) -> Iterator[Unused]:
    for path in sorted((cache / "distortion-bn").glob("[!.]*.safetensors")):
        if why := _outdated_network(path):
            yield Unused("gate network", cache, path, why, size_of(path))
    for path in sorted((cache / "pretrain").glob("[!.]*.safetensors")):
        if (cache / "distortion-bn" / path.name).is_file():
            yield Unused("checkpoint", cache, path, "its training is finished", size_of(path))


def _outdated_network(path: Path) -> str:
    """Returns why no command reads a gate network; "" if one may, or the file is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            made = json.loads(file.metadata()["made_by"])
        del made["accuracy"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return ""
    today = [pretraining(config) for config in DISTORTION_BN.values()]
    if made in today:
        return ""
    same = made.get("pictures_version") == today[0]["pictures_version"]
    return f"pre-trained {'with other settings' if same else 'on other pictures'} than the current ones"


def _decoded_images(cache: Path) -> Iterator[Unused]:
    for path in sorted((cache / "decoded").glob("[!.]*.images")):
        if why := outdated(path):
            yield Unused("decoded images", cache, path, why, size_of(path))


# -- removal -------------------------------------------------------------------------------------------------


def remove_unused(out: Path) -> Cleanup:
    """Removes what nothing uses any more; if it is killed, what it leaves is whole.

    Args:
        out: Folder of the results.

    Returns:
        What was removed.

    Raises:
        UserError: As `find_unused`; if a run is at work in the folder, or something cannot be removed.
    """
    _needed(out)  # no lock is made in a folder that is not an output folder
    try:
        with locked(out / IN_USE / _CLEANING, f"that cleans {out}"):
            watch_leases(_locks(out))  # a machine that died has left some
            if busy := workers(out):
                raise UserError(
                    f"{busy[0]} is at work in {out}; nothing was removed, try again when it has ended"
                )
            found = find_unused(out, alone=True)
            found.unused = [item for item in found.unused if _remove(found, item)]
    finally:
        sweep_locks(out / IN_USE)
    return found


def _remove(found: Cleanup, item: Unused) -> bool:
    """Removes one item; returns False, with a note, if it has come into use."""
    try:
        match item.kind:
            case "lock":
                sweep_lock(item.path)
            case "node":
                _remove_node(item.path)
            case "decoded images":
                return _remove_cached(found, item, outdated)
            case "gate network":
                return _remove_cached(found, item, _outdated_network)
            case _ if item.path.is_dir():
                shutil.rmtree(item.path)
            case _:
                item.path.unlink(missing_ok=True)
    except FileNotFoundError:  # a report clears what killed processes left, too
        pass
    except OSError as error:
        raise UserError(f"cannot remove {item.path}: {error.strerror or error}") from error
    return True


def _remove_node(folder: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=temporary_prefix(folder.name), dir=folder.parent))
    try:
        folder.rename(aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_cached(found: Cleanup, item: Unused, outdated: Callable[[Path], str]) -> bool:
    """Removes a file of the cache, unless a run in any output folder is making it again or has done so."""
    lock = item.path.with_suffix(".lock")
    with claimed(lock) as free:
        if free and outdated(item.path):
            item.path.unlink()
            return True
    found.notes.append(f"{item.path} is left alone: another run is making it again")
    return False


# -- words ---------------------------------------------------------------------------------------------------


def render(found: Cleanup, removed: bool) -> str:
    """Returns a line for each file and folder, with kind, size and reason, and a total.

    Args:
        found: What to show.
        removed: Whether it was removed.
    """
    blocks = []
    for root in dict.fromkeys(item.root for item in found.unused):
        items = [item for item in found.unused if item.root == root]
        title = f"{'removed from' if removed else 'unused in'} {root}:"
        cells = [(i.kind, _size(i.size), str(i.path.relative_to(i.root)), i.why) for i in items]
        blocks.append(f"{title}\n{textwrap.indent(text_table(cells, right={1}), '  ')}")
    if found.notes:
        blocks.append("\n".join(f"note: {note}" for note in found.notes))
    n, size = len(found.unused), _size(sum(item.size for item in found.unused))
    total = f"{n} {'item' if n == 1 else 'items'}, {size}"
    done = "removed" if removed else "unused; nothing was removed, add --yes to remove"
    return "\n\n".join([*blocks, f"{total} {done}" if n else "nothing is unused"])


def _size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 1e6 else f"{n / 1e3:,.1f} kB"
