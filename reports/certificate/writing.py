"""Writes a certificate as a page, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliqa_bench._version import __version__
from cliqa_bench.reports.certificate.certificate_page import certificate_page
from cliqa_bench.reports.certificate.certificate_text import certificate_text
from cliqa_bench.reports.certificate.evidence import ReleaseEvidence
from cliqa_bench.reports.certificate.findings import SetFindings, findings_of
from cliqa_bench.reports.certificate.verdict import ReleaseCheck, ReleaseLimits, checks_of
from cliqa_bench.results.nodes import without_nan, write_json, write_text

FORMAT = 1
"""Of the JSON file; raised when a field changes its meaning."""


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, and where it is.

    Attributes:
        checks: What the release was held to.
        page: The page for people.
    """

    checks: list[ReleaseCheck]
    page: Path

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        return all(check.holds for check in self.checks)


def write_certificate(
    release: ReleaseEvidence,
    limits: ReleaseLimits,
    folder: Path,
    picture: Callable[[Path], bytes],
) -> Certificate:
    """Computes what follows from the evidence, and writes `report.html`, `report.md` and `report.json`.

    Args:
        release: The evidence.
        limits: What the user asks.
        folder: Where they go.
        picture: Makes a small JPEG file of a picture; b"" for none.

    Raises:
        UserError: If a file cannot be written.
    """
    sets = [findings_of(one, release.tau) for one in release.sets]
    checks = checks_of(release, sets, limits)
    certificate = Certificate(checks, folder / "report.html")
    body = certificate_json(release, limits, sets, certificate)
    write_json(folder / "report.json", body)
    write_text(folder / "report.md", certificate_text(release, sets, checks, certificate.passed))
    page = certificate_page(release, sets, checks, certificate.passed, picture)
    write_text(certificate.page, page)
    return certificate


def certificate_json(
    release: ReleaseEvidence, limits: ReleaseLimits, sets: list[SetFindings], certificate: Certificate
) -> dict[str, Any]:
    """Returns all of a certificate, numbers unrounded, nan as null."""
    body = {
        "format": FORMAT,
        "version": __version__,
        "passed": certificate.passed,
        "checks": [check._asdict() for check in certificate.checks],
        "limits": limits._asdict(),
        "old": release.old._asdict(),
        "new": release.new._asdict() | {"released_sha256": release.released[0]},
        "learned": release.learned,
        "tau": release.tau,
        "stages": release.stages,
        "test_sets": [_set_json(one) for one in sets],
        "not_scored": [one._asdict() for one in release.unscored],
        "facts": release.facts,
        "command": release.command,
    }
    plain: dict[str, Any] = without_nan(body)
    return plain


def _set_json(one: SetFindings) -> dict[str, Any]:
    seen, bound = one.evidence, one.bound
    columns = zip(
        seen.keys.tolist(),
        seen.mos.tolist(),
        seen.before.tolist(),
        seen.after.tolist(),
        bound.bound.tolist(),
        bound.weight.tolist(),
        strict=True,
    )
    names = ("key", "mos", "before", "after", "bound", "new_weight")
    return {
        "name": seen.name,
        "title": seen.title,
        "added": seen.added,
        "n": len(seen.keys),
        "srcc_before": one.before._asdict(),
        "srcc_after": one.after._asdict(),
        "srcc_change": one.change._asdict(),
        "largest_change": float(one.real.max(initial=0.0)),
        "largest_bound": float(bound.bound.max(initial=0.0)),
        "bounds_broken": one.broken,
        "median_share_of_bound": one.tightness,
        "old_heads_differ_by": one.heads_apart,
        "moved": [moved._asdict() for moved in one.moved],
        "pictures": [dict(zip(names, row, strict=True)) for row in columns],
    }
