"""Adaptation to unlabelled test images: its formulas against numpy, its batches, its names, its tables."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_runs as recorded
import torch
from numpy.typing import NDArray
from recorded_names import material
from reported import numbers_of, rows_of
from torch import Tensor, nn

from cliqa_bench.benchmarks.decoded import DecodedDataset
from cliqa_bench.benchmarks.generated.distortions import distort
from cliqa_bench.benchmarks.pixels.cache import to_float
from cliqa_bench.cli import parser
from cliqa_bench.config import PRESETS, RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.execution import plan as planner
from cliqa_bench.learning.adaptation import batches_of, middles, score_adapted
from cliqa_bench.learning.scoring import score_images
from cliqa_bench.models.folding import Scorer
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.reports.audit.integrity import check_files
from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.measure import ADAPTED_NOTE
from cliqa_bench.reports.parts import make_tables
from cliqa_bench.reports.render import latex, markdown
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Tidy
from cliqa_bench.results.nodes import read_answers, read_json, write_json
from cliqa_bench.results.records import RunRecord, read_records, write_record
from cliqa_bench.seeds import rng_for
from cliqa_bench.settings.choice import choose
from cliqa_bench.strategies.tsn import TSN
from cliqa_bench.strategies.tta import TTA, middle, rank_loss, statistics_of, take_statistics
from cliqa_bench.testing import check_strategy
from cliqa_bench.testing.tiny import new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources() -> Iterator[list[DecodedDataset]]:
    with tiny_sources(2) as made:
        yield made


def model_of(strategy: TSN, tasks: int = 2) -> QualityModel:
    """Returns a model whose tasks differ, with uneven statistics and affine parameters."""
    model = new_model(strategy)
    generator = torch.Generator().manual_seed(7)
    for _ in range(tasks):
        model.add_task()
    with torch.no_grad():
        for layer in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            assert isinstance(layer.running_mean, Tensor) and isinstance(layer.running_var, Tensor)
            layer.running_mean.add_(0.1 * torch.randn(layer.num_features, generator=generator))
            layer.running_var.mul_(1 + torch.rand(layer.num_features, generator=generator))
            layer.weight.add_(0.1 * torch.randn(layer.num_features, generator=generator))
        for parameter in model.heads.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def pictures(n: int = 5, height: int = 40, width: int = 48) -> Tensor:
    """Returns (n, 3, H, W) uint8."""
    pixels = np.random.default_rng(3).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def bits(model: QualityModel) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def kept(layer: nn.BatchNorm2d) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean.double().numpy().copy(), layer.running_var.double().numpy().copy()


def inputs_of(model: QualityModel, images: Tensor, task: int) -> list[NDArray[np.float64]]:
    """Returns what each BatchNorm layer of a task is given, (n, C, H, W) float64."""
    found: list[NDArray[np.float64]] = []

    def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].double().numpy())

    hooks = [layer.register_forward_pre_hook(look) for layer in statistics_of(model, task)]
    with torch.no_grad():
        model.features(images, task)
    for hook in hooks:
        hook.remove()
    return found


# -- statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.0, 3.0])
@pytest.mark.parametrize("norms", ["task", "shared"])
def test_statistics_are_numpys_over_all_positions(norms: Any, prior: float) -> None:
    model, images = model_of(TTA(norms=norms)), to_float(pictures())
    first_input = inputs_of(model, images, 1)[0]  # nothing that is adapted comes before it
    old = [kept(layer) for layer in statistics_of(model, 1)]
    with torch.no_grad():
        take_statistics(model, images, 1, prior)
    given = inputs_of(model, images, 1)  # with the new statistics in the layers before
    np.testing.assert_array_equal(given[0], first_input)
    assert len(given) == len(old) == 9
    n = len(images)
    for x, (mean, var), layer in zip(given, old, statistics_of(model, 1), strict=True):
        channels = x.swapaxes(0, 1).reshape(x.shape[1], -1)
        new = [channels.mean(axis=1), ((channels - channels.mean(axis=1)[:, None]) ** 2).mean(axis=1)]
        for ours, before, theirs in zip(kept(layer), (mean, var), new, strict=True):
            expected = prior / (prior + n) * before + n / (prior + n) * theirs
            np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


def test_one_image_without_contrast_has_finite_scores() -> None:
    model, flat = model_of(TTA()), to_float(torch.full((1, 3, 40, 40), 7, dtype=torch.uint8))
    with torch.no_grad():
        take_statistics(model, flat, 0, 0.0)
        assert model(flat).isfinite().all()
        assert model(to_float(pictures(2))).isfinite().all()


def test_statistics_of_one_task_leave_the_other_and_all_weights_alone() -> None:
    model = model_of(TTA())
    before = bits(model)
    with torch.no_grad():
        take_statistics(model, to_float(pictures()), 1, 0.0)
    changed = moved(before, bits(model))
    assert len(changed) == 2 * 9
    assert all(".tasks.1.running_" in name for name in changed)


def test_an_infinite_prior_leaves_every_bit() -> None:
    model = model_of(TTA())
    before = bits(model)
    with torch.no_grad():
        take_statistics(model, to_float(pictures()), 0, math.inf)
    assert not moved(before, bits(model))


def test_a_network_without_statistics_is_refused() -> None:
    model = model_of(TTA(norms="shared"))
    for parent in list(model.net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    with pytest.raises(UserError, match=r"keeps no statistics .* set tta.adapt_by=rank"):
        TTA(norms="shared").adapt(model, pictures(2), rng_for("x"))


# -- ranks ---------------------------------------------------------------------------------------------------


def test_the_rank_loss_in_numpy() -> None:
    tasks, distortions, levels, images = 2, 3, 2, 4
    scores = np.random.default_rng(0).normal(size=(tasks, 1 + distortions * levels, images))
    terms = []
    for task, distortion, image in np.ndindex(tasks, distortions, images):
        better = scores[task, 0, image]
        for level in range(levels):
            worse = scores[task, 1 + distortion * levels + level, image]
            terms.append(-np.log(1 / (1 + np.exp(-(better - worse)))))
            better = worse
    ours = float(rank_loss(torch.from_numpy(scores), levels))
    assert ours == pytest.approx(np.mean(terms), rel=1e-12)
    assert float(rank_loss(torch.zeros(1, 5, 3), 2)) == pytest.approx(math.log(2), rel=1e-6)


def loss_of(strategy: TTA, model: QualityModel, images: Tensor, tasks: list[int], key: str) -> Tensor:
    """Returns the rank loss of some tasks, of pictures that are distorted here."""
    rng = rng_for(key)
    pixels = images.permute(0, 2, 3, 1).numpy()
    rows = [images]
    for name in strategy.distortions:
        for level in strategy.levels:
            made = np.stack([distort(image, name, level, rng) for image in pixels])
            rows.append(torch.from_numpy(made).permute(0, 3, 1, 2))
    return rank_loss(
        torch.stack([torch.stack([model.score(to_float(row), task) for row in rows]) for task in tasks]),
        len(strategy.levels),
    )


@pytest.mark.parametrize("norms", ["task", "shared"])
def test_ranks_move_gammas_and_betas_alone_by_a_step_of_adam(norms: Any) -> None:
    strategy = TTA(norms=norms, adapt_by="rank", distortions=("pretrain:blur",), steps=1, side=0, lr=2e-3)
    model, plain, images = model_of(strategy), model_of(strategy), pictures(3)
    before = bits(model)
    strategy.adapt(model, images, rng_for("a"))
    norm = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and "pristine" not in n}
    changed = {f"{name}.{part}" for name in norm for part in ("weight", "bias")}
    assert moved(before, bits(model)) == changed
    assert not any(p.requires_grad or p.grad is not None for p in model.heads.parameters())
    assert not model.training

    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    for tasks in [[0], [1]] if norms == "task" else [[0, 1]]:
        loss_of(strategy, plain, images, tasks, "a").backward()
    after = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        if name in changed:
            assert parameter.grad is not None
            slope = parameter.grad.double().numpy()  # of the first step, mean and root are the slope's own
            expected = parameter.detach().double().numpy() - 2e-3 * slope / (np.abs(slope) + 1e-8)
            large = np.abs(slope) > 0.1 * np.abs(slope).max()  # a network without training has small slopes
            np.testing.assert_allclose(after[name].detach().numpy()[large], expected[large], atol=2e-4)


def test_more_steps_lower_the_loss() -> None:
    strategy = TTA(adapt_by="rank", distortions=("pretrain:blur",), steps=6, side=0, lr=2e-2)
    model, images = model_of(strategy), pictures(3)
    with torch.no_grad():
        first = loss_of(strategy, model, images, [0, 1], "a")
        strategy.adapt(model, images, rng_for("a"))
        assert loss_of(strategy, model, images, [0, 1], "a") < first - 2e-5


def test_what_ranks_are_learned_on_is_the_middle_of_the_images() -> None:
    strategy = TTA(adapt_by="rank", distortions=("pretrain:blur",), steps=1, side=32)
    one, other = model_of(strategy), model_of(strategy)
    images = pictures(2)
    edges = images.clone()
    edges[:, :, :4] = 0  # 40 x 48: the middle begins in row 4 and column 8
    edges[:, :, :, 40:] = 0
    strategy.adapt(one, images, rng_for("a"))
    strategy.adapt(other, edges, rng_for("a"))
    assert bits(one) == bits(other)
    assert torch.equal(middle(images, 32), images[:, :, 4:36, 8:40])
    assert middle(images, 0).shape == middle(images, 500).shape == images.shape


def test_both_is_one_after_the_other() -> None:
    both = TTA(adapt_by="both", distortions=("pretrain:jpeg",), levels=(2.0,), steps=1, side=0, prior=1.0)
    model, parts, images = model_of(both), model_of(both), pictures(2)
    both.adapt(model, images, rng_for("a"))
    replace(both, adapt_by="statistics").adapt(parts, images, rng_for("b"))
    replace(both, adapt_by="rank").adapt(parts, images, rng_for("a"))
    assert bits(model) == bits(parts)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch": 0}, "tta.batch must be at least 1"),
        ({"prior": -1.0}, "tta.prior must be at least 0"),
        ({"prior": math.nan}, "tta.prior must be at least 0"),
        ({"steps": -1}, "tta.steps must be at least 0"),
        ({"distortions": ("pretrain:blurr",)}, "did you mean 'pretrain:blur'"),
        ({"distortions": ()}, "must not be empty"),
        ({"levels": ()}, "must not be empty"),
        ({"levels": (3.0, 1.0)}, "tta.levels must rise"),
        ({"levels": (1.0, 1.0)}, "tta.levels must rise"),
        ({"levels": (0.5,)}, "tta.levels must rise"),
        ({"levels": (1.0, 5.5)}, "tta.levels must rise"),
    ],
)
def test_nonsense_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TTA(**params)


# -- batches -------------------------------------------------------------------------------------------------


def test_batches_hold_each_image_once_and_follow_from_name_and_seed() -> None:
    made = batches_of("live", 23, 8, 0)
    assert sorted(np.concatenate(made).tolist()) == list(range(23))
    assert [len(batch) for batch in made] == [8, 8, 7]
    assert all((np.diff(batch) > 0).all() for batch in made)
    assert not any((np.diff(batch) == 1).all() for batch in made), "they are shuffled"

    def listed(*about: Any) -> list[list[int]]:
        return [batch.tolist() for batch in batches_of(*about)]

    assert listed("live", 23, 8, 0) == [batch.tolist() for batch in made]
    assert listed("bid", 23, 8, 0) != listed("live", 23, 8, 0) != listed("live", 23, 8, 1)
    assert listed("live", 5, 100, 0) == [[0, 1, 2, 3, 4]]
    assert listed("live", 0, 8, 0) == []
    assert [len(batch) for batch in batches_of("live", 9, 8, 0)] == [5, 4]


def test_images_of_several_shapes_meet_in_their_middles(sources: list[DecodedDataset]) -> None:
    source = sources[0]
    some = middles(source, np.array([1, 2]))  # 40 x 48 and 40 x 40
    wide = torch.from_numpy(source.cache.image(1).copy()).permute(2, 0, 1)
    narrow = torch.from_numpy(source.cache.image(2).copy()).permute(2, 0, 1)
    assert torch.equal(some, torch.stack([wide[:, :, 4:44], narrow]))
    assert torch.equal(middles(source, np.array([1, 3]))[0], wide)


@dataclass
class Shows(TTA):
    """Remembers what it is given, and leaves the model alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.given: list[tuple[Tensor, float]] = []

    def adapt(self, model: QualityModel, images: Tensor, rng: np.random.Generator) -> None:
        self.given.append((images, rng.random()))
        with torch.no_grad():
            model.heads[0].weight.zero_()  # type: ignore[operator]


