"""One run's answers in, its numbers out."""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.types import Answers, Floats

Setting = Literal[
    "Joint", "Task-Aware", "Task-Agnostic", "Joint, adapted", "Task-Aware, adapted", "Task-Agnostic, adapted",
]  # fmt: skip
SETTINGS: tuple[Setting, ...] = get_args(Setting)
ADAPTED: tuple[Setting, ...] = SETTINGS[3:]
"""Those of transductive methods, which are compared with each other alone."""
ADAPTED_NOTE = "adapted to the unlabelled test images; not comparable with methods that are not"
"""Note on every number of a transductive method."""

SUMMARY = ("mSRCC", "mPI", "mSI", "mPSI")
NOT_LEARNED = "not in the sequence"
"""Note on a test set that is not a task."""


class Cell(NamedTuple):
    """What a number is about, in the columns of the tidy schema.

    Attributes:
        metric: Its name as in the paper's tables.
        length: Number of experiences so far, "Mean" over lengths, or "" where it has no meaning.
        train: Title of the dataset learned last, "All" for joint learning, or "".
        test: Title of the test set, or "".
        note: What a reader must know about this cell, or "".
    """

    metric: str
    length: int | str = ""
    train: str = ""
    test: str = ""
    note: str = ""


def is_joint(record: RunRecord) -> bool:
    """Whether all datasets are learned at once: one step for a sequence of several."""
    return len(record.steps) == 1 < len(record.sequence)


def setting_of(record: RunRecord, readout: str) -> Setting:
    """Returns the paper's setting of a readout: a reader with the oracle is task-aware.

    Transductive methods have settings of their own, so that no table ranks them among the others.
    """
    place = 0 if is_joint(record) else 1 if readout == "oracle" else 2
    return ADAPTED[place] if record.transductive else SETTINGS[place]


@dataclass
class RunNumbers:
    """The numbers of one run.

    Attributes:
        values: Readout -> cell -> number, nan where an answer is missing or nothing is defined.
        problems: Predictions without a rank correlation, each in one line naming the image or the test set.
        steep: Predictions whose logistic fit is as steep as it may be, each in a few words.
    """

    values: dict[str, dict[Cell, float]]
    problems: list[str] = field(default_factory=list)
    steep: list[str] = field(default_factory=list)


