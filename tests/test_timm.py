"""Backbones of timm: a ViT (LayerNorm) and a ConvNeXt, with their own features and no download."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cliqa_bench.backbones import _timm, staged
from cliqa_bench.benchmarks.pixels import cache
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.models.quality import QualityModel
from cliqa_bench.models.views import TaskNorm, TaskNorms

HAS_TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="the extra [timm] is not installed")
VIT, CONVNEXT = "vit_tiny_patch16_224.augreg_in21k", "convnext_atto"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Returns an empty cache of the Hugging Face hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_timm_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_timm, "find_spec", lambda name: None)
    for ask in (registry.check, registry.load):
        with pytest.raises(UserError, match=r'needs the extra: pip install "cliqa_bench\[timm\]"'):
            ask("backbones", "timm:never_asked_for")


def test_the_family_is_described_without_timm():
    assert registry.families("backbones") == ["timm:NAME"]
    assert registry.families("datasets") == ["csv:FILE"]
    assert registry.describe("backbones", "timm:NAME").startswith("Any model of the library timm")


def test_blocks_of_one_resolution_are_quarters_and_of_several_the_last_four():
    assert _timm._blocks([(14, 14)] * 12) == [2, 5, 8, 11]
    assert _timm._blocks([(14, 14)] * 5) == [1, 2, 3, 4]
    assert _timm._blocks([(14, 14)] * 3) == [0, 1, 2]
    assert _timm._blocks([(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]) == [1, 2, 3, 4]
    assert _timm._blocks([(28, 28), (14, 14)]) == [0, 1]


@needs_timm
@pytest.mark.parametrize(
    ("name", "sizes", "channels"),
    [
        (VIT, (192,) * 4, 25 * 192),  # two LayerNorms in each of twelve blocks, and the last one
        (CONVNEXT, (40, 80, 160, 320), 40 + 40 + 80 + 160 + 2 * 40 + 2 * 80 + 6 * 160 + 2 * 320 + 320),
    ],
)
def test_facts(name, sizes, channels):
    backbone = registry.load("backbones", f"timm:{name}")
    assert registry.load("backbones", f"timm:{name}") is backbone
    assert registry.check("backbones", f"timm:{name}") == f"timm:{name}"
    assert (backbone.stage_sizes, backbone.feature_size) == (sizes, sizes[-1])
    assert (backbone.title, backbone.gate_stages, backbone.gate_net) == (name, (3, 4), "distortion-bn")


@needs_timm
@pytest.mark.parametrize("name", [VIT, CONVNEXT, "resnet18"])
def test_a_model_of_timm_is_what_it_says(name):
    backbone = registry.load("backbones", f"timm:{name}")
    model = QualityModel(backbone.build("random", 7), backbone.feature_size, view=TaskNorms())
    model.add_task()
    model.eval()
    with torch.no_grad():
        features = model.features(torch.randn(2, 3, 50, 75), 0)
    assert tuple(s.shape[1] for s in features.stages) == backbone.stage_sizes
    assert features.final.shape == (2, backbone.feature_size)
    assert torch.allclose(features.final.norm(dim=1), torch.ones(2), atol=1e-5)
    assert sum(p.numel() for p in model.task_parameters(0)) == backbone.task_parameters()
    assert 2 * backbone.norm_channels + backbone.feature_size == backbone.task_parameters()


@needs_timm
def test_every_task_parameter_of_a_vit_gets_a_gradient_and_touches_no_other_task():
    backbone = registry.load("backbones", f"timm:{VIT}")
    model = QualityModel(backbone.build("random", 7), backbone.feature_size, view=TaskNorms())
    model.add_task()
    model.add_task()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        before = model.eval()(images)
    model.train()
    model.train_only(model.task_parameters(0))
    model.score(images, 0).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.task_parameters(0))
    torch.optim.SGD(model.parameters(), 1.0).step()
    with torch.no_grad():
        after = model.eval()(images)
    assert torch.equal(after[:, 1], before[:, 1])
    assert not torch.allclose(after[:, 0], before[:, 0])


@needs_timm
@pytest.mark.parametrize(("name", "ending"), [(VIT, "safetensors"), (CONVNEXT, "pth")])
def test_a_file_gives_timm_s_own_features(name, ending, tmp_path):
    import timm

    torch.manual_seed(5)
    theirs = timm.create_model(name).eval()
    path = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(theirs.state_dict(), path)
    ours = registry.load("backbones", f"timm:{name}").build(str(path)).eval()
    pixels = torch.rand(1, 3, 224, 224)
    source = theirs.pretrained_cfg
    ready = (pixels - torch.tensor(source["mean"])[:, None, None]) / torch.tensor(source["std"])[
        :, None, None
    ]
    given = (pixels - torch.tensor(cache.MEAN)[:, None, None]) / torch.tensor(cache.STD)[:, None, None]
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(ready), pre_logits=True)
        got = ours(given)
    torch.testing.assert_close(got.final, expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)


@needs_timm
def test_timm_s_resnet_agrees_with_torchvision_s(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(5)
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    nets = [
        registry.load("backbones", n).build(str(tmp_path / "w.pth")).eval()
        for n in ("resnet18", "timm:resnet18")
    ]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        one, other = (net(images) for net in nets)
    for a, b in zip((one.final, *one.stages), (other.final, *other.stages), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    models = [QualityModel(net, 512, view=TaskNorms()) for net in nets]
    counts = [sum(isinstance(m, TaskNorm) for m in model.modules()) for model in models]
    assert counts == [20, 20], "timm's BatchNormAct2d or BatchNorm2d counts as the other does"


@needs_timm
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("convnext_ato", "unknown model of timm 'convnext_ato' (did you mean 'convnext_atto'"),
        (
            "convnext_atto.made_up",
            "unknown model of timm 'convnext_atto.made_up' (did you mean 'convnext",
        ),
        ("", "unknown model of timm ''"),
        ("mixer_s32_224", "timm:mixer_s32_224 cannot be a backbone: it must give"),
    ],
)
def test_what_cannot_be_a_backbone(name, line):
    for ask in (registry.check, registry.load):
        with pytest.raises(UserError) as caught:
            ask("backbones", f"timm:{name}")
        assert str(caught.value).startswith(line)
        assert "\n" not in str(caught.value)


@needs_timm
def test_a_model_without_normalisation_cannot_be_a_backbone(monkeypatch):
    monkeypatch.setattr(staged, "NORMS", (nn.InstanceNorm3d,))  # what ConvNeXt has none of
    with pytest.raises(UserError, match=r"^timm:convnext_atto has no BatchNorm, LayerNorm or GroupNorm"):
        _timm.find.__wrapped__("convnext_atto")


@needs_timm
@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_of_something_else_is_named(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} does not hold convnext_atto"):
        registry.load("backbones", "timm:convnext_atto").build(str(path))


@needs_timm
def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"stem.0.weight": torch.zeros(40, 3, 4, 4)}, path)
    with pytest.raises(UserError, match=r"does not hold convnext_atto: .* Missing key"):
        registry.load("backbones", "timm:convnext_atto").build(str(path))


MOBILE = "mobilenetv2_100"


@pytest.fixture(scope="module")
def mobile():
    """A network's weights, and what it makes of an image."""
    import timm

    torch.manual_seed(5)
    state = timm.create_model(MOBILE).state_dict()
    return state, torch.rand(1, 3, 64, 64)


