"""The quality model: the published forward pass, task-specific normalisation, parameter counts."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cliqa_bench.backbones.staged import StagedNet
from cliqa_bench.extensions import registry
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorm, TaskNorms

# see test_clip.py and test_lite0.py
BACKBONES = [name for name in registry.names("backbones") if name not in ("clip_b32", "lite0")]


def build(name, task_norms=True, tasks=0):
    backbone = registry.load("backbones", name)
    view = TaskNorms() if task_norms else None
    model = QualityModel(backbone.build("random", 7), backbone.feature_size, view=view)
    for _ in range(tasks):
        model.add_task()
    return backbone, model


def test_golden_forward(shared):
    golden = np.load(shared / "golden" / "tsn_forward.npz")
    _, model = build("resnet18", tasks=6)
    # drawing rounds otherwise on some processors: by at most 4e-8 a weight, which made 4.6e-6 in their sum
    weight = model.net.stem[0].weight.detach().double()
    assert float(weight.sum()) == pytest.approx(float(golden["conv1_checksum"]), abs=1e-5)
    # the published names, by the position of the layer in the network
    names = {"stem.1": "bn1"} | {f"stages.{i}": f"layer{i + 1}" for i in range(4)}
    for name, module in model.net.named_modules():
        if isinstance(module, TaskNorm):
            old = next(old for old in names if name.startswith(old))
            published = name.replace(old, names[old], 1)
            state = {k: torch.from_numpy(golden[f"bn/{published}.{k}"]) for k in ("weight", "bias")}
            state |= {
                k: torch.from_numpy(golden[f"bn/{published}.{k}"]) for k in ("running_mean", "running_var")
            }
            for layer in module.tasks:
                layer.load_state_dict(state, strict=False)
    for head, weight in zip(model.heads, golden["head_weights"], strict=True):
        head.weight.data = torch.from_numpy(weight[None])
    model.eval()
    with torch.no_grad():
        images = torch.from_numpy(golden["image"])
        np.testing.assert_allclose(model(images), golden["scores"], atol=1e-4)
        for stage, expected in zip(model.features(images, 0).stages, range(1, 5), strict=True):
            np.testing.assert_allclose(stage, golden[f"stage{expected}"], atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_is_what_it_says(name):
    backbone, model = build(name, tasks=1)
    features = model.eval().features(torch.randn(2, 3, 64, 96), 0)
    assert tuple(s.shape[1] for s in features.stages) == backbone.stage_sizes
    assert features.final.shape == (2, backbone.feature_size)
    assert torch.allclose(features.final.norm(dim=1), torch.ones(2), atol=1e-5)
    assert sum(p.numel() for p in model.task_parameters(0)) == backbone.task_parameters()


def test_the_paper_s_parameter_counts_for_resnet18():
    backbone = registry.load("backbones", "resnet18")
    assert backbone.task_parameters() == 10_112
    assert 128 * sum(backbone.stage_sizes[s - 1] for s in (3, 4)) == 98_304


def test_scores_are_cosines_only_outside_training():
    _, model = build("scnn", tasks=1)
    model.heads[0].weight.data *= 100
    images = torch.randn(4, 3, 48, 48)
    model.eval()
    assert model(images).abs().max() <= 1 + 1e-6
    features = model.features(images, 0).final
    model.train()
    assert torch.allclose(model.head(0, features), features @ model.heads[0].weight[0], atol=1e-5)


def test_tasks_start_alike_and_do_not_touch_each_other():
    _, model = build("scnn", tasks=2)
    images = torch.randn(8, 3, 48, 48)
    model.eval()
    before = model(images)
    assert torch.equal(before[:, 0], before[:, 1])
    model.train()
    model.train_only(model.task_parameters(0))
    model.score(images, 0).sum().backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    after = model.eval()(images)
    assert torch.equal(after[:, 1], before[:, 1]), "task 1 moved while task 0 learned"
    assert not torch.allclose(after[:, 0], before[:, 0])


def test_heads_start_from_their_seed_and_leave_the_generator_alone():
    backbone = registry.load("backbones", "scnn")

    def head(seed, draws):
        model = QualityModel(backbone.build("random", 7), backbone.feature_size, seed=seed)
        torch.rand(draws)
        before = torch.random.get_rng_state()
        model.add_task()
        assert torch.equal(torch.random.get_rng_state(), before)
        return model.heads[0].weight

    assert torch.equal(head(0, 1), head(0, 2))
    assert not torch.equal(head(0, 1), head(1, 1))


def test_a_new_task_starts_from_the_pre_trained_normalisation_not_from_the_last_task_s():
    _, model = build("scnn", tasks=1)
    norms = [m for m in model.modules() if isinstance(m, TaskNorm)]
    for norm in norms:
        for tensor in norm.tasks[0].state_dict().values():
            tensor.add_(1)
    model.add_task()
    for norm in norms:
        pristine = norm.pristine.state_dict()
        for name, tensor in norm.tasks[1].state_dict().items():
            assert torch.equal(tensor, pristine[name])


def test_last_statistics_are_those_of_the_last_layer_and_of_the_task():
    _, model = build("scnn", tasks=2)
    norms = [m for m in model.modules() if isinstance(m, TaskNorm)]
    for place, norm in enumerate(norms):
        for task, layer in enumerate(norm.tasks):
            layer.running_mean.fill_(100 * task + place)  # type: ignore[operator]
            layer.running_var.fill_(1000 + 100 * task + place)  # type: ignore[operator]
    for task in (0, 1):
        mean, variance = model.last_statistics(task) or (None, None)
        assert mean is not None and variance is not None
        assert mean.tolist() == [100 * task + len(norms) - 1] * 128
        assert variance.tolist() == [1000 + 100 * task + len(norms) - 1] * 128
    assert build("scnn", False, tasks=1)[1].last_statistics(0) is None


def test_pristine_statistics_never_move():
    _, model = build("scnn", tasks=1)
    norm = next(m for m in model.modules() if isinstance(m, TaskNorm))
    model.train()
    model.features(torch.randn(8, 3, 48, 48), None)
    assert not norm.pristine.state_dict()["running_mean"].any()


@pytest.mark.parametrize("task_norms", [True, False])
def test_own_state_goes_out_and_comes_back(task_norms):
    _, model = build("scnn", task_norms, tasks=2)
    for tensor in model.own_state().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor))
    _, other = build("scnn", task_norms, tasks=2)
    other.load_own_state(copy.deepcopy(model.own_state()))
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(model.eval()(images), other.eval()(images))
    with pytest.raises(RuntimeError, match="does not fit"):
        build("scnn", task_norms, tasks=1)[1].load_own_state(model.own_state())


def test_task_norms_cover_layer_and_group_norm():
    class Net(StagedNet):
        def __init__(self):
            super().__init__(nn.Identity(), [])
            self.a, self.b, self.c = nn.GroupNorm(1, 4), nn.LayerNorm(4), nn.BatchNorm2d(4)

    model = QualityModel(Net(), 4, view=TaskNorms())
    model.add_task()
    assert sum(isinstance(m, TaskNorm) for m in model.modules()) == 3
    assert sum(p.numel() for p in model.task_parameters(0)) == 4 + 3 * 8