def test_each_batch_meets_the_model_as_it_was_trained(sources: list[DecodedDataset]) -> None:
    strategy, model = Shows(batch=2), model_of(TTA())
    before = bits(model)
    scores = score_adapted(strategy, model, sources[0], 5, "cpu")
    places = sources[0].indices("test")
    batches = batches_of("tiny0", len(places), 2, 5)
    assert len(batches) == len(strategy.given) > 1
    for number, (batch, (images, drawn)) in enumerate(zip(batches, strategy.given, strict=True)):
        assert torch.equal(images, middles(sources[0], places[batch]))
        assert drawn == rng_for("adaptation", "tiny0", 5, number).random()
    assert (scores[:, 0] == 0).all()
    assert (scores[:, 1] != 0).all()
    assert not moved(before, bits(model))


def test_scores_are_those_of_the_adapted_model_image_by_image(sources: list[DecodedDataset]) -> None:
    strategy, source = TTA(batch=3, prior=2.0), sources[0]
    model = model_of(strategy)
    scores, places = score_adapted(strategy, model, source, 0, "cpu"), source.indices("test")
    for number, batch in enumerate(batches_of("tiny0", len(places), 3, 0)):
        adapted = model_of(strategy)
        strategy.adapt(adapted, middles(source, places[batch]), rng_for("adaptation", "tiny0", 0, number))
        for place in batch:
            image = torch.from_numpy(source.cache.image(int(places[place])).copy()).permute(2, 0, 1)
            with torch.no_grad():
                alone = adapted(to_float(image[None]))[0].numpy()
            np.testing.assert_allclose(scores[place], alone, atol=2e-6)


