"""The tables of SS-IQA: from a labelled dataset D^A to the unlabelled blocks of another one, D^B.

They are about runs in orders such as `transfer:live,csiq`. Each table has halves: the test images of D^A,
those of D^B, and, where D^B has further distortions, those of D^B with one of the four that all have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench import metrics
from cliqa_bench.part_names import read_part
from cliqa_bench.reports.methods import Method, RunReadout, joined_note, namer, predict, sources, unique
from cliqa_bench.reports.rows import RunGroup, TidyRow
from cliqa_bench.reports.spread import spread
from cliqa_bench.reports.tables.shapes import Section, Table, TableValue, build
from cliqa_bench.reports.tables.tsn import Runs
from cliqa_bench.results.records import AnswerReader, RunRecord

STRATEGY, METHOD = "ssiqa", "SS-IQA"
BLOCKS = 3
"""Blocks of D^B in the paper's Table 1."""
LABELLED, UNLABELLED, COMMON = "D^A (labelled)", "D^B (unlabelled)", "D^B, common distortions"
PSEUDO = "pseudo-labels on D^B"
HALVES = (LABELLED, UNLABELLED, COMMON)
METRICS = ("PLCC", "SRCC")
PUBLISHED = "published"
"""Note of rows with the paper's numbers, beside ours: of how many runs they are is not known."""
BASELINE, INCREMENTAL, REGRESSION, ALONE = "baseline", "+ IL", "+ KRR", "blocks alone"

_COMMON = {
    "csiq": r"(?i).*\.(awgn|jpeg|jpeg2000|blur)\.\d\.\w+",
    "tid2013": r"(?i).*i\d\d_(01|08|10|11)_\d\.\w+",
    "kadid10k": r"(?i).*i\d\d_(01|09|10|11)_\d\d\.\w+",
}
"""Keys of images with Gaussian noise or blur, JPEG or JPEG 2000, of datasets with further distortions."""


class Transfer(NamedTuple):
    """What an order goes from and to.

    Attributes:
        labelled: Name of D^A.
        last: Name of the last block of D^B; its test images are those of all of D^B.
        base: Name of the dataset that D^B is, or is a part of.
        blocks: How many blocks there are.
        title: "LIVE->CSIQ".
    """

    labelled: str
    last: str
    base: str
    blocks: int
    title: str

    @property
    def titles(self) -> tuple[str, str]:
        """Titles of D^A and D^B."""
        one, _, other = self.title.partition("->")
        return one, other


def transfer_of(record: RunRecord) -> Transfer | None:
    """Returns what a run's order goes from and to; None if it is not a transfer to unlabelled blocks."""
    first, *rest = record.sequence
    parts = [part for part in map(read_part, rest) if part is not None and part.unlabelled]
    expected = [(i, len(rest)) for i in range(1, len(rest) + 1)]
    if not rest or [(part.block, part.blocks) for part in parts] != expected:
        return None
    if len({(part.base, part.group) for part in parts}) > 1 or first.endswith("?unlabelled"):
        return None
    title = record.titles[rest[-1]].removesuffix(" unlabelled").removesuffix(f" {len(rest)}/{len(rest)}")
    return Transfer(first, rest[-1], parts[0].base, len(rest), f"{record.titles[first]}->{title}")


def options_of(variant: str) -> dict[str, str]:
    """Returns the hyper-parameters that a variant names."""
    return dict(re.findall(r"(\w+)=(.*?)(?=, \w+=|$)", variant))


def ablation_of(variant: str) -> tuple[str, str] | None:
    """Returns what an ablation of a variant is called in the paper, and the variant without it.

    None for what is not in the ablation: other numbers of exemplars.
    """
    options = options_of(variant)
    off = {name: options.pop(name) for name in ("krr", "k1", "k2") if name in options}
    known = {
        (): "",
        (("krr", "False"),): INCREMENTAL,
        (("k1", "0"), ("k2", "0")): REGRESSION,
        (("krr", "False"), ("k1", "0"), ("k2", "0")): ALONE,
    }
    word = known.get(tuple(off.items()))
    return None if word is None else (word, ", ".join(f"{name}={value}" for name, value in options.items()))


