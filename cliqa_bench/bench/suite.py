"""Measures groups of rows one after the other, and writes the results."""

from __future__ import annotations

import datetime
import math
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from cliqa_bench.bench import bench_rows as rows
from cliqa_bench.bench import table
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.measurement import Failed, Measurement
from cliqa_bench.errors import UserError
from cliqa_bench.extensions.user_traceback import format_error
from cliqa_bench.paths import user_path
from cliqa_bench.progress import bar
from cliqa_bench.results.nodes import without_nan, write_json, write_text
from cliqa_bench.settings.resolve import chosen_precision
from cliqa_bench.system.compute import resolve_device
from cliqa_bench.system.hardware import cores, cpu_model, memory_bytes
from cliqa_bench.system.signals import STOPS, exit_code, raise_if_stopped
from cliqa_bench.system.versions import versions


@dataclass
class Results:
    """What was measured, and what failed.

    Attributes:
        about: Machine, operating system, versions, setting, command, date.
        rows: The rows, in the order in which they were measured.
        failed: Group -> why it gave no (further) row, in one line; "group: what" -> why that check failed.
    """

    about: dict[str, Any]
    rows: list[Measurement] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Writes `bench.json` (every repeat, unrounded) and `bench.md`.

        Raises:
            UserError: If the folder cannot be written.
        """
        found = [
            without_nan(asdict(row) | {"value": row.value, "ratio": row.ratio, "reached": row.reached})
            for row in self.rows
        ]
        write_json(out / "bench.json", {**self.about, "rows": found, "failed": self.failed})
        write_text(out / "bench.md", table.markdown(self.rows, self.about, self.failed))


def bench(groups: Sequence[str], setting: Conditions, out: Path, command: str) -> int:
    """Measures groups of rows, prints their table, and writes it to a folder after every row.

    A group that fails is named, with what went wrong, and the others go on. Stopped, it shows what it has.

    Args:
        groups: Names of `rows.GROUPS`.
        setting: The conditions; every group gets a folder of its own inside `setting.folder`.
        out: Folder of `bench.json` and `bench.md`.
        command: The command line that would do it again.

    Returns:
        0, 1 if a group or a check failed, 130 or 143 if it was stopped.

    Raises:
        UserError: If the output folder cannot be written.
    """
    results, code = Results(_about(setting, command)), 0
    try:
        with bar(len(groups), "bench", "group") as shown, _threads(setting):
            for name in groups:
                shown.note(name)
                _measure(name, setting, results, out)
                shown.update()
    except STOPS as stop:
        print("\ncliqa-bench: interrupted; the same command starts over; measured so far:", file=sys.stderr)
        code = exit_code(stop)
    print(table.text(results.rows))
    for name, reason in results.failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    print(f"\nall repeats and what they were measured on are in {out / 'bench.json'} and {out / 'bench.md'}")
    return code or int(bool(results.failed))


@contextmanager
def settled(flags: Mapping[str, Any]) -> Iterator[Conditions]:
    """Turns the command's flags into conditions, with a folder that is removed at the end.

    Raises:
        UserError: If the device does not exist here, or a number or name is wrong.
    """
    for name, least in (("repeats", 1), ("threads", 1)):
        if flags[name] is not None and flags[name] < least:
            raise UserError(f"--{name} must be at least {least}, not {flags[name]}")
    if not 0 < flags["scale"] < math.inf:
        raise UserError(f"--scale must be above 0, not {flags['scale']}")
    device = resolve_device(flags["device"])
    runs = flags["runs"] and user_path(flags["runs"])
    against = flags["against"] and user_path(flags["against"])
    with tempfile.TemporaryDirectory(prefix="cliqa-bench-") as folder:
        yield Conditions(
            device=str(device),
            precision=chosen_precision(flags["precision"], str(device)),
            threads=flags["threads"] or cores(),
            repeats=flags["repeats"],
            folder=Path(folder),
            runs=runs,
            scale=flags["scale"],
            against=against,
        )


def _measure(name: str, setting: Conditions, results: Results, out: Path) -> None:
    """Adds a group's rows, or why there are none, to the results, and writes them as they come."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=setting.folder) as folder:
        results.write(out)
        try:
            for row in rows.measure(name, replace(setting, folder=Path(folder))):
                if isinstance(row, Failed):
                    results.failed[f"{name}: {row.what}"] = row.reason
                else:
                    results.rows.append(row)
                results.write(out)
        except Exception as error:  # the other groups do not depend on it
            raise_if_stopped()
            reason = str(error)
            if not isinstance(error, UserError):
                print(format_error(error), end="", file=sys.stderr)
                reason = f"{type(error).__name__}: {error}"
            results.failed[name] = " ".join(reason.split())
        results.write(out)


def _about(setting: Conditions, command: str) -> dict[str, Any]:
    device = torch.device(setting.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_model(), "cores": cores(), "memory_bytes": memory_bytes(), "gpu": gpu},
        "os": platform.platform(),
        "versions": versions(),
        "setting": {
            "device": setting.device,
            "precision": setting.precision,
            "threads": setting.threads,
            "repeats": setting.repeats,
            "scale": setting.scale,
        },
    }


@contextmanager
def _threads(setting: Conditions) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        with threadpool_limits(setting.threads):
            yield
    finally:
        torch.set_num_threads(before)