@pytest.mark.parametrize("params", [{"prior": math.inf}, {"adapt_by": "rank", "steps": 0}])
def test_without_adaptation_answers_are_those_of_tsn_to_the_bit(
    sources: list[DecodedDataset], params: dict[str, Any]
) -> None:
    model = model_of(TSN())
    plain = score_images(Scorer(model), sources[0], "test", 2, "cpu")
    adapted = score_adapted(TTA(batch=100, **params), model, sources[0], 0, "cpu")
    assert plain.tobytes() == adapted.tobytes()
    some = score_adapted(TTA(batch=100), model, sources[0], 0, "cpu")
    assert np.abs(some - plain).max() > 1e-3


@pytest.mark.parametrize("adapt_by", ["statistics", "rank"])
def test_opinion_scores_of_test_images_change_no_bit(sources: list[DecodedDataset], adapt_by: Any) -> None:
    strategy = TTA(batch=3, adapt_by=adapt_by, steps=1, distortions=("pretrain:white_noise",), levels=(3.0,))
    model, source = model_of(strategy), sources[0]
    told = score_adapted(strategy, model, source, 0, "cpu")
    shuffled = np.random.default_rng(0).permutation(source.mos).tolist()
    for labels in (shuffled, [math.nan] * len(shuffled)):
        pairs = zip(source.ratings, labels, strict=True)
        other = replace(source, ratings=[rating._replace(score=label) for rating, label in pairs])
        assert score_adapted(strategy, model, other, 0, "cpu").tobytes() == told.tobytes()