@dataclass(frozen=True)
class _Half:
    """A half of a table: which test set of a run, and which of its images."""

    setting: str
    test: str
    title: str
    keep: Callable[[NDArray[np.str_]], NDArray[np.bool_]]


def _halves(transfer: Transfer) -> Iterator[_Half]:
    one, other = transfer.titles

    def everything(keys: NDArray[np.str_]) -> NDArray[np.bool_]:
        return np.ones(len(keys), bool)

    yield _Half(LABELLED, transfer.labelled, one, everything)
    yield _Half(UNLABELLED, transfer.last, other, everything)
    if pattern := _COMMON.get(transfer.base):
        named = re.compile(pattern)
        yield _Half(
            COMMON, transfer.last, other, lambda keys: np.array([bool(named.fullmatch(k)) for k in keys])
        )


def _transfers(group: RunGroup) -> Iterator[tuple[Transfer, Method, Runs]]:
    """Yields each transfer with the runs of each method, under a readout without a gate."""
    known = {(t.title, t.blocks, r.order): t for r in group.records if (t := transfer_of(r))}
    for (_, _, order), transfer in sorted(known.items()):
        for method, runs in sources(group, lambda record, order=order: record.order == order).items():  # type: ignore[misc]
            if next(iter(runs.values())).readout in ("last", "merged"):
                yield transfer, method, runs


def _numbers(
    reader: AnswerReader, source: RunReadout, half: _Half, step: int, pseudo: bool = False
) -> dict[str, float]:
    """Returns PLCC and SRCC of a run on a half after an experience, nan where undefined or missing."""
    told = predict(reader, source, step, half.test)
    scores = None if told is None else told.scores
    if pseudo and "krr=False" not in source.record.variant:
        answers = reader.answers(source.record, step, half.test)
        kept = {} if answers is None else answers.extras
        scores = np.asarray(kept["pseudo"][:, 0], np.float64) if "pseudo" in kept else None
    if told is None or scores is None:
        return dict.fromkeys(METRICS, math.nan)
    keep = half.keep(told.keys)
    of = (scores[keep], told.mos[keep])
    return {"PLCC": metrics.plcc(*of), "SRCC": metrics.srcc(*of)}


def _rows(
    table: str, group: RunGroup, reader: AnswerReader, transfer: Transfer, method: Method, runs: Runs,
    step: int = -1, pseudo: bool = False,
) -> list[TidyRow]:  # fmt: skip
    """Returns the rows of a method on a transfer after an experience, by default the last one."""
    rows = []
    for half in _halves(transfer):
        if pseudo and half.setting != UNLABELLED:
            continue
        place = step % (transfer.blocks + 1)
        each = {run: _numbers(reader, source, half, place, pseudo) for run, source in runs.items()}
        for metric in METRICS:
            found = spread({run: numbers[metric] for run, numbers in each.items()})
            note = joined_note(found.note, group.caution)
            setting = PSEUDO if pseudo else half.setting
            about = TidyRow(
                table, setting, *method[1:], transfer.title, transfer.blocks, transfer.titles[0], half.title,
                metric, found.mean, found.std, note, found.median,
            )  # fmt: skip
            rows.append(about)
    return rows