def features_of(name, state, images, path):
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    with torch.no_grad():
        return registry.load("backbones", name).build(str(path)).eval()(images).final


@needs_timm
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("classes", [0, 10])
def test_no_file_needs_a_classifier(mobile, classes, suffix, tmp_path, capsys):
    whole, images = mobile
    state = {name: value for name, value in whole.items() if not name.startswith("classifier.")}
    assert len(state) == len(whole) - 2
    if classes:
        state |= {"classifier.weight": torch.zeros(classes, 1280), "classifier.bias": torch.zeros(classes)}
    path = tmp_path / f"other.{suffix}"
    got = features_of(f"timm:{MOBILE}", state, images, path)
    assert torch.equal(got, features_of(f"timm:{MOBILE}", whole, images, tmp_path / "whole.pth"))
    said = f"{path}: its classifier has another number of classes and is ignored; only features are used\n"
    assert capsys.readouterr().err == (said if classes else "")


@needs_timm
@pytest.mark.parametrize("lacking", ["blocks.3.0.bn1.weight", "bn2.running_mean", "conv_stem.weight"])
def test_what_a_file_lacks_that_is_needed_is_named(mobile, lacking, tmp_path):
    state = {n: v for n, v in mobile[0].items() if n != lacking and not n.startswith("classifier.")}
    with pytest.raises(UserError, match=rf'does not hold {MOBILE}: .* Missing key.*: "{lacking}"') as caught:
        features_of(f"timm:{MOBILE}", state, mobile[1], tmp_path / "w.pth")
    assert "classifier" not in str(caught.value) and "\n" not in str(caught.value)


@needs_timm
def test_a_file_of_a_larger_network_is_refused(mobile, tmp_path):
    state = {**mobile[0], "blocks.0.0.se.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r'Unexpected key.*"blocks\.0\.0\.se\.weight"'):
        features_of(f"timm:{MOBILE}", state, mobile[1], tmp_path / "w.pth")


@needs_timm
def test_the_hub_s_cache_is_used_and_never_filled(hub):
    backbone = registry.load("backbones", f"timm:{VIT}")
    with pytest.raises(UserError, match=rf"download .*/timm/{VIT} and name a file with --weights PATH"):
        backbone.weights_file(None)
    assert not list(Path(hub).iterdir())
    folder = hub / f"models--timm--{VIT}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    file = folder / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert backbone.weights_file(None) == file
