"""Scene and distortion of each picture, in the words of LIQE's label files.

They come with LIQE's split files (`<dataset>_{train,val,test}_clip.txt`: path, score, distortion, three
scenes) and with generated miniatures (`aspects.csv`). Words are checked when `DecodedDataset.aspects` is
first read, so that a wrong one stops only what learns them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.aspects import COARSE, DISTORTIONS, SCENES
from cliqa_bench.errors import UserError, refuse
from cliqa_bench.part_names import base_of
from cliqa_bench.types import Rating

if TYPE_CHECKING:
    from cliqa_bench.benchmarks.base import Dataset
    from cliqa_bench.benchmarks.splits import Split

NO_SCENE = "invalid"
"""Fills the columns for which a picture has no scene."""

FILE = "aspects.csv"
"""Where a generated miniature says what its pictures show; real data may have such a file, too."""

COLUMNS = ("key", "distortion", "scene_1", "scene_2", "scene_3")

MISLABELLED = ("fastfading/", "wn/")
"""In LIQE's files, pictures of LIVE in the first folder carry the labels of those of the second."""


class AspectRow(NamedTuple):
    """What a label file says about a picture, in its own words.

    Attributes:
        where: File and row, for messages.
        words: Distortion, then scenes.
    """

    where: str
    words: tuple[str, ...]


class Aspects(NamedTuple):
    """What a picture shows and what is wrong with it.

    Attributes:
        distortion: Its coarse distortion, one of `DISTORTIONS`.
        scenes: One to three of `SCENES`.
    """

    distortion: str
    scenes: tuple[str, ...]


def aspects_of(dataset: Dataset, split: Split, ratings: Sequence[Rating]) -> dict[str, Aspects]:
    """Returns key -> aspects of all images that are rated; {} if they are not known.

    Args:
        dataset: The dataset.
        split: Its split; carries what LIQE's split files say.
        ratings: All ratings of the dataset, of a part those of the whole.

    Raises:
        UserError: If a word is in no table, an image has no row, or generated data lack their file.
    """
    rows = split.aspects or own_rows(dataset)
    if not rows:
        return {}
    faults: list[UserError] = []
    found: dict[str, Aspects] = {}
    for rating in ratings:
        if rating.key not in rows:  # split files leave none out
            where = dataset.root / FILE
            faults.append(UserError(f"{where}: {rating.key} has no row; add it"))
            continue
        try:
            found[rating.key] = known_words(rows[rating.key])
        except UserError as error:
            faults.append(error)
    refuse(faults)
    return found


def known_words(row: AspectRow) -> Aspects:
    """Returns what a row says.

    Raises:
        UserError: If a word is in no table, or there is no scene.
    """
    distortion, *others = row.words
    scenes = tuple(dict.fromkeys(word for word in others if word != NO_SCENE))
    if distortion not in COARSE:
        raise UserError(f"{row.where}: {distortion!r} is not one of LIQE's words for distortions; correct it")
    wrong = [scene for scene in scenes if scene not in SCENES]
    if wrong or not scenes:
        what = f"{wrong[0]!r} is not a scene" if wrong else "it names no scene"
        raise UserError(f"{row.where}: {what}; choose from {', '.join(SCENES)}")
    return Aspects(COARSE[distortion], scenes)


def own_rows(dataset: Dataset) -> dict[str, AspectRow]:
    """Reads `aspects.csv` beside the pictures; {} for real data without it.

    Raises:
        UserError: If it is missing or broken.
    """
    path = dataset.root / FILE
    if not path.is_file() and dataset.generated is None:
        return {}
    if not path.is_file():
        raise UserError(
            f"{dataset.title}: {dataset.root} was made by an older version and lacks {FILE}; to add it, run "
            "cliqa-bench data make on its parent folder, with the same scale and seed"
        )
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}); correct it") from error
    wrong = next((n for n, cells in enumerate(lines, 1) if len(cells) != len(COLUMNS)), 0)
    if not lines or wrong or tuple(lines[0]) != COLUMNS:
        raise UserError(f"{path} row {wrong or 1} does not have the columns {','.join(COLUMNS)}; correct it")
    return {cells[0]: AspectRow(f"{path} row {n}", tuple(cells[1:])) for n, cells in enumerate(lines[1:], 2)}


