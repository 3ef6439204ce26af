"""Scoring with folded normalisation gives what the network gives."""

import numpy as np
import pytest
import torch
from test_loaded_model import RUNS
from torch import nn

from cliqa_bench.backbones.staged import FeatureNet, Features, StagedNet
from cliqa_bench.execution.loaded_model import open_learned
from cliqa_bench.extensions import registry
from cliqa_bench.models.folding import Scorer, cast_weights, foldable, folded
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorms
from cliqa_bench.results.readouts import needed_heads

CONVOLUTIONS = {"scnn": 9, "resnet18": 20, "resnet50": 53, "vgg16": 13, "two_stream": 29}


def unsettle(net):
    """Gives every normalisation layer values of its own."""
    torch.manual_seed(3)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            if layer.running_mean is not None:
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.1)


def model_of(name, task_norms):
    backbone = registry.load("backbones", name)
    view = TaskNorms() if task_norms else None
    model = QualityModel(backbone.build("random", 7), backbone.feature_size, view=view)
    for _ in range(3):
        model.add_task()
    unsettle(model)
    for head in model.heads:
        nn.init.normal_(head.weight)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize("task_norms", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_scorer_says_what_its_model_says(name, task_norms):
    model = model_of(name, task_norms)
    images = torch.randn(2, 3, 64, 96)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(images)
        np.testing.assert_allclose(Scorer(model)(images), expected, atol=2e-6)
        np.testing.assert_allclose(Scorer(model, [2])(images)[:, 0], expected[:, 2], atol=2e-6)
        assert expected.std(dim=1).max() > 1e-3  # heads, and norms, do differ
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "count"), CONVOLUTIONS.items())
def test_every_convolution_with_a_norm_is_folded(name, count):
    model = model_of(name, True)
    assert len(foldable(model.net)) == count
    norms = [
        layer for layer in folded(model.net, model.view, 0).modules() if isinstance(layer, nn.BatchNorm2d)
    ]
    assert norms == []


@pytest.mark.parametrize("name", ["resnet18", "two_stream"])
def test_the_gates_features_are_those_of_the_whole_network(name):
    net = registry.load("backbones", name).build("random", 7).eval()
    unsettle(net)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = net(images).stages
        for stage, whole in zip(folded(net).gate_features(images), expected, strict=True):
            np.testing.assert_allclose(stage, whole, atol=2e-6)


class _Twice(nn.Module):
    """A convolution whose output is used before its normalisation as well: not to be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        maps = self.conv(x)
        return self.norm(maps) + maps


class _Whimsical(FeatureNet):
    """A network whose path depends on its input: it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def pooled(self, images, fixed):
        maps = self.conv(images)
        maps = self.norm(maps) if maps.sum() > 0 else maps
        final = maps.mean(dim=(2, 3))
        return Features(final, (final,))


class _Shared(nn.Module):
    """A convolution that two normalisations follow in turn: folding one would spoil the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.one(self.conv(x)) + self.two(self.conv(-x))


class _Ephemeral(nn.Module):
    """A normalisation that keeps no statistics: it takes each batch's own, always."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        return self.norm(self.conv(x))


@pytest.mark.parametrize(
    "net",
    [
        StagedNet(nn.Identity(), [_Twice()]),
        StagedNet(nn.Identity(), [_Shared()]),
        StagedNet(nn.Identity(), [_Ephemeral()]),
        _Whimsical(),
    ],
)
def test_what_cannot_be_folded_is_used_as_it_is(net):
    unsettle(net)
    images = torch.randn(2, 3, 16, 16)
    assert foldable(net) == []
    with torch.inference_mode():
        np.testing.assert_array_equal(folded(net.eval())(images).final, net(images).final)


def test_a_model_in_training_is_scored_as_outside_training():
    model = model_of("scnn", True)
    model.net.stages.append(nn.Dropout().eval())
    images = torch.randn(4, 3, 48, 48)
    with torch.inference_mode():
        expected = model(images)
        model.train()
        np.testing.assert_allclose(Scorer(model)(images), expected, atol=2e-6)
    assert model.net.training


def test_what_the_model_learns_later_does_not_reach_a_scorer():
    model = model_of("scnn", True)
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        scorer, expected = Scorer(model), model(images)
        for parameter in model.parameters():
            parameter.mul_(-1.5)
        np.testing.assert_allclose(scorer(images), expected, atol=2e-6)


