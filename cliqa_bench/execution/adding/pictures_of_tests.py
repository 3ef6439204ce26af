"""The pictures on which a model was tested: where they are, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.decoded import contents_of
from cliqa_bench.benchmarks.labelled import LabelledDataset, load_materials, without_home
from cliqa_bench.errors import UserError
from cliqa_bench.execution.model_file import LearnedFile
from cliqa_bench.reports.certificate.evidence import SetPictures
from cliqa_bench.settings.resolve import data_root, recall_tables
from cliqa_bench.types import Answers


@dataclass(frozen=True)
class AbsentTests:
    """A test set of a model whose pictures cannot be scored here.

    Attributes:
        name: The dataset.
        title: Its name in tables.
        srcc: SRCC of the old model on it, by the answers that its file carries; None where it has none.
        reason: Why they cannot be scored, and what to do.
    """

    name: str
    title: str
    srcc: float | None
    reason: str


def pictures_of(material: LabelledDataset) -> SetPictures:
    """Returns the test images of a dataset; of one that is never learned, all images."""
    place = {rating.key: number for number, rating in enumerate(material.ratings)}
    keys = material.split.keys("test")
    chosen = [place[key] for key in keys]
    return SetPictures(
        name=material.name,
        title=material.dataset.title,
        keys=np.array(keys, np.str_),
        mos=np.array([material.ratings[number].score for number in chosen], np.float64),
        contents=contents_of(material.ratings)[chosen],
        paths=[material.whole.dataset.path(key) for key in keys],
    )


def find_old_tests(
    file: LearnedFile, data: str | None, tables: Sequence[str] = ()
) -> tuple[list[SetPictures], list[AbsentTests]]:
    """Looks for the pictures of a model's test sets.

    Args:
        file: The model.
        data: Folder of the datasets; None for `$CLIQA_DATA`, and for a model that learned generated
            miniatures for these.
        tables: Tables of the user's that it learned, `csv:FILE`.

    Returns:
        Those that are here, and those that are not.

    Raises:
        UserError: If `data` is not a folder, or a table cannot be read.
    """
    recall_tables(tables)
    root, carried = data_root(data), file.answers()
    here, absent = [], []
    for name in dict.fromkeys([*file.facts.sequence, *carried]):
        try:
            here.append(_find(file, name, root, carried.get(name)))
        except UserError as error:
            title = file.facts.titles.get(name, name)
            absent.append(AbsentTests(name, title, file.facts.srcc.get(name), str(error)))
    return here, absent


def _find(file: LearnedFile, name: str, root: Path | None, carried: Answers | None) -> SetPictures:
    made, learned = file.facts.made, name in file.facts.sequence
    advice = "give the folder of the datasets with --data, or a table of your own with --tables csv:FILE"
    try:
        published = bool(without_home([name]))
    except UserError as error:
        raise UserError(f"nothing is known of {name} here; {advice}") from error
    if published and root is None and not file.facts.generated:
        raise UserError(f"its pictures are needed; {advice}")
    names, test_only = ([name], []) if learned else ([], [name])
    split = str((made if learned else {}).get("split", "1"))
    material = load_materials(names, root, split, test_only, bool(made.get("srgb")))[name]
    found = pictures_of(material)
    if carried is not None and not (
        np.array_equal(found.keys, carried.keys) and np.array_equal(found.mos, carried.mos)
    ):
        raise UserError(
            f"the test pictures or labels of {name} in {material.whole.dataset.root} are not those that the "
            "model was tested on; give the same data with --data"
        )
    return found
