"""Where weights come from, and what is said when they are not there or are those of something else."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from cliqa_bench import registry
from cliqa_bench.errors import UserError

BACKBONES = registry.names("backbones")


@pytest.mark.parametrize("name", BACKBONES)
def test_random_weights_are_a_matter_of_the_seed(name):
    backbone = registry.load("backbones", name)
    first, again, other = (backbone.build("random", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)
    assert backbone.weights_id("random") == "random"


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(print)])
def test_a_file_of_something_else_is_named(name, content, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} does not hold"):
        registry.load("backbones", name).build(str(path))


def test_weights_of_another_network_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not hold S-CNN"):
        registry.load("backbones", "scnn").build(str(path))


def test_torchvision_s_file_gives_torchvision_s_features(tmp_path):
    torch.manual_seed(5)
    net = resnet18(weights=None).eval()
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(net.state_dict(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path))
        backbone = registry.load("backbones", "resnet18")
        assert backbone.weights_id(None) == backbone.weights_id(str(path))
        ours = backbone.build(None).eval()
    net.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(net(images), dim=1)
        torch.testing.assert_close(ours(images).final, expected, atol=1e-5, rtol=0)


def test_missing_imagenet_weights_say_where_to_get_them_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"download https://download\.pytorch\.org/.* --weights PATH"):
        registry.load("backbones", "resnet18").weights_file(None)
    assert not list(Path(tmp_path).iterdir())
