"""A certificate as one HTML file: pictures, charts and style are inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from cliqa_bench._version import __version__
from cliqa_bench.reports.certificate.bound import SLACK
from cliqa_bench.reports.certificate.certificate_text import notes_of, spoken
from cliqa_bench.reports.certificate.evidence import ReleaseEvidence
from cliqa_bench.reports.certificate.findings import Moved, SetFindings, of_added
from cliqa_bench.reports.certificate.points_chart import PointSeries, points_chart, swatch
from cliqa_bench.reports.certificate.verdict import ReleaseCheck
from cliqa_bench.reports.page.shell import TEMPLATES, shell
from cliqa_bench.reports.render import number

_HERE = Path(__file__).parent / "templates"
_SCRIPTS = (TEMPLATES / "page.js", _HERE / "certificate.js")


class ChartWithLegend(NamedTuple):
    """A chart and what its points are.

    Attributes:
        drawing: The chart.
        legend: What points look like, and what they are.
        caption: What it shows.
    """

    drawing: Markup
    legend: list[tuple[Markup, str]]
    caption: str


class MovedPicture(NamedTuple):
    """A picture whose rank moved.

    Attributes:
        moved: Its ranks and scores.
        source: The picture, as a `data:` address; "" where it cannot be shown.
    """

    moved: Moved
    source: str


def certificate_page(
    release: ReleaseEvidence,
    sets: Sequence[SetFindings],
    checks: Sequence[ReleaseCheck],
    passed: bool,
    picture: Callable[[Path], bytes],
) -> str:
    """Returns a certificate as HTML.

    Args:
        release: The evidence.
        sets: What follows from it.
        checks: What the release was held to.
        passed: Whether all of it holds.
        picture: Makes a small JPEG file of a picture; b"" for none.
    """
    page = shell(_SCRIPTS, _HERE, [_HERE / "certificate.css"])
    page.environment.filters.update(digits=number, spoken=spoken)
    return page.environment.get_template("certificate.html").render(
        style=page.style,
        script=page.script,
        policy=page.policy,
        release=release,
        new=of_added(sets),
        sets=sets,
        checks=checks,
        passed=passed,
        notes=notes_of(release, sets),
        slack=SLACK,
        bounds=_bounds(sets),
        opinions=_opinions(of_added(sets)),
        moved=[(one, [_shown(one, moved, picture) for moved in one.moved]) for one in sets],
        version=__version__,
    )


def _bounds(sets: Sequence[SetFindings]) -> ChartWithLegend:
    series = [
        PointSeries(one.evidence.title, one.bound.bound, one.real, place % 7, not one.evidence.added)
        for place, one in enumerate(sets)
    ]
    drawing = points_chart(series, "bound, known before the release", "change of the score", diagonal=True)
    text = (
        "Each point is a test picture; on the dashed line, the change equals its bound. None may be above it."
    )
    return ChartWithLegend(drawing, [(swatch(one), one.label) for one in series], text)


def _opinions(new: SetFindings) -> ChartWithLegend:
    seen = new.evidence
    series = [
        PointSeries("old model", seen.mos, seen.before, 1, False),
        PointSeries("new model", seen.mos, seen.after, 0, True),
    ]
    drawing = points_chart(series, f"opinion score on {seen.title}", "score")
    text = f"Test pictures of {seen.title}: the scores of the old model, and those of the new one."
    return ChartWithLegend(drawing, [(swatch(one), one.label) for one in series], text)


def _shown(one: SetFindings, moved: Moved, picture: Callable[[Path], bytes]) -> MovedPicture:
    data = picture(one.evidence.paths[moved.place])
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""
    return MovedPicture(moved, source)
