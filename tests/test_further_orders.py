"""Tables III and IV of every finished order, and what one more dataset does to the former ones."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
from reported import numbers_of
from scipy import stats

from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.formats import TABLE_FORMATS
from cliqa_bench.reports.parts import make_tables
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Tidy, TidyRow
from cliqa_bench.reports.tables.added_dataset import order_pairs
from cliqa_bench.reports.tables.further_orders import MOST, further_tables
from cliqa_bench.results.nodes import read_answers
from cliqa_bench.results.records import RunRecord

SHORT, LONG = ["live", "csiq", "bid"], ["live", "csiq", "bid", "clive"]
TURNED = ["clive", "bid", "csiq", "live"]


def lines_of(path: Path, start: str) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(start)]


# -------------------------------------------------------------------------------- Tables III and IV by order


def test_every_finished_order_has_tables_iii_and_iv_with_the_numbers_of_results_csv(tmp_path: Path) -> None:
    recorded.record_golden(tmp_path)
    write_report(tmp_path, TABLE_FORMATS, figures=False)
    report = tmp_path / "report"
    with (report / "results.csv").open(encoding="utf-8", newline="") as file:
        known = {tuple(line)[1:] for line in csv.reader(file)}
    for number in ("III_V", "IV_V"):
        with (report / f"table_{number}.csv").open(encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        order = head.index("order")
        assert {line[0] for line in lines} == {number} and {line[order] for line in lines} <= {"V", ""}
        assert {tuple(line)[1:] for line in lines} <= known
        assert f"[Table {number[:-2]}, order V](table_{number}.md)" in (report / "README.md").read_text()
        assert f"\\input{{table_{number}}}" in (report / "report.tex").read_text()
    assert len(lines_of(report / "table_III_V.md", "|")) == 2 + 5
    heads = lines_of(report / "table_IV_V.md", "| Dataset")[0]
    assert heads == "| Dataset | Method | CLIVE | BID | CSIQ | LIVE |"
    assert "Order V: CLIVE, BID, CSIQ, LIVE." in (report / "table_IV_V.md").read_text()
    assert len(lines_of(report / "table_IV_V.md", "| All | JL |")) == 1


def test_main_tables_of_the_order_alone_are_those_of_the_further_order(tmp_path: Path) -> None:
    for out in (tmp_path / "both", tmp_path / "alone"):
        recorded.record_tsn(out, "V")
    recorded.record_tsn(tmp_path / "both", "I")
    rows = further_tables(numbers_of(tmp_path / "both").rows)
    for number in ("III", "IV"):
        main = [row for row in numbers_of(tmp_path / "alone").rows if row.table == number]
        assert {row._replace(table="") for row in rows[f"{number}_V"]} == {_bare(row) for row in main}


def _bare(row: TidyRow) -> TidyRow:
    return row._replace(table="")


def test_an_unfinished_order_has_no_tables_and_old_ones_are_taken_away(tmp_path: Path) -> None:
    recorded.record_single(tmp_path, "sl", "I")
    record = recorded.record_single(tmp_path, "sl", ",".join(SHORT), sequence=SHORT)
    write_report(tmp_path, ["md"], figures=False)
    table = tmp_path / "report" / "table_III_live-csiq-bid.md"
    assert "**Table III, order live,csiq,bid.**" in table.read_text()
    (tmp_path / "report" / "table_III_mine.md").write_text("stays")
    (tmp_path / "runs" / f"{record.id}.json").unlink()
    write_report(tmp_path, ["md"], figures=False)
    assert not table.exists() and (tmp_path / "report" / "table_III_mine.md").exists()
    record = recorded.record_tsn(tmp_path, "V")
    shutil.rmtree(tmp_path / "answers" / record.answers["train-live-0"]["csiq"])
    assert further_tables(numbers_of(tmp_path).rows) == {}


def test_more_orders_than_the_paper_has_are_counted(tmp_path: Path) -> None:
    record = recorded.record_single(tmp_path, "sl", "I")
    turns = [record.sequence[i:] + record.sequence[:i] for i in range(1, 4)]
    turns += [[b, a, *rest] for a, b, *rest in [record.sequence, *turns]]
    turns += [record.sequence[::-1], ["live", "bid", "csiq", "clive"]]
    for sequence in turns:
        recorded.record_single(tmp_path, "sl", ",".join(sequence), sequence=sequence)
    numbers = numbers_of(tmp_path)
    assert len(further_tables(numbers.rows)) == 2 * (MOST - 1)
    more = 1 + len(turns) - MOST
    assert f"orders without Tables III and IV of their own, all in results.csv: {more}" in numbers.notes


# ------------------------------------------------------------------------------------------- one more dataset


def srcc(out: Path, record: RunRecord, node: str, test: str) -> float:
    told = read_answers(out / "answers" / record.answers[node][test] / "answers.npz")
    return float(stats.spearmanr(told["scores"][:, 0], told["mos"]).statistic)


def added(numbers: Tidy, method: str) -> dict[tuple[str, str], TidyRow]:
    rows = [row for row in numbers.rows if row.table == "added_dataset" and row.method == method]
    return {(row.test_dataset, row.metric.partition(": ")[2]): row for row in rows}


def test_an_order_that_goes_on_is_compared_with_its_own_experience_before(tmp_path: Path) -> None:
    for seed in (0, 1):
        recorded.record_single(tmp_path, "sl", ",".join(SHORT), seed, sequence=SHORT)
        longer = recorded.record_single(tmp_path, "sl", "I", seed)
    numbers = numbers_of(tmp_path)
    found = added(numbers, "SL")
    for test in LONG:
        before, after = (
            np.array([_srcc_of_seed(tmp_path, numbers, node, seed, test) for seed in (0, 1)])
            for node in ("bid", "clive")
        )
        for moment, values in (("before", before), ("after", after), ("difference", after - before)):
            row = found[recorded.TITLES[test], moment]
            assert row.value == pytest.approx(values.mean(), abs=1e-12)
            assert row.std == pytest.approx(values.std(ddof=1), abs=1e-12)
            assert row.note.startswith("future task") == ((test, moment) == ("clive", "before"))
            assert (row.order, row.train_dataset, row.length) == ("I", "CLIVE", 4)
            assert "before: order live,csiq,bid; n=2 seeds" in row.note
    former = [found[recorded.TITLES[test], "difference"].value for test in SHORT]
    assert found["", "difference"].value == pytest.approx(np.mean(former), abs=1e-12)
    assert longer.sequence == LONG


def _srcc_of_seed(out: Path, numbers: Tidy, name: str, seed: int, test: str) -> float:
    record = next(r for r in numbers.group.records if (r.order, r.seed) == ("I", seed))
    return srcc(out, record, f"sl-{name}-{seed}", test)


def test_another_order_of_the_same_datasets_and_one_more_is_compared_run_by_run(tmp_path: Path) -> None:
    less = recorded.record_single(tmp_path, "sl", ",".join(SHORT), sequence=SHORT)
    more = recorded.record_single(tmp_path, "sl", "V")
    alone = recorded.record_single(tmp_path, "sl", "V", seed=1)  # the shorter order lacks this seed
    joint = [recorded.record_single(tmp_path, "jl", o, sequence=s) for o, s in (("S", SHORT), ("V", TURNED))]
    numbers = numbers_of(tmp_path)
    found = added(numbers, "SL")
    for test in SHORT:
        before, after = srcc(tmp_path, less, "sl-bid-0", test), srcc(tmp_path, more, "sl-live-0", test)
        row = found[recorded.TITLES[test], "difference"]
        assert row.value == pytest.approx(after - before, abs=1e-12) and math.isnan(row.std)
    assert math.isnan(found["CLIVE", "before"].value)  # it was never asked of the shorter order
    assert math.isfinite(found["CLIVE", "after"].value)
    of_joint = added(numbers, "JL")["BID", "difference"].value
    before, after = (srcc(tmp_path, r, f"jl-all-{'-'.join(r.sequence)}-0", "bid") for r in joint)
    assert of_joint == pytest.approx(after - before, abs=1e-12)
    assert alone.order == "V" and [(p.less.order, p.new) for p in order_pairs(numbers.group)] == [
        (",".join(SHORT), "clive")
    ]


def test_of_two_shorter_orders_the_one_that_it_goes_on_from_counts(tmp_path: Path) -> None:
    other = ["bid", "live", "csiq"]
    for sequence in (other, SHORT, ["bid", "csiq"], ["bid", "clive"], LONG):
        recorded.record_tsn(tmp_path, ",".join(sequence), sequence)
    pairs = [(p.less.sequence, p.new) for p in order_pairs(numbers_of(tmp_path).group)]
    assert (SHORT, "clive") in pairs and (["bid", "csiq"], "live") in pairs and len(pairs) == 3
    (tmp_path / "one").mkdir()
    recorded.record_tsn(tmp_path / "one")
    assert not any(row.table == "added_dataset" for row in numbers_of(tmp_path / "one").rows)


@pytest.mark.slow
def test_the_table_of_a_dataset_more_and_its_second_path(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path, ",".join(SHORT), SHORT)
    recorded.record_single(tmp_path, "jl", ",".join(SHORT), sequence=SHORT)
    for seed in (0, 1):
        recorded.record_tsn(tmp_path, "I", seed=seed)
        recorded.record_tsn(tmp_path, "V", seed=seed)
    recorded.record_single(tmp_path, "jl")
    write_report(tmp_path, ("csv",), figures=False)
    assert verify(tmp_path).problems == []
    (table,) = [t for t in make_tables(numbers_of(tmp_path)) if t.number == "added_dataset"]
    assert "CLIVE added to order live,csiq,bid" in table.caption and table.columns == [
        "Before", "After", "Difference",
    ]  # fmt: skip
    labels = [section.label for section in table.sections]
    assert labels[:2] == ["Mean of the former, order I", "LIVE, order I"] and len(labels) == 10
    (clive,) = (section for section in table.sections if section.label == "CLIVE, order I")
    first = {name: values[0] for name, values in clive.rows}
    assert first["TSN-IQA"].gray and not any(value.bold for value in first.values())
    path = tmp_path / "report" / "results.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("added_dataset") and "difference" in line)
    cells = next(csv.reader([lines[at]]))
    lines[at] = lines[at].replace(cells[10], repr(float(cells[10]) + 1e-6))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [str(p).partition(": ")[0] for p in verify(tmp_path).problems] == [f"report/results.csv:{at + 1}"]
