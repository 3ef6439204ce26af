"""Pristine pictures: procedural scenes with natural statistics, and crops of two photographs.

The scenes are occlusion models ("dead leaves": Lee, Mumford and Huang, "Occlusion models for natural images",
IJCV 2001): opaque shapes with power-law sizes hide each other, each with its own colour, shading and 1/f
texture. That gives the three things that blind quality models feed on: a 1/f spectrum, sharp edges at all
scales, and heavy-tailed local contrast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.generated.colour import ByteImage
from cliqa_bench.seeds import Rng, rng_for

"""(H, W, 3) uint8, sRGB."""
Plane = NDArray[np.floating]
"""(H, W) or (H, W, 3), float32 wherever it matters for speed."""

TILE = 256
N_TILES = 10
CLOUDS = 0
"""Number of the smoothest texture."""

# Colours of things, sRGB 0..255: each row is one palette, from its darkest to its lightest member.
PALETTES = np.array(
    [
        [(38, 46, 24), (74, 92, 38), (120, 138, 62), (166, 150, 96), (196, 190, 150)],  # meadow
        [(44, 34, 28), (98, 66, 44), (150, 106, 70), (190, 156, 118), (226, 208, 180)],  # earth and wood
        [(30, 40, 58), (62, 84, 112), (112, 138, 160), (168, 186, 196), (222, 228, 230)],  # water and slate
        [(46, 22, 24), (130, 40, 38), (196, 84, 50), (226, 154, 76), (240, 214, 160)],  # autumn, brick
        [(40, 28, 48), (96, 62, 104), (158, 96, 130), (208, 150, 164), (236, 214, 214)],  # blossom
        [(34, 34, 34), (84, 82, 80), (130, 128, 124), (178, 174, 168), (232, 228, 220)],  # stone and street
        [(20, 52, 54), (30, 102, 98), (86, 150, 132), (220, 190, 90), (244, 232, 196)],  # sea and sand
        [(58, 38, 30), (150, 100, 80), (206, 158, 130), (90, 110, 140), (238, 216, 196)],  # skin and cloth
    ],
    dtype=np.float32,
)
SKIES = np.array(
    [
        [(92, 140, 204), (206, 224, 240)],
        [(120, 140, 168), (214, 216, 220)],
        [(70, 88, 140), (240, 190, 140)],
        [(150, 170, 190), (236, 236, 232)],
        [(40, 50, 84), (150, 120, 130)],
    ],
    dtype=np.float32,
)


@lru_cache(maxsize=1)
def _tiles() -> Plane:
    """Returns (N_TILES, 256, 256) periodic textures, zero mean and unit deviation: 1/f noises and weaves."""
    rng = rng_for("reference textures")
    fy, fx = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    tiles = []
    for number in range(N_TILES):
        angle, stretch = rng.uniform(0, np.pi), (1.0, 1.0, 3.0, 8.0)[number % 4]
        u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        radius = np.hypot(u * stretch, v / stretch)
        radius[0, 0] = np.inf
        amplitude = radius ** -(2.0 if number == CLOUDS else rng.uniform(0.7, 1.5))
        if number % 3 == 2:  # a dominant scale: foliage, gravel, cloth
            amplitude *= 0.15 + np.exp(-(np.log(radius / rng.uniform(0.06, 0.16)) ** 2) / 0.3)
        phase = rng.uniform(0, 2 * np.pi, radius.shape)
        tile = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(TILE, TILE))
        if number % 5 == 4:  # hard-edged grain
            tile = np.sign(tile) * np.abs(tile) ** 0.6
        tiles.append((tile - tile.mean()) / tile.std())
    return np.asarray(tiles, np.float32)


def _texture(rng: Rng, height: int, width: int, which: int | None = None) -> Plane:
    """Cuts a (height, width) piece out of a (random) tile, at a random place, turned and mirrored."""
    tile = _tiles()[rng.integers(N_TILES) if which is None else which]
    if rng.random() < 0.5:
        tile = tile.T
    rows = (np.arange(height) + rng.integers(TILE)) % TILE
    columns = (np.arange(width)[:: rng.choice((-1, 1))] + rng.integers(TILE)) % TILE
    piece: Plane = tile[rows[:, None], columns]
    return piece


def _colour(rng: Rng, palette: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns one colour (3,) between two neighbours of the palette, slightly varied."""
    place = rng.uniform(0, len(palette) - 1.001)
    low = int(place)
    mixed = palette[low] + (place - low) * (palette[low + 1] - palette[low])
    varied: NDArray[np.float32] = (mixed + rng.normal(0, 7, 3)).astype(np.float32)
    return varied


