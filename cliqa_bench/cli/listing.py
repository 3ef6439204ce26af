"""What `list` prints: everything that has a name on the command line, read without torch."""

from __future__ import annotations

import textwrap

from cliqa_bench.benchmarks import suites
from cliqa_bench.extensions import registry
from cliqa_bench.results.readouts import READOUTS
from cliqa_bench.strategies.base import Strategy
from cliqa_bench.terminal import text_table

READOUT_TEXTS = {
    "gate": "heads weighted by the gate's softmin (TSN-IQA, -KG)",
    "gate-hard": "the head with the largest weight",
    "oracle": "the head of the test set's own task (-O)",
    "last": "the newest head",
    "merged": "a single head beside those of the tasks, of strategies that have one",
}


def listing() -> str:
    """Returns strategies, datasets, backbones, orders and readouts, one a line, under headings."""
    return "\n\n".join(
        f"{title}\n{textwrap.indent(text_table(rows), '  ')}"
        for title, rows in (
            ("strategies (--strategy)", _strategies()),
            ("datasets (--orders, below --data)", _datasets()),
            (
                "backbones (--backbone), what TSN-IQA adds per task (parameters, centroid values)",
                _backbones(),
            ),
            ("orders (--orders)", _orders()),
            (
                "readouts (table rows; chosen at report time)",
                [[n, READOUT_TEXTS[n]] for n in READOUTS],
            ),
        )
    )


PART_TEXTS = {
    "NAME:GROUP": "a part of a dataset: one distortion, or a group of them (csiq:blur, csiq:common)",
    "NAME@1/3": "a part of it: the first of three blocks of its training and validation contents",
    "NAME?unlabelled": "without opinion scores for training and validation; also csiq:blur@1/3?unlabelled",
}

DESIGN_TEXTS = {
    "all": "the paper's eight, I to VIII",
    "every": "all orders of the six; of others: every:live,csiq,bid",
    "sample:N": "N of them, drawn with a seed, the same every time; a larger N adds to the same draw",
    "williams": "a Williams square: each dataset in each place and after each other equally often",
    "transfer:A,B": "A, then three blocks of B without its labels; transfer@4:A,B for four",
    "transfers": "the eight of SS-IQA: live,csiq; tid2013,kadid10k; clive,koniq10k; spaq,flive; and back",
    "distortions:NAME": "a dataset's distortions one after the other (of kadid10k its seven groups)",
    "distortions-reversed:NAME": "the same, the last first",
}


def _orders() -> list[list[str]]:
    rows = [[label, ", ".join(names)] for label, names in suites.ORDERS.items()]
    return [*rows, *([word, text] for word, text in DESIGN_TEXTS.items())]


def _strategies() -> list[list[str]]:
    known = [*registry.names("strategies"), *registry.families("strategies")]
    return [[name, registry.describe("strategies", name)] for name in known]


def _backbones() -> list[list[str]]:
    rows = []
    for name in registry.names("backbones"):
        if registry.from_package("backbones", name):
            rows.append([name, "-", "-", registry.describe("backbones", name)])
            continue
        backbone = registry.load("backbones", name)
        learnable, kept = backbone.task_parameters(), backbone.centroid_values(Strategy.centroids)
        rows.append([name, f"{learnable:,}", f"{kept:,}", registry.describe("backbones", name)])
    for name in registry.families("backbones"):
        rows.append([name, "-", "-", registry.describe("backbones", name)])
    return rows


def _datasets() -> list[list[str]]:
    rows = []
    for name in registry.names("datasets"):
        if registry.from_package("datasets", name):
            rows.append([name, "-", "-", "-", registry.describe("datasets", name)])
            continue
        dataset = registry.load("datasets", name)
        label = f"authors' label: {dataset.direction} is better"
        home = registry.file_of("datasets", name) or dataset.homepage
        rows.append([name, dataset.title, f"{dataset.n_images:,} images", label, str(home)])
    for name in registry.families("datasets"):
        rows.append([name, "-", "-", "-", registry.describe("datasets", name)])
    return rows + [[written, "-", "-", "-", text] for written, text in PART_TEXTS.items()]
