"""Whether everything works on a device: commands as a user gives them, on the miniatures.

Each check is a process or several, with one cache for all, several checks at a time. A row has the seconds
that its check took and a note of what was found; a check that goes wrong gives a `Failed` and the others go
on. On a CPU, where it is a rehearsal, everything has toy size.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cliqa_bench.bench import process
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.fixtures import pictures_source
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.benchmarks.generated.make import make_miniatures
from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.extensions.user_traceback import format_error
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.results.nodes import read_json
from cliqa_bench.system.hardware import cores
from cliqa_bench.system.signals import raise_if_stopped

ROW = "gpu-works"
INTERRUPTIBLE = "cliqa_bench.bench.interruptible"
TWO, THREE = "bid,live", "bid,live,csiq"
TOY = ("training.epochs=1", "training.warmup_epochs=1", "training.crop=32", "training.resize=64")
ON_TOKENS = "prompt"
"""The strategy that takes no other backbone than a vision transformer."""

COMMANDS = 3
"""Into how many commands the strategies are divided on a GPU."""

LIMIT = 150.0
"""Seconds after which a command on a GPU counts as hanging."""

PLUGINS = {
    "avalanche:EWCPlugin": ("avalanche:EWCPlugin.ewc_lambda=1",),
    "avalanche:SynapticIntelligencePlugin": ("avalanche:SynapticIntelligencePlugin.si_lambda=1",),
    "avalanche:ReplayPlugin": (),
}
"""Avalanche's own that learn something beside the weights -> the settings that they ask for."""


