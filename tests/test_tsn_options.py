"""TSN-IQA beyond the paper: standardised gate features, a chosen tau, heads on one scale."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recorded_runs import ORDERS, record_tsn, sign
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import zscore
from sklearn.preprocessing import StandardScaler
from test_planner import config, lay_out

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution.clean import find_unused
from cliqa_bench.execution.jobs import jobs_of
from cliqa_bench.execution.plan import GateWork, TrainWork
from cliqa_bench.models import gates
from cliqa_bench.models.gated import Gate, GatedScorer
from cliqa_bench.reports.audit import recomputed_reading
from cliqa_bench.reports.audit.integrity import check_files
from cliqa_bench.reports.audit.recomputed import Recomputation
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.rows import RunGroup
from cliqa_bench.results.nodes import Node, write_answers
from cliqa_bench.results.readouts import TAUS, chosen_tau, gate_weights, read, standardised
from cliqa_bench.results.records import AnswerReader, RunRecord, read_record, write_record

BOTH = {"tau": "validation", "scores": "standard"}
THREE = ["live", "bid", "csiq"]


# -- standardised gate features ------------------------------------------------------------------------------


def test_distances_are_root_mean_squares_in_units_of_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "SHRINKAGE", 0.0)
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(200, 7)) * np.geomspace(0.01, 3, 7)).astype(np.float32)
    test, centre = train[:5], train[7:8]
    scaler = StandardScaler().fit(train.astype(np.float64))
    expected = np.sqrt(np.mean((scaler.transform(test) - scaler.transform(centre)) ** 2, axis=1))
    scale = gates.whitening(train)
    np.testing.assert_allclose(gates.nearest_distance(test * scale, centre * scale), expected, rtol=2e-6)


def test_variances_are_drawn_to_their_mean_and_a_constant_dimension_has_a_tenth_of_it() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 4)).astype(np.float32)
    train[:, 2] = 0.25
    variance = train.astype(np.float64).var(axis=0)
    expected = 1 / np.sqrt(4 * (0.9 * variance + 0.1 * variance.mean()))
    np.testing.assert_allclose(gates.whitening(train), expected, rtol=1e-6)
    assert gates.whitening(train)[2] == pytest.approx(1 / np.sqrt(4 * 0.1 * variance.mean()))


@pytest.mark.parametrize("n", [1, 3])
def test_images_that_are_all_alike_leave_distances_finite(n: int) -> None:
    np.testing.assert_allclose(gates.whitening(np.full((n, 4), 0.5, np.float32)), 0.5)


def test_the_gate_that_scores_pictures_has_the_scales_of_each_task() -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)]
    centroids = [[rng.normal(size=(4, c)).astype(np.float32) for c in (5, 3)] for _ in range(2)]
    scales = [[rng.uniform(0.5, 2, c).astype(np.float32) for c in (5, 3)] for _ in range(2)]

    class Net:
        def gate_features(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [torch.from_numpy(stage) for stage in x]

    def tensors(tasks: list[list[NDArray[np.float32]]]) -> list[list[torch.Tensor]]:
        return [[torch.from_numpy(part) for part in task] for task in tasks]

    gate = Gate(Net(), tensors(centroids), [0, 1], 3.0, tensors(scales))  # type: ignore[arg-type]
    distances = np.stack(
        [
            np.stack([gates.nearest_distance(x[s] * scales[t][s], centroids[t][s]) for s in range(2)], axis=1)
            for t in range(2)
        ],
        axis=1,
    )
    np.testing.assert_allclose(gate.weights(torch.zeros(6)), gate_weights(distances, 3.0), atol=1e-6)


# -- tau -----------------------------------------------------------------------------------------------------


def guesses(spread: float = 1.0, n: int = 40, tasks: int = 3) -> list[NDArray[np.float64]]:
    """Makes distances of validation images of some tasks, of which the own is the nearest but for noise."""
    rng = np.random.default_rng(0)
    made = []
    for task in range(tasks):
        far = rng.normal(1, spread, (n + 10 * task, tasks, 2))
        far[:, task] -= 0.5
        made.append(far)
    return made


def entropy(tau: float, distances: list[NDArray[np.float64]]) -> float:
    each = [softmax(-tau * d, axis=1).mean(axis=2)[:, k] for k, d in enumerate(distances)]
    with np.errstate(divide="ignore"):
        return float(np.mean([-np.mean(np.log(w)) for w in each]))


@pytest.mark.parametrize("spread", [0.2, 0.5, 2.0])
def test_tau_is_the_candidate_of_the_least_cross_entropy(spread: float) -> None:
    distances = guesses(spread)
    found = chosen_tau(distances)
    assert found == min(TAUS, key=lambda tau: entropy(tau, distances))
    best = minimize_scalar(lambda log: entropy(2.0**log, distances), bounds=(-2, 10.5), method="bounded")
    inside = min(max(best.x, -2.0), 10.5)
    assert abs(np.log2(found) - inside) <= 0.5 + 1e-3, "a neighbour of the minimum between the candidates"


def test_every_task_counts_alike_however_many_images_it_has() -> None:
    few, many = guesses(0.3, tasks=2)
    assert chosen_tau([few, many]) == chosen_tau([np.tile(few, (9, 1, 1)), many])


def test_tau_at_its_edges() -> None:
    apart = [np.array([[[0.0], [9.0]]]), np.array([[[9.0], [0.0]]])]
    # e**-9 tau is 0 to 12 digits from tau = 4 on; what is as good is not preferred to the smallest
    assert chosen_tau(apart) == 4.0
    equal = [np.ones((4, 2, 1))] * 2
    assert chosen_tau(equal) == TAUS[0]
    wrong = [1 - d / 9 for d in apart]  # the farther the own task, the sharper, the worse
    assert chosen_tau(wrong) == TAUS[0]


def test_opinion_scores_and_test_images_are_not_looked_at(tmp_path: Path) -> None:
    record = with_validation(tmp_path, {"tau": "validation"})
    reader = AnswerReader(tmp_path)
    expected = reader.tau(record, 3)
    for path in (tmp_path / "answers").glob("gate-*"):
        content = dict(np.load(path / "answers.npz"))
        content["mos"] = content["mos"][::-1]
        if not path.name.rpartition("-")[0].endswith("-val"):
            content["distances"] = content["distances"][::-1] + 1
        write_answers(path / "answers.npz", content["keys"], content["mos"], distances=content["distances"])
        sign(path)
    assert AnswerReader(tmp_path).tau(record, 3) == expected


# -- scales of the heads -------------------------------------------------------------------------------------


def test_scores_are_standardised_by_the_validation_images() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(0.3, 0.01, 50).astype(np.float32)
    np.testing.assert_allclose(
        standardised(known, known), zscore(known.astype(np.float64)), rtol=0, atol=2e-6
    )
    told = rng.normal(size=9).astype(np.float32)
    expected = (told - known.mean(dtype=np.float64)) / known.astype(np.float64).std()
    np.testing.assert_allclose(standardised(told, known), expected, rtol=1e-6)


@pytest.mark.parametrize("known", [[0.5], [0.5, 0.5, 0.5]])
def test_validation_scores_that_do_not_differ_move_and_do_not_stretch(known: list[float]) -> None:
    np.testing.assert_allclose(
        standardised(np.array([0.75, 0.5, np.nan]), np.array(known)), [0.25, 0, np.nan]
    )


def test_pictures_are_scored_on_that_scale_too() -> None:
    class Heads:
        heads = torch.zeros(2, 1)

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.1, 0.9], [0.2, 0.8]])

    class Half:
        def distances(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(2, 2, 1, dtype=torch.float64)

        def weights_at(self, distances: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)

    known = [np.array([0.0, 0.2], np.float32), np.array([0.5, 0.9], np.float32)]
    made: Any = [Heads()]
    scored = GatedScorer(made, Half(), validation=known)(torch.zeros(2))  # type: ignore[arg-type]
    heads = np.array([[0.0, 1.0], [1.0, 0.5]])
    np.testing.assert_allclose(scored.heads, heads, atol=1e-6)
    np.testing.assert_allclose(scored.scores, [0.75, 0.75], atol=1e-6)


# -- the plan ------------------------------------------------------------------------------------------------


def plan_of(tmp_path: Path, **params: Any) -> Any:
    return lay_out(config(tmp_path, orders={"a": THREE}, params={"tsn": params}))


def test_nothing_is_trained_anew_and_what_is_there_keeps_its_name(tmp_path: Path) -> None:
    usual = plan_of(tmp_path)
    for params in ({"gate_features": "standard"}, {"tau_from": "validation"}, {"scores": "standard"}):
        found = plan_of(tmp_path, **params)
        assert found.train.keys() == usual.train.keys()
        assert (found.gates.keys() == usual.gates.keys()) == ("gate_features" not in params)
        (record,) = found.records
        ((name, value),) = params.items()
        assert record.variant == f"{name}={value}" and record.id != usual.records[0].id
    (record,) = usual.records
    write_record(tmp_path, record)
    text = (tmp_path / "runs" / f"{record.id}.json").read_text(encoding="utf-8")
    assert '"validation"' not in text and '"reading"' not in text, (
        "the record of a release before is the same"
    )
    assert read_record(tmp_path / "runs" / f"{record.id}.json") == record


def test_validation_images_are_answered_by_whom_they_are_for(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, tau_from="validation", scores="standard")
    of_val = [work for work in plan.answers.values() if work.subset == "val"]
    gated = {(w.of.dataset, w.test) for w in of_val if isinstance(w.of, GateWork)}
    trained = {(w.of.dataset, w.test) for w in of_val if isinstance(w.of, TrainWork)}
    assert gated == {(a, b) for a in THREE for b in THREE} and trained == {(a, a) for a in THREE}
    assert len(of_val) == 12 and len({work.node.id for work in plan.answers.values()}) == 18 + 12
    assert {work.node.spec.get("subset") for work in of_val} == {"val"}, "a node's spec says which images"
    (record,) = plan.records
    named = {a for by_set in record.validation.values() for a in by_set.values()}
    assert named == {work.node.id for work in of_val} and record.reading == BOTH
    # material: 10 validation and 20 test images of each dataset
    images = {job.kind: job.images for job in jobs_of(plan) if job.about in plan.train or job.about in THREE}
    assert images["distances"] == 30 and images["scores"] == 3 * 20 + 10


def test_a_head_on_a_shared_normalisation_is_standardised_as_it_is_now(tmp_path: Path) -> None:
    (record,) = plan_of(tmp_path, norms="shared", scores="standard").records
    for t, step in enumerate(record.steps):
        (node,) = {node for node, _ in step.heads}
        assert record.validation[node].keys() == set(THREE[: t + 1])


# -- reading -------------------------------------------------------------------------------------------------


def with_validation(out: Path, reading: dict[str, str], n: int = 15) -> RunRecord:
    """Records a run of TSN-IQA on four datasets, with answers to validation images."""
    record = record_tsn(out)
    rng = np.random.default_rng(0)
    validation: dict[str, dict[str, str]] = {}
    mos, keys = rng.uniform(size=n), np.array([f"val/{i}.png" for i in range(n)])
    for node in record.answers:
        gated = node.startswith("gate-")
        own = node.split("-")[1]
        for dataset in ORDERS["I"]:
            if not gated and dataset != own:
                continue
            spec = {"of": node, "test": [dataset, f"print-of-{dataset}"], "subset": "val"}
            made = Node(out, "answers", f"{node}-on-{dataset}-val", spec)
            with made.building({}) as folder:
                far = rng.uniform(0.3, 0.45, (n, 4)) + 0.05 * (own != dataset)
                told = rng.normal(0.2, 0.1, (n, 1))
                arrays = (
                    {"distances": far.astype(np.float32)} if gated else {"scores": told.astype(np.float32)}
                )
                write_answers(folder / "answers.npz", keys, mos, **arrays)  # type: ignore[arg-type]
            validation.setdefault(node, {})[dataset] = made.id
    (out / "runs" / f"{record.id}.json").unlink()
    found = replace(record, reading=reading, validation=validation, variant="of validation images")
    write_record(out, found)
    return found


@pytest.mark.parametrize("reading", [{"tau": "validation"}, {"scores": "standard"}, BOTH])
def test_answers_are_read_as_asked_and_so_by_the_plain_path(tmp_path: Path, reading: dict[str, str]) -> None:
    record = with_validation(tmp_path, reading)
    reader, plain = AnswerReader(tmp_path), Recomputation(tmp_path, RunGroup("", [record]))
    usual = replace(record, reading={})
    taus = [reader.tau(record, t) for t in range(4)]
    assert taus[0] == 32.0 and (len(set(taus)) > 1) == ("tau" in reading)
    load: Callable[[Any], Any] = plain._load
    assert taus == [recomputed_reading.temperature(record, t, load) for t in range(4)]
    for t in range(4):
        for test in ORDERS["I"]:
            answers, before = reader.answers(record, t, test), reader.answers(usual, t, test)
            assert answers is not None and before is not None and answers.tau == taus[t]
            same = np.array_equal(answers.scores, before.scores)
            assert same == ("scores" not in reading)
            for readout in ("gate", "gate-hard", "oracle", "last"):
                scores = read(answers, readout, record.sequence.index(test), answers.tau)
                told = plain.predict(record, readout, t, test)
                assert (scores is None) == (told is None)
                if scores is not None and told is not None:
                    np.testing.assert_allclose(scores, told[1], rtol=0, atol=1e-12)
    assert not [p for p in check_files(tmp_path).problems if "val" in p.path]
    assert not [item for item in find_unused(tmp_path).unused if "-val-" in item.path.name]


@pytest.mark.parametrize("reading", [{"tau": "validation"}, {"scores": "standard"}])
def test_what_is_not_answered_yet_is_missing(tmp_path: Path, reading: dict[str, str]) -> None:
    record = with_validation(tmp_path, reading)
    assert AnswerReader(tmp_path).missing(record)[0] == 0
    node = record.gates["bid"] if "tau" in reading else record.steps[2].heads[2][0]
    (tmp_path / "answers" / record.validation[node]["bid"] / "done.json").unlink()
    reader = AnswerReader(tmp_path)
    missing, expected = reader.missing(record)
    assert 0 < missing < expected == 16
    answers = reader.answers(record, 3, "live")
    assert (answers is None) if "scores" in reading else (answers is not None and answers.distances is None)
    assert reader.answers(record, 1, "live") is not None, "what came before bid does not need it"
    plain = Recomputation(tmp_path, RunGroup("", [record]))
    assert plain.predict(record, "gate", 3, "live") is None


def test_a_rule_that_is_not_known_is_refused(tmp_path: Path) -> None:
    record = with_validation(tmp_path, {"tau": "test"})
    with pytest.raises(UserError, match="an unknown rule of reading"):
        read_record(tmp_path / "runs" / f"{record.id}.json")


def test_answers_of_another_dataset_are_pointed_out(tmp_path: Path) -> None:
    record = with_validation(tmp_path, BOTH)
    (tmp_path / "runs" / f"{record.id}.json").unlink()
    gate = record.gates["live"]
    turned = {"live": record.validation[gate]["bid"]}
    write_record(tmp_path, replace(record, validation={**record.validation, gate: turned}))
    problems = [str(p) for p in check_files(tmp_path).problems]
    assert any("was not made by gate-live on the validation images of live" in p for p in problems)


# -- a run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_of_all_options_are_verified_and_score_pictures(miniatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = ["run", "--strategy", "tsn", "--orders", "live,bid", "--data", str(miniatures), "--out", str(out)]
    words += ["--no-figures", "--set", "training.warmup_epochs=1", "--set", "training.epochs=1"]
    assert parser.main(words) == 0
    trained = sorted((out / "train").iterdir())
    for name in ("gate_features=standard", "tau_from=validation", "scores=standard"):
        words += ["--set", f"tsn.{name}"]
    assert parser.main([*words, "--jobs", "2"]) == 0
    assert sorted((out / "train").iterdir()) == trained
    assert verify(out).ok and not find_unused(out).unused
    (path,) = (p for p in (out / "runs").iterdir() if read_record(p).variant)
    record = read_record(path)
    answers = AnswerReader(out).answers(record, 1, "bid")
    assert answers is not None and answers.tau in TAUS
    scores = read(answers, "gate", 1, answers.tau)
    assert scores is not None
    expected = dict(zip(answers.keys.tolist(), scores.tolist(), strict=True))
    folder = next(p for p in miniatures.iterdir() if p.name == "BID")
    table = tmp_path / "scores.csv"
    files = [str(next(folder.rglob(Path(key).name))) for key in expected]
    given = ["score", *files, "--runs", str(out), "--run", record.id, "--to", str(table), "--device", "cpu"]
    assert parser.main(given) == 0
    with table.open(newline="", encoding="utf-8") as file:
        found = {Path(row["image"]).name: float(row["score"]) for row in csv.DictReader(file)}
    for key, value in expected.items():
        assert found[Path(key).name] == pytest.approx(value, abs=1e-4)
    assert parser.main([*given[:-4], "--to", str(tmp_path / "x.csv"), "--tolerance", "0.1"]) == 2
    model = tmp_path / "model.safetensors"
    assert parser.main(["export", str(out), "--run", record.id, "--to", str(model)]) == 0
    held = given.index("--runs")
    again = [*given[:held], "--model", str(model), "--to", str(tmp_path / "again.csv"), "--device", "cpu"]
    assert parser.main(again) == 0
    assert (tmp_path / "again.csv").read_bytes() == table.read_bytes(), "in a file, too"
