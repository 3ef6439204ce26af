"""The paper's Fig. 5: images of all test sets on one scale, each with its gate weights and head scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.errors import UserError, run_again
from cliqa_bench.reports.figures.style import (
    COLOURS,
    WIDTH,
    generated_sentence,
    plain,
    put_foot,
    save,
    styled,
)
from cliqa_bench.reports.methods import Method, RunReadout, drawn_methods, predict, sources
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.results.nodes import read_json
from cliqa_bench.results.readouts import gate_weights
from cliqa_bench.results.records import AnswerReader
from cliqa_bench.types import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LEFT, RIGHT, GAP = 0.85, 0.15, 0.14
"""Margins, and the space between columns, in inches."""


@dataclass(frozen=True)
class Shown:
    """An image of a test set and its prediction after the last experience.

    Attributes:
        title: Title of the test set.
        file: The image, a thumbnail.
        mos: Its MOS, in the unit of its dataset.
        quality: The prediction q.
        weights: (T,) weights of the gate, sum 1.
        scores: (T,) scores of the heads.
    """

    title: str
    file: Path
    mos: float
    quality: float
    weights: Floats
    scores: Floats


def scale_caption(numbers: Tidy) -> str:
    """Returns the caption of the images on the common scale."""
    source = gated_run(numbers)
    name = "the gated method" if source is None else source.record.rows["gate"]
    return (
        f"Images of the test sets on the common scale of {name} after the last experience, sorted by its "
        "prediction q. Bars: weight of each task's head, and the score the head gives; q is the sum of the "
        "scores times the weights. The test sets, in the order of learning, contribute in turn an image of "
        "low, middle and high MOS." + generated_sentence(numbers.group.caution)
    )


def gated_run(numbers: Tidy) -> RunReadout | None:
    """Returns the run whose images are shown: read by the soft gate, order-free heads before others.

    Returns:
        The first seed of the first method in the main order; TSN-IQA before what else is gated. None where
        nothing is.
    """
    found: list[tuple[Method, RunReadout]] = []
    for method, seeds in sources(numbers.group).items():
        source = next(iter(seeds.values()))
        if source.readout == "gate" and source.record.facts.get("pictures"):
            found.append((method, source))
    if not found:
        return None
    shown = drawn_methods(method for method, _ in found)
    return min(
        (source for method, source in found if method in shown),
        key=lambda source: (source.record.strategy != "tsn", source.record.variant != ""),
    )


def draw_scale(numbers: Tidy, reader: AnswerReader, folder: Path) -> list[Path]:
    """Draws the paper's Fig. 5, one image per test set of the sequence, as `fig_5.*`.

    Args:
        numbers: The tidy rows, for the runs they are of.
        reader: Reads the answers.
        folder: Where the files go.

    Returns:
        The files; none where no run has a gate, its answers are unfinished, or no pictures were kept.

    Raises:
        UserError: If an answer file or a picture is broken, or a file cannot be written.
    """
    source = gated_run(numbers)
    shown = [] if source is None else shown_images(source, reader)
    if source is None or not shown:
        return []
    heads = [source.record.titles.get(name, name) for name in source.record.sequence]
    shown.sort(key=lambda image: image.quality)
    with styled():
        figure = _figure(shown, heads)
        put_foot(figure, f"{source.record.rows['gate']}, {source.record.backbone}", numbers.group.caution)
        return save(figure, folder, "fig_5")


def shown_images(source: RunReadout, reader: AnswerReader) -> list[Shown]:
    """Returns one image per test set of a run's sequence, in the order of learning.

    Of the pictures kept of each test set, the k-th test set shows the (k mod n)-th by MOS.

    Raises:
        UserError: If an answer file or the list of the pictures is broken.
    """
    record, found = source.record, []
    for k, test in enumerate(record.sequence):
        answers = reader.answers(record, len(record.steps) - 1, test)
        told = predict(reader, source, len(record.steps) - 1, test)
        folder = reader.out / "pictures" / str(record.facts.get("pictures", {}).get(test))
        done = (folder / "done.json").is_file()
        if answers is None or answers.distances is None or told is None or not done:
            continue
        place = {key: i for i, key in enumerate(answers.keys.tolist())}
        kept = [(place[e["key"]], folder / e["file"]) for e in _entries(folder) if e["key"] in place]
        if kept:
            kept.sort(key=lambda pair: (told.mos[pair[0]], pair[0]))
            image, file = kept[k % len(kept)]
            weights = gate_weights(answers.distances[image : image + 1], answers.tau)[0]
            scores = answers.scores[image].astype(np.float64)
            title = record.titles.get(test, test)
            mos, quality = float(told.mos[image]), float(told.scores[image])
            found.append(Shown(title, file, mos, quality, weights, scores))
    return [image for image in found if math.isfinite(image.quality)]


def _entries(folder: Path) -> list[dict[str, str]]:
    entries = read_json(folder / "keys.json")
    if not isinstance(entries, list) or not all({"file", "key"} <= entry.keys() for entry in entries):
        raise UserError(f"{folder / 'keys.json'} is not a list of pictures; {run_again(folder)}")
    return entries


def _figure(shown: list[Shown], heads: list[str]) -> Figure:
    """Lays out by inches: the scale on top, under it a column per image with its numbers and bars."""
    from matplotlib.figure import Figure

    width = (WIDTH - LEFT - RIGHT + GAP) / len(shown) - GAP
    bars = 0.16 * len(heads) + 0.05
    scores = 0.4  # above the foot
    weights = scores + bars + 0.3
    picture = weights + bars + 0.1
    text = picture + width
    scale = text + 0.8
    height = scale + 0.32
    figure = Figure(figsize=(WIDTH, height))

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / WIDTH, y / height, w / WIDTH, h / height))

    common = place(LEFT, scale, WIDTH - LEFT - RIGHT, 0.02)
    _scale(common, shown)
    reach = 2.2 * max(0.05, *(float(np.abs(image.scores).max()) for image in shown))
    for i, image in enumerate(shown):
        x, names = LEFT + i * (width + GAP), heads if i == 0 else [""] * len(heads)
        _picture(place(x, picture, width, width), image)
        _bars(place(x, weights, width, bars), image.weights, names, COLOURS[0], (0, 1.4))
        _bars(place(x, scores, width, bars), image.scores, names, COLOURS[1], (-reach, reach))
        numbers = f"$q$ = {image.quality:.3f}\nMOS {image.mos:#.3g}".replace("-", "−")
        middle = (x + width / 2) / WIDTH
        figure.text(
            middle,
            (text + 0.04) / height,
            f"{plain(image.title, 14, 1)}\n{numbers}",
            ha="center",
            va="bottom",
            fontsize=7,
        )
        # from the place on the scale to the column of the image
        common.annotate(
            "", (image.quality, 0), (middle, (text + 0.5) / height), xycoords="data",
            textcoords="figure fraction", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    for y, label in ((weights, "gate weight"), (scores, "head score")):
        figure.text(0.06 / WIDTH, (y + bars / 2) / height, label, rotation=90, va="center", fontsize=7)
    return figure


def _scale(panel: Axes, shown: list[Shown]) -> None:
    """Draws the common scale and every prediction on it."""
    panel.plot([image.quality for image in shown], [0] * len(shown), "o", color="black", clip_on=False)
    panel.margins(x=0.08)
    panel.set_ylim(-1, 1)
    panel.set_yticks([])
    panel.spines[:].set_visible(False)
    panel.axhline(0, color="black", linewidth=0.8, clip_on=False)
    panel.grid(False)
    panel.xaxis.set_ticks_position("top")
    panel.tick_params(axis="x", labelsize=6.5)
    panel.annotate(
        "quality $q$", (0, 0), (-6, 0), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="center", fontsize=7,
    )  # fmt: skip


def _picture(panel: Axes, image: Shown) -> None:
    panel.imshow(_read_picture(image.file), interpolation="antialiased")
    panel.set_anchor("S")
    panel.set_axis_off()


def _read_picture(file: Path) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise UserError(f"cannot read {file} ({error}); {run_again('its folder')}") from error


def _bars(panel: Axes, values: Floats, names: list[str], colour: str, limits: tuple[float, float]) -> None:
    """Draws a bar per head, the first on top, with its number."""
    places = np.arange(len(values))
    panel.barh(places, values, color=colour, height=0.7)
    for place, value in zip(places, values, strict=True):
        sign = 1 if value >= 0 else -1
        panel.annotate(
            f"{round(value, 2) + 0.0:.2f}".replace("-", "−"), (value, place), (2 * sign, 0),
            textcoords="offset points", ha="left" if sign > 0 else "right", va="center", fontsize=6,
        )  # fmt: skip
    panel.axvline(0, color="0.3", linewidth=0.8)
    panel.set_xlim(limits)
    panel.set_xticks([])
    panel.set_yticks(places, [plain(name, 14) for name in names], fontsize=6.5)
    panel.invert_yaxis()
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.grid(False)