@dataclass
class Drifting(TTA):
    """What it adapted to before has an effect."""

    def adapt(self, model: QualityModel, images: Tensor, rng: np.random.Generator) -> None:
        self.prior += 1
        super().adapt(model, images, rng)


@pytest.mark.slow
def test_the_contract_notices_adaptation_with_a_memory() -> None:
    with pytest.raises(AssertionError, match="adapting again gives different answers"):
        check_strategy(Drifting)


# -- names ---------------------------------------------------------------------------------------------------


def plan_of(strategies: list[str], params: dict[str, dict[str, Any]] | None = None) -> planner.Plan:
    config = RunConfig(
        strategy=strategies, orders={"bid,live": ["bid", "live"]}, data=None, backbone="scnn",
        weights="random", seeds=[0], split="1", preset="quick", training=PRESETS["quick"],
        params=params or {},
    )  # fmt: skip
    return planner.make_plan(choose(config), {name: material(name) for name in ("bid", "live")}, {})


def test_trainings_and_gates_are_shared_with_tsn_and_answers_are_not() -> None:
    alone, tta, both = plan_of(["tsn"]), plan_of(["tta"]), plan_of(["tsn", "tta"])
    assert alone.train.keys() == tta.train.keys() == both.train.keys()
    assert alone.gates.keys() == tta.gates.keys()
    of_gates = {a for a, work in alone.answers.items() if work.of.node.kind == "gate"}
    assert alone.answers.keys() & tta.answers.keys() == of_gates
    assert both.answers.keys() == alone.answers.keys() | tta.answers.keys()
    assert all(type(work.strategy) is TSN for work in tta.train.values())
    for work in tta.answers.values():
        assert (work.adapted_by is None) == (work.of.node.kind == "gate")
    record, other = tta.records[0], alone.records[0]
    assert (record.transductive, record.trained_as) == (True, "tsn")
    assert (other.transductive, other.trained_as) == (False, "")
    assert record.steps == other.steps


