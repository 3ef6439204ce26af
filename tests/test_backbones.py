"""Where weights come from, what is said when they are not there, and what the networks compute with them."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from cliqa_bench.backbones.staged import StagedNet
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorm, TaskNorms

# see test_clip.py and test_lite0.py
BACKBONES = [name for name in registry.names("backbones") if name not in ("clip_b32", "lite0")]
IMAGENET = [name for name in BACKBONES if name not in ("scnn", "vit_mini")]


def unit(x):
    return torch.nn.functional.normalize(x, dim=1)


@pytest.mark.parametrize("name", BACKBONES)
def test_random_weights_are_a_matter_of_the_seed(name):
    backbone = registry.load("backbones", name)
    first, again, other = (backbone.build("random", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)
    assert backbone.weights_id("random").startswith("random")


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(print)])
def test_a_file_of_something_else_is_named(name, content, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} (does not hold|is not a safetensors file|is a pickle)"):
        registry.load("backbones", name).build(str(path))


def test_weights_of_another_network_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"does not hold S-CNN: .* Missing key"):
        registry.load("backbones", "scnn").build(str(path))
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"does not hold VGG-16: .* Missing key"):
        registry.load("backbones", "vgg16").build(str(path))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_s_file_gives_torchvision_s_features(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = registry.load("backbones", name)
    torch.manual_seed(5)
    net = getattr(models, name)(weights=None).eval()
    path = tmp_path / "hub" / "checkpoints" / backbone.weights_name
    path.parent.mkdir(parents=True)
    torch.save(net.state_dict(), path)
    assert backbone.weights_id(None) == backbone.weights_id(str(path))
    ours = backbone.build(None).eval()
    net.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).final, unit(net(images)), atol=1e-5, rtol=0)


def test_the_stages_are_those_of_the_network_in_their_order():
    net = models.resnet18(weights=None).eval()
    ours = registry.load("backbones", "resnet18").build("random", 1).eval()
    with torch.no_grad():  # both have the same tensors in the same order; the classifier comes last
        for theirs, tensor in zip(net.state_dict().values(), ours.state_dict().values(), strict=False):
            theirs.copy_(tensor)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps, expected = net.maxpool(net.relu(net.bn1(net.conv1(images)))), []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            maps = layer(maps)
            expected.append(unit(maps.mean(dim=(2, 3))))
        stages, gate = ours(images).stages, ours.gate_features(images)
    assert len(stages) == len(gate) == 4
    for stage, read, wanted in zip(stages, gate, expected, strict=True):
        torch.testing.assert_close(stage, wanted, atol=1e-5, rtol=0)
        assert torch.equal(stage, read)


def test_pooling_is_in_float32_even_of_bfloat16():
    maps = (1 + torch.arange(64.0).reshape(1, 1, 8, 8) / 512).bfloat16()
    net = StagedNet(nn.Identity(), [nn.Identity()])
    pooled = net.pooled(maps, None).final
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(maps.double().mean().item(), abs=1e-6)
    assert pooled.item() != maps.double().mean().bfloat16().item()


def test_building_a_network_leaves_random_numbers_alone():
    torch.manual_seed(4)
    first = torch.rand(3)
    torch.manual_seed(4)
    registry.load("backbones", "scnn").build("random", 7)
    assert torch.equal(torch.rand(3), first)


def test_weights_are_told_apart_by_their_content(tmp_path):
    backbone = registry.load("backbones", "resnet18")
    ids = []
    for folder, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "weights.pth"
        path.write_bytes(content)
        ids.append(backbone.weights_id(str(path)))
    assert ids == ["6b86b273ff34fce1", "d4735e3a265e16ee", "6b86b273ff34fce1"], "as sha256sum gives them"


@pytest.mark.parametrize("classes", [0, 10])
def test_no_residual_network_needs_a_classifier(classes, tmp_path, capsys):
    torch.manual_seed(5)
    whole = models.resnet18(weights=None).state_dict()
    state = {name: value for name, value in whole.items() if not name.startswith("fc.")}
    if classes:
        state |= {"fc.weight": torch.zeros(classes, 512), "fc.bias": torch.zeros(classes)}
    images, found = torch.rand(1, 3, 64, 64), []
    for number, held in enumerate((whole, state)):
        torch.save(held, tmp_path / f"{number}.pth")
        with torch.no_grad():
            found.append(
                registry.load("backbones", "resnet18").build(str(tmp_path / f"{number}.pth")).eval()(images)
            )
    assert torch.equal(found[0].final, found[1].final)
    assert ("classifier has another number of classes and is ignored" in capsys.readouterr().err) == bool(
        classes
    )
    del state["layer4.1.bn2.weight"]
    torch.save(state, tmp_path / "lacks.pth")
    with pytest.raises(
        UserError, match=r'does not hold ResNet-18: .*Missing key.*: "layer4\.1\.bn2\.weight"'
    ):
        registry.load("backbones", "resnet18").build(str(tmp_path / "lacks.pth"))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16_bn"])
def test_torchvision_names_its_weights_as_we_do(name):
    weights = models.get_model_weights(name).IMAGENET1K_V1
    backbone = registry.load("backbones", name.removesuffix("_bn"))
    assert backbone.usual_weights()[0].name == weights.url.rpartition("/")[2]


def test_vgg_is_torchvision_s_in_four_stages(tmp_path):
    with torch.device("meta"):  # 138 million parameters that are never drawn
        whole = models.vgg16_bn(weights=None)
    features = whole.features.to_empty(device="cpu").eval()
    for module in features.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    assert [k for k in whole.state_dict() if k.startswith("features.")] == list(state)
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    ours = registry.load("backbones", "vgg16").build(str(tmp_path / "vgg.pth")).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = unit(features(images).mean(dim=(2, 3)))
        torch.testing.assert_close(ours(images).final, expected, atol=1e-5, rtol=0)
        assert [64 // m.shape[2] for m in ours.maps(images)] == [4, 8, 16, 32]


@pytest.mark.parametrize("name", IMAGENET)
def test_missing_imagenet_weights_say_where_to_get_them_and_nothing_is_fetched(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"download https://download\.pytorch\.org/.* --weights PATH"):
        registry.load("backbones", name).weights_file(None)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("name", BACKBONES)
def test_multiply_adds_are_those_stated(name):
    backbone = registry.load("backbones", name)
    net = backbone.build("random").to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(backbone.gmacs, abs=0.01)


@pytest.mark.parametrize(
    ("name", "learnable", "kept"),
    [
        ("scnn", 2 * 736 + 128, 128 * (64 + 128)),
        ("vit_mini", 2 * 1248 + 96, 128 * (96 + 96)),
        ("resnet18", 2 * 4800 + 512, 128 * (256 + 512)),
        ("two_stream", 2 * 4800 + 512 * 128, 128 * 128),
    ],
)
def test_a_task_adds_its_normalisation_a_head_and_the_centroids_of_the_last_two_stages(name, learnable, kept):
    backbone = registry.load("backbones", name)
    assert (backbone.task_parameters(), backbone.centroid_values(128)) == (learnable, kept)


# -- two streams ---------------------------------------------------------------------------------------------


def resized(x, height, width):
    """Bilinear with aligned corners is linear interpolation along one axis after the other."""
    for axis, size in ((2, height), (3, width)):
        old = x.shape[axis]
        at = np.linspace(0, old - 1, size)
        low = np.minimum(np.floor(at).astype(int), old - 2)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = (1 - share) * x.take(low, axis) + share * x.take(low + 1, axis)
    return x


def test_bilinear_pooling_is_the_published_one():
    net = registry.load("backbones", "two_stream").build("random", 3).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        x1 = nn.Sequential(net.learning.stem, *net.learning.stages)(images).double().numpy()
        x2 = nn.Sequential(*net.frozen.stages)(images).double().numpy()
        features = net(images)
    assert (x1.shape[1:], x2.shape[1:]) == ((512, 2, 3), (128, 4, 6))
    product = np.einsum("bihw,bjhw->bij", x1, resized(x2, 2, 3)) / 6
    expected = product.reshape(2, -1) / np.linalg.norm(product.reshape(2, -1), axis=1, keepdims=True)
    np.testing.assert_allclose(features.final, expected, atol=1e-6)
    gate = x2.mean(axis=(2, 3))
    (stage,) = features.stages
    np.testing.assert_allclose(stage, gate / np.linalg.norm(gate, axis=1, keepdims=True), atol=1e-5)


def test_the_gate_of_two_streams_reads_the_frozen_one():
    net = registry.load("backbones", "two_stream").build("random", 3).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        frozen = unit(nn.Sequential(*net.frozen.stages)(images).mean(dim=(2, 3)))
        (gate,) = net.gate_features(images)
    torch.testing.assert_close(gate, frozen, atol=1e-5, rtol=0)


def test_the_second_stream_is_the_package_s_scnn_whatever_the_first_one_has():
    scnn = registry.load("backbones", "scnn").build(None).state_dict()
    backbone = registry.load("backbones", "two_stream")
    state = backbone.build("random", 1).frozen.state_dict()
    assert all(torch.equal(v, scnn[k]) for k, v in state.items())
    assert backbone.weights_id("random").endswith(registry.load("backbones", "scnn").weights_id(None))


@pytest.mark.parametrize("task_norms", [True, False])
def test_the_second_stream_never_learns(task_norms):
    backbone = registry.load("backbones", "two_stream")
    view = TaskNorms() if task_norms else None
    model = QualityModel(backbone.build("random", 3), backbone.feature_size, view=view)
    model.add_task()
    before = copy.deepcopy(model.state_dict())
    model.train()
    parameters = model.task_parameters(0) if task_norms else model.learnable_parameters()
    model.train_only(parameters)
    owned = [k for k, m in model.net.named_modules() if isinstance(m, TaskNorm)]
    assert (len(owned), {k.partition(".")[0] for k in owned} <= {"learning"}) == (20 * task_norms, True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, weight_decay=5e-4)
    model.score(torch.randn(4, 3, 64, 64), 0).sum().backward()
    optimizer.step()
    after = model.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert not [k for k in moved if k.startswith("net.frozen.")]
    statistics = [k for k in before if k.startswith("net.learning.") and "running_" in k]
    assert moved >= {k for k in statistics if (".tasks." in k) == task_norms}, (
        "statistics adapt, as in the paper"
    )
    assert all(p.grad is not None for p in parameters)


def test_heads_of_the_two_stream_network_start_as_published():
    backbone = registry.load("backbones", "two_stream")
    model = QualityModel(backbone.build("random", 3), backbone.feature_size)
    model.add_task()
    model.add_task()
    first, second = (parameter.detach() for parameter in model.heads.parameters())
    assert torch.equal(first, second)
    assert float(first.std()) == pytest.approx((2 / 65_536) ** 0.5, rel=0.02)
    assert first.shape == (1, 65_536), "and there are no biases"
