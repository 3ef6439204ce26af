"""Contact sheets: pictures of a dataset in the order of their ratings, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageOps

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.suites import dataset_class, find_folder
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.progress import track
from cliqa_bench.results.nodes import atomic_path
from cliqa_bench.types import Rating

CELL = (128, 112)
CAPTION = 12
COLUMNS = 10


def contact_sheet(root: Path, out: Path, pictures: int = 100) -> dict[Path, Dataset]:
    """Writes `<out>/<dataset>.png` for every dataset in a folder: best picture first, line by line.

    Args:
        root: Folder that holds datasets, real or generated.
        out: Folder of the sheets.
        pictures: At most so many per sheet, evenly spaced from the best rated to the worst.

    Returns:
        The path of each sheet -> the dataset that it shows.

    Raises:
        UserError: If there is no dataset, labels or pictures cannot be read, or `out` cannot be written.
    """
    classes = [dataset_class(name) for name in registry.names("datasets")]
    found = [cls(folder) for cls in classes if (folder := find_folder(root, cls)) is not None]
    if not found:
        raise UserError(f"no dataset in {root}; make miniatures: python -m cliqa_bench data make {root}")
    sheets = {}
    for dataset in found:
        ratings = sorted(dataset.ratings(), key=lambda rating: -rating.score)
        places = np.unique(np.linspace(0, len(ratings) - 1, min(pictures, len(ratings))).round().astype(int))
        sheet = _sheet(dataset, [ratings[place] for place in places])
        path = out / f"{dataset.name}.png"
        with atomic_path(path) as temporary:
            sheet.save(temporary)
        sheets[path] = dataset
    return sheets


def _sheet(dataset: Dataset, ratings: list[Rating]) -> Pil.Image:
    """Returns the sheet of some ratings in the order given, each with its score and distortion."""
    width, height = CELL
    lines = -(-len(ratings) // COLUMNS)
    sheet = Pil.new("RGB", (COLUMNS * width, lines * (height + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, rating in enumerate(track(ratings, len(ratings), f"sheet of {dataset.name}", "image")):
        left, top = index % COLUMNS * width, index // COLUMNS * (height + CAPTION)
        try:
            with Pil.open(dataset.path(rating.key)) as opened:
                picture = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), CELL)
        except OSError as error:
            where = f"{dataset.title} in {dataset.root}"
            raise UserError(f"cannot read {rating.key} of {where} ({error}); run 'data check'") from error
        sheet.paste(picture, (left + (width - picture.width) // 2, top))
        draw.text((left + 2, top + height), f"{rating.score:.2f} {rating.distortion}"[:21], fill="black")
    return sheet
