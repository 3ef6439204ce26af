"""What `results.csv` is, as Croissant metadata beside it."""

from __future__ import annotations

from collections.abc import Iterable

from cliqa_bench.reports.rows import MEDIAN, Tidy, TidyRow, columns_of
from cliqa_bench.results.croissant import Cells, CroissantTable, croissant_text
from cliqa_bench.terminal import as_sentence

FILE = "croissant.json"

_SAYS: dict[str, tuple[Cells, str]] = {
    "table": (
        "Text",
        "Table or figure of the TSN-IQA paper, or part of the report; empty if the paper has none.",
    ),
    "setting": ("Text", "Whether the method knows the task of a test image: Task-Agnostic, Task-Aware, ..."),
    "backbone": ("Text", "The network behind the heads."),
    "method": ("Text", "Strategy and readout, as in the tables."),
    "variant": ("Text", "Hyper-parameters that differ from the defaults; empty if none does."),
    "order": ("Text", "The task order, by its name or by its datasets; empty for joint learning."),
    "length": ("Text", "How many datasets had been learned, or Mean over these; empty if it does not apply."),
    "train_dataset": ("Text", "The dataset learned last, or the one that the number is about."),
    "test_dataset": ("Text", "The test set; empty for a number over several."),
    "metric": ("Text", "What was measured."),
    "value": ("Float", "The number, unrounded, a mean over seeds or splits; empty if it is undefined."),
    "std": ("Float", "Standard deviation over seeds or splits, with n - 1; empty for a single one."),
    "note": ("Text", "What else to know about the number."),
    MEDIAN: ("Float", "Median over splits; empty if there are not several."),
}


def results_croissant(numbers: Tidy, rows: Iterable[TidyRow], text: str) -> str:
    """Returns the metadata of `results.csv`.

    Args:
        numbers: The numbers of comparable runs.
        rows: Those in the file.
        text: Its content.
    """
    group = numbers.group
    sentences = (
        f"Continual learning of blind image quality assessment: {group.description}; one number a row.",
        as_sentence(group.caution),
        "No image and no opinion score is part of this.",
    )
    table = CroissantTable(
        name=f"Results of cliqa_bench, group {group.id}",
        description=" ".join(filter(None, sentences)),
        file="results.csv",
        records="results",
        columns={column: _SAYS[column] for column in columns_of(rows)},
    )
    return croissant_text(table, text)