def _polygon(rng: Rng, x: Plane, y: Plane) -> Plane:
    """Returns the gauge (1 on the outline) of a convex polygon with three to six sides."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 7)))
    reach = rng.uniform(0.7, 1.0, len(angles))
    sides = [(x * np.cos(a) + y * np.sin(a)) / r for a, r in zip(angles, reach, strict=True)]
    gauge: Plane = np.maximum(np.maximum.reduce(sides), np.hypot(x, y) * 0.8).astype(np.float32)
    return gauge


def _gauge(rng: Rng, kind: str, x: Plane, y: Plane) -> Plane:
    """Returns how far each point is from the middle of a shape, 1 on its outline."""
    if kind == "box":
        return np.maximum(np.abs(x), np.abs(y))
    if kind == "polygon":
        return _polygon(rng, x, y)
    if kind == "blob":  # leaves and petals: an outline with lobes
        turns, depth = rng.integers(2, 7), rng.uniform(0.08, 0.3)
        lobes: Plane = np.hypot(x, y) * (1 + depth * np.cos(turns * np.arctan2(y, x)))
        return lobes
    return np.hypot(x, y)


def _paint(
    canvas: Plane,
    rng: Rng,
    kind: str,
    centre: tuple[float, float],
    radius: float,
    colour: NDArray[np.float32],
) -> None:
    """Paints one opaque, shaded, textured shape over the canvas, with an anti-aliased outline."""
    height, width = canvas.shape[:2]
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    if kind == "box":
        angle = rng.normal(0, 0.06) + (np.pi / 2) * rng.integers(2)
    reach = radius * 1.45 + 1
    top, bottom = max(0, int(centre[1] - reach)), min(height, int(centre[1] + reach) + 1)
    left, right = max(0, int(centre[0] - reach)), min(width, int(centre[0] + reach) + 1)
    if top >= bottom or left >= right:
        return
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre[1])
    dx = np.arange(left, right, dtype=np.float32)[None] - np.float32(centre[0])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = (dx * c + dy * s) / np.float32(radius), (dy * c - dx * s) / np.float32(radius * aspect)
    gauge = _gauge(rng, kind, x, y)
    cover = np.clip((1 - gauge) * np.float32(radius * aspect) + 0.5, 0, 1)[..., None]
    light = rng.normal(0, 0.22) * x + rng.normal(0, 0.22) * y
    if kind != "box" and rng.random() < 0.6:  # a round thing darkens towards its rim
        light -= np.float32(rng.uniform(0.1, 0.35)) * np.square(gauge)
    light = light + _texture(rng, bottom - top, right - left) * np.float32(rng.gamma(1.6, 0.075))
    if kind == "box" and radius > 14 and rng.random() < 0.6:
        light = light - _windows(rng, x, y, radius)
    region = canvas[top:bottom, left:right]
    shaded = colour * np.exp(np.clip(light, -1.2, 0.6))[..., None]
    region += cover * (shaded - region)


def _windows(rng: Rng, x: Plane, y: Plane, radius: float) -> Plane:
    """Returns a regular pattern of dark panes, as facades, fences and tiles have."""
    pitch = radius / rng.uniform(4, 9)
    panes = ((x * pitch) % 1 < rng.uniform(0.4, 0.7)) & ((y * pitch) % 1 < rng.uniform(0.4, 0.75))
    pattern: Plane = (panes * rng.uniform(-0.3, 0.7)).astype(np.float32)
    return pattern


def _backdrop(rng: Rng, height: int, width: int, horizon: float) -> Plane:
    """Returns a sky with clouds over textured ground (or all sky, all ground), and ranges of hills."""
    top, low = SKIES[rng.integers(len(SKIES))]
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    canvas = np.broadcast_to(top + ramp * (low - top), (height, width, 3)).copy()
    clouds = np.clip(_texture(rng, height, width, CLOUDS) + rng.uniform(-1, 0.6), 0, 2)[
        ..., None
    ] * np.float32(0.3)
    canvas += clouds * (246 - canvas)
    palette = PALETTES[rng.integers(len(PALETTES))]
    rows = np.arange(height, dtype=np.float32)[:, None]
    for hill in range(rng.integers(1, 4)):
        ridge = (horizon + 0.13 * hill) * height + _texture(rng, 1, width, rng.choice((CLOUDS, 1))) * (
            0.03 + 0.02 * hill
        ) * height
        cover = np.clip(rows - ridge + 0.5, 0, 1)[..., None]
        light = _texture(rng, height, width) * np.float32(0.08 + 0.07 * hill) + 0.25 * (ramp[..., 0] - 0.5)
        haze = np.float32(0.5 - 0.2 * hill)
        colour = _colour(rng, palette) * (1 - haze) + low * haze
        canvas += cover * (colour * np.exp(light)[..., None] - canvas)
    return canvas


def _landscape(rng: Rng, height: int, width: int) -> Plane:
    canvas = _backdrop(rng, height, width, rng.uniform(0.3, 0.6))
    palette = PALETTES[rng.integers(len(PALETTES))]
    for radius in np.sort(_sizes(rng, 55, 2.0, 0.25 * min(height, width)))[::-1]:
        place = (rng.uniform(0, width), rng.triangular(0.35, 1.0, 1.05) * height)
        _paint(canvas, rng, rng.choice(("blob", "ellipse", "polygon")), place, radius, _colour(rng, palette))
    return canvas


def _city(rng: Rng, height: int, width: int) -> Plane:
    canvas = _backdrop(rng, height, width, rng.uniform(0.6, 0.85))
    palette = PALETTES[rng.choice((1, 2, 3, 5, 7))]
    for place in rng.uniform(0, width, rng.integers(6, 12)):
        radius = rng.uniform(0.14, 0.36) * height
        centre = (float(place), height * rng.uniform(0.55, 0.95))
        _paint(canvas, rng, "box", centre, radius, _colour(rng, palette))
    for radius in _sizes(rng, 22, 1.5, 0.1 * height):
        place = (rng.uniform(0, width), rng.uniform(0.6, 1.0) * height)
        colour = _colour(rng, PALETTES[rng.integers(len(PALETTES))])
        _paint(canvas, rng, rng.choice(("box", "ellipse")), place, radius, colour)
    return canvas


def _leaves(rng: Rng, height: int, width: int) -> Plane:
    canvas = _backdrop(rng, height, width, -0.2)
    palettes = PALETTES[rng.choice(len(PALETTES), 2)]
    for radius in _sizes(rng, 100, 2.5, 0.4 * min(height, width)):
        place = (rng.uniform(0, width), rng.uniform(0, height))
        colour = _colour(rng, palettes[int(rng.random() < 0.25)])
        _paint(canvas, rng, rng.choice(("blob", "ellipse", "polygon")), place, radius, colour)
    return canvas


def _still_life(rng: Rng, height: int, width: int) -> Plane:
    canvas = _backdrop(rng, height, width, rng.choice((-0.2, 0.45)))
    palettes = PALETTES[rng.choice(len(PALETTES), 3)]
    for _ in range(rng.integers(4, 8)):
        radius = rng.uniform(0.14, 0.42) * min(height, width)
        place = (rng.uniform(0.05, 0.95) * width, rng.uniform(0.3, 0.95) * height)
        kind = rng.choice(("ellipse", "ellipse", "box", "blob"))
        _paint(canvas, rng, kind, place, radius, _colour(rng, palettes[rng.integers(3)]))
        for small in _sizes(rng, 6, 1.5, radius * 0.4):  # marks upon and around the thing
            spot = (place[0] + rng.normal(0, radius * 0.5), place[1] + rng.normal(0, radius * 0.5))
            _paint(canvas, rng, "ellipse", spot, small, _colour(rng, palettes[rng.integers(3)]))
    return canvas


SCENES: tuple[Callable[[Rng, int, int], Plane], ...] = (_landscape, _city, _leaves, _still_life)
SCENE_WORDS = ("landscape", "cityscape", "plant", "still_life")
"""Their names in LIQE's label files."""