def adapted_names(plan: planner.Plan) -> set[str]:
    return {name for name, work in plan.answers.items() if work.adapted_by}


def test_names_of_answers_hold_what_matters_and_no_more() -> None:
    usual = plan_of(["tta"])
    spec = next(work.node.spec for work in usual.answers.values() if work.adapted_by)
    assert spec["adapted"] == {
        "strategy": "tta", "params": {"adapt_by": "statistics", "prior": 16.0},
        "batches": ["shuffled and cut evenly 1", 8],
    }  # fmt: skip
    params: dict[str, Any]
    for params in ({"lr": 0.5}, {"steps": 9}, {"side": 7}, {"levels": (2.0,)}, {"tau": 3.0}):
        assert adapted_names(plan_of(["tta"], {"tta": params})) == adapted_names(usual), params
    for params in ({"batch": 7}, {"prior": 1.0}, {"adapt_by": "rank"}, {"adapt_by": "both"}):
        changed = plan_of(["tta"], {"tta": params})
        assert not adapted_names(changed) & adapted_names(usual), params
        assert changed.train.keys() == usual.train.keys()
    ranks = plan_of(["tta"], {"tta": {"adapt_by": "rank"}})
    assert adapted_names(plan_of(["tta"], {"tta": {"adapt_by": "rank", "prior": 1.0}})) == adapted_names(
        ranks
    )
    assert "pictures_version" in next(iter(ranks.answers.values())).node.spec["adapted"]["params"]