class Place(NamedTuple):
    """Where the checks find what they share.

    Attributes:
        setting: The conditions.
        data: The miniatures.
        cache: Cache folder of all commands.
    """

    setting: Conditions
    data: Path
    cache: Path

    @property
    def toy(self) -> bool:
        """Whether the work is small: on a CPU it is a rehearsal."""
        return torch.device(self.setting.device).type == "cpu"

    def folder(self) -> Path:
        """Makes a new folder."""
        return Path(tempfile.mkdtemp(dir=self.setting.folder))

    def run(
        self,
        out: Path,
        *words: str,
        device: str = "",
        precision: str = "fp32",
        until: Callable[[], bool] | None = None,
    ) -> process.Ran:
        """Does the command `run` with these words, on the device of the setting if no other is named."""
        device = device or self.setting.device
        where = ["--data", str(self.data), "--out", str(out), "--device", device, "--precision", precision]
        share = str(max(1, cores() // 4))  # several run at a time
        threads = ["--jobs", share] if device == "cpu" else ["--threads", share]
        protocol = [word for text in (TOY if self.toy else ()) for word in ("--set", text)]
        short = ["--format", "csv", "--no-figures"]
        command = ["run", *words, *where, *threads, "--preset", "quick", *protocol, *short]
        return process.run(command, self.cache, INTERRUPTIBLE, until, None if self.toy else LIMIT)


class Check(NamedTuple):
    """Something that must work.

    Attributes:
        what: What it is, in a few words.
        call: Does it; returns what it found, in one line, and raises if it went wrong.
        alone: Whether nothing else may run meanwhile.
    """

    what: str
    call: Callable[[Place], str]
    alone: bool = False


class Skipped(Exception):
    """What would be checked is not installed."""


def measure(setting: Conditions) -> Iterator[Measurement | Failed]:
    """Yields a row for every check as it ends."""
    place = prepared(setting)
    chosen = checks(place)
    for check in chosen:
        if check.alone:
            yield result(place, check)
    yield from side_by_side(place, [check for check in chosen if not check.alone])


def prepared(setting: Conditions) -> Place:
    """Makes the miniatures that all checks share."""
    place = Place(setting, setting.folder / "data", setting.folder / "cache")
    if place.toy:
        make_miniatures(place.data, 0.1, names=THREE.split(","))
    else:
        make_miniatures(place.data, names=ORDERS["I"])
    return place


def side_by_side(place: Place, chosen: Sequence[Check]) -> Iterator[Measurement | Failed]:
    """Gives the rows of checks, as they end; a command gets two cores, at toy size one."""
    pool = ThreadPoolExecutor(cores() if place.toy else max(1, cores() // 2))
    futures = [pool.submit(result, place, check) for check in chosen]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _end(futures)


def _end(futures: Sequence[Future[Any]]) -> None:
    """Ends the commands of checks that are still running: when stopped, they must not outlive us."""
    while not all(future.done() for future in futures):
        process.end_all()
        wait(futures, timeout=0.2)


def result(place: Place, check: Check) -> Measurement | Failed:
    """Does a check; returns its row, or why it failed."""
    what = f"{check.what}, on {place.setting.device}{' at toy size' if place.toy else ''}"
    start = time.perf_counter()
    try:
        note = check.call(place)
    except Skipped as reason:
        return Measurement(ROW, what, (math.nan,), "s", note=f"skipped: {reason}")
    except UserError as error:
        raise_if_stopped()
        return Failed(what, " ".join(str(error).split()))
    except Exception as error:  # the other checks do not depend on it
        raise_if_stopped()
        print(format_error(error), end="", file=sys.stderr, flush=True)
        return Failed(what, " ".join(f"{type(error).__name__}: {error}".split()))
    return Measurement(ROW, what, (time.perf_counter() - start,), "s", note=note)


def checks(place: Place) -> list[Check]:
    """Returns all checks, the longest first."""
    main = ("--strategy", "tsn", "--orders", TWO if place.toy else "all")
    return [
        Check("scoring after a real out-of-memory error", out_of_memory, alone=True),
        Check("main job in fp32", partial(against_cpu, words=main)),
        *backbone_checks(place),
        Check("tsn repeated with one seed", spread),
        Check("main job in bf16", partial(runs, words=main, precision="bf16")),
        Check("begun on the device, ended on the CPU", partial(resumed, devices=("", "cpu"))),
        Check("begun on the CPU, ended on the device", partial(resumed, devices=("cpu", ""))),
        Check("--deterministic twice, tsn and lwf", deterministic),
        *strategy_checks(place),
    ]


def strategy_checks(place: Place) -> list[Check]:
    """Returns checks of every strategy but tsn, and what needs tokens; several in a command."""
    first = ["lwf", "si", "mas", "replay"]
    others = (name for name in registry.names("strategies") if name not in (*first, "tsn", ON_TOKENS))
    names = [*first, *others, *PLUGINS]
    if place.toy:
        return [Check(f"strategies {', '.join(names)}", partial(runs, words=_learning(names)))]
    parts = (names[i::COMMANDS] for i in range(COMMANDS))
    return [
        Check(f"strategies {', '.join(part)}", partial(against_cpu, words=_learning(part))) for part in parts
    ]


def _learning(names: Sequence[str]) -> tuple[str, ...]:
    settings = [word for name in names for text in PLUGINS.get(name, ()) for word in ("--set", text)]
    return ("--strategy", ",".join(names), "--orders", TWO, *settings)


def backbone_checks(place: Place) -> list[Check]:
    """Returns a check for each of some backbones; at toy size of a small ViT, and no gate to pre-train.

    What needs tokens is checked on the backbone that has some.
    """
    strategy = "jl" if place.toy else "tsn"
    vit = f"timm:{'test_vit' if place.toy else 'vit_tiny_patch16_224'}"
    words = ("--strategy", strategy, "--orders", TWO, "--weights", "random", "--backbone")
    tokens = ("--strategy", ON_TOKENS, "--orders", TWO, "--backbone", "vit_mini")
    return [
        *(
            Check(f"backbone {name}, {strategy}", partial(backbone, words=(*words, name)))
            for name in (vit, "two_stream", "resnet18")
        ),
        Check(f"backbone vit_mini, {ON_TOKENS}", partial(backbone, words=tokens)),
    ]


# -- runs and their numbers ----------------------------------------------------------------------------------


def runs(place: Place, words: Sequence[str], precision: str = "fp32") -> str:
    """Checks that a command works; reports its SRCC."""
    out = place.folder()
    place.run(out, *words, precision=precision)
    return summary(srccs(out))


def backbone(place: Place, words: Sequence[str]) -> str:
    """Checks a backbone, unless it is one of timm's and timm is not installed."""
    if words[-1].startswith("timm:") and find_spec("timm") is None:
        raise Skipped("timm is not installed")
    return runs(place, words)


def against_cpu(place: Place, words: Sequence[str]) -> str:
    """Checks that a command works; reports how far its SRCC are from those of a CPU."""
    ours, theirs = place.folder(), place.folder()
    here = place.run(ours, *words).seconds
    there = place.run(theirs, *words, device="cpu").seconds
    found = srccs(ours)
    apart = apart_by(found, srccs(theirs))
    took = f"{here:.1f} s, on the CPU {there:.1f} s"
    return (
        f"{summary(found)}; differs from the CPU by {median(apart):.2g} (median) and "
        f"{max(apart):.2g} (most); {took}"
    )


SRCCs = dict[tuple[str, ...], float]
"""What a SRCC is of -> its value, nan where it is undefined."""


def srccs(out: Path) -> SRCCs:
    """Returns the SRCC of every model on every test set, from `results.csv`.

    Raises:
        UserError: If there is none.
    """
    table = pd.read_csv(out / "report" / "results.csv", dtype=str).query("metric == 'SRCC'")
    of = [name for name in table if name not in ("value", "std", "note")]
    keys = table[of].fillna("").itertuples(index=False, name=None)
    found = dict(zip(keys, table["value"].astype(float), strict=True))
    if not found:
        raise UserError(f"{out / 'report' / 'results.csv'} holds no SRCC")
    return found


def summary(found: SRCCs) -> str:
    """Returns how many SRCC there are, and their mean, in words."""
    defined = [value for value in found.values() if not math.isnan(value)]
    undefined = f", {len(found) - len(defined)} undefined" if len(defined) < len(found) else ""
    return f"mean of {len(found)} SRCC {fmean(defined) if defined else math.nan:.3f}{undefined}"


def apart_by(ours: SRCCs, theirs: SRCCs) -> list[float]:
    """Returns absolute differences; infinite where one side has a number and the other has none.

    Raises:
        UserError: If they are not SRCC of the same things.
    """
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise UserError(f"SRCC on one side only: {len(odd)}, such as that of {' '.join(odd[0])}")
    return [_apart(ours[key], theirs[key]) for key in ours]


def _apart(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b)


# -- memory --------------------------------------------------------------------------------------------------


class Hungry:
    """A network that allocates memory for every image: two fit, three do not.

    Attributes:
        failed: How often it did not fit.

    Args:
        device: Where it takes it; on a GPU, two fifths of what is free for an image.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.failed = device, 0
        cuda = device.type == "cuda"
        self._share = int(0.4 * torch.cuda.mem_get_info(device)[0]) if cuda else 0

    def __call__(self, images: Tensor) -> Tensor:
        """Returns what `outermost` returns, if the memory is there."""
        try:
            torch.empty(self._bytes(len(images)), dtype=torch.uint8, device=self.device)
        except Exception:
            self.failed += 1
            raise
        return outermost(images)

    def _bytes(self, images: int) -> int:
        if self._share:
            return images * self._share
        return images << (10 if images <= 2 else 50)  # a petabyte is more than a process can address


def outermost(images: Tensor) -> Tensor:
    """Returns the largest, the smallest and the first value of images: the same bits in any batch."""
    flat = images.flatten(1)
    return torch.stack([flat.amax(1), flat.amin(1), flat[:, 0]], dim=1)


def out_of_memory(place: Place) -> str:
    """Checks that scores do not depend on whether memory ran out on the way."""
    device = torch.device(place.setting.device)
    source = pictures_source(place.folder() / "pictures", [(80, 96)] * 9 + [(96, 128)] * 4, "test")
    hungry = Hungry(device)
    found = score_images(hungry, source, "test", 3, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if not hungry.failed:
        raise UserError("no batch was too large: memory was never used up")
    plain = score_images(outermost, source, "test", 3, device)
    if not np.array_equal(found, plain):
        raise UserError(
            f"scores after an out-of-memory error differ by up to {np.abs(found - plain).max():.3g}"
        )
    return f"batches that did not fit: {hungry.failed}; the scores of {len(found)} images are the same bits"


# -- interrupted runs ----------------------------------------------------------------------------------------


def resumed(place: Place, devices: tuple[str, str]) -> str:
    """Checks that a run interrupted on one device is ended on another, and that `verify` agrees.

    Args:
        place: Where.
        devices: Where it begins and where it ends; "" for the device of the setting.
    """
    out = place.folder()
    words = ("--strategy", "lwf", "--orders", THREE)
    place.run(out, *words, device=devices[0], until=lambda: bool(trained(out)))
    first = trained(out)
    place.run(out, *words, device=devices[1])
    process.run(["verify", str(out)], place.cache)
    last = trained(out)
    if len(first) == len(last):
        raise UserError("all was trained before the run was interrupted")
    if not first.items() <= last.items():
        raise UserError(f"what was trained before the interruption was trained again: {first}, {last}")
    then = [device for node, device in last.items() if node not in first]
    return (
        f"trained on {', '.join(first.values())} before the interruption, on {', '.join(then)} after it; "
        "verify finds nothing wrong"
    )


def trained(out: Path) -> dict[str, str]:
    """Returns the finished trainings of a folder, and the device of each."""
    files = sorted((out / "train").glob("[!.]*/done.json"))
    return {file.parent.name: str(read_json(file)["facts"]["device"]) for file in files}


# -- the same bits -------------------------------------------------------------------------------------------

Arrays = dict[str, NDArray[Any]]
"""Node, file and name -> array."""


def deterministic(place: Place) -> str:
    """Checks that two runs with --deterministic give the same bits."""
    outs = [place.folder(), place.folder()]
    for out in outs:
        place.run(out, "--strategy", "tsn,lwf", "--orders", TWO, "--deterministic")
    first, second = map(arrays, outs)
    if changed := differences(first, second):
        most = max(changed, key=changed.__getitem__)
        raise UserError(
            f"{len(changed)} of {len(first)} arrays differ, {most} the most: by up to {changed[most]:.3g}"
        )
    return f"{len(first)} arrays of weights and answers are the same bits"


def spread(place: Place) -> str:
    """Measures how much runs with the same seed differ without `--deterministic`."""
    outs = [place.folder() for _ in range(2 if place.toy else 5)]
    for out in outs:
        place.run(out, "--strategy", "tsn", "--orders", TWO)
    found = list(map(srccs, outs))
    for other in found[1:]:
        apart_by(found[0], other)  # of the same things
    wide = [max(f[key] for f in found) - min(f[key] for f in found) for key in found[0]]
    first = arrays(outs[0])
    changed = {name for out in outs[1:] for name in differences(first, arrays(out))}
    return (
        f"{len(outs)} runs: {len(wide)} SRCC spread by {min(wide):.3g} to {max(wide):.3g}; "
        f"{len(changed)} of {len(first)} arrays differ in bits"
    )


def arrays(out: Path) -> Arrays:
    """Returns weights, statistics, gates and answers of an output folder."""
    found: Arrays = {}
    for path in sorted(out.glob("*/[!.]*/*")):
        if path.suffix == ".safetensors":
            parts: Mapping[str, Any] = {k: v.numpy() for k, v in load_file(path).items()}
        elif path.suffix == ".npz":
            with np.load(path) as archive:
                parts = dict(archive)
        else:
            continue
        found |= {f"{path.relative_to(out)} {name}": part for name, part in parts.items()}
    return found


def differences(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """Returns the arrays whose bits differ, and by how much; infinite where only one side has them."""
    found = dict.fromkeys(ours.keys() ^ theirs.keys(), math.inf)
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or a.dtype != b.dtype or not np.issubdtype(a.dtype, np.number):
            if a.shape != b.shape or not np.array_equal(a, b):
                found[name] = math.inf
        elif a.tobytes() != b.tobytes():
            found[name] = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    return found
