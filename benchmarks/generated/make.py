"""Makes the miniatures: on one machine bit-identical for a seed, whatever the number of processes.

On another processor a pixel in some thousands may be one level brighter or darker, and a label differ in its
last digits: NumPy, OpenBLAS and PyTorch compute there with other instructions.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.aspect_labels import FILE as ASPECTS
from cliqa_bench.benchmarks.aspect_labels import aspects_csv
from cliqa_bench.benchmarks.generated.dominant import dominant_aspects
from cliqa_bench.benchmarks.generated.further import AgiqaLayout, FliveLayout, SpaqLayout, TidLayout
from cliqa_bench.benchmarks.generated.layouts import NOTE, Layout
from cliqa_bench.benchmarks.generated.photographs import BidLayout, CliveLayout, KoniqLayout
from cliqa_bench.benchmarks.generated.scenes import Scene, make_scene
from cliqa_bench.benchmarks.generated.synthetic import CsiqLayout, KadidLayout, LiveLayout
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.paths import cache_root
from cliqa_bench.progress import bar
from cliqa_bench.results.nodes import read_json, write_json
from cliqa_bench.system.disk import cannot_write, sweep, sync, sync_tree, temporary_prefix
from cliqa_bench.system.locks import locked, sweep_lock
from cliqa_bench.system.processes import processes as at_work

VERSION = 2
"""Raised whenever the pictures or labels of a seed change."""

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        LiveLayout(), CsiqLayout(), BidLayout(), CliveLayout(), KoniqLayout(), KadidLayout(),
        TidLayout(), SpaqLayout(), AgiqaLayout(), FliveLayout(),
    )
}  # fmt: skip


def default_root(seed: int = 0, scale: float = 1.0) -> Path:
    """Returns where the miniatures of a seed and scale are: in $CLIQA_CACHE, else ~/.cache/cliqa_bench."""
    return cache_root() / f"miniatures-v{VERSION}-seed{seed}-scale{scale:g}"


def _facts(scale: float, seed: int) -> dict[str, str | int | float]:
    return {"generator": "cliqa_bench", "version": VERSION, "seed": seed, "scale": float(scale)}


def _finished(folder: Path, scale: float, seed: int) -> bool:
    """Tells whether a folder holds exactly this miniature.

    Raises:
        UserError: If something else is there, which must not be overwritten.
    """
    marker = folder / "generated.json"
    if not folder.exists():
        return False
    found = read_json(marker) if marker.is_file() else {}
    wanted = _facts(scale, seed)
    if isinstance(found, dict) and all(found.get(k) == v for k, v in wanted.items()):
        return True
    what = "is not a generated dataset" if not found else "was generated with another version, seed or scale"
    raise UserError(f"{folder} exists and {what}; choose another folder or remove it")


def made(root: Path, names: Sequence[str], scale: float = 1.0, seed: int = 0) -> bool:
    """Tells whether all of these miniatures are there; see `make_miniatures`."""
    return all(_finished(root / LAYOUTS[name].folder, scale, seed) for name in _with_layout(names))


def _with_layout(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in LAYOUTS:
            registry.check("datasets", name)  # a misspelt name is answered with the nearest
            there = ", ".join(LAYOUTS)
            raise UserError(f"there are no generated miniatures of {name} (only of {there}); give --data DIR")
    return list(names)


def make_miniatures(
    root: Path,
    scale: float = 1.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    processes: int | None = None,
) -> None:
    """Makes the miniatures that are not there yet; each appears whole or not at all.

    Args:
        root: Folder that will hold `databaserelease2`, `CSIQ`, ...
        scale: Multiplies the number of references and photographs; 1 gives about 2100 pictures.
        seed: Same seed, same bytes (for the same versions of numpy, scipy and Pillow, and the same kind of
            processor).
        names: Datasets to make; all by default.
        processes: Number of processes, by default one per core, at most eight; 1 makes all in this process.

    Raises:
        UserError: If a name is unknown, a folder is taken by something else, or cannot be written.
    """
    wanted = _with_layout(list(LAYOUTS) if names is None else names)
    if not 0 < scale <= 100:
        raise UserError(f"scale is {scale:g}; it must be above 0 and at most 100")
    lock = root / ".making.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        sweep_lock(lock)
        if not made(root, wanted, scale, seed):
            with locked(lock, f"that makes miniatures in {root}"):
                missing = [LAYOUTS[n] for n in wanted if not _finished(root / LAYOUTS[n].folder, scale, seed)]
                _make(root, missing, scale, seed, processes or min(8, os.cpu_count() or 1))
        for name in wanted:
            _add_aspects(root / LAYOUTS[name].folder, LAYOUTS[name], scale, seed)
    except OSError as error:
        raise cannot_write(Path(error.filename or root), error) from error


def _make(root: Path, layouts: Sequence[Layout], scale: float, seed: int, processes: int) -> None:
    plans = {layout.name: layout.scenes(scale, seed) for layout in layouts}
    total = sum(len(scene.pictures) for scenes in plans.values() for scene in scenes)
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(bar(total, "making miniatures", "image"))
        spread = stack.enter_context(at_work(processes if layouts else 1))
        for layout in layouts:
            scenes = plans[layout.name]
            partial = Path(tempfile.mkdtemp(prefix=temporary_prefix(layout.folder), dir=root))
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            partial.chmod(0o755)
            measured = spread.map(functools.partial(make_scene, partial), scenes)
            measures = []
            for scene, measure in zip(scenes, measured, strict=True):
                measures.append(measure)
                shown.update(len(scene.pictures))
            mark_generated(partial, layout, scenes, measures, scale, seed)
            sync_tree(partial)
            _move(partial, root / layout.folder, scale, seed)
            sync(root)


def _add_aspects(folder: Path, layout: Layout, scale: float, seed: int) -> None:
    """Adds what the pictures show to a dataset of an older version; everything else in it is the same."""
    if (folder / ASPECTS).is_file():
        return
    partial = folder / f"{ASPECTS}.{os.getpid()}.part"
    with contextlib.suppress(OSError):  # a read-only folder is still good for all that does not need to write
        text = aspects_csv(dominant_aspects(layout.scenes(scale, seed)))
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(folder / ASPECTS)


def _move(partial: Path, folder: Path, scale: float, seed: int) -> None:
    """Gives a finished dataset its name; if another process was faster, the same bytes are there already."""
    try:
        partial.rename(folder)
    except OSError:
        if not _finished(folder, scale, seed):
            raise


def mark_generated(
    folder: Path,
    layout: Layout,
    scenes: Sequence[Scene],
    measures: Sequence[NDArray[np.float64]],
    scale: float,
    seed: int = 0,
) -> int:
    """Writes labels, what the pictures show, the note that the data are generated, and `generated.json`.

    Args:
        folder: The dataset's folder.
        layout: Its layout.
        scenes: What it consists of.
        measures: (pictures, 4) `raters.MEASURES` of each scene's pictures; the ratings follow from them.
        scale: Goes into `generated.json`.
        seed: Seed of the raters.

    Returns:
        The number of rated images.
    """
    found = layout.write_labels(folder, scenes, measures, seed)
    (folder / ASPECTS).write_text(aspects_csv(dominant_aspects(scenes)), encoding="utf-8", newline="\n")
    (folder / layout.readme).write_text(NOTE.format(title=layout.title), newline="\n")
    write_json(folder / "generated.json", {**_facts(scale, seed), **found})
    return int(found["n_images"])
