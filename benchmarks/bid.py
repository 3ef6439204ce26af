"""BID (Blurred Image Database of UFRJ): 586 photographs with real blur."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cliqa_bench.benchmarks.base import Dataset, Entry, ScoreFacts
from cliqa_bench.benchmarks.readers.text import LabelRow
from cliqa_bench.benchmarks.readers.workbooks import read_sheet
from cliqa_bench.errors import read_all
from cliqa_bench.types import Rating

GRADES = tuple(f"Grade #{i}" for i in range(1, 21))
COLUMNS = ("Image Number", "Average Subjective Grade", *GRADES)

MOST_OFF = 0.5
"""How far an average may be from the mean of the grades listed; in the authors' sheet it is up to 0.32."""


class Bid(Dataset):
    """BID, with the authors' average grade; the spread is that of the single grades they list.

    In seven rows of the authors' sheet the average is not the mean of the grades listed (by up to 0.32). The
    average is taken as it stands, as everywhere in the literature.
    """

    name = "bid"
    title = "BID"
    folders = ("BID", "BID_database", "BlurredImageDatabase")
    label_files = (
        "DatabaseGrades.xls",
        "DatabaseGrades.xlsx",
        "ImageDatabase/DatabaseGrades.xls",
        "ImageDatabase/DatabaseGrades.xlsx",
    )
    image_folders = ("ImageDatabase", "")
    citation = (
        "A. Ciancio, A. L. N. T. da Costa, E. A. B. da Silva, A. Said, R. Samadani, P. Obrador: No-reference "
        "blur assessment of digital pictures based on multifeature classifiers. IEEE TIP 20(1), 2011"
    )
    homepage = "https://www02.smt.ufrj.br/~eduardo/ImageDatabase.htm"
    n_images = 586
    direction = "higher"
    rule = "average grade (column 2), 0 to 5, unchanged; std = that of the single grades (n - 1)"
    score_facts = ScoreFacts(0.16381, 4.91975, 2.953)
    n_pairs_paper = 11204
    n_pairs_files = 10000

    def entries(self) -> list[Entry]:
        """Reads the first sheet of `DatabaseGrades.xls` (or `.xlsx`)."""
        return read_all(read_sheet(self.label_file(*self.label_files), COLUMNS), entry)

    def candidates(self, key: str) -> Sequence[str]:
        """Some copies of the release keep the images beside the label file."""
        return (key, key.removeprefix("ImageDatabase/"))


def entry(row: LabelRow) -> Entry:
    """Reads a row of the sheet.

    Raises:
        UserError: If a cell is not a number of its range.
    """
    number = row.integer_in("Image Number", 1, 9999)
    score = row.number_in("Average Subjective Grade", 0, 5)
    grades = grades_of(row)
    if abs(score - statistics.fmean(grades)) > MOST_OFF:
        raise row.fault(
            "Average Subjective Grade", f"about the mean of the grades, {statistics.fmean(grades):.4f}"
        )
    key = f"ImageDatabase/DatabaseImage{number:04d}.JPG"
    return Entry(row.where, Rating(key, score, statistics.stdev(grades), None, "authentic"))


def grades_of(row: LabelRow) -> list[float]:
    """Returns the grades that a row lists.

    Raises:
        UserError: If a grade is not a number from 0 to 5, or there are fewer than two.
    """
    grades = [row.number_in(column, 0, 5) for column in GRADES if row.has(column)]
    if len(grades) < 2:
        raise row.fault("Grade #2", "at least two grades")
    return grades
