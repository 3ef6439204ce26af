"""The scale on which scores of a finished run are interpreted: its own answers to its test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.models.reading_scale import ReadingScale, novelty_limits, scale_of
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.terminal import plural
from cliqa_bench.types import Answers, Floats


class _Limits(NamedTuple):
    limits: Floats | None
    calibrated: str


def run_scale(reader: AnswerReader, record: RunRecord, readout: str) -> ReadingScale | None:
    """Returns the scale of a run.

    The population is all test pictures that the run has answered. Novelty is calibrated on validation
    pictures if the run has kept the gate's answers to them (`tau_from=validation`), else on the test
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
    answers = {
        test: said
        for test in dict.fromkeys([*record.sequence, *record.tests])
        if (said := _answers(reader, record, test)) is not None
    }
    kept = reader.validation_distances(record, len(record.steps) - 1) if readout == "gate" else None
    return scale_of_answers(answers, record.titles, record.sequence, readout, kept)


def scale_of_answers(
    answers: Mapping[str, Answers],
    titles: Mapping[str, str],
    sequence: Sequence[str],
    readout: str,
    validation: list[NDArray[np.float32]] | None = None,
) -> ReadingScale | None:
    """Returns the scale of a model that has answered test sets.

    Args:
        answers: Test set -> the scores of all heads.
        titles: Name of a dataset -> its name in tables.
        sequence: The datasets that it learned.
        readout: How heads become one score, see `ModelFacts.readout`.
        validation: Of each learned dataset, what the gate says of its validation pictures; None where that
            is not known: novelty is calibrated on the test pictures.

    Returns:
        The scale; None where nothing was answered.
    """
    scores: list[NDArray[np.float64]] = []
    names: list[str] = []
    tests = []
    for test, said in answers.items():
        found = read(said, readout, None, said.tau)
        if found is not None and np.isfinite(found).all() and len(found):
            title = titles.get(test, test)
            scores.append(found)
            names += [f"{title} {key} (MOS {mos:.4g})" for key, mos in zip(said.keys, said.mos, strict=True)]
            tests.append(title)
    if not scores:
        return None
    population = f"{plural(len(names), 'test picture')} of {', '.join(tests)}"
    limits = _limits(answers, sequence, validation) if readout == "gate" else _Limits(None, "")
    return scale_of(np.concatenate(scores), names, population, **limits._asdict())


def _answers(reader: AnswerReader, record: RunRecord, test: str) -> Answers | None:
    return reader.answers(record, len(record.steps) - 1, test)


def _limits(
    answers: Mapping[str, Answers], sequence: Sequence[str], validation: list[NDArray[np.float32]] | None
) -> _Limits:
    """Returns the limits of novelty, and on what they were found; none where a dataset has not answered."""
    if validation is not None:
        return _Limits(novelty_limits(validation), _said(validation, "validation picture"))
    found = [answers.get(test) for test in sequence]
    distances = [said.distances for said in found if said is not None and said.distances is not None]
    if len(distances) < len(sequence) or not all(map(len, distances)):
        return _Limits(None, "")
    return _Limits(novelty_limits(distances), _said(distances, "test picture"))


def _said(distances: list[NDArray[np.float32]], what: str) -> str:
    return plural(sum(map(len, distances)), what)