class Measurer:
    """Measures runs; what several runs share (nodes, predictions) is read and fitted once."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._final: dict[bytes, tuple[dict[str, float], bool]] = {}

    def measure(self, record: RunRecord) -> RunNumbers:
        """Returns all numbers of a run under all of its readouts.

        Raises:
            UserError: If an answer file is broken or files do not belong together.
        """
        measured = RunNumbers({readout: {} for readout in record.rows})
        tests = [*record.sequence, *(t for t in record.tests if t not in record.sequence)]
        told = {readout: [np.zeros((len(record.steps), 0)) for _ in tests] for readout in record.rows}
        mos = [np.zeros(0) for _ in tests]
        for k, test in enumerate(tests):
            for t in range(len(record.steps)):
                answers = self._reader.answers(record, t, test)
                if answers is None:
                    continue
                mos[k] = answers.mos
                for readout in record.rows:
                    scores = self._read(record, readout, answers, test)
                    if scores is not None:
                        self._check(record, measured, readout, t, test, answers.keys, scores)
                        if told[readout][k].shape[1] == 0:
                            told[readout][k] = np.full((len(record.steps), len(scores)), np.nan)
                        told[readout][k][t] = scores
        for readout in record.rows:
            # where nothing was read there is no image either
            seen = [m if p.shape[1] else m[:0] for p, m in zip(told[readout], mos, strict=True)]
            measured.values[readout] = self._numbers(record, readout, tests, told[readout], seen)
            measured.steep += [
                f"{record.rows[readout]}, order {record.order}, seed {record.seed}, on {record.titles[test]}"
                for test, scores, opinions in zip(tests, told[readout], seen, strict=True)
                if self._of_final(scores[-1], opinions)[1]
            ]
        return measured

    @staticmethod
    def _read(record: RunRecord, readout: str, answers: Answers, test: str) -> Floats | None:
        task = record.sequence.index(test) if test in record.sequence else None
        return read(answers, readout, task, answers.tau)

    @staticmethod
    def _check(
        record: RunRecord,
        measured: RunNumbers,
        readout: str,
        step: int,
        test: str,
        keys: NDArray[Any],
        scores: Floats,
    ) -> None:
        title = record.titles.get(test, test)
        split = f"split {record.split_number}, " if record.split_number else ""
        bad = ~np.isfinite(scores)
        if bad.any():
            what = f"has no finite score for image {keys[bad.argmax()]}"
        elif len(scores) < 2:
            measured.problems.append(
                f"{split}{title} has fewer than two test images: correlations are shown as dashes"
            )
            return
        elif np.ptp(scores) == 0:
            what = "gives all images the same score"
        else:
            return
        after = record.titles.get(record.steps[step].dataset, record.steps[step].dataset)
        measured.problems.append(
            f"{record.rows[readout]}, order {record.order}, {split}seed {record.seed}, after {after}, on "
            f"{title}: {what}; its correlations are shown as dashes"
        )

    def _numbers(
        self, record: RunRecord, readout: str, tests: list[str], told: list[Floats], mos: list[Floats]
    ) -> dict[Cell, float]:
        titles = [record.titles.get(test, test) for test in tests]
        agreement, stability = metrics.matrices(told, mos)
        values: dict[Cell, float] = {}
        joint, steps, tasks = is_joint(record), len(record.steps), len(record.sequence)
        for t in range(steps):
            learned = tasks if joint else t + 1
            for k, title in enumerate(titles):
                if readout == "oracle" and k >= learned:
                    continue  # there is no head to ask for
                note = "future task" if learned <= k < tasks else NOT_LEARNED if k >= tasks else ""
                train, length = ("All", "") if joint else (titles[t], t + 1)
                values[Cell("SRCC", length, train, title, note)] = float(agreement[t, k])
        for k, title in enumerate(titles):
            for metric, value in self._of_final(told[k][-1], mos[k])[0].items():
                if readout != "oracle" or k < tasks:
                    length, train = ("", "All") if joint else (steps, titles[steps - 1])
                    note = "after the last experience" + ("" if k < tasks else f"; {NOT_LEARNED}")
                    values[Cell(metric, length, train, title, note)] = value
        if joint:
            values[Cell("mSRCC", "", "All")] = statistics.fmean(agreement[-1, :tasks])
        else:
            values.update(_indices(agreement, stability, titles))
        return values

    def _of_final(self, scores: Floats, mos: Floats) -> tuple[dict[str, float], bool]:
        """Returns PLCC, KRCC and the logistic ones, and whether the fit is as steep as it may be.

        Runs that predict the same (other orders) are fitted once.
        """
        key = hashlib.blake2b(scores.tobytes() + mos.tobytes()).digest()
        if key not in self._final:
            fit = metrics.fitted(scores, mos)
            numbers = {
                "PLCC": metrics.plcc(scores, mos),
                "PLCC (logistic)": fit.plcc,
                "KRCC": metrics.krcc(scores, mos),
                "RMSE (logistic)": fit.rmse,
            }
            self._final[key] = numbers, fit.steep
        return self._final[key]


def _indices(agreement: Floats, stability: Floats, titles: list[str]) -> dict[Cell, float]:
    """Equations 11 to 15, whole and by length, and the stability matrix they are made of."""
    steps = len(agreement)
    values: dict[Cell, float] = {}
    for t in range(steps):
        for k in range(t):
            values[Cell("S", t + 1, titles[t], titles[k])] = float(stability[t, k])
    curves = {
        "PI_t": metrics.pi_t(agreement),
        "SI_t": metrics.si_t(stability),
        "PSI_t": metrics.psi_t(agreement, stability),
        "mPSI": metrics.mpsi_by_length(agreement, stability),
    }
    for metric, curve in curves.items():
        values.update({Cell(metric, t + 1): float(value) for t, value in enumerate(curve)})
    values[Cell(f"mean of mPSI over lengths 1-{steps}", "Mean")] = float(curves["mPSI"].mean())
    summary = metrics.summary(agreement, stability)
    values.update({Cell(metric, steps): getattr(summary, metric) for metric in SUMMARY})
    return values