def aspects_csv(rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Writes rows of path and words (distortion, then one to three scenes) as `own_rows` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, words in rows:
        writer.writerow([key, *words, *[NO_SCENE] * (len(COLUMNS) - 1 - len(words))])
    return text.getvalue()


def unknown_aspects(strategy: str, title: str) -> UserError:
    """Returns the error of a strategy that learns scenes or distortions from a dataset that has none."""
    return UserError(
        f"{strategy} learns scenes and distortions, but those of {title} are not known: use LIQE's split "
        f"files, which name them (--split PATH), or set {strategy}.tasks=q"
    )


# -- the fault of the published files ------------------------------------------------------------------------


def repaired(
    dataset: Dataset, aspects: Mapping[str, Aspects], ratings: Sequence[Rating]
) -> dict[str, Aspects]:
    """Corrects the labels of LIVE's fast fading in LIQE's files; other datasets stay as they are.

    The folder gives the distortion: a loss in JPEG 2000's stream, which LIQE's own table counts as JPEG 2000.
    The scenes are those of the reference's other images, of which all have the same.

    Args:
        dataset: The dataset.
        aspects: What `aspects_of` returned.
        ratings: All ratings of the dataset.
    """
    if base_of(dataset.name) != "live":
        return dict(aspects)
    scenes: dict[str | None, Counter[tuple[str, ...]]] = {}
    for rating in ratings:
        if rating.key in aspects and not _is_mislabelled(rating.key):
            scenes.setdefault(rating.group, Counter())[aspects[rating.key].scenes] += 1
    mended = {
        r.key: Aspects(COARSE["fastfading"], scenes[r.group].most_common(1)[0][0])
        for r in ratings
        if r.key in aspects and _is_mislabelled(r.key) and r.group in scenes
    }
    return {**aspects, **mended}


def _is_mislabelled(key: str) -> bool:
    return key.startswith(MISLABELLED[0])


def mislabelled(dataset: Dataset, aspects: Mapping[str, Aspects]) -> list[str]:
    """Returns LIVE's fast-fading images that have the labels of the white-noise image of the same number.

    Args:
        dataset: The dataset.
        aspects: What `aspects_of` returned.
    """
    if base_of(dataset.name) != "live":
        return []
    wrong, others = MISLABELLED
    pairs = ((key, others + key.removeprefix(wrong)) for key in aspects if _is_mislabelled(key))
    noise = COARSE["white noise"]
    return [
        key for key, other in pairs if aspects.get(other) == aspects[key] and aspects[key].distortion == noise
    ]


def aspect_note(dataset: Dataset, split: Split, ratings: Sequence[Rating]) -> str:
    """Returns what `data check` says of the labels; "" for nothing.

    Raises:
        UserError: As `aspects_of`.
    """
    if not split.aspects and not (dataset.root / FILE).is_file():
        return ""
    wrong = mislabelled(dataset, aspects_of(dataset, split, ratings))
    if not wrong:
        return ""
    return (
        f"{len(wrong)} images of {MISLABELLED[0]} have the scene and distortion of the image of the same "
        f"number in {MISLABELLED[1]}, as in LIQE's published files; labels=repaired makes liqe and liqe_cl "
        "correct them"
    )


# -- as arrays -----------------------------------------------------------------------------------------------


def scene_targets(aspects: Sequence[Aspects]) -> NDArray[np.float32]:
    """Returns (n, 9), 1 for each scene that an image shows."""
    return np.array([[scene in a.scenes for scene in SCENES] for a in aspects], np.float32).reshape(
        -1, len(SCENES)
    )


def distortion_targets(aspects: Sequence[Aspects]) -> NDArray[np.float32]:
    """Returns (n, 11), 1 for the distortion of an image."""
    return np.array([[a.distortion == d for d in DISTORTIONS] for a in aspects], np.float32).reshape(
        -1, len(DISTORTIONS)
    )