def transfer_table_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 1: every method on the transfers in three blocks, ablations of SS-IQA left out."""
    rows = []
    for transfer, method, runs in _transfers(group):
        ours = method.method == METHOD
        if transfer.blocks == BLOCKS and not (
            ours and {"krr", "k1", "k2"} & options_of(method.variant).keys()
        ):
            rows += _rows("ssiqa_1", group, reader, transfer, method, runs)
    return rows


class _Compared(NamedTuple):
    """Rows of a variant: what is compared, its word for it, and what else it has."""

    order: str
    backbone: str
    rest: str
    word: str
    rows: list[TidyRow]


def _compared(
    table: str, group: RunGroup, reader: AnswerReader, of: tuple[Transfer, Method, Runs], word: str,
    rest: str, step: int = -1,
) -> _Compared:  # fmt: skip
    transfer, method, runs = of
    named = method._replace(variant=joined_note(word, rest))
    rows = _rows(table, group, reader, transfer, named, runs, step)
    return _Compared(transfer.title, method.backbone, rest, word, rows)


def _where_several(found: list[_Compared], least: int = 2) -> list[TidyRow]:
    """Returns the rows of several variants on a transfer, all else being alike."""
    words: dict[tuple[str, ...], set[str]] = {}
    for one in found:
        words.setdefault(one[:3], set()).add(one.word)
    return [row for one in found if len(words[one[:3]]) >= least for row in one.rows]


def ablation_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Tables 3 and 4: the network before it saw D^B, without the regression, without exemplars."""
    found = []
    for of in _transfers(group):
        transfer, method, _ = of
        ablation = ablation_of(method.variant)
        if method.method != METHOD or transfer.blocks != BLOCKS or ablation is None:
            continue
        word, rest = ablation
        if not word:
            found.append(_compared("ssiqa_3", group, reader, of, BASELINE, rest, step=0))
        found.append(_compared("ssiqa_3", group, reader, of, word, rest))
    return _where_several(found, 3)


def block_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 5: D^B in more or fewer blocks; none where there is one number of blocks."""
    found = []
    for of in _transfers(group):
        transfer, method, _ = of
        ablation = ablation_of(method.variant)
        if method.method == METHOD and ablation is not None and not ablation[0]:
            word = f"blocks={transfer.blocks}"
            found.append(_compared("ssiqa_5", group, reader, of, word, ablation[1]))
    return _where_several(found)


def exemplar_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns Table 6: more or fewer exemplars; none where there is one number of them."""
    found = []
    for of in _transfers(group):
        transfer, method, _ = of
        options = options_of(method.variant)
        if method.method == METHOD and transfer.blocks == BLOCKS and "krr" not in options:
            word = f"K1={options.pop('k1', '100')}, K2={options.pop('k2', '100')}"
            rest = ", ".join(f"{name}={value}" for name, value in options.items())
            found.append(_compared("ssiqa_6", group, reader, of, word, rest))
    return _where_several(found)


def phase_rows(group: RunGroup, reader: AnswerReader) -> list[TidyRow]:
    """Returns PLCC and SRCC on D^A, on D^B and of the pseudo-labels after each experience.

    The metric names the experience: "SRCC: 0" is after D^A, "SRCC: 1" after the first block.
    """
    rows = []
    for transfer, method, runs in _transfers(group):
        if method.method != METHOD or transfer.blocks != BLOCKS:
            continue
        for step in range(transfer.blocks + 1):
            for pseudo in (False, True):
                own = _rows("ssiqa_phases", group, reader, transfer, method, runs, step, pseudo)
                rows += [row._replace(metric=f"{row.metric}: {step}") for row in own]
    return rows


# ----------------------------------------------------------------------------------------------------- shapes


def shape_transfers(rows: list[TidyRow]) -> Table:
    """A section per half, a row per method, two columns per transfer."""
    orders = unique(row.order for row in rows)
    columns = [f"{order}\t{metric}" for order in orders for metric in METRICS]
    name = namer([row for row in rows if row.backbone])
    sections = [
        build(
            setting, [row for row in rows if row.setting == setting], name,
            lambda row: f"{row.order}\t{row.metric}", columns, True,
        )
        for setting in HALVES if any(row.setting == setting for row in rows)
    ]  # fmt: skip
    caption = (
        "SS-IQA: from a labelled dataset D^A to another one, D^B, whose training images have no labels, in "
        "three blocks. Correlation on the test images of D^A and of D^B after the last block, and on those "
        "of D^B with JPEG, JPEG 2000, Gaussian noise or Gaussian blur, where there are further distortions. "
        "Best results of each section in bold."
    )
    return Table(
        "ssiqa_1", caption, ("Half", "Method"), list(METRICS) * len(orders), sections,
        [(order, len(METRICS)) for order in orders], "Transfer",
    )  # fmt: skip


_COUNT = re.compile(r"n=(\d+)")


