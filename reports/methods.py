"""Which runs are behind a method of a table, and what their models predicted."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.reports.measure import SETTINGS, Setting, is_joint, setting_of
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import Replicate, replicate_of
from cliqa_bench.results.readouts import read
from cliqa_bench.results.records import AnswerReader, RunRecord
from cliqa_bench.types import Floats

T = TypeVar("T")


def _label(method: str, variant: str) -> str:
    return f"{method} ({variant})" if variant else method


class Method(NamedTuple):
    """A row of the tables: what is compared with its like.

    Attributes:
        setting: The paper's setting.
        backbone: The backbone's name in the tables.
        method: The method's name in the tables.
        variant: Hyper-parameters that differ from the defaults, or "".
    """

    setting: Setting
    backbone: str
    method: str
    variant: str

    @property
    def label(self) -> str:
        """Method and variant, as `label_of` gives them for its rows."""
        return _label(self.method, self.variant)


class RunReadout(NamedTuple):
    """A run and how it is read."""

    record: RunRecord
    readout: str


class Prediction(NamedTuple):
    """What a model says about a test set.

    Attributes:
        keys: (n,) str, image keys.
        mos: (n,) float64 opinions, higher is better.
        scores: (n,) float64 predictions.
        contents: (n,) int64, one number for all images of a reference; None where the files do not say.
    """

    keys: NDArray[np.str_]
    mos: Floats
    scores: Floats
    contents: NDArray[np.int64] | None = None


def method_of(source: RunReadout) -> Method:
    """Returns the row of a run under a readout."""
    record = source.record
    return Method(
        setting_of(record, source.readout), record.backbone, record.rows[source.readout], record.variant
    )


def sources(
    group: RunGroup, wanted: Callable[[RunRecord], bool] | None = None
) -> dict[Method, dict[Replicate, RunReadout]]:
    """Returns the finished runs behind every method, by split and seed; of several the newest.

    Args:
        group: The runs.
        wanted: Which runs count; where nothing is said, those of the main order, and joint learning of the
            same datasets.
    """
    main, order = set(group.main_record.sequence), group.main_order

    def compared(record: RunRecord) -> bool:
        return record.order == order or (is_joint(record) and set(record.sequence) == main)

    found: dict[Method, dict[Replicate, RunReadout]] = {}
    for record in filter(group.is_finished, filter(wanted or compared, group.records)):
        for readout in record.rows:
            source = RunReadout(record, readout)
            found.setdefault(method_of(source), {}).setdefault(replicate_of(record), source)
    ranked = sorted(found, key=lambda m: (SETTINGS.index(m.setting), *m[1:]))
    return {method: dict(sorted(found[method].items())) for method in ranked}


def once(find: Callable[[RunGroup, AnswerReader], T]) -> Callable[[RunGroup, AnswerReader], T]:
    """Caches a function's result that several tables and figures of a group need.

    What it finds is kept as long as the reader; callers must not change it.
    """
    known: WeakKeyDictionary[AnswerReader, dict[str, T]] = WeakKeyDictionary()

    @functools.wraps(find)
    def found(group: RunGroup, reader: AnswerReader) -> T:
        by_group = known.setdefault(reader, {})
        key = " ".join([group.id, *(record.id for record in group.records), "unfinished:", *group.unfinished])
        if key not in by_group:
            by_group[key] = find(group, reader)
        return by_group[key]

    return found


def drawn_methods(methods: Iterable[Method], one_backbone: bool = True) -> list[Method]:
    """Chooses the methods for which a figure has room.

    Variants of a method that is there itself are left out, and all backbones but the one with most methods
    (the first by name, of several).

    Args:
        methods: The methods there are, each once.
        one_backbone: Whether the figure shows one backbone only.
    """
    known = list(methods)
    kept = [m for m in known if not m.variant or m._replace(variant="") not in known]
    if one_backbone and kept:
        count = Counter(method.backbone for method in kept)
        main = min(count, key=lambda backbone: (-count[backbone], backbone))
        kept = [method for method in kept if method.backbone == main]
    return kept


def row_method(row: TidyRow) -> Method:
    """Returns the method of a tidy row."""
    return Method(*row[1:5])  # type: ignore[arg-type]


def predict(reader: AnswerReader, source: RunReadout, step: int, test: str) -> Prediction | None:
    """Returns what a run predicts for a test set after an experience.

    Args:
        reader: Reads the answers.
        source: The run and how it is read.
        step: Index of the experience, from 0.
        test: Name of the test set.

    Returns:
        The prediction; None where answers are missing or the readout is not defined.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    record, readout = source
    answers = reader.answers(record, step, test)
    if answers is None:
        return None
    task = record.sequence.index(test) if test in record.sequence else None
    scores = read(answers, readout, task, answers.tau)
    return None if scores is None else Prediction(answers.keys, answers.mos, scores, answers.contents)


def matrices_of(reader: AnswerReader, source: RunReadout) -> tuple[Floats, Floats]:
    """Returns the SRCC matrix and the stability matrix of a run on the test sets of its own sequence.

    Returns:
        Two (T, T) float64, nan where undefined or missing.

    Raises:
        UserError: If an answer file is broken or files do not belong together.
    """
    steps = range(len(source.record.steps))
    told, opinions = [], []
    for test in source.record.sequence:
        read_out = [predict(reader, source, t, test) for t in steps]
        mos = next((p.mos for p in read_out if p is not None), np.zeros(0))
        told.append(np.stack([np.full(len(mos), np.nan) if p is None else p.scores for p in read_out]))
        opinions.append(mos)
    return metrics.matrices(told, opinions)


def make_row(table: str, method: Method, order: str, metric: str, value: float, note: str = "") -> TidyRow:
    """Returns a tidy row without spread, length or datasets; `_replace` adds what it has of them."""
    return TidyRow(table, *method, order, "", "", "", metric, value, float("nan"), note)


def joined_note(*parts: str) -> str:
    """Returns the notes on a number, in the form of the tidy rows."""
    return "; ".join(part for part in parts if part)


def unique(values: Iterable[T]) -> list[T]:
    """Returns each value once, in the order of their first appearance."""
    return list(dict.fromkeys(values))


def label_of(row: TidyRow) -> str:
    """Returns the method of a row, with its variant."""
    return _label(row.method, row.variant)


def namer(rows: Sequence[TidyRow]) -> Callable[[TidyRow], str]:
    """Returns the names of methods: with the variant, and the backbone if there are several."""
    if len({row.backbone for row in rows}) == 1:
        return label_of
    return lambda row: f"{label_of(row)} [{row.backbone}]"
