"""Tables VII to XIII, costs and times, against scipy and a few lines of numpy on the answer files."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as recorded
import recorded_tables
from recorded_tables import FURTHER, SEQUENCE, norms
from scipy import integrate, stats

from cliqa_bench import metrics
from cliqa_bench.reports.methods import sources
from cliqa_bench.reports.parts import PARTS, collect, load, make_tables, shape
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import GENERATED, RunGroup, Tidy, TidyRow, group_records
from cliqa_bench.reports.tables.cost import gate_rows, overhead_rows, time_rows
from cliqa_bench.reports.tables.cross import weight_rows
from cliqa_bench.reports.tables.design import design_rows, seed_rows
from cliqa_bench.reports.tables.similarity import (
    CORRELATIONS,
    correlation_rows,
    correlations,
    head_rows,
    kl_rows,
)
from cliqa_bench.results.nodes import read_answers, read_json, write_json
from cliqa_bench.results.records import AnswerReader, RunRecord, read_records, write_record

TITLES = [recorded.TITLES[name] for name in SEQUENCE]
Rows = Callable[[RunGroup, AnswerReader], list[TidyRow]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables") / "runs"
    recorded_tables.record_all(out)
    return out


@pytest.fixture(scope="module")
def numbers(out: Path) -> Tidy:
    (group,) = group_records(read_records(out))
    return collect(group, AnswerReader(out))


def of_table(numbers: Tidy, table: str, **wanted: object) -> list[TidyRow]:
    found = [row for row in numbers.rows if row.table == table]
    return [row for row in found if all(getattr(row, k) == v for k, v in wanted.items())]


def made(out: Path, rows: Rows) -> list[TidyRow]:
    (group,) = group_records(read_records(out))
    return rows(group, AnswerReader(out))


def scores(out: Path, record: RunRecord, node: str, test: str) -> dict[str, np.ndarray]:
    return read_answers(out / "answers" / record.answers[node][test] / "answers.npz")


@pytest.mark.parametrize("name", sorted(path.name for path in recorded.GOLDEN_TABLES.iterdir()))
def test_tables_are_as_recorded(out: Path, name: str) -> None:
    if not (out / "report").exists():
        write_report(out, figures=False)
    made = (out / "report" / name).read_text(encoding="utf-8")
    recorded.assert_recorded(made, recorded.GOLDEN_TABLES / name)


# --------------------------------------------------------------------------------------------- design choices


def test_design_choices_have_the_papers_names_and_the_numbers_of_their_runs(numbers: Tidy) -> None:
    rows = of_table(numbers, "VII")
    told = {(r.backbone, r.variant): r.value for r in rows if r.metric == "mSRCC"}
    base = of_table(numbers, "III") + of_table(numbers, "", length=len(SEQUENCE))
    of_runs = {(r.backbone, r.variant): r.value for r in base if (r.metric, r.method) == ("mSRCC", "TSN-IQA")}
    pairs = {
        "Task-agnostic BN": "norms=shared",
        "ImageNet Pre-trained BN (for KG)": "gate_bn=imagenet",
        "Feature hierarchy: Stage 4": "stages=(4,)",
        "Feature hierarchy: Stages 2+3+4": "stages=(2, 3, 4)",
        "tau=8.0": "tau=8.0",
    }
    for name, variant in pairs.items():
        assert told["S-CNN", name] == pytest.approx(of_runs["S-CNN", variant], abs=1e-12)
    assert told["ResNet-50", "Backbone"] == pytest.approx(of_runs["ResNet-50", ""], abs=1e-12)
    assert {r.variant for r in rows if r.method == "LwF-KG"} == {"reference"}
    (default,) = {r.variant for r in rows if r.note.startswith("default setting")}
    assert default == "Feature hierarchy: Stages 3+4"


def test_design_choices_are_compared_on_the_seeds_that_all_have(numbers: Tidy) -> None:
    # of seed 0 alone, as the other choices are; ResNet-50's recorded run is a copy of that seed's
    (row,) = (r for r in of_table(numbers, "VII", metric="mPSI") if r.note.startswith("default"))
    (alone,) = of_table(numbers, "III", backbone="ResNet-50", method="TSN-IQA", metric="mPSI")
    (both,) = of_table(numbers, "III", backbone="S-CNN", method="TSN-IQA", metric="mPSI", variant="")
    assert row.value == pytest.approx(alone.value, abs=1e-12) and row.value != both.value
    assert "seeds" not in row.note


def test_design_choices_stand_in_table_vii_alone_where_the_default_was_run(
    tmp_path: Path, numbers: Tidy
) -> None:
    for table in ("III", "IV", "V", "VI", "Fig. 4"):
        assert {row.variant for row in of_table(numbers, table)} == {"", "tau=8.0"}
    record = recorded.record_tsn(tmp_path)
    (tmp_path / "runs" / f"{record.id}.json").unlink()
    recorded_tables.record_variant(tmp_path, record, "stages=(4,)", [4])
    (group,) = group_records(read_records(tmp_path))
    alone = collect(group, AnswerReader(tmp_path))
    assert {row.variant for row in of_table(alone, "III")} == {"stages=(4,)"}


def test_one_design_choice_is_no_comparison(tmp_path: Path) -> None:
    recorded_tables.record_tsn(tmp_path)
    assert made(tmp_path, design_rows) == []


# ----------------------------------------------------------------------------- normalisation and single heads


def kl_of_full_gaussians(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> float:
    """The textbook's formula for any covariance, by determinants and inverses."""
    (m, v), (n, w) = p, q
    cov_p, cov_q = np.diag(v), np.diag(w)
    inverse = np.linalg.inv(cov_q)
    return float(
        np.trace(inverse @ cov_p) + (n - m) @ inverse @ (n - m) - len(m)
        + np.log(np.linalg.det(cov_q) / np.linalg.det(cov_p))
    ) / 2  # fmt: skip