@pytest.mark.slow
def test_bfloat16_scores_keep_their_digits():
    """Only the convolutions are coarse: a score itself is not rounded to bfloat16's three digits."""
    model = model_of("scnn", True)
    images = torch.randn(64, 3, 32, 32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for scores in (Scorer(model)(images), model(images)):
            assert scores.dtype == torch.float32
            assert len(scores[:, 0].unique()) > 60


@pytest.mark.parametrize(
    "name", ["scnn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet18", "two_stream"))]
)
@pytest.mark.parametrize("task_norms", [False, True])
def test_weights_rounded_once_give_the_bits_of_weights_rounded_for_every_batch(name, task_norms):
    model = model_of(name, task_norms)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    scorer = Scorer(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        plain = scorer(images)
        cast_weights(scorer.nets, "bf16")
        assert torch.equal(scorer(images), plain)
    kinds = {type(m).__name__: m.weight.dtype for m in scorer.nets.modules() if hasattr(m, "weight")}
    assert kinds["Conv2d"] == torch.bfloat16
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_weights_that_a_copy_shares_stay_as_they_are():
    torch.manual_seed(5)
    net = StagedNet(nn.Identity(), [nn.Sequential(_Twice(), nn.Conv2d(4, 5, 1))]).eval()
    copied = folded(net)
    shared = [part for part in net.parameters() if any(part is other for other in copied.parameters())]
    assert len(shared) == 6
    before = [part.detach().clone() for part in shared]
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        plain = copied(images).final
        cast_weights(copied, "bf16")
        assert torch.equal(copied(images).final, plain)
    for part, old in zip(shared, before, strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part, old)
    kinds = {type(m): m.weight.dtype for m in copied.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.BatchNorm2d: torch.float32}


def test_in_float32_weights_stay_as_they_are():
    scorer = Scorer(model_of("scnn", True))
    cast_weights(scorer.nets, "fp32")
    assert {p.dtype for p in scorer.parameters()} == {torch.float32}


# -- what heads can say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scnn", "resnet18", "resnet50", "vgg16"])
def test_features_of_networks_that_end_with_a_relu_are_not_negative(name):
    model = model_of(name, False)
    for layer in model.net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # most of what comes out of it is negative
            nn.init.normal_(layer.bias, -0.5)
            nn.init.normal_(layer.weight)
    with torch.inference_mode():
        final = model.net(torch.randn(4, 3, 64, 96)).final
    assert model.net.non_negative
    assert final.min() == 0 < final.max()


@pytest.mark.parametrize("name", ["two_stream", "vit_mini"])
def test_of_other_networks_nothing_is_said(name):
    assert not registry.load("backbones", name).build("random", 7).non_negative


def test_ranges_of_heads_are_reached_and_not_exceeded():
    rng = np.random.default_rng(2)
    weights = np.array([[0.6, -0.8, 0, 0], [0.5, 0.5, 0.5, 0.5], [-1, 0, 0, 0], [0.1, 0.7, -0.5, -0.5]])
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    scorer = Scorer(model_of("scnn", False))
    scorer.heads = torch.tensor(weights)
    low, high = scorer.ranges().T
    features = np.abs(rng.normal(size=(20_000, 4)) * rng.integers(0, 2, (20_000, 4)))
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)  # some are all 0
    said = features @ weights.T
    assert (said >= low - 1e-12).all() and (said <= high + 1e-12).all()
    np.testing.assert_allclose(low, np.minimum(said.min(axis=0), 0), atol=0.02)
    np.testing.assert_allclose(high, np.maximum(said.max(axis=0), 0), atol=0.02)

    scorer.nets[0].non_negative = False  # type: ignore[assignment]
    np.testing.assert_allclose(scorer.ranges(), np.tile([-1.0, 1.0], (4, 1)), rtol=1e-12)


def test_heads_are_left_out_within_the_tolerance_and_more_of_them_by_their_ranges():
    rng = np.random.default_rng(4)
    heads = rng.normal(size=(6, 32))
    heads /= np.linalg.norm(heads, axis=1, keepdims=True)
    scorer = Scorer(model_of("scnn", False))
    scorer.heads = torch.tensor(heads)
    ranges = scorer.ranges()
    features = np.abs(rng.normal(size=(500, 32)))
    said = features / np.linalg.norm(features, axis=1, keepdims=True) @ heads.T
    weights = rng.dirichlet(np.full(6, 0.2), 500)
    whole = (weights * said).sum(axis=1)
    middle, half = ranges.mean(axis=1), np.diff(ranges, axis=1)[:, 0] / 2
    for tolerance in (0.0, 0.01, 0.1):
        needed = needed_heads(weights * half, tolerance)
        found = np.where(needed, weights * said, weights * middle).sum(axis=1)
        assert np.abs(found - whole).max() <= tolerance + 1e-12
        by_weight = needed_heads(weights, tolerance)
        assert needed.sum() < by_weight.sum() or (not tolerance and (needed == by_weight).all())


def test_a_model_with_a_tolerance_knows_its_heads_ranges():
    learned = open_learned(RUNS, "tsn")
    scorer = learned.scorer(torch.device("cpu"), 0.2)
    heads = [one.heads.double().numpy()[0] for one in scorer.heads if isinstance(one.heads, torch.Tensor)]
    expected = [(-np.linalg.norm(w[w < 0]), np.linalg.norm(w[w > 0])) for w in heads]
    np.testing.assert_allclose(scorer.ranges, expected, rtol=1e-6)
    assert np.abs(scorer.ranges).max() < 0.99, "narrower than [-1, 1]"

    exact, images = learned.scorer(torch.device("cpu")), torch.randn(6, 3, 48, 64)
    np.testing.assert_array_equal(exact.ranges, [[-1, 1], [-1, 1]])
    with torch.inference_mode():
        whole, near = exact(images), scorer(images)
    assert np.isnan(near.heads).any()
    assert 0 < np.abs(whole.scores - near.scores).max() <= 0.2
