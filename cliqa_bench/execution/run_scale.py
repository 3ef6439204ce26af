"""The scale on which scores of a finished run are read: its own answers to its test sets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.models.reading_scale import ReadingScale, novelty_limits, scale_of
from cliqa_bench.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.terminal import plural
from cliqa_bench.types import Answers, Floats


class _Limits(NamedTuple):
    limits: Floats | None
    calibrated: str


def run_scale(reader: AnswerReader, record: RunRecord, readout: str) -> ReadingScale | None:
    """Returns the scale of a run.

    The population is all test pictures that the run has answered. Novelty is calibrated on validation
    pictures where the run has kept what the gate says of them (`tau_from=validation`), else on the test
    pictures of the datasets that it learned.

    Args:
        reader: Reads its answers.
        record: The run.
        readout: How heads become one score, see `ModelFacts.readout`.

    Returns:
        The scale; None where nothing was answered, or the model is adapted to test sets before it answers:
        single pictures are scored by the model as trained.
    """
    if record.transductive:
        return None
    scores: list[NDArray[np.float64]] = []
    names: list[str] = []
    tests = []
    for test in dict.fromkeys([*record.sequence, *record.tests]):
        answers = _answers(reader, record, test)
        said = None if answers is None else read(answers, readout, None, answers.tau)
        if answers is not None and said is not None and np.isfinite(said).all() and len(said):
            title = record.titles[test]
            scores.append(said)
            names += [
                f"{title} {key} (MOS {mos:.4g})" for key, mos in zip(answers.keys, answers.mos, strict=True)
            ]
            tests.append(title)
    if not scores:
        return None
    population = f"{plural(len(names), 'test picture')} of {', '.join(tests)}"
    return scale_of(np.concatenate(scores), names, population, **_limits(reader, record, readout)._asdict())


def _answers(reader: AnswerReader, record: RunRecord, test: str) -> Answers | None:
    return reader.answers(record, len(record.steps) - 1, test)


def _limits(reader: AnswerReader, record: RunRecord, readout: str) -> _Limits:
    """Returns the limits of novelty, and on what they were found; none where there is no gate."""
    if readout != "gate":
        return _Limits(None, "")
    if (kept := reader.validation_distances(record, len(record.steps) - 1)) is not None:
        return _Limits(novelty_limits(kept), _said(kept, "validation picture"))
    found = [_answers(reader, record, test) for test in record.sequence]
    distances = [answers.distances for answers in found if answers and answers.distances is not None]
    if len(distances) < len(record.sequence) or not all(map(len, distances)):
        return _Limits(None, "")
    return _Limits(novelty_limits(distances), _said(distances, "test picture"))


def _said(distances: list[NDArray[np.float32]], what: str) -> str:
    return plural(sum(map(len, distances)), what)
