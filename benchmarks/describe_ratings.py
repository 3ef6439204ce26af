"""A dataset's ratings as a CSV file with Croissant metadata beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.splits import CSV_COLUMNS, Split, ratings_csv
from cliqa_bench.errors import UserError
from cliqa_bench.results.croissant import Cells, CroissantTable, croissant_text
from cliqa_bench.results.nodes import write_text
from cliqa_bench.types import Rating

_SAYS: dict[str, tuple[Cells, str]] = {
    "key": ("Text", "Path of the image in the folder of the dataset, as its authors ship it."),
    "score": (
        "Float",
        "Mean opinion score in the authors' unit; higher is better. Empty where it is hidden.",
    ),
    "std": (
        "Float",
        "Standard deviation of the single opinions, in the unit of score; empty if unpublished.",
    ),
    "group": ("Text", "The reference image whose content the image shows; empty if there is none."),
    "distortion": ("Text", "What was done to the image, as the authors call it; empty if they do not say."),
    "subset": ("Text", "train, val or test in the split; empty if no split was asked for."),
}
COLUMNS = {column: _SAYS[column] for column in CSV_COLUMNS}


def write_ratings(
    path: Path, dataset: Dataset, ratings: Sequence[Rating], split: Split | None = None
) -> list[Path]:
    """Writes a dataset's ratings, and beside them `NAME.croissant.json`.

    Args:
        path: The file, `*.csv`.
        dataset: The dataset.
        ratings: Its ratings.
        split: Fills the column `subset`.

    Returns:
        Both files.

    Raises:
        UserError: If the file is called otherwise or cannot be written, or the split leaves out an image.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path} does not end in .csv; ratings are written as CSV")
    text = ratings_csv(dataset, ratings, split)
    metadata = path.with_suffix(".croissant.json")
    write_text(path, text)
    write_text(metadata, croissant_text(_described(dataset, path.name, split), text))
    return [path, metadata]


def _described(dataset: Dataset, file: str, split: Split | None) -> CroissantTable:
    made = dataset.generated is not None
    held = "Opinion scores of the images" if split is None else f"Opinion scores and the split {split.name}"
    whose = f"a generated miniature of {dataset.title}" if made else dataset.title
    lines = [
        f"{held} of {whose}.",
        "The scores are modelled, and not comparable with published ones." if made else "",
        f"How a score is made from the authors' label: {dataset.rule}." if dataset.rule else "",
        "The images are not part of this and are not distributed with it.",
    ]
    citation = dataset.citation if isinstance(dataset.citation, str) else "; ".join(dataset.citation)
    # of a user's own table it is a path on this disk
    page = dataset.homepage if dataset.homepage.startswith(("https://", "http://")) else ""
    terms = f"the terms of the dataset's authors, see {page}" if page else ""
    return CroissantTable(
        name=f"Ratings of {dataset.title}" + (", generated miniature" if made else ""),
        description=" ".join(filter(None, lines)),
        file=file,
        records="ratings",
        columns=COLUMNS,
        licence="" if made else dataset.licence or terms,
        cite="" if made else citation,
        url="" if made else page,
    )