def test_other_training_is_that_of_tsn_set_alike() -> None:
    tta = plan_of(["tta"], {"tta": {"norms": "shared", "main_rate": 0.5}})
    assert tta.train.keys() == plan_of(["tsn"], {"tsn": {"norms": "shared", "main_rate": 0.5}}).train.keys()


# -- tables --------------------------------------------------------------------------------------------------


SEQUENCE = ["live", "csiq"]


def record_tta(out: Path) -> RunRecord:
    """Records a run of `tta` on the trainings of a run of `tsn`, whose answers are those of another seed."""
    tsn = recorded.record_tsn(out, "live,csiq", SEQUENCE)
    other = recorded.record_tsn(out, "live,csiq", SEQUENCE, seed=7)
    (out / "runs" / f"{other.id}.json").unlink()
    answers = dict(tsn.answers)
    for (node, _), (from_node, _) in zip(tsn.steps[-1].heads, other.steps[-1].heads, strict=True):
        answers[node] = other.answers[from_node]
        for answer in answers[node].values():
            spec = read_json(out / "answers" / answer / "spec.json")
            write_json(
                out / "answers" / answer / "spec.json", {**spec, "of": node, "adapted": {"strategy": "tta"}}
            )
            recorded.sign(out / "answers" / answer)
    rows = {readout: name.replace("TSN-IQA", "TSN-IQA+TTA") for readout, name in tsn.rows.items()}
    record = replace(tsn, strategy="tta", rows=rows, answers=answers, transductive=True, trained_as="tsn")
    write_record(out, record)
    return record


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord, Tidy]:
    """Returns a folder with a run of `tsn` and one of `tta`, the latter's record, and their numbers."""
    out = tmp_path_factory.mktemp("beside")
    return out, record_tta(out), numbers_of(out)


def test_rows_stand_in_sections_of_their_own_marked_and_unranked(
    beside: tuple[Path, RunRecord, Tidy],
) -> None:
    numbers = beside[2]
    tables = {table.number: table for table in make_tables(numbers)}
    for number in ("III", "IV", "V", "VI", "intervals", "power", "transfer"):
        table = tables[number]
        assert "adapt to the unlabelled test images; not comparable" in table.caption, number
        for section in table.sections:
            adapted = ["TTA" in name for name, _ in section.rows]
            assert all(adapted) == any(adapted) == ("adapted" in section.label), (number, section.label)
        assert any("adapted" in section.label for section in table.sections)
    labels = [section.label for section in tables["III"].sections]
    assert labels == ["Task-Aware", "Task-Agnostic", "Task-Aware, adapted", "Task-Agnostic, adapted"]
    assert "| Task-Agnostic, adapted | TSN-IQA+TTA |" in markdown(tables["III"])
    assert "Task-Agnostic, adapted & TSN-IQA+TTA &" in latex(tables["III"])
    mine = [row for row in rows_of(numbers.rows, "III") if "TTA" in row.method]
    assert len(mine) == 4 * 4
    assert all(ADAPTED_NOTE in row.note for row in mine)
    assert not any(ADAPTED_NOTE in row.note for row in numbers.rows if "TTA" not in row.method)
    for number in ("Fig. 4", "XIII", "overhead", "VII", "IX"):
        assert not any("TTA" in row.method for row in rows_of(numbers.rows, number)), number


def test_numbers_of_others_do_not_change_beside_it(
    beside: tuple[Path, RunRecord, Tidy], tmp_path: Path
) -> None:
    recorded.record_tsn(tmp_path, "live,csiq", SEQUENCE)
    others = [row for row in beside[2].rows if "TTA" not in row.method]
    assert [repr(row) for row in others] == [repr(row) for row in numbers_of(tmp_path).rows]


