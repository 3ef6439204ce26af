"""Points in a square, as SVG: what a certificate draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from cliqa_bench.types import Floats

_WIDTH, _HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 46
_MOST_TICKS = 6


class PointSeries(NamedTuple):
    """Points of one look.

    Attributes:
        label: What they are.
        x: (n,).
        y: (n,).
        colour: Number of the palette's colour.
        filled: Whether they are discs; else rings.
    """

    label: str
    x: Floats
    y: Floats
    colour: int
    filled: bool


def points_chart(series: Sequence[PointSeries], x_label: str, y_label: str, diagonal: bool = False) -> Markup:
    """Draws points.

    Args:
        series: The points; those that are not finite are left out.
        x_label: What is along.
        y_label: What is up.
        diagonal: Whether both axes are one scale from 0, with the line on which both are equal.
    """
    xs, ys = (np.concatenate([getattr(one, name) for one in series]) for name in ("x", "y"))
    x_range, y_range = _range(xs, diagonal), _range(ys, diagonal)
    if diagonal:
        x_range = y_range = (0.0, max(x_range[1], y_range[1]))
    x_at = AxisScale(x_range, _LEFT, _WIDTH - _RIGHT)
    y_at = AxisScale(y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_axes(x_range, y_range, x_label, y_label)]
    if diagonal:
        (x0, x1), (y0, y1) = map(x_at, x_range), map(y_at, y_range)
        parts.append(_line(x0, y0, x1, y1, 'stroke="var(--negative)" stroke-dasharray="5 4"'))
    for one in series:
        parts += _points(one, x_at, y_at)
    about = escape(f"{y_label} against {x_label}: {', '.join(one.label for one in series)}")
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{about}" font-size="13" '
        f'fill="var(--ink)">{"".join(parts)}</svg>'
    )


def swatch(one: PointSeries) -> Markup:
    """Draws what points look like, for a legend."""
    return Markup(f'<svg viewBox="0 0 34 14" aria-hidden="true">{_mark(17, 7, 4.5, one)}</svg>')


def _points(one: PointSeries, x_at: AxisScale, y_at: AxisScale) -> list[str]:
    finite = np.isfinite(one.x) & np.isfinite(one.y)
    pairs = zip(one.x[finite].tolist(), one.y[finite].tolist(), strict=True)
    return [_mark(x_at(x), y_at(y), 3.2, one) for x, y in pairs]


def _mark(x: float, y: float, radius: float, one: PointSeries) -> str:
    colour = f"var(--s{one.colour})"
    look = f'fill="{colour}" fill-opacity=".6"' if one.filled else f'fill="none" stroke="{colour}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {look}/>'


class AxisScale:
    """Where values are on the paper."""

    def __init__(self, values: tuple[float, float], start: float, end: float) -> None:
        self._low, self._start = values[0], start
        self._step = (end - start) / (values[1] - values[0])

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._step


def _range(values: Floats, from_zero: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low = 0.0 if from_zero else low
    pad = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return (low if from_zero else low - pad), high + pad


def ticks(low: float, high: float) -> list[float]:
    """Returns round numbers that divide a range, a few of them."""
    power = 10 ** math.floor(math.log10((high - low) / 4))
    steps = (factor * power for factor in (1, 2, 2.5, 5, 10, 20))
    step = next(one for one in steps if (high - low) / one <= _MOST_TICKS)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(
    x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str
) -> list[str]:
    x_at, y_at = AxisScale(x_range, _LEFT, _WIDTH - _RIGHT), AxisScale(y_range, _HEIGHT - _BOTTOM, _TOP)
    grid, soft = 'stroke="var(--line)"', 'fill="var(--soft)"'
    parts = []
    for value in ticks(*x_range):
        x = x_at(value)
        parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, grid))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 17, f"{value:g}", f'text-anchor="middle" {soft}'))
    for value in ticks(*y_range):
        y = y_at(value)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, grid))
        parts.append(_text(_LEFT - 7, y + 4, f"{value:g}", f'text-anchor="end" {soft}'))
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label, 'text-anchor="middle"'))
    turned = f'text-anchor="middle" transform="rotate(-90 14 {middle:.1f})"'
    return [*parts, _text(14, middle, y_label, turned)]


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