def _by_transfer(number: str, caption: str, corner: str, rows: list[TidyRow]) -> Table:
    """A section per transfer, a row per variant, two columns per half; and how many runs there are."""
    halves = [setting for setting in HALVES if any(row.setting == setting for row in rows)]
    columns = [f"{setting}\t{metric}" for setting in halves for metric in METRICS]
    backbones = {row.backbone for row in rows}

    def name(row: TidyRow) -> str:
        return (row.variant or METHOD) + (f" [{row.backbone}]" if len(backbones) > 1 else "")

    sections = []
    for order in unique(row.order for row in rows):
        own = [row for row in rows if row.order == order]
        made = build(order, own, name, lambda row: f"{row.setting}\t{row.metric}", columns, True)
        counts = {name(row): _count(row) for row in own}
        sections.append(Section(made.label, [(n, [*values, counts[n]]) for n, values in made.rows]))
    return Table(
        number, caption, ("Transfer", corner), [*list(METRICS) * len(halves), "n"], sections,
        [*((setting, len(METRICS)) for setting in halves), ("", 1)], "Half",
    )  # fmt: skip


def _count(row: TidyRow) -> TableValue:
    if row.note == PUBLISHED:
        return TableValue(digits=0)
    found = _COUNT.search(row.note)
    return TableValue(float(found[1]) if found else 1.0, digits=0)


def shape_ablation(rows: list[TidyRow]) -> Table:
    """A section per transfer, a row per ablation."""
    caption = (
        "SS-IQA, ablation (Tables 3 and 4 of its paper). Baseline: the network that learned D^A alone. + IL: "
        "with blocks and exemplars, its own scores as pseudo-labels. + KRR: with pseudo-labels from the "
        "kernel regression, without exemplars. Mean ± standard deviation (ddof = 1) over n seeds or splits. "
        "Differences of no more than one or two standard deviations are not findings."
    )
    return _by_transfer("ssiqa_3", caption, "Variant", rows)


def shape_blocks(rows: list[TidyRow]) -> Table:
    """A section per transfer, a row per number of blocks."""
    caption = "SS-IQA with D^B in more or fewer blocks (Table 5 of its paper)."
    return _by_transfer("ssiqa_5", caption, "Blocks", rows)


def shape_exemplars(rows: list[TidyRow]) -> Table:
    """A section per transfer, a row per number of exemplars."""
    caption = (
        "SS-IQA with more or fewer exemplars (Table 6 of its paper): one for every K1 images of D^A, and for "
        "every K2 of each block; 0 for none."
    )
    return _by_transfer("ssiqa_6", caption, "Exemplars", rows)


def shape_phases(rows: list[TidyRow]) -> Table:
    """A section per transfer, a row per method and what is measured, a column per experience."""
    rows = [row for row in rows if row.metric.startswith("SRCC")]
    columns = sorted({row.metric.partition(": ")[2] for row in rows}, key=int)
    name = namer(rows)
    sections = [
        build(
            order, [row for row in rows if row.order == order],
            lambda row: f"{name(row)}, {row.setting}", lambda row: row.metric.partition(": ")[2], columns,
            True, best=(),
        )
        for order in unique(row.order for row in rows)
    ]  # fmt: skip
    caption = (
        "SS-IQA: SRCC on the test images after each experience: 0 after D^A, 1 after the first block of D^B. "
        "Pseudo-labels: SRCC on D^B's test images of the model that labels the next block's training images."
    )
    return Table("ssiqa_phases", caption, ("Transfer", "Method"), columns, sections)


def phase_curves(rows: Sequence[TidyRow]) -> dict[str, dict[str, list[TidyRow]]]:
    """Returns transfer -> what is measured -> SRCC after each experience, of the method without a variant."""
    plain = [row for row in rows if row.table == "ssiqa_phases" and row.metric.startswith("SRCC")]
    shown = [row for row in plain if not row.variant] or plain
    curves: dict[str, dict[str, list[TidyRow]]] = {}
    for row in shown:
        same = (row.backbone, row.variant) == (shown[0].backbone, shown[0].variant)
        if same and row.setting != COMMON:
            curves.setdefault(row.order, {}).setdefault(row.setting, []).append(row)
    return curves