def test_verify_computes_them_again(beside: tuple[Path, RunRecord, Tidy], tmp_path: Path) -> None:
    out = Path(shutil.copytree(beside[0], tmp_path / "runs"))
    write_report(out, ("csv", "html"), figures=False)
    assert "Task-Agnostic, adapted" in (out / "report" / "report.html").read_text(encoding="utf-8")
    found = verify(out)
    told = {str(problem) for problem in found.problems}
    assert all("is not its hash" in problem for problem in told), "recorded nodes have names of their own"
    rows = (out / "report" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert found.cells == len(rows) - 1
    assert found.plain > 200


def test_verify_notices_answers_that_were_not_adapted(
    beside: tuple[Path, RunRecord, Tidy], tmp_path: Path
) -> None:
    out, record, _ = beside
    out = Path(shutil.copytree(out, tmp_path / "runs"))
    (tsn,) = [other for other in read_records(out) if other.strategy == "tsn"]
    for wrong, what in (
        (replace(record, answers=tsn.answers), "does not say that it was adapted to the test images"),
        (replace(tsn, answers=record.answers), "says that it was adapted to the test images"),
    ):
        write_record(out, wrong)
        said = [str(problem) for problem in check_files(out).problems]
        assert sum(what in problem for problem in said) == len(SEQUENCE) ** 2
        (out / "runs" / f"{wrong.id}.json").unlink()


# -- whole runs ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_on_miniatures(miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trainings are shared, answers are the same with two processes and alone, `score` does not adapt."""
    few = ["--set", "training.epochs=1", "--set", "training.warmup_epochs=1", "--no-figures"]
    words = ["--orders", "bid,live", "--data", str(miniatures), *few]
    quick = ["--set", "tta.adapt_by=both", "--set", "tta.steps=1", "--set", "tta.levels=[3]"]
    tta = ["run", "--strategy", "tta", *words, *quick, "--set", "tta.distortions=[pretrain:jpeg]"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert parser.main(["run", "--strategy", "tsn", *words, "--out", str(first), "--jobs", "1"]) == 0
    trained = {path: path.stat().st_mtime_ns for path in sorted((first / "train").glob("*/*"))}
    assert parser.main([*tta, "--out", str(first), "--jobs", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in sorted((first / "train").glob("*/*"))} == trained
    assert parser.main([*tta, "--out", str(second), "--jobs", "2"]) == 0
    adapted = sorted((first / "answers").glob("tta-*"))
    assert len(adapted) == 2 * 2
    for folder in adapted:
        one, other = (read_answers(out / "answers" / folder.name / "answers.npz") for out in (first, second))
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
        plain = read_answers(first / "answers" / tsn_answers(first, folder) / "answers.npz")
        assert plain["keys"].tolist() == one["keys"].tolist()
        assert np.abs(plain["scores"] - one["scores"]).max() > 1e-3
    assert parser.main(["verify", str(first)]) == 0
    capsys.readouterr()
    picture = str(next((miniatures / "BID").rglob("*.[Jj][Pp][Gg]")))
    told = []
    for strategy in ("tsn", "tta"):
        assert parser.main(["score", picture, "--runs", str(first), "--run", strategy]) == 0
        told.append(capsys.readouterr())
    trained_as, adapting = (list(csv.DictReader(io.StringIO(one.out))) for one in told)
    # adapted answers are not a population for scores of the model as trained
    extra = {"percentile", "word", "novelty"}
    assert extra <= trained_as[0].keys()
    assert [{k: v for k, v in row.items() if k not in extra} for row in trained_as] == adapting
    assert "pictures are scored by the model as trained" in told[1].err
    assert "as trained" not in told[0].err


def tsn_answers(out: Path, adapted: Path) -> str:
    """Returns the answers of the same node to the same test set, without adaptation."""
    about = read_json(adapted / "spec.json")
    for folder in (out / "answers").glob("tsn-*"):
        spec = read_json(folder / "spec.json")
        if (spec["of"], spec["test"]) == (about["of"], about["test"]):
            return folder.name
    raise AssertionError(adapted)
