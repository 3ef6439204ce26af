"""A certificate as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cliqa_bench._version import __version__
from cliqa_bench.reports.certificate.bound import SLACK
from cliqa_bench.reports.certificate.evidence import ReleaseEvidence
from cliqa_bench.reports.certificate.findings import SetFindings, SrccInterval, of_added
from cliqa_bench.reports.certificate.verdict import ReleaseCheck
from cliqa_bench.reports.render import escape_md, number, table_md

FORMULA = "|change| ≤ mean over stages s of n_s · |h − o_s|"
"""The bound, in one line."""

WHERE = (
    "n_s is the new head's weight in stage s of the gate, h its score, and o_s what the old model would say "
    "with the weights of that stage alone"
)


def certificate_text(
    release: ReleaseEvidence, sets: Sequence[SetFindings], checks: Sequence[ReleaseCheck], passed: bool
) -> str:
    """Returns a certificate as Markdown.

    Args:
        release: The evidence.
        sets: What follows from it.
        checks: What the release was held to.
        passed: Whether all of it holds.
    """
    new = of_added(sets).evidence
    lines = [
        f"# {escape_md(new.title)} added to {escape_md(', '.join(release.learned))}: "
        + ("pass" if passed else "FAIL"),
        "",
        *_table(["", "asked", "found"], [["pass" if c.holds else "FAIL", c.asked, c.found] for c in checks]),
        "",
        *_table(
            ["file", "SHA-256", "scored by process"],
            [
                [f"old: {release.old.file}", release.old.sha256, str(release.old.process)],
                [f"new: {release.new.file}, as scored", release.new.sha256, str(release.new.process)],
                [f"new: {release.new.file}, with its answers", release.released[0], ""],
            ],
        ),
        "",
        "## Agreement with opinions",
        "SRCC on the test sets, before and after, with 95 % intervals; those of the change are paired.",
        "",
        *_table(
            ["test set", "pictures", "before", "after", "change"],
            [
                [
                    _title(one),
                    f"{len(one.real):,}",
                    spoken(one.before),
                    spoken(one.after),
                    spoken(one.change, signed=True),
                ]
                for one in sets
            ],
        ),
        *_notes(release, sets),
        "",
        "## How far scores move",
        f"{FORMULA}: {WHERE}. Rounding may add {SLACK:.1e}.",
        "",
        *_table(
            ["test set", "largest change", "largest bound", "median share of the bound", "beyond the bound"],
            [
                [
                    _title(one),
                    number(float(one.real.max(initial=0)), 4),
                    number(float(one.bound.bound.max(initial=0)), 4),
                    number(one.tightness, 3),
                    str(one.broken),
                ]
                for one in sets
            ],
        ),
        "",
        "## Ranks that moved most",
        *_moved(sets),
        "## Review",
        "",
        "| reviewed by | date | signature |",
        "|---|---|---|",
        "| | | |",
        "",
        f"Made by cliqa_bench {__version__}: `{release.command}`",
    ]
    return "\n".join(lines) + "\n"


def spoken(value: SrccInterval, signed: bool = False) -> str:
    """Returns an SRCC with its interval, as printed."""
    text = ("+" if signed and value.value > 0 else "") + number(value.value)
    return text if value.low != value.low else f"{text} [{number(value.low)}, {number(value.high)}]"


def notes_of(release: ReleaseEvidence, sets: Sequence[SetFindings]) -> list[str]:
    """Returns the remarks that belong to the numbers, a sentence each."""
    found = []
    if release.facts.get("generated"):
        found.append(
            "Some of the data are generated miniatures: the numbers are not comparable with published ones."
        )
    if few := [one.evidence.title for one in sets if one.few]:
        found.append(f"Too few contents on {', '.join(few)}: intervals there are over pictures.")
    if apart := max((one.heads_apart for one in sets), default=0.0):
        found.append(f"Scores of old heads differ by up to {apart:.1e} between the two processes.")
    for one in release.unscored:
        known = "" if one.srcc is None else f"; SRCC of the old model, by its file: {number(one.srcc)}"
        found.append(f"{one.title} was not scored: {one.reason}{known}.")
    return found


def _notes(release: ReleaseEvidence, sets: Sequence[SetFindings]) -> list[str]:
    return [line for note in notes_of(release, sets) for line in ("", escape_md(note))]


def _title(one: SetFindings) -> str:
    return f"{one.evidence.title} (new)" if one.evidence.added else one.evidence.title


def _moved(sets: Sequence[SetFindings]) -> list[str]:
    lines = []
    for one in sets:
        rows = [
            [m.key, f"{m.rank_before:g} → {m.rank_after:g}", f"{m.before:.4f} → {m.after:.4f}", f"{m.mos:g}"]
            for m in one.moved
        ]
        lines += ["", f"**{escape_md(_title(one))}**", ""]
        lines += _table(["picture", "rank", "score", "opinion"], rows) if rows else ["No rank moved."]
    return [*lines, ""]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return table_md(heads, [[*map(escape_md, row)] for row in rows])