def test_divergence_equals_the_general_formula_and_an_integral() -> None:
    p, q = norms("live", 0), norms("csiq", 0)
    assert metrics.gaussian_kl(*p, *q) == pytest.approx(kl_of_full_gaussians(p, q), abs=1e-12)
    assert metrics.gaussian_kl(*p, *p) == 0
    x = np.linspace(-40, 40, 400_001)
    one, other = stats.norm(0.3, 1.5), stats.norm(-0.4, 0.8)
    integral = integrate.trapezoid(one.pdf(x) * (one.logpdf(x) - other.logpdf(x)), x)
    assert metrics.gaussian_kl([0.3], [1.5**2], [-0.4], [0.8**2]) == pytest.approx(integral, abs=1e-9)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_divergence_of_broken_statistics_is_undefined(bad: float) -> None:
    assert math.isnan(metrics.gaussian_kl([0, 1], [1, bad], [0, 1], [1, 1]))
    assert math.isnan(metrics.gaussian_kl([0, 1], [1, 1], [0, 1], [1, bad]))
    assert math.isnan(metrics.gaussian_kl([], [], [], []))


def test_divergences_are_rows_against_columns_and_means_over_seeds(out: Path) -> None:
    rows = [r for r in made(out, kl_rows) if r.backbone == "S-CNN"]
    assert len(rows) == 16 and {r.metric for r in rows} == {"KL"}
    for row in rows:
        i, j = (SEQUENCE[TITLES.index(title)] for title in (row.train_dataset, row.test_dataset))
        each = [kl_of_full_gaussians(norms(i, seed), norms(j, seed)) for seed in (0, 1)]
        assert row.value == pytest.approx(np.mean(each), abs=1e-9)
        assert row.std == pytest.approx(np.std(each, ddof=1), abs=1e-9)
        assert "n=2 seeds" in row.note and GENERATED in row.note