def _sizes(rng: Rng, count: int, smallest: float, largest: float) -> NDArray[np.float64]:
    """Draws radii in pixels with density r**-2.

    Flatter than r**-3, under which a picture looks alike at every scale: small things lie on top here.
    """
    low, high = 1 / float(smallest), 1 / float(max(largest, smallest * 1.5))
    return 1 / (high + rng.random(count) * (low - high))


def _wires(canvas: Plane, rng: Rng) -> None:
    """Draws a few thin bright or dark lines: twigs, wires, highlights."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(rng.choice((0, 0, 1, 2))):
        angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.002)
        u = (x - rng.uniform(0, width)) * np.cos(angle) + (y - rng.uniform(0, height)) * np.sin(angle)
        v = (y - height / 2) * np.cos(angle) - (x - width / 2) * np.sin(angle)
        cover = np.clip(rng.uniform(0.4, 1.1) - np.abs(u + bend * v * v) + 0.5, 0, 1)
        canvas += cover[..., None].astype(np.float32) * (rng.choice((24, 40, 235)) - canvas)


def reference(seed: int, size: tuple[int, int] = (160, 128)) -> ByteImage:
    """Paints a pristine scene; every seed is another picture.

    Args:
        seed: Any non-negative integer, for instance from `seed_for`.
        size: Width and height in pixels.

    Returns:
        (H, W, 3) uint8, sRGB.
    """
    rng = rng_for("reference", seed)
    width, height = size
    canvas = SCENES[rng.integers(len(SCENES))](rng, height, width)
    _wires(canvas, rng)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    sun = np.exp(rng.normal(0, 0.12) * x + rng.normal(0, 0.12) * y).astype(np.float32)[..., None]
    canvas *= sun
    # a photographer sets exposure and contrast: the middle 96 percent fill most of the range
    low, high = np.percentile(canvas, (2, 98))
    bottom, top = rng.uniform(8, 28), rng.uniform(205, 245)
    canvas = (canvas - low) * ((top - bottom) / max(high - low, 1.0)) + bottom
    canvas += rng.normal(0, 0.8, (height, width, 1)).astype(np.float32)  # film is never perfectly flat
    return np.asarray(np.clip(np.rint(canvas), 0, 255), np.uint8)


def scene_word(seed: int) -> str:
    """Returns what `reference` paints for a seed: one of `SCENE_WORDS`."""
    return SCENE_WORDS[rng_for("reference", seed).integers(len(SCENES))]


@lru_cache(maxsize=1)
def _photographs() -> tuple[ByteImage, ...]:
    from sklearn.datasets import load_sample_images

    images: Any = load_sample_images().images
    return tuple(np.asarray(image, np.uint8) for image in images)


# (photograph, left, right) in two pictures 640 wide and 427 high. A region belongs to one dataset alone, so
# that no content is shared.
PHOTO_REGIONS: dict[str, tuple[int, int, int]] = {
    "live": (0, 0, 160),
    "csiq": (0, 160, 320),
    "clive": (0, 320, 480),
    "kadid10k": (0, 480, 640),
    "koniq10k": (1, 0, 320),
    "bid": (1, 320, 640),
}


PHOTO_SCENES = ("cityscape", "plant")
"""What the two photographs show: a temple and the houses below it, and a flower."""


def photo_scene(region: str) -> str:
    """Returns what the photograph shows from which a dataset has its crops."""
    return PHOTO_SCENES[PHOTO_REGIONS[region][0]]


def photo_crops(region: str, size: tuple[int, int], limit: int = 2) -> list[ByteImage]:
    """Cuts crops that do not overlap out of the sample photographs of scikit-learn (china.jpg, flower.jpg).

    Args:
        region: Name of a dataset; each has its own part of the photographs.
        size: Width and height in pixels.
        limit: At most so many crops, those with the most detail first.

    Returns:
        Pictures (H, W, 3) uint8; none where the region is smaller than the size, or the dataset has none.
    """
    if region not in PHOTO_REGIONS:
        return []
    which, left, right = PHOTO_REGIONS[region]
    strip = _photographs()[which][:, left:right]
    width, height = size
    crops = [
        np.ascontiguousarray(strip[top : top + height, side : side + width])
        for top in range(0, strip.shape[0] - height + 1, height)
        for side in range(0, strip.shape[1] - width + 1, width)
    ]
    detail = [-float(np.abs(np.diff(crop.astype(np.float32), axis=1)).mean()) for crop in crops]
    return [crops[index] for index in np.argsort(detail, kind="stable")[:limit]]
