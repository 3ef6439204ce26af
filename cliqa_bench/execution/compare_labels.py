"""`score --compare`: how far the scores of a finished run agree with the labels of a table of your own."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cliqa_bench import metrics
from cliqa_bench.benchmarks._csv import TableDataset
from cliqa_bench.errors import UserError
from cliqa_bench.execution.learned import ModelFacts
from cliqa_bench.execution.score_files import Tally
from cliqa_bench.execution.score_table import FileRow
from cliqa_bench.part_names import base_of
from cliqa_bench.reports.render import number
from cliqa_bench.results.nodes import digest
from cliqa_bench.terminal import plural, text_table

FEWEST = 3
"""Of fewer pictures no correlation is given: of two it is 1 or -1 whatever they show."""

FEWEST_FITTED = 5
"""Of fewer pictures the logistic function goes through all points, see `metrics.fit_logistic`."""

AGAINST = -0.3
"""A rank correlation of this or less is pointed out, unless it may be chance; see `runs_against`."""

_ERRORS_FROM_0 = 2.5


class Agreement(NamedTuple):
    """Agreement of scores with labels, nan where it is not defined.

    Attributes:
        n: Number of pictures.
        srcc: Spearman's rank correlation.
        plcc: Pearson's correlation of the scores as they are.
        plcc_logistic: The same after the logistic fit.
        krcc: Kendall's tau-b.
        rmse: Root mean squared error after the logistic fit, in the unit of the labels.
    """

    n: int
    srcc: float
    plcc: float
    plcc_logistic: float
    krcc: float
    rmse: float

    @property
    def runs_against(self) -> bool:
        """Whether the scores rank in the opposite order to the labels, by far more than chance would."""
        # without any agreement, SRCC has the standard deviation 1 / sqrt(n - 1)
        return self.srcc <= AGAINST and self.srcc * math.sqrt(self.n - 1) <= -_ERRORS_FROM_0


def agreement(scores: ArrayLike, opinions: ArrayLike) -> Agreement:
    """Returns how well scores agree with opinions.

    Args:
        scores: (n,) scores.
        opinions: (n,) labels, turned so that higher is better.
    """
    x, y = np.asarray(scores, np.float64), np.asarray(opinions, np.float64)
    if len(x) < FEWEST:
        return Agreement(len(x), *[metrics.NAN] * 5)
    fit = metrics.fitted(x, y)
    return Agreement(len(x), metrics.srcc(x, y), metrics.plcc(x, y), fit.plcc, metrics.krcc(x, y), fit.rmse)


class Labels:
    """The labels of a table's pictures.

    Args:
        dataset: The table, opened.

    Attributes:
        files: The pictures, in the order of the table; also those that are missing, which cannot be read.
        of_file: Path of a picture -> its label, as the table has it.
        opinions: The same, turned so that higher is better.

    Raises:
        UserError: If labels are broken, or not one picture is there.
    """

    def __init__(self, dataset: TableDataset) -> None:
        self.dataset = dataset
        ratings = dataset.ratings()
        missing = dataset.missing_files(ratings)
        if len(missing) == len(ratings):
            raise UserError(
                f"{dataset.homepage} names {len(ratings)} images, and none of them, such as {missing[0]}, is "
                f"in {dataset.root}; {dataset.advice(missing)}"
            )
        away = {*missing}
        paths = [_shown(dataset.root / key if key in away else dataset.path(key)) for key, *_ in ratings]
        self.files = paths
        lower = dataset.direction == "lower"
        self.of_file = {
            str(path): 0.0 - rating.score if lower else rating.score
            for path, rating in zip(paths, ratings, strict=True)
        }
        self.opinions = {str(path): rating.score for path, rating in zip(paths, ratings, strict=True)}

    def notes(self) -> list[str]:
        """Returns how labels and names were read, a line each."""
        exact = ["all names are exactly those of files"] if self.dataset.exact_names else []
        return [*self.dataset.notes(), *exact]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the labels: a table with others is not resumed."""
        return digest([self.dataset.direction, sorted(self.of_file.items())])


def _shown(path: Path) -> Path:
    """Returns a path relative to here, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


class Comparison(Tally):
    """The outcome for the pictures, and how well their scores agree with the labels."""

    def __init__(self, labels: Labels, facts: ModelFacts) -> None:
        super().__init__()
        self._labels, self._facts = labels, facts
        self._scores: dict[str, float] = {}

    def add(self, row: FileRow) -> None:
        """See the base class."""
        super().add(row)
        if row.score is not None:
            self._scores[row.image] = row.score

    @cached_property
    def agreement(self) -> Agreement:
        """How well scores and labels agree on the pictures that have a score."""
        return agreement([*self._scores.values()], [self._labels.opinions[image] for image in self._scores])

    def text(self) -> str:
        """Returns the numbers, as on a terminal."""
        found, title = self.agreement, self._labels.dataset.title
        rows = [
            ("n", f"{found.n:,}"),
            ("SRCC", number(found.srcc)),
            ("PLCC", number(found.plcc)),
            ("PLCC (logistic)", number(found.plcc_logistic)),
            ("KRCC", number(found.krcc)),
            ("RMSE (logistic)", number(found.rmse)),
        ]
        head = f"{title}: {found.n:,} of {plural(self.files, 'picture')} compared with run {self._facts.id}"
        return "\n".join([head, *self._labels.notes(), "", text_table(rows, right={1})])

    def remarks(self) -> list[str]:
        """Returns what should be known about the numbers, a line each."""
        found, said = self.agreement, []
        scores = [*self._scores.values()]
        opinions = {self._labels.opinions[image] for image in self._scores}
        if found.n < FEWEST:
            said.append(
                f"{plural(found.n, 'picture')}: too few for a correlation, which needs at least {FEWEST}"
            )
        elif len(opinions) == 1 or len({*scores}) == 1:
            what = "labels are" if len(opinions) == 1 else "scores are"
            said.append(f"all {found.n:,} {what} equal: their correlation is undefined")
        elif math.isnan(found.plcc_logistic):
            why = (
                f"at least {FEWEST_FITTED} pictures are needed"
                if found.n < FEWEST_FITTED
                else "the best curve does not rise"
            )
            said.append(f"no logistic fit: {why}")
        if self.failed:
            said.append(f"the numbers leave out {plural(self.failed, 'picture')} without a score")
        if found.runs_against:
            said.append(self._against())
        if self._labels.dataset.name in map(base_of, self._facts.sequence):
            said.append(
                f"run {self._facts.id} learned {self._labels.dataset.title}: pictures it was trained on are "
                "among these; the report of the run uses its test images alone"
            )
        return said

    def _against(self) -> str:
        lower = self._labels.dataset.direction == "lower"
        other = "higher_is_better" if lower else "lower_is_better"
        return (
            f"SRCC {number(self.agreement.srcc)}: the scores rank these pictures in the opposite order to "
            f"the labels, read as {'lower' if lower else 'higher'} is better; nothing was flipped; if that "
            f"reading is wrong, say {other}"
        )