def test_heads_alone_equal_scipy(out: Path) -> None:
    record = next(r for r in read_records(out) if (r.strategy, r.variant, r.seed) == ("tsn", "", 0))
    rows = [r for r in made(out, head_rows) if r.backbone == "ResNet-50"]  # seed 0 alone
    assert len(rows) == 16
    for row in rows:
        i, j = (SEQUENCE[TITLES.index(title)] for title in (row.train_dataset, row.test_dataset))
        file = scores(out, record, f"train-{i}-0", j)
        assert row.value == pytest.approx(
            stats.spearmanr(file["scores"][:, 0], file["mos"]).statistic, abs=1e-12
        )


def test_without_statistics_of_their_own_tasks_have_no_divergence(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    for node, _ in record.steps[-1].heads:
        (tmp_path / "train" / node / "norm.npz").unlink()
        recorded.sign(tmp_path / "train" / node)
    for rows in (kl_rows, head_rows, correlation_rows):
        assert made(tmp_path, rows) == []


def test_one_task_without_statistics_is_a_dash(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    (tmp_path / "train" / record.steps[-1].heads[1][0] / "done.json").unlink()
    rows = made(tmp_path, kl_rows)
    assert {(r.train_dataset, r.test_dataset) for r in rows if math.isnan(r.value)} == {
        (a, b) for a in TITLES for b in TITLES if "CSIQ" in (a, b)
    }
    assert all(math.isnan(r.value) for r in made(tmp_path, correlation_rows))


def test_correlations_with_ties_constants_and_gaps() -> None:
    rng = np.random.default_rng(0)
    kl, srcc = rng.integers(0, 5, (4, 4)).astype(float), rng.uniform(size=(4, 4))
    np.fill_diagonal(kl, 0)
    told = correlations(kl, srcc)
    off = ~np.eye(4, dtype=bool)
    ordinal = [stats.rankdata(m.ravel(), method="ordinal") for m in (kl, srcc)]
    expected = (
        stats.pearsonr(*ordinal).statistic,
        stats.spearmanr(kl.ravel(), srcc.ravel()).statistic,
        stats.spearmanr(kl[off], srcc[off]).statistic,
    )
    np.testing.assert_allclose([told[name] for name in CORRELATIONS], expected, atol=1e-12)
    assert all(math.isnan(v) for v in correlations(np.zeros((4, 4)), srcc).values())
    srcc[0, 1] = math.nan
    assert all(math.isnan(v) for v in correlations(kl, srcc).values())


# ------------------------------------------------------------------------------------------ further test sets


def test_mean_weights_equal_the_equations_and_sum_to_one(out: Path) -> None:
    record = next(r for r in read_records(out) if (r.strategy, r.variant, r.seed) == ("tsn", "", 0))
    rows = [r for r in made(out, weight_rows) if r.backbone == "ResNet-50"]
    for test, title in FURTHER.items():
        files = [scores(out, record, record.gates[name], test) for name in SEQUENCE]
        near = np.exp(-32 * np.stack([f["distances"][:, 2:].astype(float) for f in files]))
        weights = (near / near.sum(axis=0)).mean(axis=2).mean(axis=1)
        got = [r.value for name in TITLES for r in rows if (r.train_dataset, r.test_dataset) == (name, title)]
        np.testing.assert_allclose(got, weights, atol=1e-12)
        assert sum(got) == pytest.approx(1, abs=1e-12)


def test_mean_weights_follow_the_temperature(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    reader = AnswerReader(tmp_path)
    rows = weight_rows(RunGroup("", [replace(record, tau=8.0)]), reader)
    for test, title in FURTHER.items():
        files = [scores(tmp_path, record, record.gates[name], test) for name in SEQUENCE]
        near = np.exp(-8 * np.stack([f["distances"][:, 2:].astype(float) for f in files]))
        weights = (near / near.sum(axis=0)).mean(axis=2).mean(axis=1)
        got = [r.value for name in TITLES for r in rows if (r.train_dataset, r.test_dataset) == (name, title)]
        np.testing.assert_allclose(got, weights, atol=1e-12)


def test_further_test_sets_stand_in_their_own_tables_alone(numbers: Tidy) -> None:
    tables = {table.number: table for table in make_tables(numbers)}
    assert tables["IV"].columns == TITLES
    assert tables["XI"].columns == list(FURTHER.values())
    plain = {
        (r.backbone, r.test_dataset): r.value
        for r in numbers.rows
        if r.table == "" and (r.metric, r.method, r.variant, r.length) == ("SRCC", "TSN-IQA", "", 4)
    }
    for row in of_table(numbers, "XI"):
        assert row.value == pytest.approx(plain[row.backbone, row.test_dataset], abs=1e-12)


def test_a_missing_answer_to_a_further_test_set_is_a_dash(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    (tmp_path / "answers" / record.answers[record.gates["bid"]]["spaq"] / "done.json").unlink()
    rows = made(tmp_path, weight_rows)
    assert {r.test_dataset for r in rows if math.isnan(r.value)} == {"SPAQ"}
    assert sum(math.isnan(r.value) for r in rows) == len(SEQUENCE) + 1


# ------------------------------------------------------------------------------------------------------ costs


def test_soft_and_hard_gate_have_the_quality_of_their_rows_and_counted_costs(numbers: Tidy) -> None:
    told = {(r.variant, r.metric): r.value for r in of_table(numbers, "XII", backbone="S-CNN")}
    base = of_table(numbers, "III", backbone="S-CNN", variant="")
    summary = {(r.method, r.metric): r.value for r in base}
    methods = {"soft assignment": "TSN-IQA", "hard assignment": "TSN-IQA (hard)", "(as baseline)": "LwF-KG"}
    for variant, method in methods.items():
        for metric in ("mSRCC", "mPSI"):
            assert told[variant, metric] == pytest.approx(summary[method, metric], abs=1e-12)
    costs = {v: [told[v, m] for m in ("CC", "Passes", "GMACs")] for v in methods}
    assert costs["soft assignment"] == [4, 5, pytest.approx(5 * 1.13)]
    assert costs["hard assignment"] == [1, 2, pytest.approx(2 * 1.13)]
    assert costs["(as baseline)"] == [1, 2, pytest.approx(2 * 1.13)]


def test_costs_that_were_not_recorded_are_dashes(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    rows = made(tmp_path, gate_rows)
    assert all(math.isnan(r.value) == (r.metric not in ("mSRCC", "mPSI")) for r in rows) and rows
    assert made(tmp_path, overhead_rows) == [] and made(tmp_path, time_rows) == []


def test_a_part_that_all_tasks_share_is_counted_once(tmp_path: Path) -> None:
    """Two streams: the frozen one, 0.4 of 1.13 GMACs, runs once an image and serves the gate."""
    record = recorded_tables.record_tsn(tmp_path)
    cost = {**recorded_tables.COST, "fixed_gmacs_224": 0.4}
    group = RunGroup("", [replace(record, facts={**record.facts, "cost": cost})])
    told = {(r.variant, r.metric): r.value for r in gate_rows(group, AnswerReader(tmp_path))}
    assert told["soft assignment", "GMACs"] == pytest.approx(0.4 + 4 * 0.73 + 0.4)
    assert told["hard assignment", "GMACs"] == pytest.approx(0.4 + 0.73 + 0.4)


def test_a_seed_without_a_number_makes_a_dash(tmp_path: Path) -> None:
    records = [recorded_tables.record_tsn(tmp_path, seed=seed) for seed in (0, 1)]
    (tmp_path / "train" / records[1].steps[-1].heads[1][0] / "done.json").unlink()
    rows = kl_rows(RunGroup("", records), AnswerReader(tmp_path))
    dashes = {(r.train_dataset, r.test_dataset) for r in rows if math.isnan(r.value)}
    assert dashes == {(a, b) for a in TITLES for b in TITLES if "CSIQ" in (a, b)}


def test_of_two_runs_of_one_seed_the_newer_counts(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    newer, older = replace(record, tau=1.0), record
    found = sources(RunGroup("", [newer, older]))
    assert {source.record.tau for seeds in found.values() for source in seeds.values()} == {1.0}


def test_tables_are_of_the_main_order_alone(tmp_path: Path) -> None:
    other, main = (recorded.record_tsn(tmp_path, order) for order in ("V", "I"))
    found = sources(RunGroup("", [other, main]))
    assert {source.record.order for seeds in found.values() for source in seeds.values()} == {"I"}


def test_parameters_per_task(out: Path) -> None:
    rows = {
        (r.method, r.variant, r.metric): r.value for r in made(out, overhead_rows) if r.backbone == "S-CNN"
    }
    assert rows["TSN-IQA", "", "task parameters"] == 1600
    assert rows["TSN-IQA", "", "task parameters (%)"] == pytest.approx(100 * 1600 / 531120)
    assert rows["TSN-IQA", "", "centroid values (%)"] == pytest.approx(100 * 24576 / 531120)
    # a variant that costs the same has no row of its own
    assert {variant for method, variant, _ in rows if method == "TSN-IQA"} == {"", "norms=shared"}
    table = shape("overhead", made(out, overhead_rows))
    assert [v.digits for v in table.sections[0].rows[0][1]] == [0, 3, 0, 3, 0]


def test_memories_of_images_are_counted_where_there_are_any(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    kept = {"memory_images": 100, "memory_values": 300}
    for cost, columns in ((kept, 7), ({**kept, "memory_images": 0, "memory_values": 0}, 5)):
        facts = {**record.facts, "cost": {**recorded_tables.COST, **cost}}
        group = RunGroup("", [replace(record, facts=facts)])
        rows = overhead_rows(group, AnswerReader(tmp_path))
        told = {row.metric: row.value for row in rows}
        assert told["added memory (images)"] == cost["memory_images"]
        assert told["added memory (values)"] == cost["memory_values"]
        table = shape("overhead", rows)
        assert len(table.sections[0].rows[0][1]) == columns
        assert ("Added memory" in table.caption) == (columns == 7)
    uncounted = {**recorded_tables.COST, "memory_images": 5}
    group = RunGroup("", [replace(record, facts={**record.facts, "cost": uncounted})])
    (values,) = shape("overhead", overhead_rows(group, AnswerReader(tmp_path))).sections[0].rows
    assert math.isnan(values[1][-1].mean), "what is not counted is a dash"


def test_times_are_per_image_and_stand_apart(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    rows = {(r.method, r.metric): r.value for r in made(tmp_path, time_rows)}
    head, gate = (
        1000 * s / recorded.IMAGES for s in (recorded_tables.NETWORK_SECONDS, recorded_tables.GATE_SECONDS)
    )
    assert rows["TSN-IQA", "network"] == pytest.approx(4 * head)
    assert rows["TSN-IQA (hard)", "network"] == pytest.approx(head)
    assert rows["TSN-IQA (hard)", "gate"] == rows["TSN-IQA", "gate"] == pytest.approx(gate)
    assert rows["TSN-IQA", "total"] == pytest.approx(4 * head + gate)
    before = report_bytes(tmp_path)
    path = tmp_path / "answers" / record.answers[record.gates["bid"]]["live"] / "done.json"
    write_json(path, {**read_json(path), "facts": {"score_seconds": 9.0}})
    after = report_bytes(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {
        "table_time.csv", "table_time.md", "table_time.tex", "report.html",
    }  # fmt: skip
    assert not (load(tmp_path)["table"] == "time").any()


def test_every_method_has_a_row_of_times_with_what_its_trainings_took(tmp_path: Path) -> None:
    record = recorded_tables.record_tsn(tmp_path)
    for seconds, (node, _) in enumerate(record.steps[-1].heads, 1):
        write_json(tmp_path / "train" / node / "done.json", {"facts": {"seconds": 10 * seconds}})
    recorded_tables.record_prefix(tmp_path, record, "lwf", "", recorded_tables.LWF_ROWS)
    recorded_tables.record_variant(tmp_path, record, "tau=8.0")  # reads the same answers: no row
    made_of = [node for node, _ in record.steps[-1].heads]
    average = recorded_tables.record_prefix(tmp_path, record, "average", "", {"last": "Average"})
    (tmp_path / "runs" / f"{average.id}.json").unlink()
    for step in average.steps:
        facts = {"seconds": 0.25, "resumed": {"epochs": 2, "seconds": 0.25}}
        write_json(tmp_path / "train" / step.heads[0][0] / "done.json", {"facts": facts})
    write_record(tmp_path, replace(average, facts={**average.facts, "built_from": made_of}))
    assert not any(r.variant for r in made(tmp_path, time_rows))
    write_record(tmp_path, replace(record, strategy="sl", rows={"last": "SL"}, gates={}))
    adapted = {"gate": "TSN-IQA+TTA", "last": "TSN-IQA+TTA (last head)"}
    write_record(tmp_path, replace(record, strategy="tta", rows=adapted, transductive=True))
    rows = {(r.method, r.metric): r.value for r in made(tmp_path, time_rows)}
    names = {"TSN-IQA", "TSN-IQA (hard)", "LwF-KG", "Average", "SL", "TSN-IQA+TTA"}
    assert {method for method, _ in rows} == names
    assert rows["TSN-IQA", "training"] == rows["TSN-IQA (hard)", "training"] == (10 + 20 + 30 + 40) / 4
    assert rows["Average", "training"] == (100 + 4 * 0.5) / 4, "with what it is made of"
    assert ("LwF-KG", "training") not in rows, "not noted"
    head = 1000 * recorded_tables.NETWORK_SECONDS / recorded.IMAGES
    assert rows["Average", "gate"] == 0 and rows["Average", "total"] == pytest.approx(head)
    assert rows["SL", "total"] == pytest.approx(head), "one network alone"
    table = shape("time", made(tmp_path, time_rows))
    assert table.columns[0] == "Training (s)" and "seconds of all trainings" in table.caption
    sections = {s.label: [name for name, _ in s.rows] for s in table.sections}
    assert sections["Task-Agnostic, adapted"] == ["TSN-IQA+TTA"], "in a section of its own"


def record_measured(out: Path, seed: int = 0) -> RunRecord:
    """Records a run on a card: scoring a test set took 6 J, describing it 1.2 J, 2 GB there and 1 GB here."""
    record = recorded_tables.record_tsn(out, seed=seed)
    for node, by_test in record.answers.items():
        gate = node in record.gates.values()
        for test, answers in by_test.items():
            note(out, answers, score_joules=1.2 if gate else 6.0, score_gpu_bytes=2_000_000_000,
                 score_host_bytes=1_000_000_000 if test == "bid" else 500_000_000)  # fmt: skip
    return record


def note(out: Path, answers: str, **facts: object) -> None:
    """Adds to the facts of an answers node; None takes one away."""
    path = out / "answers" / answers / "done.json"
    done = read_json(path)
    known = {**done["facts"], **facts}
    write_json(path, {**done, "facts": {k: v for k, v in known.items() if v is not None}})


def test_energy_is_per_image_and_memory_the_largest_of_all_passes(tmp_path: Path) -> None:
    record = record_measured(tmp_path)
    gates, heads = list(record.gates.values()), [node for node, _ in record.steps[-1].heads]
    note(tmp_path, record.answers[heads[2]]["csiq"], score_gpu_bytes=7_250_000_000)
    note(tmp_path, record.answers[gates[1]]["live"], score_host_bytes=3_500_000_000)
    note(tmp_path, record.answers[gates[3]]["clive"], score_joules=1.2 + 4.8)
    # each of 4 test sets of 12 images: 4 heads, or 1, of 6 J; a gate of 1.2 J, of the last set 1.2 + 4.8 / 4
    told = {(r.method, r.metric): r.value for r in made(tmp_path, time_rows)}
    assert told["TSN-IQA", "joules"] == pytest.approx((4 * 4 * 6 + 4 * 1.2 + 1.2) / 48)
    assert told["TSN-IQA (hard)", "joules"] == pytest.approx((4 * 6 + 4 * 1.2 + 1.2) / 48)
    for method in ("TSN-IQA", "TSN-IQA (hard)"):
        assert (told[method, "gpu GB"], told[method, "host GB"]) == (7.25, 3.5)
    table = shape("time", made(tmp_path, time_rows))
    assert table.columns == ["Network (ms)", "Gate (ms)", "Total (ms)", "Energy (J)", "GPU (GB)", "Host (GB)"]
    assert [[v.digits for v in values] for _, values in table.sections[0].rows] == [[2, 2, 2, 3, 2, 2]] * 2
    assert not any(v.bold for _, values in table.sections[0].rows for v in values)
    for word in ("joules per image", "GPU: ", "Host: ", "10^9 bytes"):
        assert word in table.caption


def test_memory_and_energy_are_means_over_seeds(tmp_path: Path) -> None:
    first, second = (record_measured(tmp_path, seed=seed) for seed in (0, 1))
    # gates are of both seeds, heads of one
    for by_test in (second.answers[node] for node, _ in second.steps[-1].heads):
        for test in SEQUENCE:
            note(tmp_path, by_test[test], score_joules=12.0, score_host_bytes=3_000_000_000)
    rows = {r.metric: r for r in made(tmp_path, time_rows) if r.method == "TSN-IQA"}
    each = [(4 * 4 * joules + 4 * 1.2) / 48 for joules in (6.0, 12.0)]
    assert rows["joules"].value == pytest.approx(sum(each) / 2)
    assert rows["joules"].std == pytest.approx(np.std(each, ddof=1))
    assert rows["host GB"].value == pytest.approx((1 + 3) / 2)
    assert rows["gpu GB"].std == 0
    assert first.id != second.id


def test_what_one_pass_did_not_measure_is_a_dash_or_no_column(tmp_path: Path) -> None:
    record = record_measured(tmp_path)
    lwf = recorded_tables.record_prefix(tmp_path, record, "lwf", "", recorded_tables.LWF_ROWS)
    note(tmp_path, record.answers[record.gates["bid"]]["live"], score_gpu_bytes=None)
    # the network of LwF-KG, too, measured nothing beside the time; the gates of both did
    assert lwf.gates == record.gates
    table = shape("time", made(tmp_path, time_rows))
    assert table.columns == ["Network (ms)", "Gate (ms)", "Total (ms)", "Energy (J)", "Host (GB)"]
    assert "GPU: " not in table.caption
    dashes = {name: [math.isnan(v.mean) for v in values] for name, values in table.sections[0].rows}
    assert dashes == {
        "LwF-KG": [False] * 3 + [True] * 2,
        "TSN-IQA": [False] * 5,
        "TSN-IQA (hard)": [False] * 5,
    }


def test_a_run_that_measured_times_alone_has_no_further_column(tmp_path: Path) -> None:
    recorded_tables.record_tsn(tmp_path)
    rows = made(tmp_path, time_rows)
    assert {r.metric for r in rows} == {"network", "gate", "total"}
    table = shape("time", rows)
    assert table.columns == ["Network (ms)", "Gate (ms)", "Total (ms)"]
    assert not [word for word in ("Energy", "GPU", "Host", "GB") if word in table.caption]


@pytest.mark.parametrize("broken", ["long", [1.0], {}, 10**400], ids=["text", "list", "table", "huge"])
def test_a_measured_fact_that_is_no_number_is_a_dash(tmp_path: Path, broken: object) -> None:
    record = record_measured(tmp_path)
    note(tmp_path, record.answers[record.gates["bid"]]["live"], score_seconds=broken, score_joules=broken)
    table = shape("time", made(tmp_path, time_rows))
    assert table.columns == ["Network (ms)", "Gate (ms)", "Total (ms)", "GPU (GB)", "Host (GB)"]
    dashes = [[math.isnan(v.mean) for v in values] for _, values in table.sections[0].rows]
    assert dashes == [[False, True, True, False, False]] * 2


def test_energy_and_memory_stand_apart_as_times_do(tmp_path: Path) -> None:
    recorded_tables.record_tsn(tmp_path)
    before = report_bytes(tmp_path)
    record_measured(tmp_path)
    after = report_bytes(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {
        "table_time.csv", "table_time.md", "table_time.tex", "report.html",
    }  # fmt: skip
    assert "Energy (J)" in after["table_time.md"].decode()
    assert not (load(tmp_path)["table"] == "time").any()


def report_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_report(out, figures=False).files}


# ------------------------------------------------------------------------------------------------------ seeds


def test_seeds_have_mean_deviation_and_number_and_one_is_a_dash(numbers: Tidy) -> None:
    rows = of_table(numbers, "XIII", backbone="S-CNN", variant="")
    for row in rows:
        if row.method.startswith("LwF"):
            assert math.isnan(row.value) == (row.metric != "seeds") and math.isnan(row.std)
        elif row.metric != "seeds":
            where = {"backbone": "S-CNN", "variant": "", "method": row.method, "metric": row.metric}
            (same,) = of_table(numbers, "III", **where)
            assert row.value == pytest.approx(same.value, abs=1e-12)
            assert row.std == pytest.approx(same.std, abs=1e-12)
    assert {(r.method, r.value) for r in rows if r.metric == "seeds"} == {
        ("TSN-IQA", 2), ("TSN-IQA (hard)", 2), ("TSN-IQA (last head)", 2), ("LwF", 1), ("LwF-KG", 1),
    }  # fmt: skip


def test_one_seed_makes_no_table_of_seeds(tmp_path: Path) -> None:
    recorded_tables.record_tsn(tmp_path)
    assert made(tmp_path, seed_rows) == []


# ------------------------------------------------------------------------------------------------------ parts


def test_every_part_is_filled_by_these_runs(numbers: Tidy) -> None:
    # two seeds are too few for a p-value
    expected = {part.number for part in PARTS if part.offered} - {"significance"}
    assert {r.table for r in numbers.rows} >= expected
    for row in numbers.rows:
        assert GENERATED in row.note
    for table in make_tables(numbers):
        assert "not comparable with published numbers" in table.caption


def test_a_part_without_rows_is_a_line_with_its_command(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path)
    summary = write_report(tmp_path, figures=False).summary
    assert "nothing to show yet: VII, VIII, IX, X, XI, XIII, " in summary
    readme = (tmp_path / "report" / "README.md").read_text(encoding="utf-8")
    command = f"python -m cliqa_bench run --strategy tsn --test-on tid2013,spaq,agiqa3k --out {tmp_path}"
    told = "Table X (mean gate weights on further test sets): nothing to show; to fill it: "
    assert f"{told}`{command}`" in readme
    assert "table_X.md" not in readme and "(table_III.md)" in readme


def test_joint_learning_stands_in_the_summary(tmp_path: Path) -> None:
    record = recorded.record_single(tmp_path, "jl")
    summary = write_report(tmp_path, figures=False).summary
    told = [scores(tmp_path, record, "jl-all-0", test) for test in SEQUENCE]
    mean = np.mean([stats.spearmanr(f["scores"][:, 0], f["mos"]).statistic for f in told])
    assert ["JL", "Joint", f"{mean:.3f}", "—", "—", "—"] in [line.split() for line in summary.splitlines()]


def test_the_backbone_with_most_choices_bears_them(numbers: Tidy) -> None:
    table = shape("VII", of_table(numbers, "VII"))
    assert "on S-CNN" in table.caption
    labels = [section.label for section in table.sections]
    assert labels == ["Reference", "Normalisation", "Feature hierarchy", "Other settings", "Backbone"]
    rows = {name: s.label for s in table.sections for name, _ in s.rows}
    assert rows["ResNet-50"] == "Backbone" and rows["Stages 3+4 (default)"] == "Feature hierarchy"
