"""The benchmark's table, for the terminal and as Markdown; numbers are rounded here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cliqa_bench.bench.measurement import Measurement
from cliqa_bench.reports.render import escape_md, table_md
from cliqa_bench.terminal import text_table

HEADS = ("row", "what", "ours", "reference", "ours / reference", "reach", "reached")
DASH = "—"


def shown(value: float) -> str:
    """Returns a number with three significant digits ("0.912", "41.3", "1,250"), or a dash."""
    if not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(values: Sequence[float]) -> str:
    return f" ({shown(min(values))}..{shown(max(values))})" if len(values) > 1 else ""


def cells(row: Measurement) -> tuple[str, ...]:
    """Returns the cells of a row: medians, with the least and greatest repeat in brackets."""
    reach = reached = reference = ratio = DASH
    what = row.what + (f"; {row.note}" if row.note else "")
    unit = f" {row.unit}" if row.unit else ""
    ours = f"{shown(row.value)}{unit}" + ("" if row.reference else _spread(row.ours))
    if row.ratio is not None:
        reference = f"{shown(row.reference_value)}{unit} ({row.against})"
        ratio = shown(row.ratio) + _spread(row.ratios)
    if row.reach is not None:
        least = "≥" if row.better == "higher" else "≤"
        reach = f"{least} {shown(row.reach)}{'' if row.reference else unit}"
        reached = "yes" if row.reached else "no"
    return row.row, what, ours, reference, ratio, reach, reached


def text(rows: Sequence[Measurement]) -> str:
    """Returns the table for the terminal."""
    return text_table([cells(row) for row in rows], HEADS, right=range(2, len(HEADS)))


def markdown(rows: Sequence[Measurement], about: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    """Returns the table as Markdown, with what it was measured on.

    Args:
        rows: The rows.
        about: As in `bench.json`: machine, os, setting, versions, command, date.
        failed: Group -> why it gave no (further) row.
    """
    machine, setting = about["machine"], about["setting"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"`{about['command']}`, {about['date']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.1f} GB; "
        f"GPU: {machine['gpu'] or 'none'}; {about['os']}; {versions}. Device {setting['device']}, "
        f"scoring in {setting['precision']}, {setting['threads']} threads, {setting['repeats']} repeats: "
        "medians, with the least and the greatest in brackets.",
        "",
        *table_md(HEADS, [[*map(escape_md, cells(row))] for row in rows], right=range(2, len(HEADS) - 1)),
    ]
    lines += [f"\n`{name}` failed: {escape_md(reason)}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"
