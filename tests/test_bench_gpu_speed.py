"""The rows of speed for a GPU, rehearsed on the CPU: what they compute, and how they count."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from cliqa_bench.bench import eight_orders
from cliqa_bench.bench.bare import BareLoop
from cliqa_bench.bench.conditions import Conditions
from cliqa_bench.bench.eight_orders import WHOLE, Passed, foretell
from cliqa_bench.bench.fixtures import backbone_net, pictures_source
from cliqa_bench.bench.groups import device_control, gpu_size, gpu_speed, gpu_tenth
from cliqa_bench.bench.groups.gpu_speed import TASKS, SixTrainings
from cliqa_bench.bench.process import Ran
from cliqa_bench.bench.real_size import REAL
from cliqa_bench.bench.six_in_one import NORM_OF, Arrangement, SixInOne


@pytest.fixture
def setting(tmp_path: Path) -> Conditions:
    return Conditions("cpu", "fp32", 1, 1, tmp_path)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has float64 wherever our code asks for float32: what rounding alone makes differ is then tiny."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


SIX_APART = 1e-14
"""3.6e-15 seen (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and MKL's instructions from the oldest to the newest,
one thread and two); weights move by 3e-3. In float32 a ReLU that is open one way may be shut the other way:
gradients then differ by percents."""


@pytest.mark.parametrize("layout", NORM_OF)
def test_all_tasks_in_one_pass_learn_what_each_learns_alone(
    setting: Conditions, float64: None, layout: Arrangement
) -> None:
    source = pictures_source(setting.folder / "six", [(40, 40)] * 4, "train")
    case = SixTrainings("scnn", source, setting, crop=32, batch=4, steps=3)
    heads = [head.double() for head in case.heads]
    batches = [  # every task sees images of its own
        [next(iter(source.train_batches(case.training, 3 * task + step, 0, 4))) for step in range(3)]
        for task in range(TASKS)
    ]
    rate = case.training.lr * case.strategy.main_rate
    net = backbone_net("scnn").double()
    together = SixInOne(net, heads, batches, case.training, rate, case.device, layout)
    assert {images.dtype for images in together.images} == {torch.float64}
    norms = [module for module in together.net.modules() if isinstance(module, NORM_OF[layout])]
    before = [part.detach().clone() for part in together.weights]
    together.epoch()
    for part, old in zip(together.weights, before, strict=True):
        assert (part - old).abs().flatten(1).amax(1).gt(1e-3).all(), "every task has learned"
    for task in range(TASKS):
        net, head = backbone_net("scnn").double(), heads[task].clone()
        alone = BareLoop(net, [head], batches[task], case.strategy, case.training, case.device)
        alone.epoch()
        learned = [part[task] for norm in norms for part in (norm.weight, norm.bias)]
        for mine, other in zip([*learned, together.heads[task]], alone.weights, strict=True):
            assert float((mine - other).detach().abs().max()) <= SIX_APART
        kept = [module for module in alone.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm, layer in zip(norms, kept, strict=True):
            for mine, theirs in ((norm.mean, layer.running_mean), (norm.var, layer.running_var)):
                assert theirs is not None
                assert float((mine[task] - theirs).abs().max()) <= SIX_APART


def test_all_tasks_in_one_pass_start_as_each_does_alone(setting: Conditions) -> None:
    source = pictures_source(setting.folder / "six", [(40, 40)] * 4, "train")
    case = SixTrainings("scnn", source, setting, crop=32, batch=4, steps=2)
    for layout in NORM_OF:
        together = case.together(layout)
        assert [len(of_tasks) for of_tasks in together.batches] == [TASKS] * len(case.batches) == [TASKS] * 2
        assert len({tuple(head.flatten().tolist()) for head in case.heads}) == TASKS
        for task, head in enumerate(case.heads):
            assert torch.equal(together.heads[task], head[0])
            assert torch.equal(case.one(task).heads[0], head)
        assert together.adam.defaults == case.one(0).adam.defaults


def test_six_trainings_and_one_pass_count_the_images_of_all_tasks(
    setting: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    monkeypatch.setattr(BareLoop, "epoch", lambda loop: begun.append(loop))
    monkeypatch.setattr(SixInOne, "epoch", lambda loop: begun.append(loop))
    monkeypatch.setattr(gpu_speed, "synchronised", lambda call, device: (call(), 2.0)[1])
    rows = list(gpu_speed.six_in_one(setting, images=4, crop=32, steps=3))
    assert len(rows) == len(NORM_OF)
    for row in rows:
        assert row.ours == row.reference == (TASKS * 3 * 4 / 2.0,)
    each_round = len(NORM_OF) + TASKS
    assert len(begun) == 2 * each_round, "a round to warm up, and one that counts"
    assert len({id(loop) for loop in begun}) == each_round


@pytest.mark.slow
def test_speed_is_rehearsed_on_a_cpu(setting: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_speed, "SECONDS_BUSY", 0.0)
    found = list(gpu_speed.measure(setting))
    assert {row.row for row in found} == {"gpu-speed"}
    assert all(len(row.ours) == 1 for row in found)
    said = [row.what for row in found]
    for part in (
        "tsn, ",
        "utilisation, training",
        "48 x 64",
        "(side by side)",
        "(interleaved)",
        "lwf, ",
        "si, ",
    ):
        assert any(part in what for what in said), part
    assert [row.reach for row in found if row.against.startswith("the limit")] == [0.95, 0.95]


def test_the_control_counts_operations_and_bytes(
    setting: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_control, "synchronised", lambda call, device: (call(), 2.0)[1])
    monkeypatch.setattr(device_control, "SIDE", {"cpu": 100})
    monkeypatch.setattr(device_control, "BYTES", {"cpu": 10**6})
    bf16, fp32, copied = device_control.measure(setting)
    assert bf16.value == fp32.value == 2 * 2 * 100**3 / 1e12 / 2
    assert copied.value == 2 * 2 * 10**6 / 1e9 / 2


def test_the_whole_is_foretold_by_a_straight_line() -> None:
    assert foretell([0, 1, 2], [5, 7, 9], 10) == (25, 0)
    # against ten lines of numpy
    x, y = np.array([1.0, 2, 4, 5]), np.array([5.0, 7.5, 11, 12])
    design = np.stack([np.ones(4), x], axis=1)
    solved, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
    at = np.array([1.0, 10.0])
    variance = rest[0] / 2 * (1 + at @ np.linalg.inv(design.T @ design) @ at)
    found = foretell(x.tolist(), y.tolist(), 10)
    assert found.value == pytest.approx(at @ solved, rel=1e-15)  # 3.3e-16 seen
    wanted = stats.t.ppf(0.975, 2) * np.sqrt(variance)
    assert found.error == pytest.approx(wanted, rel=5e-15)  # 1.9e-15 seen


def test_a_tenth_is_run_at_three_sizes_and_the_whole_at_one(
    setting: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def passed(setting: Conditions, scale: float) -> Passed:
        asked.append(scale)
        n = round(WHOLE * scale)
        return Passed(n, f"{n} images", Ran(10 + n / 100, 2e9, ""), "2.0 GB")

    monkeypatch.setattr(gpu_tenth, "eight_orders", passed)
    monkeypatch.setattr(gpu_size, "eight_orders", passed)
    *rows, whole = gpu_tenth.measure(setting)
    assert asked == [0.1, 0.05, 0.025]
    assert [row.reach for row in rows] == [150, None, None]
    assert whole.value == pytest.approx(10 + WHOLE / 100, rel=6e-16)  # 2.2e-16 seen
    (took,) = gpu_size.measure(setting)
    assert took.reach == 600
    assert took.value == 10 + WHOLE / 100
    assert took.note.endswith("2.0 GB")


def test_eight_orders_are_rehearsed_on_a_cpu(setting: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], cache: Path) -> Ran:
        asked.append(list(words))
        return Ran(1.0, 1e9, "")

    monkeypatch.setattr(eight_orders, "run", run)
    monkeypatch.setattr(
        eight_orders, "make_real_size", lambda root, names, scale: root.mkdir(parents=True) or 7
    )
    passed = eight_orders.eight_orders(setting, 0.1)
    assert passed.images == 7
    assert "cpu" in passed.what
    (words,) = asked
    assert words[words.index("--orders") + 1] == "bid,clive"
    assert words[words.index("--device") + 1] == "cpu"
    assert not (setting.folder / "0.1").exists(), "what is as large as the real sets is removed"


def test_eight_orders_on_a_gpu_are_of_the_paper(setting: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    made: list[object] = []

    def make(root: Path, names: tuple[str, ...], scale: float) -> int:
        root.mkdir(parents=True)
        made.extend([set(names), scale])
        return 7

    def run(words: list[str], cache: Path) -> Ran:
        asked.extend(words)
        assert not cache.exists(), "an empty cache"
        return Ran(1.0, 2.5e9, "")

    monkeypatch.setattr(eight_orders, "run", run)
    monkeypatch.setattr(eight_orders, "make_real_size", make)
    passed = eight_orders.eight_orders(replace(setting, device="cuda", precision="bf16"), 0.1)
    assert made == [set(REAL), 0.1]
    following = dict(pairwise(asked))
    assert following["--orders"] == "all"
    assert following["--backbone"] == "resnet18"
    assert following["--device"] == "cuda"
    assert following["--precision"] == "bf16"
    assert [b for a, b in pairwise(asked) if a == "--set"] == ["training.pairs=batch"]
    assert passed.taken == "2.5 GB of main memory at the peak"


def test_memory_of_a_gpu_is_the_largest_and_energy_the_sum_of_all_trainings(tmp_path: Path) -> None:
    nodes = {
        "train/a": {"gpu_bytes": 2e9, "joules": 1500.0},
        "train/b": {"gpu_bytes": 3e9, "joules": 2000.0},
        "answers/a": {"score_gpu_bytes": 5e9, "score_joules": 9000.0},
        "answers/b": {"score_gpu_bytes": 1e9},
        "train/.tmp": {"gpu_bytes": 9e9, "joules": 9000.0},
    }
    assert eight_orders._on_gpu(tmp_path) == ""
    for name, facts in nodes.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "done.json").write_text(json.dumps({"facts": facts}))
    assert eight_orders._on_gpu(tmp_path) == ", 5.0 GB of the GPU's; 3.5 kJ for the trainings"


@pytest.mark.slow
def test_one_order_is_run_at_toy_size(setting: Conditions) -> None:
    passed = eight_orders.eight_orders(setting, 0.001)
    assert 20 <= passed.images <= 60
    assert passed.ran.seconds > 0
    assert "GB of main memory at the peak" in passed.taken
    assert "of the GPU" not in passed.taken
